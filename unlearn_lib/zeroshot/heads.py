"""At a linear head z = W x + b: soft targets, and starts of impressions in closed form. W and b are the only source."""

from collections.abc import Callable

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from unlearn_lib.common import UserError
from unlearn_lib.networks import Feasible, find_head
from unlearn_lib.zeroshot.batches import count_classes

CONFIDENCE = (0.3, 0.99)  # range of p, the share of its own class in a soft target
SECANTS = 12  # at most; most closed forms need fewer


def find_class_rows(model: nn.Module) -> Tensor:
    """Return the head's weight [K, n], or the identity where a network does not end in a linear layer.

    Similar rows belong to similar classes. The rows of the identity are equally dissimilar.
    """
    try:
        return model.get_submodule(find_head(model)).weight.detach().float()
    except UserError:
        return torch.eye(count_classes(model))


def soft_targets(rows: Tensor, labels: Tensor, draws: tuple[torch.Generator, ...]) -> Tensor:
    """Draw targets as ambiguous as a network's answers to pictures: y = p e_c + (1 - p) Dir(a_c).

    p is uniform in CONFIDENCE. a_c = softmax over the other classes of their standardised cosines with class c, so that
    similar classes are mixed more often. The cosines are those of the head's centred rows (Nayak et al. 2019 scale
    them to [0, 1]; a softmax sums to 1, and mixes in one or two classes of ten as of a thousand). Where another class
    has the largest share, it changes places with c.

    Args:
        rows: the head's weight [K, n].
        labels: the classes c [N].
        draws: a generator for the Dirichlet shares and one for p. With two, chunks of labels get the same targets as
            all labels at once.

    Returns:
        y [N, K]. Each row sums to 1; class c has its largest share.
    """
    unit = F.normalize(rows - rows.mean(0))
    is_other = ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    cosines = (unit @ unit.T)[is_other].view(len(rows), -1)
    spread, mean = torch.std_mean(cosines, 1, keepdim=True, correction=0)
    similarity = torch.full(is_other.shape, -torch.inf, device=rows.device)
    similarity[is_other] = ((cosines - mean) / spread.clamp_min(1e-6)).flatten()
    concentrations = similarity.softmax(1).clamp_min(1e-6).cpu()[labels]

    own = labels[:, None]
    shares = torch._standard_gamma(concentrations, draws[0]).scatter(1, own, 0)  # torch's Dirichlet has no generator
    low, high = CONFIDENCE
    p = low + (high - low) * torch.rand(len(labels), 1, generator=draws[1])
    y = (shares * ((1 - p) / shares.sum(1, keepdim=True))).scatter(1, own, p)
    largest, at = y.max(1, keepdim=True)
    return y.scatter(1, at, p).scatter(1, own, largest)


def find_linear_tail(tail: fx.GraphModule) -> nn.Linear | None:
    """Return the tail's linear layer where it is the tail's only operation, else None."""
    modules = [tail.get_submodule(node.target) for node in tail.graph.nodes if node.op == "call_module"]
    is_alone = len(tail.graph.nodes) == 4  # input, copy, layer, output
    return modules[0] if is_alone and modules and isinstance(modules[0], nn.Linear) else None


@torch.no_grad()
def fold_surface(head: nn.Linear, feasible: Feasible) -> nn.Linear:
    """Return the head as a function of u, for the inputs x = scale u + shift of `Feasible`."""
    if feasible.surface is None:
        return head
    folded = nn.Linear(head.in_features, head.out_features, device=head.weight.device)
    folded.weight.copy_(head.weight * feasible.surface.scale)
    folded.bias.copy_(head(feasible.surface.shift)[0])
    return folded


@torch.no_grad()
def along_targets(head: nn.Linear, x0: Tensor, targets: Tensor, feasible: Feasible) -> Tensor:
    """Return the feasible x0 + t d with the t of each row that minimises CE(head(x0 + t d), targets).

    d = sum_k y_k w_k - mean w, of length 1. The cross-entropy is convex in t; its slope is sum_k (p_k - y_k) w_k d.
    """
    head = fold_surface(head, feasible)
    direction = F.normalize(targets @ (head.weight - head.weight.mean(0)))
    rise = direction @ head.weight.T

    def slope(x: Tensor) -> Tensor:
        return ((head(x).softmax(1) - targets) * rise).sum(1, keepdim=True)

    return _walk_to_root(slope, x0, direction, feasible, secants=3)


@torch.no_grad()
def closed_form(head: nn.Linear, x0: Tensor, labels: Tensor, feasible: Feasible, target: float = 0.95) -> Tensor:
    """Return the feasible x0 + t d with the t of each row at which p_c = `target`; d = (w_c - mean w), of length 1.

    logit p_c = z_c - log sum_{k != c} exp z_k is nearly a straight line in t.
    """
    head = fold_surface(head, feasible)
    direction = F.normalize(head.weight - head.weight.mean(0))[labels]
    own = labels[:, None]
    goal = torch.tensor(target).logit().item()

    def excess(x: Tensor) -> Tensor:
        z = head(x)
        return z.gather(1, own) - z.scatter(1, own, -torch.inf).logsumexp(1, keepdim=True) - goal

    return _walk_to_root(excess, x0, direction, feasible, SECANTS)


def _walk_to_root(
    rising: Callable[[Tensor], Tensor],
    x0: Tensor,
    direction: Tensor,
    feasible: Feasible,
    secants: int,
) -> Tensor:
    """Return the feasible x(t) = x0 + t d at which `rising`(x(t)) [N, 1] is zero, by secants kept within a bracket."""

    def walk(t: Tensor) -> Tensor:
        return feasible.project(torch.addcmul(x0, t, direction))

    near = torch.zeros(len(x0), 1, device=x0.device)
    far = torch.full_like(near, 1e3)
    last = near
    t = near + 1
    before = rising(walk(near))
    for _ in range(secants):
        now = rising(walk(t))
        if now.abs().max() < 1e-3:
            break
        near = torch.where(now < 0, t, near)
        far = torch.where(now < 0, far, t)
        secant = t - now * (t - last) / (now - before)
        limit = torch.minimum(far, 3 * t + 1)  # a secant on a flat piece may go anywhere
        last = t
        before = now
        is_inside = (secant > near) & (secant < limit)
        step = torch.where(is_inside, secant, (near + limit) / 2)
        t = torch.where(now.abs() < 1e-3, t, step)
    return walk(t)
