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

from unlearn_lib.figures.style import COLOURS, FORGET, RETAIN, STYLE, choose_styles
from unlearn_lib.networks import find_head

MANY = 30  # classes, above which bars side by side cannot be read any more


def plot_per_class(
    metrics: dict[str, dict | None],
    classes: list[str],
    forget: Collection[int],
    title: str,
    size: tuple[float, float] | None = None,
) -> Figure:
    """Bars of every class's accuracy, one colour and hatch a model; forget classes are shaded, and the title says so.

    A class without test pictures has no bars and says so. size: in inches, where it is not to grow with the classes.
    """
    blocks = {name: block for name, block in metrics.items() if block is not None}
    empty = [all(block["per_class_accuracy"][c] is None for block in blocks.values()) for c in range(len(classes))]
    size = size or (max(11, 1.1 * len(classes)), 4.4)
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=size)
        width, bars = 0.84 / len(blocks), []
        for i, (name, look) in enumerate(choose_styles(blocks).items()):
            places = [c - 0.42 + (i + 0.5) * width for c in range(len(classes))]
            heights = [value or 0 for value in blocks[name]["per_class_accuracy"]]
            bars.append(axis.bar(places, heights, width, color=look.colour, hatch=look.hatch))
        for c in forget:
            axis.axvspan(c - 0.5, c + 0.5, color="0.88", lw=0, zorder=0)
        texts = [name + "\nno test pictures" * lacking for name, lacking in zip(classes, empty, strict=True)]
        longest, room = max(len(line) for text in texts for line in text.split("\n")), (size[0] - 1) / len(classes)
        letters = next((points for points in (13, 11, 10) if longest * points * 0.007 < room), 11)  # inches
        crowded = longest * letters * 0.007 > room
        axis.set_xticks(range(len(classes)), texts, rotation=40 if crowded else 0, ha="right" if crowded else "center")
        axis.tick_params(axis="x", length=0, labelsize=letters)
        axis.set(ylabel="accuracy", ylim=(0, 1.02), xlim=(-0.5, len(classes) - 0.5))
        axis.yaxis.set_major_formatter("{x:.0%}")
        many = max(1, min(len(blocks), int(size[0] / (0.5 + 0.085 * max(map(len, blocks))))))  # inches
        place = {"loc": "outside lower center", "frameon": False, "ncols": many, "borderaxespad": 0.2}
        # named here: labels of bars would be left out where they begin with `_`
        figure.legend(bars, blocks, fontsize=12, handlelength=1.5, columnspacing=1.2, **place)
        figure.suptitle(title + " (shaded: to forget)" * bool(len(forget)), fontsize=13)
    return figure


def plot_confusions(
    metrics: dict[str, dict | None],
    classes: list[str],
    title: str,
    rows: Collection[int] | None = None,
    width: float = 6.2,
) -> Figure:
    """Confusion matrices side by side, each row in per cent of its class; `rows` shows these classes only.

    width: of one matrix, in inches.
    """
    blocks = {name: block for name, block in metrics.items() if block is not None}
    rows = list(range(len(classes))) if rows is None else list(rows)
    columns = min(2, len(blocks))
    lines = math.ceil(len(blocks) / columns)
    size = (width * columns, lines * (0.4 * len(rows) + 0.4) + 0.7 + 0.1 * max(map(len, classes)))
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(lines, columns, figsize=size, sharex=True, sharey=True, squeeze=False)
        for axis, (name, block) in zip(axes.flat, blocks.items(), strict=False):
            counts = torch.tensor(block["confusion"], dtype=torch.float)[rows]
            share = 100 * counts / counts.sum(1, keepdim=True)  # none where a class has no pictures
            share = pd.DataFrame(share.numpy(), index=[classes[c] for c in rows], columns=classes)
            marks = share.map(lambda value: f"{value:.0f}" if value >= 1 else "")
            sns.heatmap(share, vmin=0, vmax=100, cmap="cividis", annot=marks, fmt="", cbar=False, ax=axis)
            axis.set_title(name)
            axis.tick_params(axis="x", rotation=90 if max(map(len, classes)) > 2 else 0, length=0)
            axis.tick_params(axis="y", rotation=0, length=0)
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
    changes = changes.sort_values(["change", "forget"], ascending=[True, False], kind="stable")
    places, forget = np.arange(len(changes)), changes["forget"].to_numpy()
    pitch = 735 / len(changes)  # points from class to class
    width = min(10, 0.8 * pitch) if pitch > 4 else 1.6 * pitch  # narrow ones overlap, so that no gaps show
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(11, 4.6))
        for group, colour, name in ((forget, FORGET, "forget"), (~forget, RETAIN, "retain")):
            heights, label = changes["change"].to_numpy()[group], f"{name}, {group.sum():,} classes"
            axis.vlines(places[group], 0, heights, color=colour, lw=width, label=label, antialiased=False)
            axis.plot(places[group], heights, ".", ms=max(2, width), color=colour)  # a class that did not change shows
        axis.plot(places[forget], np.full(forget.sum(), -1.06), "|", ms=8, mew=min(2, 2 * width), color=FORGET)
        axis.axhline(0, color="0.3", lw=1)
        axis.set(ylim=(-1.12, max(0.1, 1.15 * changes["change"].max())), xlim=(-0.7, len(changes) - 0.3))
        axis.set(xlabel="classes, sorted by their change (ticks: forget)", ylabel="change of accuracy, points")
        axis.set_title(title)
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
    lost = retain[retain["change"] <= 0].sort_values("change", kind="stable").head(shown)[::-1]
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(1, 2, figsize=(13, 0.34 * len(lost) + 1.6), width_ratios=(1.5, 1))
        left.barh(range(len(lost)), 100 * lost["change"], color=RETAIN)
        left.set_yticks(range(len(lost)), [_short(name) for name in lost["class"]])
        for i, (_, row) in enumerate(lost.iterrows()):
            note = f" {100 * row['change']:+.1f}, like {_short(row['nearest'])} ({row['cosine']:.2f})"
            left.text(max(0, 100 * row["change"]), i, note, va="center", fontsize=11)
        low = min(-1, 105 * lost["change"].min())
        left.set(xlabel="change of accuracy, points", xlim=(low, -0.8 * low))
        left.set_xticks([tick for tick in left.get_xticks() if low <= tick <= 0])
        apart = np.random.default_rng(0).uniform(-1.5, 1.5, len(retain))  # points: classes that changed alike show
        right.scatter(retain["cosine"], 100 * retain["change"] + apart, s=14, color=RETAIN, alpha=0.5, lw=0)
        right.axhline(0, color="0.3", lw=1)
        right.set(xlabel="cosine to the nearest forget class, in the head", ylabel="change, points (spread a little)")
        figure.suptitle(title)
    return figure


def plot_histograms(metrics: dict[str, dict | None], forget: Collection[int], title: str) -> Figure:
    """How many forget and how many retain classes have which accuracy, one panel a model."""
    blocks = {name: block for name, block in metrics.items() if block is not None}
    bins, looks = np.linspace(0, 1, 11), {"color": (RETAIN, FORGET), "label": ("retain", "forget"), "rwidth": 0.9}
    with plt.rc_context(STYLE):
        size = (3.4 * len(blocks) + 1, 3.8)
        figure, axes = plt.subplots(1, len(blocks), figsize=size, sharex=True, sharey=True, squeeze=False)
        for axis, (name, block) in zip(axes[0], blocks.items(), strict=True):
            pairs = [(c in set(forget), x) for c, x in enumerate(block["per_class_accuracy"]) if x is not None]
            groups = [[x for forgotten, x in pairs if forgotten == part] for part in (False, True)]
            weights = [np.full(len(group), 1 / max(1, len(group))) for group in groups]
            for bars in axis.hist(groups, bins, weights=weights, **looks)[2][1:]:
                for bar in bars:
                    bar.set_hatch("//")
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
        for side in (axis.xaxis, axis.yaxis):
            side.set_major_formatter("{x:,g}")
            side.set_minor_formatter(plt.NullFormatter())
        axis.set_title(f"{title}\n(dashed: {start:.2g} s + {1000 * each:.2g} s a thousand impressions)", fontsize=13)
        axis.legend(frameon=False)
    return figure


def _short(name: str, length: int = 22) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"
