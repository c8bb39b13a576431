import html
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from tqdm import notebook

from unlearn_lib import (
    PUBLISHED,
    Experiment,
    Stopped,
    UnlearningPanel,
    UserError,
    common,
    open_run,
    score,
    unlearning_panel,
)
from unlearn_lib.common import progress, redirect_progress
from unlearn_lib.panels.base import bold, trainable_layers
from unlearn_lib.zeroshot import METHODS, unlearning_numbers

CLASSES = ["ant", "bee", "cow"]


def blocks_for(forget):
    good, none = [[9, 1, 0], [0, 9, 1], [0, 1, 9]], [[0, 5, 5], [0, 9, 1], [0, 1, 9]]
    return {
        "original": score(good, forget),
        "masked": score(none, forget),
        "unlearned": score(none, forget),
        "golden": None,
    }


class Slow:
    """An unlearner of ten epochs that waits at each until the test lets it go on."""

    def __init__(self):
        self.gate, self.seen = threading.Semaphore(0), []

    def __call__(self, choice, on_step):
        losses = []
        for epoch in range(1, 11):
            self.gate.acquire(timeout=5)
            losses.append(1 / epoch)
            self.seen.append(epoch)
            if on_step({"epoch": epoch, "epochs": 10}) is False:
                break
        return "model", {"forget_loss": losses, "retain_loss": losses}, 0.5


@pytest.fixture
def slow():
    return Slow()


@pytest.fixture
def saved():
    return []


@pytest.fixture
def panel(slow, saved):
    def save(choice, epochs):
        saved.append((choice, epochs))
        return "a folder"

    def judge(model, choice):
        return blocks_for(choice["forget"]), None

    return UnlearningPanel("title", CLASSES, ["fc1", "fc2"], [0], unlearn=slow, judge=judge, save=save)


def finish(panel, slow):
    slow.gate.release(50)
    panel.wait()


def test_the_choice_holds_every_number_of_unlearning(panel):
    panel.method.value = "distill"
    panel.toggles[2].value, panel.lr.value, panel.epochs.value = True, 1e-2, 7
    panel.forget_weight.value, panel.layer.value = 2.0, "fc1"
    assert panel.chosen() == {
        "forget": [0, 2],
        "lr": 1e-2,
        "epochs": 7,
        "forget_weight": 2.0,
        "retain_weight": 1.0,
        "batch_size": 128,
        "layer": "fc1",
        "method": "distill",
    }


def test_published_brings_its_own_numbers_and_its_layer_and_shows_them(panel):
    panel.lr.value, panel.layer.value, panel.method.value = 0.1, "fc1", "published"
    assert panel.chosen() == {"forget": [0], "layer": "fc2", "method": "published", **PUBLISHED}
    assert [panel.lr.label, panel.epochs.value, panel.forget_weight.value] == ["0.001", 1000, 0.9]
    assert "retain weight 0.1, batch size 16, seed 0" in panel.controls.fixed.value


@pytest.mark.parametrize("method", METHODS)
def test_every_method_brings_its_own_numbers(panel, method):
    panel.method.value = "published" if method != "published" else "mask"
    panel.method.value = method
    numbers = {name: value for name, value in panel.chosen().items() if name not in ("forget", "layer", "method")}
    assert numbers == unlearning_numbers(method, {})


def test_a_method_begins_at_the_layer_that_it_was_made_for(slow):
    layer_of = {"published": "fc3", "deep": "conv1"}
    functions = {"unlearn": slow, "judge": None, "save": None}
    panel = UnlearningPanel("title", CLASSES, ["conv1", "fc1", "fc2", "fc3"], [0], layer_of=layer_of, **functions)
    for method, layer in (("neggrad+", "fc3"), ("deep", "conv1"), ("published", "fc3")):
        panel.method.value = method
        assert panel.layer.value == layer


def test_the_head_is_a_layer_however_large_its_input():
    model = nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), nn.Flatten(), nn.Linear(64 * 12 * 12, 3)).eval()
    model.input_shape = (1, 12, 12)
    assert trainable_layers(model) == ["0", "2"]


def test_a_learning_rate_that_was_not_touched_is_the_methods(panel):
    default = unlearning_numbers("neggrad+", {})["lr"]
    assert panel.chosen()["lr"] == default
    panel.lr.value = 0.1
    panel.lr.value = panel.lr.options[0][1]
    assert panel.lr.label == "the method's"
    assert panel.chosen()["lr"] == default


def test_the_range_sets_the_toggles(panel):
    panel.range.value = (1, 2)
    assert [toggle.value for toggle in panel.toggles] == [False, True, True]


def test_the_range_follows_the_toggles(panel):
    panel.toggles[2].value = True
    assert panel.range.value == (0, 2)
    assert [toggle.value for toggle in panel.toggles] == [True, False, True]
    panel.toggles[0].value = False
    assert panel.range.value == (2, 2)
    panel.toggles[2].value = False
    assert panel.range.layout.visibility == "hidden"


def test_while_it_runs_run_is_off_and_the_progress_moves(panel, slow):
    panel.run.click()
    assert panel.run.disabled
    assert not panel.stop.disabled
    assert "Running" in panel.status.value
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
    panel.run.click()
    finish(panel, slow)
    assert "Done" in panel.status.value
    assert "Forget accuracy 90.0 % → 0.0 %. Retain accuracy 90.0 % → 90.0 % (masked 90.0 %)" in panel.numbers.value
    assert bytes(panel.picture.value).startswith(b"\x89PNG")
    assert panel.picture.layout.display == ""


def test_what_is_chosen_stands_in_words_and_not_in_colour_alone(panel):
    panel.range.value = (1, 2)
    assert "Forget 2 of 3: bee, cow." in panel.summary.value
    assert [toggle.icon for toggle in panel.toggles] == ["", "check", "check"]


def test_stop_before_there_is_a_result_keeps_the_last_one(panel, slow):
    panel.run.click()
    finish(panel, slow)
    numbers = panel.numbers.value

    def stopped(choice, on_step):
        while on_step({"epoch": 0, "epochs": 100, "doing": "Running: making impressions"}):
            time.sleep(0.01)
        raise Stopped

    panel._unlearn = stopped
    panel.toggles[1].value = True
    panel.run.click()
    assert "making impressions" in wait_for(panel.status, "impressions")
    panel.stop.click()
    panel.wait(1)
    assert (
        "Stopped before there was a result. The controls have moved since the run that is shown." in panel.status.value
    )
    assert panel.numbers.value == numbers
    assert not panel.run.disabled
    assert not panel.save.disabled


def wait_for(status, word, seconds=5):
    deadline = time.time() + seconds
    while word not in status.value and time.time() < deadline:
        time.sleep(0.01)
    return status.value


def test_a_second_click_while_it_runs_does_nothing(panel, slow):
    panel.run.click()
    panel.start()
    finish(panel, slow)
    assert slow.seen == list(range(1, 11))


def test_stop_keeps_what_has_been_reached(panel, slow, saved):
    panel.run.click()
    slow.gate.release(2)
    panel.stop.click()
    finish(panel, slow)
    assert "Stopped" in panel.status.value
    assert len(slow.seen) < 10
    assert panel.model == "model"
    panel.save.click()
    panel.wait()
    assert saved[0][1] == len(slow.seen)


@pytest.mark.parametrize("control, value", [("lr", 0.1), ("epochs", 3), ("forget_weight", 2.0), ("layer", "fc1")])
def test_a_control_that_moves_says_that_the_picture_is_of_the_run_before(panel, slow, control, value):
    panel.run.click()
    finish(panel, slow)
    before = getattr(panel, control).value
    getattr(panel, control).value = value
    assert "since the run that is shown" in panel.status.value
    getattr(panel, control).value = before
    assert "since the run that is shown" not in panel.status.value


def test_a_control_that_moves_during_the_run_is_noticed_at_its_end(panel, slow):
    panel.run.click()
    panel.toggles[1].value = True
    finish(panel, slow)
    assert panel.choice["forget"] == [0]
    assert "since the run that is shown" in panel.status.value


@pytest.mark.parametrize("chosen, word", [([], "none given"), ([0, 1, 2], "all given")])
def test_nothing_and_everything_to_forget_end_in_a_sentence(panel, slow, chosen, word):
    panel.run.click()
    finish(panel, slow)
    for c, toggle in enumerate(panel.toggles):
        toggle.value = c in chosen
    panel.run.click()
    panel.wait()
    assert word in panel.status.value
    assert "since the run that is shown" in panel.status.value
    assert not panel.run.disabled
    panel.reset.click()
    panel.run.click()
    finish(panel, slow)
    assert "Done" in panel.status.value


def test_reset_puts_everything_back(panel, slow):
    start = panel.chosen()
    panel.range.value = (1, 2)
    panel.toggles[1].value, panel.method.value, panel.lr.value = True, "published", 0.1
    panel.run.click()
    finish(panel, slow)
    panel.reset.click()
    assert panel.chosen() == start
    assert [start["forget"], start["layer"], start["method"]] == [[0], "fc2", "neggrad+"]
    assert panel.range.value == (0, 0)
    assert panel.picture.layout.display == "none"
    assert panel.save.disabled
    assert "Ready" in panel.status.value


@pytest.mark.parametrize("where", ["_unlearn", "_judge"])
@pytest.mark.parametrize(
    "error, sentence",
    [
        (UserError("lr: too large"), "Not run. lr: too large."),
        (TypeError("no len()"), "Not run: TypeError: no len()."),
        (AssertionError("a bug"), "Not run: AssertionError: a bug."),
        (SystemExit("enough"), "Not run: SystemExit: enough."),
    ],
)
def test_whatever_goes_wrong_in_the_thread_is_said_and_the_buttons_come_back(panel, slow, where, error, sentence):
    def fail(*arguments):
        raise error

    setattr(panel, where, fail)
    panel.run.click()
    finish(panel, slow)
    assert sentence in panel.status.value
    assert [panel.run.disabled, panel.stop.disabled, panel.save.disabled] == [False, True, True]


def test_a_failure_that_is_no_sentence_leaves_its_traceback_in_the_log(panel, slow, caplog):
    def fail(*arguments):
        raise KeyError("bias")

    panel._unlearn = fail
    with caplog.at_level("ERROR", "unlearn_lib"):
        panel.run.click()
        finish(panel, slow)
    assert caplog.records[0].exc_info[0] is KeyError


def test_saving_that_fails_is_said(panel, slow):
    def full(choice, epochs):
        raise OSError("no space left")

    panel.run.click()
    finish(panel, slow)
    panel._save = full
    panel.save.click()
    panel.wait()
    assert "Not saved: OSError: no space left." in panel.status.value
    assert not panel.run.disabled


def test_forget_classes_without_test_pictures_are_a_result_in_words(panel, slow):
    empty = [[0, 0, 0], [0, 9, 1], [0, 1, 9]]
    panel._judge = lambda model, choice: ({**blocks_for([0]), "original": score(empty, [0])}, None)
    panel.run.click()
    finish(panel, slow)
    assert "Done" in panel.status.value
    assert "Forget accuracy no test pictures → 0.0 %" in panel.numbers.value


@pytest.mark.parametrize("name", ["<b>ant", "a$b$c", "under_score_", "&amp;"])
def test_names_are_shown_as_they_are(slow, name):
    judge = lambda model, choice: (blocks_for(choice["forget"]), None)  # noqa: E731
    panel = UnlearningPanel(name, [name, "bee", "cow"], ["fc"], [0], unlearn=slow, judge=judge, save=str)
    assert html.unescape(panel.summary.value) == f"Forget 1 of 3: {name}."
    assert "<b>ant." not in panel.summary.value
    panel.run.click()
    finish(panel, slow)
    assert "Done" in panel.status.value


@pytest.mark.parametrize("seconds, sentence", [(7.0, "golden 7.0 s: 14 times."), (0.1, "golden 0.1 s: 0.2 times.")])
def test_golden_can_be_trained_for_what_was_run_and_stands_beside_it(slow, seconds, sentence):
    trained = []

    def golden(choice, on_step):
        for epoch in range(3):
            assert on_step({"epoch": epoch, "epochs": 2, "doing": "Golden: training"})
        trained.append(choice["forget"])

    def judge(model, choice):
        block = blocks_for(choice["forget"])
        return (block | {"golden": block["masked"]}, seconds) if trained else (block, None)

    panel = UnlearningPanel("title", CLASSES, ["fc"], [0], unlearn=slow, judge=judge, save=str, golden=golden)
    assert panel.golden.disabled
    panel.run.click()
    finish(panel, slow)
    assert not panel.golden.disabled
    assert "golden has not been trained" in panel.numbers.value
    picture = panel.picture.value
    panel.golden.click()
    panel.wait()
    assert trained == [[0]]
    assert sentence in panel.numbers.value
    assert panel.picture.value != picture
    assert panel.progress.value == panel.progress.max == 2
    assert panel.golden.disabled


def test_the_status_never_says_done_of_a_run_that_was_not(panel, slow):
    panel.run.click()
    finish(panel, slow)
    panel.range.value = (0, 2)
    panel.run.click()
    panel.wait()
    assert "all given" in panel.status.value
    panel.range.value = (0, 0)
    assert "Done" not in panel.status.value


def test_a_bar_that_is_followed_tells_its_steps_and_is_not_drawn(capsys, monkeypatch):
    monkeypatch.delenv("UNLEARN_PROGRESS")
    told = []
    with redirect_progress(lambda *step: told.append(step)):
        assert list(progress(range(4, 6), "training")) == [4, 5]
    assert told == [("training", 0, 2), ("training", 1, 2), ("training", 2, 2)]
    assert capsys.readouterr().err == ""


def test_what_follows_a_bar_can_end_the_work():
    def stop(description, done, total):
        if done == 2:
            raise Stopped

    steps = []
    with pytest.raises(Stopped), redirect_progress(stop):
        steps.extend(step for step in progress(range(10), "training"))
    with redirect_progress(lambda *step: None):
        pass
    assert list(progress(range(3), "afterwards")) == [0, 1, 2]


def test_a_notebooks_bar_is_hidden_at_its_end_and_not_closed(monkeypatch):
    monkeypatch.delenv("UNLEARN_PROGRESS")
    monkeypatch.setattr(common, "tqdm", notebook.tqdm)
    bar = progress(range(3), "training")
    assert list(bar) == [0, 1, 2]
    assert bar.container.layout.display == "none"
    assert bar.container.comm is not None


@pytest.fixture(scope="module")
def real(experiment):
    return unlearning_panel(experiment)


def test_the_real_panel_forgets_and_agrees_with_the_whole_models_evaluation(real, experiment):
    real.set_back()
    real.run.click()
    real.wait()
    assert "Done" in real.status.value
    assert real.blocks["unlearned"]["forget_accuracy"] <= 0.02
    run = experiment.unlearn("neggrad+")
    assert {name: block["confusion"] for name, block in real.blocks.items()} == {
        name: block["confusion"] for name, block in run.blocks.items()
    }
    assert "golden" in real.numbers.value


def test_a_learning_rate_that_diverges_is_a_sentence_and_the_panel_goes_on(real):
    real.set_back()
    real.lr.options = [*real.lr.options, ("10000", 1e4)]
    real.lr.value = 1e4
    real.run.click()
    real.wait()
    assert "the loss runs away" in real.status.value
    assert not real.run.disabled


def test_a_method_that_does_not_work_at_a_layer_is_a_sentence(real):
    real.set_back()
    real.method.value = "published"
    real.layer.value = "fc2"
    real.run.click()
    real.wait()
    assert "published works at the head" in real.status.value


def save(panel):
    panel.save.click()
    panel.wait()
    return Path(panel.status.value.split("Saved in ")[1].split(".</b>")[0])


@pytest.fixture(scope="module")
def other(experiment, tmp_path_factory):
    """A panel of another seed than 0."""
    root = tmp_path_factory.mktemp("runs")
    return unlearning_panel(replace(experiment, seed=3, train_epochs=2, runs_root=root))


@pytest.mark.parametrize("method", [method for method in METHODS if method != "deep"])  # whose pictures take a minute
def test_the_saved_model_is_the_shown_one_to_the_bit(other, method):
    other.set_back()
    other.method.value = method
    other.epochs.value = min(other.epochs.value, 30)
    other.run.click()
    other.wait()
    assert "Done" in other.status.value
    path = save(other)
    run = open_run(path.parent, path.name)
    assert run.config["seed"] == 3
    shown, kept = other.model.state_dict(), run.load_model().state_dict()
    assert all(torch.equal(shown[name], kept[name]) for name in shown)
    assert run.metrics["unlearned"]["confusion"] == other.blocks["unlearned"]["confusion"]
    for name in ("lr", "epochs", "batch_size", "forget_weight", "retain_weight"):
        assert run.config[name] == other.choice[name] or (name == "epochs" and method in ("neggrad+", "distill"))


@pytest.fixture
def stopped(other, monkeypatch):
    """Run the panel and stop after three epochs."""
    unlearn = other._unlearn

    def three(choice, on_step):
        return unlearn(choice, lambda state: on_step(state) and ("doing" in state or state["epoch"] < 3))

    def run(method):
        other.set_back()
        other.method.value = method
        monkeypatch.setattr(other, "_unlearn", three)
        other.run.click()
        other.wait()

    return run


def test_a_published_run_that_was_stopped_is_saved_as_it_was(other, stopped):
    stopped("published")
    path = save(other)
    saved_model = open_run(path.parent, path.name).load_model().state_dict()
    assert all(torch.equal(value, saved_model[name]) for name, value in other.model.state_dict().items())


def test_a_stopped_run_of_another_method_is_not_saved_as_something_else(other, stopped):
    stopped("distill")
    other.save.click()
    other.wait()
    assert "Not saved. epochs: stopped after 3; a run that went to its end can be saved" in other.status.value


def test_results_that_differ_in_one_number_are_saved_under_names_of_their_own(real):
    real.set_back()
    names = set()
    for control, value in (("epochs", 2), ("forget_weight", 0.5), ("lr", 0.002), ("layer", "fc2")):
        getattr(real, control).value = value
        real.run.click()
        real.wait()
        names.add(save(real))
    assert len(names) == 4


def test_golden_is_trained_from_the_panel_and_is_the_experiments_own(other):
    other.set_back()
    other.range.value = (0, 1)
    other.run.click()
    other.wait()
    assert other.blocks["golden"] is None
    other.golden.click()
    other.wait()
    assert "Golden is trained" in other.status.value
    assert other.blocks["golden"]["forget_accuracy"] == 0
    assert "times" in other.numbers.value


def test_nothing_is_made_from_an_original_that_was_made_anew(tmp_path):
    experiment = Experiment("lenet5", "digits", forget=[1], train_epochs=1, runs_root=tmp_path)
    panel = unlearning_panel(experiment)
    panel.run.click()
    panel.wait()
    replace(experiment, train_epochs=2, force=True).train()
    panel.save.click()
    panel.wait()
    assert "Not saved. run: lenet5-digits-s0 was made anew since this panel was" in panel.status.value
    panel.layer.value = "fc2"
    panel.run.click()
    panel.wait()
    assert "Not run. run: lenet5-digits-s0 was made anew since this panel was" in panel.status.value
    assert [path.name for path in tmp_path.glob("lenet5-*")] == ["lenet5-digits-s0"]


def test_the_panels_variants_share_the_data_that_was_read(other):
    variant = other._judge.__self__._variant([5, 7])
    assert variant.forget_classes == [5, 7]
    assert variant.dataset is other._judge.__self__.experiment.dataset


def test_what_the_status_says_after_a_run_holds_when_the_controls_have_moved(panel, slow):
    panel.run.click()
    panel.toggles[1].value = True
    finish(panel, slow)
    assert panel.status.value.endswith(
        "s with the evaluation. The controls have moved since the run that is shown.</b>"
    )
    panel.save.click()
    panel.wait()
    assert panel.status.value == bold("Saved in a folder. The controls have moved since the run that is shown.")


def test_a_chart_is_no_larger_than_a_notebook_shows_it(panel, slow):
    panel.run.click()
    finish(panel, slow)
    assert panel.picture.layout.max_width == "min(100%, 520px)"


def test_stop_is_heard_within_a_second_while_impressions_are_made(real):
    real.set_back()
    real.layer.value = "conv1"
    real.run.click()
    assert "making impressions" in wait_for(real.status, "impressions")
    begin = time.perf_counter()
    real.stop.click()
    real.wait(10)
    assert time.perf_counter() - begin < 5  # a whole layer takes longer on any machine
    assert "Stopped before there was a result" in real.status.value


def test_eight_runs_with_changing_classes_show_no_stale_result(real):
    real.set_back()
    for i in range(8):
        for c, toggle in enumerate(real.toggles):
            toggle.value = c in (i % 10, (i + 3) % 10)
        real.run.click()
        real.wait()
        assert real.choice["forget"] == sorted({i % 10, (i + 3) % 10})
        assert "Done" in real.status.value
        assert real.blocks["unlearned"]["forget_accuracy"] <= 0.1
