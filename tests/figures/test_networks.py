import itertools

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from reading import entries, lines, ticks

from unlearn_lib import plot_cost, plot_history, plot_losses, plot_responsive, plot_scaling
from unlearn_lib.figures import fit_cost
from unlearn_lib.figures.style import FORGET, LOOKS, RETAIN


def make_history(start):
    parts = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
    return {part: [start + i / 10, start + i / 10 + 0.05] for i, part in enumerate(parts)} | {"lr": [0.1, 0.2]}


def test_each_training_curve_is_the_history_that_its_legend_names():
    histories = {"original": make_history(0.1), "golden": make_history(0.5)}
    figure = plot_history(histories, "curves")
    for axis, what in zip(figure.axes, ("loss", "accuracy"), strict=True):
        drawn = lines(axis, figure.legends[0])
        assert axis.get_xlabel() == "epoch" and axis.get_ylabel().startswith(what)
        for name, history in histories.items():
            for part, key in (("training", "train"), ("validation", "val")):
                assert drawn[f"{name}, {part}"] == [
                    [[1, history[f"{key}_{what}"][0]], [2, history[f"{key}_{what}"][1]]]
                ]
    assert set(ticks(figure.axes[1].yaxis).values()) >= {"40%", "80%"}
    looks = entries(figure.legends[0])
    assert looks["golden, validation"] == (to_hex(LOOKS["golden"].colour), "-", "*")
    assert looks["golden, training"] == (to_hex(LOOKS["golden"].colour), "--", "*")


@pytest.mark.parametrize("epochs", [1, 3])
def test_epochs_are_whole_numbers(epochs):
    values = dict.fromkeys(("train_loss", "val_loss", "train_accuracy", "val_accuracy"), [0.5] * epochs)
    axis = plot_history({"original": values}, "curves").axes[0]
    assert all(float(place).is_integer() for place in ticks(axis.xaxis))


def test_losses_are_logarithmic_and_each_curve_is_the_loss_that_its_legend_names():
    figure = plot_losses({"neggrad+": {"forget_loss": [2.0, 1e-4], "retain_loss": [0.5, 0.4]}}, "losses")
    (axis,) = figure.axes
    drawn = lines(axis, axis.get_legend())
    assert drawn == {"forget loss": [[[1, 2], [2, 1e-4]]], "retain loss": [[[1, 0.5], [2, 0.4]]]}
    assert {text: look[:2] for text, look in entries(axis.get_legend()).items()} == {
        "forget loss": (to_hex(FORGET), "-"),
        "retain loss": (to_hex(RETAIN), "--"),
    }
    assert (axis.get_yscale(), axis.get_xlabel(), axis.get_ylabel()) == ("log", "epoch", "loss on impressions")
    assert ticks(axis.yaxis)[0.001] == "0.001"


def test_negative_losses_are_in_sight():
    (axis,) = plot_losses({"published": {"forget_loss": [-0.5, -300.0], "retain_loss": [1.0, 2.0]}}, "losses").axes
    low, high = axis.get_ylim()
    assert low < -300 and high > 2
    assert ticks(axis.yaxis)[-100] == "−100"


def test_seven_methods_have_a_panel_each():
    histories = {f"method {i}": {"forget_loss": [1.0 + i, 0.1], "retain_loss": [0.5, 0.2]} for i in range(7)}
    figure = plot_losses(histories, "seven")
    assert [axis.get_title() for axis in figure.axes] == list(histories)
    assert [lines(axis, axis.get_legend())["forget loss"][0][0][1] for axis in figure.axes] == [1, 2, 3, 4, 5, 6, 7]
    assert figure.get_figwidth() < 18


def test_each_layer_has_the_share_that_was_measured_and_a_hatch_where_it_can_learn():
    layers = pd.DataFrame({"reached": [0.5, 0.75], "learnable": [False, True]}, index=["pool2", "fc3"])
    axis = plot_responsive(layers, "layers", share=0.6).axes[0]
    drawn = dict(zip([label.get_text() for label in axis.get_xticklabels()], axis.patches, strict=True))
    assert {name: bar.get_height() for name, bar in drawn.items()} == {"pool2": 0.5, "fc3": 0.75}
    assert {name: bool(bar.get_hatch()) for name, bar in drawn.items()} == {"pool2": False, "fc3": True}
    assert drawn["pool2"].get_facecolor() != drawn["fc3"].get_facecolor()
    assert axis.lines[0].get_ydata()[0] == 0.6 and axis.texts[0].get_text() == "60%"
    assert ticks(axis.yaxis)[0.8] == "80%"


def test_names_of_sixty_layers_do_not_overlap():
    names = [f"layer{i}.conv1" for i in range(60)]
    figure = plot_responsive(pd.DataFrame({"reached": 0.5, "learnable": True}, index=names), "many")
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert all(left.x1 <= right.x0 + 1 for left, right in itertools.pairwise(boxes))


def test_layers_that_are_all_responsive_are_a_sentence():
    layers = pd.DataFrame({"reached": [1.0, 1.0], "learnable": [True, True]}, index=["conv1", "fc3"])
    figure = plot_responsive(layers, "layers")
    assert not any(axis.axison for axis in figure.axes)
    assert "at each of the 2 layers: conv1, fc3" in figure.texts[-1].get_text()


def test_the_fit_of_a_line_is_that_line():
    impressions = pd.Series([50, 500, 5000])
    line, r2 = fit_cost(impressions, 0.5 + 0.002 * impressions)
    assert [line[0], line[1], r2] == pytest.approx([0.5, 0.002, 1])


def test_the_fit_is_of_relative_errors_and_its_r2_too():
    impressions = np.array([10.0, 100, 1000])
    seconds = np.array([1.0, 3.0, 40.0])
    line, r2 = fit_cost(pd.Series(impressions), pd.Series(seconds))
    errors = line(impressions) / seconds - 1
    for start, each in ((0.01, 0), (0, 1e-4)):  # no other line near it has smaller errors
        for sign in (-1, 1):
            other = (line[0] + sign * start + (line[1] + sign * each) * impressions) / seconds - 1
            assert (errors**2).sum() < (other**2).sum()
    constant = (1 / seconds).sum() / (1 / seconds**2).sum()
    assert r2 == pytest.approx(1 - (errors**2).sum() / ((constant / seconds - 1) ** 2).sum())


def check_fit(axis, impressions, seconds):
    """The line drawn as `fit` is the line whose numbers stand in the title."""
    line, r2 = fit_cost(impressions, seconds)
    assert f"fit: {line[0]:.2g} s + {1000 * line[1]:.2g} s a thousand impressions, R² {r2:.4f}" in axis.get_title()
    (drawn,) = lines(axis, axis.get_legend())["fit"]
    x, y = np.transpose(drawn)
    assert y == pytest.approx(line(x))
    assert (x[0], x[-1]) == pytest.approx((impressions.min(), impressions.max()))
    assert "impressions" in axis.get_xlabel() and axis.get_ylabel() == "seconds"


def test_costs_are_drawn_as_measured_with_their_fit():
    cost = pd.DataFrame({"impressions": [10, 20, 40, 80], "seconds": [1.0, 2.5, 4.0, 9.5]})
    axis = plot_cost(cost, "cost").axes[0]
    assert lines(axis, axis.get_legend())["measured"] == [[[10, 1], [20, 2.5], [40, 4], [80, 9.5]]]
    check_fit(axis, cost["impressions"], cost["seconds"])
    assert axis.get_ylim()[0] == 0


@pytest.mark.parametrize("sizes", [(5,), (5, 25, 100), (1, 2, 5, 10, 25, 50, 100)])
def test_costs_of_any_number_of_sample_sizes_are_told_apart(sizes):
    rows = [(k, n, 0.5 + 0.002 * k * n * (1 + k / 1000) + n / 1e4) for k in (10, 100) for n in sizes]
    cost = pd.DataFrame(rows, columns=["classes", "samples", "seconds"])
    axis = plot_scaling(cost, "cost").axes[0]
    assert (axis.get_xscale(), axis.get_yscale()) == ("log", "log")
    points = axis.collections[0]
    colours = dict(zip(map(tuple, points.get_offsets().tolist()), map(to_hex, points.get_facecolors()), strict=True))
    texts = [text.get_text() for text in axis.get_legend().get_texts()]
    handles = dict(zip(texts, axis.get_legend().legend_handles, strict=True))
    assert set(colours) == {(k * n, seconds) for k, n, seconds in rows}
    for k, n, seconds in rows:
        assert colours[k * n, seconds] == to_hex(handles[f"{n} a class"].get_markerfacecolor())
    assert len({handle.get_marker() for handle in handles.values()}) == len(sizes) + 1
    assert len(handles) == len(sizes) + 1
    check_fit(axis, cost["classes"] * cost["samples"], cost["seconds"])


def test_one_measurement_has_no_fit():
    axis = plot_cost(pd.DataFrame({"impressions": [10], "seconds": [1.0]}), "one").axes[0]
    assert axis.get_title() == "one"
    assert lines(axis, axis.get_legend()) == {"measured": [[[10, 1]]]}
