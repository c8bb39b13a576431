"""Figures, in one style: colour-blind safe, every colour doubled by a hatch or a line style."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from unlearn_lib.figures.style import FORGET, INK, RETAIN, STYLE, choose_styles, sentence_figure


def plot_history(histories: dict[str, dict], title: str) -> Figure:
    """Training curves: loss and accuracy over epochs, training dashed, validation solid, one colour a model."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(11, 4))
        for name, look in choose_styles(histories).items():
            history, colour = histories[name], look.colour
            epochs = range(1, len(history["lr"]) + 1)
            for axis, what in zip(axes, ("loss", "accuracy"), strict=True):
                axis.plot(epochs, history[f"train_{what}"], "--", color=colour, label=f"{name}, training")
                axis.plot(epochs, history[f"val_{what}"], "-o", ms=4, color=colour, label=f"{name}, validation")
        for axis, what in zip(axes, ("loss (cross-entropy)", "accuracy"), strict=True):
            axis.set(xlabel="epoch", ylabel=what)
            axis.xaxis.get_major_locator().set_params(integer=True)
        axes[1].yaxis.set_major_formatter("{x:.0%}")
        handles, labels = axes[1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False)
        figure.suptitle(title)
    return figure


def plot_losses(histories: dict[str, dict], title: str) -> Figure:
    """Forget loss (solid) and retain loss (dashed) on the impressions over the epochs, one panel a method."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, len(histories), figsize=(5.5 * len(histories), 4), squeeze=False)
        for axis, (name, history) in zip(axes[0], histories.items(), strict=True):
            epochs = range(1, len(history["forget_loss"]) + 1)
            axis.plot(epochs, history["forget_loss"], "-o", ms=4, color=FORGET, label="forget loss")
            axis.plot(epochs, history["retain_loss"], "--s", ms=4, color=RETAIN, label="retain loss")
            axis.set(title=name, xlabel="epoch", ylabel="loss on impressions", ylim=(0, None))
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.legend(frameon=False)
        figure.suptitle(title)
    return figure


def plot_responsive(layers: pd.DataFrame, title: str, share: float = 0.8) -> Figure:
    """The share of impressions that reach their class, layer by layer; learnable layers hatched.

    A sentence where all do everywhere.
    """
    if (layers["reached"] == 1).all():
        names = ", ".join(layers.index)
        return sentence_figure(
            title, f"All impressions reach their class, at each of the {len(layers)} layers: {names}."
        )
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(11, 4))
        for i, (_, row) in enumerate(layers.iterrows()):
            look = {"color": INK, "hatch": "//"} if row["learnable"] else {"color": "0.6"}
            axis.bar(i, row["reached"], **look)
        axis.axhline(share, color="0.3", ls="--")
        axis.text(len(layers) - 0.45, share, f"{share:.0%}", va="center")
        axis.set_xticks(range(len(layers)), layers.index)
        axis.set(xlabel="layer, from pixels to logits (hatched: has weights)", ylabel="impressions that reach it")
        axis.set(ylim=(0, 1.05), xlim=(-0.5, len(layers) - 0.5))
        axis.yaxis.set_major_formatter("{x:.0%}")
        axis.set_title(title)
    return figure


def plot_cost(cost: pd.DataFrame, title: str) -> Figure:
    """Seconds over the number of impressions, and the straight line through the two ends."""
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(7, 4))
        axis.plot(cost["impressions"], cost["seconds"], "o", ms=8, color=INK, label="measured")
        ends = cost.sort_values("impressions").iloc[[0, -1]]
        axis.plot(ends["impressions"], ends["seconds"], "--", color=FORGET, label="straight line")
        axis.set(xlabel="impressions (classes x samples)", ylabel="seconds", ylim=(0, None), title=title)
        axis.legend(frameon=False)
    return figure
