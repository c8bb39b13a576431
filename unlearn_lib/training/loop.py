"""What an epoch of training does, and what a training holds between two epochs."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from unlearn_lib.common import UserError, device_of, fast_arithmetic
from unlearn_lib.data import Data, Split, logits_of
from unlearn_lib.networks import check_logits, load_state
from unlearn_lib.store import keep
from unlearn_lib.team import Team

HISTORY = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "seconds")


<<<<<<< HEAD:unlearn_lib/training/loop.py
=======
def fit(
    model: nn.Module,
    data: Data,
    *,
    forget: Collection[int] = (),
    epochs: int = 10,
    lr: float = 3e-3,
    batch_size: int = 128,
    label_smoothing: float = 0.0,
    weight_decay: float = 0.01,
    seed: int = 0,
    device: str | None = None,
    checkpoint: Path | None = None,
    save_every: int = 1,
    precision: str | None = None,
) -> dict[str, list[float]]:
    """Train the model in place and return the history, one value an epoch, its seconds among them.

    AdamW with a one-cycle learning rate whose top is `lr`; the weights of the best epoch by validation accuracy are
    the result (of the last one where there are no validation pictures). forget: classes left out of training and
    validation (golden); smoothing spreads over the others only. checkpoint: a file written every `save_every` epochs;
    left there by a call with the same network, data and numbers, it is gone on from, and training ends with the same
    bits as if it had never stopped. precision: of the arithmetic, one of PRECISIONS; by default bfloat16 where the
    processor has it. Under `torchrun` every process takes its part of each batch, of which `batch_size` is the whole;
    BatchNorm sees the parts.
    Raises UserError on numbers out of range, before any work is done, and where the loss is no longer finite.
    """
    check_positive(epochs=epochs, lr=lr, batch_size=batch_size, save_every=save_every)
    if not 0 <= label_smoothing < 1:
        raise UserError(f"label_smoothing: {label_smoothing} given; from 0 up to, not including, 1 is accepted")
    if precision not in (None, *PRECISIONS):
        raise UserError(f"precision: {precision!r} given; {' or '.join(PRECISIONS)} is accepted")
    forget = sorted(forget)
    if not len(data.train.without(forget)):
        raise UserError(f"data: {data.name} has no pictures of the classes to train on")
    key = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "label_smoothing": label_smoothing, "seed": seed}
    key |= {"weight_decay": weight_decay, "forget": forget, "data": data.fingerprint}
    key |= {"network": digest(str(model), model.state_dict())}
    key |= {"precision": precision} if precision else {}
    if (crew := team()).size > 1:
        key["processes"] = crew.size  # which sum in another order
    found = None if checkpoint is None else kept(checkpoint, key, strict=True)
    task = crew.share((model, data, key, device, found))  # the first process's
    history = _fit(*task, None if crew.rank else checkpoint, save_every)
    if task[0] is not model:
        load_state(model, task[0].state_dict())
        model.eval()
    return history


def help_training() -> None:
    """Take part in the trainings of the first process until it dismisses its helpers."""
    while (task := team().share(None)) is not None:
        with suppress(UserError):  # which the first process tells
            _fit(*task)


def _fit(
    model: nn.Module, data: Data, key: dict, device: str | None, found, checkpoint: Path | None = None, save_every=1
) -> dict[str, list[float]]:
    """`fit` in one process of the team; the numbers stand in the checkpoint's key, `found` is what it held."""
    forget, epochs, batch_size, seed = (key[name] for name in ("forget", "epochs", "batch_size", "seed"))
    train, val, device, crew = data.train.without(forget), data.val.without(forget), pick_device(device), team()
    model.to(device, memory_format=torch.channels_last)
    training = _Training(model, data, forget, key["label_smoothing"], key.get("precision"), crew)
    training.prepare(key["lr"], key["weight_decay"], epochs * -(-len(train) // batch_size))
    if found is not None:
        training.resume(*found, epochs)
    train, done = train.to(device), training.epochs_done
    steps = range(done, epochs)
    with torch.random.fork_rng():
        for epoch in steps if crew.rank else progress(steps, f"training {type(model).__name__}", epochs, done):
            begin = time.perf_counter()
            torch.manual_seed(seed * 100_003 + epoch)  # an epoch's randomness depends on nothing before it
            training.note(*training.pass_over(train, batch_size), *training.validate(val), begin)
            if checkpoint is not None and (epoch + 1) % save_every == 0 and epoch + 1 < epochs:
                training.save(checkpoint, key)
    load_state(model, training.best)
    model.to("cpu", memory_format=torch.contiguous_format).eval()
    return training.history


>>>>>>> h18:unlearn_lib/training.py
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
        self.parameters = parameters = [p for p in self.model.parameters() if p.requires_grad]
        if not parameters:
            raise UserError("model: none of its parameters requires a gradient; one that can be trained is accepted")
        large = sum(parameter.numel() for parameter in parameters) > 5_000_000  # there the update is what costs
        self.optimiser = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=large or None)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimiser, lr, total_steps=steps)
        self.history = {name: [] for name in HISTORY}
        self.best = self.weights()
        self.allowed = torch.ones(self.data.num_classes, dtype=torch.bool)
        self.allowed[self.forget] = False
        self.allowed = self.allowed.to(device_of(self.model))

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
            alone = len(labels) < min(2, len(train))  # BatchNorm has no statistics of one picture
            count = 0 if alone else len(labels)
            whole = count if self.crew.size == 1 else self.crew.total(torch.tensor(count)).item()
            if not whole:
                continue
            self.optimiser.zero_grad()
            if count:
                images, labels = self.data.normalise(images.to(device)), labels.to(device)
                if self.data.flip:
                    images = _mirror_and_shift(images)
                with fast_arithmetic(device, self.precision):
                    logits = self.model(images.contiguous(memory_format=torch.channels_last))
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
            logits = logits_of(self.model, val.images, self.data)[val.opened]
        labels, count = val.labels[val.opened], val.opened.sum()
        means = torch.stack((F.cross_entropy(logits, labels), (logits.argmax(1) == labels).float().mean()))
        if size > 1:
            means = self.crew.total(means.nan_to_num() * count) / self.crew.total(count)
        return means[0].item(), means[1].item()

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
        keep(path, key, tensors, facts)

    def resume(self, tensors: dict[str, torch.Tensor], facts: dict, epochs: int) -> None:
        """Put everything back as a checkpoint has it."""
        parts, state = {"model": {}, "best": {}, "optimiser": {}}, {}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        for name, tensor in parts["optimiser"].items():
            number, _, entry = name.partition(".")
            state.setdefault(int(number), {})[entry] = tensor
        load_state(self.model, parts["model"])
        self.optimiser.load_state_dict({"state": state, "param_groups": facts["groups"]})
        self.schedule.load_state_dict(facts["schedule"])
        self.history, self.best = facts["history"], parts["best"]
<<<<<<< HEAD:unlearn_lib/training/loop.py
=======
        where = (type(self.model).__name__, self.epochs_done, epochs)
        log.info("training %s: gone on with after epoch %d of %d, where it was interrupted", *where)
>>>>>>> h18:unlearn_lib/training.py


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
