"""Which inputs of a layer can occur: those in an interval or, behind a LayerNorm, those on a known surface.

A LayerNorm over n numbers gives scale * u + shift with mean(u) = 0 and |u| = sqrt(n), for any picture, up to its
epsilon. An RMSNorm's u has that length and any mean. Moving or choosing positions keeps u on this surface. Averaging
over positions keeps the mean and shortens the length.
"""

import inspect
from dataclasses import dataclass

import torch
from torch import fx, nn

from unlearn_lib.networks.bounds import Interval, cut_bounds, keeps_range, writes_in_place
from unlearn_lib.networks.probing import copy_in_eval_mode, zero_pictures
from unlearn_lib.networks.splitting import Cut, find_cut, operation_name

CENTRED = {"layernorm": True, "rmsnorm": False}  # norms, and whether their u has mean 0


@dataclass(frozen=True)
class Surface:
    """Where u lies: along `axis` its length is sqrt(n), or at most that if not `exact`; its mean is 0 if `centred`.

    scale, shift: of the norm, in a shape that broadcasts with [N, *shape].
    """

    scale: torch.Tensor
    shift: torch.Tensor
    axis: int
    centred: bool
    exact: bool = True

    def project(self, u: torch.Tensor) -> torch.Tensor:
        """Move u in place to the nearest feasible point, and return it."""
        if self.centred:
            u -= u.mean(self.axis, keepdim=True)
        length = u.norm(dim=self.axis, keepdim=True) / u.shape[self.axis] ** 0.5
        return u.div_(length.clamp_min(1e-12 if self.exact else 1.0))


@dataclass(frozen=True)
class Feasible:
    """Which inputs of a layer can occur: x within `bounds`, and with a `surface` x = scale u + shift with u on it.

    Impressions are optimised as u, so that the norm's scale does not change the length of a step. Without a surface
    u is x.
    """

    bounds: Interval
    surface: Surface | None = None

    def project(self, u: torch.Tensor) -> torch.Tensor:
        """Move u in place to the nearest feasible point, and return it."""
        return u.clamp_(*self.bounds) if self.surface is None else self.surface.project(u)

    def to_inputs(self, u: torch.Tensor) -> torch.Tensor:
        """Return x for u."""
        return u if self.surface is None else u * self.surface.scale.to(u) + self.surface.shift.to(u)

    def from_inputs(self, x: torch.Tensor) -> torch.Tensor:
        """Return u for x; 0 where the norm's scale is 0."""
        if self.surface is None:
            return x
        scale = self.surface.scale.to(x)
        return ((x - self.surface.shift.to(x)) / scale).masked_fill_(scale.abs() < 1e-6, 0)

    def is_infeasible(self, x: torch.Tensor) -> torch.Tensor:
        """Return which numbers in x cannot occur, as a mask. A surface has a tolerance for the norm's epsilon."""
        u = self.from_inputs(x)
        return (self.project(u.clone()) - u).abs() > (0 if self.surface is None else 0.05)


def feasible_inputs(model: nn.Module, layer: str) -> Feasible:
    """Return which inputs of `layer` can occur. Raises UserError where `split` does."""
    cut = find_cut(model, layer)
    norm = _find_norm(cut)
    return Feasible(cut_bounds(cut), norm and _find_surface(cut, norm))


def _find_norm(cut: Cut) -> fx.Node | None:
    """Return the norm whose output, moved or averaged, crosses the cut."""
    node = cut.value
    while keeps_range(node, cut.traced) and node.all_input_nodes:
        node = node.all_input_nodes[0]
    nodes = cut.body_nodes
    if operation_name(node, cut.traced) not in CENTRED:
        return None
    is_overwritten = any(writes_in_place(later, cut.traced) for later in nodes[nodes.index(node) + 1 :])
    return None if is_overwritten else node


@torch.no_grad()
def _find_surface(cut: Cut, norm: fx.Node) -> Surface | None:
    """Return the norm's surface at the cut, or None where the numbers have left it.

    The norm's output is replaced by noise on its surface without scale and shift; the cut shows where that arrives.
    """
    centred = CENTRED[operation_name(norm, cut.traced)]
    whole = Surface(torch.ones(()), torch.zeros(()), -1, centred)
    run = fx.Interpreter(copy_in_eval_mode(cut.traced), garbage_collect_values=False)
    for node in cut.body_nodes:
        run.env[node] = zero_pictures(cut.traced) if node.op == "placeholder" else run.run_node(node)
        if node is norm:
            noise = torch.randn(run.env[node].shape, generator=torch.Generator().manual_seed(0))
            run.env[node] = whole.project(noise.to(run.env[node]))
    shape, scale, shift = _norm_arguments(norm, run)
    n, u = shape[-1], run.env[cut.value]
    for axis in range(1, u.dim() if len(shape) == 1 else 1):
        length = u.norm(dim=axis) / n**0.5
        if u.shape[axis] == n and length.max() < 1.001 and not (centred and u.mean(axis).abs().max() > 1e-3):
            view = [n if i == axis else 1 for i in range(u.dim())]
            scale = torch.ones(view, device=u.device) if scale is None else scale.detach().float().reshape(view)
            shift = torch.zeros(view, device=u.device) if shift is None else shift.detach().float().reshape(view)
            return Surface(scale, shift, axis, centred, bool(length.min() > 0.999))
    return None


def _norm_arguments(norm: fx.Node, run: fx.Interpreter) -> tuple:
    """Return a norm's shape, scale and shift; None for the last two where it has none."""
    if norm.op == "call_module":
        part = run.module.get_submodule(norm.target)
        return part.normalized_shape, part.weight, getattr(part, "bias", None)
    args, kwargs = run.fetch_args_kwargs_from_env(norm)
    given = inspect.signature(norm.target).bind(*args, **kwargs).arguments
    return given["normalized_shape"], given.get("weight"), given.get("bias")
