import itertools
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.text import Text

from unlearn_lib import (
    class_changes,
    diagnose,
    follow_impression,
    plot_changes,
    plot_confusions,
    plot_cost,
    plot_frontier,
    plot_growth,
    plot_history,
    plot_impressions,
    plot_lab,
    plot_losses,
    plot_per_class,
    plot_pictures,
    plot_recipes,
    plot_relearning,
    plot_responsive,
    plot_walk,
    responsive_layers,
    save_figure,
    score,
)
from unlearn_lib.common import UserError
from unlearn_lib.figures import plot_leaderboard
from unlearn_lib.figures.style import choose_styles
from unlearn_lib.presets import CHOICES


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_bars_of_every_model_and_class_at_their_height():
    blocks = {"original": score([[3, 1], [0, 2]], [1]), "masked": score([[4, 0], [2, 0]], [1]), "golden": None}
    figure = plot_per_class(blocks, ["cat", "dog"], [1], "two models")
    axis = figure.axes[0]
    assert len({bar.get_facecolor() for bar in axis.patches[:4]}) == 2
    assert [bar.get_height() for bar in axis.patches[:4]] == [0.75, 1.0, 1.0, 0.0]
    assert len({bar.get_hatch() for bar in axis.patches[:4]}) == 2
    assert [label.get_text() for label in axis.get_xticklabels()] == ["cat", "dog"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["original", "masked"]
    assert figure.get_suptitle() == "two models (shaded: to forget)"
    assert [patch.get_x() for patch in axis.patches[4:]] == [0.5]


def test_a_model_looks_the_same_whatever_stands_beside_it():
    block = score([[3, 1], [0, 2]], [1])

    def look(name, *others):
        axis = plot_per_class(dict.fromkeys([*others, name], block), ["cat", "dog"], [1], "models").axes[0]
        bar = axis.containers[-1].patches[0]
        return bar.get_facecolor(), bar.get_hatch()

    names = ("original", "masked", "unlearned", "golden", "neggrad+", "distill", "published", "deep")
    alone = {name: look(name) for name in names}
    assert len({colour for colour, _ in alone.values()}) == len({hatch for _, hatch in alone.values()}) == len(names)
    for name in names:
        others = [other for other in names if other != name]
        assert look(name, "mine", *others) == look(name, *reversed(others)) == alone[name]


def test_other_models_are_told_apart_and_are_none_of_the_known():
    looks = choose_styles(["original", "mine", "yours", "golden"])
    assert len({look.colour for look in looks.values()}) == 4
    assert looks["mine"] == choose_styles(["mine"])["mine"]
    many = choose_styles([f"setting {i}" for i in range(16)]).values()
    assert len({(look.colour, look.marker) for look in many}) == 16


@pytest.mark.parametrize(
    "name", ["a$b$c", "$\\bad{$", "_under_", "100 % <b>", r"back\\slash", "x^2_i", "数字", "two\nlines"]
)
def test_names_are_drawn_as_they_are(name, tmp_path):
    classes, blocks = [name, "dog"], {"original": score([[3, 1], [0, 2]], [1]), name: score([[3, 1], [0, 2]], [1])}
    changes = class_changes(*blocks.values(), classes, [1])
    figures = [plot_per_class(blocks, classes, [0], name), plot_confusions(blocks, classes, name)]
    figures += [plot_changes(changes, name), plot_pictures(torch.zeros(1, 1, 8, 8), [name], name)]
    for figure in figures:
        figure.savefig(tmp_path / "drawn.png")
        texts = [text for text in figure.findobj(plt.Text) if name in text.get_text()]
        assert texts and not any(text.get_parse_math() for text in texts)
    assert name in [text.get_text() for text in figures[0].legends[0].get_texts()]


def test_a_class_without_test_pictures_says_so_and_has_no_bar():
    axis = plot_per_class({"original": score([[0, 0], [1, 2]], [0])}, ["cat", "dog"], [0], "one").axes[0]
    assert axis.get_xticklabels()[0].get_text() == "cat\nno test pictures"


@pytest.mark.parametrize("size", [None, (6.8, 4.4)])
def test_names_under_the_bars_do_not_overlap(size):
    blocks = {"original": score(torch.eye(10, dtype=torch.int), [1])}
    for classes in ([str(c) for c in range(10)], [f"rectangle {c}" for c in range(10)]):
        figure = plot_per_class(blocks, classes, [1, 2], "ten", size=size)
        figure.canvas.draw()
        labels = figure.axes[0].get_xticklabels()
        assert all(label.get_fontsize() >= 9 for label in labels)
        boxes = [label.get_window_extent() for label in labels if not label.get_rotation()]
        assert not any(left.overlaps(right) for left, right in itertools.pairwise(boxes))


def test_training_curves_of_every_model():
    history = {name: [0.5, 0.7] for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr")}
    figure = plot_history({"original": history, "golden": history}, "curves")
    assert [len(axis.lines) for axis in figure.axes] == [4, 4]
    assert figure.axes[0].lines[0].get_linestyle() != figure.axes[0].lines[1].get_linestyle()


@pytest.mark.parametrize("layer", ["input", "conv2", "fc3"])
def test_impressions_are_drawn_with_their_diagnostics(experiment, layer):
    made = experiment.impressions(layer, samples=3)
    diagnosis = diagnose(experiment.load(experiment.original()), made)
    figure = plot_impressions(made, diagnosis, experiment.dataset.classes, "impressions")
    assert len(figure.axes) == 10 + 4


def test_confusion_matrices_are_in_percent_of_their_row():
    figure = plot_confusions({"original": score([[3, 1], [0, 2]]), "golden": None}, ["cat", "dog"], "one", rows=[0])
    marks = [text.get_text() for text in figure.axes[0].texts]
    assert marks == ["75", "25"]


def test_losses_growth_and_responsive_layers_are_drawn_as_measured(experiment):
    net = experiment.load(experiment.original())
    growth, states = follow_impression(net, 3, "fc2", steps=10)
    assert list(growth["confidence"]) == plot_growth(growth, states, "growth").axes[8].lines[0].get_ydata().tolist()
    layers = responsive_layers(net, tries=2, layers=["pool2", "fc3"])
    layers.loc["pool2", "reached"] = 0.5
    bars = plot_responsive(layers, "layers").axes[0].patches
    assert [bar.get_height() for bar in bars] == list(layers["reached"])
    history = {"forget_loss": [2.0, 1.0], "retain_loss": [0.5, 0.4]}
    lines = plot_losses({"neggrad+": history}, "losses").axes[0].lines
    assert [line.get_ydata().tolist() for line in lines] == [[2.0, 1.0], [0.5, 0.4]]


def test_pictures_and_recipes_and_costs_are_drawn(digits):
    names = [str(c) for c in digits.test.labels[:3].tolist()]
    figure = plot_pictures(digits.test.images[:3], names, "digits", columns=2)
    assert [axis.get_title() for axis in figure.axes] == [*names, ""]
    diagnosis = pd.DataFrame({"confidence": [0.9], "norm": [8.0], "infeasible": [0.0], "cosine": [0.5]})
    assert "0: no number" in plot_recipes({"calibrated": diagnosis}, "one").axes[2].texts[0].get_text()
    recipes = plot_recipes({"calibrated": diagnosis, "published": diagnosis * 2}, "recipes")
    assert [bar.get_height() for bar in recipes.axes[1].patches] == [8.0, 16.0]
    cost = plot_cost(pd.DataFrame({"impressions": [10, 20, 40], "seconds": [1.0, 2.5, 4.0]}), "cost")
    assert cost.axes[0].lines[1].get_ydata().tolist() == [1.0, 4.0]


def test_layers_that_are_all_responsive_are_a_sentence():
    layers = pd.DataFrame({"reached": [1.0, 1.0], "learnable": [True, True]}, index=["conv1", "fc3"])
    figure = plot_responsive(layers, "layers")
    assert not any(axis.axison for axis in figure.axes)
    assert "at each of the 2 layers: conv1, fc3" in figure.texts[-1].get_text()


def test_pictures_can_have_a_name_a_row():
    figure = plot_pictures(torch.rand(4, 1, 8, 8), ["a"] * 4, "rows", columns=2, rows=["plain", "deepinversion"])
    assert [axis.get_ylabel() for axis in figure.axes] == ["plain", "", "deepinversion", ""]


def test_a_figure_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "no folder").write_text("a file")
    with pytest.raises(UserError, match="figure: .*one.png cannot be written"):
        save_figure(plt.figure(), "one", tmp_path / "no folder")


def test_a_figure_is_saved_under_its_name(tmp_path):
    path = save_figure(plt.figure(), "01_nothing", tmp_path)
    assert path == tmp_path / "01_nothing.png"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_figure_goes_among_the_runs_where_no_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("UNLEARN_RUNS", str(tmp_path))
    monkeypatch.delenv("UNLEARN_FIGURES", raising=False)
    assert save_figure(plt.figure(), "01_nothing") == tmp_path / "figures" / "01_nothing.png"


def test_the_frontier_has_a_mark_a_network_and_a_star_a_golden():
    rows = pd.DataFrame(
        {"layer": ["fc3", "fc2"], "method": ["mask", "distill"], "retain": [0.9, 0.8], "probe": [0.7, 0.6]}
    )
    golden = pd.DataFrame({"retain": [0.85, 0.86], "probe": [0.5, 0.52]})
    axis = plot_frontier(rows, golden, "frontier").axes[0]
    drawn = [line.get_xydata().tolist() for line in axis.lines if len(line.get_xdata())]
    assert sorted(drawn) == [[[0.5, 0.85]], [[0.52, 0.86]], [[0.6, 0.8]], [[0.7, 0.9]]]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["mask", "distill", "golden, one a seed"]
    assert sorted(text.get_text() for text in axis.texts) == ["fc2", "fc3"]


def test_networks_in_one_place_stand_side_by_side_with_all_their_layers():
    methods = ["mask", "distill", "neggrad+"]
    rows = pd.DataFrame({"layer": ["fc3", "fc3", "fc2"], "method": methods, "retain": 0.9, "probe": 0.7})
    figure = plot_frontier(rows, pd.DataFrame({"retain": [0.8], "probe": [0.5]}), "frontier")
    figure.canvas.draw()
    axis = figure.axes[0]
    marks = [line for line in axis.lines if line.get_xydata().tolist() == [[0.7, 0.9]]]
    places = sorted(line.get_transform().transform((0.7, 0.9))[0] for line in marks)
    assert len(marks) == 3
    assert all(right - left > 15 for left, right in itertools.pairwise(places))
    assert "fc2, 2 x fc3" in [text.get_text() for text in axis.texts]


def boxes(texts):
    return [Text.get_window_extent(text) for text in texts]  # without the line that leads there


@pytest.mark.parametrize("seed", range(4))
def test_in_a_crowd_no_mark_and_no_text_of_the_frontier_covers_another(seed):
    random = np.random.default_rng(seed)
    layers, methods = ["fc1", "conv32", "conv31", "conv22"] * 2, ["neggrad+"] * 4 + ["distill"] * 4
    places = {"retain": 0.98 + 0.005 * random.random(8), "probe": 0.9 + 0.01 * random.random(8)}
    golden = pd.DataFrame({"retain": [0.99, 0.986, 0.977], "probe": [0.88, 0.9, 0.9]})
    figure = plot_frontier(pd.DataFrame({"layer": layers, "method": methods, **places}), golden, "crowd")
    figure.canvas.draw()
    axis = figure.axes[0]
    marks = [line.get_transform().transform(line.get_xydata())[0] for line in axis.lines if len(line.get_xdata())]
    for one, other in itertools.combinations(marks, 2):
        assert max(abs(one - other)) >= 12 * figure.dpi / 72
    written = boxes(axis.texts)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(written, 2))
    assert not any(box.contains(*mark) for box in written for mark in marks)


def test_every_relearning_curve_is_named_at_the_curve():
    block = {
        "target": 0.9,
        "relearn": {"curve": {"masked": [0.0] * 50, "golden": [0, 0.5, 1], "unlearned": [0.0, 1.0]}},
    }
    figure = plot_relearning({"neggrad+": block, "distill": block}, "again")
    axis = figure.axes[0]
    names = [text.get_text() for text in axis.texts]
    assert sorted(names) == ["distill", "golden", "masked", "neggrad+", "relearned"]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes(axis.texts), 2))
    assert [text.xy for text in axis.texts if text.get_text() in ("golden", "neggrad+")] == [(2, 1), (1, 1)]


def test_the_walk_marks_the_first_epoch_in_which_the_groups_are_apart():
    shifts = torch.tensor([[-1.0, 1.0, 1.5], [-2.0, 2.0, 2.5], [-3.0, 3.0, 3.5]])
    lines = plot_walk(shifts, [0], "walk", needed=3.5).axes[0].lines
    assert lines[0].get_ydata().tolist() == [-1, -2, -3]
    assert lines[-1].get_xdata() == [2, 2]
    assert len(plot_walk(shifts, [0], "walk", needed=100).axes[0].lines) == 3


@pytest.fixture
def grid():
    rows = [[*c, i / 16, 1 - i / 16] for i, c in enumerate(itertools.product(*CHOICES.values()))]
    return pd.DataFrame(rows, columns=[*CHOICES, "FA", "RA"]).set_index([*CHOICES])


def frames(axis):
    return [tuple(map(int, patch.get_xy())) for patch in axis.patches if not patch.fill]


def test_the_lab_frames_the_published_and_the_chosen_combination_of_sixteen(grid):
    forget, retain = plot_lab(grid, "lab", ("calibrated", "frozen", "prose", 0.1)).axes
    assert sorted(float(text.get_text()) for text in forget.texts) == [round(100 * i / 16, 1) for i in range(16)]
    assert frames(forget) == frames(retain) == [(0, 0), (2, 2)]
    assert frames(plot_lab(grid, "lab").axes[0]) == [(0, 0)]
    one, other = (patch.get_bbox() for patch in plot_lab(grid, "lab", grid.index[0]).axes[0].patches)
    assert one.x0 > other.x0  # where the published one is chosen, both frames can be seen


def test_the_lab_marks_what_forgets_and_retains_or_says_that_nothing_does(grid):
    axis = plot_lab(grid, "lab").axes[0]
    assert [tuple(line.get_xydata()[0].astype(int)) for line in axis.lines] == [(0, 0)]
    figure = plot_lab(grid.assign(FA=0.5), "lab")
    assert not figure.axes[0].lines
    assert "no combination both forgets and retains" in figure.get_supxlabel()


def test_a_dark_picture_is_drawn_dark_whatever_its_values():
    dark = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8) // 8
    shown = plot_pictures(dark, ["night"], "one").axes[0].images[0].get_array()
    assert shown[..., 0].tolist() == dark[0, 0].tolist()


def test_a_negative_cosine_is_in_sight():
    columns = {"confidence": [0.9, 0.8], "norm": [3.0, 2.0], "infeasible": [0.1, 0.2], "cosine": [-0.2, 0.1]}
    diagnosis = pd.DataFrame(columns)
    impressions = SimpleNamespace(x=torch.rand(2, 1, 8, 8), labels=torch.tensor([0, 1]))
    figure = plot_impressions(impressions, diagnosis, ["ant", "bee"], "two")
    assert figure.axes[-1].get_xlim()[0] <= -0.2
    many = pd.concat([diagnosis] * 20, ignore_index=True)
    impressions = SimpleNamespace(x=torch.rand(40, 1, 8, 8), labels=torch.arange(40))
    figure = plot_impressions(impressions, many, [str(c) for c in range(40)], "many")
    assert sum(bar.get_height() for bar in figure.axes[-1].patches) == 40
    low, high = plot_recipes({"natural": diagnosis, "mine": diagnosis}, "two").axes[-1].get_ylim()
    assert low <= -0.05 < 0 <= high


def test_the_row_of_a_class_without_pictures_is_empty():
    figure = plot_confusions({"original": score([[3, 1], [0, 0]])}, ["cat", "dog"], "one")
    assert figure.axes[0].collections[0].get_array().mask.tolist() == [[False, False], [True, True]]


def test_a_setting_without_a_value_says_so_and_moves_no_other():
    board = pd.DataFrame({"RA": [0.9, 0.8, 0.7], "RA_std": 0.01, "FA": [0.0, 0.5, np.nan], "FA_std": 0.0})
    methods = [("lenet5", "digits", method) for method in ("mask", "distill", "neggrad+")]
    board.index = pd.MultiIndex.from_tuples(methods, names=["model", "data", "method"])
    figure = plot_leaderboard(board, "FA", "title")
    figure.canvas.draw()
    axis = figure.axes[0]
    for container in axis.containers[:2]:
        mark = container.lines[0]
        place, true = (t.transform(mark.get_xydata())[0] for t in (mark.get_transform(), axis.transData))
        assert place == pytest.approx(true)
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["mask", "distill", "neggrad+ (no value)"]
