"""Figures, in one style: colour-blind safe, every colour doubled by a hatch or a line style."""

import math
import os
from collections.abc import Collection
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure

from unlearn_lib.data import REPOSITORY
from unlearn_lib.impressions import Impressions

# Start the backend now: inside a style's context the notebook's would start, and be undone with the style.
plt.switch_backend(matplotlib.get_backend())

COLOURS = sns.color_palette("colorblind")
HATCHES = ("", "//", "..", "xx", "\\\\", "++")
LINES = ("-", "--", "-.", ":")
STYLE = {
    "font.size": 13,
    "axes.titlesize": 14,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.6,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 100,
}


def save_figure(figure: Figure, name: str, folder: str | Path | None = None) -> Path:
    """Write `<name>.png` into `folder` (`$UNLEARN_FIGURES`, else the repository's `figures/`) and return its path."""
    folder = Path(folder or os.environ.get("UNLEARN_FIGURES") or REPOSITORY / "figures")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    figure.savefig(path, metadata={"Software": None})
    return path


def plot_history(histories: dict[str, dict], title: str) -> Figure:
    """Training curves: loss and accuracy over epochs, training dashed, validation solid, one colour a model."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(11, 4))
        for colour, (name, history) in zip(COLOURS, histories.items(), strict=False):
            epochs = range(1, len(history["lr"]) + 1)
            for axis, what in zip(axes, ("loss", "accuracy"), strict=True):
                axis.plot(epochs, history[f"train_{what}"], "--", color=colour, label=f"{name}, training")
                axis.plot(epochs, history[f"val_{what}"], "-o", ms=4, color=colour, label=f"{name}, validation")
        for axis, what in zip(axes, ("loss (cross-entropy)", "accuracy"), strict=True):
            axis.set(xlabel="epoch", ylabel=what)
            axis.xaxis.get_major_locator().set_params(integer=True)
        axes[1].yaxis.set_major_formatter("{x:.0%}")
        axes[1].legend(frameon=False)
        figure.suptitle(title)
    return figure


def plot_per_class(metrics: dict[str, dict | None], classes: list[str], forget: Collection[int], title: str) -> Figure:
    """Bars of every class's accuracy, one colour and hatch a model; forget classes are shaded and named as such."""
    blocks = {name: block for name, block in metrics.items() if block is not None}
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(max(11, 1.1 * len(classes)), 4.4))
        width = 0.84 / len(blocks)
        for i, (name, block) in enumerate(blocks.items()):
            places = [c - 0.42 + (i + 0.5) * width for c in range(len(classes))]
            heights = [value or 0 for value in block["per_class_accuracy"]]
            axis.bar(places, heights, width, color=COLOURS[i], hatch=HATCHES[i], edgecolor="white", label=name)
        for c in forget:
            axis.axvspan(c - 0.5, c + 0.5, color="0.9", zorder=0)
        words = [f"{name}\n(forget)" if c in set(forget) else name for c, name in enumerate(classes)]
        axis.set_xticks(range(len(classes)), words, rotation=30 if max(map(len, classes)) > 10 else 0)
        axis.set(ylabel="accuracy", ylim=(0, 1.02), xlim=(-0.5, len(classes) - 0.5))
        axis.yaxis.set_major_formatter("{x:.0%}")
        axis.legend(ncols=len(blocks), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
        figure.suptitle(title)
    return figure


def plot_pictures(images: torch.Tensor, words: list[str], title: str, columns: int = 10) -> Figure:
    """Pictures [N, C, H, W], uint8 or float of any range, in rows, each with its words above it."""
    rows = math.ceil(len(images) / columns)
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(rows, columns, figsize=(1.25 * columns, 1.5 * rows + 0.6), squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for axis, picture, word in zip(axes.flat, images, words, strict=False):
            show_impression(axis, picture.float())
            axis.set_title(word, fontsize=11)
        figure.suptitle(title)
    return figure


def plot_confusions(
    metrics: dict[str, dict | None], classes: list[str], title: str, rows: Collection[int] | None = None
) -> Figure:
    """Confusion matrices side by side, each row in per cent of its class; `rows` shows these classes only."""
    blocks = {name: block for name, block in metrics.items() if block is not None}
    rows = list(range(len(classes))) if rows is None else list(rows)
    columns = min(2, len(blocks))
    lines = math.ceil(len(blocks) / columns)
    size = (6.2 * columns, lines * (0.4 * len(rows) + 0.9) + 0.9 + 0.1 * max(map(len, classes)))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(lines, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
        for axis, (name, block) in zip(axes.flat, blocks.items(), strict=False):
            counts = torch.tensor(block["confusion"], dtype=torch.float)[rows]
            share = 100 * counts / counts.sum(1, keepdim=True).clamp(min=1)
            share = pd.DataFrame(share.numpy(), index=[classes[c] for c in rows], columns=classes)
            marks = share.map(lambda value: f"{value:.0f}" if value >= 1 else "")
            sns.heatmap(share, vmin=0, vmax=100, cmap="cividis", annot=marks, fmt="", cbar=False, ax=axis)
            axis.set_title(name)
            axis.tick_params(axis="x", rotation=90 if max(map(len, classes)) > 2 else 0)
            axis.tick_params(axis="y", rotation=0)
        figure.supxlabel("answer", fontsize=13)
        figure.supylabel("class", fontsize=13)
        figure.suptitle(title, fontsize=14)
    return figure


def plot_losses(histories: dict[str, dict], title: str) -> Figure:
    """Forget loss (solid) and retain loss (dashed) on the impressions over the epochs, one panel a method."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(histories), figsize=(5.5 * len(histories), 4), squeeze=False)
        for axis, (name, history) in zip(axes[0], histories.items(), strict=True):
            epochs = range(1, len(history["forget_loss"]) + 1)
            axis.plot(epochs, history["forget_loss"], "-o", ms=4, color=COLOURS[3], label="forget loss")
            axis.plot(epochs, history["retain_loss"], "--s", ms=4, color=COLOURS[0], label="retain loss")
            axis.set(title=name, xlabel="epoch", ylabel="loss on impressions", ylim=(0, None))
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.legend(frameon=False)
        figure.suptitle(title)
    return figure


def plot_responsive(layers: pd.DataFrame, title: str, share: float = 0.8) -> Figure:
    """The share of impressions that reach their class, layer by layer; learnable layers hatched."""
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(11, 4))
        for i, (_, row) in enumerate(layers.iterrows()):
            look = {"color": COLOURS[0], "hatch": "//"} if row["learnable"] else {"color": COLOURS[1]}
            axis.bar(i, row["reached"], edgecolor="white", **look)
        axis.axhline(share, color="0.3", ls="--")
        axis.text(len(layers) - 0.45, share, f"{share:.0%}", va="center")
        axis.set_xticks(range(len(layers)), layers.index)
        axis.set(xlabel="layer, from pixels to logits (hatched: has weights)", ylabel="impressions that reach it")
        axis.set(ylim=(0, 1.05), xlim=(-0.5, len(layers) - 0.5))
        axis.yaxis.set_major_formatter("{x:.0%}")
        axis.set_title(title)
    return figure


def plot_growth(growth: pd.DataFrame, pictures: torch.Tensor, title: str, shown: int = 8) -> Figure:
    """One impression on its way from noise: `shown` of its states above, confidence and norm over the steps below."""
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(12, 5.2))
        upper, lower = figure.subfigures(2, 1)
        last = len(growth) - 1
        chosen = [round(last * (i / (shown - 1)) ** 2) for i in range(shown)]  # most happens early
        for axis, step in zip(upper.subplots(1, shown), chosen, strict=True):
            show_impression(axis, pictures[step])
            axis.set_title(f"step {step}", fontsize=11)
        _draw_growth(lower.subplots(1, 2), growth)
        figure.suptitle(title)
    return figure


def plot_growth_curves(growth: pd.DataFrame) -> Figure:
    """Confidence and norm of one impression over the steps."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(8, 2.9))
        _draw_growth(axes, growth)
    return figure


def _draw_growth(axes, growth: pd.DataFrame) -> None:
    for axis, (i, what) in zip(axes, enumerate(("confidence", "norm")), strict=True):
        axis.plot(growth.index, growth[what], LINES[i], color=COLOURS[i], lw=2)
        axis.set(xlabel="step", ylabel=what, ylim=(0, None))


def plot_recipes(diagnoses: dict[str, pd.DataFrame], title: str) -> Figure:
    """Diagnostics of several recipes side by side, mean over the classes; the norm has an axis of its own."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 4, figsize=(12, 3.6))
        for axis, what in zip(axes, ("confidence", "norm", "infeasible", "cosine"), strict=True):
            for i, (name, diagnosis) in enumerate(diagnoses.items()):
                value = diagnosis[what].mean()
                axis.bar(name, value, color=COLOURS[i], hatch=HATCHES[i], edgecolor="white")
                axis.annotate(f"{value:.2f}" if value < 10 else f"{value:.0f}", (i, value), ha="center", va="bottom")
            axis.set(title=what, ylim=(0, axis.get_ylim()[1] * 1.12))
        figure.suptitle(title)
    return figure


def plot_cost(cost: pd.DataFrame, title: str) -> Figure:
    """Seconds over the number of impressions, and the straight line through the two ends."""
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(7, 4))
        axis.plot(cost["impressions"], cost["seconds"], "o", ms=8, color=COLOURS[0], label="measured")
        ends = cost.sort_values("impressions").iloc[[0, -1]]
        axis.plot(ends["impressions"], ends["seconds"], "--", color=COLOURS[1], label="straight line")
        axis.set(xlabel="impressions (classes x samples)", ylabel="seconds", ylim=(0, None), title=title)
        axis.legend(frameon=False)
    return figure


def plot_impressions(impressions: Impressions, diagnosis: pd.DataFrame, classes: list[str], title: str) -> Figure:
    """The first impressions of ten classes, and the diagnostics of all: confidence, norm, infeasible share, cosine.

    Bars, a class each; of more than thirty classes a histogram.
    """
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(12, 5.2))
        upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.7))
        shown = diagnosis.index[:10]
        for axis, label in zip(upper.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            x = impressions.x[impressions.labels == label][0]
            show_impression(axis, x)
            axis.set_title(classes[label], fontsize=12)
        for axis, (i, what) in zip(
            lower.subplots(1, 4), enumerate(("confidence", "norm", "infeasible", "cosine")), strict=True
        ):
            limits = (0, None if what == "norm" else 1.02)
            if len(diagnosis) > 30:
                axis.hist(diagnosis[what], bins=20, range=None if what == "norm" else (0, 1), color=COLOURS[i])
                axis.set(xlabel=what, ylabel="classes" if i == 0 else "", xlim=limits)
                continue
            sns.barplot(x=diagnosis[what], y=[classes[c] for c in diagnosis.index], color=COLOURS[i], ax=axis)
            axis.set(xlabel=what, ylabel="", yticks=axis.get_yticks() if i == 0 else [], xlim=limits)
        figure.suptitle(title)
    return figure


def show_impression(axis, x: torch.Tensor) -> None:
    """Draw one impression as `as_picture` sees it."""
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    axis.imshow(as_picture(x))


def as_picture(x: torch.Tensor) -> np.ndarray:
    """One impression as RGB uint8 [H, W, 3]: pixels as a picture, channels as tiles, a vector as a square of cells."""
    x = x.detach().cpu().float()
    low, high = (0, 255) if _is_picture(x) and x.max() > 20 else (x.min(), x.max())  # uint8, or normalised pixels
    x = (x - low) / (high - low + 1e-9)
    if _is_picture(x):
        return (255 * x.permute(1, 2, 0).expand(-1, -1, 3)).to(torch.uint8).numpy()
    tiles = x if x.dim() == 3 else x.reshape(-1, 1, 1)
    side = math.ceil(len(tiles) ** 0.5)
    padded = torch.full((side * side, *tiles.shape[1:]), torch.nan)
    padded[: len(tiles)] = tiles
    whole = padded.unflatten(0, (side, side)).permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
    return matplotlib.colormaps["viridis"].with_extremes(bad="white")(whole.numpy(), bytes=True)[..., :3]


def _is_picture(x: torch.Tensor) -> bool:
    """Whether x [C, H, W] has the one or three channels of a picture."""
    return x.dim() == 3 and x.shape[0] in (1, 3)
