"""Figures of many classes, readable from ten to a thousand: who changed, which retain classes lost, where F and R lie.

Everything is read off two confusion matrices; where a model's head is given, also how alike two classes are to it.
"""

import math
from collections.abc import Collection

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn import functional as F

from unlearn_lib.figures.style import COLOURS, HATCHES, STYLE
from unlearn_lib.networks import find_head

FORGET, RETAIN = COLOURS[3], COLOURS[0]
MANY = 30  # classes, above which bars side by side cannot be read any more


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


def class_changes(
    before: dict, after: dict, classes: list[str], forget: Collection[int], model: nn.Module | None = None
) -> pd.DataFrame:
    """Each class with test pictures: accuracy before and after, their difference, and whether it was to be forgotten.

    before, after: blocks as `evaluate` makes them. With a model also the forget class most alike to each retain class,
    by the cosine between the two rows of its head, w_r w_f / |w_r| |w_f|; the class's own index is the frame's.
    """
    frame = pd.DataFrame(
        {"class": classes, "before": before["per_class_accuracy"], "after": after["per_class_accuracy"]}
    )
    frame["forget"] = [c in set(forget) for c in range(len(classes))]
    if model is not None:
        rows = F.normalize(model.get_submodule(find_head(model)).weight.detach().cpu().float())
        chosen = torch.tensor(sorted(forget))
        cosine, nearest = (rows @ rows[chosen].T).max(1)
        frame["nearest"], frame["cosine"] = [classes[chosen[i]] for i in nearest.tolist()], cosine.numpy()
        frame.loc[frame["forget"], ["nearest", "cosine"]] = None, np.nan
    frame = frame.dropna(subset=["before", "after"]).astype({"before": float, "after": float})
    frame["change"] = frame["after"] - frame["before"]
    return frame


def plot_changes(changes: pd.DataFrame, title: str) -> Figure:
    """The change of every class, sorted; forget classes coloured and marked by a tick below."""
    changes = changes.sort_values("change", kind="stable")
    places, forget = np.arange(len(changes)), changes["forget"].to_numpy()
    width = min(10, 900 / len(changes))
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(11, 4.6))
        for mine, colour, name in ((forget, FORGET, "forget"), (~forget, RETAIN, "retain")):
            heights = changes["change"].to_numpy()[mine]
            axis.vlines(places[mine], 0, heights, color=colour, lw=width, label=f"{name}, {mine.sum():,} classes")
            axis.plot(places[mine], heights, ".", ms=max(2, width), color=colour)  # a class that did not change shows
        axis.plot(places[forget], np.full(forget.sum(), -1.06), "|", ms=8, mew=min(2, width), color=FORGET)
        axis.axhline(0, color="0.3", lw=1)
        axis.set(ylim=(-1.12, max(0.1, 1.15 * changes["change"].max())), xlim=(-0.7, len(changes) - 0.3))
        axis.set(xlabel="classes, sorted by their change (ticks: forget)", ylabel="change of accuracy", title=title)
        if len(changes) <= MANY:
            axis.set_xticks(places, changes["class"], rotation=30, ha="right")
        axis.yaxis.set_major_formatter(lambda value, _: f"{100 * value:+.0f}" if value else "0")
        for handle in axis.legend(frameon=False, loc="lower right").legend_handles:
            handle.set_linewidth(6)
    return figure


def plot_losers(changes: pd.DataFrame, title: str, shown: int = 12) -> Figure:
    """The retain classes that lost most, with the forget class most alike; and loss against likeness for all of R.

    Needs `class_changes` with a model.
    """
    retain = changes[~changes["forget"]]
    lost = retain.sort_values("change", kind="stable").head(shown)[::-1]
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(13, 0.34 * len(lost) + 1.6), width_ratios=(1.5, 1))
        left.barh(range(len(lost)), 100 * lost["change"], color=RETAIN)
        left.set_yticks(range(len(lost)), [_short(name) for name in lost["class"]])
        for i, (_, row) in enumerate(lost.iterrows()):
            words = f" {100 * row['change']:+.1f}, like {_short(row['nearest'])} ({row['cosine']:.2f})"
            left.text(max(0, 100 * row["change"]), i, words, va="center", fontsize=11)
        low = min(-1, 105 * lost["change"].min())
        left.set(xlabel="change of accuracy, points", xlim=(low, -1.1 * low))
        left.set_xticks([tick for tick in left.get_xticks() if low <= tick <= 0])
        right.scatter(retain["cosine"], 100 * retain["change"], s=14, color=RETAIN, alpha=0.6)
        right.axhline(0, color="0.3", lw=1)
        right.set(xlabel="cosine to the nearest forget class, in the head", ylabel="change, points")
        figure.suptitle(title)
    return figure


def plot_histograms(metrics: dict[str, dict | None], forget: Collection[int], title: str) -> Figure:
    """How many forget and how many retain classes have which accuracy, one panel a model."""
    blocks = {name: block for name, block in metrics.items() if block is not None}
    chosen, bins = set(forget), np.linspace(0, 1, 21)
    with plt.rc_context(STYLE):
        size = (3.4 * len(blocks) + 1, 3.8)
        figure, axes = plt.subplots(1, len(blocks), figsize=size, sharex=True, sharey=True, squeeze=False)
        for axis, (name, block) in zip(axes[0], blocks.items(), strict=True):
            pairs = [(c in chosen, value) for c, value in enumerate(block["per_class_accuracy"]) if value is not None]
            for i, (word, colour) in enumerate((("retain", RETAIN), ("forget", FORGET))):
                values = [value for mine, value in pairs if mine == bool(i)]
                weights = np.full(len(values), 1 / max(1, len(values)))
                look = {"hatch": HATCHES[i], "edgecolor": "white", "alpha": 0.75}
                axis.hist(values, bins, weights=weights, color=colour, label=word, **look)
            axis.set(title=name, xlabel="accuracy of a class", ylim=(0, 1.05))
            axis.xaxis.set_major_formatter("{x:.0%}")
            axis.yaxis.set_major_formatter("{x:.0%}")
        axes[0][0].set_ylabel("share of the classes")
        axes[0][0].legend(frameon=False)
        figure.suptitle(title)
    return figure


def plot_scaling(cost: pd.DataFrame, title: str) -> Figure:
    """Seconds over classes, one line a number of samples, and the straight line fitted to all; both axes logarithmic.

    cost: columns classes, samples, seconds.
    """
    count = cost["classes"] * cost["samples"]
    each, start = np.polyfit(count, cost["seconds"], 1, w=1 / cost["seconds"])  # by relative error
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(8, 4.4))
        for i, (samples, part) in enumerate(cost.groupby("samples")):
            axis.plot(part["classes"], part["seconds"], "os^Dv"[i], ms=8, color=COLOURS[i], label=f"{samples} a class")
            fine = np.geomspace(part["classes"].min(), part["classes"].max())
            axis.plot(fine, start + each * samples * fine, "--", lw=1, color=COLOURS[i])
        axis.set(xscale="log", yscale="log", xlabel="classes", ylabel="seconds")
        axis.set_title(f"{title}\n(dashed: {start:.2g} s + {1000 * each:.2g} s a thousand impressions)", fontsize=13)
        axis.legend(frameon=False)
    return figure


def _short(name: str, length: int = 22) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"
