"""Evaluation: accuracy over all, forget and retain pictures, class by class, and the confusion matrix.

Forget and retain accuracy are shares of test pictures; the predicted class is the argmax over all K logits.
"""

from collections.abc import Collection

import pandas as pd
import torch
from torch import nn

from unlearn_lib.data import Data


@torch.no_grad()
def logits_of(model: nn.Module, images: torch.Tensor, data: Data, batch_size: int = 500) -> torch.Tensor:
    """Logits float32 [N, K], on the CPU, for uint8 pictures; the model is put into eval mode."""
    device = next(model.parameters()).device
    model.eval()
    return torch.cat([model(data.normalise(batch.to(device))).float().cpu() for batch in images.split(batch_size)])


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
        raise ValueError(f"model: its head has {outputs} outputs, {data.name} has {data.num_classes} classes")


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
