import itertools
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from reading import bars, rows

from unlearn_lib import (
    diagnose,
    follow_impression,
    plot_growth,
    plot_impressions,
    plot_pictures,
    plot_recipes,
)
from unlearn_lib.figures import as_picture, plot_growth_curves

DIAGNOSIS = pd.DataFrame(
    {"confidence": [0.9, 0.8], "norm": [3.0, 2.0], "infeasible": [0.1, 0.25], "cosine": [-0.2, 0.1]}, index=[1, 3]
)
CLASSES = ["ant", "bee", "cat", "dog", "elk"]


def make_impressions(labels):
    return SimpleNamespace(x=torch.linspace(0, 1, 64 * len(labels)).view(-1, 1, 8, 8), labels=torch.tensor(labels))


def test_each_picture_stands_under_its_name():
    images = torch.arange(3, dtype=torch.uint8)[:, None, None, None].expand(3, 1, 8, 8) * 40
    figure = plot_pictures(images, ["a", "b", "c"], "three", columns=2)
    shown = {axis.get_title(): axis.images[0].get_array().max() for axis in figure.axes if axis.images}
    assert shown == {"a": 0, "b": 40, "c": 80}
    assert [axis.axison for axis in figure.axes] == [True, True, True, False]


def test_pictures_can_have_a_name_a_row():
    figure = plot_pictures(torch.rand(4, 1, 8, 8), ["a"] * 4, "rows", columns=2, rows=["plain", "deepinversion"])
    assert [axis.get_ylabel() for axis in figure.axes] == ["plain", "", "deepinversion", ""]


@pytest.mark.parametrize("count", [1, 11])
def test_any_number_of_pictures_has_a_figure(count):
    figure = plot_pictures(torch.rand(count, 3, 8, 8), [f"p{i}" for i in range(count)], "some")
    assert sum(len(axis.images) for axis in figure.axes) == count


def test_a_dark_picture_is_drawn_dark_whatever_its_values():
    dark = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8) // 8
    shown = plot_pictures(dark, ["night"], "one").axes[0].images[0].get_array()
    assert shown[..., 0].tolist() == dark[0, 0].tolist()


def test_channels_are_tiles_line_by_line_and_a_vector_is_cells():
    tiles = torch.arange(5.0)[:, None, None].expand(5, 2, 2)
    grey = as_picture(tiles).astype(int).sum(2)
    assert grey.shape == (4, 6)
    assert grey[0, 0] != grey[0, 2] != grey[0, 4] != grey[2, 0]
    assert (grey[:2, :2] == grey[0, 0]).all()
    assert grey[2, 4] == 3 * 255  # no tile: white
    assert (as_picture(torch.arange(5.0)) == as_picture(tiles)[::2, ::2]).all()
    colour = torch.zeros(3, 4, 4)
    colour[1] = 1
    assert as_picture(colour)[0, 0].tolist() == [0, 255, 0]


def test_growth_is_drawn_as_measured_with_the_states_of_its_steps(experiment):
    growth, states = follow_impression(experiment.load(experiment.original()), 3, "fc2", steps=10)
    figure = plot_growth(growth, states, "growth")
    for axis in figure.axes[:8]:
        step = int(axis.get_title().removeprefix("step "))
        assert (axis.images[0].get_array() == as_picture(states[step])).all()
    for drawn in (figure, plot_growth_curves(growth)):
        for axis, what in zip(drawn.axes[-2:], ("confidence", "norm"), strict=True):
            assert (axis.get_xlabel(), axis.get_ylabel()) == ("step", what)
            assert axis.lines[0].get_xydata().tolist() == [[step, growth[what][step]] for step in growth.index]


def test_each_recipe_has_its_mean_of_each_measure():
    three = pd.concat([DIAGNOSIS.mul(3), DIAGNOSIS * 0, DIAGNOSIS * 0])  # of a mean that is not the median
    diagnoses = {"calibrated": three, "natural": DIAGNOSIS * 2, "published": DIAGNOSIS * 100}
    figure = plot_recipes(diagnoses, "recipes")
    means = {"confidence": 0.85, "norm": 2.5, "infeasible": 0.175, "cosine": -0.05}
    for axis in figure.axes:
        axis.set_xticks([0], ["here"])
        mean = means[axis.get_title()]
        drawn = {name: bar["here"] for name, bar in bars(axis, figure.legends[0]).items()}
        assert drawn == pytest.approx({"calibrated": mean, "natural": 2 * mean, "published": 100 * mean})
    assert {axis.get_title() for axis in figure.axes} == set(means)
    assert [text.get_text() for text in figure.axes[1].texts] == ["2.50", "5.00", "250"]


def test_a_measure_that_is_zero_for_all_recipes_is_a_sentence():
    axis = plot_recipes({"calibrated": DIAGNOSIS.assign(infeasible=0.0)}, "one").axes[2]
    assert [text.get_text()[:12] for text in axis.texts] == ["0: no number"]


def test_seven_recipes_are_told_apart():
    diagnoses = {f"recipe {i}": DIAGNOSIS * (i + 1) for i in range(7)}
    figure = plot_recipes(diagnoses, "seven")
    figure.axes[1].set_xticks([0], ["here"])
    drawn = bars(figure.axes[1], figure.legends[0])
    assert {name: bar["here"] for name, bar in drawn.items()} == {f"recipe {i}": 2.5 * (i + 1) for i in range(7)}


def test_each_class_has_its_first_impression_and_its_diagnostics():
    impressions = make_impressions([1, 1, 3, 3])
    figure = plot_impressions(impressions, DIAGNOSIS, CLASSES, "two")
    shown = {axis.get_title(): axis.images[0].get_array() for axis in figure.axes[:2]}
    assert (shown["bee"] == as_picture(impressions.x[0])).all()
    assert (shown["dog"] == as_picture(impressions.x[2])).all()
    names = [label.get_text() for label in figure.axes[2].get_yticklabels()]
    for axis in figure.axes[2:]:
        drawn = [axis.patches[round(place)].get_width() for place in figure.axes[2].get_yticks()]
        values = DIAGNOSIS[axis.get_xlabel()]
        assert dict(zip(names, drawn, strict=True)) == {"bee": values[1], "dog": values[3]}
    assert rows(figure.axes[2]) == {"bee": 0.9, "dog": 0.8}
    assert figure.axes[2].get_ylim()[0] > figure.axes[2].get_ylim()[1]  # the first class on top
    assert figure.axes[-1].get_xlim()[0] <= -0.2  # a negative cosine is in sight


@pytest.mark.parametrize("layer", ["input", "conv2", "fc3"])
def test_impressions_of_any_layer_are_drawn(experiment, layer):
    made = experiment.impressions(layer, samples=3)
    diagnosis = diagnose(experiment.load(experiment.original()), made)
    figure = plot_impressions(made, diagnosis, experiment.dataset.classes, "impressions")
    assert len(figure.axes) == 10 + 4
    assert list(rows(figure.axes[10]).values()) == diagnosis["confidence"].tolist()


@pytest.mark.parametrize("k", [1, 11, 30])
def test_names_of_the_classes_do_not_overlap(k):
    diagnosis = pd.DataFrame({"confidence": 0.5, "norm": 2.0, "infeasible": 0.1, "cosine": 0.2}, index=range(k))
    figure = plot_impressions(make_impressions([*range(k)]), diagnosis, [f"class {c}" for c in range(k)], "some")
    figure.canvas.draw()
    axis = figure.axes[min(k, 10)]
    boxes = [label.get_window_extent() for label in axis.get_yticklabels()]
    assert len(boxes) == k
    assert all(upper.y0 >= lower.y1 - 1 for upper, lower in itertools.pairwise(boxes))


def test_many_classes_are_a_histogram_of_classes():
    many = pd.concat([DIAGNOSIS] * 20, ignore_index=True)
    figure = plot_impressions(make_impressions([*range(40)]), many, [str(c) for c in range(40)], "many")
    for axis in figure.axes[-4:]:
        assert sum(bar.get_height() for bar in axis.patches) == 40
    heights = [bar.get_height() for bar in figure.axes[-1].patches if bar.get_height()]
    places = [bar.get_x() for bar in figure.axes[-1].patches if bar.get_height()]
    assert heights == [20, 20]
    assert places == pytest.approx([-0.2, 0.085])
    assert figure.axes[10].get_ylabel() == "classes"
