"""Figures of the audit and of the lab: relearning, the frontier, the sixteen combinations, the walk of a bias."""

from collections.abc import Collection

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from unlearn_lib.figures.style import FORGET, RETAIN, STYLE, choose_styles, write_beside

GOOD = (0.05, 0.02)  # forget accuracy at most; retain accuracy below the best of the grid by at most


def plot_relearning(audits: dict[str, dict], title: str) -> Figure:
    """Forget accuracy while learning F again, over mini-batches: masked, golden, each audited run; named at the curve.

    Each curve is the mean over the mini-batches around (a twentieth of their number), the values themselves behind it.
    """
    first = next(iter(audits.values()))["relearn"]["curve"]
    curves = {name: first[name] for name in ("masked", "golden")}
    curves |= {name: block["relearn"]["curve"]["unlearned"] for name, block in audits.items()}
    target = next(iter(audits.values()))["target"]
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(11, 4.4))
        ends = []
        for name, look in choose_styles(curves).items():
            values = np.asarray(curves[name], dtype=float)
            axis.plot(values, color=look.colour, lw=1, alpha=0.3)
            (line,) = axis.plot(_smooth(values), ls=look.line, color=look.colour, lw=2.5, label=name)
            ends.append((name, line.get_xydata()[-1], look.colour))
        axis.axhline(target, color="0.3", lw=1.5)
        axis.text(0.3, target, "relearned", va="bottom", fontsize=11)
        axis.set(xlabel="mini-batches of real training data", ylabel="forget accuracy", ylim=(-0.02, 1.05), title=title)
        axis.set_xscale("symlog", linthresh=10)
        axis.set_xlim(0, None)
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.yaxis.set_major_formatter("{x:.0%}")
        figure.draw_without_rendering()
        ways = [axis.transData.transform(line.get_xydata()) for line in axis.lines if line.get_label() in curves]
        boxes = [np.hstack([np.minimum(way[1:], way[:-1]) - 3, np.maximum(way[1:], way[:-1]) + 3]) for way in ways]
        write_beside(axis, ends, np.vstack([*boxes, axis.texts[0].get_window_extent().extents]))
    return figure


def _smooth(values: np.ndarray) -> np.ndarray:
    """The mean over step n's surroundings, n / 40 steps to each side, fewer near the end, which stays what it is."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    steps = np.arange(len(values))
    aside = np.minimum(steps // 40, steps[::-1])
    return (sums[steps + aside + 1] - sums[steps - aside]) / (2 * aside + 1)


def plot_frontier(rows: pd.DataFrame, golden: pd.DataFrame, title: str) -> Figure:
    """Retain accuracy against probe accuracy on F: `rows` coloured and shaped by method, their layers written at them.

    Both have columns retain and probe (fractions), `rows` also layer and method. Networks whose marks would
    cover each other stand side by side, in the order of the layers written there.
    """
    points = pd.concat([rows, golden.assign(method="golden", layer="")], ignore_index=True)
    looks, spots = choose_styles(points["method"].unique()), points[["probe", "retain"]]
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(11, 5))
        for method, look in looks.items():
            label = "golden, one a seed" if method == "golden" else method
            axis.plot([], [], look.marker, ls="", ms=11, color=look.colour, mec="0.2", label=label)
        axis.margins(0.08, 0.12)
        axis.update_datalim(spots)
        axis.autoscale_view()
        axis.set(xlabel="linear probe finds the forget classes", ylabel="retain accuracy", title=title)
        axis.xaxis.set_major_formatter("{x:.1%}")
        axis.yaxis.set_major_formatter("{x:.1%}")
        legend = axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.03, 1.0), labelspacing=0.9)
        legend.set_title("written at a mark: from\nwhich layer on it is trained", prop={"size": 11})
        figure.draw_without_rendering()
        texts, taken = [], np.empty((0, 2))  # the marks' places, in points
        where = axis.transData.transform(spots) * 72 / figure.dpi
        for _, group in points.groupby([*np.round(where / (15, 12)).T]):
            group, place = group.sort_values(["layer", "probe"], kind="stable"), where[group.index].mean(0)
            block = np.outer(np.arange(len(group)) - (len(group) - 1) / 2, (16, 0))
            for step in sorted(range(320, -321, -8), key=abs):  # the nearest free room; of two the right one
                block_at = place + block + (step, 0)
                if (abs(taken[:, None] - block_at) > (15, 12)).any(2).all():
                    break
            for (i, row), at in zip(group.iterrows(), block_at, strict=True):
                aside = axis.transData + ScaledTranslation(*(at - where[i]) / 72, figure.dpi_scale_trans)
                look = looks[row["method"]]
                style = {"ms": 15 if look.marker == "*" else 10, "color": look.colour, "mec": "0.2", "clip_on": False}
                axis.plot(row["probe"], row["retain"], look.marker, transform=aside, **style)
            taken = np.vstack([taken, block_at])
            layers = group["layer"].value_counts(sort=False).items()
            if text := ", ".join(f"{n} x {layer}" if n > 1 else layer for layer, n in layers if layer):
                middle = block_at.mean(0) * figure.dpi / 72  # of the marks, which may stand aside
                texts.append((text, axis.transData.inverted().transform(middle), "0.7"))
        marks = np.hstack([taken - 8, taken + 8]) * figure.dpi / 72
        write_beside(axis, texts, marks)
    return figure


def plot_lab(grid: pd.DataFrame, title: str, chosen: tuple | None = None) -> Figure:
    """Forget and retain accuracy of the lab's sixteen combinations.

    A star marks those that forget and retain (GOOD), a dashed frame the published one, a thick one the `chosen`.
    """
    good = (grid["FA"] <= GOOD[0]) & (grid["RA"] >= grid["RA"].max() - GOOD[1])
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(12, 4), sharey=True)
        for axis, (what, name) in zip(axes, (("FA", "forget accuracy, %"), ("RA", "retain accuracy, %")), strict=True):
            table = 100 * grid[what].unstack(["signs", "smoothing"], sort=False)
            columns = [f"{signs} signs\nsmoothing {smoothing:g}" for signs, smoothing in table.columns]
            index = [f"{impressions},\nweights {weights}" for impressions, weights in table.index]
            sns.heatmap(table.to_numpy(), vmin=0, vmax=100, cmap="cividis", annot=True, fmt=".1f", cbar=False, ax=axis)
            axis.set_xticklabels(columns, fontsize=11)
            axis.set_yticklabels(index, rotation=0, fontsize=11)
            axis.tick_params(length=0)
            axis.set_title(name)
            for combination in grid.index[good]:
                x, y = table.columns.get_loc(combination[2:]), table.index.get_loc(combination[:2])
                colour = "black" if table.iloc[y, x] > 50 else "white"
                axis.plot(x + 0.87, y + 0.25, "*", ms=15, color=colour)
            frames = [(grid.index[0], 0.08, {"ls": "--", "lw": 3})] + [(chosen, 0, {"lw": 5})] * (chosen is not None)
            for combination, inset, line in frames:
                corner = table.columns.get_loc(combination[2:]) + inset, table.index.get_loc(combination[:2]) + inset
                style = {"fill": False, "edgecolor": "0.55", "clip_on": False, **line}
                axis.add_patch(plt.Rectangle(corner, 1 - 2 * inset, 1 - 2 * inset, **style))
        found = "star: forgets and retains" if good.any() else "no combination both forgets and retains"
        frame = "; thick frame: the chosen one" if chosen is not None else ""
        figure.suptitle(title, fontsize=14)
        figure.supxlabel(f"dashed frame: the published combination; {found}{frame}", fontsize=12)
    return figure


def plot_walk(shifts: torch.Tensor, forget: Collection[int], title: str, needed: float | None = None) -> Figure:
    """How far each class's bias has moved, shifts [epochs, K], over the epochs; forget classes solid, others dashed.

    needed: how far apart the two groups have to be; a line marks the first epoch in which they are.
    """
    columns = torch.isin(torch.arange(shifts.shape[1]), torch.tensor(sorted(forget)))
    apart = shifts[:, ~columns].min(1).values - shifts[:, columns].max(1).values
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(11, 4))
        for group, line, colour, name in (
            (columns, "-", FORGET, "forget class"),
            (~columns, "--", RETAIN, "retain class"),
        ):
            for i, c in enumerate(group.nonzero().flatten().tolist()):
                epochs = range(1, len(shifts) + 1)
                axis.plot(epochs, shifts[:, c], line, color=colour, lw=2, label=None if i else name)
        if needed is not None and (apart > needed).any():
            epoch = int((apart > needed).nonzero()[0]) + 1
            axis.axvline(epoch, color="0.3", lw=1)
            axis.text(epoch, axis.get_ylim()[0], f" {needed:.0f} apart", va="bottom", fontsize=11)
        axis.set(xlabel="epoch", ylabel="bias, new - old", title=title)
        axis.legend(frameon=False)
    return figure
