"""The figure of a sweep: which setting keeps most while it forgets, and how far seeds spread it."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from unlearn_lib.figures.style import INK, LOOKS, place_legend, show_shares, styled

GOLDEN = LOOKS["golden"].colour


@styled
def plot_leaderboard(board: pd.DataFrame, metric: str, title: str) -> Figure:
    """Draw a metric (left) and retain accuracy (right) of every setting, a line of panels a model and data set.

    Bars are one standard deviation over seeds. The band is golden's retain accuracy, plus and minus one of its own.

    Args:
        board: as `leaderboard` returns it.
    """
    groups = board.groupby(["model", "data"], sort=False)
    size = (11, len(groups) * (1.6 + 0.35 * groups.size().max()))
    figure, axes = plt.subplots(len(groups), 2, figsize=size, squeeze=False, sharey="row")
    golden = None
    for (place, rows), (left, right) in zip(groups, axes, strict=True):
        names = [_name_setting(setting) for setting in rows.index.to_frame().to_dict("records")]
        names = [name + " (no value)" * is_absent for name, is_absent in zip(names, rows[metric].isna(), strict=True)]
        for axis, what, label in ((left, metric, metric.replace("_", " ")), (right, "RA", "retain accuracy")):
            axis.errorbar(rows[what], names, xerr=rows[f"{what}_std"], fmt="o", color=INK, ms=8, capsize=4)
            axis.set(xlabel=label, title=" on ".join(place))
            axis.grid(axis="y", color="0.9")
        left.set_ylim(len(rows) - 0.5, -0.5)
        if "golden" in rows and rows["golden"].notna().any():
            middle = rows["golden"].mean()
            spread = rows["golden_std"].fillna(0).mean()
            golden = right.axvline(middle, color=GOLDEN, ls="--")
            right.axvspan(middle - spread, middle + spread, color=GOLDEN, alpha=0.2)
        show_shares(right.xaxis)
        if metric.endswith("accuracy"):
            show_shares(left.xaxis)
    if golden:
        place_legend(figure, [golden], ["golden, mean and standard deviation"])
    figure.suptitle(title, fontsize=14)
    return figure


def _name_setting(setting: dict) -> str:
    """Return the method of a setting, and what it gives besides: `distill, epochs 40`."""
    besides = [f"{name} {value}" for name, value in [*setting.items()][3:] if value != "default"]
    return ", ".join([setting["method"], *besides])
