"""At a linear head: targets as ambiguous as a network's answers, and impressions from closed forms.

Everything comes from the head's weight and bias.
"""

from collections.abc import Callable

import torch
from torch import fx, nn
from torch.nn import functional as F

from unlearn_lib.networks import Feasible

SECANTS = 12  # most steps of the search for the closed form's length; as a rule it ends sooner
CONFIDENCE = (0.3, 0.99)  # of natural impressions, uniformly from the one to the other


def soft_targets(rows: torch.Tensor, labels: torch.Tensor, draws: tuple[torch.Generator, ...]) -> torch.Tensor:
    """Targets [N, K] as ambiguous as a network's answers: y = p e_c + (1 - p) Dir(a_c), p uniform in CONFIDENCE.

    rows [K, n]: the head's. labels [N]: the classes c. draws: one generator for the shares and one for p, so that a
    set of labels gets the same targets at once as in parts.

    a_c = softmax over the other classes of the standardised cosines of the head's centred rows with row c, so that
    classes alike for the head are mixed more often (Nayak et al. 2019, whose concentrations are the cosines scaled
    to [0, 1]; a softmax, of sum 1, mixes in one or two classes of ten as of a thousand). Where another class came out
    the likeliest, it changes places with c.
    """
    unit = F.normalize(rows - rows.mean(0))
    itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    cosines = (unit @ unit.T)[~itself].view(len(rows), -1)
    spread, mean = torch.std_mean(cosines, 1, keepdim=True, correction=0)
    alike = torch.full(itself.shape, -torch.inf, device=rows.device)
    alike[~itself] = ((cosines - mean) / spread.clamp_min(1e-6)).flatten()
    concentrations = alike.softmax(1).clamp_min(1e-6).cpu()[labels]
    shares = torch._standard_gamma(concentrations, draws[0])  # torch's own Dirichlet takes no generator
    shares.scatter_(1, labels[:, None], 0)
    low, high = CONFIDENCE
    p = low + (high - low) * torch.rand(len(labels), 1, generator=draws[1])
    y = shares.mul_((1 - p) / shares.sum(1, keepdim=True)).scatter_(1, labels[:, None], p)
    largest, at = y.max(1, keepdim=True)
    return y.scatter_(1, at, p).scatter_(1, labels[:, None], largest)


def start_at_head(
    head: nn.Linear,
    x0: torch.Tensor,
    labels: torch.Tensor,
    targets: torch.Tensor | None,
    feasible: Feasible,
) -> tuple[torch.Tensor, int, float]:
    """Where Adam starts at a linear head, and with how many steps, at which rate; with many classes a step is dear."""
    head, many = _inner(head, feasible), head.out_features > 100
    if targets is None:
        return closed_form(head, x0, labels, feasible), 3 if many else 10, 0.02 if many else 0.05
    return along_targets(head, x0, targets, feasible), 5 if many else 10, 0.05


@torch.no_grad()
def _inner(head: nn.Linear, feasible: Feasible) -> nn.Linear:
    """The head that takes u in place of x = scale u + shift."""
    if feasible.surface is None:
        return head
    inner = nn.Linear(head.in_features, head.out_features, device=head.weight.device)
    inner.weight.copy_(head.weight * feasible.surface.scale)
    inner.bias.copy_(head(feasible.surface.shift)[0])
    return inner


@torch.no_grad()
def along_targets(head: nn.Linear, x0: torch.Tensor, targets: torch.Tensor, feasible: Feasible) -> torch.Tensor:
    """argmin_t CE(head(x0 + t d), targets) along d = sum_k y_k w_k - mean w, each row's t, pulled to be `feasible`.

    The cross-entropy is convex in t; its slope is sum_k (p_k - y_k) w_k d. Three secants find t well enough.
    """
    direction = F.normalize(targets @ (head.weight - head.weight.mean(0)))
    rise = direction @ head.weight.T

    def slope(t: torch.Tensor) -> torch.Tensor:
        p = head(feasible.project(torch.addcmul(x0, t, direction))).softmax(1)
        return ((p - targets) * rise).sum(1, keepdim=True)

    return feasible.project(torch.addcmul(x0, _root(slope, x0, 3), direction))


@torch.no_grad()
def closed_form(
    head: nn.Linear, x0: torch.Tensor, labels: torch.Tensor, feasible: Feasible, target: float = 0.95
) -> torch.Tensor:
    """x0 + t (w_c - mean w) / |w_c - mean w|, pulled to be `feasible`, with each row's t such that p_c = `target`.

    logit p_c is all but a straight line in t, so that a few secants find t: one product with the head each.
    """
    direction = F.normalize(head.weight - head.weight.mean(0))[labels]
    goal = torch.tensor(target).logit().item()

    def excess(t: torch.Tensor) -> torch.Tensor:
        z = head(feasible.project(torch.addcmul(x0, t, direction)))
        reached = z.gather(1, labels[:, None])
        return reached - z.scatter_(1, labels[:, None], -torch.inf).logsumexp(1, keepdim=True) - goal

    return feasible.project(torch.addcmul(x0, _root(excess, x0, SECANTS), direction))


def _root(rising: Callable[[torch.Tensor], torch.Tensor], x0: torch.Tensor, secants: int) -> torch.Tensor:
    """t [N, 1] at which each row of a rising function is zero, by secants kept within a bracket."""
    near, far = torch.zeros(len(x0), 1, device=x0.device), torch.full((len(x0), 1), 1e3, device=x0.device)
    last, t, before = near, near + 1, rising(near)
    for _ in range(secants):
        now = rising(t)
        if now.abs().max() < 1e-3:
            break
        near, far = torch.where(now < 0, t, near), torch.where(now < 0, far, t)
        step = t - now * (t - last) / (now - before)
        limit = torch.minimum(far, 3 * t + 1)  # a secant on a flat piece would go anywhere
        last, before = t, now
        step = torch.where((step > near) & (step < limit), step, (near + limit) / 2)
        t = torch.where(now.abs() < 1e-3, t, step)
    return t


def find_linear_tail(tail: fx.GraphModule) -> nn.Linear | None:
    """The tail's linear layer, where the tail does nothing else with the copy of its input."""
    modules = [tail.get_submodule(node.target) for node in tail.graph.nodes if node.op == "call_module"]
    alone = len(tail.graph.nodes) == 4  # input, copy, layer, output
    return modules[0] if alone and modules and isinstance(modules[0], nn.Linear) else None
