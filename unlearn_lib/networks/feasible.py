"""Which inputs of a layer can occur: those in an interval or, behind a LayerNorm, those on a known surface.

What a LayerNorm over n numbers gives is scale * u + shift with mean(u) = 0 and |u| = sqrt(n), whatever the picture (up
to its epsilon); an RMSNorm's u has that length, with any mean. Whatever chooses or moves positions keeps to
that; an average over them leaves the mean and shortens the length.
"""

import inspect
from dataclasses import dataclass

import torch
from torch import fx, nn

from unlearn_lib.networks.bounds import SAME, SIGN, Interval, interval_at, is_dropout_active, is_overwritten
from unlearn_lib.networks.probing import zero_pictures
from unlearn_lib.networks.splitting import find_cut, operation_name

AFFINE = ("normalized_shape", "weight", "bias")
CARRIED_ON = SAME | SIGN - {"sum"}  # operations behind a norm that may leave its surface what it is
NORMS = {"layernorm": True, "rmsnorm": False}  # whether u is centred


@dataclass(frozen=True)
class Surface:
    """u along `axis` is of length sqrt(n), at most that where not `exact`, and of mean 0 where `centred`."""

    scale: torch.Tensor  # these two in the shape that multiplies and adds to [N, *shape]
    shift: torch.Tensor
    axis: int
    centred: bool
    exact: bool = True

    def project(self, u: torch.Tensor) -> torch.Tensor:
        """u itself, changed to the nearest that is feasible."""
        if self.centred:
            u -= u.mean(self.axis, keepdim=True)
        longer = u.norm(dim=self.axis, keepdim=True) / u.shape[self.axis] ** 0.5
        return u.div_(longer.clamp_min(1e-12 if self.exact else 1.0))


@dataclass(frozen=True)
class Feasible:
    """What can enter a layer: x within `bounds`; where there is a `surface`, x = scale u + shift with u on it.

    Impressions are made as u, which is x where there is no surface: a step in it is as long whatever the scale.
    """

    bounds: Interval
    surface: Surface | None = None

    def project(self, u: torch.Tensor) -> torch.Tensor:
        """u itself, changed to the nearest that is feasible."""
        return u.clamp_(*self.bounds) if self.surface is None else self.surface.project(u)

    def to_inputs(self, u: torch.Tensor) -> torch.Tensor:
        """The x of a u."""
        return u if self.surface is None else u * self.surface.scale.to(u) + self.surface.shift.to(u)

    def from_inputs(self, x: torch.Tensor) -> torch.Tensor:
        """The u of an x; 0 where a norm's scale is 0, and x tells nothing."""
        if self.surface is None:
            return x
        scale = self.surface.scale.to(x)
        return ((x - self.surface.shift.to(x)) / scale).masked_fill_(scale.abs() < 1e-6, 0)

    def is_infeasible(self, x: torch.Tensor) -> torch.Tensor:
        """Which numbers in x cannot occur; on a surface those off by more than what a norm's epsilon does."""
        u = self.from_inputs(x)
        return (self.project(u.clone()) - u).abs() > (0 if self.surface is None else 0.05)


def feasible_inputs(model: nn.Module, layer: str) -> Feasible:
    """What can enter `layer`. Raises UserError where `split` does."""
    traced, _, crossing = find_cut(model, layer)
    bounds, node = interval_at(model, traced, crossing), crossing
    while _carries_on(node, traced):
        node = node.all_input_nodes[0]
    if operation_name(node, traced) not in NORMS or is_overwritten(node, traced):
        return Feasible(bounds)
    return Feasible(bounds, _surface(model, traced, node, crossing))


def _carries_on(node: fx.Node, traced: fx.GraphModule) -> bool:
    name = operation_name(node, traced)
    if name not in CARRIED_ON or not node.all_input_nodes or is_overwritten(node, traced):
        return False
    return name in SAME or not is_dropout_active(node, traced)


@torch.no_grad()
def _surface(model: nn.Module, traced: fx.GraphModule, norm: fx.Node, crossing: fx.Node) -> Surface | None:
    """A norm's surface as it stands at the cut, seen by planting noise on it; None where nothing is left of it."""
    planted = _Planted(traced, norm)
    planted.run(zero_pictures(model))
    (shape, *affine), u = planted.arguments(norm), planted.env[crossing]
    n, centred = shape[-1], planted.surface.centred
    for axis in range(1, u.dim() if len(shape) == 1 else 1):
        length = u.norm(dim=axis) / n**0.5
        if u.shape[axis] == n and length.max() < 1.001 and not (centred and u.mean(axis).abs().max() > 1e-3):
            view = [n if i == axis else 1 for i in range(u.dim())]
            scale, shift = (
                torch.full(view, float(i == 0), device=u.device) if a is None else a.detach().float().reshape(view)
                for i, a in enumerate(affine)
            )
            return Surface(scale, shift, axis, centred, bool(length.min() > 0.999))
    return None


class _Planted(fx.Interpreter):
    """A pass through a network in which `norm` gives noise on its surface, without scale and shift."""

    def __init__(self, traced: fx.GraphModule, norm: fx.Node):
        super().__init__(traced, garbage_collect_values=False)
        self.norm, one = norm, torch.ones(())
        self.surface = Surface(one, one, -1, NORMS[operation_name(norm, traced)])

    def run_node(self, n: fx.Node):
        value = super().run_node(n)
        if n is not self.norm:
            return value
        return self.surface.project(torch.randn(value.shape, generator=torch.Generator().manual_seed(0)).to(value))

    def arguments(self, norm: fx.Node) -> tuple:
        """A norm's shape, scale and shift, the latter None where it has none."""
        if norm.op == "call_module":
            part = self.module.get_submodule(norm.target)
            return tuple(getattr(part, name, None) for name in AFFINE)
        args, kwargs = self.fetch_args_kwargs_from_env(norm)
        given = inspect.signature(norm.target).bind(*args, **kwargs).arguments
        return tuple(given.get(name) for name in AFFINE)
