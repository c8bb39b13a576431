"""Figures of training and unlearning: curves, losses, layers that respond, seconds."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unlearn_lib.figures.style import (
    FORGET,
    INK,
    RETAIN,
    choose_styles,
    draw_epochs,
    make_panels,
    name_columns,
    place_legend,
    sentence_figure,
    show_decades,
    show_percent,
    styled,
)


@styled
def plot_history(histories: dict[str, dict], title: str) -> Figure:
    """Draw loss and accuracy over epochs: training dashed, validation solid, one colour and marker a model."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.4))
    for axis, what in zip(axes, ("loss", "accuracy"), strict=True):
        for name, look in choose_styles(histories).items():
            for part, word, line in (("train", "training", "--"), ("val", "validation", "-")):
                values = {f"{name}, {word}": histories[name][f"{part}_{what}"]}
                draw_epochs(axis, values, style=line, color=look.colour, marker=look.marker, ms=4, ylabel=what)
    axes[0].set_ylabel("loss (cross-entropy)")
    show_percent(axes[1].yaxis)
    place_legend(figure, *axes[1].get_legend_handles_labels())
    figure.suptitle(title)
    return figure


@styled
def plot_losses(histories: dict[str, dict], title: str) -> Figure:
    """Draw forget loss (solid) and retain loss (dashed) on the impressions over the epochs, one panel a method.

    The axis is logarithmic: losses fall by orders of magnitude in the first epochs.
    Where a loss is negative, the axis is linear near zero.
    """
    figure, panels = make_panels(histories, 3, (5.5, 4))
    for axis, history in panels:
        losses = {"forget loss": history["forget_loss"], "retain loss": history["retain_loss"]}
        scale = "sym" if min(map(min, losses.values())) < 0 else True
        style = {"style": ["-o", "--s"], "color": [FORGET, RETAIN], "ms": 4, "ylabel": "loss on impressions"}
        draw_epochs(axis, losses, logy=scale, **style)
        show_decades(axis.yaxis)
        axis.legend()
    figure.suptitle(title)
    return figure


@styled
def plot_responsive(layers: pd.DataFrame, title: str, share: float = 0.8) -> Figure:
    """Draw the share of impressions that reach their class, layer by layer; learnable layers hatched.

    Where all impressions reach their class at every layer, the figure is a sentence.
    """
    if (layers["reached"] == 1).all():
        names = ", ".join(layers.index)
        return sentence_figure(
            title, f"All impressions reach their class, at each of the {len(layers)} layers: {names}."
        )
    figure, axis = plt.subplots(figsize=(11, 4))
    looks = {True: (INK, "//"), False: ("0.6", "")}
    colours, hatches = zip(*layers["learnable"].map(looks), strict=True)
    axis.bar(range(len(layers)), layers["reached"], color=colours, hatch=hatches)
    axis.axhline(share, color="0.3", ls="--")
    axis.text(len(layers) - 0.45, share, f"{share:.0%}", va="center")
    axis.set(xlabel="layer, from pixels to logits (hatched: has weights)", ylabel="impressions that reach it")
    axis.set(ylim=(0, 1.05), xlim=(-0.5, len(layers) - 0.5), title=title)
    show_percent(axis.yaxis)
    name_columns(axis, layers.index)
    return figure


def fit_cost(impressions: pd.Series, seconds: pd.Series) -> tuple[np.poly1d, float]:
    """Fit seconds = start + each * impressions by least squares of the relative errors.

    Returns:
        The line, and its R²: how much smaller its squared relative errors are than those of the best constant.
    """
    constant, line = (np.poly1d(np.polyfit(impressions, seconds, degree, w=1 / seconds)) for degree in (0, 1))
    left, spread = (np.sum((fit(impressions) / seconds - 1) ** 2) for fit in (line, constant))
    return line, 1 - left / spread


@styled
def plot_cost(cost: pd.DataFrame, title: str) -> Figure:
    """Draw seconds over the number of impressions, and the line of `fit_cost` with its R².

    Args:
        cost: columns impressions, seconds.
    """
    figure, axis = plt.subplots(figsize=(7, 4.4))
    axis.plot(cost["impressions"], cost["seconds"], "o", ms=8, color=INK, label="measured")
    _draw_fit(axis, cost["impressions"], cost["seconds"], title)
    axis.set_ylim(0, None)
    return figure


@styled
def plot_scaling(cost: pd.DataFrame, title: str) -> Figure:
    """Draw seconds over classes times samples, a marker a number of samples, and the line of `fit_cost`; log-log.

    Args:
        cost: columns classes, samples, seconds.
    """
    impressions = cost["classes"] * cost["samples"]
    samples = cost["samples"].map("{} a class".format)
    figure, axis = plt.subplots(figsize=(8, 4.8))
    palette = sns.color_palette("colorblind", samples.nunique())
    sns.scatterplot(x=impressions, y=cost["seconds"], hue=samples, style=samples, palette=palette, s=90, ax=axis)
    axis.set(xscale="log", yscale="log")
    _draw_fit(axis, impressions, cost["seconds"], title)
    for side in (axis.xaxis, axis.yaxis):
        show_decades(side)
    return figure


def _draw_fit(axis: Axes, impressions: pd.Series, seconds: pd.Series, title: str) -> None:
    """Draw the line of `fit_cost` where there is more than one number of impressions; name it below the title."""
    if impressions.nunique() > 1:
        line, r2 = fit_cost(impressions, seconds)
        fine = np.geomspace(impressions.min(), impressions.max())  # a straight line bends on logarithmic axes
        axis.plot(fine, line(fine), "--", color=FORGET, label="fit", zorder=0)
        title += f"\nfit: {line[0]:.2g} s + {1000 * line[1]:.2g} s a thousand impressions, R² {r2:.4f}"
    axis.set(xlabel="impressions (classes x samples)", ylabel="seconds", title=title)
    axis.legend()
