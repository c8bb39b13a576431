import numpy as np
import pandas as pd
import pytest
from reading import ticks

from unlearn_lib.figures import plot_leaderboard


def make_board(settings, names=("method", "epochs"), place=("lenet5", "digits"), metric="unlearned_forget_accuracy"):
    """A board from setting -> (RA, its std, metric, its std)."""
    board = pd.DataFrame(list(settings.values()), columns=["RA", "RA_std", metric, f"{metric}_std"])
    board.index = pd.MultiIndex.from_tuples([(*place, *s) for s in settings], names=["model", "data", *names])
    return board


SETTINGS = {
    ("mask", "default"): (0.9, 0.01, 0.0, 0.0),
    ("distill", "40"): (0.8, 0.02, 0.25, 0.05),
    ("neggrad+", "default"): (0.7, 0.03, 0.0, 0.0),
}
NAMES = ["mask", "distill, epochs 40", "neggrad+"]


def read(axis, names):
    """Value and length of the error bar of each setting."""
    (container,) = axis.containers
    places = dict(zip(axis.get_yticks(), names, strict=True))
    segments = container[2][0].get_segments() if container[2] else []
    errors = [round((segment[-1][0] - segment[0][0]) / 2, 6) if len(segment) else np.nan for segment in segments]
    return {places[y]: (x, error) for (x, y), error in zip(container[0].get_xydata(), errors, strict=True)}


def test_each_setting_has_its_values_and_standard_deviations():
    left, right = plot_leaderboard(make_board(SETTINGS), "unlearned_forget_accuracy", "title").axes
    names = [label.get_text() for label in left.get_yticklabels()]
    assert names == NAMES
    assert left.get_ylim()[0] > left.get_ylim()[1]  # the first setting on top
    assert read(right, names) == {
        name: (ra, std) for name, (ra, std, _, _) in zip(names, SETTINGS.values(), strict=True)
    }
    assert read(left, names) == {
        name: (fa, std) for name, (_, _, fa, std) in zip(names, SETTINGS.values(), strict=True)
    }
    assert (left.get_xlabel(), right.get_xlabel()) == ("unlearned forget accuracy", "retain accuracy")
    assert ticks(right.xaxis)[0.8] == "80.0%"
    assert right.get_title() == left.get_title() == "lenet5 on digits"


def test_settings_of_one_value_stand_at_that_value():
    same = {setting: (0.9, 0.0, 0.0, 0.0) for setting in SETTINGS}
    for axis, value in zip(
        plot_leaderboard(make_board(same), "unlearned_forget_accuracy", "title").axes, (0, 0.9), strict=True
    ):
        mark = axis.containers[0][0]
        assert mark.get_transform() == axis.transData
        assert mark.get_xdata().tolist() == [value] * 3
        assert all(0 <= place <= 1 for place in ticks(axis.xaxis))


def test_a_metric_that_is_no_share_has_plain_numbers():
    board = make_board(
        {("mask", "default"): (0.9, 0.01, 20.0, 1.0), ("deep", "40"): (0.8, 0.01, 90.0, 5.0)}, metric="seconds"
    )
    left = plot_leaderboard(board, "seconds", "title").axes[0]
    assert not any("%" in text for text in ticks(left.xaxis).values())
    assert read(left, ["mask", "deep"])["deep"] == (90, 5)


def test_the_band_is_goldens_retain_accuracy_and_its_standard_deviation():
    board = make_board(SETTINGS).assign(golden=0.85, golden_std=0.04)
    figure = plot_leaderboard(board, "unlearned_forget_accuracy", "title")
    left, right = figure.axes
    (band,) = right.patches
    assert [band.get_x(), band.get_x() + band.get_width()] == pytest.approx([0.81, 0.89])
    assert not left.patches
    assert "golden" in figure.legends[0].get_texts()[0].get_text()
    assert right.lines[-1].get_xdata()[0] == pytest.approx(0.85)


def test_a_setting_without_a_value_says_so_and_moves_no_other():
    board = make_board(SETTINGS | {("neggrad+", "default"): (0.7, 0.03, np.nan, np.nan)})
    left, right = plot_leaderboard(board, "unlearned_forget_accuracy", "title").axes
    assert [label.get_text() for label in left.get_yticklabels()] == [*NAMES[:2], "neggrad+ (no value)"]
    assert left.containers[0][0].get_xdata().tolist()[:2] == [0, 0.25]
    assert right.containers[0][0].get_xdata().tolist() == [0.9, 0.8, 0.7]


def test_every_model_and_data_set_has_a_line_of_panels():
    other = make_board({("deep", "default"): (0.5, 0.01, 0.1, 0.02)}, place=("karpathynet", "shapes"))
    figure = plot_leaderboard(pd.concat([make_board(SETTINGS), other]), "unlearned_forget_accuracy", "title")
    assert [axis.get_title() for axis in figure.axes] == ["lenet5 on digits"] * 2 + ["karpathynet on shapes"] * 2
    assert read(figure.axes[3], ["deep"]) == {"deep": (0.5, 0.01)}
