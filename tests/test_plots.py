import itertools

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

from unlearn_lib import (
    diagnose,
    follow_impression,
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
    plot_responsive,
    plot_walk,
    responsive_layers,
    save_figure,
    score,
)
from unlearn_lib.presets import CHOICES


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_bars_of_every_model_and_class_at_their_height():
    blocks = {"original": score([[3, 1], [0, 2]], [1]), "masked": score([[4, 0], [2, 0]], [1]), "golden": None}
    axis = plot_per_class(blocks, ["cat", "dog"], [1], "two models").axes[0]
    assert [bar.get_height() for bar in axis.patches[:4]] == [0.75, 1.0, 1.0, 0.0]
    assert len({bar.get_hatch() for bar in axis.patches[:4]}) == 2
    assert [label.get_text() for label in axis.get_xticklabels()] == ["cat", "dog\n(forget)"]


def test_training_curves_of_every_model():
    history = {name: [0.5, 0.7] for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr")}
    figure = plot_history({"original": history, "golden": history}, "curves")
    assert [len(axis.lines) for axis in figure.axes] == [4, 4]
    assert figure.axes[0].lines[0].get_linestyle() != figure.axes[0].lines[1].get_linestyle()


@pytest.mark.parametrize("layer", ["input", "conv2", "fc3"])
def test_impressions_are_drawn_with_their_diagnostics(lab, layer):
    made = lab.impressions(layer, samples=3)
    diagnosis = diagnose(lab.load(lab.original()), made)
    figure = plot_impressions(made, diagnosis, lab.dataset.classes, "impressions")
    assert len(figure.axes) == 10 + 4


def test_confusion_matrices_are_in_percent_of_their_row():
    figure = plot_confusions({"original": score([[3, 1], [0, 2]]), "golden": None}, ["cat", "dog"], "one", rows=[0])
    marks = [text.get_text() for text in figure.axes[0].texts]
    assert marks == ["75", "25"]


def test_losses_growth_and_responsive_layers_are_drawn_as_measured(lab):
    net = lab.load(lab.original())
    growth, states = follow_impression(net, 3, "fc2", steps=10)
    assert list(growth["confidence"]) == plot_growth(growth, states, "growth").axes[8].lines[0].get_ydata().tolist()
    layers = responsive_layers(net, tries=2, layers=["pool2", "fc3"])
    bars = plot_responsive(layers, "layers").axes[0].patches
    assert [bar.get_height() for bar in bars] == list(layers["reached"])
    history = {"forget_loss": [2.0, 1.0], "retain_loss": [0.5, 0.4]}
    lines = plot_losses({"neggrad+": history}, "losses").axes[0].lines
    assert [line.get_ydata().tolist() for line in lines] == [[2.0, 1.0], [0.5, 0.4]]


def test_pictures_and_recipes_and_costs_are_drawn(digits):
    words = [str(c) for c in digits.test.labels[:3].tolist()]
    figure = plot_pictures(digits.test.images[:3], words, "digits", columns=2)
    assert [axis.get_title() for axis in figure.axes] == [*words, ""]
    diagnosis = pd.DataFrame({"confidence": [0.9], "norm": [8.0], "infeasible": [0.0], "cosine": [0.5]})
    recipes = plot_recipes({"calibrated": diagnosis, "published": diagnosis * 2}, "recipes")
    assert [bar.get_height() for bar in recipes.axes[1].patches] == [8.0, 16.0]
    cost = plot_cost(pd.DataFrame({"impressions": [10, 20, 40], "seconds": [1.0, 2.5, 4.0]}), "cost")
    assert cost.axes[0].lines[1].get_ydata().tolist() == [1.0, 4.0]


def test_a_figure_is_saved_under_its_name(tmp_path):
    path = save_figure(plt.figure(), "01_nothing", tmp_path)
    assert path == tmp_path / "01_nothing.png"
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_frontier_has_a_mark_a_network_and_a_star_a_golden():
    rows = pd.DataFrame(
        {"layer": ["fc3", "fc2"], "method": ["mask", "distill"], "retain": [0.9, 0.8], "probe": [0.7, 0.6]}
    )
    golden = pd.DataFrame({"retain": [0.85, 0.86], "probe": [0.5, 0.52]})
    axis = plot_frontier(rows, golden, "frontier").axes[0]
    drawn = [line.get_xydata().tolist() for line in axis.lines if len(line.get_xdata())]
    assert drawn == [[[0.7, 0.9]], [[0.6, 0.8]], [[0.5, 0.85], [0.52, 0.86]]]
    words = [text.get_text() for text in axis.get_legend().get_texts()]
    assert words == ["from fc3", "from fc2", "mask", "distill", "golden, one a seed"]


def test_the_walk_marks_the_first_epoch_in_which_the_groups_are_apart():
    shifts = torch.tensor([[-1.0, 1.0, 1.5], [-2.0, 2.0, 2.5], [-3.0, 3.0, 3.5]])
    lines = plot_walk(shifts, [0], "walk", needed=3.5).axes[0].lines
    assert lines[0].get_ydata().tolist() == [-1, -2, -3]
    assert lines[-1].get_xdata() == [2, 2]
    assert len(plot_walk(shifts, [0], "walk", needed=100).axes[0].lines) == 3


def test_the_lab_frames_the_chosen_combination_of_sixteen():
    rows = [[*c, i / 16, 1 - i / 16] for i, c in enumerate(itertools.product(*CHOICES.values()))]
    grid = pd.DataFrame(rows, columns=[*CHOICES, "FA", "RA"]).set_index([*CHOICES])
    forget, retain = plot_lab(grid, "lab", ("calibrated", "frozen", "prose", 0.1)).axes
    assert sorted(float(text.get_text()) for text in forget.texts) == [round(100 * i / 16, 1) for i in range(16)]
    (frame,) = [patch for patch in retain.patches if not patch.fill]
    assert frame.get_xy() == (2, 2)
