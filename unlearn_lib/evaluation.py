"""Evaluation: accuracy over all, forget and retain pictures, class by class, and the confusion matrix.

Forget and retain accuracy are shares of test pictures; the predicted class is the argmax over all K logits.
"""

import hashlib
from collections.abc import Collection

import pandas as pd
import torch
from torch import nn

from unlearn_lib.common import UserError
from unlearn_lib.data import Data, Pictures
from unlearn_lib.networks import Run, layer_shape, split
from unlearn_lib.store import load_tensors, save_tensors
from unlearn_lib.training import logits_of


def confusion_of(predicted: torch.Tensor, labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Confusion matrix int64 [K, K] (rows: the label, columns: the answer) from classes [N]."""
    return torch.bincount(labels * num_classes + predicted, minlength=num_classes**2).view(num_classes, num_classes)


def score(confusion: torch.Tensor | list[list[int]], forget: Collection[int] = ()) -> dict:
    """Accuracies, as fractions, of a confusion matrix [K, K]; an accuracy over no pictures is None."""
    confusion = torch.as_tensor(confusion)
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
    """`score` of a model on the test pictures that open. Raises ValueError where it has not one logit a class."""
    logits = logits_of(model, data.test.images, data)
    check_fit(logits.shape[1], data)
    good = data.test.opened  # known now that all have been read
    return score(confusion_of(logits[good].argmax(1), data.test.labels[good], data.num_classes), forget)


def answers_of(model: nn.Module, data: Data) -> torch.Tensor:
    """The model's answer (argmax) to every test picture, int64 [N]."""
    return logits_of(model, data.test.images, data).argmax(1)


def check_fit(outputs: int, data: Data) -> None:
    """Raise ValueError where a model's number of outputs is not the data's number of classes."""
    if outputs != data.num_classes:
        raise UserError(f"model: its head has {outputs} outputs, {data.name} has {data.num_classes} classes")


def table(metrics: dict[str, dict | None], classes: list[str] | None = None) -> pd.DataFrame:
    """Models side by side, in percent: overall, forget and retain accuracy, and with `classes` every class too.

    metrics: blocks as `evaluate` makes them, by the model's name; None, an absent model, is left out.
    """
    rows = {}
    for name, block in metrics.items():
        if block is not None:
            rows[name] = {part: block[f"{part}_accuracy"] for part in ("overall", "forget", "retain")}
            rows[name] |= dict(zip(classes or [], block["per_class_accuracy"], strict=False))
    return (pd.DataFrame.from_dict(rows, orient="index").astype(float) * 100).round(2)


KEPT_BYTES = 4 * 2**30  # bytes; larger ones are not kept
SMALL = 3 * 32 * 32  # numbers in a picture, up to which a pass through the whole network is cheap


@torch.no_grad()
def kept_activations(run: Run, model: nn.Module, data: Data, layer: str) -> tuple[torch.Tensor, torch.Tensor] | None:
    """What enters `layer` for the test pictures that open, float32 [N, ...], and their labels.

    Read from the run's folder where the same model and pictures have left them there. None for small pictures in
    memory, and where they would be too large.
    """
    images = data.test.images
    small = not isinstance(images, Pictures) and images.shape[1:].numel() <= SMALL
    if small or 4 * len(images) * torch.Size(layer_shape(model, layer)).numel() > KEPT_BYTES:
        return None
    path = run.path / f"activations-{layer}.safetensors"
    words = {"model_file": run.fingerprint(), "pictures": _fingerprint(data)}
    if path.is_file():
        tensors, kept = load_tensors(path)
        if {key: kept.get(key) for key in words} == words:
            if isinstance(images, Pictures):
                images.opened &= tensors["opened"]
            return tensors["x"], data.test.labels[tensors["opened"]]
    body, _ = split(model, layer)
    device = next(model.parameters()).device
    x = torch.cat([body(data.normalise(part.to(device))).cpu() for part in images.split(100)])[data.test.opened]
    save_tensors(path, {"x": x, "opened": data.test.opened}, words)
    return x, data.test.labels[data.test.opened]


@torch.no_grad()
def evaluate_tail(
    model: nn.Module, layer: str, x: torch.Tensor, labels: torch.Tensor, data: Data, forget: Collection[int]
) -> dict:
    """`evaluate` of a model from what enters `layer`, for a model whose body is the one that made it."""
    _, tail = split(model, layer)
    device = next(model.parameters()).device
    answers = torch.cat([tail(part.to(device)).argmax(1).cpu() for part in x.split(500)])
    check_fit(tail(x[:1].to(device)).shape[1], data)
    return score(confusion_of(answers, labels, data.num_classes), forget)


def _fingerprint(data: Data) -> str:
    """What the test pictures and their preprocessing are, in one word."""
    images, normal = data.test.images, repr((data.mean, data.std))
    if isinstance(images, Pictures):
        content = "\n".join(f"{p.parent.name}/{p.name}" for p in images.paths) + repr(images.framing)
        return hashlib.sha256((content + normal).encode()).hexdigest()
    return hashlib.sha256(images.contiguous().numpy().tobytes() + normal.encode()).hexdigest()
