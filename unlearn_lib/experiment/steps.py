"""The steps of an experiment: what each makes, what identifies it, and where it is kept.

Each step holds the lock of the folder that it fills: of two processes that want the same one works, the other waits.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch
from torch import nn

from unlearn_lib.common import UserError, log, pick_device
from unlearn_lib.data import Data, iterate_batches
from unlearn_lib.evaluation import (
    KEPT_BYTES,
    confusion_matrix,
    evaluate,
    load_activations,
    logits_and_labels,
    score,
    table,
)
from unlearn_lib.networks import (
    Run,
    amend_run,
    apply_weights,
    check_run,
    count_outputs,
    find_run,
    has_run,
    input_shape_of,
    open_run,
    read_weights,
    split,
    traced_once,
    write_run,
)
from unlearn_lib.store import cached, lock_folder
from unlearn_lib.training import fit
from unlearn_lib.zeroshot import (
    RECIPE_VERSION,
    Impressions,
    Unlearning,
    carry_over,
    check_impressions,
    describe_carry_over,
    make_impressions,
    unlearn,
)

BOUNDED = ("deepinversion", "drawn")  # recipes that make other impressions with less memory
OnStep = Callable[[dict], bool | None]


class Stopped(Exception):
    """Raised where a callback stops the work before it has a result."""


def train_network(experiment, forget: list[int]) -> Run:
    """Return the original's run, or golden's where classes are left out: found, or trained and evaluated."""
    name = experiment.trained_name(forget)
    arguments = experiment.arguments(forget)
    with lock_folder(experiment.root / name):
        run = None if experiment.force else find_run(experiment.root, name, arguments)
        if run is not None:
            log_accuracy(run, forget, "reused")
            return run
        checkpoint = experiment.root / name / "checkpoint.safetensors"
        if experiment.force:
            checkpoint.unlink(missing_ok=True)
        model = experiment.new_model(experiment.seed)
        is_ready = start_from_weights(model, experiment, forget)
        history = {}
        if not is_ready:
            history = fit(
                model,
                experiment.dataset,
                forget=forget,
                label_smoothing=experiment.label_smoothing,
                seed=experiment.seed,
                device=experiment.device,
                checkpoint=checkpoint,
                save_every=experiment.save_every,
                precision=experiment.precision,
                **experiment.training,
            )
        seconds = sum(history.get("seconds", []))
        metrics = dict.fromkeys(("original", "masked", "unlearned", "golden", "carry_over", "audit"))
        block = evaluate(model.to(pick_device(experiment.device)), experiment.dataset, forget)
        metrics["golden" if forget else "original"] = block
        metrics["seconds"] = dict.fromkeys(("train", "golden", "impressions", "unlearn"))
        metrics["seconds"]["golden" if forget else "train"] = seconds
        run = write_run(experiment.root, name, arguments, model.cpu(), history, metrics, **experiment.notes())
    log_accuracy(run, forget, "weights taken as they are" if is_ready else f"trained in {seconds:.1f} s")
    return run


def log_accuracy(run: Run, forget: list[int], done: str) -> None:
    """Log what was done for a trained run and its accuracy."""
    kind, part, images = ("golden", "retain", "retain") if forget else ("original", "overall", "test")
    accuracy = run.metrics[kind][f"{part}_accuracy"]
    right = f"no {images} images to test" if accuracy is None else f"{accuracy:.2%} of {images} images right"
    log.info("%s: %s, %s", run.name, done, right)


def start_from_weights(model: nn.Module, experiment, forget: list[int]) -> bool:
    """Load the start's weights into a new model; return whether it is ready, since there is nothing to train it on.

    Raises:
        UserError: there are neither weights nor training images, or the weights are for other classes.
    """
    weights = experiment.start["weights"]
    data = experiment.dataset
    if weights is None:
        if not len(data.train):
            raise UserError(f"weights: none given, and {data.name} has no training images here")
        return False
    state = read_weights(experiment.model, weights)
    apply_weights(model, state, weights)
    if forget and all(name in state and state[name].shape == t.shape for name, t in model.state_dict().items()):
        log.warning("golden: it starts from %s with its head, which may know the forget classes", weights)
    if len(data.train):
        return False
    outputs = count_outputs(model, state)
    if outputs != data.num_classes:
        raise UserError(
            f"weights: {weights} has {outputs} outputs, {data.name} {data.num_classes} classes and no training images"
        )
    model.eval()
    return True


def make_cached_impressions(
    experiment,
    original: Run,
    model: nn.Module,
    layer: str,
    asked: Unlearning,
    *,
    steps: int | None = None,
    on_step: Callable | None = None,
) -> Impressions:
    """Return impressions of every class of the original, kept in its run folder."""
    check_impressions(model, layer, asked.samples, asked.recipe, steps)
    path = original.path / f"impressions-{layer}-{asked.recipe}.safetensors"
    numbers = {"samples": asked.samples, "recipe": asked.recipe, "steps": steps, "seed": experiment.seed}
    key = {
        **numbers,
        "model": original.fingerprint(),
        "version": RECIPE_VERSION,
        "input_range": list(model.input_range),
    }
    if asked.recipe in BOUNDED:
        key["memory"] = experiment.memory

    def make() -> tuple[dict, dict]:
        made = make_impressions(model, layer, **numbers, memory=round(experiment.memory * 2**20), on_step=on_step)
        log.info("impressions at %s, %s: %s made in %.1f s", layer, asked.recipe, f"{len(made.x):,}", made.seconds)
        return {"x": made.x, "labels": made.labels}, {"seconds": made.seconds}

    if asked.recipe == "drawn":  # as large as a data set, and quick to draw again
        tensors, facts = make()
    else:
        tensors, facts = cached(path, key, make, force=experiment.force)
    return Impressions(layer, tensors["x"], tensors["labels"], asked.recipe, facts["seconds"])


@dataclass(frozen=True)
class Judge:
    """The test images as they enter `layer`: judges every network whose body is the original's.

    Args:
        activations: float32 [N, ...] at the input of the layer; None where they are too large to keep.
        logits: the original's, [N, K]. labels: [N].
    """

    layer: str
    activations: torch.Tensor | None
    logits: torch.Tensor
    labels: torch.Tensor
    data: Data

    @classmethod
    def of_original(cls, original: Run, model: nn.Module, data: Data, layer: str, in_memory: bool = False) -> "Judge":
        """Return the judge of an original network; large images leave their activations in its run folder.

        in_memory: hold those of small images too, which pays where one judge serves many networks.
        """
        found = load_activations(original, model, data, layer)
        if found is None and in_memory:
            found = compute_activations(model, data, layer)
        if found is None:
            return cls(layer, None, *logits_and_labels(model, data.test, data), data)
        activations, labels = found
        return cls(layer, activations, tail_logits(model, layer, activations), labels, data)

    def block(self, network: nn.Module, forget: list[int]) -> dict:
        """Return the network's block of metrics.json."""
        if self.activations is None:
            return evaluate(network, self.data, forget)
        return self._score(tail_logits(network, self.layer, self.activations), forget)

    def masked_block(self, forget: list[int]) -> dict:
        """Return the block of the masked original: its forget logits are -inf, so that they never win."""
        return self._score(self.logits.index_fill(1, torch.tensor(forget), -torch.inf), forget)

    def _score(self, logits: torch.Tensor, forget: list[int]) -> dict:
        return score(confusion_matrix(logits.argmax(1), self.labels, self.data.num_classes), forget)


@torch.no_grad()
def compute_activations(model: nn.Module, data: Data, layer: str) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the inputs of `layer` for the test images, and their labels; None where they are too large to hold."""
    if 4 * len(data.test) * torch.Size(input_shape_of(model, layer)).numel() > KEPT_BYTES:
        return None
    body, _ = split(model, layer)
    activations = torch.cat([body(batch).float().cpu() for batch in iterate_batches(model, data.test.images, data)])
    is_readable = data.test.readable
    return activations[is_readable], data.test.labels[is_readable]


@torch.no_grad()
def tail_logits(model: nn.Module, layer: str, activations: torch.Tensor) -> torch.Tensor:
    """Return the logits [N, K] of a network's tail, on the CPU, for inputs of `layer`."""
    _, tail = split(model, layer)
    like = next(model.parameters())
    return torch.cat([tail(part.to(like.device, like.dtype)).float().cpu() for part in activations.split(500)])


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


@traced_once()
def compute_unlearned(experiment, unlearning: Unlearning, on_step: OnStep | None, judge: Judge | None) -> Unlearned:
    """Unlearn in a copy of the original, and judge the result. See `Experiment.compute`."""
    forget = experiment.checked_forget()
    original = experiment.original()
    model = experiment.load(original)
    layer = unlearning.find_layer(model)
    unlearning.check_network(model)
    is_complete = True  # where there are no epochs too

    def watch(state: dict) -> bool:
        nonlocal is_complete
        is_complete = state["epoch"] == state["epochs"]
        return on_step is None or on_step(state) is not False

    def watch_impressions(step: int, x: torch.Tensor) -> None:
        if on_step is not None and on_step({"stage": "impressions", "step": step, "layer": layer}) is False:
            raise Stopped

    impressions = None
    if unlearning.rules.needs_impressions:
        impressions = make_cached_impressions(experiment, original, model, layer, unlearning, on_step=watch_impressions)
    network, history, seconds = unlearn(
        unlearning, model, impressions, forget, layer=layer, seed=experiment.seed, on_step=watch
    )
    log.info("%s: unlearned in %.1f s", unlearning.method, seconds)
    if judge is None or judge.layer != layer:
        judge = Judge.of_original(original, model, experiment.dataset, layer)
    metrics = {
        "original": score(original.metrics["original"]["confusion"], forget),
        "masked": judge.masked_block(forget),
        "unlearned": judge.block(network, forget),
        "golden": None,
        "seconds": {
            "train": original.metrics["seconds"]["train"],
            "golden": None,
            "impressions": impressions.seconds if impressions else 0.0,
            "unlearn": seconds,
        },
        "carry_over": None,
        "audit": None,
    }
    return Unlearned(unlearning, layer, network, history, metrics, original, original.fingerprint(), is_complete)


def find_unlearned(experiment, unlearning: Unlearning, version: str | None) -> Run | None:
    """Return the finished run of an unlearning, golden's figures included; None where there is none.

    The layer that was asked for identifies the run, None included; no network is needed to find it.
    """
    original = experiment.original()
    name, arguments = describe_unlearned(experiment, original, unlearning, version)
    if not has_run(experiment.root, name):
        return None
    run = open_run(experiment.root, name)
    if unlearning.layer is None and run.config.get("asked_layer", "") is None:
        arguments["layer"] = run.config["layer"]
    elif unlearning.layer is None:  # the run was asked for with a layer, perhaps the one that None means
        arguments["layer"] = unlearning.find_layer(experiment.load(original))
    run = check_run(run, arguments)
    log.info("%s: reused", name)
    log_carry_over(run.metrics["carry_over"])
    return with_golden(experiment, run)


@traced_once()
def keep_unlearned(experiment, unlearned: Unlearned, version: str | None) -> Run:
    """Measure the carry-over of an unlearned network and write its run, with golden's figures where it is trained."""
    if not unlearned.is_complete:
        raise UserError(
            f"epochs: stopped after {len(unlearned.history['forget_loss'])}; only a run that ended can be saved"
        )
    name, arguments = describe_unlearned(experiment, unlearned.original, unlearned.unlearning, version)
    arguments["layer"] = unlearned.layer
    if arguments["original_file"] != unlearned.original_file:
        raise UserError(f"run: {unlearned.original.name} was trained again since this unlearning; compute it again")
    with lock_folder(experiment.root / name):
        if not experiment.force and (run := find_run(experiment.root, name, arguments)):
            return with_golden(experiment, run)  # another process was faster
        model = experiment.load(unlearned.original)
        shares = carry_over(model, unlearned.model, unlearned.layer, experiment.forget_classes, seed=experiment.seed)
        log_carry_over(shares)
        run = write_run(
            experiment.root,
            name,
            arguments,
            unlearned.model,
            unlearned.history,
            unlearned.metrics | {"carry_over": shares},
            **experiment.notes(),
            golden_run=None,
            asked_layer=unlearned.unlearning.layer,
        )
        log.info("%s: kept", name)
        return with_golden(experiment, run)


def describe_unlearned(
    experiment, original: Run, unlearning: Unlearning, version: str | None
) -> tuple[str, dict[str, object]]:
    """Return the name of an unlearned run and what it is made from; the layer as it was asked for."""
    version = version or experiment.version or None
    arguments = {
        **{name: value for name, value in original.arguments.items() if name not in experiment.training},
        "forget": experiment.checked_forget(),
        "method": unlearning.method,
        "layer": unlearning.layer,
        "version": version,
        "samples": unlearning.samples,
        "recipe": unlearning.recipe,
        "recipe_version": RECIPE_VERSION,
        **unlearning.numbers,
        "original_run": original.name,
        "original_file": original.fingerprint(),
    }
    if unlearning.recipe in BOUNDED:
        arguments["memory"] = experiment.memory
    return experiment.unlearned_name(unlearning, version), arguments


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
