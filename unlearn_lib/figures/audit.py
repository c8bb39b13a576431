"""Figures of the audit and of the lab: relearning, the frontier, the sixteen combinations, the walk of a bias."""

from collections.abc import Collection

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unlearn_lib.figures.style import (
    FORGET,
    RETAIN,
    Look,
    choose_styles,
    draw_heatmap,
    make_panels,
    place_legend,
    show_percent,
    show_shares,
    styled,
    write_beside,
)

GOOD = (0.05, 0.02)  # forget accuracy at most; retain accuracy below the best of the grid by at most


@styled
def plot_relearning(audits: dict[str, dict], title: str) -> Figure:
    """Draw forget accuracy while networks learn F again, over mini-batches: masked, golden, each audited run.

    Thick curves are means over neighbouring mini-batches, thin ones the values. Each curve is named at its end.

    Args:
        audits: the block `audit` of each run's metrics, keyed by name. The first gives masked, golden and the target.
    """
    first = next(iter(audits.values()))
    curves = {name: first["relearn"]["curve"][name] for name in ("masked", "golden")}
    curves |= {name: block["relearn"]["curve"]["unlearned"] for name, block in audits.items()}
    figure, axis = plt.subplots(figsize=(11, 4.4))
    texts = [(f"relearned: {first['target']:.0%}", (0, first["target"]), "0.3")]
    for name, look in choose_styles(curves).items():
        values = np.asarray(curves[name], dtype=float)
        axis.plot(values, color=look.colour, lw=1, alpha=0.3)
        axis.plot(_smooth(values), ls=look.line, color=look.colour, lw=2.5, label=name)
        texts.append((name, (len(values) - 1, values[-1]), look.colour))
    points = np.vstack([line.get_xydata() for line in axis.lines])
    axis.axhline(first["target"], color="0.3", lw=1.5)
    axis.set(xlabel="mini-batches of real training data", ylabel="forget accuracy", ylim=(-0.02, 1.05), title=title)
    axis.set_xscale("symlog", linthresh=10)
    axis.set_xlim(0, None)
    axis.xaxis.set_major_formatter("{x:,.0f}")
    show_percent(axis.yaxis)
    write_beside(axis, texts, points)
    return figure


def _smooth(values: np.ndarray) -> np.ndarray:
    """Return the mean over n / 40 steps to each side of step n, over fewer near the end; the last value stays."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    steps = np.arange(len(values))
    aside = np.minimum(steps // 40, steps[::-1])
    return (sums[steps + aside + 1] - sums[steps - aside]) / (2 * aside + 1)


@styled
def plot_frontier(
    rows: pd.DataFrame, golden: pd.DataFrame, title: str, pictures: tuple[int, int] | None = None
) -> Figure:
    """Draw retain accuracy against probe accuracy on F: a mark a place, and at it the networks that lie there.

    A text at a mark names each network: its method, and the layer from which on it is trained.
    Networks of the same values share one mark, a white one where their methods differ.

    Args:
        rows: columns layer, method, retain and probe (fractions).
        golden: columns retain and probe, a row a seed.
        pictures: how many test pictures the probe's accuracy and retain accuracy are shares of. No step of an axis
            is smaller than one of them; None means 500 of each.
    """
    points = pd.concat([rows, golden.assign(method="golden", layer="")])
    points["name"] = (points["method"] + " " + points["layer"]).str.strip()
    looks = choose_styles(points["method"])
    figure, axis = plt.subplots(figsize=(11, 5))
    texts = []
    for spot, group in points.groupby(["probe", "retain"]):
        methods = group["method"].unique()
        look = looks[methods[0]] if len(methods) == 1 else Look("white", "", "-", "o")
        axis.plot(*spot, look.marker, ms=12, color=look.colour, mec="0.2")
        counts = group["name"].value_counts(sort=False)
        lines = [name if count == 1 else f"{count} x {name}" for name, count in counts.items()]
        texts.append(("\n".join(lines), spot, "0.7"))
    for side, count in zip((axis.xaxis, axis.yaxis), pictures or (500, 500), strict=True):
        show_shares(side, 1 / count)
    axis.set(xlabel="linear probe finds the forget classes", ylabel="retain accuracy", title=title)
    write_beside(axis, texts, points[["probe", "retain"]].to_numpy())
    return figure


@styled
def plot_lab(grid: pd.DataFrame, title: str, chosen: tuple | None = None) -> Figure:
    """Draw forget and retain accuracy of the lab's sixteen combinations. Bright cells are good on both sides.

    A star marks those that forget and retain (GOOD), a dashed frame the published one, a thick one the `chosen`.
    """
    is_good = (grid["FA"] <= GOOD[0]) & (grid["RA"] >= grid["RA"].max() - GOOD[1])
    stars = _arrange(is_good.map({True: " ★", False: ""}))
    names = {"FA": "forget accuracy, % (low is good)", "RA": "retain accuracy, % (high is good)"}
    figure, panels = make_panels({names[what]: grid[what] for what in names}, 2, (6, 4), sharey=True)
    for (axis, values), colours in zip(panels, ("cividis_r", "cividis"), strict=True):
        percent = _arrange(100 * values)
        draw_heatmap(axis, percent, percent.map("{:.1f}".format) + stars, cmap=colours)
        axis.set_xticklabels(percent.columns.map("{0[0]} signs\nsmoothing {0[1]:g}".format))
        axis.set_yticklabels(percent.index.map("{0[0]},\nweights {0[1]}".format))
        axis.tick_params(labelsize=11)
        _frame_cell(axis, percent, grid.index[0], inset=0.08, ls="--", lw=3)
        if chosen is not None:
            _frame_cell(axis, percent, chosen, inset=0, lw=5)
    found = "star: forgets and retains" if is_good.any() else "no combination both forgets and retains"
    frame = "" if chosen is None else "; thick frame: the chosen one"
    figure.suptitle(title, fontsize=14)
    figure.supxlabel(f"bright: good; dashed frame: the published combination; {found}{frame}", fontsize=12)
    return figure


def _arrange(values: pd.Series) -> pd.DataFrame:
    """Return the lab's values as a table: impressions and weights down, signs and smoothing across."""
    return values.unstack(["signs", "smoothing"], sort=False)


def _frame_cell(axis: Axes, table: pd.DataFrame, combination: tuple, inset: float, **line) -> None:
    corner = (table.columns.get_loc(combination[2:]) + inset, table.index.get_loc(combination[:2]) + inset)
    side = 1 - 2 * inset
    axis.add_patch(plt.Rectangle(corner, side, side, fill=False, edgecolor="0.55", clip_on=False, **line))


@styled
def plot_walk(shifts: torch.Tensor, forget: Collection[int], title: str, needed: float | None = None) -> Figure:
    """Draw how far each class's bias has moved over the epochs; forget classes solid, others dashed.

    Args:
        shifts: new bias minus old, [epochs, K].
        needed: how far apart the two groups have to be; a line marks the first epoch in which they are.
    """
    frame = pd.DataFrame(shifts.numpy(), index=range(1, len(shifts) + 1))
    is_forget = frame.columns.isin([*forget])
    retain, forgotten = frame.loc[:, ~is_forget], frame.loc[:, is_forget]
    figure, axis = plt.subplots(figsize=(11, 4.4))
    handles = {
        "retain class": axis.plot(retain, "--", color=RETAIN, lw=2)[0],
        "forget class": axis.plot(forgotten, "-", color=FORGET, lw=2)[0],
    }
    is_apart = retain.min(axis=1) - forgotten.max(axis=1) > (np.inf if needed is None else needed)
    if is_apart.any():
        line = axis.axvline(is_apart.idxmax(), color="0.3", lw=1)
        handles[f"from epoch {is_apart.idxmax()} on {needed:.3g} apart"] = line
    axis.set(xlabel="epoch", ylabel="bias, new - old", title=title)
    place_legend(figure, handles.values(), handles)
    return figure
