"""Unlearning methods, each a short function with its equation, and the mask beside which they all stand.

F forget classes, R retain classes, z logits, z0 the original's, p_T = softmax(z / T); xi an impression of its class y.
q = softmax(z0 / T with F at -inf) is what the masked original answers.

- neggrad+   minimise  w_r KL(q || p_T) on xi_R  +  w_f (-log sum_{r in R} p_T,r) on xi_F:  descent on the retain
             classes, ascent on the forget classes (NegGrad+, Kurmanji et al. 2023), bounded, and by the logits of F
             alone: those of R are held constant in the second term.
- distill    minimise  KL(q || p_T)  on xi_F and xi_R  (DELETE, Zhou et al., CVPR 2025).
- published  minimise  0.9 CE(xi_F), then -0.1 CE(xi_R), both smoothed by 0.1, in the head's bias alone; `Switches`
             mend its signs, its smoothing and its frozen weights one by one.
- deep       a student, its last layers made anew, learns q from drawn pictures, its features pulled to a code of q: see
             `deep`. Its numbers: forget_weight of the pull, retain_weight of KL(q || p).
- mask       w_u = 0, b_u = -1e4 for u in F: no training. It never lowers retain accuracy: where it changes the argmax,
             that was a forget class, wrong for every retain picture.

Each loss stands times T^2, T = TEMPERATURE. At T = 1 the gradient is gone once F's share of *these* inputs is; at 4 the
logits of F go on falling below all others, so that inputs harder than impressions are forgotten too, and a retain
class's lesser logits are held as well as its largest (Hinton, Vinyals and Dean 2015).
"""

import copy
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from unlearn_lib.common import UserError, as_number, check_classes, check_number, check_positive
from unlearn_lib.networks import find_head, shares_weights, traced_once, unwrap
from unlearn_lib.zeroshot.deep import deep_layer, inner_layers
from unlearn_lib.zeroshot.impressions import check_recipe

METHODS = ("neggrad+", "distill", "published", "mask", "deep")
NUMBERS = {"lr": None, "epochs": 20, "batch_size": 128, "forget_weight": 1.0, "retain_weight": 1.0}
PUBLISHED = {"lr": 1e-3, "epochs": 1000, "batch_size": 16, "forget_weight": 0.9, "retain_weight": 0.1}
DEEP = {"lr": 4e-3, "epochs": 40, "batch_size": 256, "forget_weight": 1.0, "retain_weight": 1.0}
TEMPERATURE = 4.0
MASKED = -1e4  # finite, so that losses stay defined


def mask(model: nn.Module, forget: Collection[int]) -> nn.Module:
    """A copy of the model that never answers with a forget class: w_u = 0, b_u = -1e4 in the head."""
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
    """-T^2 log sum_{r in R} softmax(z / T)_r, mean over the batch; forget: bool [K]. 0 once F has no mass."""
    log_p = (logits / temperature).log_softmax(1)
    return -(temperature**2) * log_p.masked_fill(forget, -torch.inf).logsumexp(1).mean()


def distill_loss(
    logits: torch.Tensor, original: torch.Tensor, forget: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """T^2 KL(softmax(original / T with F at -inf) || softmax(logits / T)), mean over the batch; forget: bool [K]."""
    target = (original.masked_fill(forget, -torch.inf) / temperature).log_softmax(1)
    terms = target.exp() * (target - (logits / temperature).log_softmax(1))
    return temperature**2 * terms.masked_fill(forget, 0).sum(1).mean()  # 0 log 0 = 0


@dataclass(frozen=True)
class Switches:
    """The published update's four peculiarities but one (the impressions), each mended by turning its switch.

    prose_signs: up on the forget loss and down on the retain loss, as the prose says; the code does the reverse.
    smoothing: of the labels. weights: train the head's weight too, and not its bias alone.
    """

    prose_signs: bool = False
    smoothing: float = 0.1
    weights: bool = False


def batch_losses(
    method: str,
    logits: torch.Tensor,
    original: torch.Tensor,
    labels: torch.Tensor,
    forget: torch.Tensor,
    switches: Switches = Switches(),
) -> list[torch.Tensor | float]:
    """Forget and retain loss of one batch; 0.0 where it holds no impression of that kind. forget: bool [K]."""
    losses = []
    for retain, chosen in enumerate((forget[labels], ~forget[labels])):
        z, y = logits[chosen], labels[chosen]
        if not len(z):
            losses.append(0.0)
        elif method == "published":
            up = bool(retain) != switches.prose_signs
            losses.append((-1 if up else 1) * F.cross_entropy(z, y, label_smoothing=switches.smoothing))
        elif retain or method == "distill":
            losses.append(distill_loss(z, original[chosen], forget, TEMPERATURE))
        else:
            held = torch.where(forget, z, z.detach())  # else retain logits grow where they lead already, on R too
            losses.append(retain_mass_loss(held, forget, TEMPERATURE))
    return losses


def default_recipe(method: str = METHODS[0]) -> str:
    """The impressions that a method was made for."""
    return {"published": "published", "deep": "drawn"}.get(method, "natural")


def unlearning_numbers(method: str, given: dict) -> dict:
    """The method's numbers, those that are `given` (and not None) put in their place. Raises UserError on others.

    A learning rate of None is left to the unlearner, see `default_learning_rate`.
    """
    unknown = sorted(given.keys() - NUMBERS.keys())
    if unknown:
        raise UserError(f"{unknown[0]}: no such number; {', '.join(NUMBERS)} are accepted")
    numbers = {"published": PUBLISHED, "deep": DEEP}.get(method, NUMBERS)
    return numbers | {name: as_number(name, value) for name, value in given.items() if value is not None}


def method_layer(model: nn.Module, method: str) -> str | None:
    """The layer that a method was made for; None: that of `default_layer`, which needs a trained model."""
    if method == "deep":
        return deep_layer(model)
    return find_head(model) if method in ("mask", "published") else None


@traced_once()
def check_choice(model: nn.Module, method: str, layer: str | None, samples: int, recipe: str | None, numbers: dict):
    """Raise UserError for a choice that unlearning this kind of network does not accept; it need not be trained."""
    numbers = unlearning_numbers(method, numbers)
    layer = (method_layer(model, method) or "input") if layer is None else layer
    check_method(model, method, layer)
    check_number("samples", samples, whole=True, least=1)
    check_recipe(model, layer, default_recipe(method) if recipe is None else recipe)
    check_numbers(**numbers)


def check_method(model: nn.Module, method: str, layer: str) -> None:
    """Raise UserError for a method that there is not, or that does not work at `layer`."""
    if method not in METHODS:
        raise UserError(f"method: {method!r} given; {', '.join(METHODS)} are accepted")
    if shares_weights(model, layer):
        raise UserError(
            f"layer: {layer!r} given, but some weights are used before and behind it; one where none are is accepted"
        )
    if method in ("mask", "published") and model.get_submodule(find_head(model)).bias is None:
        raise UserError(f"model: its head has no bias, which {method} needs")
    if method == "deep" and not inner_layers(model, layer):
        raise UserError(
            f"layer: {layer!r} given; deep works before the head alone, its features being what is to forget"
        )
    if method == "published" and layer != find_head(model):
        raise UserError(f"layer: {layer!r} given; published works at the head, {find_head(model)}, alone")


def check_numbers(
    lr: float | None, epochs: int, batch_size: int, forget_weight: float = 1.0, retain_weight: float = 1.0
) -> None:
    """Raise UserError for a number that unlearning does not accept."""
    check_positive(**({} if lr is None else {"lr": lr}), epochs=epochs, batch_size=batch_size)
    for name, weight in (("forget_weight", forget_weight), ("retain_weight", retain_weight)):
        if not 0 <= weight < float("inf"):
            raise UserError(f"{name}: {weight} given; a finite number from 0 on is accepted")
