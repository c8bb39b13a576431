"""Figures of pictures and of class impressions: what they look like, how they grow, what the diagnostics say."""

import math

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from unlearn_lib.figures.style import INK, STYLE, choose_styles
from unlearn_lib.zeroshot import Impressions

MEASURES = ("confidence", "norm", "infeasible", "cosine")


def plot_pictures(
    images: torch.Tensor, names: list[str], title: str, columns: int = 10, rows: list[str] | None = None
) -> Figure:
    """Pictures [N, C, H, W], uint8 or float of any range, line by line, each with its name above it.

    rows: what each line shows, written on its left.
    """
    lines = math.ceil(len(images) / columns)
    labels, height = rows or [], 1.22 + 0.2 * max(name.count("\n") + 1 for name in names)
    with plt.rc_context(STYLE):
        size = (1.25 * columns + 1.3 * bool(labels), height * lines + 0.35)
        figure, axes = plt.subplots(lines, columns, figsize=size, squeeze=False)
        for axis in axes.flat[len(images) :]:
            axis.axis("off")
        for axis, picture, name in zip(axes.flat, images, names, strict=False):
            show_impression(axis, picture)
            axis.set_title(name, fontsize=11)
        for axis, label in zip(axes[:, 0], labels, strict=False):
            axis.set_ylabel(label, fontsize=11, rotation=0, ha="right", va="center")
        figure.suptitle(title)
    return figure


def plot_growth(growth: pd.DataFrame, pictures: torch.Tensor, title: str) -> Figure:
    """One impression on its way from noise: eight of its states above, confidence and norm over the steps below."""
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(12, 4.6))
        upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.35))
        chosen = [round((len(growth) - 1) * (i / 7) ** 2) for i in range(8)]  # most happens early
        for axis, step in zip(upper.subplots(1, 8), chosen, strict=True):
            show_impression(axis, pictures[step])
            axis.set_title(f"step {step}", fontsize=11)
        _draw_growth(lower.subplots(1, 2), growth)
        figure.suptitle(title)
    return figure


def plot_growth_curves(growth: pd.DataFrame) -> Figure:
    """Confidence and norm of one impression over the steps, small enough for a panel in a narrow window."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(5.4, 2.3))
        _draw_growth(axes, growth)
        for axis in axes:
            axis.locator_params(nbins=4)
    return figure


def _draw_growth(axes, growth: pd.DataFrame) -> None:
    for axis, (i, what) in zip(axes, enumerate(("confidence", "norm")), strict=True):
        axis.plot(growth.index, growth[what], ("-", "--")[i], color=INK, lw=2)
        axis.set(xlabel="step", ylabel=what, ylim=(0, (1.05, None)[i]))


def plot_recipes(diagnoses: dict[str, pd.DataFrame], title: str) -> Figure:
    """Diagnostics of several recipes side by side, mean over the classes; the norm has an axis of its own."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 4, figsize=(12, 3.6))
        for axis, what in zip(axes, MEASURES, strict=True):
            axis.set_title(what)
            values = {name: diagnosis[what].mean() for name, diagnosis in diagnoses.items()}
            if what == "infeasible" and not any(values.values()):
                _say_feasible(axis)
                continue
            for i, (name, look) in enumerate(choose_styles(diagnoses).items()):
                value = values[name]
                axis.bar(name, value, color=look.colour, hatch=look.hatch)
                axis.annotate(f"{value:.2f}" if value < 10 else f"{value:.0f}", (i, value), ha="center", va="bottom")
            axis.margins(y=0.15)
            axis.tick_params(axis="x", rotation=25 if len(values) > 2 else 0)
        figure.suptitle(title)
    return figure


def _say_feasible(axis) -> None:
    """In the place of an empty diagram."""
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    text = "0: no number here\nis outside the\nrange of the layer"
    axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes)


def plot_impressions(impressions: Impressions, diagnosis: pd.DataFrame, classes: list[str], title: str) -> Figure:
    """The first impressions of ten classes, and the diagnostics of all: confidence, norm, infeasible share, cosine.

    Bars, a class each; of more than thirty classes a histogram.
    """
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(12, 4.6))
        upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.75))
        shown = diagnosis.index[:10]
        for axis, label in zip(upper.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            x = impressions.x[impressions.labels == label][0]
            show_impression(axis, x)
            axis.set_title(classes[label], fontsize=12)
        names = [classes[c] for c in diagnosis.index]
        for i, (axis, what) in enumerate(zip(lower.subplots(1, 4), MEASURES, strict=True)):
            low = min(0, diagnosis[what].min())  # a cosine may be negative
            limits = (low, None if what == "norm" else 1.02)
            if what == "infeasible" and not diagnosis[what].any():
                _say_feasible(axis)
                axis.set_xlabel(what)
            elif len(diagnosis) > 30:
                axis.hist(diagnosis[what], bins=20, range=None if what == "norm" else (low, 1), color=INK)
                axis.set(xlabel=what, ylabel="classes" if i == 0 else "", xlim=limits)
            else:
                axis.barh(range(len(names)), diagnosis[what], color=INK)
                axis.set(xlabel=what, xlim=limits, ylim=(len(names) - 0.5, -0.5))
                axis.set_yticks(range(len(names)) if i == 0 else [], names if i == 0 else [])
        figure.suptitle(title)
    return figure


def show_impression(axis, x: torch.Tensor) -> None:
    """Draw one impression as `as_picture` sees it."""
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    axis.imshow(as_picture(x))


def as_picture(x: torch.Tensor) -> np.ndarray:
    """One impression as RGB uint8 [H, W, 3]: pixels as a picture, channels as tiles, a vector as a square of cells."""
    x = x.detach().cpu()
    low, high = (0, 255) if x.dtype == torch.uint8 else (x.min(), x.max())
    x = (x.float() - low) / (high - low + 1e-9)
    if x.dim() == 3 and x.shape[0] in (1, 3):
        return (255 * x.permute(1, 2, 0).expand(-1, -1, 3)).to(torch.uint8).numpy()
    tiles = x if x.dim() == 3 else x.reshape(-1, 1, 1)
    side = math.ceil(len(tiles) ** 0.5)
    padded = torch.full((side * side, *tiles.shape[1:]), torch.nan)
    padded[: len(tiles)] = tiles
    whole = padded.unflatten(0, (side, side)).permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
    return matplotlib.colormaps["viridis"].with_extremes(bad="white")(whole.numpy(), bytes=True)[..., :3]
