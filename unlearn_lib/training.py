"""Training: one loop for every model. A golden model is the same call with `forget={...}`.

LeNet5 on MNIST: 99.2 % of the test images right after 5 epochs, 13 s; KarpathyNet on CIFAR-10: 73.9 % after 15,
two minutes (means of three seeds, two cores). LeNet5 on digits: 98.5 %; KarpathyNet on shapes: 92 % (one seed).
"""

import math
import time
from collections.abc import Collection
from contextlib import suppress
from copy import deepcopy
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.transforms.functional import crop

from unlearn_lib.common import (
    UserError,
    check_classes,
    check_number,
    check_seed,
    fast_arithmetic,
    get_device,
    log,
    pick_device,
    progress,
)
from unlearn_lib.data import Data, Split, predict_logits
from unlearn_lib.networks import check_logits, find_memory_format, load_state
from unlearn_lib.processes import gather, process_group, sum_over_processes
from unlearn_lib.store import digest, load_kept, save_kept

PRECISIONS = ("float32", "bfloat16")
FLOAT32 = 1e30  # larger factors overflow in float32
LARGE = 5_000_000  # parameters from which on a fused update is faster
DIVERGED = 100  # times the loss of guessing, ln K: the network is not trained


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
    """Train the model in place, with AdamW and a one-cycle learning rate.

    The model gets the weights of the epoch with the best validation accuracy, or of the last epoch where there are no
    validation images. Under `torchrun` each process takes its part of every batch.

    Args:
        forget: classes left out of training and validation, for a golden model.
        lr: the largest learning rate of the cycle.
        batch_size: images in a batch, of all processes together. BatchNorm sees the part of its process.
        label_smoothing: share of the target that is spread evenly over the classes in training.
        checkpoint: a file that is written every `save_every` epochs. A call with the same network, data and numbers
            continues from it and ends with the same bits as without the interruption.
        precision: of the arithmetic, one of PRECISIONS; by default bfloat16 where the processor has it.

    Returns:
        The history, lists with one value an epoch: `train_loss`, `train_accuracy`, `val_loss`, `val_accuracy` (None
        without validation images), `lr`, `seconds`.

    Raises:
        UserError: an argument is out of range (before any work), or the training diverged.

    Example:
        >>> history = fit(make_model("lenet5", 10), load_data("digits"), epochs=5)
    """
    settings = {
        "forget": check_classes(forget, data.num_classes, none=True),
        "epochs": check_number("epochs", epochs, whole=True, least=1),
        "lr": check_number("lr", lr, above=0, below=FLOAT32),
        "batch_size": check_number("batch_size", batch_size, whole=True, least=1),
        "label_smoothing": check_number("label_smoothing", label_smoothing, least=0, below=1),
        "weight_decay": check_number("weight_decay", weight_decay, least=0, below=FLOAT32),
        "seed": check_seed(seed),
        "precision": precision,
    }
    save_every = check_number("save_every", save_every, whole=True, least=1)
    device = pick_device(device)
    rank, size = process_group()
    least = least_images(model) * size
    if precision not in (None, *PRECISIONS):
        raise UserError(f"precision: got {precision!r}; expected {' or '.join(PRECISIONS)}")
    if not len(data.train.without(settings["forget"])):
        raise UserError(f"data: {data.name} has no images of the classes to train on")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError("model: none of its parameters requires a gradient; expected some that do")
    if settings["batch_size"] < least:
        reason = "one image in each process, two with BatchNorm"
        raise UserError(f"batch_size: got {batch_size}; expected at least {least}: {reason}")

    key = {**settings, "data": data.fingerprint, "network": digest(str(model), model.state_dict()), "processes": size}
    found = None if checkpoint is None or rank else load_kept(checkpoint, key, strict=True)
    files = {"checkpoint": checkpoint, "save_every": save_every, "key": key, "found": found}
    task = gather(None if rank else {"model": model, "data": data, "device": device, **settings, **files})[0]
    history = _train(**task)
    if rank:
        load_state(model, task["model"].state_dict())
        model.eval()
    return history


def help_training() -> None:
    """Take part in the trainings of the first process until it releases its helpers."""
    while (task := gather(None)[0]) is not None:
        with suppress(UserError):  # the first process raises the same
            _train(**task)


def _train(
    model: nn.Module,
    data: Data,
    *,
    forget: list[int],
    epochs: int,
    lr: float,
    batch_size: int,
    label_smoothing: float,
    weight_decay: float,
    seed: int,
    precision: str | None,
    device: torch.device,
    checkpoint: Path | None,
    save_every: int,
    key: dict,
    found: tuple[dict, dict] | None,
) -> dict[str, list[float]]:
    """Run the loop in one process. `found` is what the checkpoint contains, `key` what identifies it."""
    rank, size = process_group()
    train = data.train.without(forget).to(device)
    val = data.val.without(forget)
    val = val.take(torch.arange(rank, len(val), size))
    least = min(least_images(model), len(train))
    allowed = torch.ones(data.num_classes, dtype=torch.bool, device=device)
    allowed[forget] = False

    # Channels last is faster, unless the network's own code refuses it.
    model.to(device, memory_format=torch.channels_last)
    layout = find_memory_format(model.eval(), torch.zeros(2, *data.shape, device=device))
    model.to(memory_format=layout)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    is_large = sum(parameter.numel() for parameter in parameters) > LARGE
    optimiser = torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, fused=is_large or None)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, lr, total_steps=epochs * math.ceil(len(train) / batch_size)
    )
    history = {}
    best = deepcopy(model.state_dict())
    if found is not None:
        history, best = _restore(model, optimiser, schedule, *found)
    done = len(history.get("lr", []))
    title = f"training {type(model).__name__}"
    if done:
        log.info("%s: continued after epoch %d of %d, where it was interrupted", title, done, epochs)

    remaining = range(done, epochs)
    with torch.random.fork_rng():
        for epoch in remaining if rank else progress(remaining, title, epochs, done):
            begin = time.perf_counter()
            torch.manual_seed(seed * 100_003 + epoch)  # an epoch's randomness does not depend on earlier epochs
            order = torch.randperm(len(train))  # the same in every process; augmentation and dropout differ
            if rank:
                torch.manual_seed(torch.initial_seed() + 1_000_000_007 * rank)
            model.train()
            totals = torch.zeros(3, device=device)  # loss, right answers, images
            for batch in order.split(batch_size):
                images, labels = train.batch(batch[rank::size].to(device))
                counts = gather(len(labels))
                if min(counts) < least:  # too few are left, or too few can be opened
                    continue
                images = data.normalise(images.to(device))
                labels = labels.to(device)
                if data.flip:
                    images = _mirror_and_shift(images)
                optimiser.zero_grad()
                with fast_arithmetic(device, precision):
                    logits = model(images.contiguous(memory_format=layout))
                check_logits(logits, data.num_classes)
                loss = F.cross_entropy(logits.float(), smooth_labels(labels, allowed, label_smoothing))
                (loss * (len(labels) / sum(counts))).backward()
                sum_over_processes(p.grad for p in parameters if p.grad is not None)
                optimiser.step()
                schedule.step()
                totals[0] += loss.detach() * len(labels)
                totals[1] += (logits.argmax(1) == labels).sum()
                totals[2] += len(labels)
            if size > 1:  # BatchNorm's statistics: each process has seen its part
                statistics = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
                sum_over_processes(statistics)
                for buffer in statistics:
                    buffer /= size
            loss, right, seen = sum(gather(totals.cpu())).tolist()
            if not seen:
                raise UserError(f"data: no training image of {data.name} can be opened")
            limit = DIVERGED * math.log(max(2, allowed.sum())) if epoch + 1 == epochs else math.inf
            if not loss / seen < limit or not all(parameter.isfinite().all() for parameter in parameters):
                state = f"training diverged, its loss is {loss / seen:.3g} after epoch {epoch + 1}"
                raise UserError(f"lr: got {lr:g}, with which {state}; expected a smaller one, such as {lr / 10:g}")

            val_loss, val_accuracy = _validate(model, val, data, precision)
            earlier = [value for value in history.get("val_accuracy", []) if value is not None]
            if val_accuracy is None or val_accuracy > max(earlier, default=-1):
                best = deepcopy(model.state_dict())
            row = {
                "train_loss": loss / seen,
                "train_accuracy": right / seen,
                "val_loss": val_loss,
                "val_accuracy": val_accuracy,
                "lr": schedule.get_last_lr()[0],
                "seconds": time.perf_counter() - begin,
            }
            for name, value in row.items():
                history.setdefault(name, []).append(value)
            if checkpoint is not None and not rank and (epoch + 1) % save_every == 0 and epoch + 1 < epochs:
                save_kept(checkpoint, key, *_pack(model, optimiser, schedule, history, best))

    load_state(model, best)
    model.to("cpu", memory_format=torch.contiguous_format).eval()
    return history


def _validate(model: nn.Module, val: Split, data: Data, precision: str | None) -> tuple[float | None, float | None]:
    """Return the mean loss and the accuracy on the validation images that can be opened, or (None, None).

    val: the part of this process.
    """
    sums = torch.zeros(3)  # loss, right answers, images
    if len(val):
        with fast_arithmetic(get_device(model), precision):
            logits = predict_logits(model, val.images, data)[val.readable]
        labels = val.labels[val.readable]
        loss = F.cross_entropy(logits, labels, reduction="sum")
        sums = torch.stack((loss, (logits.argmax(1) == labels).sum(), val.readable.sum()))
    sums = sum(gather(sums))
    return tuple((sums[:2] / sums[2]).tolist()) if sums[2] else (None, None)


def _pack(model, optimiser, schedule, history: dict, best: dict) -> tuple[dict[str, torch.Tensor], dict]:
    """Return the tensors and facts of a checkpoint."""
    state = optimiser.state_dict()
    parts = {"model": model.state_dict(), "best": best, **state["state"]}
    tensors = {f"{part}.{name}": tensor for part, entries in parts.items() for name, tensor in entries.items()}
    return tensors, {"history": history, "schedule": schedule.state_dict(), "groups": state["param_groups"]}


def _restore(model, optimiser, schedule, tensors: dict[str, torch.Tensor], facts: dict) -> tuple[dict, dict]:
    """Load a checkpoint into model, optimiser and schedule; return the history and the best weights so far."""

    def part(prefix: object) -> dict[str, torch.Tensor]:
        return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}

    load_state(model, part("model"))
    state = {i: part(i) for i, _ in enumerate(optimiser.param_groups[0]["params"])}
    optimiser.load_state_dict({"state": state, "param_groups": facts["groups"]})
    schedule.load_state_dict(facts["schedule"])
    for parameter, entries in optimiser.state.items():
        for name in entries.keys() - {"step"}:  # a fused update expects the parameter's memory order
            entries[name] = torch.empty_like(parameter).copy_(entries[name])
    return facts["history"], part("best")


def least_images(model: nn.Module) -> int:
    """Return how many images a process needs in a batch: two with BatchNorm, which has no statistics of one."""
    return 2 if any("running_mean" in name for name, _ in model.named_buffers()) else 1


def smooth_labels(labels: torch.Tensor, allowed: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Return target distributions [N, K]: 1 - s on the label, s spread evenly over the `allowed` classes (bool [K])."""
    return (1 - smoothing) * F.one_hot(labels, len(allowed)) + smoothing * allowed / allowed.sum()


def _mirror_and_shift(images: torch.Tensor) -> torch.Tensor:
    """Mirror each image or not, and move the batch by up to two pixels, its border repeated."""
    mirrored = (torch.rand(len(images), device=images.device) < 0.5)[:, None, None, None]
    images = torch.where(mirrored, images.flip(-1), images)
    down, right = torch.randint(0, 5, (2,)).tolist()
    return crop(F.pad(images, (2, 2, 2, 2), mode="replicate"), down, right, *images.shape[-2:])
