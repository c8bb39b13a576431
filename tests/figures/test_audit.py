import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.text import Text
from reading import cells, colours, entries, lines, look, ticks

from unlearn_lib import plot_frontier, plot_lab, plot_relearning, plot_walk
from unlearn_lib.figures.style import FORGET, LOOKS, RETAIN, choose_styles
from unlearn_lib.presets import CHOICES


def boxes(texts):
    return [Text.get_window_extent(text) for text in texts]  # without the line that leads to the point


def overlap(texts):
    return any(one.overlaps(other) for one, other in itertools.combinations(boxes(texts), 2))


def make_audit(unlearned):
    return {
        "target": 0.9,
        "relearn": {"curve": {"masked": [0.0] * 50, "golden": [0, 0.5, 1], "unlearned": unlearned}},
    }


def test_every_relearning_curve_is_its_run_and_is_named_at_its_end():
    audits = {"neggrad+": make_audit([0.0, 0.25, 0.5, 1.0]), "distill": make_audit([0.0, 0.95])}
    axis = plot_relearning(audits, "again").axes[0]
    axis.figure.canvas.draw()
    ends = {text.get_text(): text.xy for text in axis.texts}
    assert ends == {
        "relearned: 90%": (0, 0.9),
        "masked": (49, 0),
        "golden": (2, 1),
        "neggrad+": (3, 1),
        "distill": (1, 0.95),
    }
    assert not overlap(axis.texts)
    for name, known in choose_styles(["masked", "golden", *audits]).items():
        thin, thick = (line for line in axis.lines if line.get_color() == known.colour)
        assert thin.get_xydata()[-1].tolist() == thick.get_xydata()[-1].tolist() == list(ends[name])
        assert thick.get_label() == name and thick.get_linewidth() > thin.get_linewidth()
    assert ticks(axis.yaxis)[0.4] == "40%"
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("mini-batches of real training data", "forget accuracy")


def test_thick_curves_are_means_over_the_steps_around():
    values = np.random.default_rng(0).random(100)
    axis = plot_relearning({"distill": make_audit(values)}, "again").axes[0]
    thick = next(line for line in axis.lines if line.get_label() == "distill").get_ydata()
    assert thick[80] == pytest.approx(values[78:83].mean())
    assert thick[[39, 99]] == pytest.approx(values[[39, 99]])


@pytest.mark.parametrize("count", [1, 7])
def test_names_of_any_number_of_relearning_curves_do_not_overlap(count):
    audits = {f"run {i}": make_audit(np.linspace(0, 1, 10 + 3 * i).tolist()) for i in range(count)}
    axis = plot_relearning(audits, "again").axes[0]
    axis.figure.canvas.draw()
    assert len(axis.texts) == count + 3
    assert not overlap(axis.texts)


def frontier(places, golden=((0.5, 0.85), (0.52, 0.86)), **options):
    rows = pd.DataFrame(places, columns=["method", "layer", "probe", "retain"])
    axis = plot_frontier(rows, pd.DataFrame(golden, columns=["probe", "retain"]), "frontier", **options).axes[0]
    axis.figure.canvas.draw()
    return axis


def test_each_mark_of_the_frontier_is_at_its_value_and_is_named():
    axis = frontier([("mask", "fc3", 0.7, 0.9), ("distill", "fc2", 0.6, 0.8)])
    drawn = {tuple(line.get_xydata()[0].tolist()): look(line) for line in axis.lines}
    wanted = {(0.7, 0.9): "mask", (0.6, 0.8): "distill", (0.5, 0.85): "golden", (0.52, 0.86): "golden"}
    assert {place: (colour, marker) for place, (colour, _, marker) in drawn.items()} == {
        place: (to_hex(LOOKS[name].colour), LOOKS[name].marker) for place, name in wanted.items()
    }
    names = {text.xy: text.get_text() for text in axis.texts}
    assert names == {(0.7, 0.9): "mask fc3", (0.6, 0.8): "distill fc2", (0.5, 0.85): "golden", (0.52, 0.86): "golden"}
    assert ("probe" in axis.get_xlabel(), axis.get_ylabel()) == (True, "retain accuracy")
    assert all(line.get_transform() == axis.transData for line in axis.lines)


def test_networks_in_one_place_are_one_mark_with_a_stack_of_names():
    same = [("mask", "fc3"), ("distill", "fc3"), ("neggrad+", "fc2"), ("distill", "fc3")]
    axis = frontier([(*network, 0.885, 0.9) for network in same], golden=((0.885, 0.9), (0.5, 0.8)))
    assert sorted(line.get_xydata()[0].tolist() for line in axis.lines) == [[0.5, 0.8], [0.885, 0.9]]
    names = {text.xy: text.get_text() for text in axis.texts}
    assert names[0.885, 0.9].split("\n") == ["mask fc3", "2 x distill fc3", "neggrad+ fc2", "golden"]
    shared = next(line for line in axis.lines if line.get_xydata()[0].tolist() == [0.885, 0.9])
    assert look(shared)[0] not in {to_hex(known.colour) for known in LOOKS.values()}


def test_two_networks_of_one_method_in_one_place_keep_its_look():
    axis = frontier([("distill", "fc3", 0.7, 0.9), ("distill", "fc2", 0.7, 0.9)])
    (mark,) = (line for line in axis.lines if line.get_xydata()[0].tolist() == [0.7, 0.9])
    assert mark.get_color() == LOOKS["distill"].colour and mark.get_marker() == LOOKS["distill"].marker


@pytest.mark.parametrize("pictures", [(40, 100), (144, 215), (10_000, 60_000), None])
@pytest.mark.parametrize("spread", [0.0, 0.01, 0.2])
def test_no_step_of_the_frontier_is_finer_than_one_test_picture(pictures, spread):
    axis = frontier([("mask", "fc3", 0.885, 0.99)], golden=((0.885 - spread, 0.99 - spread),), pictures=pictures)
    for side, count in zip((axis.xaxis, axis.yaxis), pictures or (500, 500), strict=True):
        shown = ticks(side)
        assert len(shown) >= 2
        assert min(np.diff(sorted(shown))) >= 1 / count - 1e-9
        assert all(float(text.rstrip("%")) == pytest.approx(100 * place) for place, text in shown.items())
        assert max(shown) <= 1


@pytest.mark.parametrize("seed", range(4))
def test_in_a_crowd_no_text_of_the_frontier_covers_another_or_a_mark(seed):
    random = np.random.default_rng(seed)
    layers = ["fc1", "conv32", "conv31", "conv22"]
    places = [(m, layer, *(0.9 + 0.08 * random.random(2))) for m in ("neggrad+", "distill") for layer in layers]
    axis = frontier(places, golden=((0.88, 0.99), (0.9, 0.986), (0.9, 0.977)))
    marks = [axis.transData.transform(line.get_xydata())[0] for line in axis.lines]
    assert len(axis.texts) == len(marks) == 11
    assert not overlap(axis.texts)
    assert not any(box.contains(*mark) for box in boxes(axis.texts) for mark in marks)


@pytest.fixture
def grid():
    rows = [[*c, i / 16, 0.99 - i / 20] for i, c in enumerate(itertools.product(*CHOICES.values()))]
    return pd.DataFrame(rows, columns=[*CHOICES, "FA", "RA"]).set_index([*CHOICES])


def frames(axis):
    return [tuple(map(int, patch.get_xy())) for patch in axis.patches if not patch.fill]


def test_each_cell_of_the_lab_is_the_accuracy_of_its_combination(grid):
    forget, retain = plot_lab(grid, "lab").axes
    for axis, what, title in ((forget, "FA", "forget accuracy, %"), (retain, "RA", "retain accuracy, %")):
        assert axis.get_title().startswith(title)
        drawn = cells(axis, forget)
        assert len(drawn) == 16
        for (impressions, weights, signs, smoothing), value in grid[what].items():
            cell = f"{impressions},\nweights {weights}", f"{signs} signs\nsmoothing {smoothing:g}"
            assert float(drawn[cell].rstrip(" ★")) == pytest.approx(100 * value, abs=0.051)


def test_one_colour_of_the_lab_means_good_on_both_sides(grid):
    forget, retain = plot_lab(grid.assign(RA=1 - grid["FA"]), "lab").axes
    for cell, colour in colours(forget).items():
        assert [*bytes.fromhex(colour[1:])] == pytest.approx([*bytes.fromhex(colours(retain)[cell][1:])], abs=2)
    brightness = {cell: sum(bytes.fromhex(colour[1:])) for cell, colour in colours(forget).items()}
    assert max(brightness, key=brightness.get) == (0, 0) and brightness[0, 0] > 2 * brightness[3, 3]
    assert "bright: good" in forget.figure.get_supxlabel()


def test_the_lab_frames_the_published_and_the_chosen_combination(grid):
    figure = plot_lab(grid, "lab", ("calibrated", "frozen", "published", 0.0))
    assert [frames(axis) for axis in figure.axes] == [[(0, 0), (1, 2)]] * 2
    published, chosen = figure.axes[0].patches
    assert published.get_linestyle() == "--" and chosen.get_linewidth() > published.get_linewidth()
    assert "thick frame: the chosen one" in figure.get_supxlabel()
    figure = plot_lab(grid, "lab")
    assert frames(figure.axes[0]) == [(0, 0)] and "thick" not in figure.get_supxlabel()
    one, other = (patch.get_bbox() for patch in plot_lab(grid, "lab", grid.index[0]).axes[0].patches)
    assert one.x0 > other.x0  # both frames of one cell can be seen


def test_the_lab_stars_what_forgets_and_retains_or_says_that_nothing_does(grid):
    grid.loc[grid.index[5], ["FA", "RA"]] = 0.05, 0.975
    grid.loc[grid.index[6], ["FA", "RA"]] = 0.04, 0.965
    axes = plot_lab(grid, "lab").axes
    for axis in axes:
        starred = [text.get_position() for text in axis.texts if "★" in text.get_text()]
        assert sorted(starred) == [(0.5, 0.5), (1.5, 1.5)]
    assert "star: forgets and retains" in axes[0].figure.get_supxlabel()
    figure = plot_lab(grid.assign(FA=0.5), "lab")
    assert not any("★" in text.get_text() for text in figure.axes[0].texts)
    assert "no combination both forgets and retains" in figure.get_supxlabel()


SHIFTS = torch.tensor([[1.0, -1.0, 1.5, -1.25], [2.0, -2.0, 2.5, -2.25], [3.0, -3.0, 3.5, -3.25]])


def test_each_bias_of_the_walk_is_drawn_over_the_epochs_in_the_look_of_its_group():
    figure = plot_walk(SHIFTS, [1, 3], "walk")
    drawn = lines(figure.axes[0], figure.legends[0])
    assert {name: [[y for _, y in line] for line in group] for name, group in drawn.items()} == {
        "forget class": SHIFTS[:, [1, 3]].T.tolist(),
        "retain class": SHIFTS[:, [0, 2]].T.tolist(),
    }
    assert [x for x, _ in drawn["forget class"][0]] == [1, 2, 3]
    assert {name: known[:2] for name, known in entries(figure.legends[0]).items()} == {
        "forget class": (to_hex(FORGET), "-"),
        "retain class": (to_hex(RETAIN), "--"),
    }
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("epoch", "bias, new - old")


def test_the_walk_marks_the_first_epoch_in_which_the_groups_are_apart():
    figure = plot_walk(SHIFTS, [1, 3], "walk", needed=2.5)
    assert figure.axes[0].lines[-1].get_xdata() == [2, 2]
    assert "from epoch 2 on 2.5 apart" in entries(figure.legends[0])
    assert not figure.axes[0].texts  # nothing lies on a curve
    assert len(plot_walk(SHIFTS, [1, 3], "walk", needed=100).axes[0].lines) == 4
