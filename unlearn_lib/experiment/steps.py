"""What the steps of an experiment use: the judge of networks, results that are not kept yet, tables, log lines."""

import logging
from dataclasses import dataclass

import pandas as pd
from torch import nn

from unlearn_lib.common import UserError, log
from unlearn_lib.data import Data
from unlearn_lib.evaluation import score, table
from unlearn_lib.networks import (
    Run,
    amend_run,
    apply_weights,
    count_outputs,
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


def start_from_weights(model: nn.Module, name: str, weights: str | None, data: Data, forget: list[int]) -> bool:
    """Load weights into a new model of that name; return whether it is ready, since there is nothing to train it on.

    Raises:
        UserError: there are neither weights nor training pictures, or the weights are for other classes.
    """
    if weights is None:
        if not len(data.train):
            raise UserError(f"weights: none given, and {data.name} has no training pictures here")
        return False
    state = read_weights(name, weights)
    apply_weights(model, state, weights)
    if forget and all(name in state and state[name].shape == t.shape for name, t in model.state_dict().items()):
        log.warning("golden: it starts from %s with its head, which may know the forget classes", weights)
    if len(data.train):
        return False
    outputs = count_outputs(model, state)
    if outputs != data.num_classes:
        raise UserError(
            f"weights: {weights} has {outputs} outputs, {data.name} {data.num_classes} classes and no training pictures"
        )
    model.eval()
    return True


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
    took = {"original": metrics["seconds"]["train"], "masked": 0.0, "golden": metrics["seconds"]["golden"]}
    for run in runs:
        name = f"unlearned, {run.config.get('method')}"
        seconds = run.metrics["seconds"]
        blocks[name] = run.metrics["unlearned"]
        took[name] = (seconds["impressions"] or 0) + (seconds["unlearn"] or 0)
    shown = table(blocks | {"golden": metrics["golden"]})
    return shown.assign(seconds=[took[name] for name in shown.index])
