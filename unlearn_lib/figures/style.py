"""The one style of all figures: colour-blind safe, every colour doubled by a hatch, a line or a marker.

A model looks the same in every figure, whatever stands beside it; text is drawn as it is (a `$` is no formula).
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import matplotlib
import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib import font_manager
from matplotlib.figure import Figure

from unlearn_lib.common import REPOSITORY, UserError

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


def looks_of(names: Iterable[str]) -> dict[str, Look]:
    """How the models of these names are drawn: those of LOOKS as always, others one after the other."""
    names = list(names)
    unknown = [name for name in names if name not in LOOKS]
    return {name: LOOKS.get(name) or OTHERS[unknown.index(name) % len(OTHERS)] for name in names}


def sentence_figure(title: str, sentence: str) -> Figure:
    """A sentence in the place of a figure in which everything would be the same."""
    with plt.rc_context(STYLE):
        figure = plt.figure(figsize=(11, 0.9))
        figure.suptitle(title)
        figure.text(0.5, 0.2, sentence, ha="center")
    return figure


def save_figure(figure: Figure, name: str, folder: str | Path | None = None) -> Path:
    """Write `<name>.png` into `folder` (`$UNLEARN_FIGURES`, else the repository's `figures/`) and return its path."""
    folder = Path(folder or os.environ.get("UNLEARN_FIGURES") or REPOSITORY / "figures")
    path = folder / f"{name}.png"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Software": None})
    except OSError as error:
        raise UserError(f"figure: {path} cannot be written ({error.strerror or error})") from error
    return path
