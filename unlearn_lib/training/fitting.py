"""`fit`: its numbers, its checkpoints, its processes."""

import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

from unlearn_lib.common import UserError, as_number, check_classes, check_positive, log, pick_device, progress
from unlearn_lib.data import Data
from unlearn_lib.networks import load_state
from unlearn_lib.store import digest, load_kept
from unlearn_lib.team import process_group
from unlearn_lib.training.loop import Training, check_batch

PRECISIONS = ("float32", "bfloat16")


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
    given = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "save_every": save_every}
    epochs, lr, batch_size, save_every = check_positive(**given).values()
    label_smoothing, weight_decay, seed = _check_others(label_smoothing, weight_decay, seed)
    if precision not in (None, *PRECISIONS):
        raise UserError(f"precision: {precision!r} given; {' or '.join(PRECISIONS)} is accepted")
    forget = check_classes(forget, data.num_classes, none=True)
    if not len(data.train.without(forget)):
        raise UserError(f"data: {data.name} has no pictures of the classes to train on")
    key = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "label_smoothing": label_smoothing, "seed": seed}
    key |= {"weight_decay": weight_decay, "forget": forget, "data": data.fingerprint}
    key |= {"network": digest(str(model), model.state_dict())} | ({"precision": precision} if precision else {})
    if (crew := process_group()).size > 1:
        key["processes"] = crew.size  # which sum in another order
    check_batch(model, batch_size, crew.size)
    found = None if checkpoint is None else load_kept(checkpoint, key, strict=True)
    task = crew.share((model, data, key, device, found))  # the first process's
    history = _fit(*task, None if crew.rank else checkpoint, save_every)
    if task[0] is not model:
        load_state(model, task[0].state_dict())
        model.eval()
    return history


def help_training() -> None:
    """Take part in the trainings of the first process until it dismisses its helpers."""
    while (task := process_group().share(None)) is not None:
        with suppress(UserError):  # which the first process tells
            _fit(*task)


def _fit(
    model: nn.Module, data: Data, key: dict, device: str | None, found, checkpoint: Path | None = None, save_every=1
) -> dict[str, list[float]]:
    """`fit` in one process of the team; the numbers stand in the checkpoint's key, `found` is what it held."""
    forget, epochs, batch_size, seed = (key[name] for name in ("forget", "epochs", "batch_size", "seed"))
    train, val, device, crew = (
        data.train.without(forget),
        data.val.without(forget),
        pick_device(device),
        process_group(),
    )
    model.to(device)
    training = Training(model, data, forget, key["label_smoothing"], key.get("precision"), crew)
    training.prepare(key["lr"], key["weight_decay"], epochs * -(-len(train) // batch_size))
    if found is not None:
        training.resume(*found)
    train = train.to(device)
    done, title = training.epochs_done, f"training {type(model).__name__}"
    if done:
        log.info("%s: gone on with after epoch %d of %d, where it was interrupted", title, done, epochs)
    steps = range(done, epochs)
    with torch.random.fork_rng():
        for epoch in steps if crew.rank else progress(steps, title, epochs, done):
            begin = time.perf_counter()
            torch.manual_seed(seed * 100_003 + epoch)  # an epoch's randomness depends on nothing before it
            training.note(*training.pass_over(train, batch_size), *training.validate(val), begin)
            if checkpoint is not None and (epoch + 1) % save_every == 0 and epoch + 1 < epochs:
                training.save(checkpoint, key)
    load_state(model, training.best)
    model.to("cpu", memory_format=torch.contiguous_format).eval()
    return training.history


def _check_others(label_smoothing: object, weight_decay: object, seed: object) -> tuple[float, float, int]:
    """The numbers of training that may be 0. Raises UserError on those out of range."""
    label_smoothing = as_number("label_smoothing", label_smoothing)
    weight_decay = as_number("weight_decay", weight_decay)
    if not 0 <= label_smoothing < 1:
        raise UserError(f"label_smoothing: {label_smoothing} given; from 0 up to, not including, 1 is accepted")
    if not 0 <= weight_decay < float("inf"):
        raise UserError(f"weight_decay: {weight_decay} given; a finite number from 0 on is accepted")
    return label_smoothing, weight_decay, as_number("seed", seed)
