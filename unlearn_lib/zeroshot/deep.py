"""Deep: forgetting in the features and not only in the answer, without any data.

A student keeps the original's layers before `layer`. All layers from there on are reinitialised and learn the answers
of the masked original. The student never sees an answer of F, and its features are pulled to a code that can carry the
answers of R and nothing else. z0 the original's logits, q = softmax(z0 with F at -inf) the masked original's answer,
g = sum_{u in F} softmax(z0)_u the original's mass on F, z the student's logits, h the input of one of its layers:

    minimise  w_r KL(q || softmax z)  +  w_f (sum over layers of PULL R mean[(g + e (1 - g)) |h / s - q M|^2]
                                               + HINGE max(0, max_{u in F} z_u - min_{r in R} z_r + 2))

M is a code: each class of R owns equally many coordinates of h, F none. R is the number of those classes. s is the size
of the original's features, so that the student's become as large. Where the original sees no F, the pull has the weight
e, which falls during training from the first FLOOR to the second: once the code stands, features may say more there,
since they say nothing of F. At the head's input the pull is HEAD times as strong.

- reinitialised: a student that starts at the original keeps F in its features, since no loss removes them (probe 59 of
  59.5 %).
- the code: the masked original's logits reveal F (a probe on them finds 57 of 60 %), its softmax does not (25 %). A
  student of the answers alone learns F with the logits.
- drawn pictures: the loss holds on what the student sees; impressions are too few kinds of pictures (`drawn_inputs`).

Distillation without data: Frank and Davis, CVPR 2025. The masked teacher: DELETE, Zhou et al., CVPR 2025. The code is
new here; a bottleneck of the answers is what concept bottlenecks are (Koh et al., ICML 2020).
"""

import copy
from collections.abc import Collection, Iterator

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from unlearn_lib.common import UserError, fast_arithmetic, get_device
from unlearn_lib.networks import split, splittable_layers, traced_once, unwrap
from unlearn_lib.zeroshot.batches import draw_for_each, predict_in_batches

PULL = 1.0
HEAD = 10.0
HINGE = 0.1
FLOOR = (0.4, 0.05)  # e at the start of training, and at the end
FALL = 0.7  # share of training in which e falls
MIXED = 0.3  # share of a batch that is mixed with other inputs, up to half and half
NEW_LAYERS = 3  # layers with weights that are reinitialised by default
MEASURED = 1000  # inputs on which the size of features is measured


def deep_layer(model: nn.Module) -> str:
    """Return the layer from which `deep` reinitialises by default: that of the last NEW_LAYERS layers with weights."""
    return _weighted_layers(model)[-NEW_LAYERS:][0]


@traced_once()
def inner_layers(model: nn.Module, layer: str) -> list[str]:
    """Return the layers with weights in the tail from `layer` on whose inputs are features that a student learns."""
    body, tail = split(model, layer)
    names = {name for name, _ in tail.named_modules()}
    found = [name for name in _weighted_layers(model) if name in names]
    if found and {*split(model, found[0])[0].parameters()} <= {*body.parameters()}:
        return found[1:]  # no weights lie before the first, so that its input is fixed
    return found


@traced_once()
def find_uncoded_heads(model: nn.Module) -> list[str]:
    """Return the layers with weights in the last tail that have another input: heads, where there is more than one."""
    last = _weighted_layers(model)[-1]
    _, tail = split(model, last)
    names = [name for name, part in tail.named_modules() if _has_matrix(part)]
    return [name for name in names if _find_input(tail.graph, name) is not _find_input(tail.graph, last)]


def _weighted_layers(model: nn.Module) -> list[str]:
    """Return the layers with weights at which a network can be cut, in order of execution."""
    found = [name for name in splittable_layers(model) if _has_matrix(model.get_submodule(name))]
    if not found:
        raise UserError(f"model: got {type(model).__name__}; expected a network that can be cut before a layer")
    return found


def _has_matrix(part: nn.Module) -> bool:
    return not list(part.children()) and any(p.dim() > 1 for p in part.parameters())


def reinitialised_from(model: nn.Module, layer: str, seed: int = 0) -> nn.Module:
    """Return a copy of the model whose layers from `layer` on are reinitialised from the seed.

    The layers before it keep their bits. So do parameters that belong to no layer (tokens, positions, scales of a
    branch).
    """
    student = copy.deepcopy(unwrap(model)).eval().requires_grad_(False)
    _, tail = split(student, layer)
    trained = {*tail.parameters()}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for name, _ in tail.named_modules():
            part = student.get_submodule(name)  # the tail holds traced layers as bare modules with their parameters
            if isinstance(getattr(part, "weight", None), nn.Parameter) and part.weight.dim() > 1:
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
                if getattr(part, "bias", None) is not None:
                    nn.init.zeros_(part.bias)
            elif trained.issuperset(part.parameters()):
                private = getattr(part, "_reset_parameters", lambda: None)  # that of attention
                getattr(part, "reset_parameters", private)()
    for parameter in trained:
        parameter.requires_grad_(True)
    return student


def make_codes(model: nn.Module, layer: str, x: Tensor, forget: Tensor) -> dict[str, tuple]:
    """Return for each of `inner_layers` the code M [K, D] and the size s of the original's features for inputs x.

    M_r is 1 on the D / R coordinates that class r owns, in the order of the classes. M_u is 0 for u in F.
    """
    _, tail = split(model, layer)
    with torch.no_grad():
        _, features = with_features(tail, inner_layers(model, layer))(x)
    retain = (~forget).nonzero()[:, 0]
    codes = {}
    for name, h in features.items():
        h = h.flatten(1).float()
        coordinates = h.shape[1]
        owners = retain.repeat_interleave(max(1, coordinates // len(retain)))
        code = torch.zeros(len(forget), coordinates, device=h.device)
        code[owners, torch.arange(len(owners)) % coordinates] = 1
        codes[name] = code, h.square().mean().mul(len(retain)).sqrt().clamp_min(1e-6).item()
    return codes


def with_features(tail: fx.GraphModule, layers: Collection[str]) -> fx.GraphModule:
    """Return the tail as a network that returns its logits and, by name, the input of each of `layers`."""
    graph = fx.Graph()
    copies = {}
    z = graph.graph_copy(tail.graph, copies)
    graph.output((z, {name: copies[_find_input(tail.graph, name)] for name in layers}))
    return fx.GraphModule(tail, graph)


def _find_input(graph: fx.Graph, layer: str) -> fx.Node:
    """Return the node that enters a layer. A hook would miss layers whose own operations are traced."""
    nodes = [node for node in graph.nodes if layer in (node.target, *node.meta.get("nn_module_stack", ()))]
    return next(source for node in nodes for source in node.all_input_nodes if source.op != "get_attr")


def code_loss(h: Tensor, q: Tensor, mass: Tensor, floor: float, code: Tensor, size: float) -> Tensor:
    """Return R mean[(g + e (1 - g)) |h / s - q M|^2] for features h [N, ...], g = `mass` [N], e = `floor`."""
    off = (h.flatten(1).float() / size - q @ code).square().mean(1)
    return ((mass + floor * (1 - mass)) * off).mean() * (code.sum(1) > 0).sum()


def hinge_loss(z: Tensor, forget: Tensor) -> Tensor:
    """Return max(0, max_{u in F} z_u - min_{r in R} z_r + 2), mean over the batch: F stays below all of R, but near."""
    return F.relu(z[:, forget].amax(1) - z[:, ~forget].amin(1) + 2).mean()


def train_student(
    model: nn.Module,
    student: nn.Module,
    layer: str,
    x: Tensor,
    forget: Tensor,
    *,
    lr: float,
    epochs: int,
    batch_size: int,
    forget_weight: float = 1.0,
    retain_weight: float = 1.0,
    seed: int = 0,
) -> Iterator[tuple[float, float]]:
    """Train a student on the masked model's answers, by AdamW with a one-cycle learning rate.

    Inputs are drawn with the inverse square root of how many share their answer, and a share of them is mixed.

    Args:
        student: the result of `reinitialised_from` at the same layer.
        x: inputs [N, *shape] of the layer.
        forget: bool [K].

    Yields:
        Each epoch's mean forget and retain loss: the terms of w_f and w_r above.
    """
    device = get_device(model)
    _, teacher = split(model, layer)
    _, tail = split(student, layer)
    spread = x[torch.linspace(0, len(x) - 1, MEASURED).long()].to(device)
    codes = make_codes(model, layer, spread, forget)
    network = with_features(tail, codes)
    answers = predict_in_batches(teacher, x, device)
    chances = answers.bincount().clamp_min(1).double().rsqrt()[answers]
    steps = -(-len(x) // batch_size)
    optimiser = torch.optim.AdamW([p for p in tail.parameters() if p.requires_grad], lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=epochs * steps + 1, pct_start=0.15)
    generator = torch.Generator().manual_seed(seed)
    first, last = FLOOR
    for epoch in range(epochs):
        floor = first + (last - first) * min(1.0, epoch / (FALL * epochs))
        sums = torch.zeros(2)
        for index in torch.multinomial(chances, steps * batch_size, True, generator=generator).view(steps, -1):
            inputs = mix_inputs(x[index], generator).to(device)
            forget_loss, retain_loss = student_losses(teacher, network, inputs, forget, codes, floor)
            optimiser.zero_grad()
            (forget_weight * forget_loss + retain_weight * retain_loss).backward()
            optimiser.step()
            schedule.step()
            sums += torch.stack([forget_loss.detach(), retain_loss.detach()]).cpu() / steps
        yield tuple(sums.tolist())


def student_losses(
    teacher: nn.Module, student: nn.Module, x: Tensor, forget: Tensor, codes: dict[str, tuple], floor: float
) -> tuple[Tensor, Tensor]:
    """Return the terms of w_f and w_r for a batch x and a student made by `with_features`.

    The last code is the head's.
    """
    with fast_arithmetic(x.device):
        with torch.no_grad():
            z0 = teacher(x).float()
        z, features = student(x)
    z = z.float()
    mass = z0.softmax(1)[:, forget].sum(1)
    log_q = z0.masked_fill(forget, -torch.inf).log_softmax(1)
    q = log_q.exp()
    retain_loss = (q * (log_q - z.log_softmax(1))).masked_fill(forget, 0).sum(1).mean()
    *pulls, head = [code_loss(features[name], q, mass, floor, *code) for name, code in codes.items()]
    return PULL * (sum(pulls) + HEAD * head) + HINGE * hinge_loss(z, forget), retain_loss


def mix_inputs(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mix the first inputs of a batch, a share MIXED of them, with the last, up to half and half (mixup)."""
    n = int(MIXED * len(x))
    share = draw_for_each(x[:n], generator) / 2
    return torch.cat([torch.lerp(x[:n], x[len(x) - n :], share), x[n:]])
