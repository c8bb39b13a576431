"""What an epoch of training does, and what a training holds between two epochs."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from unlearn_lib.common import UserError, fast_arithmetic, get_device
from unlearn_lib.data import Data, Split, predict_logits
from unlearn_lib.networks import check_logits, find_memory_format, load_state
from unlearn_lib.store import save_kept
from unlearn_lib.team import Team

HISTORY = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "seconds")


@dataclass
class Training:
    """What a training holds between two epochs, and what an epoch does."""

    model: nn.Module
    data: Data
    forget: list[int]
    label_smoothing: float
    precision: str | None
    crew: Team

    def prepare(self, lr: float, weight_decay: float, steps: int) -> None:
        """The optimiser, its schedule, an empty history; the best weights so far are those of the start."""
        device = get_device(self.model)
        self.model.to(memory_format=torch.channels_last)
        self.layout = find_memory_format(self.model.eval(), torch.zeros(2, *self.data.shape, device=device))
        self.model.to(memory_format=self.layout)
        self.parameters = parameters = [p for p in self.model.parameters() if p.requires_grad]
        if not parameters:
            raise UserError("model: none of its parameters requires a gradient; one that can be trained is accepted")
        self.least = least_batch(self.model)
        large = sum(parameter.numel() for parameter in parameters) > 5_000_000  # there the update is what costs
        self.optimiser = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=large or None)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimiser, lr, total_steps=steps)
        self.history = {name: [] for name in HISTORY}
        self.best = self.weights()
        self.allowed = torch.ones(self.data.num_classes, dtype=torch.bool, device=device)
        self.allowed[self.forget] = False

    @property
    def epochs_done(self) -> int:
        return len(self.history["lr"])

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def pass_over(self, train: Split, batch_size: int) -> tuple[float, float]:
        """One pass over the training pictures in a new order, mirrored and shifted where that keeps the class.

        Returns mean loss and accuracy. Raises UserError where the loss is not finite.
        """
        self.model.train()
        device = self.allowed.device
        total_loss, correct, seen = (torch.zeros((), device=device) for _ in range(3))
        order = torch.randperm(len(train))  # the same in every process, what follows is not
        if self.crew.rank:
            torch.manual_seed(torch.initial_seed() + 1_000_000_007 * self.crew.rank)
        for batch in order.split(batch_size):
            index = batch[self.crew.rank :: self.crew.size]
            images, labels = train.batch(index.to(device))
            count = len(labels) if len(labels) >= min(self.least, len(train)) else 0
            whole = count if self.crew.size == 1 else self.crew.total(torch.tensor(count)).item()
            if not whole:
                continue
            self.optimiser.zero_grad()
            if count:
                images, labels = self.data.normalise(images.to(device)), labels.to(device)
                if self.data.flip:
                    images = _mirror_and_shift(images)
                with fast_arithmetic(device, self.precision):
                    logits = self.model(images.contiguous(memory_format=self.layout))
                check_logits(logits, len(self.allowed))
                loss = F.cross_entropy(logits.float(), smooth_labels(labels, self.allowed, self.label_smoothing))
                (loss * (count / whole)).backward()
                total_loss += loss.detach() * count
                correct += (logits.argmax(1) == labels).sum()
                seen += count
            self.crew.add_gradients(self.parameters)
            self.optimiser.step()
            self.schedule.step()
        self.crew.average(self.model)
        total_loss, correct, seen = self.crew.total(torch.stack((total_loss, correct, seen))).unbind()
        if not seen:
            raise UserError(f"data: no training picture of {self.data.name} opens")
        if not all(t.isfinite().all() for t in (total_loss, *self.model.parameters())):
            lr, epoch = self.optimiser.defaults["lr"], self.epochs_done + 1
            raise UserError(f"lr: with {lr} the loss is not finite in epoch {epoch}; give a smaller one")
        return total_loss.item() / seen.item(), correct.item() / seen.item()

    def validate(self, val: Split) -> tuple[float | None, float | None]:
        """Mean loss and accuracy on the validation pictures that open; None without any."""
        if not len(val):
            return None, None
        if (size := self.crew.size) > 1 and len(val) >= size:
            val = val.take(torch.arange(self.crew.rank, len(val), size))
        with fast_arithmetic(self.allowed.device, self.precision):
            logits = predict_logits(self.model, val.images, self.data)[val.readable]
        labels, count = val.labels[val.readable], val.readable.sum()
        means = torch.stack((F.cross_entropy(logits, labels), (logits.argmax(1) == labels).float().mean()))
        if size > 1:
            means, count = self.crew.total(means.nan_to_num() * count), self.crew.total(count)
            means = means / count
        return tuple(means.tolist()) if count else (None, None)

    def note(self, loss: float, accuracy: float, val_loss: float | None, val_accuracy: float | None, begin: float):
        """An epoch's line in the history; its weights where they are the best so far."""
        earlier = [value for value in self.history["val_accuracy"] if value is not None]
        if val_accuracy is None or val_accuracy > max(earlier, default=-1):
            self.best = self.weights()
        line = (loss, accuracy, val_loss, val_accuracy, self.schedule.get_last_lr()[0], time.perf_counter() - begin)
        for name, value in zip(HISTORY, line, strict=True):
            self.history[name].append(value)

    def save(self, path: Path, key: dict) -> None:
        """Write all of it as a checkpoint."""
        state = self.optimiser.state_dict()
        parts = {"model": self.model.state_dict(), "best": self.best}
        parts |= {f"optimiser.{i}": entry for i, entry in state["state"].items()}
        tensors = {f"{part}.{name}": t for part, entries in parts.items() for name, t in entries.items()}
        facts = {"history": self.history, "schedule": self.schedule.state_dict(), "groups": state["param_groups"]}
        save_kept(path, key, tensors, facts)

    def resume(self, tensors: dict[str, torch.Tensor], facts: dict) -> None:
        """Put everything back as a checkpoint has it."""
        parts, state = {"model": {}, "best": {}, "optimiser": {}}, {}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        for name, tensor in parts["optimiser"].items():
            number, _, entry = name.partition(".")
            weight = self.parameters[int(number)]  # beside which a fused update expects it in the same order of memory
            alike = tensor.shape == weight.shape
            state.setdefault(int(number), {})[entry] = torch.empty_like(weight).copy_(tensor) if alike else tensor
        load_state(self.model, parts["model"])
        self.optimiser.load_state_dict({"state": state, "param_groups": facts["groups"]})
        self.schedule.load_state_dict(facts["schedule"])
        self.history, self.best = facts["history"], parts["best"]


def least_batch(model: nn.Module) -> int:
    """How many pictures a process needs at a time: two with BatchNorm, which has no statistics of one."""
    return 2 if any("running_mean" in name for name, _ in model.named_buffers()) else 1


def check_batch(model: nn.Module, batch_size: int, processes: int) -> None:
    """Raise UserError for a batch of which no process would get enough pictures."""
    if (least := least_batch(model)) > 1 and batch_size < least * processes:
        raise UserError(
            f"batch_size: {batch_size} given; BatchNorm needs {least} a process, {least * processes} in all"
        )


def _mirror_and_shift(images: torch.Tensor) -> torch.Tensor:
    """Each picture mirrored or not, and the batch moved by up to two pixels, its border repeated."""
    mirrored = (torch.rand(len(images), device=images.device) < 0.5)[:, None, None, None]
    images = torch.where(mirrored, images.flip(-1), images)
    down, right = torch.randint(0, 5, (2,)).tolist()
    height, width = images.shape[-2:]
    return F.pad(images, (2, 2, 2, 2), mode="replicate")[..., down : down + height, right : right + width]


def smooth_labels(labels: torch.Tensor, allowed: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Target distributions [N, K]: 1 - s on the label, s spread evenly over the `allowed` classes (bool [K])."""
    return (1 - smoothing) * F.one_hot(labels, len(allowed)) + smoothing * allowed / allowed.sum()
