import shutil
from dataclasses import replace

import pandas as pd
import pytest
import torch

from unlearn_lib import ComparisonPanel, ImpressionExplorer, UserError, comparison_panel, impression_explorer
from unlearn_lib.figures import plot_pictures
from unlearn_lib.panels import compare

CLASSES = ["ant", "bee"]


def growth_to(label, layer, recipe):
    steps = 4 if recipe == "calibrated" else 8
    confidence = [step / steps for step in range(steps + 1)]
    table = pd.DataFrame({"confidence": confidence, "norm": [10 * label + step for step in range(steps + 1)]})
    return table, torch.arange(steps + 1.0)[:, None].repeat(1, 9)


@pytest.fixture
def explorer():
    return ImpressionExplorer("title", CLASSES, ["input", "fc1"], follow=growth_to, recipes=("calibrated", "published"))


def test_the_explorer_starts_at_the_impression_and_says_so(explorer):
    assert explorer.step.value == explorer.step.max == explorer.play.value == 4
    assert "Step 4 of 4, calibrated: the network sees ant with 100.0 % confidence; norm 4.0." in explorer.status.value


def test_the_slider_goes_back_to_noise_in_words_picture_and_curves(explorer):
    end = explorer.curves.value
    explorer.step.value = 1
    assert "Step 1 of 4" in explorer.status.value
    assert "25.0 % confidence; norm 1.0" in explorer.status.value
    assert bytes(explorer.picture.value).startswith(b"\x89PNG")
    assert explorer.curves.value != end


@pytest.mark.parametrize("control, value, words", [("label", 1, "sees bee"), ("recipe", "published", "Step 8 of 8")])
def test_another_choice_is_followed_anew(explorer, control, value, words):
    explorer.step.value = 1
    getattr(explorer, control).value = value
    assert words in explorer.status.value
    assert explorer.step.value == explorer.step.max


def test_a_way_that_cannot_be_followed_is_a_sentence(explorer):
    def refuse(*choice):
        raise UserError("layer: too large")

    explorer.follow = refuse
    explorer.layer.value = "fc1"
    assert "Not made. layer: too large." in explorer.status.value


def test_the_explorer_of_a_network_begins_in_noise_and_ends_in_its_class(experiment):
    explorer = impression_explorer(experiment)
    assert "deepinversion" not in explorer.recipe.options  # LeNet5 has no BatchNorm
    explorer.recipe.value, explorer.label.value = "calibrated", 7
    assert explorer.growth["confidence"].iloc[-1] > 0.9
    explorer.step.value = 0
    assert explorer.growth["confidence"].iloc[0] < 0.9
    norm = explorer.growth["norm"].iloc[-1]
    explorer.recipe.value = "published"
    assert explorer.growth["norm"].iloc[-1] > 10 * norm
    explorer.layer.value = "fc3"
    assert explorer.states.shape == (1001, 84)


@pytest.mark.parametrize("error", [TypeError("no len()"), ZeroDivisionError("division by zero")])
def test_whatever_goes_wrong_while_looking_is_said_and_nothing_old_stays_in_sight(explorer, comparison, error):
    def fail(*choice):
        raise error

    sentence = f"{type(error).__name__}: {error}."
    explorer.follow = comparison.answers = fail
    explorer.layer.value, comparison.second.value = "fc1", "one"
    assert f"Not made: {sentence}" in explorer.status.value
    assert f"Not compared: {sentence}" in comparison.status.value
    hidden = (explorer.picture, explorer.curves, comparison.chart)
    assert all(image.layout.display == "none" for image in hidden)
    explorer.step.value, comparison.label.value = 1, 1
    assert f"Not made: {sentence}" in explorer.status.value
    assert f"Not compared: {sentence}" in comparison.status.value


def test_a_picture_that_cannot_be_drawn_is_said_at_the_slider_and_at_the_class(explorer, comparison):
    explorer.states, comparison.images = explorer.states[:0], None
    explorer.step.value, comparison.view.value = 1, "pictures"
    assert "Not shown: IndexError" in explorer.status.value
    assert "Not shown: TypeError" in comparison.status.value


ANSWERS = {"one": [0, 0, 1, 1], "two": [0, 1, 1, 1]}


@pytest.fixture
def comparison():
    return ComparisonPanel(
        "title",
        CLASSES,
        torch.zeros(4, 1, 8, 8, dtype=torch.uint8),
        torch.tensor([0, 0, 1, 1]),
        names=lambda: list(ANSWERS),
        answers=lambda name: torch.tensor(ANSWERS[name]),
        forget=lambda name: [0] if name == "two" else [],
    )


def test_the_comparison_counts_the_answers_that_changed(comparison):
    assert "1 of 4 test pictures changed their answer" in comparison.status.value
    assert "right: 100.00 % in the first run, 75.00 % in the second" in comparison.status.value
    assert bytes(comparison.chart.value).startswith(b"\x89PNG")
    assert comparison.chart.layout.display == ""


def test_the_chart_shows_the_classes_or_the_confusions_in_one_place(comparison):
    bars = comparison.chart.value
    comparison.view.value = "confusion"
    assert comparison.chart.value != bars
    comparison.view.value = "per class"
    assert comparison.chart.value == bars


def test_a_class_shows_the_pictures_that_changed_in_it(comparison):
    bars = comparison.chart.value
    assert "ant: 1 of 2 test pictures changed their answer, the first 1 under pictures" in comparison.summary.value
    comparison.view.value = "pictures"
    assert comparison.chart.layout.display == ""
    assert comparison.chart.value != bars
    comparison.label.value = 1
    assert "bee: 0 of 2 test pictures changed their answer." in comparison.summary.value
    assert comparison.chart.layout.display == "none"


def test_the_same_run_twice_has_changed_nothing(comparison):
    comparison.second.value = "one"
    assert "0 of 4 test pictures changed" in comparison.status.value


def test_a_run_that_does_not_open_is_a_sentence(comparison):
    def refuse(name):
        raise UserError("model file: damaged")

    comparison.answers = refuse
    comparison.second.value = "one"
    assert "Not compared. model file: damaged." in comparison.status.value


def test_saved_runs_are_compared_and_new_ones_are_found(experiment, tmp_path):
    original, golden = experiment.train(), experiment.golden()
    for run in (original, golden):
        shutil.copytree(run.path, tmp_path / run.name)
    moved = replace(experiment, runs_root=tmp_path)
    panel = comparison_panel(moved)
    assert panel.first.value == original.name
    assert panel.second.value == golden.name
    assert panel.classes[panel.label.value] == "1"
    run = moved.unlearn("distill")
    panel.refresh.click()
    assert panel.second.value == golden.name
    panel.second.value = run.name
    wrong = sum(sum(run.metrics["unlearned"]["confusion"][c]) for c in experiment.forget_classes)
    changed = int(panel.status.value.split(" of ")[0].removeprefix("<b>"))
    assert changed >= 0.9 * wrong


def test_a_run_that_was_made_anew_is_judged_anew(comparison, monkeypatch):
    monkeypatch.setitem(ANSWERS, "two", [1, 1, 1, 1])
    comparison.refresh.click()
    assert "2 of 4 test pictures changed their answer" in comparison.status.value


def test_runs_that_take_their_pictures_otherwise_are_not_compared(experiment, tmp_path, monkeypatch):
    for run in (experiment.train(), experiment.golden()):
        shutil.copytree(run.path, tmp_path / run.name)
    path = tmp_path / experiment.golden().name / "config.json"
    path.write_text(path.read_text().replace('"weights": null', '"weights": "tuned.pth"'))
    panel = comparison_panel(replace(experiment, runs_root=tmp_path))
    assert len(panel.first.options) == 2  # LeNet5's weights want nothing
    monkeypatch.setattr(compare, "find_framing", lambda model, weights: weights)
    panel.refresh.click()
    assert len(panel.first.options) == 1


def test_a_changed_picture_is_named_by_the_first_answer_and_the_second(comparison, monkeypatch):
    drawn = []
    monkeypatch.setattr(compare, "plot_pictures", lambda *args, **kwargs: drawn.append(args) or plot_pictures(*args))
    comparison.view.value = "pictures"
    assert [" ".join(name.split()) for name in drawn[-1][1]] == [f"{CLASSES[0]} → {CLASSES[1]}"]
    assert len(drawn[-1][0]) == 1
