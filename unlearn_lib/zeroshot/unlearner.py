"""The unlearner: the tail of a copy of the model is trained on impressions alone, the body stays as it is.

It reaches forget accuracy 0.00 at the mask's retain accuracy on LeNet5/MNIST {1, 2, 3, 4}, KarpathyNet/CIFAR-10
{3, 4, 8} (one seed each here, three in the README) and on EfficientNet-Lite0 with 150 of ImageNet's 1,000 classes; and
on five small networks with features of either sign (tanh, GroupNorm, LayerNorm, none, leaky ReLU) on shapes {1, 5, 7}.
"""

import copy
import math
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import KW_ONLY, dataclass, field

import torch
from torch import nn

from unlearn_lib.common import UserError, as_number, check_forget, get_device, join_names, log, progress
from unlearn_lib.networks import feasible_inputs, run_on_zeros, split, unwrap
from unlearn_lib.zeroshot.deep import find_uncoded_heads, inner_layers, reinitialised_from, train_student
from unlearn_lib.zeroshot.impressions import Impressions, leaf_layers
from unlearn_lib.zeroshot.methods import DEEP, Switches, batch_losses, check_method, check_numbers, mask

UPDATES = 600  # after which nothing is left to learn, however many impressions there are
RUNAWAY = 1e4  # no loss on sensible logits comes near


def default_learning_rate(tail: nn.Module) -> float:
    """The least mean row norm / number of inputs, |w| / n, of the tail's layers: a learning rate for Adam.

    A step of Adam moves each weight by about the rate, so that n inputs move a logit by up to n rate |x|_inf = |w|
    |x|_inf: as far as one row's length, whatever the layer's size and scale. Raises UserError without such a layer.
    """
    weights = [w.detach().flatten(1) for w in tail.parameters() if w.dim() > 1]
    if not weights:
        raise UserError("layer: no matrix is left to learn from it on; an earlier one is accepted")
    return min((w.norm(dim=1).mean() / w.shape[1]).item() for w in weights)


@dataclass
class ZeroShotUnlearner:
    """Unlearn `forget` in a copy of `model`, from `impressions` alone; `unlearn()` does it.

    layer: the first of the tail, that of the impressions where none is given. lr: AdamW's learning rate, that of
    `default_learning_rate` where none is given; the head's bias learns n times as fast, n its inputs.
    epochs: passes over the impressions at most; the last one is that in which `UPDATES` updates are reached. switches:
    changes to the published update, without effect on the other methods.
    Raises UserError, before any work, for what it does not accept.
    """

    model: nn.Module
    impressions: Impressions
    forget: Collection[int]
    _: KW_ONLY
    method: str = "neggrad+"
    layer: str | None = None
    lr: float | None = None
    epochs: int = 20
    forget_weight: float = 1.0
    retain_weight: float = 1.0
    batch_size: int = 128
    seed: int = 0
    switches: Switches = field(default_factory=Switches)

    def __post_init__(self):
        self.layer = self.impressions.layer if self.layer is None else str(self.layer)
        for name in ("lr", "epochs", "forget_weight", "retain_weight", "batch_size", "seed"):
            if name != "lr" or self.lr is not None:
                setattr(self, name, as_number(name, getattr(self, name)))
        check_numbers(self.lr, self.epochs, self.batch_size, self.forget_weight, self.retain_weight)
        check_method(self.model, self.method, self.layer)
        self.forget = check_forget(self.forget, run_on_zeros(self.model, unwrap(self.model)).shape[1])
        without = sorted({*self.forget} - {*self.impressions.labels.tolist()})
        if without and self.impressions.recipe != "drawn":  # of which a class may be missing
            raise UserError(f"forget: {self.forget} given, but there are no impressions of {without}; make them too")
        if self.layer != self.impressions.layer:
            raise UserError(
                f"layer: {self.layer!r} given, but the impressions are inputs of {self.impressions.layer!r}"
            )

    def unlearn(self, on_step: Callable[[dict], bool | None] | None = None) -> tuple[nn.Module, dict, float]:
        """Returns (model, history, seconds): a model of the same class, and forget and retain loss of each epoch.

        on_step: gets {"epoch", "epochs", "forget_loss", "retain_loss", "model"} after each epoch; False stops.
        Raises UserError where the learning rate makes the loss run away.
        """
        begin, history = time.perf_counter(), {"forget_loss": [], "retain_loss": []}
        if self.method == "mask":
            return mask(self.model, self.forget), history, time.perf_counter() - begin
        asked = [parameter.requires_grad for parameter in unwrap(self.model).parameters()]
        if self.method == "deep":
            model, rate, epochs = (
                reinitialised_from(self.model, self.layer, self.seed),
                self.lr or DEEP["lr"],
                self.epochs,
            )
            steps = self._lessons(model, rate)
        else:  # eval: batch-norm buffers stay as they are on made-up batches
            model = copy.deepcopy(unwrap(self.model)).eval()
            _, tail = split(model, self.layer)
            optimiser, schedule, epochs = self._optimiser(model, tail)
            rate, steps = optimiser.defaults["lr"], self._epochs(tail, optimiser, schedule, epochs)
        limit = math.inf if self.method == "published" else RUNAWAY  # its ascent has no bound
        for epoch, losses in enumerate(progress(steps, f"unlearning, {self.method}", epochs), 1):
            for name, loss in zip(history, losses, strict=True):
                history[name].append(loss)
            if not all(abs(loss) < limit for loss in losses):
                raise UserError(f"lr: with {rate} the loss runs away in epoch {epoch}; give a smaller one")
            state = {"epoch": epoch, "epochs": epochs, "model": model}
            if on_step is not None and on_step(state | dict(zip(history, losses, strict=True))) is False:
                break
        for parameter, flag in zip(model.parameters(), asked, strict=True):
            parameter.requires_grad_(flag)
        return model, history, time.perf_counter() - begin

    def _lessons(self, student: nn.Module, rate: float) -> Iterator[tuple[float, float]]:
        """The epochs of `deep`; the original is its teacher."""
        numbers = {"lr": rate, "epochs": self.epochs, "batch_size": self.batch_size, "seed": self.seed}
        numbers |= {"forget_weight": self.forget_weight, "retain_weight": self.retain_weight}
        log.info(
            "deep: all before %s is untouched and tells of F what it told; made anew: the features that enter %s",
            self.layer,
            join_names(inner_layers(self.model, self.layer)),
        )
        if behind := find_uncoded_heads(self.model):
            log.warning(
                "deep: more than one tensor enters the last layers; no code is pulled at %s", join_names(behind)
            )
        teacher = copy.deepcopy(unwrap(self.model)).eval().requires_grad_(False)
        trained = [(name, p) for name, p in student.named_parameters() if p.requires_grad and p.dim() > 1]
        if same := [name for name, p in trained if torch.equal(p, teacher.get_parameter(name))]:
            log.info("deep: no layer knows how to make anew, and so begins as it was: %s", join_names(same))
        forget = torch.zeros(run_on_zeros(teacher, teacher).shape[1], dtype=torch.bool, device=get_device(teacher))
        forget[self.forget] = True
        return train_student(teacher, student, self.layer, self.impressions.x, forget, **numbers)

    def _optimiser(self, model: nn.Module, tail: nn.Module) -> tuple:
        """AdamW over the tail alone, its schedule, and the number of epochs; everything else is frozen."""
        published = self.method == "published"
        trained = list(tail.parameters())
        if not published and all(p.dim() > 1 for p in trained) and feasible_inputs(model, self.layer).bounds[0] < 0:
            log.warning(
                "layer: from %s on there is no bias, and what enters it may be of either sign, so that no weights keep "
                "the forget classes down for all of it; pictures of them may still be recognised",
                self.layer,
            )
        if published and not self.switches.weights:
            trained = [model.get_submodule(self.layer).bias]
        model.requires_grad_(False)
        for parameter in trained:
            parameter.requires_grad_(True)
        large = sum(parameter.numel() for parameter in trained) > 500_000  # where the update is what costs
        # no weight decay, which would move what no gradient moves; the published update keeps AdamW's default
        lr, decay = self.lr or default_learning_rate(tail), 0.01 if published else 0.0
        layers = [model.get_submodule(name) for name in leaf_layers(model)]
        head = [layer for layer in layers if any(p.dim() > 1 for p in layer.parameters())][-1]
        biases = [] if published else [p for p in trained if p is getattr(head, "bias", None)]
        # a step moves a logit as far through the bias, whose input is 1, as through all n weights of its row
        faster = [{"params": biases, "lr": lr * head.weight[0].numel()}] if biases else []
        groups = [{"params": [p for p in trained if p not in {*biases}]}, *faster]
        optimiser = torch.optim.AdamW(groups, lr=lr, weight_decay=decay, fused=large or None)
        batches = -(-len(self.impressions.labels) // self.batch_size)
        if published:
            return optimiser, None, self.epochs
        epochs = min(self.epochs, -(-UPDATES // batches))
        return optimiser, torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, epochs * batches), epochs

    def _epochs(self, tail: nn.Module, optimiser, schedule, epochs: int) -> Iterator[tuple[float, float]]:
        """Train epoch by epoch; yields each one's mean forget and retain loss."""
        device = next(tail.parameters()).device
        x, labels = self.impressions.x.to(device), self.impressions.labels.to(device)
        with torch.no_grad():
            original = torch.cat([tail(part) for part in x.split(500)])
        forget = torch.zeros(original.shape[1], dtype=torch.bool, device=device)
        forget[self.forget] = True
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(epochs):
            sums, counts = [0.0, 0.0], [0, 0]
            for index in self._batches(forget[labels].cpu(), generator):
                index = index.to(device)
                losses = batch_losses(
                    self.method, tail(x[index]), original[index], labels[index], forget, self.switches
                )
                loss = sum(w * part for w, part in zip((self.forget_weight, self.retain_weight), losses, strict=True))
                optimiser.zero_grad()
                loss.backward()
                if self.method == "published":
                    nn.utils.clip_grad_norm_(optimiser.param_groups[0]["params"], 5)
                optimiser.step()
                if schedule is not None:
                    schedule.step()
                for i, part in enumerate(losses):
                    if torch.is_tensor(part):
                        sums[i], counts[i] = sums[i] + part.item(), counts[i] + 1
            yield tuple(total / max(count, 1) for total, count in zip(sums, counts, strict=True))

    def _batches(self, is_forget: torch.Tensor, generator: torch.Generator) -> list[torch.Tensor]:
        """Positions of the impressions, in batches: mixed, but for `published` all of F, then all of R."""
        order = torch.randperm(len(is_forget), generator=generator)
        if self.method == "published":
            return [*order[is_forget[order]].split(self.batch_size), *order[~is_forget[order]].split(self.batch_size)]
        return list(order.split(self.batch_size))
