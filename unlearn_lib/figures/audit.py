"""Figures of the audit and of the lab: relearning, the frontier, the sixteen combinations, the walk of a bias."""

import itertools
from collections.abc import Collection

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure

from unlearn_lib.figures.style import COLOURS, LINES, STYLE


def plot_relearning(audits: dict[str, dict], title: str) -> Figure:
    """Forget accuracy while learning F again, over mini-batches: original, masked, each audited run, and golden."""
    first = next(iter(audits.values()))["relearn"]["curve"]
    curves = {name: first[name] for name in ("masked", "golden")}
    curves |= {name: block["relearn"]["curve"]["unlearned"] for name, block in audits.items()}
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(11, 4))
        for i, (name, curve) in enumerate(curves.items()):
            axis.plot(range(len(curve)), curve, LINES[i % len(LINES)], color=COLOURS[i], lw=2, label=name)
        target = next(iter(audits.values()))["target"]
        axis.axhline(target, color="0.3", lw=1)
        axis.text(1, target, "relearned", va="bottom", fontsize=11)
        axis.set(xlabel="mini-batches of real training data", ylabel="forget accuracy", ylim=(0, 1.05), title=title)
        axis.set_xscale("symlog", linthresh=10)
        axis.set_xlim(0, None)
        axis.yaxis.set_major_formatter("{x:.0%}")
        axis.legend(frameon=False)
    return figure


def plot_frontier(rows: pd.DataFrame, golden: pd.DataFrame, title: str) -> Figure:
    """Retain accuracy against probe accuracy on F: `rows` coloured by layer and shaped by method, `golden` as stars.

    Both have columns retain and probe (fractions), `rows` also layer and method. Networks in the same place show
    as a ring around a dot around a cross.
    """
    shapes = ({"marker": "o", "ms": 15, "mfc": "none", "mew": 2}, {"marker": "s", "ms": 7}, {"marker": "x", "ms": 18})
    layers, methods = rows["layer"].unique(), rows["method"].unique()
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(11, 4.6))
        for i, layer in enumerate(layers):
            axis.plot([], [], "_", ms=14, mew=5, color=COLOURS[i], label=f"from {layer}")
        for method, shape in zip(methods, itertools.cycle(shapes)):
            axis.plot([], [], ls="", color="0.3", label=method, **shape)
            for _, row in rows[rows["method"] == method].iterrows():
                colour = COLOURS[list(layers).index(row["layer"])]
                axis.plot(row["probe"], row["retain"], ls="", color=colour, **shape)
        axis.plot(golden["probe"], golden["retain"], "*", ms=15, color="black", label="golden, one a seed")
        axis.set(xlabel="linear probe finds the forget classes", ylabel="retain accuracy", title=title)
        axis.xaxis.set_major_formatter("{x:.1%}")
        axis.yaxis.set_major_formatter("{x:.1%}")
        axis.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0), labelspacing=0.9)
    return figure


def plot_lab(grid: pd.DataFrame, title: str, chosen: tuple | None = None) -> Figure:
    """Forget and retain accuracy of the lab's sixteen combinations; the `chosen` one has a frame."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(1, 2, figsize=(12, 3.6), sharey=True)
        for axis, (what, words) in zip(axes, (("FA", "forget accuracy, %"), ("RA", "retain accuracy, %")), strict=True):
            table = 100 * grid[what].unstack(["signs", "smoothing"], sort=False)
            names = [f"{signs} signs\nsmoothing {smoothing:g}" for signs, smoothing in table.columns]
            rows = [f"{impressions},\nweights {weights}" for impressions, weights in table.index]
            sns.heatmap(table.to_numpy(), vmin=0, vmax=100, cmap="cividis", annot=True, fmt=".1f", cbar=False, ax=axis)
            axis.set_xticklabels(names, fontsize=10)
            axis.set_yticklabels(rows, rotation=0, fontsize=10)
            axis.set_title(words)
            if chosen is not None:
                place = table.columns.get_loc(chosen[2:]), table.index.get_loc(chosen[:2])
                axis.add_patch(plt.Rectangle(place, 1, 1, fill=False, edgecolor="red", lw=4, clip_on=False))
        figure.suptitle(title)
    return figure


def plot_walk(shifts: torch.Tensor, forget: Collection[int], title: str, needed: float | None = None) -> Figure:
    """How far each class's bias has moved, shifts [epochs, K], over the epochs; forget classes solid, others dashed.

    needed: how far apart the two groups have to be; a line marks the first epoch in which they are.
    """
    columns = torch.isin(torch.arange(shifts.shape[1]), torch.tensor(sorted(forget)))
    apart = shifts[:, ~columns].min(1).values - shifts[:, columns].max(1).values
    with plt.rc_context(STYLE):
        figure, axis = plt.subplots(figsize=(11, 4))
        for kind, words in enumerate(("forget class", "retain class")):
            mine = [c for c in range(shifts.shape[1]) if (c in set(forget)) != bool(kind)]
            look = {"ls": LINES[kind], "color": COLOURS[3 if kind == 0 else 0], "lw": 2}
            for c in mine:
                axis.plot(range(1, len(shifts) + 1), shifts[:, c], label=words if c == mine[0] else None, **look)
        if needed is not None and (apart > needed).any():
            epoch = int((apart > needed).nonzero()[0]) + 1
            axis.axvline(epoch, color="0.3", lw=1)
            axis.text(epoch, axis.get_ylim()[0], f" {needed:.0f} apart", va="bottom", fontsize=11)
        axis.set(xlabel="epoch", ylabel="bias, new - old", title=title)
        axis.legend(frameon=False)
    return figure
