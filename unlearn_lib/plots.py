"""Figures, in one style: colour-blind safe, every colour doubled by a hatch or a line style."""

import math
import os
from collections.abc import Collection
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure

from unlearn_lib.data import REPOSITORY
from unlearn_lib.impressions import Impressions

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


def plot_impressions(impressions: Impressions, diagnosis: pd.DataFrame, classes: list[str], title: str) -> Figure:
    """The first impression of each class, and the diagnostics of all: confidence, norm, infeasible share, cosine."""
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(12, 6))
        upper, lower = figure.subfigures(2, 1)
        shown = diagnosis.index[:10]
        for axis, label in zip(upper.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            x = impressions.x[impressions.labels == label][0]
            show_impression(axis, x)
            axis.set_title(classes[label], fontsize=12)
        for axis, (i, what) in zip(
            lower.subplots(1, 4), enumerate(("confidence", "norm", "infeasible", "cosine")), strict=True
        ):
            sns.barplot(x=diagnosis[what], y=[classes[c] for c in diagnosis.index], color=COLOURS[i], ax=axis)
            axis.set(xlabel=what, ylabel="", yticks=axis.get_yticks() if i == 0 else [])
            axis.set_xlim(0, None if what == "norm" else 1.02)
        figure.suptitle(title)
    return figure


def show_impression(axis, x: torch.Tensor) -> None:
    """Draw one impression: pixels as a picture, channels as tiles, a vector as a square of cells."""
    axis.set(xticks=[], yticks=[])
    if x.dim() == 3 and x.shape[0] in (1, 3):
        x = (x - x.min()) / (x.max() - x.min() + 1e-9)
        axis.imshow(x.permute(1, 2, 0).expand(-1, -1, 3).numpy())
        return
    tiles = x if x.dim() == 3 else x.reshape(-1, 1, 1)
    side = math.ceil(len(tiles) ** 0.5)
    padded = torch.full((side * side, *tiles.shape[1:]), torch.nan)
    padded[: len(tiles)] = tiles
    picture = padded.unflatten(0, (side, side)).permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
    axis.imshow(picture.numpy(), cmap="viridis")
