"""Figures of pictures and of class impressions: how they look, how they grow, their diagnostics."""

import math
from collections.abc import Sequence

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torchvision.utils import make_grid

from unlearn_lib.figures.style import INK, draw_bars, make_panels, place_legend, styled
from unlearn_lib.zeroshot import Impressions

MEASURES = ["confidence", "norm", "infeasible", "cosine"]
MANY_BARS = 30  # more classes than this are drawn as a histogram


@styled
def plot_pictures(
    images: torch.Tensor, names: list[str], title: str, columns: int = 10, rows: list[str] | None = None
) -> Figure:
    """Draw pictures [N, C, H, W], uint8 or float of any range, line by line, each with its name above it.

    Args:
        rows: what each line shows, written on its left.
    """
    lines = math.ceil(len(images) / columns)
    height = 1.3 + 0.2 * max(name.count("\n") + 1 for name in names)
    size = (1.25 * columns + 1.3 * bool(rows), height * lines)
    figure, axes = plt.subplots(lines, columns, figsize=size, squeeze=False)
    for axis in axes.flat[len(images) :]:
        axis.axis("off")
    for axis, picture, name in zip(axes.flat, images, names, strict=False):
        show_impression(axis, picture)
        axis.set_title(name, fontsize=11)
    for axis, label in zip(axes[:, 0], rows or [], strict=False):
        axis.set_ylabel(label, fontsize=11, rotation=0, ha="right", va="center")
    figure.suptitle(title)
    return figure


@styled
def plot_growth(growth: pd.DataFrame, pictures: torch.Tensor, title: str) -> Figure:
    """Draw one impression on its way from noise: eight of its states above, confidence and norm below."""
    figure = plt.figure(figsize=(12, 4.6))
    upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.35))
    for i, axis in enumerate(upper.subplots(1, 8)):
        step = round((len(growth) - 1) * (i / 7) ** 2)  # most happens early
        show_impression(axis, pictures[step])
        axis.set_title(f"step {growth.index[step]}", fontsize=11)
    _draw_growth(lower.subplots(1, 2), growth)
    figure.suptitle(title)
    return figure


@styled
def plot_growth_curves(growth: pd.DataFrame) -> Figure:
    """Draw confidence and norm of one impression over the steps, small enough for a panel in a narrow window."""
    figure, axes = plt.subplots(1, 2, figsize=(5.4, 2.3))
    _draw_growth(axes, growth)
    for axis in axes:
        axis.locator_params(nbins=4)
    return figure


def _draw_growth(axes: Sequence[Axes], growth: pd.DataFrame) -> None:
    style = {"style": ["-", "--"], "color": INK, "lw": 2, "xlabel": "step", "legend": False}
    growth[["confidence", "norm"]].plot(subplots=True, ax=axes, **style)
    axes[0].set(ylabel="confidence", ylim=(0, 1.05))
    axes[1].set(ylabel="norm", ylim=(0, None))


@styled
def plot_recipes(diagnoses: dict[str, pd.DataFrame], title: str) -> Figure:
    """Draw diagnostics of several recipes side by side, as means over the classes; each has an axis of its own."""
    means = pd.DataFrame({name: diagnosis[MEASURES].mean() for name, diagnosis in diagnoses.items()})
    figure, panels = make_panels({what: means.loc[[what]] for what in MEASURES}, 4, (3, 3.6))
    for axis, values in panels:
        bars = draw_bars(axis, values)
        axis.set(xticks=[], xlim=(-0.45, 0.45))
        axis.margins(y=0.2)
        if not values.any(axis=None):
            axis.set_yticks([])
            _say_zero(axis)
            continue
        for bar in bars:
            fmt = "{:.0f}" if bar.datavalues[0] > 10 else "{:.2f}"
            axis.bar_label(bar, fmt=fmt, fontsize=11, padding=2, rotation=90 if len(bars) > 4 else 0)
    place_legend(figure, bars, means.columns)
    figure.suptitle(title)
    return figure


def _say_zero(axis: Axes) -> None:
    """Write in an empty diagram why it is empty."""
    text = "0: no number here\nis outside the\nrange of the layer"
    axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes)


@styled
def plot_impressions(impressions: Impressions, diagnosis: pd.DataFrame, classes: list[str], title: str) -> Figure:
    """Draw the first impressions of ten classes, and the diagnostics of all: a bar a class, or a histogram for many.

    Args:
        diagnosis: a row a class, indexed by class, with the columns confidence, norm, infeasible and cosine.
    """
    is_many = len(diagnosis) > MANY_BARS
    height = 2.9 if is_many else max(2.9, 0.25 * len(diagnosis))
    figure = plt.figure(figsize=(12, 1.7 + height))
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.7, height))
    shown = diagnosis.index[:10]
    for axis, label in zip(upper.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        show_impression(axis, impressions.x[impressions.labels == label][0])
        axis.set_title(classes[label], fontsize=12)
    axes = lower.subplots(1, 4, sharey=not is_many)
    kind = {"kind": "hist", "bins": 20} if is_many else {"kind": "barh", "width": 0.8}
    values = diagnosis.set_axis([classes[c] for c in diagnosis.index])
    for axis, what in zip(axes, MEASURES, strict=True):
        values[what].plot(ax=axis, color=INK, xlabel=what, ylabel="", **kind)
        if what != "norm":
            axis.set_xlim(min(0, values[what].min()), 1.02)  # a cosine may be negative
        if what == "infeasible" and not values[what].any():
            _say_zero(axis)
    if is_many:
        axes[0].set_ylabel("classes")
    else:
        axes[0].invert_yaxis()
    figure.suptitle(title)
    return figure


def show_impression(axis: Axes, x: torch.Tensor) -> None:
    """Draw one impression as `as_picture` returns it."""
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    axis.imshow(as_picture(x))


def as_picture(x: torch.Tensor) -> np.ndarray:
    """Return one impression as RGB uint8 [H, W, 3]: pixels as a picture, channels as tiles, a vector as cells."""
    x = x.detach().cpu()
    low, high = (0, 255) if x.dtype == torch.uint8 else (x.min(), x.max())
    x = (x.float() - low) / (high - low + 1e-9)
    if x.dim() == 3 and x.shape[0] in (1, 3):
        return (255 * x.permute(1, 2, 0).expand(-1, -1, 3)).to(torch.uint8).numpy()
    tiles = x[:, None] if x.dim() == 3 else x.reshape(-1, 1, 1, 1)
    side = math.ceil(len(tiles) ** 0.5)
    whole = make_grid(tiles, nrow=side, padding=0, pad_value=torch.nan)[0]
    return matplotlib.colormaps["viridis"].with_extremes(bad="white")(whole.numpy(), bytes=True)[..., :3]
