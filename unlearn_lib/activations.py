"""The body's activations on large test pictures, kept beside the model.

The frozen body sees each picture once; what was unlearned from there on is evaluated without decoding a picture or
running the body again.
"""

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
SMALL = 3 * 32 * 32  # numbers in a picture, up to which a pass through the whole network is cheap


@torch.no_grad()
def kept_activations(run: Run, model: nn.Module, data: Data, layer: str) -> tuple[torch.Tensor, torch.Tensor] | None:
    """What enters `layer` for the test pictures that open, float32 [N, ...], and their labels.

    Read from the run's folder where the same model and pictures have left them there. None for small pictures in
    memory, and where they would be too large.
    """
    images = data.test.images
    small = not isinstance(images, Pictures) and images.shape[1:].numel() <= SMALL
    if small or 4 * len(images) * torch.Size(layer_shape(model, layer)).numel() > LIMIT:
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
