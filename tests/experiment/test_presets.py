import html
import itertools

import pandas as pd
import pytest
import torch

from unlearn_lib import (
    PUBLISHED,
    LabPanel,
    Switches,
    UserError,
    ZeroShotUnlearner,
    find_head,
    lab_run,
    make_impressions,
)
from unlearn_lib.presets import CHOICES


@pytest.fixture
def grid():
    rows = [[*c, i / 16, 1 - i / 16] for i, c in enumerate(itertools.product(*CHOICES.values()))]
    return pd.DataFrame(rows, columns=[*CHOICES, "FA", "RA"]).set_index([*CHOICES])


@pytest.fixture
def panel(grid):
    def run(*chosen):
        if chosen[1] == "trained":
            raise UserError("lr: too large")
        return {"forget_accuracy": 0.25, "retain_accuracy": 0.75}

    return LabPanel("title", grid, run=run)


def test_the_switches_show_what_was_computed_before(panel):
    assert "forget accuracy 0.0 %, retain accuracy 100.0 %" in panel.summary.value
    for switch, (_, mended) in zip(panel.switches.values(), CHOICES.values(), strict=True):
        switch.value = mended
    assert panel.chosen() == ("calibrated", "trained", "prose", 0.0)
    assert "forget accuracy 93.8 %, retain accuracy 6.2 %" in panel.summary.value
    assert bytes(panel.picture.value).startswith(b"\x89PNG")


def test_one_combination_runs_live_and_a_switch_takes_its_result_away(panel):
    panel.live.click()
    assert "Live: forget accuracy 25.0 %, retain accuracy 75.0 %" in panel.result.value
    panel.switches["signs"].value = "prose"
    assert panel.result.value == ""


def test_a_live_run_that_fails_is_a_sentence(panel):
    panel.switches["weights"].value = "trained"
    panel.live.click()
    assert "Not run. lr: too large." in panel.result.value
    assert not panel.live.disabled


def test_a_live_run_that_breaks_is_said_too(panel):
    def fail(*chosen):
        raise KeyError("bias")

    panel._run = fail
    panel.live.click()
    assert "Not run: KeyError: 'bias'." in html.unescape(panel.result.value)
    assert not panel.live.disabled


@pytest.fixture(scope="module")
def published(experiment):
    return make_impressions(experiment.load(experiment.original()), "fc3", samples=20, recipe="published")


def after(model, impressions, forget, switches, epochs=3):
    unlearner = ZeroShotUnlearner(
        model, impressions, forget, method="published", switches=switches, **PUBLISHED | {"epochs": epochs}
    )
    return unlearner.unlearn()[0]


def test_without_smoothing_nothing_moves_the_published_update(model, published, experiment):
    still = after(model, published, experiment.forget_classes, Switches(smoothing=0.0))
    moving = after(model, published, experiment.forget_classes, Switches())
    step = (still.fc3.bias - model.fc3.bias).abs().max()
    assert step < 0.05 * (moving.fc3.bias - model.fc3.bias).abs().max()


def test_the_published_signs_lower_the_forget_biases_and_the_proses_raise_them(model, published, experiment):
    down, up = (
        after(model, published, experiment.forget_classes, Switches(prose_signs=prose)) for prose in (False, True)
    )
    assert bool(((down.fc3.bias - model.fc3.bias)[experiment.forget_classes] < 0).all())
    assert bool(((up.fc3.bias - model.fc3.bias)[experiment.forget_classes] > 0).all())


def test_the_weights_switch_lets_the_heads_weight_move(model, published, experiment):
    frozen, trained = (
        after(model, published, experiment.forget_classes, Switches(weights=weights)) for weights in (False, True)
    )
    assert torch.equal(frozen.fc3.weight, model.fc3.weight)
    assert not torch.equal(trained.fc3.weight, model.fc3.weight)


def test_the_published_combination_is_the_published_method(experiment):
    head = find_head(experiment.load(experiment.original()))
    run = experiment.unlearn("published", epochs=5, samples=10, layer=head, version="short")
    assert lab_run(experiment, samples=10, epochs=5) == run.metrics["unlearned"]


def test_an_unknown_choice_is_a_sentence(experiment):
    with pytest.raises(ValueError, match="signs: 'both' given; published or prose is accepted"):
        lab_run(experiment, signs="both")
