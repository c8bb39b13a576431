"""The unlearning panel: driven by its widgets with fake slow functions, and for a real network."""

import html
import re
import threading
import time
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn
from tqdm import notebook

from unlearn_lib import METHODS, Experiment, Unlearning, UserError, common, open_run, score, unlearning_panel
from unlearn_lib.common import progress, redirect_progress
from unlearn_lib.experiment import Stopped, Unlearned
from unlearn_lib.panels import UnlearningPanel
from unlearn_lib.panels.base import trainable_layers
from unlearn_lib.panels.controls import Controls

CLASSES = ["ant", "bee", "cow", "dog"]
FORGET = [1, 3]
GOOD = [[9, 1, 0, 0], [1, 8, 1, 0], [1, 0, 7, 2], [0, 0, 0, 10]]
FORGOTTEN = [[10, 0, 0, 0], [5, 1, 4, 0], [4, 0, 6, 0], [6, 0, 4, 0]]
MASKED = [[10, 0, 0, 0], [5, 0, 5, 0], [2, 0, 8, 0], [6, 0, 4, 0]]


class Golden:
    """A golden run."""

    metrics: ClassVar = {"golden": score(MASKED, FORGET), "seconds": {"golden": 7.0}}


def unlearned_after(epochs, unlearning, forget, original=GOOD):
    """A result after so many epochs, as `Experiment.compute` returns it."""
    metrics = {"original": score(original, forget), "masked": score(MASKED, forget)}
    metrics |= {"unlearned": score(FORGOTTEN, forget), "golden": None}
    metrics["seconds"] = {"train": 9.0, "golden": None, "impressions": 0.3, "unlearn": 0.2}
    history = {"forget_loss": [1.0] * epochs, "retain_loss": [1.0] * epochs}
    return Unlearned(unlearning, unlearning.layer, "model", history, metrics, None, "digest", epochs == 10)


class Slow:
    """Unlearning of ten epochs that waits at each until the test lets it continue."""

    def __init__(self):
        self.gate = threading.Semaphore(0)
        self.seen = []

    def __call__(self, unlearning, forget, on_step):
        for epoch in range(1, 11):
            self.gate.acquire(timeout=5)
            self.seen.append(epoch)
            if on_step({"stage": "unlearning", "epoch": epoch, "epochs": 10}) is False:
                break
        return unlearned_after(epoch, unlearning, forget)


@pytest.fixture
def slow():
    return Slow()


@pytest.fixture
def saved():
    return []


@pytest.fixture
def panel(slow, saved):
    def keep(unlearned, forget):
        saved.append((unlearned, forget))
        return "a folder"

    controls = Controls(CLASSES, ["fc1", "fc2"], FORGET, layer_of={"published": "fc2"})
    return UnlearningPanel("title", controls, slow, keep, train_golden=lambda forget: Golden)


def finish(panel, slow):
    slow.gate.release(50)
    panel.wait()


def run_fully(panel, slow):
    panel.run.click()
    finish(panel, slow)


def wait_for(place, word, seconds=5):
    deadline = time.time() + seconds
    while word not in place.value and time.time() < deadline:
        time.sleep(0.01)
    return place.value


def number_after(label, text):
    return re.search(rf"{label} ([\d.]+)", text).group(1)


def test_wait_before_start_returns_at_once(panel):
    panel.wait()
    assert "Ready" in panel.event.value


def test_the_choice_is_an_unlearning_and_the_forget_classes(panel):
    panel.controls.method.value = "distill"
    panel.controls.toggles[2].value = True
    panel.controls.lr.value = 1e-2
    panel.controls.epochs.value = 7
    panel.controls.forget_weight.value = 0
    panel.controls.layer.value = "fc1"
    assert panel.controls.chosen() == (Unlearning("distill", "fc1", lr=1e-2, epochs=7, forget_weight=0), [1, 2, 3])


@pytest.mark.parametrize("method", METHODS)
def test_every_method_brings_its_own_numbers(panel, method):
    panel.controls.method.value = "published" if method != "published" else "mask"
    panel.controls.method.value = method
    assert panel.controls.chosen() == (Unlearning(method, "fc2"), FORGET)


def test_published_shows_its_own_numbers_and_takes_its_layer(panel):
    panel.controls.lr.value = 0.1
    panel.controls.layer.value = "fc1"
    panel.controls.method.value = "published"
    shown = panel.controls
    assert [shown.layer.value, shown.lr.label, shown.epochs.value, shown.forget_weight.value] == [
        "fc2",
        "0.001",
        1000,
        0.9,
    ]
    assert number_after("retain weight", shown.fixed.value) == "0.1"
    assert number_after("batch size", shown.fixed.value) == "16"


def test_a_method_without_numbers_switches_their_controls_off(panel):
    panel.controls.method.value = "mask"
    assert panel.controls.lr.disabled and panel.controls.epochs.disabled and panel.controls.forget_weight.disabled
    panel.controls.method.value = "neggrad+"
    assert not panel.controls.lr.disabled


def test_the_head_is_a_layer_however_large_its_input():
    model = nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), nn.Flatten(), nn.Linear(64 * 12 * 12, 3)).eval()
    model.input_shape = (1, 12, 12)
    assert trainable_layers(model) == ["0", "2"]


def test_a_learning_rate_goes_back_to_the_methods(panel):
    panel.controls.lr.value = 0.1
    panel.controls.lr.value = panel.controls.lr.options[0][1]
    assert panel.controls.lr.label == "the method's"
    assert panel.controls.chosen()[0].lr is None


def test_the_range_sets_the_toggles(panel):
    panel.controls.range.value = (1, 2)
    assert panel.controls.forget() == [1, 2]
    assert "Forget 2 of 4: bee, cow." in panel.controls.summary.value
    assert [toggle.icon for toggle in panel.controls.toggles] == ["", "check", "check", ""]


def test_the_range_follows_the_toggles(panel):
    panel.controls.toggles[2].value = True
    panel.controls.toggles[1].value = False
    assert panel.controls.range.value == (2, 3)
    assert panel.controls.forget() == [2, 3]
    for toggle in panel.controls.toggles:
        toggle.value = False
    assert panel.controls.range.layout.visibility == "hidden"


def test_while_it_runs_run_is_off_and_the_progress_moves(panel, slow):
    panel.run.click()
    assert panel.run.disabled and panel.reset.disabled and not panel.stop.disabled
    assert "Running" in panel.event.value
    slow.gate.release(3)
    deadline = time.time() + 5
    while panel.progress.value < 3 and time.time() < deadline:
        time.sleep(0.01)
    assert panel.progress.value == 3
    finish(panel, slow)
    assert not panel.run.disabled
    assert panel.stop.disabled
    assert slow.seen == list(range(1, 11))


def test_the_result_is_there_in_words_and_as_a_picture(panel, slow):
    run_fully(panel, slow)
    assert "Done" in panel.event.value
    assert "Forget accuracy 90.0 % → 5.0 %. Retain accuracy 80.0 % → 80.0 % (masked 90.0 %)" in panel.numbers.value
    assert bytes(panel.picture.value).startswith(b"\x89PNG")
    assert panel.picture.layout.display == ""
    assert panel.picture.layout.max_width == "min(100%, 520px)"


def test_the_seconds_that_unlearning_took_include_the_impressions(panel, slow):
    run_fully(panel, slow)
    assert number_after("took", panel.numbers.value) == "0.50"


def test_a_second_click_while_it_runs_does_nothing(panel, slow):
    panel.run.click()
    panel.start()
    finish(panel, slow)
    assert slow.seen == list(range(1, 11))


def test_stop_shows_what_has_been_reached_and_says_so_in_the_numbers(panel, slow):
    panel.run.click()
    slow.gate.release(2)
    panel.stop.click()
    finish(panel, slow)
    reached = len(slow.seen)
    assert reached < 10
    assert "Stopped" in panel.event.value
    assert number_after("Stopped after", panel.numbers.value) == str(reached)
    assert panel.progress.value == reached
    run_fully(panel, slow)
    assert "Stopped" not in panel.numbers.value


def test_stop_before_there_is_a_result_keeps_the_last_one(panel, slow):
    def compute(unlearning, forget, on_step):
        while on_step({"stage": "impressions", "step": 0, "layer": "fc1"}):
            time.sleep(0.01)
        raise Stopped

    run_fully(panel, slow)
    numbers = panel.numbers.value
    panel.compute = compute
    panel.controls.toggles[1].value = False
    panel.run.click()
    assert "making impressions at fc1" in wait_for(panel.event, "impressions")
    panel.stop.click()
    panel.wait(1)
    assert "Stopped before there was a result" in panel.event.value
    assert "controls have moved" in panel.stale.value
    assert panel.numbers.value == numbers
    assert not panel.run.disabled
    assert not panel.save.disabled


@pytest.mark.parametrize("control, value", [("lr", 0.1), ("epochs", 3), ("forget_weight", 2.0), ("layer", "fc1")])
def test_a_control_that_moves_says_that_the_picture_is_of_the_run_before(panel, slow, control, value):
    run_fully(panel, slow)
    moved = getattr(panel.controls, control)
    before = moved.value
    moved.value = value
    assert "since the run that is shown" in panel.stale.value
    moved.value = before
    assert "since the run that is shown" not in panel.stale.value


def test_a_control_that_moves_during_the_run_is_noticed_at_its_end(panel, slow):
    panel.run.click()
    panel.controls.toggles[0].value = True
    finish(panel, slow)
    assert panel.choice[1] == FORGET
    assert "since the run that is shown" in panel.stale.value
    panel.save.click()
    panel.wait()
    assert "Saved in a folder." in panel.event.value
    assert "since the run that is shown" in panel.stale.value


def test_what_is_shown_is_saved(panel, slow, saved):
    run_fully(panel, slow)
    panel.controls.range.value = (0, 2)
    panel.save.click()
    panel.wait()
    assert saved == [(panel.unlearned, FORGET)]


def test_reset_puts_everything_back(panel, slow):
    start = panel.controls.chosen()
    panel.controls.range.value = (1, 2)
    panel.controls.method.value = "published"
    panel.controls.lr.value = 0.1
    run_fully(panel, slow)
    panel.controls.epochs.value = 3
    panel.reset.click()
    assert panel.controls.chosen() == start == (Unlearning(layer="fc2"), FORGET)
    assert panel.controls.range.value == (1, 3)
    assert panel.picture.layout.display == "none"
    assert panel.save.disabled
    assert panel.numbers.value == ""
    assert "moved" not in panel.stale.value
    assert "Ready" in panel.event.value


@pytest.mark.parametrize(
    "error, sentence",
    [
        (UserError("lr: too large"), "Not run. lr: too large."),
        (TypeError("no len()"), "Not run: TypeError: no len()."),
        (SystemExit("enough"), "Not run: SystemExit: enough."),
    ],
)
def test_an_error_in_the_thread_is_a_sentence_and_the_buttons_come_back(panel, error, sentence):
    def fail(*arguments):
        raise error

    panel.compute = fail
    panel.run.click()
    panel.wait()
    assert sentence in panel.event.value
    assert [panel.run.disabled, panel.stop.disabled, panel.save.disabled] == [False, True, True]


def test_a_bug_leaves_its_traceback_in_the_log_and_the_earlier_result_in_sight(panel, slow, caplog):
    run_fully(panel, slow)
    numbers = panel.numbers.value
    panel.compute = lambda *arguments: {}["bias"]
    with caplog.at_level("ERROR", "unlearn_lib"):
        panel.run.click()
        panel.wait()
    assert caplog.records[0].exc_info[0] is KeyError
    assert panel.numbers.value == numbers


def test_saving_that_fails_is_said(panel, slow):
    def fail(*arguments):
        raise OSError("no space left")

    run_fully(panel, slow)
    panel.keep = fail
    panel.save.click()
    panel.wait()
    assert "Not saved: OSError: no space left." in panel.event.value
    assert not panel.run.disabled


def test_forget_classes_without_test_pictures_are_a_result_in_words(panel, slow):
    empty = [row if c not in FORGET else [0] * 4 for c, row in enumerate(GOOD)]
    panel.compute = lambda unlearning, forget, on_step: unlearned_after(10, unlearning, forget, empty)
    run_fully(panel, slow)
    assert "Done" in panel.event.value
    assert "Forget accuracy no test pictures → 5.0 %" in panel.numbers.value


@pytest.mark.parametrize("name", ["<b>ant", "a$b$c", "under_score_", "&amp;"])
def test_names_are_shown_as_they_are(slow, name):
    controls = Controls([name, "bee", "cow", "dog"], ["fc"], [0])
    panel = UnlearningPanel(name, controls, slow, str, train_golden=str)
    assert html.unescape(controls.summary.value) == f"Forget 1 of 4: {name}."
    assert "<b>ant." not in controls.summary.value
    run_fully(panel, slow)
    assert "Done" in panel.event.value


def test_golden_is_trained_for_what_is_shown_and_stands_next_to_it(panel, slow):
    trained = []

    def train(forget):
        trained.append(forget)
        assert list(progress(range(2), "training"))
        return Golden

    panel.train_golden = train
    assert panel.golden.disabled
    run_fully(panel, slow)
    assert not panel.golden.disabled
    assert "golden has not been trained" in panel.numbers.value
    picture = panel.picture.value
    panel.controls.range.value = (0, 1)
    panel.golden.click()
    panel.wait()
    assert trained == [FORGET]
    assert "golden 7.0 s: 14 times." in panel.numbers.value
    assert panel.picture.value != picture
    assert panel.progress.value == panel.progress.max == 2
    assert panel.golden.disabled


def test_stop_ends_goldens_training(panel, slow):
    def train(forget):
        for _ in progress(range(1000), "training"):
            time.sleep(0.01)

    run_fully(panel, slow)
    panel.train_golden = train
    panel.golden.click()
    assert "Golden: training" in wait_for(panel.event, "training")
    panel.stop.click()
    panel.wait(5)
    assert "Stopped; golden goes on" in panel.event.value
    assert panel.blocks["golden"] is None


def test_a_bar_that_is_followed_passes_its_steps_on_and_is_not_drawn(capsys, monkeypatch):
    monkeypatch.delenv("UNLEARN_PROGRESS")
    seen = []
    with redirect_progress(lambda *step: seen.append(step)):
        assert list(progress(range(4, 6), "training")) == [4, 5]
    assert seen == [("training", 0, 2), ("training", 1, 2), ("training", 2, 2)]
    assert capsys.readouterr().err == ""


def test_a_notebooks_bar_is_hidden_at_its_end_and_not_closed(monkeypatch):
    monkeypatch.delenv("UNLEARN_PROGRESS")
    monkeypatch.setattr(common, "tqdm", notebook.tqdm)
    bar = progress(range(3), "training")
    assert list(bar) == [0, 1, 2]
    assert bar.container.layout.display == "none"
    assert bar.container.comm is not None


@pytest.fixture(scope="module")
def shared(experiment):
    return unlearning_panel(experiment.variant(forget=[2, 5, 7]))


@pytest.fixture
def real(shared):
    shared.set_back()
    return shared


def run_real(panel):
    panel.run.click()
    panel.wait()
    return panel.event.value


def test_the_real_panel_forgets_and_agrees_with_the_experiments_run(real, experiment):
    assert "Done" in run_real(real)
    assert real.blocks["unlearned"]["forget_accuracy"] <= 0.02
    assert real.blocks == experiment.variant(forget=[2, 5, 7]).unlearn("neggrad+").blocks


def test_a_learning_rate_that_diverges_is_a_sentence_and_the_panel_goes_on(real):
    real.controls.lr.options = [*real.controls.lr.options, ("10000", 1e4)]
    real.controls.lr.value = 1e4
    assert "Not run. lr: got 10000.0" in run_real(real)
    assert not real.run.disabled


def test_a_method_that_does_not_suit_a_layer_is_a_sentence(real):
    real.controls.method.value = "published"
    real.controls.layer.value = "fc2"
    assert "Not run. layer: got &#x27;fc2&#x27;" in run_real(real)


@pytest.mark.parametrize("chosen", [[], range(10)])
def test_nothing_and_everything_to_forget_end_in_a_sentence(real, chosen):
    for c, toggle in enumerate(real.controls.toggles):
        toggle.value = c in chosen
    assert "Not run. forget: " in run_real(real)
    assert not real.run.disabled


def test_a_method_begins_at_the_layer_that_it_was_made_for(real):
    for method, layer in (("neggrad+", "fc3"), ("deep", "fc1"), ("published", "fc3")):
        real.controls.method.value = method
        assert real.controls.layer.value == layer


def save(panel):
    panel.save.click()
    panel.wait()
    path = Path(panel.event.value.split("Saved in ")[1].split(".</b>")[0])
    return open_run(path.parent, path.name)


@pytest.fixture(scope="module")
def other(experiment, tmp_path_factory):
    """A panel of another seed than 0."""
    root = tmp_path_factory.mktemp("runs")
    return unlearning_panel(experiment.variant(seed=3, train_epochs=2, runs_root=root, version="mine"))


@pytest.mark.parametrize("method", [method for method in METHODS if method != "deep"])  # whose pictures take a minute
def test_the_saved_model_is_the_shown_one_to_the_bit(other, method):
    other.set_back()
    other.controls.method.value = method
    other.controls.epochs.value = min(other.controls.epochs.value, 30)
    assert "Done" in run_real(other)
    run = save(other)
    assert run.config["seed"] == 3
    assert run.name.split("-s3-")[1].startswith("mine-panel-fc3")
    shown = other.unlearned.model.state_dict()
    kept = run.load_model().state_dict()
    assert all(torch.equal(shown[name], kept[name]) for name in shown)
    assert run.metrics["unlearned"] == other.blocks["unlearned"]
    assert run.metrics["carry_over"] is not None
    assert {name: run.config[name] for name in other.choice[0].numbers} == other.choice[0].numbers


def test_a_run_that_was_stopped_is_not_saved(other, monkeypatch):
    compute = other.compute
    monkeypatch.setattr(
        other,
        "compute",
        lambda *choice: compute(*choice[:2], lambda state: state.get("epoch", 0) < 3 and choice[2](state)),
    )
    other.set_back()
    assert "Stopped" in run_real(other)
    assert number_after("Stopped after", other.numbers.value) == "3"
    other.save.click()
    other.wait()
    assert "Not saved. epochs: stopped after 3" in other.event.value


def test_results_that_differ_in_one_number_are_saved_under_names_of_their_own(real):
    names = set()
    for control, value in (("epochs", 2), ("forget_weight", 0.5), ("lr", 0.002), ("layer", "fc2")):
        getattr(real.controls, control).value = value
        run_real(real)
        names.add(save(real).name)
    assert len(names) == 4


def test_golden_is_trained_from_the_panel_and_is_the_experiments_own(other):
    other.set_back()
    other.controls.range.value = (4, 5)
    run_real(other)
    assert other.blocks["golden"] is None
    other.golden.click()
    other.wait()
    assert "Golden is trained" in other.event.value
    assert other.blocks["golden"]["forget_accuracy"] == 0
    seconds = float(number_after("golden", other.numbers.value))
    run = save(other)
    assert run.metrics["golden"] == other.blocks["golden"]
    assert run.metrics["seconds"]["golden"] == pytest.approx(seconds, abs=0.06)


def test_nothing_is_made_from_an_original_that_was_trained_again(tmp_path):
    experiment = Experiment("lenet5", "digits", forget=[6], train_epochs=1, runs_root=tmp_path)
    panel = unlearning_panel(experiment)
    run_real(panel)
    experiment.variant(train_epochs=2, force=True).train()
    panel.save.click()
    panel.wait()
    assert "Not saved. run: lenet5-digits-s0 was trained again" in panel.event.value
    assert "Not run. run: lenet5-digits-s0 was trained again" in run_real(panel)
    assert [path.name for path in tmp_path.glob("lenet5-*")] == ["lenet5-digits-s0"]


def test_stop_is_heard_while_impressions_are_made(real):
    real.controls.layer.value = "conv1"
    real.run.click()
    assert "making impressions at conv1" in wait_for(real.event, "impressions", 20)
    begin = time.perf_counter()
    real.stop.click()
    real.wait(20)
    assert time.perf_counter() - begin < 5  # a whole layer takes longer on any machine
    assert "Stopped before there was a result" in real.event.value


def test_runs_with_changing_classes_show_no_stale_result(real):
    for i in range(5):
        for c, toggle in enumerate(real.controls.toggles):
            toggle.value = c in (i, i + 3)
        assert "Done" in run_real(real)
        assert real.choice[1] == [i, i + 3]
        assert real.blocks["unlearned"]["forget_accuracy"] <= 0.1
