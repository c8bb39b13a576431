"""Class impressions: inputs of a layer, optimised from noise until the model sees a class in them.

They replace the data that nobody has any more; the trained model is their only source.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from unlearn_lib.common import UserError, check_classes, check_number, check_seed, get_device
from unlearn_lib.networks import (
    check_network,
    feasible_inputs,
    input_shape_of,
    split,
    splittable_layers,
    takes_pixels,
    traced_once,
)
from unlearn_lib.zeroshot.batches import BATCH, OnStep, count_classes, draw_for_each, in_eval_mode
from unlearn_lib.zeroshot.drawn import drawn_inputs
from unlearn_lib.zeroshot.heads import find_class_rows, soft_targets
from unlearn_lib.zeroshot.recipes import RECIPES, Recipe, Task, find_norms


@dataclass(frozen=True)
class Impressions:
    """Impressions x [N, *shape] of classes `labels` [N] at the input of `layer`, sorted by class.

    Example:
        >>> impressions = make_impressions(model)
    """

    layer: str
    x: Tensor
    labels: Tensor
    recipe: str
    seconds: float


@in_eval_mode
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
    on_step: OnStep | None = None,
) -> Impressions:
    """Make impressions of each class at the input of a layer.

    Recipes, for classes c and the layers from `layer` on as the network `tail`:

    - natural: argmin_x CE(tail(x), y), with y as ambiguous as answers to pictures (`soft_targets`) and x among the
      inputs that can occur (`feasible_inputs`). Pixels are also smooth (total variation, jitter). Each starts from
      feasible noise of its own strength, up to `noise`; at a linear head from the best point along sum_k y_k w_k.
    - calibrated: argmin_x CE(tail(x), c) + 2e-4 |x|^2 with label smoothing 0.05, so that p_c ends near 0.95; the rest
      as in natural. At a linear head it starts from the closed form x0 + t (w_c - mean w).
    - deepinversion: pixels whose activations come near BatchNorm's statistics, see `optimise_deepinversion`
      (Yin et al. 2020).
    - published: 1,000 steps of Adam that raise one logit, without bound (Simonyan et al. 2013, Mopuri et al. 2018).
    - drawn: the layer's inputs for pictures drawn from the seed, see `drawn_inputs`.

    All impressions are optimised together, in chunks. Adam works coordinate by coordinate, so that this equals
    optimising them one by one.

    Args:
        layer: None means `default_layer`; "input" means pixels.
        samples: how many per class; for drawn pictures a measure of how many in all.
        steps: None means the recipe's own.
        classes: indices; None means all.
        noise: the greatest strength of the noise at the start.
        memory: bytes that a chunk may take, besides the result.
        on_step: gets the step and the chunk's inputs, before the first step (0) and after each.

    Raises:
        UserError: names the first argument that is not accepted.

    Example:
        >>> make_impressions(LeNet5(), "fc3", samples=5).x.shape
        torch.Size([50, 84])
    """
    samples = check_number("samples", samples, whole=True, least=1)
    steps = None if steps is None else check_number("steps", steps, whole=True, least=0)
    seed = check_seed(seed)
    noise = check_number("noise", noise, least=0)
    memory = check_number("memory", memory, whole=True, least=1)
    check_network(model, type(model).__name__)
    check_recipe(model, layer, recipe)
    if classes is not None and recipe == "drawn":
        raise UserError(f"classes: got {classes}; expected None, since the model chooses the classes of drawn pictures")
    classes = None if classes is None else check_classes(classes, count_classes(model))
    layer = default_layer(model) if layer is None else str(layer)
    return optimise_impressions(model, layer, samples, recipe, steps, seed, classes, noise, memory, on_step)


def check_recipe(model: nn.Module, layer: str | None, recipe: str) -> None:
    """Check that a recipe works at a layer of this network; the network need not be trained.

    Raises:
        UserError: names the layer or the recipe that is not accepted.
    """
    if recipe not in RECIPES:
        raise UserError(f"recipe: got {recipe!r}; expected {', '.join(RECIPES)}")
    if layer is not None:
        split(model, layer)
    if RECIPES[recipe].needs_norms and (layer is None or not takes_pixels(model, layer) or not find_norms(model)):
        raise UserError(
            f"recipe: got {recipe} at layer {layer} of {type(model).__name__}; expected the layer 'input' of a network "
            "with BatchNorm2d"
        )


@in_eval_mode
@traced_once()
def optimise_impressions(
    model: nn.Module,
    layer: str,
    samples: int,
    recipe: str,
    steps: int | None = None,
    seed: int = 0,
    classes: Collection[int] | None = None,
    noise: float = 1.0,
    memory: int = 2**29,
    on_step: OnStep | None = None,
) -> Impressions:
    """Do the work of `make_impressions`, for arguments that are already checked."""
    begin = time.perf_counter()
    on_step = on_step or (lambda step, x: None)
    chosen = RECIPES[recipe]
    if chosen.optimise is None:
        x, labels = drawn_inputs(model, layer, samples, seed, memory, on_step)
    else:
        _, tail = split(model, layer)
        steps = chosen.steps if steps is None else steps
        task = Task(tail, feasible_inputs(model, layer), takes_pixels(model, layer), steps, on_step)
        classes = range(count_classes(model)) if classes is None else classes
        labels = torch.tensor([*classes]).repeat_interleave(samples)
        x = draw_start(chosen, task, (len(labels), *input_shape_of(model, layer)), seed, noise)
        _optimise_in_chunks(model, chosen, task, x, labels, seed, memory)
    return Impressions(layer, x, labels, recipe, time.perf_counter() - begin)


def draw_start(recipe: Recipe, task: Task, shape: tuple[int, ...], seed: int, noise: float) -> Tensor:
    """Draw the noise [N, *shape] that a recipe starts from, up to the strength `noise`."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if not recipe.is_feasible:
        return x
    noise = noise * (0.2 if task.is_pixels else 1)
    strength = 0.7 if noise == 1 else 0.1
    if recipe.is_ambiguous:  # a faint start is all signal, the hardest to unlearn
        strength = noise * draw_for_each(x, torch.Generator().manual_seed(seed + 1))
    return task.feasible.project(task.feasible.project(x).mul_(strength))


def _optimise_in_chunks(
    model: nn.Module, recipe: Recipe, task: Task, x: Tensor, labels: Tensor, seed: int, memory: int
) -> None:
    """Turn the starts x into impressions of the labels, in place, in chunks of about `memory` bytes."""
    device = get_device(model)
    order = torch.arange(len(labels))
    if recipe.needs_norms:  # the statistics of a chunk are those of all classes
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    draws = tuple(torch.Generator().manual_seed(seed + i) for i in (2, 3))
    chunk = max(1, memory // (4 * count_numbers_per_sample(task.tail, x.shape[1:], device)))
    for part in order.split(chunk):
        goal = labels[part]
        if recipe.is_ambiguous:
            goal = soft_targets(find_class_rows(model), goal, draws)
        x[part] = recipe.optimise(task, x[part].to(device), goal.to(device)).cpu()


def count_numbers_per_sample(tail: nn.Module, shape: torch.Size, device: torch.device) -> int:
    """Count the float32 numbers that one sample takes in memory while it is optimised.

    Eight times its own size (itself, its gradient, Adam's two moments, their copies), and three times each activation
    (itself, its gradient, what the backward pass keeps).
    """
    sizes = []

    def record_size(module, inputs, output) -> None:
        if isinstance(output, Tensor):
            sizes.append(output[0].numel())  # of the first of two samples

    hooks = [part.register_forward_hook(record_size) for part in tail.modules() if not list(part.children())]
    with torch.no_grad():
        tail(torch.zeros(2, *shape, device=device))
    for hook in hooks:
        hook.remove()
    return 8 * shape.numel() + 3 * sum(sizes)


@in_eval_mode
@torch.no_grad()
def diagnose(model: nn.Module, impressions: Impressions) -> pd.DataFrame:
    """Describe impressions, or in an evaluation real inputs of a layer, as the network sees them.

    Returns:
        One row a class. reached: share whose argmax is the class. confidence: mean p_c. entropy: mean -sum p log p, in
        nats. margin: mean of the class's logit minus the largest other one. norm: mean |x|. spread: standard deviation
        of |x| over its mean. infeasible: share of coordinates that cannot enter the layer. cosine: mean over pairs of
        one class (1 means one point).

    Example:
        >>> diagnose(model, make_impressions(model))["confidence"].mean()
    """
    feasible = feasible_inputs(model, impressions.layer)
    device = get_device(model)
    labels = impressions.labels
    _, tail = split(model, impressions.layer)
    z = torch.cat([tail(batch.to(device)).float().cpu() for batch in impressions.x.split(BATCH)])
    log_p = z.log_softmax(1)
    entropy = -(log_p.exp() * log_p).sum(1)
    rows = {}
    for label in labels.unique():
        chosen = labels == label
        x = impressions.x[chosen].float()
        flat = x.flatten(1)
        norms = flat.norm(dim=1)
        seen = {
            "reached": (z[chosen].argmax(1) == label).float(),
            "confidence": log_p[chosen, label].exp(),
            "entropy": entropy[chosen],
            "margin": z[chosen, label] - z[chosen].index_fill(1, label, -torch.inf).amax(1),
            "norm": norms,
            "spread": norms.std(correction=0) / norms.mean(),
            "infeasible": feasible.is_infeasible(x).float(),
        }
        n = len(x)
        total = F.normalize(flat).sum(0).square().sum().item()  # of the cosines of all pairs, n of them with itself
        cosine = (total - n) / (n * (n - 1)) if n > 1 else 1.0
        rows[int(label)] = {name: values.mean().item() for name, values in seen.items()} | {"cosine": cosine}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("class")


@in_eval_mode
@traced_once()
def follow_impression(
    model: nn.Module, label: int, layer: str = "input", *, recipe: str = "natural", steps: int | None = None
) -> tuple[pd.DataFrame, Tensor]:
    """Follow one impression from noise.

    Returns:
        Its confidence and norm at every step, and its states [steps + 1, *shape].
    """
    states = []

    def keep_state(step: int, x: Tensor) -> None:
        states.append(x[0].clone())

    make_impressions(model, layer, samples=1, recipe=recipe, steps=steps, classes=[label], on_step=keep_state)
    states = torch.stack(states)
    _, tail = split(model, layer)
    with torch.no_grad():
        p = torch.cat([tail(part).softmax(1)[:, label] for part in states.split(100)])
    growth = {"confidence": p.cpu().numpy(), "norm": states.flatten(1).norm(dim=1).cpu().numpy()}
    return pd.DataFrame(growth).rename_axis("step"), states.cpu()


@in_eval_mode
@traced_once()
def responsive_layers(
    model: nn.Module, *, tries: int = 10, share: float = 0.8, layers: list[str] | None = None, seed: int = 0
) -> pd.DataFrame:
    """Find the layers that respond: where at least `share` of the impressions made there reach their class.

    Args:
        tries: impressions per class. Of more than ten classes, ten spread evenly are tried.
        layers: None means all of `leaf_layers`.

    Returns:
        One row a layer, in order: reached (share), responsive, shape, learnable (whether the layer has weights).

    Example:
        >>> responsive_layers(model, layers=["fc3"])["reached"]
    """
    k = count_classes(model)
    classes = {round(i * (k - 1) / 9) for i in range(10)} if k > 10 else range(k)
    rows = {}
    for layer in leaf_layers(model) if layers is None else map(str, layers):
        impressions = make_impressions(model, layer, samples=tries, recipe="calibrated", seed=seed, classes=classes)
        reached = diagnose(model, impressions)["reached"].mean()
        rows[layer] = {
            "reached": reached,
            "responsive": reached >= share,
            "shape": "x".join(map(str, impressions.x.shape[1:])),
            "learnable": is_learnable(model, layer),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("layer")


def leaf_layers(model: nn.Module) -> list[str]:
    """Return the layers without children at which `split` works, in order of execution.

    Parametrizations (weight_norm) do not count as children, nor as layers.
    """
    names = [name for name in splittable_layers(model) if "parametrizations" not in name.split(".")]
    return [name for name in names if {*dict(model.get_submodule(name).named_children())} <= {"parametrizations"}]


def is_learnable(model: nn.Module, layer: str) -> bool:
    """Return whether a layer has weights of its own; pixels have none."""
    return layer != "input" and bool(list(model.get_submodule(layer).parameters()))


@in_eval_mode
def default_layer(model: nn.Module) -> str:
    """Return the last learnable, responsive layer whose tail has a matrix to learn, and not a scale alone.

    Raises:
        UserError: there is no such layer.
    """
    for layer in reversed(leaf_layers(model)):
        has_matrix = any(p.dim() > 1 for p in split(model, layer)[1].parameters())
        if has_matrix and is_learnable(model, layer) and responsive_layers(model, layers=[layer])["responsive"].item():
            return layer
    raise UserError(f"layer: no layer of {type(model).__name__} is responsive; train the model first")
