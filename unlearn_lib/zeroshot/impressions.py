"""Class impressions: inputs of a layer, optimised from noise until the model sees a class in them.

They stand in for the data that nobody has any more; the trained model is their only source.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from unlearn_lib.common import UserError, as_number, check_classes, get_device
from unlearn_lib.networks import (
    Feasible,
    check_network,
    feasible_inputs,
    find_head,
    input_shape_of,
    run_on_zeros,
    split,
    splittable_layers,
    takes_pixels,
    traced_once,
    unwrap,
)
from unlearn_lib.zeroshot.drawn import drawn_inputs
from unlearn_lib.zeroshot.heads import soft_targets
from unlearn_lib.zeroshot.recipes import RECIPES, STEPS, optimise


@dataclass(frozen=True)
class Impressions:
    """Impressions x [N, *shape] of classes `labels` [N] at the input of `layer`, sorted by class."""

    layer: str
    x: torch.Tensor
    labels: torch.Tensor
    recipe: str
    seconds: float


@traced_once()
def make_impressions(
    model: nn.Module,
    layer: str | None = None,
    *,
    samples: int = 100,
    recipe: str = "natural",
    steps: int | None = None,
    seed: int = 0,
    classes: Collection[int] | None = None,
    noise: float = 1.0,
    memory: int = 2**29,
    on_step: Callable[[int, torch.Tensor], None] | None = None,
) -> Impressions:
    """Make `samples` impressions of each class at the input of `layer` (`input`: pixels; None: see `default_layer`).

    natural: argmin_x CE(tail(x), y), y ambiguous as answers to pictures are, see `soft_targets`, x what can enter the
    layer (`feasible_inputs`); pixels are also smooth (total variation, jitter). Each starts from feasible noise of its
    own strength, up to `noise`; at a linear head from the best point along sum_k y_k w_k, which leaves few steps to do.
    calibrated: argmin_x CE(tail(x), c) + 2e-4 |x|^2, label smoothing 0.05, so that p_c ends near 0.95; otherwise alike.
    At a linear head the start is the closed form x0 + t (w_c - mean w).
    deepinversion: pixels; what enters each BatchNorm also comes near its statistics, see `deep_inversion`
    (Yin et al. 2020).
    published: 1,000 steps of Adam up one logit, without bound (Simonyan et al. 2013, Mopuri et al. 2018).
    drawn: what enters the layer for pictures drawn from the seed, see `drawn_inputs`; `samples` decides on how many.
    All classes x samples are optimised together, in chunks of about `memory` bytes besides the result; Adam works
    coordinate by coordinate, so that this gives what one-by-one optimisation gives. classes: indices, all by default.
    on_step: called with step and chunk, before the first (0) and after each.
    """
    layer = check_impressions(model, layer, samples, recipe, steps) or default_layer(model)
    samples, seed, begin = as_number("samples", samples), as_number("seed", seed), time.perf_counter()
    if recipe == "drawn":
        if classes is not None:
            raise UserError(f"classes: {classes} given; drawn pictures have the classes that the model gives them")
        drawn = drawn_inputs(model, layer, samples, seed, memory, on_step)
        return Impressions(layer, *drawn, recipe, time.perf_counter() - begin)
    steps = as_number("steps", STEPS[recipe] if steps is None else steps)
    (_, tail), device, shape = split(model, layer), get_device(model), input_shape_of(model, layer)
    feasible, k = feasible_inputs(model, layer), run_on_zeros(unwrap(model), model).shape[1]
    labels = torch.tensor(check_classes(range(k) if classes is None else classes, k)).repeat_interleave(samples)
    like = {"pixels": takes_pixels(model, layer)}
    x = _start(len(labels), shape, recipe, feasible, seed, noise * (0.2 if like["pixels"] else 1))
    draws, rows = tuple(torch.Generator().manual_seed(seed + i) for i in (2, 3)), _head_rows(model, k)
    chunk = max(1, memory // (4 * _numbers_per_sample(tail, shape, device)))
    mixed = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = mixed if recipe == "deepinversion" else torch.arange(len(labels))  # its chunks each hold all classes
    for part in order.split(chunk):
        start, goal = x[part].to(device), labels[part].to(device)
        if recipe == "natural":
            like["targets"] = soft_targets(rows, labels[part], draws).to(device)
        x[part] = optimise(recipe, tail, start, goal, steps, feasible, follow=on_step, **like).cpu()
    return Impressions(layer, x, labels, recipe, time.perf_counter() - begin)


def _start(n: int, shape: tuple[int, ...], recipe: str, feasible: Feasible, seed: int, noise: float) -> torch.Tensor:
    """The noise [n, *shape] that a recipe starts from; natural ones of every strength up to `noise`."""
    x = torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))
    if recipe == "natural":  # faint ones are all signal, the hardest to unlearn
        strength = torch.rand(n, *[1] * len(shape), generator=torch.Generator().manual_seed(seed + 1))
        return feasible.project(feasible.project(x).mul_(noise * strength))
    # the others faint and sparse, as after a ReLU; pixels fainter still
    return x if recipe == "published" else feasible.project(feasible.project(x).mul_(0.7 if noise == 1 else 0.1))


def check_impressions(model: nn.Module, layer: str | None, samples: int, recipe: str, steps: int | None) -> str | None:
    """Raise ValueError for what `make_impressions` does not accept; returns the layer."""
    if recipe not in (*RECIPES, "drawn"):
        raise UserError(f"recipe: {recipe!r} given; {' or '.join(RECIPES)} or drawn is accepted")
    if as_number("samples", samples) < 1 or (steps is not None and as_number("steps", steps) < 0):
        raise UserError(f"samples, steps: {samples}, {steps} given; at least 1 and 0 are accepted")
    check_network(model, type(model).__name__)
    if layer is not None:
        split(model, layer := str(layer))
    norms = any(isinstance(m, nn.BatchNorm2d) and m.track_running_stats for m in model.modules())
    if recipe == "deepinversion" and not (norms and layer is not None and takes_pixels(model, layer)):
        raise UserError(
            f"recipe: deepinversion given, at layer {layer} of {type(model).__name__}; it is for the pixels (input) of "
            "networks with BatchNorm2d"
        )
    return layer


@torch.no_grad()
def diagnose(model: nn.Module, impressions: Impressions) -> pd.DataFrame:
    """Per class, what impressions are like for the network, whether made or, in an evaluation, real inputs of a layer.

    reached: share whose argmax is the class; confidence: mean p_c; entropy: mean -sum p log p, in nats; margin: mean of
    the class's logit over the next; norm: mean |x|; spread: its standard deviation over its mean; infeasible: share of
    coordinates that cannot enter the layer; cosine: mean over pairs of one class (1 means one point).
    """
    (_, tail), feasible = split(model, impressions.layer), feasible_inputs(model, impressions.layer)
    device, labels = get_device(model), impressions.labels
    z = torch.cat([tail(part.to(device)).float().cpu() for part in impressions.x.split(500)])
    log_p = z.log_softmax(1)
    entropy, reached = -(log_p.exp() * log_p).sum(1), z.argmax(1) == labels
    logit = z.gather(1, labels[:, None])[:, 0]
    margin = logit - z.scatter(1, labels[:, None], -torch.inf).amax(1)
    rows = {}
    for label in labels.unique():
        chosen = labels == label
        outside = feasible.is_infeasible(impressions.x[chosen].float())
        x = impressions.x[chosen].flatten(1).float()
        n, norms, total = len(x), x.norm(dim=1), F.normalize(x).sum(0).square().sum().item()
        rows[int(label)] = {
            "reached": reached[chosen].float().mean().item(),
            "confidence": log_p[chosen, label].exp().mean().item(),
            "entropy": entropy[chosen].mean().item(),
            "margin": margin[chosen].mean().item(),
            "norm": norms.mean().item(),
            "spread": (norms.std(correction=0) / norms.mean()).item(),
            "infeasible": outside.float().mean().item(),
            "cosine": (total - n) / (n * (n - 1)) if n > 1 else 1.0,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("class")


@traced_once()
def follow_impression(
    model: nn.Module, label: int, layer: str = "input", *, recipe: str = "natural", steps: int | None = None
) -> tuple[pd.DataFrame, torch.Tensor]:
    """One impression's way from noise: confidence and norm at every step, and its states [steps + 1, *shape]."""
    states = []
    numbers = {"samples": 1, "recipe": recipe, "steps": steps, "classes": [label]}
    made = make_impressions(model, layer, **numbers, on_step=lambda step, x: states.append(x[0].clone()))
    states = torch.stack(states)
    with torch.no_grad():
        _, tail = split(model, made.layer)
        p = torch.cat([tail(part).softmax(1)[:, label] for part in states.split(100)])
    growth = {"confidence": p.cpu().numpy(), "norm": states.flatten(1).norm(dim=1).cpu().numpy()}
    return pd.DataFrame(growth).rename_axis("step"), states.cpu()


@traced_once()
def responsive_layers(
    model: nn.Module, *, tries: int = 10, share: float = 0.8, layers: list[str] | None = None, seed: int = 0
) -> pd.DataFrame:
    """Try `tries` impressions a class at every layer: responsive where at least `share` of them reach their class.

    Of more than ten classes, ten spread evenly are tried, with as many impressions each.
    One row a layer, in order: reached (share, argmax), responsive, learnable (the layer has weights), shape.
    """
    rows, k = {}, run_on_zeros(model.eval(), model).shape[1]
    classes = {round(i * (k - 1) / 9) for i in range(10)} if k > 10 else range(k)
    for layer in layers or leaf_layers(model):
        impressions = make_impressions(model, layer, samples=tries, recipe="calibrated", seed=seed, classes=classes)
        reached = diagnose(model, impressions)["reached"].mean()
        shape = "x".join(map(str, impressions.x.shape[1:]))
        rows[layer] = {"reached": reached, "responsive": reached >= share, "shape": shape}
        rows[layer]["learnable"] = _learnable(model, layer)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("layer")


def leaf_layers(model: nn.Module) -> list[str]:
    """Names of the modules without parts of their own at which `split` works, in order of execution.

    What makes a layer's weight from others (weight_norm) is no part: the layer is a leaf, and that is none.
    """
    names = [name for name in splittable_layers(model) if "parametrizations" not in name.split(".")]
    return [name for name in names if {*dict(model.get_submodule(name).named_children())} <= {"parametrizations"}]


def _learnable(model: nn.Module, layer: str) -> bool:
    return layer != "input" and any(True for _ in model.get_submodule(layer).parameters())


def default_layer(model: nn.Module) -> str:
    """The last learnable responsive layer from which on there is a matrix to learn, and not a scale alone.

    Raises UserError where there is none.
    """
    for layer in reversed(leaf_layers(model)):
        if not _learnable(model, layer) or all(p.dim() < 2 for p in split(model, layer)[1].parameters()):
            continue
        if responsive_layers(model, layers=[layer])["responsive"].item():
            return layer
    raise UserError(f"layer: none of {type(model).__name__} is responsive; train the model first")


def _head_rows(model: nn.Module, k: int) -> torch.Tensor:
    """The head's weight, whose rows say which classes are alike; where there is none, rows that are all unlike."""
    try:
        return model.get_submodule(find_head(model)).weight.detach().float()
    except UserError:
        return torch.eye(k)


def _numbers_per_sample(tail: nn.Module, shape: tuple[int, ...], device: torch.device) -> int:
    """How many float32 numbers one sample holds: eight times its own size (itself, its gradient, Adam's two moments,
    their copies), three times each activation (itself, its gradient, what the backward pass keeps)."""
    total = 8 * torch.Size(shape).numel()

    def count(module, inputs, output):
        nonlocal total
        total += 3 * output[0].numel() if isinstance(output, torch.Tensor) else 0  # of the first of two samples

    leaves = [m for m in tail.modules() if not list(m.children())]
    hooks = [m.register_forward_hook(count) for m in leaves]
    with torch.no_grad():
        tail(torch.zeros(2, *shape, device=device))
    for hook in hooks:
        hook.remove()
    return total
