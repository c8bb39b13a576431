"""Recipes: how a batch of class impressions is optimised, from noise, through the tail of a network.

Nothing here takes pictures, loaders or statistics of real data; BatchNorm's running statistics are part of a model.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from torch.nn import functional as F

from unlearn_lib.common import fast_arithmetic

RECIPE_VERSION = 1  # goes up when a recipe gives other bits
RECIPES = ("calibrated", "published", "deepinversion")
SMOOTHING = {"calibrated": 0.05, "published": 0.1, "deepinversion": 0.05}
STEPS = {"calibrated": 100, "published": 1000, "deepinversion": 200}
SECANTS = 12  # most steps of the search for the closed form's length; as a rule it ends sooner
STATISTICS = 25.0  # weight of the relative distance to BatchNorm's running statistics

Follow = Callable[[int, torch.Tensor], None] | None


def calibrate(
    tail: nn.Module,
    x: torch.Tensor,
    labels: torch.Tensor,
    steps: int,
    bounds: tuple[float, float],
    *,
    pixels: bool = False,
    statistics: bool = False,
    follow: Follow = None,
) -> torch.Tensor:
    """argmin_x CE(tail(x), c) + 2e-4 |x|^2, smoothed labels, within `bounds`, by Adam from x [N, *shape].

    pixels: + total variation, and the picture moved by up to two pixels in each step. statistics: also
    + STATISTICS x `statistics_distance` (DeepInversion). A tail that is one linear layer starts from `closed_form`.
    """
    head, lr, roughness, arithmetic = _linear(tail), 0.05, 2e-3, nullcontext()
    if head is not None:
        x = closed_form(head, x, labels, bounds[0])
        few, lr = (10, 0.05) if head.out_features <= 100 else (3, 0.02)  # with many classes a step is dear
        steps = min(steps, few)
    if statistics:
        lr, roughness, arithmetic = 0.1, 1e-2, fast_arithmetic(x.device)
    x.requires_grad_(True)
    optimiser = torch.optim.Adam([x], lr=lr)
    generator = torch.Generator().manual_seed(0)
    if follow:
        follow(0, x.detach())
    with watched_statistics(tail) if statistics else nullcontext([]) as distances:
        for step in range(steps):
            shown = x
            if pixels:
                shown = x.roll(tuple(torch.randint(-2, 3, (2,), generator=generator).tolist()), (2, 3))
            with arithmetic:
                logits = tail(shown).float()
            loss = F.cross_entropy(logits, labels, label_smoothing=SMOOTHING["calibrated"], reduction="sum")
            loss = loss + 2e-4 * x.square().sum()
            if pixels:
                loss = loss + roughness * (x.diff(dim=2).abs().sum() + x.diff(dim=3).abs().sum())
            if statistics:
                loss = loss + STATISTICS * len(x) * torch.stack(distances).sum()
                distances.clear()
                optimiser.param_groups[0]["lr"] = lr * (1 - step / steps)  # at a norm's kink constant steps jump on
            (x.grad,) = torch.autograd.grad(loss, x)
            optimiser.step()
            with torch.no_grad():
                x.clamp_(*bounds)
            if follow:
                follow(step + 1, x.detach())
    return x.detach()


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
def closed_form(
    head: nn.Linear, x0: torch.Tensor, labels: torch.Tensor, low: float, target: float = 0.95
) -> torch.Tensor:
    """x0 + t (w_c - mean w) / |w_c - mean w|, clamped at `low`, with each row's t such that p_c = `target`.

    logit p_c is all but a straight line in t, so that a few secants, kept within a bracket, find t: one product with
    the head each.
    """
    direction = F.normalize(head.weight - head.weight.mean(0))[labels]
    goal = torch.tensor(target).logit().item()

    def excess(t: torch.Tensor) -> torch.Tensor:
        z = head(torch.addcmul(x0, t, direction).clamp_(min=low))
        own = z.gather(1, labels[:, None])
        return own - z.scatter_(1, labels[:, None], -torch.inf).logsumexp(1, keepdim=True) - goal

    near, far = torch.zeros(len(x0), 1, device=x0.device), torch.full((len(x0), 1), 1e3, device=x0.device)
    last, t, before = near, near + 1, excess(near)
    for _ in range(SECANTS):
        now = excess(t)
        if now.abs().max() < 1e-3:
            break
        near, far = torch.where(now < 0, t, near), torch.where(now < 0, far, t)
        step = t - now * (t - last) / (now - before)
        limit = torch.minimum(far, 3 * t + 1)  # a secant on a flat piece would go anywhere
        last, before = t, now
        step = torch.where((step > near) & (step < limit), step, (near + limit) / 2)
        t = torch.where(now.abs() < 1e-3, t, step)
    return torch.addcmul(x0, t, direction).clamp_(min=low)


@torch.no_grad()
def statistics_distance(model: nn.Module, x: torch.Tensor) -> float:
    """sum_l (|mu - mu_l| + |s2 - s2_l|) / sum_l (|mu_l| + |s2_l|) over a network's BatchNorm layers l.

    mu, s2: mean and variance, by channel, of what enters l for the batch x [N, C, H, W]; mu_l, s2_l: the running ones.
    The numerator is DeepInversion's (Yin et al. 2020, eq. 4); the share makes networks of any depth comparable.
    """
    with watched_statistics(model) as distances:
        model.eval()(x.to(next(model.parameters()).device))
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


def _linear(tail: nn.Module) -> nn.Linear | None:
    """The tail's linear layer, where the tail is nothing else."""
    modules = [m for m in tail.modules() if not list(m.children())]
    return modules[0] if len(modules) == 1 and isinstance(modules[0], nn.Linear) else None
