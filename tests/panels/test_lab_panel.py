import html
import itertools

import pandas as pd
import pytest

from unlearn_lib import LabPanel, UserError
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

    panel.run = fail
    panel.live.click()
    assert "Not run: KeyError: 'bias'." in html.unescape(panel.result.value)
    assert not panel.live.disabled
