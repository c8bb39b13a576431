"""Unlearning from impressions alone: the tail of a copy of the model is trained, the body stays as it is.

F forget classes, R retain classes, z logits, p = softmax(z); xi an impression of its class y.

- neggrad+   minimise  w_r CE(z(xi_R), y) + w_f (-log sum_{r in R} p_r(xi_F)):  descent on the retain classes, bounded
             ascent on the forget classes (NegGrad+, Kurmanji et al. 2023, made bounded).
- distill    minimise  KL(softmax(z0 with F at -inf) || p)  on xi_F and xi_R, z0 the original's logits
             (DELETE, CVPR 2025).
- published  minimise  0.9 CE(xi_F), then -0.1 CE(xi_R), both smoothed by 0.1, in the head's bias alone; `Switches`
             mend its signs, its smoothing and its frozen weights one by one.
- mask       w_u = 0, b_u = -1e4 for u in F: no training. It never lowers retain accuracy: where it changes the argmax,
             that was a forget class, wrong for every retain picture. The baseline every row stands beside.
"""

import copy
import time
from collections.abc import Callable, Collection
from dataclasses import KW_ONLY, dataclass

import torch
from torch import nn
from torch.nn import functional as F

from unlearn_lib.common import UserError, check_forget, check_positive, progress
from unlearn_lib.networks import find_head, split
from unlearn_lib.zeroshot.impressions import Impressions, check_impressions

METHODS = ("neggrad+", "distill", "published", "mask")
NUMBERS = {"lr": 1e-3, "epochs": 20, "batch_size": 128, "forget_weight": 1.0, "retain_weight": 1.0}
PUBLISHED = {"lr": 1e-3, "epochs": 1000, "batch_size": 16, "forget_weight": 0.9, "retain_weight": 0.1}
MASKED = -1e4  # finite, so that losses stay defined
RUNAWAY = 1e4  # no loss on sensible logits comes near


def mask(model: nn.Module, forget: Collection[int]) -> nn.Module:
    """A copy of the model that never answers with a forget class: w_u = 0, b_u = -1e4 in the head."""
    model = copy.deepcopy(model).eval()
    head = model.get_submodule(find_head(model))
    if head.bias is None:
        raise UserError("model: its head has no bias, which the mask needs")
    with torch.no_grad():
        head.weight[list(forget)] = 0
        head.bias[list(forget)] = MASKED
    return model


def retain_mass_loss(logits: torch.Tensor, forget: torch.Tensor) -> torch.Tensor:
    """-log sum_{r in R} p_r, mean over the batch; forget: bool [K]. At least 0, and 0 once no mass is on F."""
    return -logits.log_softmax(1).masked_fill(forget, -torch.inf).logsumexp(1).mean()


def distill_loss(logits: torch.Tensor, original: torch.Tensor, forget: torch.Tensor) -> torch.Tensor:
    """KL(softmax(original with F at -inf) || softmax(logits)), mean over the batch; forget: bool [K]."""
    target = original.masked_fill(forget, -torch.inf).log_softmax(1)
    terms = target.exp() * (target - logits.log_softmax(1))
    return terms.masked_fill(forget, 0).sum(1).mean()  # 0 log 0 = 0


@dataclass(frozen=True)
class Switches:
    """The published update's four peculiarities but one (the impressions), each mended by turning its switch.

    prose_signs: up on the forget loss and down on the retain loss, as the prose says; the code does the reverse.
    smoothing: of the labels. weights: train the head's weight too, and not its bias alone.
    """

    prose_signs: bool = False
    smoothing: float = 0.1
    weights: bool = False


@dataclass
class ZeroShotUnlearner:
    """Unlearn `forget` in a copy of `model`, from `impressions` alone; `unlearn()` does it.

    layer: the first of the tail, that of the impressions where none is given. lr: AdamW's learning rate.
    switches: changes to the published update, without effect on the other methods.
    Raises ValueError, before any work, for what it does not accept.
    """

    model: nn.Module
    impressions: Impressions
    forget: Collection[int]
    _: KW_ONLY
    method: str = "neggrad+"
    layer: str | None = None
    lr: float = 3e-4
    epochs: int = 20
    forget_weight: float = 1.0
    retain_weight: float = 1.0
    batch_size: int = 128
    seed: int = 0
    switches: Switches = Switches()

    def __post_init__(self):
        self.layer = self.layer or self.impressions.layer
        check_numbers(self.lr, self.epochs, self.batch_size, self.forget_weight, self.retain_weight)
        check_method(self.model, self.method, self.layer)
        self.forget = check_forget(self.forget, int(self.impressions.labels.max()) + 1)
        if self.layer != self.impressions.layer:
            raise UserError(
                f"layer: {self.layer!r} given, but the impressions are inputs of {self.impressions.layer!r}"
            )

    def unlearn(self, on_step: Callable[[dict], bool | None] | None = None) -> tuple[nn.Module, dict, float]:
        """Returns (model, history, seconds): a model of the same class, and forget and retain loss of each epoch.

        Stops early where the loss on the impressions has not fallen by 0.1 % in five epochs (not `published`).
        on_step: gets {"epoch", "epochs", "forget_loss", "retain_loss", "model"} after each epoch; False stops.
        Raises ValueError where the learning rate makes the loss run away.
        """
        begin = time.perf_counter()
        history = {"forget_loss": [], "retain_loss": []}
        if self.method == "mask":
            return mask(self.model, self.forget), history, time.perf_counter() - begin

        model = copy.deepcopy(self.model).eval()  # eval: batch-norm buffers stay as they are on made-up batches
        asked = [p.requires_grad for p in model.parameters()]
        _, tail = split(model, self.layer)
        device = next(model.parameters()).device
        x, labels = self.impressions.x.to(device), self.impressions.labels.to(device)
        with torch.no_grad():
            original = torch.cat([tail(part) for part in x.split(500)])
        forget = torch.zeros(original.shape[1], dtype=torch.bool, device=device)
        forget[self.forget] = True
        trained = list(tail.parameters())
        if self.method == "published" and not self.switches.weights:
            trained = [model.get_submodule(self.layer).bias]
        model.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)
        # no weight decay, which would move what no gradient moves; the published update keeps AdamW's default
        optimiser = torch.optim.AdamW(trained, lr=self.lr, weight_decay=0.01 if self.method == "published" else 0.0)

        generator = torch.Generator().manual_seed(self.seed)
        for epoch in progress(range(self.epochs), f"unlearning, {self.method}"):
            sums, counts = [0.0, 0.0], [0, 0]
            for index in self._batches(forget[labels].cpu(), generator):
                losses = self._losses(tail(x[index]), original[index], labels[index], forget)
                loss = sum(w * part for w, part in zip((self.forget_weight, self.retain_weight), losses, strict=True))
                optimiser.zero_grad()
                loss.backward()
                if self.method == "published":
                    nn.utils.clip_grad_norm_(trained, 5)
                optimiser.step()
                for i, part in enumerate(losses):
                    if torch.is_tensor(part):
                        sums[i], counts[i] = sums[i] + part.item(), counts[i] + 1
            for name, total, count in zip(history, sums, counts, strict=True):
                history[name].append(total / max(count, 1))
            bound = float("inf") if self.method == "published" else RUNAWAY  # whose ascent has no bound
            if not max(abs(values[-1]) for values in history.values()) < bound:
                raise UserError(f"lr: with {self.lr} the loss runs away in epoch {epoch + 1}; give a smaller one")
            state = {"epoch": epoch + 1, "epochs": self.epochs, "model": model}
            state |= {name: values[-1] for name, values in history.items()}
            if on_step is not None and on_step(state) is False:
                break
            if self.method != "published" and self._settled(history):
                break
        for parameter, flag in zip(model.parameters(), asked, strict=True):
            parameter.requires_grad_(flag)
        return model, history, time.perf_counter() - begin

    def _batches(self, is_forget: torch.Tensor, generator: torch.Generator) -> list[torch.Tensor]:
        """Positions of the impressions, in batches: mixed, but for `published` all of F, then all of R."""
        order = torch.randperm(len(is_forget), generator=generator)
        if self.method == "published":
            return [*order[is_forget[order]].split(self.batch_size), *order[~is_forget[order]].split(self.batch_size)]
        return list(order.split(self.batch_size))

    def _losses(self, logits, original, labels, forget) -> list[torch.Tensor | float]:
        """Forget and retain loss of one batch; 0.0 where it holds no impression of that kind."""
        losses = []
        for retain, mine in enumerate((forget[labels], ~forget[labels])):
            z, y = logits[mine], labels[mine]
            if not len(z):
                losses.append(0.0)
            elif self.method == "distill":
                losses.append(distill_loss(z, original[mine], forget))
            elif self.method == "published":
                up = bool(retain) != self.switches.prose_signs
                losses.append((-1 if up else 1) * F.cross_entropy(z, y, label_smoothing=self.switches.smoothing))
            elif retain:
                losses.append(F.cross_entropy(z, y, label_smoothing=self.impressions.smoothing))
            else:
                losses.append(retain_mass_loss(z, forget))
        return losses

    def _settled(self, history: dict) -> bool:
        total = [self.forget_weight * f + self.retain_weight * r for f, r in zip(*history.values(), strict=True)]
        return len(total) > 5 and min(total[-5:]) > 0.999 * min(total[:-5])


def check_method(model: nn.Module, method: str, layer: str) -> None:
    """Raise ValueError for a method that there is not, or that does not work at `layer`."""
    if method not in METHODS:
        raise UserError(f"method: {method!r} given; {', '.join(METHODS)} are accepted")
    split(model, layer)
    if method == "mask":
        find_head(model)
    if method == "published" and layer != find_head(model):
        raise UserError(f"layer: {layer!r} given; published works at the head, {find_head(model)}, alone")


def check_numbers(
    lr: float, epochs: int, batch_size: int, forget_weight: float = 1.0, retain_weight: float = 1.0
) -> None:
    """Raise ValueError for a number that unlearning does not accept."""
    check_positive(lr=lr, epochs=epochs, batch_size=batch_size)
    for name, weight in (("forget_weight", forget_weight), ("retain_weight", retain_weight)):
        if not 0 <= weight < float("inf"):
            raise UserError(f"{name}: {weight} given; a finite number from 0 on is accepted")


def default_recipe(method: str = METHODS[0]) -> str:
    """The impressions that a method was made for."""
    return "published" if method == "published" else "calibrated"


def unlearning_numbers(method: str, given: dict) -> dict:
    """The method's numbers, those that are `given` (and not None) put in their place. Raises UserError on others."""
    unknown = sorted(given.keys() - NUMBERS.keys())
    if unknown:
        raise UserError(f"{unknown[0]}: no such number; {', '.join(NUMBERS)} are accepted")
    numbers = PUBLISHED if method == "published" else NUMBERS
    return numbers | {name: value for name, value in given.items() if value is not None}


def check_choice(model: nn.Module, method: str, layer: str | None, samples: int, recipe: str | None, numbers: dict):
    """Raise UserError for a choice that unlearning this kind of network does not accept; it need not be trained."""
    numbers = unlearning_numbers(method, numbers)
    layer = layer or (find_head(model) if method in ("mask", "published") else "input")
    check_method(model, method, layer)
    check_impressions(model, layer, samples, recipe or default_recipe(method), None)
    check_numbers(**numbers)
