"""The one style of all figures, and the parts that they share: panels, legends, labels, heat maps.

Colours are safe for colour-blind readers, and a hatch, a line style or a marker doubles each of them.
A model looks the same in every figure. Text is drawn as it is: a `$` starts no formula.
"""

import itertools
import math
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter, MaxNLocator, PercentFormatter

from unlearn_lib.networks import runs_root
from unlearn_lib.store import atomic_file

# Start the backend now. Inside a style's context the notebook's backend would start, and stop with the style.
plt.switch_backend(matplotlib.get_backend())

COLOURS = sns.color_palette("colorblind")
FORGET, RETAIN = COLOURS[3], "0.35"  # classes, not models
INK = "#33476b"  # neither a model nor a group of classes
# Fonts for signs that DejaVu Sans lacks, where they are installed: Chinese, Japanese, Korean.
OTHER_SIGNS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei", "Droid Sans Fallback", "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "SimHei",
    "Arial Unicode MS",
)  # fmt: skip
STYLE = {
    "font.family": ["DejaVu Sans", *(name for name in OTHER_SIGNS if name in font_manager.get_font_names())],
    "font.size": 13,
    "axes.titlesize": 14,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.8,
    "hatch.color": "white",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 100,
    "text.parse_math": False,  # names of classes and models may hold a `$`
}
styled = plt.rc_context(STYLE)  # a decorator: the function draws in this style, and the style outside stays


@dataclass(frozen=True)
class Look:
    """How a model is drawn: as a bar, as a line, as a point."""

    colour: object
    hatch: str
    line: object
    marker: str


LOOKS = {
    "original": Look(COLOURS[0], "", "-", "o"),
    "masked": Look(COLOURS[7], "..", ":", "X"),
    "unlearned": Look(COLOURS[2], "xx", "-.", "s"),
    "golden": Look(COLOURS[1], "//", "--", "*"),
    "neggrad+": Look(COLOURS[4], "\\\\", (0, (6, 1)), "D"),
    "distill": Look(COLOURS[9], "++", (0, (3, 1, 1, 1)), "^"),
    "published": Look(COLOURS[5], "||", (0, (1, 1)), "v"),
    "deep": Look(COLOURS[8], "oo", (0, (4, 1, 1, 1, 1, 1)), "P"),
}
LOOKS["mask"] = LOOKS["masked"]
# Five colours and four shapes have no common divisor: twenty other models differ from each other.
OTHER_COLOURS = (INK, COLOURS[3], COLOURS[6], "#7a6a00", "black")
OTHER_SHAPES = (
    Look(INK, "", "-", "h"),
    Look(INK, "--", "--", "d"),
    Look(INK, "**", "-.", "<"),
    Look(INK, "//", ":", ">"),
)


def choose_styles(names: Iterable[str]) -> dict[str, Look]:
    """Return the look of each model: the one in LOOKS, or the next of the other looks for names not in it."""
    shapes = itertools.cycle(OTHER_SHAPES)
    colours = itertools.cycle(OTHER_COLOURS)
    return {name: LOOKS.get(name) or replace(next(shapes), colour=next(colours)) for name in names}


def make_panels(
    contents: Mapping[str, object], columns: int, size: tuple[float, float], **sharing
) -> tuple[Figure, list[tuple[Axes, object]]]:
    """Return a figure with a panel for each content that is there, and pairs of panel and content; names are titles.

    Args:
        contents: what a panel shows, by name; those that are None are left out.
        columns: at most so many panels stand side by side.
        size: width and height of one panel, in inches.
        sharing: arguments of `plt.subplots`.
    """
    contents = {name: content for name, content in contents.items() if content is not None}
    columns = min(columns, len(contents))
    lines = math.ceil(len(contents) / columns)
    figure, axes = plt.subplots(lines, columns, figsize=(columns * size[0], lines * size[1]), squeeze=False, **sharing)
    for spare in axes.flat[len(contents) :]:
        spare.remove()
    for axis, name in zip(axes.flat, contents, strict=False):
        axis.set_title(name)
    return figure, [*zip(axes.flat, contents.values(), strict=False)]


def draw_bars(axis: Axes, values: pd.DataFrame) -> list[BarContainer]:
    """Draw a group of bars for each row, in each a bar for every column: a model, in its colour and hatch."""
    looks = choose_styles(values).values()
    values.plot.bar(ax=axis, width=0.84, rot=0, color=[look.colour for look in looks], legend=False)
    for bars, look in zip(axis.containers, looks, strict=True):
        plt.setp(bars, hatch=look.hatch)
    return axis.containers


def place_legend(figure: Figure, handles: Sequence, labels: Collection[str]) -> None:
    """Write the legend below the panels, in as many columns as the width allows."""
    width = 0.7 + 0.1 * max(map(len, labels))  # inches of an entry: the sample of its line, and 0.1 for a letter
    columns = max(1, min(len(labels), int(figure.get_figwidth() / width)))
    # Handles are passed because matplotlib leaves labels out that begin with `_`.
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=12, borderaxespad=0.2)


def show_percent(*sides: Axis) -> None:
    """Write the ticks of these axes, whose values are fractions, in per cent."""
    for side in sides:
        side.set_major_formatter(PercentFormatter(1))


def show_shares(side: Axis, least: float = 0.002) -> None:
    """Let an axis show the shares on it: ticks from 0 to 100 %, and no step between them smaller than `least`.

    Call it after drawing. An axis whose values are alike would otherwise show differences that do not exist.
    """
    low, high = side.get_data_interval()
    middle = (low + high) / 2
    half = max(0.65 * (high - low), 3 * least)
    ticks = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(middle - half, middle + half)
    side.set_ticks(ticks[(ticks >= 0) & (ticks <= 1 + 1e-9)])
    side.set_view_interval(middle - half, middle + half, ignore=True)
    show_percent(side)


def show_decades(side: Axis) -> None:
    """Write the ticks of a logarithmic axis as plain numbers: formulas are off in this style."""
    side.set_major_formatter("{x:,g}")
    side.set_minor_formatter(LogFormatter())


def draw_epochs(axis: Axes, values: Mapping[str, Sequence[float]], **style) -> None:
    """Draw curves over the epochs 1, 2, ..., with the options of `DataFrame.plot`."""
    frame = pd.DataFrame(values)
    frame.set_axis(frame.index + 1).plot(ax=axis, xlabel="epoch", legend=False, **style)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def name_columns(axis: Axes, names: Sequence[str]) -> None:
    """Write names under the columns 0, 1, ... of a figure's only axis, slanted where they would touch."""
    labels = [tick.label1 for tick in axis.set_xticks(range(len(names)), names, fontsize=12)]
    room = (axis.figure.get_figwidth() - 1) * axis.figure.dpi / len(names)  # pixels; an inch is the other axis's
    if max(label.get_window_extent().width for label in labels) > room:
        points = room * 72 / axis.figure.dpi
        plt.setp(labels, rotation=40 if points > 20 else 90, fontsize=min(12, 0.9 * points))
        plt.setp(labels, ha="right", va="center", rotation_mode="anchor")


def draw_heatmap(axis: Axes, percent: pd.DataFrame, marks: pd.DataFrame, **style) -> None:
    """Draw a table of per cent as coloured cells, a text in each, and name every row and column."""
    style |= {"vmin": 0, "vmax": 100, "fmt": "", "cbar": False, "xticklabels": 1, "yticklabels": 1}
    sns.heatmap(percent, annot=marks, ax=axis, **style)
    axis.tick_params(length=0)
    axis.tick_params(axis="y", rotation=0)
    axis.set(xlabel="", ylabel="")


SIDES = np.array([(0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)])


def write_beside(axis: Axes, texts: Iterable[tuple[str, Sequence, object]], points: np.ndarray) -> None:
    """Write each text near its point, in the nearest place where it covers least; a line leads to the point.

    Call it last: the axis must not move afterwards.

    Args:
        texts: triples (text, point in data, colour of the frame).
        points: points in data [N, 2] whose surroundings the texts leave free.
    """
    axis.figure.draw_without_rendering()
    frame = axis.get_window_extent()
    marks = axis.transData.transform(points)
    taken = np.hstack([marks - 10, marks + 10])  # boxes: left, bottom, right, top; pixels
    weights = np.ones(len(taken))
    for text, spot, colour in texts:
        box = {"facecolor": "white", "edgecolor": colour, "boxstyle": "round,pad=0.15"}
        line = {"arrowstyle": "-", "color": colour, "shrinkA": 0, "shrinkB": 0}
        style = {"ha": "center", "va": "center", "fontsize": 11, "zorder": 5, "in_layout": False}
        note = axis.annotate(text, spot, (0, 0), textcoords="offset points", bbox=box, arrowprops=line, **style)
        half = Text.get_window_extent(note).size / 2 + 4  # pixels; the frame is a little larger than the text
        best = np.inf
        for away, side in itertools.product((12, 28, 45, 68, 96), SIDES):
            middle = axis.transData.transform(spot) + side * (half + away)
            place = np.concatenate([middle - half, middle + half])
            overlap = np.minimum(taken[:, 2:], place[2:]) - np.maximum(taken[:, :2], place[:2])
            is_inside = frame.contains(*place[:2]) and frame.contains(*place[2:])
            covered = weights @ overlap.clip(0).prod(1) + (0 if is_inside else 1e9)
            if covered < best:
                best = covered
                chosen = place
                note.set_position(side * (half + away) * 72 / axis.figure.dpi)
        taken = np.vstack([taken, chosen])
        weights = np.append(weights, 100)  # two texts on each other are worse than a text on a curve


@styled
def sentence_figure(title: str, sentence: str) -> Figure:
    """Return a sentence in place of a figure in which everything would be the same."""
    figure = plt.figure(figsize=(11, 0.9), layout="none")
    figure.suptitle(title)
    figure.add_axes((0, 0, 1, 1)).axis("off")  # Jupyter shows no figure without axes
    figure.text(0.5, 0.2, sentence, ha="center")
    return figure


def save_figure(figure: Figure, name: str, folder: str | Path | None = None) -> Path:
    """Write `<name>.png` into a folder and return its path.

    Args:
        folder: None means `$UNLEARN_FIGURES`, else `figures` among the runs, outside version control.

    Example:
        >>> path = save_figure(figure, "04_per_class")
    """
    folder = Path(folder or os.environ.get("UNLEARN_FIGURES") or runs_root() / "figures")
    path = folder / f"{name}.png"
    with atomic_file(path, "figure") as file:
        figure.savefig(file, format="png", metadata={"Software": None})
    return path
