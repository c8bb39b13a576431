"""Evaluation: accuracy over all, forget and retain pictures, class by class, and the confusion matrix.

Forget and retain accuracy are shares of test pictures; the predicted class is the argmax over all K logits.
"""

from collections.abc import Collection

import pandas as pd
import torch
from torch import nn

from unlearn_lib.common import UserError, check_classes
from unlearn_lib.data import Data, Pictures, Split, iterate_batches, predict_logits
from unlearn_lib.networks import Run, input_shape_of, split
from unlearn_lib.store import cached, digest


def confusion_matrix(predicted: torch.Tensor, labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Confusion matrix int64 [K, K] (rows: the label, columns: the answer) from classes [N]."""
    pairs = labels.long() * num_classes + predicted
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def score(confusion: torch.Tensor | list[list[int]], forget: Collection[int] = ()) -> dict:
    """Accuracies, as fractions, of a confusion matrix [K, K]; an accuracy over no pictures is None."""
    confusion = torch.as_tensor(confusion)
    forget = check_classes(forget, len(confusion), none=True)
    right, count = confusion.diag(), confusion.sum(1)

    def share(classes: Collection[int]) -> float | None:
        total = count[list(classes)].sum().item()
        return right[list(classes)].sum().item() / total if total else None

    every = range(len(confusion))
    return {
        "overall_accuracy": share(every),
        "forget_accuracy": share(forget),
        "retain_accuracy": share([c for c in every if c not in set(forget)]),
        "per_class_accuracy": [share([c]) for c in every],
        "confusion": confusion.tolist(),
    }


def evaluate(model: nn.Module, data: Data, forget: Collection[int] = ()) -> dict:
    """`score` of a model on the test pictures that open. Raises UserError where it has not one logit a class."""
    logits, labels = logits_and_labels(model, data.test, data)
    return score(confusion_matrix(logits.argmax(1), labels, data.num_classes), forget)


def logits_and_labels(model: nn.Module, pictures: Split, data: Data) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits float32 [N, K] and labels [N] of the pictures that open, on the CPU; checked as by `check_answers`."""
    logits = check_answers(predict_logits(model, pictures.images, data), data)
    good = pictures.readable  # known now that all have been read
    return logits[good], pictures.labels[good]


def predict_classes(model: nn.Module, data: Data) -> torch.Tensor:
    """The model's answer (argmax) to every test picture, int64 [N]; one that does not open counts as black."""
    return check_answers(predict_logits(model, data.test.images, data), data).argmax(1)


def check_answers(logits: torch.Tensor, data: Data) -> torch.Tensor:
    """The logits themselves; raises UserError where they are not one a class, or one is NaN, argmax's largest."""
    if logits.shape[1] != data.num_classes:
        raise UserError(f"model: its head has {logits.shape[1]} outputs, {data.name} has {data.num_classes} classes")
    if logits.isnan().any():
        raise UserError("model: its logits are not numbers (NaN); only a network whose weights are finite has answers")
    return logits


def table(metrics: dict[str, dict | None], classes: list[str] | None = None) -> pd.DataFrame:
    """Models side by side, in percent: overall, forget and retain accuracy, and with `classes` every class too.

    metrics: blocks as `evaluate` makes them, by the model's name; None, an absent model, is left out.
    """
    parts = ("overall", "forget", "retain")
    rows = {  # lists, not dicts: two classes may have one name, and one may be called "overall"
        name: [block[f"{part}_accuracy"] for part in parts] + (block["per_class_accuracy"] if classes else [])
        for name, block in metrics.items()
        if block is not None
    }
    shown = pd.DataFrame.from_dict(rows, orient="index", columns=[*parts, *(classes or [])])
    return (shown.astype(float) * 100).round(2)


KEPT_BYTES = 4 * 2**30  # bytes; larger ones are not kept
SMALL = 3 * 32 * 32  # numbers in a picture, up to which a pass through the whole network is cheap


def load_activations(run: Run, model: nn.Module, data: Data, layer: str) -> tuple[torch.Tensor, torch.Tensor] | None:
    """What enters `layer` for the test pictures that open, float32 [N, ...], and their labels.

    Read from the run's folder where the same model and pictures have left them there. None for small pictures in
    memory, and where they would be too large.
    """
    images, shape = data.test.images, input_shape_of(model, layer)
    small = not isinstance(images, Pictures) and torch.Size(data.shape).numel() <= SMALL
    if small or 4 * len(images) * torch.Size(shape).numel() > KEPT_BYTES:
        return None
    key = {"model": digest(model.state_dict()), "data": data.test_fingerprint, "layer": layer}
    path = run.path / f"activations-{layer}.safetensors"
    tensors, _ = cached(path, key, lambda: (_activations(model, data, layer, shape), {}))
    if isinstance(images, Pictures):
        images.readable &= tensors["opened"]
    return tensors["x"], data.test.labels[tensors["opened"]]


@torch.no_grad()
def _activations(model: nn.Module, data: Data, layer: str, shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """What enters `layer` for the test pictures that open, written into the one place that holds it all."""
    body, _ = split(model, layer)
    x, count = torch.empty(len(data.test), *shape), 0
    for batch in iterate_batches(model, data.test.images, data):
        x[count : count + len(batch)] = body(batch)
        count += len(batch)
    opened = data.test.readable  # known now that all have been read
    return {"x": x if opened.all() else x[opened], "opened": opened}


@torch.no_grad()
def evaluate_tail(
    model: nn.Module, layer: str, x: torch.Tensor, labels: torch.Tensor, data: Data, forget: Collection[int]
) -> dict:
    """`evaluate` of a model from what enters `layer`, for a model whose body is the one that made it."""
    _, tail = split(model, layer)
    like, answers = next(model.parameters()), []
    for part in x.split(500):
        answers.append(check_answers(tail(part.to(like.device, like.dtype)), data).argmax(1).cpu())
    return score(confusion_matrix(torch.cat(answers), labels, data.num_classes), forget)
