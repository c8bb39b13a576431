"""What the steps of an experiment use: the judge of networks, results that are not kept yet, tables, log lines."""

import copy
import logging
from dataclasses import dataclass

import pandas as pd
from torch import nn

from unlearn_lib.common import log
from unlearn_lib.evaluation import knows_forget, score, table
from unlearn_lib.networks import (
    Run,
    amend_run,
    apply_weights,
    find_head,
    has_run,
    read_weights,
)
from unlearn_lib.zeroshot import (
    Unlearning,
    describe_carry_over,
)


class Stopped(Exception):
    """Raised where a callback stops the work before it has a result."""


def log_accuracy(run: Run, forget: list[int], done: str) -> None:
    """Log what was done for a trained run and its accuracy."""
    kind, part, pictures = ("golden", "retain", "retain") if forget else ("original", "overall", "test")
    accuracy = run.metrics[kind][f"{part}_accuracy"]
    right = f"no {pictures} pictures to test" if accuracy is None else f"{accuracy:.2%} of {pictures} pictures right"
    log.info("%s: %s, %s", run.name, done, right)
    if forget and knows_forget(run.metrics["golden"]):
        share = run.metrics["golden"]["forget_accuracy"]
        log.warning("%s: right on %.1f %% of the forget pictures, so it is no standard", run.name, 100 * share)


FRESH = "fresh weights"
AS_GIVEN = "the given weights as they are"
TUNED = "the given weights, fine-tuned"
NEW_HEAD = "the given weights with a new head"


def find_start(model: nn.Module, name: str, weights: str | None, *, fine_tune: bool) -> str:
    """Return what a new model of that name starts from: FRESH, AS_GIVEN, TUNED or NEW_HEAD; the model is unchanged."""
    if weights is None:
        return FRESH
    state = read_weights(name, weights)
    fits = all(key in state and state[key].shape == t.shape for key, t in model.state_dict().items())
    return (TUNED if fine_tune else AS_GIVEN) if fits else NEW_HEAD


def load_backbone(model: nn.Module, name: str, weights: str) -> None:
    """Load weights into a new model, but for its head, which keeps its initialisation."""
    head = copy.deepcopy(model.get_submodule(find_head(model)).state_dict())
    apply_weights(model, read_weights(name, weights), weights)
    model.get_submodule(find_head(model)).load_state_dict(head)


@dataclass(frozen=True)
class Unlearned:
    """What `Experiment.compute` made, not yet kept as a run.

    Args:
        layer: the first layer of the tail, resolved.
        metrics: as metrics.json holds them, but for golden's figures and the carry-over, which `keep` adds.
        original_file: the fingerprint of the original's run when this was made.
        is_complete: whether training ran to its end.
    """

    unlearning: Unlearning
    layer: str
    model: nn.Module
    history: dict
    metrics: dict
    original: Run
    original_file: str
    is_complete: bool

    @property
    def blocks(self) -> dict[str, dict | None]:
        """The evaluated models side by side: original, masked, unlearned and golden; None where there is none."""
        return {name: self.metrics[name] for name in ("original", "masked", "unlearned", "golden")}


def log_carry_over(shares: dict) -> None:
    """Log how far unlearning carries over to harder inputs; a warning where it does not."""
    passed, sentence = describe_carry_over(shares)
    log.log(logging.INFO if passed else logging.WARNING, sentence)


def with_golden(experiment, run: Run) -> Run:
    """Return the run with golden's figures in its metrics, where golden was trained as the original was."""
    golden = experiment.finished_golden()
    name = experiment.trained_name(experiment.forget_classes)
    if golden is None and has_run(experiment.root, name):
        log.warning("%s: left out of the table, since it was not trained as the original was", name)
    block = golden and score(golden.metrics["golden"]["confusion"], experiment.forget_classes)
    golden_run = golden and golden.name
    metrics = run.metrics
    if metrics["golden"] == block and run.config["golden_run"] == golden_run:
        return run
    seconds = metrics["seconds"] | {"golden": golden and golden.metrics["seconds"]["golden"]}
    is_another = metrics["golden"] not in (None, block)  # than the audit compares with
    audit = None if is_another else metrics["audit"]
    return amend_run(run, metrics | {"golden": block, "seconds": seconds, "audit": audit}, golden_run=golden_run)


def comparison_table(runs: list[Run]) -> pd.DataFrame:
    """Return original, mask, the runs' models and golden in percent, as `table` does, and the seconds of each."""
    metrics = runs[0].metrics
    blocks = {name: metrics[name] for name in ("original", "masked")}
    took = {"original": metrics["seconds"]["train"], "masked": 0.0}
    for run in runs:
        name = f"unlearned, {run.config.get('method')}"
        seconds = run.metrics["seconds"]
        blocks[name] = run.metrics["unlearned"]
        took[name] = (seconds["impressions"] or 0) + (seconds["unlearn"] or 0)
    golden = metrics["golden"]
    name = "golden, knows forget" if golden and knows_forget(golden) else "golden"
    took[name] = metrics["seconds"]["golden"]
    shown = table(blocks | {name: golden})
    return shown.assign(seconds=[took[name] for name in shown.index])
