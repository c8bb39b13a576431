"""The body's activations on test pictures that lie on disk, kept beside the model: the frozen body sees each picture
once, and what was unlearned from there on is evaluated without decoding any again."""

import hashlib
from collections.abc import Collection

import torch
from torch import nn

from unlearn_lib.data import Data
from unlearn_lib.evaluation import check_fit, confusion_of, score
from unlearn_lib.models import layer_shape, split
from unlearn_lib.pictures import Pictures
from unlearn_lib.runs import Run, load_tensors, save_tensors

LIMIT = 4 * 2**30  # bytes; larger ones are not kept


@torch.no_grad()
def kept_activations(run: Run, model: nn.Module, data: Data, layer: str) -> tuple[torch.Tensor, torch.Tensor] | None:
    """What enters `layer` for the test pictures that open, float32 [N, ...], and their labels.

    Read from the run's folder where the same model and pictures have left them there. None for pictures in memory,
    and where they would be too large.
    """
    images = data.test.images
    if not isinstance(images, Pictures) or 4 * len(images) * torch.Size(layer_shape(model, layer)).numel() > LIMIT:
        return None
    path = run.path / f"activations-{layer}.safetensors"
    names = "\n".join(f"{p.parent.name}/{p.name}" for p in images.paths) + repr(images.framing)
    words = {"model_file": run.fingerprint(), "pictures": hashlib.sha256(names.encode()).hexdigest()}
    if path.is_file():
        tensors, kept = load_tensors(path)
        if {key: kept.get(key) for key in words} == words:
            images.opened &= tensors["opened"]
            return tensors["x"], data.test.labels[tensors["opened"]]
    body, _ = split(model, layer)
    device = next(model.parameters()).device
    x = torch.cat([body(data.normalise(part.to(device))).cpu() for part in images.split(100)])[images.opened]
    save_tensors(path, {"x": x, "opened": images.opened}, words)
    return x, data.test.labels[images.opened]


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
