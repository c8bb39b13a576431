"""The figure of a sweep: who keeps most while forgetting, and how far seeds spread it."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from unlearn_lib.figures.style import LOOKS, STYLE, choose_styles


def plot_leaderboard(board: pd.DataFrame, metric: str, title: str) -> Figure:
    """Retain accuracy over a metric, a point a setting, as `leaderboard` has them; a panel a model and data set.

    Bars are one standard deviation over seeds; the band is golden's retain accuracy, plus and minus one of its own.
    Settings of the same value stand side by side.
    """
    groups = list(board.groupby(["model", "data"]))
    with plt.rc_context(STYLE):
        size = (max(7, 5.5 * len(groups)), 4.8)
        figure, axes = plt.subplots(1, len(groups), figsize=size, squeeze=False)
        for axis, ((model, data), rows) in zip(axes[0], groups, strict=True):
            names = [_name(dict(zip(rows.index.names, index, strict=True))) for index in rows.index]
            spots, spread = rows[[metric, "RA"]].to_numpy(), rows[[f"{metric}_std", "RA_std"]].fillna(0).to_numpy()
            ends = np.vstack([spots - spread, spots + spread])
            axis.update_datalim(ends * (1, 100))
            axis.margins(0.1)
            looks = choose_styles(names)
            for name, aside, (_, row) in zip(names, _asides(rows[metric]), rows.iterrows(), strict=True):
                style = {"fmt": looks[name].marker, "color": looks[name].colour, "ms": 9, "capsize": 4}
                style |= {"xerr": row[f"{metric}_std"], "yerr": 100 * row["RA_std"]}
                style["transform"] = axis.transData + ScaledTranslation(aside / 72, 0, figure.dpi_scale_trans)
                style["label"] = name if np.isfinite(row[metric]) else f"{name} (no value)"
                axis.errorbar(row[metric], 100 * row["RA"], **style)
            if "golden" in rows and rows["golden"].notna().any():
                middle, half = 100 * rows["golden"].mean(), 100 * rows["golden_std"].fillna(0).mean()
                axis.axhline(middle, color=LOOKS["golden"].colour, ls="--", lw=1)
                axis.axhspan(middle - half, middle + half, color=LOOKS["golden"].colour, alpha=0.2, label="golden")
            if np.ptp(ends[:, 0]) == 0:
                axis.set_xticks(ends[:1, 0])
            axis.set(title=f"{model} on {data}", xlabel=metric.replace("_", " "), ylabel="retain accuracy, %")
            axis.legend(frameon=False, fontsize=11)
        figure.suptitle(title, fontsize=14)
    return figure


def _name(setting: dict) -> str:
    """A setting by its method and what it gives besides: `distill, epochs 40`."""
    besides = [f"{name} {value}" for name, value in [*setting.items()][3:] if value != "default"]
    return ", ".join([setting["method"], *besides])


def _asides(values: pd.Series) -> pd.Series:
    """How far to the right, in points, each mark stands, so that no bars of one value cover each other."""
    places = values.groupby((values * 30 / ((values.max() - values.min()) or 1)).round(), dropna=False)
    return 14 * (places.cumcount() - (places.transform("size") - 1) / 2)
