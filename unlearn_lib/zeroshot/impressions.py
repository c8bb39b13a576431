"""Class impressions: inputs of a layer, optimised from noise until the model sees a class in them.

They stand in for the data that nobody has any more. Nothing here takes pictures, loaders or statistics of real data:
the trained model is the only source.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from unlearn_lib.common import UserError, check_classes
from unlearn_lib.networks import at_pixels, behind_relu, layer_shape, split, splittable_layers
from unlearn_lib.zeroshot.recipes import RECIPES, SMOOTHING, STEPS, calibrate, publish


@dataclass(frozen=True)
class Impressions:
    """Impressions x [N, *shape] of classes `labels` [N] at the input of `layer`, sorted by class."""

    layer: str
    x: torch.Tensor
    labels: torch.Tensor
    recipe: str
    seconds: float

    @property
    def smoothing(self) -> float:
        """The label smoothing under which they were calibrated (for published ones, under which they are used)."""
        return SMOOTHING[self.recipe]


def make_impressions(
    model: nn.Module,
    layer: str | None = None,
    *,
    samples: int = 100,
    recipe: str = "calibrated",
    steps: int | None = None,
    seed: int = 0,
    classes: Collection[int] | None = None,
    memory: int = 2**29,
    on_step: Callable[[int, torch.Tensor], None] | None = None,
) -> Impressions:
    """Make `samples` impressions of each class at the input of `layer` (`input`: pixels; None: see `default_layer`).

    calibrated: argmin_x CE(tail(x), c) + 2e-4 |x|^2, label smoothing 0.05, so that p_c ends near 0.95; never negative
    behind a ReLU, pixels within their range and smooth (total variation, jitter). At a linear head the start is the
    closed form x0 + t (w_c - mean w), which leaves ten steps to do (three where there are more than 100 classes).
    deepinversion: the same in pixels, + the distance of what enters each BatchNorm, over all classes mixed, to its
    running mean and variance, see `statistics_distance` (Yin et al. 2020); for networks that have any.
    published: 1,000 steps of Adam up one logit, without bound (Simonyan et al. 2013, Mopuri et al. 2018).
    All classes x samples are optimised together, in chunks that take about `memory` bytes besides the result; Adam
    works coordinate by coordinate, so that this gives what one-by-one optimisation gives.
    classes: indices of those to make impressions of, all by default. on_step: called with the step's number and the
    chunk at work, before its first step (0) and after each.
    """
    layer = check_impressions(model, layer, samples, recipe, steps) or default_layer(model)
    begin = time.perf_counter()
    steps = STEPS[recipe] if steps is None else steps
    _, tail = split(model, layer)
    device, shape = next(model.parameters()).device, layer_shape(model, layer)
    bounds, pixels = allowed_range(model, layer), at_pixels(model, layer)
    with torch.no_grad():
        k = tail(torch.zeros(1, *shape, device=device)).shape[1]
    wanted = torch.arange(k) if classes is None else torch.tensor(check_classes(classes, k))
    labels = wanted.repeat_interleave(samples)
    x = torch.randn(len(labels), *shape, generator=torch.Generator().manual_seed(seed))
    if recipe != "published":
        x.clamp_(*bounds).mul_(0.1 if pixels else 0.7)  # faint and sparse, as after a ReLU
    chunk = max(1, memory // (4 * _numbers_per_sample(tail, shape, device)))
    order = torch.arange(len(labels))
    if recipe == "deepinversion":  # whose chunks are each to hold all classes
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    for part in order.split(chunk):
        start, goal = x[part].to(device), labels[part].to(device)
        if recipe == "published":
            x[part] = publish(tail, start, goal, steps, follow=on_step).cpu()
        else:
            like = {"pixels": pixels, "statistics": recipe == "deepinversion"}
            x[part] = calibrate(tail, start, goal, steps, bounds, **like, follow=on_step).cpu()
    return Impressions(layer, x, labels, recipe, time.perf_counter() - begin)


def check_impressions(model: nn.Module, layer: str | None, samples: int, recipe: str, steps: int | None) -> str | None:
    """Raise ValueError for what `make_impressions` does not accept; returns the layer."""
    if recipe not in RECIPES:
        raise UserError(f"recipe: {recipe!r} given; {' or '.join(RECIPES)} is accepted")
    if samples < 1 or (steps is not None and steps < 0):
        raise UserError(f"samples, steps: {samples}, {steps} given; at least 1 and 0 are accepted")
    if layer is not None:
        split(model, layer)
    norms = any(isinstance(m, nn.BatchNorm2d) and m.track_running_stats for m in model.modules())
    if recipe == "deepinversion" and not (norms and layer is not None and at_pixels(model, layer)):
        raise UserError(
            f"recipe: deepinversion given, at layer {layer} of {type(model).__name__}; it is for the pixels (input) of "
            "networks with BatchNorm2d"
        )
    return layer


def allowed_range(model: nn.Module, layer: str) -> tuple[float, float]:
    """Smallest and largest value that can occur at a layer's input: pixels have a range, ReLUs give no negatives."""
    if at_pixels(model, layer):
        return getattr(model, "input_range", (-float("inf"), float("inf")))
    return (0.0 if behind_relu(model, layer) else -float("inf")), float("inf")


@torch.no_grad()
def diagnose(model: nn.Module, impressions: Impressions) -> pd.DataFrame:
    """Per class: reached (share whose argmax is the class), confidence (mean p_c), norm, infeasible (share of
    coordinates outside the layer's range), cosine (mean over pairs of one class; 1 means one point)."""
    _, tail = split(model, impressions.layer)
    low, high = allowed_range(model, impressions.layer)
    device = next(model.parameters()).device
    p = torch.cat([tail(part.to(device)).softmax(1).cpu() for part in impressions.x.split(500)])
    rows = []
    for label in impressions.labels.unique():
        mine = impressions.labels == label
        x = impressions.x[mine].flatten(1)
        n, total = len(x), F.normalize(x).sum(0).square().sum().item()
        rows.append(
            {
                "class": int(label),
                "reached": (p[mine].argmax(1) == label).float().mean().item(),
                "confidence": p[mine, label].mean().item(),
                "norm": x.norm(dim=1).mean().item(),
                "infeasible": ((x < low) | (x > high)).float().mean().item(),
                "cosine": (total - n) / (n * (n - 1)) if n > 1 else 1.0,
            }
        )
    return pd.DataFrame(rows).set_index("class")


def follow_impression(
    model: nn.Module, label: int, layer: str = "input", *, recipe: str = "calibrated", steps: int | None = None
) -> tuple[pd.DataFrame, torch.Tensor]:
    """One impression's way from noise: confidence and norm at every step, and its states [steps + 1, *shape]."""
    states = []
    made = make_impressions(
        model,
        layer,
        samples=1,
        recipe=recipe,
        steps=steps,
        classes=[label],
        on_step=lambda step, x: states.append(x[0].clone()),
    )
    states = torch.stack(states)
    _, tail = split(model, made.layer)
    with torch.no_grad():
        p = torch.cat([tail(part).softmax(1)[:, label] for part in states.split(100)])
    growth = {"confidence": p.cpu().numpy(), "norm": states.flatten(1).norm(dim=1).cpu().numpy()}
    return pd.DataFrame(growth).rename_axis("step"), states.cpu()


def responsive_layers(
    model: nn.Module, *, tries: int = 10, share: float = 0.8, layers: list[str] | None = None, seed: int = 0
) -> pd.DataFrame:
    """Try `tries` impressions a class at every layer: responsive where at least `share` of them reach their class.

    Of more than ten classes, ten spread evenly are tried, with as many impressions each.
    One row a layer, in order: reached (share, argmax), responsive, learnable (the layer has weights), shape.
    """
    rows = {}
    with torch.no_grad():
        k = model.eval()(torch.zeros(1, *model.input_shape, device=next(model.parameters()).device)).shape[1]
    classes = {round(i * (k - 1) / 9) for i in range(10)} if k > 10 else range(k)
    for layer in layers or leaf_layers(model):
        impressions = make_impressions(model, layer, samples=tries, seed=seed, classes=classes)
        reached = diagnose(model, impressions)["reached"].mean()
        shape = "x".join(map(str, impressions.x.shape[1:]))
        rows[layer] = {"reached": reached, "responsive": reached >= share, "shape": shape}
        rows[layer]["learnable"] = _learnable(model, layer)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("layer")


def leaf_layers(model: nn.Module) -> list[str]:
    """Names of the modules without parts of their own at which `split` works, in order of execution."""
    return [name for name in splittable_layers(model) if not list(model.get_submodule(name).children())]


def _learnable(model: nn.Module, layer: str) -> bool:
    return layer != "input" and any(True for _ in model.get_submodule(layer).parameters())


def default_layer(model: nn.Module) -> str:
    """The last learnable responsive layer. Raises ValueError where the model responds nowhere."""
    for layer in reversed(leaf_layers(model)):
        if _learnable(model, layer) and responsive_layers(model, layers=[layer])["responsive"].item():
            return layer
    raise UserError(f"layer: none of {type(model).__name__} is responsive; train the model first")


def _numbers_per_sample(tail: nn.Module, shape: tuple[int, ...], device: torch.device) -> int:
    """How many float32 numbers are held at once for one sample: eight times its own size (the sample, its gradient,
    Adam's two moments, their copies), three times each activation (itself, its gradient, what the backward pass keeps).
    """
    total = 8 * torch.Size(shape).numel()

    def count(module, inputs, output):
        nonlocal total
        total += 3 * output.numel()

    leaves = [m for m in tail.modules() if not list(m.children())]
    hooks = [m.register_forward_hook(count) for m in leaves]
    with torch.no_grad():
        tail(torch.zeros(1, *shape, device=device))
    for hook in hooks:
        hook.remove()
    return total
