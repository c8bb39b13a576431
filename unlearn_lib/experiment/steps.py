"""The steps of an experiment: what each makes, what it is known by, and where it is kept.

Each step holds the lock of the folder that it fills, so that of two processes that want the same one works and the
other finds it done.
"""

import logging
import time
from collections.abc import Callable

import pandas as pd
from torch import nn

from unlearn_lib.common import UserError, as_number, log, pick_device
from unlearn_lib.evaluation import evaluate, evaluate_tail, load_activations, score, table
from unlearn_lib.networks import (
    Run,
    amend_run,
    apply_weights,
    class_code,
    count_outputs,
    find_run,
    has_run,
    read_weights,
    traced_once,
    write_run,
)
from unlearn_lib.store import cached, lock_folder
from unlearn_lib.training import fit
from unlearn_lib.zeroshot import (
    RECIPE_VERSION,
    Impressions,
    ZeroShotUnlearner,
    carry_over,
    check_recipe,
    default_layer,
    default_recipe,
    describe_carry_over,
    make_impressions,
    mask,
    method_layer,
    unlearning_numbers,
)

BOUNDED = ("deepinversion", "drawn")  # recipes whose impressions are others with less memory


def trained_run(experiment, forget: list[int]) -> Run:
    """The original's run, or golden's where there are classes to leave out: found, or trained and evaluated."""
    name, arguments = experiment.trained_name(forget), experiment.arguments(forget)
    with lock_folder(experiment.root / name):
        anew = experiment.anew(name)
        run = None if anew else find_run(experiment.root, name, arguments)
        if run is not None:
            log_accuracy(run, forget, "reused")
            return run
        checkpoint = experiment.root / name / "checkpoint.safetensors"
        if anew:
            checkpoint.unlink(missing_ok=True)
        model = experiment.new_model(experiment.seed)
        ready, history = start_from(model, experiment, forget), {}
        if not ready:
            numbers = {
                "label_smoothing": experiment.label_smoothing,
                "seed": experiment.seed,
                "device": experiment.device,
            }
            numbers |= {
                "checkpoint": checkpoint,
                "save_every": experiment.save_every,
                "precision": experiment.precision,
            }
            history = fit(model, experiment.dataset, forget=forget, **numbers, **experiment.training)
        kind, seconds = "golden" if forget else "original", sum(history.get("seconds", []))
        metrics = dict.fromkeys(("original", "masked", "unlearned", "golden", "carry_over", "audit"))
        metrics[kind] = evaluate(model.to(pick_device(experiment.device)), experiment.dataset, forget)
        metrics["seconds"] = dict.fromkeys(("train", "golden", "impressions", "unlearn"))
        metrics["seconds"]["golden" if forget else "train"] = seconds
        run = write_run(experiment.root, name, arguments, model.cpu(), history, metrics, **notes_of(experiment))
    log_accuracy(run, forget, "weights taken as they come" if ready else f"trained in {seconds:.1f} s")
    return run


def log_accuracy(run: Run, forget: list[int], done: str) -> None:
    """Say what was done for a trained run and how good it is, so that all who use it say the same of it."""
    kind, part, pictures = ("golden", "retain", "retain") if forget else ("original", "overall", "test")
    accuracy = run.metrics[kind][f"{part}_accuracy"]
    right = f"no {pictures} pictures to test" if accuracy is None else f"{accuracy:.2%} of {pictures} pictures right"
    log.info("%s: %s, %s", run.name, done, right)


def start_from(model: nn.Module, experiment, forget: list[int]) -> bool:
    """Put the start's weights into a new model; whether it is ready, there being nothing to train it on.

    Golden is warned of where its start has a head for these classes, and so may know those to forget.
    Raises UserError where there is neither, or where the weights are for other classes than the data's.
    """
    weights, data = experiment.start["weights"], experiment.dataset
    if weights is None:
        if not len(data.train):
            raise UserError(f"weights: none given, and {data.name} has no training pictures here")
        return False
    state = read_weights(experiment.model, weights)
    apply_weights(model, state, weights)
    if forget and all(name in state and state[name].shape == t.shape for name, t in model.state_dict().items()):
        log.warning("golden: it starts from %s, head and all, and may know the forget classes from there", weights)
    if len(data.train):
        return False
    outputs = count_outputs(model, state)
    if outputs != data.num_classes:
        raise UserError(
            f"weights: {weights} has {outputs} outputs, {data.name} {data.num_classes} classes and no training pictures"
        )
    model.eval()
    return True


def impressions_of(
    experiment,
    layer: str | None,
    samples: int,
    recipe: str | None,
    steps: int | None = None,
    on_step: Callable | None = None,
) -> Impressions:
    """Impressions of every class of the original, kept in its run folder."""
    run, recipe = experiment.original(), default_recipe() if recipe is None else recipe
    model = experiment.load(run)
    check_recipe(model, layer, recipe)
    layer = default_layer(model) if layer is None else str(layer)
    samples, steps = as_number("samples", samples), steps if steps is None else as_number("steps", steps)
    path = run.path / f"impressions-{layer}-{recipe}.safetensors"
    asked = {"samples": samples, "recipe": recipe, "steps": steps, "seed": experiment.seed}
    key = asked | {"model": run.fingerprint(), "version": RECIPE_VERSION, "input_range": list(model.input_range)}
    key |= {"memory": experiment.memory} if recipe in BOUNDED else {}

    def make() -> tuple[dict, dict]:
        made = make_impressions(model, layer, **asked, memory=round(experiment.memory * 2**20), on_step=on_step)
        log.info("impressions at %s, %s: %s made in %.1f s", layer, recipe, f"{len(made.x):,}", made.seconds)
        return {"x": made.x, "labels": made.labels}, {"seconds": made.seconds}

    if recipe == "drawn":  # as large as a data set, and soon drawn again
        tensors, facts = make()
    else:
        tensors, facts = cached(path, key, make, force=experiment.anew(f"{run.name}/{path.name}"))
    return Impressions(layer, tensors["x"], tensors["labels"], recipe, facts["seconds"])


@traced_once()
def unlearned_run(experiment, method: str, layer, samples: int, recipe, version: str | None, numbers: dict) -> Run:
    """The unlearned model's run, found or made, with golden's figures in its table where there is one."""
    original, forget = experiment.original(), experiment.forget_classes
    model = experiment.load(original)
    layer = str(layer or usual_layer(model, method))
    name, arguments = unlearned_place(experiment, original, method, layer, samples, recipe, version, numbers)
    with lock_folder(experiment.root / name):
        run = None if experiment.anew(name) else find_run(experiment.root, name, arguments)
        if run is not None:
            log.info("%s: reused", name)
            log_carry_over(run.metrics["carry_over"])
            return with_golden(experiment, run)
        if method == "mask":  # needs no impressions
            begin = time.perf_counter()
            unlearned, history = mask(model, forget), {}
            seconds = {"impressions": 0.0, "unlearn": time.perf_counter() - begin}
        else:
            impressions = impressions_of(experiment, layer, arguments["samples"], arguments["recipe"])
            numbers = unlearning_numbers(method, numbers)
            unlearner = ZeroShotUnlearner(model, impressions, forget, method=method, seed=experiment.seed, **numbers)
            unlearned, history, unlearning = unlearner.unlearn()
            seconds = {"impressions": impressions.seconds, "unlearn": unlearning}
        log.info("%s: unlearned in %.1f s", name, seconds["unlearn"])
        metrics = comparison(experiment, original, model, unlearned, layer)
        metrics["seconds"] |= seconds
        metrics["carry_over"] = carry_over(model, unlearned, layer, forget, seed=experiment.seed)
        log_carry_over(metrics["carry_over"])
        run = write_run(
            experiment.root, name, arguments, unlearned, history, metrics, **notes_of(experiment), golden_run=None
        )
        return with_golden(experiment, run)


def usual_layer(model: nn.Module, method: str) -> str:
    """The layer at which a method unlearns where none is given."""
    return method_layer(model, method) or default_layer(model)


def unlearned_place(
    experiment, original: Run, method: str, layer, samples, recipe, version, numbers
) -> tuple[str, dict]:
    """The name of an unlearned run, and what it is made from; of these the layer alone must be given."""
    version = str(version or experiment.version or "") or None
    recipe = recipe or default_recipe(method)
    arguments = {
        name: value for name, value in original.arguments.items() if name not in (*experiment.training, "forget")
    }
    arguments |= {"forget": experiment.forget_classes, "method": method, "layer": layer, "version": version}
    arguments |= {"samples": as_number("samples", samples), "recipe": recipe, "recipe_version": RECIPE_VERSION}
    arguments |= unlearning_numbers(method, numbers) | ({"memory": experiment.memory} if recipe in BOUNDED else {})
    arguments |= {"original_run": original.name, "original_file": original.fingerprint()}
    return experiment.run_name("unlearned", class_code(experiment.forget_classes), method, version=version), arguments


def log_carry_over(shares: dict) -> None:
    """Say how far unlearning carries over to harder inputs; a warning where it does not."""
    passed, sentence = describe_carry_over(shares)
    log.log(logging.INFO if passed else logging.WARNING, sentence)


def comparison(experiment, original: Run, model: nn.Module, unlearned: nn.Module, layer: str) -> dict:
    """The blocks of metrics.json for an unlearned model beside the original and the mask."""
    forget, activations = experiment.forget_classes, load_activations(original, model, experiment.dataset, layer)

    def judge(net: nn.Module) -> dict:
        if activations is None:
            return evaluate(net, experiment.dataset, forget)
        return evaluate_tail(net, layer, *activations, experiment.dataset, forget)

    try:
        masked = judge(mask(model, forget))
    except UserError:  # the network does not end in a linear layer
        masked = None
    before = original.metrics
    seconds = {"train": before["seconds"]["train"], "golden": None}
    block = score(before["original"]["confusion"], forget)
    metrics = {"original": block, "masked": masked, "unlearned": judge(unlearned), "golden": None}
    return metrics | {"seconds": seconds, "audit": None}


def with_golden(experiment, run: Run) -> Run:
    """The unlearned run with the golden model's figures beside its own, where that was trained as the original was."""
    golden, name = experiment.finished_golden(), experiment.trained_name(experiment.forget_classes)
    if golden is None and has_run(experiment.root, name):
        log.warning("%s: left out of the table, since it was not trained as the original was", name)
    block = golden and score(golden.metrics["golden"]["confusion"], experiment.forget_classes)
    metrics, golden_run = run.metrics, golden and golden.name
    if metrics["golden"] != block or run.config["golden_run"] != golden_run:
        seconds = metrics["seconds"] | {"golden": golden and golden.metrics["seconds"]["golden"]}
        other = metrics["golden"] not in (None, block)  # than that with which the audit compares
        audit = None if other else metrics["audit"]
        run = amend_run(run, metrics | {"golden": block, "seconds": seconds, "audit": audit}, golden_run=golden_run)
    return run


def notes_of(experiment) -> dict:
    """What config.json tells besides the arguments: device, source, classes, the folder that was given."""
    notes = {
        "device": str(pick_device(experiment.device)),
        "source": experiment.dataset.source,
        "classes": experiment.dataset.classes,
    }
    notes |= {"data_given": str(experiment.data)}  # a folder's path, of which `data` keeps the name
    left_out = {"unreadable": experiment.dataset.unreadable, "passed_over": list(experiment.dataset.passed_over)}
    return notes | {name: names for name, names in left_out.items() if names}


def comparison_table(runs: list[Run]) -> pd.DataFrame:
    """Original, mask, the runs' models and golden in percent, as `table` shows them, and the seconds that each took."""
    metrics = runs[0].metrics
    rows, seconds = {name: metrics[name] for name in ("original", "masked")}, metrics["seconds"]
    took = {"original": seconds["train"], "masked": 0.0, "golden": seconds["golden"]}
    for run in runs:
        name, block = f"unlearned, {run.config.get('method')}", run.metrics
        rows[name] = block["unlearned"]
        took[name] = (block["seconds"]["impressions"] or 0) + (block["seconds"]["unlearn"] or 0)
    shown = table(rows | {"golden": metrics["golden"]})
    return shown.assign(seconds=[took[name] for name in shown.index])
