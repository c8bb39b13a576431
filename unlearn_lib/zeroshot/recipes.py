"""Recipes: how a batch of class impressions is optimised, from noise, through the tail of a network.

Nothing here takes pictures, loaders or statistics of real data; BatchNorm's running statistics are part of a model.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from torch.nn import functional as F

from unlearn_lib.common import device_of, fast_arithmetic
from unlearn_lib.networks import Feasible
from unlearn_lib.zeroshot.heads import linear_of, start_at_head

RECIPE_VERSION = 3  # goes up when a recipe gives other bits
RECIPES = ("natural", "calibrated", "published", "deepinversion")
SMOOTHING = 0.05  # of the labels of calibrated impressions
STEPS = {"natural": 100, "calibrated": 100, "published": 1000, "deepinversion": 200}
STATISTICS = 25.0  # weight of the relative distance to BatchNorm's running statistics

Follow = Callable[[int, torch.Tensor], None] | None


def calibrate(
    tail: nn.Module,
    x: torch.Tensor,
    labels: torch.Tensor,
    steps: int,
    feasible: Feasible,
    *,
    targets: torch.Tensor | None = None,
    pixels: bool = False,
    statistics: bool = False,
    follow: Follow = None,
) -> torch.Tensor:
    """argmin_x CE(tail(x), c) + 2e-4 |x|^2, smoothed labels, within what is `feasible`, by Adam from x [N, *shape].

    targets [N, K]: argmin_x CE(tail(x), targets) instead, without the norm's term (natural impressions).
    pixels: + total variation, and the picture moved by up to two pixels in each step. statistics: also
    + STATISTICS x `statistics_distance` (DeepInversion). At a linear head see `start_at_head`.
    """
    head, lr, roughness, arithmetic = linear_of(tail), 0.05, 2e-3, nullcontext()
    goal, smoothing, shrink = (labels, SMOOTHING, 2e-4) if targets is None else (targets, 0.0, 0.0)
    if head is not None:
        x, most, lr = start_at_head(head, x, labels, targets, feasible)
        steps = min(steps, most)
    if statistics:
        lr, roughness, arithmetic = 0.1, 1e-2, fast_arithmetic(x.device)
    optimiser, generator = torch.optim.Adam([x.requires_grad_(True)], lr=lr), torch.Generator().manual_seed(0)
    follow = follow or (lambda step, x: None)
    follow(0, feasible.outer(x.detach()))
    with watched_statistics(tail) if statistics else nullcontext([]) as distances:
        for step in range(steps):
            shown = x
            if pixels:
                shown = x.roll(tuple(torch.randint(-2, 3, (2,), generator=generator).tolist()), (2, 3))
            with arithmetic:
                logits = tail(feasible.outer(shown)).float()
            loss = F.cross_entropy(logits, goal, label_smoothing=smoothing, reduction="sum")
            loss = loss + shrink * x.square().sum()
            if pixels:
                loss = loss + roughness * (x.diff(dim=2).abs().sum() + x.diff(dim=3).abs().sum())
            if statistics:
                loss = loss + STATISTICS * len(x) * torch.stack(distances).sum()
                distances.clear()
                optimiser.param_groups[0]["lr"] = lr * (1 - step / steps)  # at a norm's kink constant steps jump on
            (x.grad,) = torch.autograd.grad(loss, x)
            optimiser.step()
            with torch.no_grad():
                feasible.pull(x)
            follow(step + 1, feasible.outer(x.detach()))
    return feasible.outer(x.detach())


def publish(
    tail: nn.Module, x: torch.Tensor, labels: torch.Tensor, steps: int, *, follow: Follow = None
) -> torch.Tensor:
    """argmax_x z_c(x) by Adam from x [N, *shape], without bound (Simonyan et al. 2013, Mopuri et al. 2018)."""
    x.requires_grad_(True)
    optimiser = torch.optim.Adam([x], lr=0.1)
    if follow:
        follow(0, x.detach())
    for step in range(steps):
        (x.grad,) = torch.autograd.grad(-tail(x).gather(1, labels[:, None]).sum(), x)
        optimiser.step()
        if follow:
            follow(step + 1, x.detach())
    return x.detach()


@torch.no_grad()
def statistics_distance(model: nn.Module, x: torch.Tensor) -> float:
    """sum_l (|mu - mu_l| + |s2 - s2_l|) / sum_l (|mu_l| + |s2_l|) over a network's BatchNorm layers l.

    mu, s2: mean and variance, by channel, of what enters l for the batch x [N, C, H, W]; mu_l, s2_l: the running ones.
    The numerator is DeepInversion's (Yin et al. 2020, eq. 4); the share makes networks of any depth comparable.
    """
    with watched_statistics(model) as distances:
        model.eval()(x.to(device_of(model)))
    return float(sum(distances))


@contextmanager
def watched_statistics(net: nn.Module) -> Iterator[list[torch.Tensor]]:
    """A list to which every pass through `net` adds the terms of `statistics_distance`, one a BatchNorm."""
    distances, norms = [], [m for m in net.modules() if isinstance(m, nn.BatchNorm2d) and m.track_running_stats]
    total = sum(m.running_mean.norm() + m.running_var.norm() for m in norms)

    def compare(module, inputs):
        x = inputs[0].float()
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        distances.append(((mean - module.running_mean).norm() + (variance - module.running_var).norm()) / total)

    hooks = [m.register_forward_pre_hook(compare) for m in norms]
    try:
        yield distances
    finally:
        for hook in hooks:
            hook.remove()
