"""The one style of all figures: colour-blind safe, every colour doubled by a hatch or a line style."""

import os
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

from unlearn_lib.common import REPOSITORY

# Start the backend now: inside a style's context the notebook's would start, and be undone with the style.
plt.switch_backend(matplotlib.get_backend())

COLOURS = sns.color_palette("colorblind")
HATCHES = ("", "//", "..", "xx", "\\\\", "++")
LINES = ("-", "--", "-.", ":")
STYLE = {
    "font.size": 13,
    "axes.titlesize": 14,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.6,
    "figure.constrained_layout.use": True,
    "savefig.dpi": 100,
}


def save_figure(figure: Figure, name: str, folder: str | Path | None = None) -> Path:
    """Write `<name>.png` into `folder` (`$UNLEARN_FIGURES`, else the repository's `figures/`) and return its path."""
    folder = Path(folder or os.environ.get("UNLEARN_FIGURES") or REPOSITORY / "figures")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    figure.savefig(path, metadata={"Software": None})
    return path
