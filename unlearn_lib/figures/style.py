"""The one style of all figures: colour-blind safe, every colour doubled by a hatch, a line or a marker.

A model looks the same in every figure, whatever stands beside it; text is drawn as it is (a `$` is no formula).
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from unlearn_lib.networks import runs_root
from unlearn_lib.store import atomic_file

# Start the backend now: inside a style's context the notebook's would start, and be undone with the style.
plt.switch_backend(matplotlib.get_backend())

COLOURS = sns.color_palette("colorblind")
FORGET, RETAIN = COLOURS[3], "0.35"  # classes, not models
INK = "#33476b"  # what is neither
# Fonts for what DejaVu Sans has no signs for, where they are installed: Chinese, Japanese, Korean.
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
    "figure.constrained_layout.use": True,
    "savefig.dpi": 100,
    "text.parse_math": False,  # names of classes and models may hold a `$`
}


NEAR = 11  # points from a mark to its text
SIDES = {-1: "right", 0: "center", 1: "left"}  # of a text that stands to the left of its point, above, to the right


class Look(NamedTuple):
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
OTHERS = (  # in the order of their names in a figure
    Look(INK, "", "-", "h"),
    Look(COLOURS[3], "--", "--", "d"),
    Look(COLOURS[6], "**", "-.", "<"),
    Look("#7a6a00", "//", ":", ">"),
)


def choose_styles(names: Iterable[str]) -> dict[str, Look]:
    """How the models of these names are drawn: those of LOOKS as always, others one after the other.

    Where they are more than OTHERS, the shapes come again, each in the colour of the next: sixteen are told apart.
    """
    names, many = list(names), len(OTHERS)
    unknown = [name for name in names if name not in LOOKS]
    others = [OTHERS[i % many]._replace(colour=OTHERS[(i + i // many) % many].colour) for i in range(len(unknown))]
    looks = LOOKS | dict(zip(unknown, others, strict=True))
    return {name: looks[name] for name in names}


def write_beside(axis: Axes, texts: list[tuple[str, tuple, object]], taken: np.ndarray) -> None:
    """Write each text (text, point in data, colour of its frame) beside its point, where nothing else lies.

    taken: boxes [N, 4] (left, bottom, right, top; pixels) that no text may cover. Where there is no room at the point,
    a line leads to it. To be called last: the axis keeps its place from now on.
    """
    inside, points = axis.get_window_extent(), axis.figure.dpi / 72
    for text, spot, colour in texts:
        box = {"facecolor": "white", "edgecolor": colour, "boxstyle": "round,pad=0.15", "lw": 1}
        style = {"textcoords": "offset points", "fontsize": 11, "bbox": box, "va": "center", "zorder": 5}
        best = (np.inf, None, None)
        for away in (NEAR, 22, 34, 50, 70):
            for across, up in ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)):
                note = axis.annotate(text, spot, (away * across, (away + 4) * up), ha=SIDES[across], **style)
                where = note.get_window_extent().padded(3 * points)
                low, high = np.maximum(taken[:, :2], where.min), np.minimum(taken[:, 2:], where.max)
                covered = (high - low).clip(0).prod(1).sum() + (0 if inside.contains(*where.min) else 1e6)
                covered += 0 if inside.contains(*where.max) else 1e6
                note.remove()
                if covered < best[0]:
                    best = (covered, (away, across, up), where.extents)
            if not best[0]:
                break
        away, across, up = best[1]
        line = {"arrowstyle": "-", "color": colour, "shrinkA": 0, "shrinkB": 0} if away > NEAR else None
        note = axis.annotate(
            text, spot, (away * across, (away + 4) * up), ha=SIDES[across], arrowprops=line, in_layout=False, **style
        )
        taken = np.vstack([taken, best[2]])


def sentence_figure(title: str, sentence: str) -> Figure:
    """A sentence in the place of a figure in which everything would be the same."""
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(11, 0.9))
        figure.suptitle(title)
        figure.add_axes((0, 0, 1, 1)).axis("off")  # Jupyter shows no figure without axes
        figure.text(0.5, 0.2, sentence, ha="center")
    return figure


def save_figure(figure: Figure, name: str, folder: str | Path | None = None) -> Path:
    """Write `<name>.png` into `folder` and return its path.

    folder: `$UNLEARN_FIGURES` where none is given, else `figures` among the runs, which no version control sees.
    """
    folder = Path(folder or os.environ.get("UNLEARN_FIGURES") or runs_root() / "figures")
    path = folder / f"{name}.png"
    with atomic_file(path, "figure") as file:
        figure.savefig(file, format="png", metadata={"Software": None})
    return path
