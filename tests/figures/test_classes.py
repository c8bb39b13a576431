import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex
from reading import bars, cells, entries, rows, ticks
from torch import nn

from unlearn_lib import (
    class_changes,
    plot_changes,
    plot_confusions,
    plot_histograms,
    plot_losers,
    plot_per_class,
    score,
)
from unlearn_lib.figures.style import FORGET, RETAIN

CLASSES = ["ant", "bee", "cat", "dog", "elk"]
FORGOTTEN = [1, 3]
BEFORE = [[9, 1, 0, 0, 0], [2, 8, 0, 0, 0], [0, 0, 7, 3, 0], [0, 0, 4, 6, 0], [5, 0, 0, 0, 5]]
AFTER = [[10, 0, 0, 0, 0], [7, 1, 2, 0, 0], [0, 0, 4, 0, 6], [0, 0, 10, 0, 0], [2, 0, 1, 0, 7]]
FORGET_COLOUR, RETAIN_COLOUR = to_hex(FORGET), to_hex(RETAIN)


@pytest.fixture
def blocks():
    return {"original": score(BEFORE, FORGOTTEN), "masked": score(AFTER, FORGOTTEN), "golden": None}


@pytest.fixture
def changes(blocks):
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 5))
    model[1].weight.data = torch.tensor([[1.0, 0.2], [2.0, 0.0], [0.1, 1.0], [0.0, 3.0], [1.0, 0.9]])
    return class_changes(blocks["original"], blocks["masked"], CLASSES, FORGOTTEN, model)


def many_blocks(k, forget, seed=0):
    """Scores of two models of ten pictures a class: the second never answers with a forget class."""
    random = np.random.default_rng(seed)
    before = torch.from_numpy(np.diag(random.integers(5, 11, k)))
    before[:, 0] += 10 - before.sum(1)
    after = before.clone()
    after[:, -1] += after[:, forget].sum(1)
    after[:, forget] = 0
    return score(before, forget), score(after, forget)


def test_each_bar_is_the_accuracy_of_the_model_and_class_that_name_it(blocks):
    figure = plot_per_class(blocks, CLASSES, FORGOTTEN, "two models")
    figure.canvas.draw()
    drawn = bars(figure.axes[0], figure.legends[0])
    assert drawn["original"] == dict(zip(CLASSES, [0.9, 0.8, 0.7, 0.6, 0.5], strict=True))
    assert drawn["masked"] == dict(zip(CLASSES, [1, 0.1, 0.4, 0, 0.7], strict=True))
    assert list(drawn) == ["original", "masked"]
    assert ticks(figure.axes[0].yaxis)[1.0] == "100%"
    assert figure.axes[0].get_ylabel() == "accuracy"


def test_the_forget_classes_are_shaded_and_the_title_says_so(blocks):
    figure = plot_per_class(blocks, CLASSES, FORGOTTEN, "two models")
    shades = [patch for patch in figure.axes[0].patches if patch.get_width() == 1]
    assert [shade.get_x() + 0.5 for shade in shades] == FORGOTTEN
    assert figure.get_suptitle() == "two models (shaded: to forget)"
    assert plot_per_class(blocks, CLASSES, [], "two models").get_suptitle() == "two models"


def test_a_class_without_test_pictures_says_so_and_has_no_bar():
    axis = plot_per_class({"original": score([[0, 0], [1, 2]], [0])}, ["cat", "dog"], [0], "one").axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["cat\nno test pictures", "dog"]
    assert not axis.containers[0][0].get_height() > 0


@pytest.mark.parametrize(("models", "k"), [(1, 1), (7, 11), (9, 30)])
def test_bars_of_any_number_of_models_and_classes(models, k):
    names = [f"model {i}" for i in range(models)]
    table = {name: {"per_class_accuracy": [(i + c) / 100 for c in range(k)]} for i, name in enumerate(names)}
    figure = plot_per_class(table, [f"class {c}" for c in range(k)], [], "many")
    drawn = bars(figure.axes[0], figure.legends[0])
    assert drawn == {name: {f"class {c}": (i + c) / 100 for c in range(k)} for i, name in enumerate(names)}


def test_cells_of_a_confusion_are_in_percent_of_their_row(blocks):
    figure = plot_confusions(blocks, CLASSES, "two")
    assert [axis.get_title() for axis in figure.axes] == ["original", "masked"]
    first, second = (cells(axis, figure.axes[0]) for axis in figure.axes)
    assert {cell: text for cell, text in second.items() if text} == {
        ("ant", "ant"): "100",
        ("bee", "ant"): "70",
        ("bee", "bee"): "10",
        ("bee", "cat"): "20",
        ("cat", "cat"): "40",
        ("cat", "elk"): "60",
        ("dog", "cat"): "100",
        ("elk", "ant"): "20",
        ("elk", "cat"): "10",
        ("elk", "elk"): "70",
    }
    assert first["dog", "cat"] == "40" and first["cat", "dog"] == "30"
    assert (figure.get_supxlabel(), figure.get_supylabel()) == ("answer", "class")


def test_a_confusion_of_some_rows_names_these_rows(blocks):
    axis = plot_confusions({"masked": blocks["masked"]}, CLASSES, "one", rows=[3, 1]).axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["dog", "bee"]
    assert cells(axis)["dog", "cat"] == "100"
    assert cells(axis)["bee", "ant"] == "70"


@pytest.mark.parametrize("count", [1, 3, 7])
def test_every_confusion_has_its_panel_and_there_is_no_empty_one(blocks, count):
    names = [f"model {i}" for i in range(count)]
    figure = plot_confusions(dict.fromkeys(names, blocks["masked"]), CLASSES, "some")
    assert [axis.get_title() for axis in figure.axes] == names
    for axis in figure.axes:
        assert [label.get_text() for label in axis.get_xticklabels() if label.get_visible()] == CLASSES


def test_the_row_of_a_class_without_pictures_is_empty():
    figure = plot_confusions({"original": score([[3, 1], [0, 0]])}, ["cat", "dog"], "one")
    assert figure.axes[0].collections[0].get_array().mask.tolist() == [[False, False], [True, True]]


def test_numbers_in_the_cells_of_many_classes_do_not_overlap():
    figure = plot_confusions(
        {"original": score(torch.full((30, 30), 100))}, [str(c) for c in range(30)], "many", None, 3.6
    )
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts[:30]]
    assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(boxes))


def test_the_change_of_a_class_is_its_accuracy_after_minus_before(changes):
    assert changes["before"].tolist() == [0.9, 0.8, 0.7, 0.6, 0.5]
    assert changes["after"].tolist() == [1, 0.1, 0.4, 0, 0.7]
    assert changes["change"].tolist() == pytest.approx([0.1, -0.7, -0.3, -0.6, 0.2])
    assert changes["forget"].tolist() == [False, True, False, True, False]
    assert changes["class"].tolist() == CLASSES


def test_a_class_without_pictures_has_no_change():
    before = score(torch.tensor([[2, 0], [0, 0]]), [0])
    assert class_changes(before, before, ["a", "b"], [0]).index.tolist() == [0]


def test_the_nearest_forget_class_has_the_largest_cosine(changes):
    assert changes["nearest"].tolist()[::2] == ["bee", "dog", "bee"]
    assert changes["cosine"][4] == pytest.approx(1 / (1 + 0.9**2) ** 0.5)
    assert changes["cosine"][[1, 3]].isna().all() and changes["nearest"][[1, 3]].isna().all()


@pytest.mark.parametrize("k", [10, 100, 1000])
def test_every_class_has_its_change_in_points_in_the_colour_of_its_group(k):
    forget = list(range(1, k - 1, 7))
    changes = class_changes(*many_blocks(k, forget), [f"class {i}" for i in range(k)], forget)
    figure = plot_changes(changes, "many")
    axis = figure.axes[0]
    heights = {patch.get_label(): patch.get_data().values for patch in axis.patches}
    looks = {to_hex(patch.get_facecolor()): patch.get_label() for patch in axis.patches}
    assert looks == {
        FORGET_COLOUR: f"forget, {len(forget):,} classes",
        RETAIN_COLOUR: f"retain, {k - len(forget):,} classes",
    }
    assert entries(axis.get_legend()) == {label: (colour, "") for colour, label in looks.items()}
    drawn = sum(heights.values())
    assert drawn == pytest.approx(np.sort(100 * changes["change"]))
    lost = heights[looks[FORGET_COLOUR]]
    assert sorted(lost[lost != 0]) == pytest.approx(sorted(100 * changes["change"][changes["forget"]]))
    marks = axis.collections[0].get_segments()
    assert sorted(round(mark[0][0]) for mark in marks) == np.flatnonzero(lost).tolist()
    assert "points" in axis.get_ylabel()


def test_changes_are_sorted_and_named(changes):
    axis = plot_changes(changes, "five").axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["bee", "dog", "cat", "ant", "elk"]
    assert sum(p.get_data().values for p in axis.patches) == pytest.approx([-70, -60, -30, 10, 20])


def test_losers_are_named_with_their_nearest_class_and_their_loss(changes):
    left, right = plot_losers(changes.assign(change=[0.1, -0.7, -0.3, -0.6, -0.4]), "lost").axes
    assert rows(left) == pytest.approx({"cat, like dog (1.00)": -30, "elk, like bee (0.74)": -40})
    assert [label.get_text()[:3] for label in left.get_yticklabels()] == ["cat", "elk"]  # the greatest loss on top
    assert "points" in left.get_xlabel() and "points" in right.get_ylabel()
    places = right.collections[0].get_offsets().tolist()
    assert places == [pytest.approx([x, y]) for x, y in zip(changes["cosine"][[0, 2, 4]], [10, -30, -40], strict=True)]


def test_only_classes_that_lost_are_losers_and_the_worst_are_shown():
    after = [0.4, 0.5, 0.9, 0.3]
    changes = pd.DataFrame({"class": list("abcd"), "after": after, "forget": False, "nearest": "e", "cosine": 0.1})
    changes["change"] = changes["after"] - 0.5
    assert [label[:1] for label in rows(plot_losers(changes, "lost").axes[0])] == ["b", "a", "d"]
    assert [label[:1] for label in rows(plot_losers(changes, "lost", shown=2).axes[0])] == ["a", "d"]


def test_histograms_are_shares_of_each_group(blocks):
    figure = plot_histograms(blocks, FORGOTTEN, "two")
    assert [axis.get_title() for axis in figure.axes] == ["original", "masked"]
    looks = {text: look[0] for text, look in entries(figure.legends[0]).items()}
    assert looks == {"retain": RETAIN_COLOUR, "forget": FORGET_COLOUR}

    def shares(axis, colour):
        found = [bar for bar in axis.patches if to_hex(bar.get_facecolor()) == colour and bar.get_height()]
        return {int(10 * (bar.get_x() + bar.get_width() / 2)): round(bar.get_height(), 3) for bar in found}

    original, masked = figure.axes
    assert shares(original, FORGET_COLOUR) == {6: 0.5, 8: 0.5}
    assert shares(original, RETAIN_COLOUR) == {5: 0.333, 7: 0.333, 9: 0.333}
    assert shares(masked, FORGET_COLOUR) == {0: 0.5, 1: 0.5}
    assert shares(masked, RETAIN_COLOUR) == {4: 0.333, 7: 0.333, 9: 0.333}
    assert {bar.get_hatch() for bar in original.patches if to_hex(bar.get_facecolor()) == FORGET_COLOUR} == {"//"}


def test_seven_histograms_fit_on_a_page(blocks):
    figure = plot_histograms({f"model {i}": blocks["masked"] for i in range(7)}, FORGOTTEN, "seven")
    assert len(figure.axes) == 7
    assert figure.get_figwidth() < 16
