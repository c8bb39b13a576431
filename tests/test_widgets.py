import threading
import time

import pytest

from unlearn_lib import Stopped, UnlearningPanel, open_run, score, unlearning_panel

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
            if on_step({"epoch": epoch}) is False:
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


def test_the_controls_are_the_choice(panel):
    panel.toggles[2].value, panel.lr.value, panel.epochs.value = True, 1e-2, 7
    panel.forget_weight.value, panel.layer.value, panel.method.value = 2.0, "fc1", "distill"
    assert panel.chosen() == {
        "forget": [0, 2],
        "lr": 1e-2,
        "epochs": 7,
        "forget_weight": 2.0,
        "layer": "fc1",
        "method": "distill",
    }


def test_the_range_sets_the_toggles(panel):
    panel.range.value = (1, 2)
    assert [toggle.value for toggle in panel.toggles] == [False, True, True]


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
    assert "Forget 2 of 3: bee, cow." in panel.words.value
    assert [toggle.icon for toggle in panel.toggles] == ["", "check", "check"]


def test_stop_before_there_is_a_result_keeps_the_last_one(panel, slow):
    panel.run.click()
    finish(panel, slow)
    numbers = panel.numbers.value

    def stopped(choice, on_step):
        while on_step({"epoch": 0}):
            time.sleep(0.01)
        raise Stopped

    panel._unlearn = stopped
    panel.toggles[1].value = True
    panel.run.click()
    assert "making impressions" in wait_for(panel.status, "impressions")
    panel.stop.click()
    panel.wait(1)
    assert "Stopped before there was a result. What stands below is still the run before." in panel.status.value
    assert panel.numbers.value == numbers
    assert not panel.run.disabled
    assert not panel.save.disabled


def wait_for(html, word, seconds=5):
    deadline = time.time() + seconds
    while word not in html.value and time.time() < deadline:
        time.sleep(0.01)
    return html.value


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
    assert saved[0][1] == len(slow.seen)


@pytest.mark.parametrize("control, value", [("lr", 0.1), ("epochs", 3), ("forget_weight", 2.0), ("layer", "fc1")])
def test_a_control_that_moves_says_that_the_picture_is_of_the_run_before(panel, slow, control, value):
    panel.run.click()
    finish(panel, slow)
    before = getattr(panel, control).value
    getattr(panel, control).value = value
    assert "still the run before" in panel.status.value
    getattr(panel, control).value = before
    assert "still the run before" not in panel.status.value


def test_a_control_that_moves_during_the_run_is_noticed_at_its_end(panel, slow):
    panel.run.click()
    panel.toggles[1].value = True
    finish(panel, slow)
    assert panel.choice["forget"] == [0]
    assert "still the run before" in panel.status.value


@pytest.mark.parametrize("chosen, word", [([], "none given"), ([0, 1, 2], "all given")])
def test_nothing_and_everything_to_forget_end_in_a_sentence(panel, slow, chosen, word):
    panel.run.click()
    finish(panel, slow)
    for c, toggle in enumerate(panel.toggles):
        toggle.value = c in chosen
    panel.run.click()
    panel.wait()
    assert word in panel.status.value
    assert "still the run before" in panel.status.value
    assert not panel.run.disabled
    panel.reset.click()
    panel.run.click()
    finish(panel, slow)
    assert "Done" in panel.status.value


def test_reset_puts_everything_back(panel, slow):
    panel.range.value = (1, 2)
    panel.toggles[1].value, panel.lr.value, panel.method.value = True, 0.1, "published"
    panel.run.click()
    finish(panel, slow)
    panel.reset.click()
    assert panel.chosen() == {
        "forget": [0],
        "lr": 1e-3,
        "epochs": 20,
        "forget_weight": 1.0,
        "layer": "fc2",
        "method": "neggrad+",
    }
    assert panel.range.value == (0, 0)
    assert panel.picture.layout.display == "none"
    assert panel.save.disabled
    assert "Ready" in panel.status.value


@pytest.fixture(scope="module")
def real(lab):
    return unlearning_panel(lab)


def test_the_real_panel_forgets_and_agrees_with_the_whole_models_evaluation(real, lab):
    real.set_back()
    real.run.click()
    real.wait()
    assert "Done" in real.status.value
    assert real.blocks["unlearned"]["forget_accuracy"] <= 0.02
    run = lab.unlearn("neggrad+")
    assert {name: block["confusion"] for name, block in real.blocks.items()} == {
        name: block["confusion"] for name, block in run.blocks.items()
    }
    assert "golden" in real.numbers.value


def test_a_learning_rate_that_diverges_is_a_sentence_and_the_panel_goes_on(real):
    real.set_back()
    real.lr.max = 5
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


def test_a_saved_model_is_a_run_like_any_other(real, runs):
    real.set_back()
    real.toggles[1].value, real.epochs.value = False, 3
    real.run.click()
    real.wait()
    real.save.click()
    name = real.status.value.split("Saved in ")[1].split(".<")[0]
    run = open_run(runs, name)
    assert run.config["forget"] == [2, 3, 4]
    assert run.metrics["unlearned"]["confusion"] == real.blocks["unlearned"]["confusion"]


def test_results_that_differ_in_one_number_are_saved_under_names_of_their_own(real):
    real.set_back()
    names = set()
    for control, value in (("epochs", 2), ("forget_weight", 0.5), ("lr", 0.00126), ("layer", "fc2")):
        getattr(real, control).value = value
        real.run.click()
        real.wait()
        real.save.click()
        assert "Saved in" in real.status.value
        names.add(real.status.value)
    assert len(names) == 4


def test_stop_is_heard_within_a_second_while_impressions_are_made(real):
    real.set_back()
    real.layer.value = "conv1"
    real.run.click()
    assert "making impressions" in wait_for(real.status, "impressions")
    begin = time.perf_counter()
    real.stop.click()
    real.wait(10)
    assert time.perf_counter() - begin < 1
    assert "Stopped before there was a result" in real.status.value


def test_twenty_runs_with_changing_classes_show_no_stale_result(real):
    real.set_back()
    for i in range(20):
        for c, toggle in enumerate(real.toggles):
            toggle.value = c in (i % 10, (i + 3) % 10)
        real.run.click()
        real.wait()
        assert real.choice["forget"] == sorted({i % 10, (i + 3) % 10})
        assert "Done" in real.status.value
        assert real.blocks["unlearned"]["forget_accuracy"] <= 0.1
