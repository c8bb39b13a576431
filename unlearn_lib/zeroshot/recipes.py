"""Recipes: how a batch of class impressions is optimised, from noise, through the tail of a network."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F

from unlearn_lib.common import UserError, fast_arithmetic, get_device
from unlearn_lib.networks import Feasible
from unlearn_lib.zeroshot.heads import find_linear_tail, start_at_head

RECIPE_VERSION = 6  # goes up when a recipe, or a method on its impressions, gives other bits
RECIPES = ("natural", "calibrated", "published", "deepinversion")
SMOOTHING = 0.05  # of the labels of calibrated impressions
STEPS = {"natural": 100, "calibrated": 100, "published": 1000, "deepinversion": 200}
STATISTICS, ROUGHNESS = 6.0, 0.05  # weights of the distance to BatchNorm's statistics, of total variation

Follow = Callable[[int, torch.Tensor], None]


def optimise(
    recipe: str,
    tail: nn.Module,
    x: torch.Tensor,
    labels: torch.Tensor,
    steps: int,
    feasible: Feasible,
    follow: Follow | None = None,
    **like,
) -> torch.Tensor:
    """x [N, *shape] made impressions of `labels` by a recipe; `like` goes to `optimise_calibrated`."""
    follow = follow or (lambda step, x: None)
    if recipe == "published":
        return ascend_logit(tail, x, labels, steps, follow)
    if recipe == "deepinversion":
        return deep_inversion(tail, x, labels, steps, follow, feasible.bounds)
    return optimise_calibrated(tail, x, labels, steps, follow, feasible, **like)


def optimise_calibrated(
    tail: nn.Module,
    x: torch.Tensor,
    labels: torch.Tensor,
    steps: int,
    follow: Follow,
    feasible: Feasible,
    *,
    targets: torch.Tensor | None = None,
    pixels: bool = False,
) -> torch.Tensor:
    """argmin_x CE(tail(x), c) + 2e-4 |x|^2, smoothed labels, within what is `feasible`, by Adam from x [N, *shape].

    targets [N, K]: argmin_x CE(tail(x), targets) instead, without the norm's term (natural impressions).
    pixels: + total variation, and the picture moved by up to two pixels in each step. At a linear head see
    `start_at_head`.
    """
    head, lr = find_linear_tail(tail), 0.05
    goal, smoothing, shrink = (labels, SMOOTHING, 2e-4) if targets is None else (targets, 0.0, 0.0)
    if head is not None:
        x, most, lr = start_at_head(head, x, labels, targets, feasible)
        steps = min(steps, most)
    optimiser, generator = torch.optim.Adam([x.requires_grad_(True)], lr=lr), torch.Generator().manual_seed(0)
    follow(0, feasible.to_inputs(x.detach()))
    for step in range(steps):
        shown = x
        if pixels:
            shown = x.roll(tuple(torch.randint(-2, 3, (2,), generator=generator).tolist()), (2, 3))
        loss = F.cross_entropy(tail(feasible.to_inputs(shown)), goal, label_smoothing=smoothing, reduction="sum")
        loss = loss + shrink * x.square().sum()
        if pixels:
            loss = loss + 2e-3 * (x.diff(dim=2).abs().sum() + x.diff(dim=3).abs().sum())
        (x.grad,) = torch.autograd.grad(loss, x)
        optimiser.step()
        with torch.no_grad():
            feasible.project(x)
        follow(step + 1, feasible.to_inputs(x.detach()))
    return feasible.to_inputs(x.detach())


def deep_inversion(
    net: nn.Module, x: torch.Tensor, labels: torch.Tensor, steps: int, follow: Follow, bounds: tuple[float, float]
) -> torch.Tensor:
    """argmin_x CE(net(x), c) + STATISTICS x distance + ROUGHNESS x total variation (DeepInversion), x [N, C, H, W].

    distance: of what enters each BatchNorm to its running mean and variance, each relative, mean over the layers.
    What is learned is added to x: the sum of six pictures, each half as wide as the one before it, enlarged. Up
    to ten pixels wide they learn at 0.06, wider ones slower, so that shapes come before grain (Adam on pixels alone
    draws grain). Moved by up to a twelfth.
    """
    height, width = x.shape[2:]
    sizes = [(max(2, height >> k), max(2, width >> k)) for k in range(6)]
    levels = [torch.zeros(*x.shape[:2], *size, device=x.device, requires_grad=True) for size in sizes]
    rates = [0.06 * min(1, 10 / size[1]) for size in sizes]
    optimiser = torch.optim.Adam(
        [{"params": [level], "lr": rate} for level, rate in zip(levels, rates, strict=True)], betas=(0.5, 0.9)
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps))
    generator, most = torch.Generator().manual_seed(0), max(2, height // 12)

    def painted() -> torch.Tensor:
        whole = x + sum(F.interpolate(level, (height, width), mode="bilinear") for level in levels)
        return whole + (whole.clamp(*bounds) - whole).detach()  # its gradient goes on where it is cut off

    follow(0, x)
    with batchnorm_distances(net) as distances:
        for step in range(steps):
            picture, moves = painted(), torch.randint(-most, most + 1, (2,), generator=generator).tolist()
            with fast_arithmetic(x.device):
                logits = net(picture.roll(tuple(moves), (2, 3))).float()
            distance = torch.stack([off / norm for off, norm in distances]).mean()
            rough = sum(picture.diff(dim=d).flatten(1).square().sum(1).add(1e-8).sqrt().mean() for d in (2, 3))
            loss = F.cross_entropy(logits, labels) + STATISTICS * distance + ROUGHNESS * rough
            distances.clear()
            optimiser.zero_grad()
            loss.backward(inputs=levels)
            optimiser.step()
            schedule.step()
            follow(step + 1, painted().detach())
    return painted().detach()


def ascend_logit(tail: nn.Module, x: torch.Tensor, labels: torch.Tensor, steps: int, follow: Follow) -> torch.Tensor:
    """argmax_x z_c(x) by Adam from x [N, *shape], without bound (Simonyan et al. 2013, Mopuri et al. 2018)."""
    x.requires_grad_(True)
    optimiser = torch.optim.Adam([x], lr=0.1)
    follow(0, x.detach())
    for step in range(steps):
        (x.grad,) = torch.autograd.grad(-tail(x).gather(1, labels[:, None]).sum(), x)
        optimiser.step()
        follow(step + 1, x.detach())
    return x.detach()


@torch.no_grad()
def statistics_distance(model: nn.Module, x: torch.Tensor) -> float:
    """sum_l (|mu - mu_l| + |s2 - s2_l|) / sum_l (|mu_l| + |s2_l|) over a network's BatchNorm layers l.

    mu, s2: mean and variance, by channel, of what enters l for the batch x [N, C, H, W]; mu_l, s2_l: the running ones.
    The numerator is DeepInversion's (Yin et al. 2020, eq. 4); the share makes networks of any depth comparable.
    """
    with batchnorm_distances(model) as distances:
        model.eval()(x.to(get_device(model)))
    if not distances:
        raise UserError(f"model: {type(model).__name__} has no BatchNorm2d with statistics; one that has is accepted")
    return float(sum(off for off, _ in distances) / sum(norm for _, norm in distances))


@contextmanager
def batchnorm_distances(net: nn.Module) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
    """A list to which every pass through `net` adds the terms of `statistics_distance`, two of a BatchNorm."""
    distances, norms = [], [m for m in net.modules() if isinstance(m, nn.BatchNorm2d) and m.track_running_stats]

    def compare(module, inputs):
        x = inputs[0].float()
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        off = (mean - module.running_mean).norm() + (variance - module.running_var).norm()
        distances.append((off, module.running_mean.norm() + module.running_var.norm()))

    hooks = [m.register_forward_pre_hook(compare) for m in norms]
    try:
        yield distances
    finally:
        for hook in hooks:
            hook.remove()
