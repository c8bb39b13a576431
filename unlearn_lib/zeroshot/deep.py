"""Deep: forgetting in the features, not in the answer alone, without any data.

A student takes over the original's layers before `layer`, untouched; all from there on is made anew, and learns what
the masked original answers. It never sees an answer of F, and its features are pulled to a code that can carry the
answers of R and nothing else. z0 the original's logits, q = softmax(z0 with F at -inf) the masked original's answer,
g = sum_{u in F} softmax(z0)_u the original's mass on F, z the student's logits, h what enters one of its layers:

    minimise  w_r KL(q || softmax z)  +  w_f (sum over layers of PULL R mean[(g + e (1 - g)) |h / s - q M|^2]
                                               + HINGE max(0, max_{u in F} z_u - min_{r in R} z_r + 2))

M is a code: each class of R owns as many coordinates of h as any other, F none; R is their number, s the size of the
original's own features, so that those of the student are as large. Where the original sees nothing of F, the pull
counts e as much, which falls in the course of training from the first FLOOR to the second: once the code stands,
features may tell more there, since what they tell is none of F. At the head's input the pull counts HEAD as much.

- made anew: what starts at the original keeps F in its features, since no loss asks for them (probe 59 of 59.5).
- the code: the masked original's logits tell F by themselves (a probe on them finds 57 of 60 %), its softmax does not
  (25), so that a student that learns answers alone learns F with them.
- drawn pictures: the loss holds on what the student sees; impressions are too few kinds of pictures (`drawn_inputs`).

Distillation without data: Frank and Davis, CVPR 2025. The masked teacher: DELETE, Zhou et al., CVPR 2025. The code is
new here; a bottleneck of the answers is what concept bottlenecks are (Koh et al., ICML 2020).
"""

import copy
from collections.abc import Collection, Iterator

import torch
from torch import fx, nn
from torch.nn import functional as F

from unlearn_lib.common import UserError, fast_arithmetic, get_device
from unlearn_lib.networks import split, splittable_layers, traced_once, unwrap

PULL, HEAD, HINGE = 1.0, 10.0, 0.1
FLOOR, FALL = (0.4, 0.05), 0.7  # from the one to the other, in the first 70 % of training
MIXED = 0.3  # the share of a batch that is mixed with other inputs, up to half and half
ANEW = 3  # layers with weights that are made anew where none is named
LENGTH = 1000  # inputs on which the size of features is measured


def deep_layer(model: nn.Module) -> str:
    """The layer from which on `deep` makes all anew where none is given: the last ANEW layers with weights."""
    return _weighty(model)[-ANEW:][0]


@traced_once()
def inner_layers(model: nn.Module, layer: str) -> list[str]:
    """The layers with weights behind `layer`, whose inputs are features that a student learns anew."""
    body, tail = split(model, layer)
    behind = {name for name, _ in tail.named_modules()}
    found = [name for name in _weighty(model) if name in behind]
    frozen = bool(found) and {*split(model, found[0])[0].parameters()} <= {*body.parameters()}
    return found[frozen:]


@traced_once()
def find_uncoded_heads(model: nn.Module) -> list[str]:
    """The layers with weights behind the last cut that take another input: heads, where there is more than one."""
    _, tail = split(model, last := _weighty(model)[-1])
    found = [name for name, part in tail.named_modules() if _has_weights(part)]
    return [name for name in found if _entering(tail.graph, name) is not _entering(tail.graph, last)]


def _weighty(model: nn.Module) -> list[str]:
    found = [name for name in splittable_layers(model) if _has_weights(model.get_submodule(name))]
    if not found:
        raise UserError(f"model: {type(model).__name__} has no layer with weights at which it can be cut")
    return found


def _has_weights(part: nn.Module) -> bool:
    return not list(part.children()) and any(p.dim() > 1 for p in part.parameters())


def reinitialised_from(model: nn.Module, layer: str, seed: int = 0) -> nn.Module:
    """A copy of the model with all layers from `layer` on made anew, from the seed; what is before keeps its bits.

    Parameters that belong to no layer (tokens, positions, scales of a branch) begin as they were.
    """
    student = copy.deepcopy(unwrap(model)).eval().requires_grad_(False)
    _, tail = split(student, layer)
    inside = set(tail.parameters())
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for name, _ in tail.named_modules():
            part = student.get_submodule(name)  # in the tail, what is traced is a shell with its parameters
            if isinstance(getattr(part, "weight", None), nn.Parameter) and part.weight.dim() > 1:
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
                if getattr(part, "bias", None) is not None:
                    nn.init.zeros_(part.bias)
            elif inside.issuperset(part.parameters()):  # attention's name has an underscore
                getattr(part, "reset_parameters", getattr(part, "_reset_parameters", lambda: None))()
    for parameter in tail.parameters():
        parameter.requires_grad_(True)
    return student


def make_codes(model: nn.Module, layer: str, x: torch.Tensor, forget: torch.Tensor) -> dict[str, tuple]:
    """For each layer after `layer` the code M [K, D] and the size s of the original's features for inputs x.

    M_r is 1 on the D / R coordinates that class r owns, in the order of the classes; a row of F is 0.
    """
    _, tail = split(model, layer)
    with torch.no_grad():
        _, features = with_features(tail, inner_layers(model, layer))(x[:LENGTH])
    retain, codes = (~forget).nonzero()[:, 0].tolist(), {}
    for name, h in features.items():
        h = h.flatten(1).float()
        code, width = torch.zeros(len(forget), h.shape[1], device=h.device), max(1, h.shape[1] // len(retain))
        for i, r in enumerate(retain):
            code[r, torch.arange(i * width, (i + 1) * width) % h.shape[1]] = 1
        codes[name] = code, h.square().mean().mul(len(retain)).sqrt().clamp_min(1e-6).item()
    return codes


def with_features(tail: fx.GraphModule, layers: Collection[str]) -> fx.GraphModule:
    """The tail as a network that gives its logits and, by name, what enters each of `layers`."""
    graph, copies = fx.Graph(), {}
    z = graph.graph_copy(tail.graph, copies)
    graph.output((z, {name: copies[_entering(tail.graph, name)] for name in layers}))
    return fx.GraphModule(tail, graph)


def _entering(graph: fx.Graph, layer: str) -> fx.Node:
    """The value that enters a layer, also one whose own operations are traced, which no hook would see."""
    nodes = [n for n in graph.nodes if n.target == layer or layer in n.meta.get("nn_module_stack", ())]
    return next(source for node in nodes for source in node.all_input_nodes if source.op != "get_attr")


def code_loss(
    h: torch.Tensor, q: torch.Tensor, mass: torch.Tensor, floor: float, code: torch.Tensor, size: float
) -> torch.Tensor:
    """R mean[(g + e (1 - g)) |h / s - q M|^2] for features h [N, ...], g = `mass` [N], e = `floor`."""
    off = (h.flatten(1).float() / size - q @ code).square().mean(1)
    return ((mass + floor * (1 - mass)) * off).mean() * (code.sum(1) > 0).sum()


def hinge_loss(z: torch.Tensor, forget: torch.Tensor) -> torch.Tensor:
    """max(0, max_{u in F} z_u - min_{r in R} z_r + 2), mean over the batch: F stays below all of R, and not far."""
    return F.relu(z[:, forget].amax(1) - z[:, ~forget].amin(1) + 2).mean()


def train_student(
    model: nn.Module,
    student: nn.Module,
    layer: str,
    x: torch.Tensor,
    forget: torch.Tensor,
    *,
    lr: float,
    epochs: int,
    batch_size: int,
    forget_weight: float = 1.0,
    retain_weight: float = 1.0,
    seed: int = 0,
) -> Iterator[tuple[float, float]]:
    """Teach a student, `reinitialised_from` from `layer` on, what the masked model answers for inputs x of the layer.

    forget: bool [K]. AdamW, one cycle; the inputs are drawn by the inverse square root of how many have their answer, a
    share of them mixed. Yields each epoch's mean forget and retain loss, the terms of w_f and w_r above.
    """
    (_, teacher), (_, tail), device = split(model, layer), split(student, layer), get_device(model)
    codes = make_codes(model, layer, x[torch.linspace(0, len(x) - 1, LENGTH).long()].to(device), forget)
    generator, seen = torch.Generator().manual_seed(seed), with_features(tail, codes)
    with torch.no_grad():
        answers = torch.cat([teacher(part.to(device)).argmax(1).cpu() for part in x.split(500)])
    chances = answers.bincount().clamp_min(1).double().rsqrt()[answers]
    steps, trained = -(-len(x) // batch_size), [p for p in tail.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=epochs * steps + 1, pct_start=0.15)
    for epoch in range(epochs):
        floor = FLOOR[0] + (FLOOR[1] - FLOOR[0]) * min(1.0, epoch / (FALL * epochs))
        sums = torch.zeros(2)
        for index in torch.multinomial(chances, steps * batch_size, True, generator=generator).view(steps, -1):
            inputs = mix_inputs(x[index], generator).to(device)
            forget_loss, retain_loss = student_losses(teacher, seen, inputs, forget, codes, floor)
            optimiser.zero_grad()
            (forget_weight * forget_loss + retain_weight * retain_loss).backward()
            optimiser.step()
            schedule.step()
            sums += torch.stack([forget_loss.detach(), retain_loss.detach()]).cpu() / steps
        yield tuple(sums.tolist())


def student_losses(
    teacher: nn.Module, student: nn.Module, x: torch.Tensor, forget: torch.Tensor, codes: dict[str, tuple], floor: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the terms of w_f and w_r for a batch x and a student made by `with_features`.

    The last code is the head's.
    """
    with fast_arithmetic(x.device):
        with torch.no_grad():
            z0 = teacher(x).float()
        z, features = student(x)
    log_q = z0.masked_fill(forget, -torch.inf).log_softmax(1)
    q, mass, z = log_q.exp(), z0.softmax(1)[:, forget].sum(1), z.float()
    retain_loss = (q * (log_q - z.log_softmax(1))).masked_fill(forget, 0).sum(1).mean()
    pulls = [code_loss(features[name], q, mass, floor, *code) for name, code in codes.items()]
    return PULL * (sum(pulls[:-1]) + HEAD * pulls[-1]) + HINGE * hinge_loss(z, forget), retain_loss


def mix_inputs(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A batch whose first inputs, a share MIXED of them, are mixed with others, up to half and half (mixup)."""
    n = int(MIXED * len(x))
    share = torch.rand(n, *[1] * (x.dim() - 1), generator=generator) / 2
    return torch.cat([torch.lerp(x[:n], x[len(x) - n :], share), x[n:]])
