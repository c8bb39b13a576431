"""Evaluation: accuracy on all, forget and retain test pictures, class by class, and the confusion matrix.

Accuracies are shares of test pictures. The answer is the argmax over all K logits. Networks that share the original's
body before a layer are judged from the kept inputs of that layer: see `Judge`.
"""

from collections.abc import Collection
from dataclasses import dataclass

import pandas as pd
import torch
from torch import nn

from unlearn_lib.common import UserError, check_classes
from unlearn_lib.data import Data, Pictures, Split, iterate_batches, predict_logits
from unlearn_lib.networks import Run, input_shape_of, split
from unlearn_lib.store import cached, digest

KEPT_BYTES = 4 * 2**30  # larger activations are not kept
SMALL = 3 * 32 * 32  # numbers in a picture, up to which a pass through the whole network is cheap


def confusion_matrix(predicted: torch.Tensor, labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Return the confusion matrix, int64 [K, K] (rows: labels, columns: answers), of classes [N]."""
    pairs = labels.long() * num_classes + predicted
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def score(confusion: torch.Tensor | list[list[int]], forget: Collection[int] = ()) -> dict:
    """Return the block of metrics of a confusion matrix [K, K].

    Returns:
        overall_accuracy, forget_accuracy, retain_accuracy and the list per_class_accuracy, as fractions; confusion;
        any_forget: the share of forget pictures answered with any forget class. A share of no pictures is None.

    Example:
        >>> score([[8, 2], [1, 9]], forget=[0])["forget_accuracy"]
        0.8
    """
    confusion = torch.as_tensor(confusion)
    every = range(len(confusion))
    forget = check_classes(forget, len(confusion), none=True)
    retain = [c for c in every if c not in forget]
    right = confusion.diag()
    count = confusion.sum(1)

    def share(part: torch.Tensor, classes: Collection[int]) -> float | None:
        total = count[classes].sum().item()
        return part[classes].sum().item() / total if total else None

    return {
        "overall_accuracy": share(right, every),
        "forget_accuracy": share(right, forget),
        "retain_accuracy": share(right, retain),
        "per_class_accuracy": [share(right, [c]) for c in every],
        "confusion": confusion.tolist(),
        "any_forget": share(confusion[:, forget].sum(1), forget),
    }


def evaluate(model: nn.Module, data: Data, forget: Collection[int] = ()) -> dict:
    """Return `score` of a model on the test pictures that open.

    Raises:
        UserError: the model does not have one finite logit per class.

    Example:
        >>> evaluate(model, load_data("digits"), forget=[1, 3])["forget_accuracy"]
    """
    return score_logits(*logits_and_labels(model, data.test, data), forget)


def score_logits(logits: torch.Tensor, labels: torch.Tensor, forget: Collection[int] = ()) -> dict:
    """Return `score` of logits [N, K] for pictures with these labels [N]."""
    return score(confusion_matrix(logits.argmax(1), labels, logits.shape[1]), forget)


def masked_score(logits: torch.Tensor, labels: torch.Tensor, forget: Collection[int]) -> dict:
    """Return `score` of `mask(model, forget)` from the model's own logits [N, K]: those of F become -inf."""
    return score_logits(logits.index_fill(1, torch.tensor(sorted(forget)), -torch.inf), labels, forget)


def logits_and_labels(model: nn.Module, pictures: Split, data: Data) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits float32 [N, K] and labels [N] of the pictures that open, on the CPU; see `check_answers`."""
    logits = check_answers(predict_logits(model, pictures.images, data), data)
    opened = pictures.readable  # known once all have been read
    return logits[opened], pictures.labels[opened]


def predict_classes(model: nn.Module, data: Data) -> torch.Tensor:
    """Return the answer (argmax) to every test picture, int64 [N]; a picture that does not open counts as black."""
    return check_answers(predict_logits(model, data.test.images, data), data).argmax(1)


def check_answers(logits: torch.Tensor, data: Data) -> torch.Tensor:
    """Return the logits [N, K].

    Raises:
        UserError: there is not one logit per class, or one is NaN, and argmax would take NaN for the largest.
    """
    if logits.shape[1] != data.num_classes:
        raise UserError(f"model: its head has {logits.shape[1]} outputs, {data.name} has {data.num_classes} classes")
    if logits.isnan().any():
        raise UserError("model: its logits are not numbers (NaN); expected a network with finite weights")
    return logits


def knows_forget(golden: dict) -> bool:
    """Return whether a golden network is right on forget pictures far above chance, so that it is no standard.

    golden: its block of `evaluate`. A network that never saw the classes answers with one by chance, 1 / K, or less.
    """
    accuracy = golden["forget_accuracy"]
    return accuracy is not None and accuracy > max(0.05, 2 / len(golden["per_class_accuracy"]))


def table(metrics: dict[str, dict | None], classes: list[str] | None = None) -> pd.DataFrame:
    """Return models side by side, in percent: overall, forget and retain accuracy, with `classes` every class too.

    Args:
        metrics: blocks of `evaluate`, by the model's name. None, an absent model, is left out.

    Example:
        >>> table({"original": evaluate(model, data, [1, 3])})
    """
    columns = ["overall", "forget", "retain"]
    rows = {  # lists, not dicts: two classes may share a name, and one may be called "overall"
        name: [block[f"{part}_accuracy"] for part in columns] + (block["per_class_accuracy"] if classes else [])
        for name, block in metrics.items()
        if block is not None
    }
    shares = pd.DataFrame.from_dict(rows, orient="index", columns=columns + (classes or []), dtype=float)
    return (100 * shares).round(2)


def load_activations(run: Run, model: nn.Module, data: Data, layer: str) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the inputs of `layer` for the test pictures that open, float32 [N, ...], and their labels [N].

    Those of large pictures are kept in the run's folder, and used again for the same model and pictures.

    Returns:
        None for activations that are too large.
    """
    images = data.test.images
    shape = input_shape_of(model, layer)
    if 4 * len(images) * torch.Size(shape).numel() > KEPT_BYTES:
        return None
    if not isinstance(images, Pictures) and torch.Size(data.shape).numel() <= SMALL:  # faster made than read
        tensors = _compute_activations(model, data, layer, shape)
    else:
        key = {"model": digest(model.state_dict()), "data": data.test_fingerprint, "layer": layer}
        path = run.path / f"activations-{layer}.safetensors"
        tensors, _ = cached(path, key, lambda: (_compute_activations(model, data, layer, shape), {}))
        data.test.readable[~tensors["opened"]] = False  # as if they had been read here
    return tensors["x"], data.test.labels[tensors["opened"]]


@torch.no_grad()
def _compute_activations(model: nn.Module, data: Data, layer: str, shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    body, _ = split(model, layer)
    x = torch.empty(len(data.test), *shape)  # filled in place: collecting batches would need twice the memory
    first = 0
    for batch in iterate_batches(model, data.test.images, data):
        x[first : first + len(batch)] = body(batch)
        first += len(batch)
    opened = data.test.readable  # known once all have been read
    return {"x": x if opened.all() else x[opened], "opened": opened}


@torch.no_grad()
def tail_logits(model: nn.Module, layer: str, x: torch.Tensor, data: Data) -> torch.Tensor:
    """Return logits float32 [N, K], on the CPU, from the inputs [N, ...] of `layer`; see `check_answers`."""
    _, tail = split(model, layer)
    like = next(model.parameters())
    logits = [tail(part.to(like.device, like.dtype)).float().cpu() for part in x.split(500)]
    return check_answers(torch.cat(logits), data)


def evaluate_tail(
    model: nn.Module, layer: str, x: torch.Tensor, labels: torch.Tensor, data: Data, forget: Collection[int]
) -> dict:
    """Return `evaluate` of a model whose body made the inputs x [N, ...] of `layer`."""
    return score_logits(tail_logits(model, layer, x, data), labels, forget)


@dataclass(frozen=True)
class Judge:
    """The test pictures that open, as they enter `layer`: it judges networks whose body is the original's.

    Attributes:
        activations: float32 [N, ...], the inputs of the layer; None where they are too large.
        logits, labels: [N, K], the original's, and [N].
    """

    layer: str
    activations: torch.Tensor | None
    logits: torch.Tensor
    labels: torch.Tensor
    data: Data

    @classmethod
    def of_original(cls, original: Run, model: nn.Module, data: Data, layer: str) -> "Judge":
        """Return the judge of an original network; its run folder keeps the activations of large pictures."""
        found = load_activations(original, model, data, layer)
        if found is None:
            return cls(layer, None, *logits_and_labels(model, data.test, data), data)
        activations, labels = found
        return cls(layer, activations, tail_logits(model, layer, activations, data), labels, data)

    def block(self, network: nn.Module, forget: Collection[int]) -> dict:
        """Return `evaluate` of a network."""
        if self.activations is None:
            return evaluate(network, self.data, forget)
        return evaluate_tail(network, self.layer, self.activations, self.labels, self.data, forget)

    def masked_block(self, forget: Collection[int]) -> dict:
        """Return `evaluate` of the masked original."""
        return masked_score(self.logits, self.labels, forget)
