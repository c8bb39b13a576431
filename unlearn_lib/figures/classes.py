"""Figures of many classes, readable from one to a thousand: who changed, which retain classes lost.

All numbers come from two confusion matrices. Where a model is given, its head says how alike two classes are.
"""

from collections.abc import Collection

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from torch import nn
from torch.nn import functional as F

from unlearn_lib.figures.style import (
    FORGET,
    RETAIN,
    draw_bars,
    draw_heatmap,
    make_panels,
    name_columns,
    place_legend,
    show_percent,
    styled,
)
from unlearn_lib.networks import find_head

MANY = 30  # more classes than this are unreadable as bars side by side


@styled
def plot_per_class(
    metrics: dict[str, dict | None],
    classes: list[str],
    forget: Collection[int],
    title: str,
    size: tuple[float, float] | None = None,
) -> Figure:
    """Draw bars of every class's accuracy, one colour and hatch a model; the forget classes are shaded.

    A class without test pictures has no bars and says so.

    Args:
        size: in inches; None lets the figure grow with the number of classes.

    Example:
        >>> figure = plot_per_class(run.blocks, experiment.dataset.classes, [1, 3], experiment.title)
    """
    accuracies = pd.DataFrame({name: block["per_class_accuracy"] for name, block in metrics.items() if block})
    figure, axis = plt.subplots(figsize=size or (max(11, 1.1 * len(classes)), 4.4))
    bars = draw_bars(axis, accuracies.astype(float))
    place_legend(figure, bars, accuracies.columns)
    for c in forget:
        axis.axvspan(c - 0.5, c + 0.5, color="0.88", lw=0, zorder=0)
    is_empty = accuracies.isna().all(axis=1)
    name_columns(axis, classes + is_empty.map({True: "\nno test pictures", False: ""}))
    axis.tick_params(axis="x", length=0)
    axis.set(ylabel="accuracy", ylim=(0, 1.02), xlim=(-0.5, len(classes) - 0.5))
    show_percent(axis.yaxis)
    figure.suptitle(title + " (shaded: to forget)" * bool(len(forget)), fontsize=13)
    return figure


@styled
def plot_confusions(
    metrics: dict[str, dict | None],
    classes: list[str],
    title: str,
    rows: Collection[int] | None = None,
    width: float = 6.2,
) -> Figure:
    """Draw confusion matrices, two in a line, each row in per cent of its class.

    Args:
        rows: the classes whose rows are shown; None shows all.
        width: of one matrix, in inches; many classes make it wider.
    """
    rows = range(len(classes)) if rows is None else rows
    longest = max(map(len, classes))
    cell = max(0.2, (width - 1.2) / len(classes))  # inches; 1.2 for the names on the left
    size = (cell * len(classes) + 1.2, 0.4 * len(rows) + 0.8 + 0.1 * longest)
    letters = {"fontsize": min(13, 34 * cell)}  # three digits fit into the cell
    figure, panels = make_panels(metrics, 2, size, sharey=True)
    for axis, block in panels:
        counts = pd.DataFrame(block["confusion"], classes, classes).iloc[[*rows]]
        percent = 100 * counts.div(counts.sum(axis=1), axis=0)  # NaN for a class without pictures
        marks = percent.map(lambda value: f"{value:.0f}" if value >= 1 else "")
        draw_heatmap(axis, percent, marks, cmap="cividis", annot_kws=letters)
        axis.tick_params(axis="x", rotation=90 if longest > 2 else 0)
    figure.supxlabel("answer", fontsize=13)
    figure.supylabel("class", fontsize=13)
    figure.suptitle(title, fontsize=14)
    return figure


def class_changes(
    before: dict, after: dict, classes: list[str], forget: Collection[int], model: nn.Module | None = None
) -> pd.DataFrame:
    """Return a row for each class with test pictures: accuracy before and after, their difference, is it forgotten.

    Args:
        before, after: blocks as `evaluate` makes them.
        model: adds the forget class nearest to each retain class, by the cosine between the rows of the head,
            w_r w_f / |w_r| |w_f|.

    Returns:
        A frame whose index is the class's own, with the columns class, before, after, forget, change, and for a
        model nearest and cosine.
    """
    frame = pd.DataFrame({"class": classes})
    frame["before"] = np.array(before["per_class_accuracy"], dtype=float)  # None becomes NaN
    frame["after"] = np.array(after["per_class_accuracy"], dtype=float)
    frame["forget"] = frame.index.isin([*forget])
    frame["change"] = frame["after"] - frame["before"]
    if model is not None:
        chosen = frame.index[frame["forget"]]
        rows = F.normalize(model.get_submodule(find_head(model)).weight.detach().cpu().float())
        cosine, nearest = (rows @ rows[[*chosen]].T).max(1)
        frame["nearest"] = frame["class"].iloc[chosen[nearest.numpy()]].to_numpy()
        frame["cosine"] = cosine.numpy()
        frame.loc[chosen, ["nearest", "cosine"]] = None, np.nan
    return frame.dropna(subset="change")


@styled
def plot_changes(changes: pd.DataFrame, title: str) -> Figure:
    """Draw the change of every class, sorted; forget classes coloured, and marked by a tick below."""
    changes = changes.sort_values(["change", "forget"], ascending=[True, False], kind="stable").reset_index()
    figure, axis = plt.subplots(figsize=(11, 4.6))
    for name, colour, is_in in (("forget", FORGET, changes["forget"]), ("retain", RETAIN, ~changes["forget"])):
        heights = 100 * changes["change"].where(is_in, 0)
        edges = np.arange(len(changes) + 1) - 0.5
        axis.stairs(heights, edges, fill=True, color=colour, label=f"{name}, {is_in.sum():,} classes")
    sns.rugplot(x=changes.index[changes["forget"]], height=0.04, color=FORGET, ax=axis)
    axis.axhline(0, color="0.3", lw=1)
    axis.set(xlabel="classes, sorted by their change (ticks: forget)", ylabel="change of accuracy, points")
    axis.set(ylim=(-112, max(10, 115 * changes["change"].max())), xlim=(-0.7, len(changes) - 0.3), title=title)
    if len(changes) <= MANY:
        name_columns(axis, changes["class"])
    axis.legend(loc="lower right")
    return figure


@styled
def plot_losers(changes: pd.DataFrame, title: str, shown: int = 12) -> Figure:
    """Draw the retain classes that lost most, and the loss of all retain classes over their likeness.

    Args:
        changes: as `class_changes` returns it for a model.
        shown: how many classes are named, each with the forget class nearest to it and their cosine.
    """
    retain = changes[~changes["forget"]]
    lost = retain[retain["change"] <= 0].sort_values("change", kind="stable").head(shown)[::-1]
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, max(3, 0.34 * len(lost) + 1.6)), width_ratios=(1, 1))
    bars = left.barh(range(len(lost)), 100 * lost["change"], color=RETAIN)
    left.bar_label(bars, fmt="%+.1f", padding=3, fontsize=11)
    names = lost["class"].map(_shorten) + ", like " + lost["nearest"].map(_shorten)
    left.set_yticks(range(len(lost)), names + lost["cosine"].map(" ({:.2f})".format))
    left.margins(x=0.15)
    left.set_xlabel("change of accuracy, points")
    left.tick_params(axis="y", labelsize=11)
    right.scatter(retain["cosine"], 100 * retain["change"], s=14, color=RETAIN, alpha=0.5, lw=0)
    right.axhline(0, color="0.3", lw=1)
    right.set(xlabel="cosine to the nearest forget class\n(rows of the head)", ylabel="change of accuracy, points")
    figure.suptitle(title)
    return figure


@styled
def plot_histograms(metrics: dict[str, dict | None], forget: Collection[int], title: str) -> Figure:
    """Draw how many forget and how many retain classes have which accuracy, one panel a model."""
    figure, panels = make_panels(metrics, 4, (3.6, 3.8), sharey=True)
    for axis, block in panels:
        accuracies = pd.Series(block["per_class_accuracy"], dtype=float).dropna()
        is_forget = accuracies.index.isin([*forget])
        groups = {"retain": accuracies[~is_forget], "forget": accuracies[is_forget]}
        axis.hist(
            groups.values(),
            np.arange(11) / 10,  # each the float that a share of it is; linspace's 0.6 is another one
            weights=[np.full(len(group), 1 / max(1, len(group))) for group in groups.values()],
            label=[*groups],
            color=(RETAIN, FORGET),
            hatch=("", "//"),
            rwidth=0.9,
        )
        axis.set(xlabel="accuracy of a class", ylim=(0, 1.05))
        show_percent(axis.xaxis, axis.yaxis)
    panels[0][0].set_ylabel("share of the classes")
    place_legend(figure, *panels[0][0].get_legend_handles_labels())
    figure.suptitle(title)
    return figure


def _shorten(name: str, length: int = 22) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"
