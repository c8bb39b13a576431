"""Recipes: how a batch of class impressions is optimised, from noise, through the tail of a network."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from unlearn_lib.common import UserError, fast_arithmetic, get_device
from unlearn_lib.networks import Feasible
from unlearn_lib.zeroshot.batches import OnStep, in_eval_mode
from unlearn_lib.zeroshot.heads import along_targets, closed_form, find_linear_tail

RECIPE_VERSION = 6  # goes up when a recipe, or a method on its impressions, gives other bits
SMOOTHING = 0.05  # of the labels of calibrated impressions
SHRINK = 2e-4  # weight of the squared norm of calibrated impressions
STATISTICS = 6.0  # weight of the distance to BatchNorm's statistics
ROUGHNESS = 0.05  # weight of the total variation of deepinversion
LEVELS = 6  # pictures of different size whose sum deepinversion learns
MANY = 100  # classes, above which a step at the head is expensive
UNBOUNDED = Feasible((-torch.inf, torch.inf))


@dataclass(frozen=True)
class Task:
    """What a recipe works on: the tail from the layer on, what can enter it, and how long.

    Recipes optimise u, which is the layer's input x but on the surface of a norm, see `Feasible`.
    """

    tail: fx.GraphModule
    feasible: Feasible
    is_pixels: bool
    steps: int
    on_step: OnStep


def optimise_natural(task: Task, u: Tensor, targets: Tensor) -> Tensor:
    """argmin_x CE(tail(x), targets) for soft targets [N, K]; at a linear head from `along_targets`, in few steps."""
    head = find_linear_tail(task.tail)
    steps = task.steps
    if head is not None:
        u = along_targets(head, u, targets, task.feasible)
        steps = min(steps, 5 if head.out_features > MANY else 10)
    return descend(cross_entropy_loss(task, targets), u, 0.05, steps, task.feasible, task.on_step)


def optimise_calibrated(task: Task, u: Tensor, labels: Tensor) -> Tensor:
    """argmin_x CE(tail(x), c) + 2e-4 |x|^2 with smoothed labels; at a linear head from `closed_form`, in few steps."""
    head = find_linear_tail(task.tail)
    steps = task.steps
    lr = 0.05
    if head is not None:
        u = closed_form(head, u, labels, task.feasible)
        most, lr = (3, 0.02) if head.out_features > MANY else (10, 0.05)
        steps = min(steps, most)
    loss = cross_entropy_loss(task, labels, SMOOTHING, SHRINK)
    return descend(loss, u, lr, steps, task.feasible, task.on_step)


def optimise_published(task: Task, x: Tensor, labels: Tensor) -> Tensor:
    """argmax_x z_c(x), without bound (Simonyan et al. 2013, Mopuri et al. 2018)."""

    def loss(x: Tensor) -> Tensor:
        return -task.tail(x).gather(1, labels[:, None]).sum()

    return descend(loss, x, 0.1, task.steps, UNBOUNDED, task.on_step)


def cross_entropy_loss(
    task: Task, goal: Tensor, smoothing: float = 0.0, shrink: float = 0.0
) -> Callable[[Tensor], Tensor]:
    """Return the loss CE(tail(x), goal) + shrink |u|^2 of u, for classes [N] or targets [N, K].

    At pixels the total variation is added, and the picture moves by up to two pixels in each step (jitter).
    """
    generator = torch.Generator().manual_seed(0)

    def loss(u: Tensor) -> Tensor:
        moved = u
        if task.is_pixels:
            moves = torch.randint(-2, 3, (2,), generator=generator)
            moved = u.roll(moves.tolist(), (2, 3))
        z = task.tail(task.feasible.to_inputs(moved))
        total = F.cross_entropy(z, goal, label_smoothing=smoothing, reduction="sum") + shrink * u.square().sum()
        if task.is_pixels:
            total = total + 2e-3 * (u.diff(dim=2).abs().sum() + u.diff(dim=3).abs().sum())
        return total

    return loss


def descend(
    loss: Callable[[Tensor], Tensor], u: Tensor, lr: float, steps: int, feasible: Feasible, on_step: OnStep
) -> Tensor:
    """Minimise loss(u) by Adam, with a projection to what is feasible after each step; return the layer's inputs."""
    u.requires_grad_(True)
    optimiser = torch.optim.Adam([u], lr=lr)
    on_step(0, feasible.to_inputs(u.detach()))
    for step in range(steps):
        (u.grad,) = torch.autograd.grad(loss(u), u)
        optimiser.step()
        feasible.project(u.detach())
        on_step(step + 1, feasible.to_inputs(u.detach()))
    return feasible.to_inputs(u.detach())


def optimise_deepinversion(task: Task, x: Tensor, labels: Tensor) -> Tensor:
    """argmin_x CE(net(x), c) + STATISTICS x distance + ROUGHNESS x total variation (DeepInversion, Yin et al. 2020).

    distance: of the inputs of each BatchNorm to its running mean and variance, relative, mean over the layers.
    Learned is a sum of six pictures, each half as wide as the one before it and enlarged, which is added to x
    [N, C, H, W]. Pictures of up to ten pixels learn at 0.06 and wider ones more slowly, so that shapes come before
    grain (Adam on the pixels alone draws grain). The picture moves by up to a twelfth in each step (jitter).
    """
    height, width = x.shape[2:]
    sizes = [(max(2, height >> k), max(2, width >> k)) for k in range(LEVELS)]
    levels = [torch.zeros(*x.shape[:2], *size, device=x.device, requires_grad=True) for size in sizes]
    groups = [{"params": [level], "lr": 0.06 * min(1, 10 / level.shape[3])} for level in levels]
    optimiser = torch.optim.Adam(groups, betas=(0.5, 0.9))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, task.steps))
    generator = torch.Generator().manual_seed(0)
    farthest = max(2, height // 12)

    def paint() -> Tensor:
        whole = x + sum(F.interpolate(level, (height, width), mode="bilinear") for level in levels)
        return whole + (whole.clamp(*task.feasible.bounds) - whole).detach()  # straight-through clamp

    task.on_step(0, x)
    with batchnorm_distances(task.tail) as distances:
        for step in range(task.steps):
            picture = paint()
            moves = torch.randint(-farthest, farthest + 1, (2,), generator=generator)
            with fast_arithmetic(x.device):
                z = task.tail(picture.roll(moves.tolist(), (2, 3))).float()
            distance = torch.stack([off / norm for off, norm in distances]).mean()
            rough = sum(picture.diff(dim=d).flatten(1).square().sum(1).add(1e-8).sqrt().mean() for d in (2, 3))
            loss = F.cross_entropy(z, labels) + STATISTICS * distance + ROUGHNESS * rough
            distances.clear()
            optimiser.zero_grad()
            loss.backward(inputs=levels)
            optimiser.step()
            schedule.step()
            task.on_step(step + 1, paint().detach())
    return paint().detach()


@contextmanager
def batchnorm_distances(net: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collect the two terms of `statistics_distance`, for each pass and each BatchNorm."""
    distances = []

    def compare(norm: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        x = inputs[0].float()
        off = (x.mean((0, 2, 3)) - norm.running_mean).norm()
        off = off + (x.var((0, 2, 3), correction=0) - norm.running_var).norm()
        distances.append((off, norm.running_mean.norm() + norm.running_var.norm()))

    hooks = [norm.register_forward_pre_hook(compare) for norm in find_norms(net)]
    try:
        yield distances
    finally:
        for hook in hooks:
            hook.remove()


def find_norms(net: nn.Module) -> list[nn.BatchNorm2d]:
    """Return the BatchNorm2d layers that keep running statistics."""
    return [part for part in net.modules() if isinstance(part, nn.BatchNorm2d) and part.track_running_stats]


@in_eval_mode
@torch.no_grad()
def statistics_distance(model: nn.Module, x: Tensor) -> float:
    """Return sum_l (|mu - mu_l| + |s2 - s2_l|) / sum_l (|mu_l| + |s2_l|) over a network's BatchNorm layers l.

    mu, s2: mean and variance, by channel, of the layer's inputs for the batch x [N, C, H, W]. mu_l, s2_l: the running
    ones. The numerator is that of DeepInversion (Yin et al. 2020, eq. 4). The ratio makes networks of any depth
    comparable.

    Raises:
        UserError: the network has no BatchNorm2d with running statistics.
    """
    if not find_norms(model):
        raise UserError(f"model: got {type(model).__name__}; expected a network with BatchNorm2d and its statistics")
    with batchnorm_distances(model) as distances:
        model(x.to(get_device(model)))
    return float(sum(off for off, _ in distances) / sum(norm for _, norm in distances))


@dataclass(frozen=True)
class Recipe:
    """A way to make impressions.

    Attributes:
        optimise: gets (task, start, goal) and returns the layer's inputs. None: `drawn_inputs`, without optimisation.
        steps: the default number of steps.
        is_ambiguous: the goal is `soft_targets` [N, K] in place of the classes [N]; starts have all strengths.
        is_feasible: impressions stay within what can enter the layer.
        needs_norms: works at the pixels of networks with BatchNorm alone; each chunk holds all classes.
    """

    optimise: Callable[[Task, Tensor, Tensor], Tensor] | None
    steps: int | None
    is_ambiguous: bool = False
    is_feasible: bool = True
    needs_norms: bool = False


RECIPES = {
    "natural": Recipe(optimise_natural, 100, is_ambiguous=True),
    "calibrated": Recipe(optimise_calibrated, 100),
    "published": Recipe(optimise_published, 1000, is_feasible=False),
    "deepinversion": Recipe(optimise_deepinversion, 200, needs_norms=True),
    "drawn": Recipe(None, None),
}
