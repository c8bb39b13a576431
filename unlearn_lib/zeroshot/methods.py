"""The table of unlearning methods: one object a method, which holds everything that is known of it.

Notation: F forget classes, R retain classes; z logits, z0 the original's; p_T = softmax(z / T); xi an impression of its
class y; q = softmax(z0 / T with F at -inf), the answer of the masked original.

- neggrad+   minimise  w_r KL(q || p_T) on xi_R  +  w_f (-log sum_{r in R} p_T,r) on xi_F.
             Descent on the retain classes and bounded ascent on the forget classes (NegGrad+, Kurmanji et al. 2023).
             The forget term moves the logits of F alone; those of R are constants in it.
- distill    minimise  KL(q || p_T)  on xi_F and xi_R  (DELETE, Zhou et al., CVPR 2025).
- published  minimise  0.9 CE(xi_F), then -0.1 CE(xi_R), smoothed by 0.1, in the head's bias alone.
             `Switches` correct its signs, its smoothing and its frozen weights one by one.
- deep       train a student with new last layers on q for drawn pictures, its features pulled to a code: see `deep`.
             forget_weight weighs the pull, retain_weight KL(q || p).
- mask       w_u = 0, b_u = -1e4 for u in F: no training. The mask never lowers retain accuracy: where it changes the
             argmax, the old answer was a forget class, which is wrong for every retain picture.

Each loss of neggrad+ and distill is multiplied by T^2, T = TEMPERATURE. At T = 1 the gradient vanishes once F has no
mass on these impressions. At T = 4 the logits of F keep falling below all others, so that harder inputs are forgotten
too; the lesser logits of retain classes are held as well as the largest (Hinton, Vinyals and Dean 2015).
"""

import copy
import math
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from unlearn_lib.common import UserError, check_classes, get_device, join_names, log
from unlearn_lib.networks import feasible_inputs, find_head, run_on_zeros, split, unwrap
from unlearn_lib.zeroshot.deep import (
    deep_layer,
    find_uncoded_heads,
    inner_layers,
    reinitialised_from,
    train_student,
)
from unlearn_lib.zeroshot.impressions import Impressions, leaf_layers

TEMPERATURE = 4.0
MASKED = -1e4  # finite, so that losses stay defined
UPDATES = 600  # neggrad+ and distill have learned everything after these, however many impressions there are
RUNAWAY = 1e4  # no loss on sensible logits comes near


@dataclass(frozen=True)
class Switches:
    """Corrections of the published update; the defaults are the published code.

    Args:
        prose_signs: ascend the forget loss and descend the retain loss, as the paper says. The code does the reverse.
        smoothing: of the labels, in 0..1.
        weights: train the head's weight too, not its bias alone.
    """

    prose_signs: bool = False
    smoothing: float = 0.1
    weights: bool = False


@dataclass(frozen=True)
class Task:
    """One unlearning, everything resolved: what a method gets. `model` is the original and stays as it is."""

    model: nn.Module
    impressions: Impressions | None
    forget: list[int]
    layer: str
    lr: float | None
    epochs: int
    batch_size: int
    forget_weight: float
    retain_weight: float
    seed: int
    switches: Switches

    def forget_mask(self, num_classes: int, device: torch.device) -> torch.Tensor:
        """Return bool [K], True for the forget classes."""
        mask = torch.zeros(num_classes, dtype=torch.bool, device=device)
        mask[self.forget] = True
        return mask


@dataclass(frozen=True)
class Student:
    """A network in training: the copy that learns, its learning rate, and a (forget loss, retain loss) an epoch."""

    model: nn.Module
    lr: float | None = None
    epochs: int = 0
    losses: Iterable[tuple[float, float]] = ()


@dataclass(frozen=True)
class Method:
    """Everything that is known of one unlearning method.

    Args:
        name: as users write it.
        start: Task -> Student, a copy of the network whose training has not begun.
        numbers: its own lr (None: `default_learning_rate`), epochs, batch_size, forget_weight, retain_weight.
        recipe: of the impressions that it was made for.
        find_layer: the first layer of the tail, where none is given; None: `default_layer` of the trained network.
        check: raises UserError for a network and a layer that the method does not suit.
        needs_impressions: whether it trains at all; one that does not takes no numbers either.
        is_bounded: whether its loss has a lower bound; one without runs away by design.
    """

    name: str
    start: Callable[[Task], Student]
    numbers: dict[str, float | None]
    recipe: str = "natural"
    find_layer: Callable[[nn.Module], str] | None = None
    check: Callable[[nn.Module, str], None] = lambda model, layer: None
    needs_impressions: bool = True
    is_bounded: bool = True


def mask(model: nn.Module, forget: Collection[int]) -> nn.Module:
    """Return a copy of the model that never answers with a forget class: w_u = 0, b_u = -1e4 in the head.

    Example:
        >>> masked = mask(model, forget=[1, 3])
    """
    model = copy.deepcopy(unwrap(model)).eval()
    head = model.get_submodule(find_head(model))
    forget = check_classes(forget, head.out_features)
    if head.bias is None:
        raise UserError("model: its head has no bias, which the mask needs")
    with torch.no_grad():
        head.weight[forget] = 0
        head.bias[forget] = MASKED
    return model


def retain_mass_loss(logits: torch.Tensor, forget: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Return -T^2 log sum_{r in R} softmax(z / T)_r, mean over the batch [N, K]; forget: bool [K].

    It is 0 once F has no mass.
    """
    log_p = (logits / temperature).log_softmax(1)
    return -(temperature**2) * log_p.masked_fill(forget, -torch.inf).logsumexp(1).mean()


def distill_loss(
    logits: torch.Tensor, original: torch.Tensor, forget: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """Return T^2 KL(softmax(original / T with F at -inf) || softmax(logits / T)), mean over the batch [N, K].

    forget: bool [K].
    """
    target = (original.masked_fill(forget, -torch.inf) / temperature).log_softmax(1)
    terms = target.exp() * (target - (logits / temperature).log_softmax(1))
    return temperature**2 * terms.masked_fill(forget, 0).sum(1).mean()  # 0 log 0 = 0


Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]  # logits, original, y, forget


def _distill(logits: torch.Tensor, original: torch.Tensor, labels: torch.Tensor, forget: torch.Tensor) -> torch.Tensor:
    return distill_loss(logits, original, forget, TEMPERATURE)


def _suppress(logits: torch.Tensor, original: torch.Tensor, labels: torch.Tensor, forget: torch.Tensor) -> torch.Tensor:
    held = torch.where(forget, logits, logits.detach())  # otherwise retain logits grow where they lead, on R too
    return retain_mass_loss(held, forget, TEMPERATURE)


def published_losses(switches: Switches) -> tuple[Loss, Loss]:
    """Return the published forget and retain loss: cross-entropy with the signs of the code, or of the prose."""

    def signed_cross_entropy(sign: int) -> Loss:
        return lambda logits, original, labels, forget: (
            sign * F.cross_entropy(logits, labels, label_smoothing=switches.smoothing)
        )

    sign = -1 if switches.prose_signs else 1
    return signed_cross_entropy(sign), signed_cross_entropy(-sign)


def default_learning_rate(tail: nn.Module) -> float:
    """Return min over the tail's layers of (mean row norm |w|) / n, n the number of inputs: a rate for Adam.

    A step of Adam moves each weight by about the rate, so that n inputs move a logit by up to n rate |x|_inf = |w|
    |x|_inf: as far as the length of one row, for any size and scale of the layer.

    Raises:
        UserError: the tail has no such layer.
    """
    weights = [w.detach().flatten(1) for w in tail.parameters() if w.dim() > 1]
    if not weights:
        raise UserError("layer: no matrix is left to learn from it on; expected an earlier one")
    return min((w.norm(dim=1).mean() / w.shape[1]).item() for w in weights)


def _start_tail(task: Task, forget_loss: Loss, retain_loss: Loss) -> Student:
    """Train the tail by AdamW without weight decay, at a rate that falls linearly to 0.

    The head's bias learns n times as fast, n the number of the head's inputs: a step then moves a logit as far through
    the bias, whose input is 1, as through all n weights of its row.
    """
    model, tail = _copy_with_tail(task)
    parameters = list(tail.parameters())
    _warn_without_bias(model, task.layer, parameters)
    lr = task.lr or default_learning_rate(tail)
    layers = [model.get_submodule(name) for name in leaf_layers(model)]
    head = [layer for layer in layers if any(p.dim() > 1 for p in layer.parameters())][-1]
    fast = [p for p in parameters if p is getattr(head, "bias", None)]
    groups = [{"params": [p for p in parameters if p not in {*fast}]}]
    if fast:
        groups.append({"params": fast, "lr": lr * head.weight[0].numel()})
    optimiser = _make_optimiser(model, groups, lr, weight_decay=0.0)
    num_batches = math.ceil(len(task.impressions.labels) / task.batch_size)
    epochs = min(task.epochs, math.ceil(UPDATES / num_batches))
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, epochs * num_batches)

    def step() -> None:
        optimiser.step()
        schedule.step()

    def batches(is_forget: torch.Tensor, generator: torch.Generator) -> Iterable[torch.Tensor]:
        return torch.randperm(len(is_forget), generator=generator).split(task.batch_size)

    losses = _train_epochs(task, tail, epochs, batches, (forget_loss, retain_loss), optimiser, step)
    return Student(model, lr, epochs, losses)


def _start_published(task: Task) -> Student:
    """Train the head's bias, and its weight where a switch says so, as the published code does.

    AdamW with its default weight decay, gradients clipped to norm 5; in each epoch all of F comes before all of R.
    """
    model, tail = _copy_with_tail(task)
    parameters = list(tail.parameters()) if task.switches.weights else [model.get_submodule(task.layer).bias]
    lr = task.lr or default_learning_rate(tail)
    optimiser = _make_optimiser(model, [{"params": parameters}], lr, weight_decay=0.01)

    def step() -> None:
        nn.utils.clip_grad_norm_(parameters, 5)
        optimiser.step()

    def batches(is_forget: torch.Tensor, generator: torch.Generator) -> Iterable[torch.Tensor]:
        order = torch.randperm(len(is_forget), generator=generator)
        return [part for kind in (is_forget, ~is_forget) for part in order[kind[order]].split(task.batch_size)]

    losses = _train_epochs(task, tail, task.epochs, batches, published_losses(task.switches), optimiser, step)
    return Student(model, lr, task.epochs, losses)


def _copy_with_tail(task: Task) -> tuple[nn.Module, nn.Module]:
    """Return a copy of the network and its tail; in eval mode, batch-norm buffers ignore the synthetic batches."""
    model = copy.deepcopy(unwrap(task.model)).eval()
    return model, split(model, task.layer)[1]


def _make_optimiser(model: nn.Module, groups: list[dict], lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Return AdamW over the groups; the rest is frozen, since weight decay moves what no gradient does."""
    model.requires_grad_(False)
    parameters = [p for group in groups for p in group["params"]]
    for parameter in parameters:
        parameter.requires_grad_(True)
    is_large = sum(parameter.numel() for parameter in parameters) > 500_000  # there the update dominates the time
    return torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay, fused=is_large or None)


def _warn_without_bias(model: nn.Module, layer: str, parameters: list[nn.Parameter]) -> None:
    if all(p.dim() > 1 for p in parameters) and feasible_inputs(model, layer).bounds[0] < 0:
        log.warning(
            "layer: from %s on there is no bias and its inputs may have either sign; no weights suppress the forget "
            "classes for all of them, so that pictures of them may still be recognised",
            layer,
        )


def _train_epochs(
    task: Task,
    tail: nn.Module,
    epochs: int,
    batches: Callable[[torch.Tensor, torch.Generator], Iterable[torch.Tensor]],
    losses: tuple[Loss, Loss],
    optimiser: torch.optim.Optimizer,
    step: Callable[[], None],
) -> Iterator[tuple[float, float]]:
    """Train the tail on the impressions; yield each epoch's mean forget and retain loss."""
    device = get_device(tail)
    x = task.impressions.x.to(device)
    labels = task.impressions.labels.to(device)
    with torch.no_grad():
        original = torch.cat([tail(part) for part in x.split(500)])
    forget = task.forget_mask(original.shape[1], device)
    is_forget = forget[labels]
    generator = torch.Generator().manual_seed(task.seed)
    for _ in range(epochs):
        seen: tuple[list[float], list[float]] = ([], [])
        for batch in batches(is_forget.cpu(), generator):
            index = batch.to(device)
            logits = tail(x[index])
            total = 0.0
            for kind, weight in enumerate((task.forget_weight, task.retain_weight)):
                chosen = is_forget[index] == (kind == 0)
                if chosen.any():
                    loss = losses[kind](logits[chosen], original[index][chosen], labels[index][chosen], forget)
                    seen[kind].append(loss.item())
                    total = total + weight * loss
            optimiser.zero_grad()
            total.backward()
            step()
        yield tuple(sum(values) / max(len(values), 1) for values in seen)


def _start_deep(task: Task) -> Student:
    """Train a student whose layers from `task.layer` on are new; see the room `deep`."""
    log.info(
        "deep: the layers before %s stay as they are and reveal F as before; the inputs of %s are learned again",
        task.layer,
        join_names(inner_layers(task.model, task.layer)),
    )
    if uncoded := find_uncoded_heads(task.model):
        log.warning("deep: more than one tensor enters the last layers; no code is learned at %s", join_names(uncoded))
    teacher = copy.deepcopy(unwrap(task.model)).eval().requires_grad_(False)
    student = reinitialised_from(task.model, task.layer, task.seed)
    trained = [(name, p) for name, p in student.named_parameters() if p.requires_grad and p.dim() > 1]
    if same := [name for name, p in trained if torch.equal(p, teacher.get_parameter(name))]:
        log.info("deep: no layer resets these parameters, which start as they were: %s", join_names(same))
    forget = task.forget_mask(count_classes(teacher), get_device(teacher))
    losses = train_student(
        teacher,
        student,
        task.layer,
        task.impressions.x,
        forget,
        lr=task.lr,
        epochs=task.epochs,
        batch_size=task.batch_size,
        forget_weight=task.forget_weight,
        retain_weight=task.retain_weight,
        seed=task.seed,
    )
    return Student(student, task.lr, task.epochs, losses)


def count_classes(model: nn.Module) -> int:
    """Return the number of the network's outputs."""
    return run_on_zeros(unwrap(model), model).shape[1]


def _check_bias(model: nn.Module, layer: str) -> None:
    if model.get_submodule(find_head(model)).bias is None:
        raise UserError("model: its head has no bias, which the mask and the published update change")


def _check_published(model: nn.Module, layer: str) -> None:
    _check_bias(model, layer)
    if layer != find_head(model):
        raise UserError(f"layer: got {layer!r}; published works at the head alone, {find_head(model)}")


def _check_deep(model: nn.Module, layer: str) -> None:
    if not inner_layers(model, layer):
        raise UserError(f"layer: got {layer!r}; deep needs a layer before the head, whose features are to forget")


NUMBERS = {"lr": None, "epochs": 20, "batch_size": 128, "forget_weight": 1.0, "retain_weight": 1.0}
PUBLISHED = {"lr": 1e-3, "epochs": 1000, "batch_size": 16, "forget_weight": 0.9, "retain_weight": 0.1}
DEEP = {"lr": 4e-3, "epochs": 40, "batch_size": 256, "forget_weight": 1.0, "retain_weight": 1.0}

METHODS = {
    method.name: method
    for method in (
        Method("neggrad+", lambda task: _start_tail(task, _suppress, _distill), NUMBERS),
        Method("distill", lambda task: _start_tail(task, _distill, _distill), NUMBERS),
        Method(
            "published",
            _start_published,
            PUBLISHED,
            recipe="published",
            find_layer=find_head,
            check=_check_published,
            is_bounded=False,
        ),
        Method(
            "mask",
            lambda task: Student(mask(task.model, task.forget)),
            NUMBERS,
            find_layer=find_head,
            check=_check_bias,
            needs_impressions=False,
        ),
        Method("deep", _start_deep, DEEP, recipe="drawn", find_layer=deep_layer, check=_check_deep),
    )
}
