"""Training: one loop for every model. A golden model is the same call with `forget={...}`."""

from collections.abc import Collection
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from unlearn_lib.common import UserError, check_positive, fast_arithmetic, pick_device, progress
from unlearn_lib.data import Data, Split
from unlearn_lib.store import load_tensors, save_tensors


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
) -> dict[str, list[float]]:
    """Train the model in place and return the history, one value an epoch.

    AdamW with a one-cycle learning rate whose top is `lr`; the weights of the best epoch by validation accuracy are
    kept. forget: classes left out of training and validation (golden); smoothing spreads over the others only.
    checkpoint: a file written every `save_every` epochs; where it lies there from a call with the same arguments,
    training goes on from it and ends with the same bits as if it had never stopped.
    Raises ValueError on numbers out of range, before any work is done.
    """
    check_positive(epochs=epochs, lr=lr, batch_size=batch_size, save_every=save_every)
    if not 0 <= label_smoothing < 1:
        raise UserError(f"label_smoothing: {label_smoothing} given; from 0 up to, not including, 1 is accepted")
    arguments = {"model": type(model).__name__, "data": data.name, "forget": sorted(forget), "epochs": epochs, "lr": lr}
    arguments |= {"batch_size": batch_size, "label_smoothing": label_smoothing, "weight_decay": weight_decay}
    arguments |= {"seed": seed, "pictures": len(data.train)}

    device = pick_device(device)
    model.to(device, memory_format=torch.channels_last)
    train, val = data.train.without(forget), data.val.without(forget)
    train = Split(train.images.to(device), train.labels.to(device))
    allowed = torch.tensor([c not in set(forget) for c in range(data.num_classes)], device=device)
    large = sum(parameter.numel() for parameter in model.parameters()) > 5_000_000  # there the update is what costs
    optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay, fused=large or None)
    steps = -(-len(train) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, total_steps=epochs * steps)
    history = {name: [] for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr")}
    best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if checkpoint is not None and checkpoint.is_file():
        history, best = _resume(checkpoint, arguments, model, optimiser, schedule) or (history, best)

    with torch.random.fork_rng():
        for epoch in progress(range(len(history["lr"]), epochs), f"training {type(model).__name__}"):
            torch.manual_seed(seed * 100_003 + epoch)  # an epoch's randomness depends on nothing before it
            loss, accuracy = _train_epoch(model, data, train, allowed, label_smoothing, batch_size, optimiser, schedule)
            with fast_arithmetic(device):
                logits = logits_of(model, val.images, data)
            history["train_loss"].append(loss)
            history["train_accuracy"].append(accuracy)
            history["val_loss"].append(F.cross_entropy(logits, val.labels).item())
            history["val_accuracy"].append((logits.argmax(1) == val.labels).float().mean().item())
            history["lr"].append(schedule.get_last_lr()[0])
            if history["val_accuracy"][-1] > max(history["val_accuracy"][:-1], default=-1):
                best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            if checkpoint is not None and (epoch + 1) % save_every == 0 and epoch + 1 < epochs:
                _save(checkpoint, arguments, model, optimiser, schedule, history, best)
    model.load_state_dict(best)
    model.to("cpu", memory_format=torch.contiguous_format).eval()
    return history


def _train_epoch(model, data, train, allowed, smoothing, batch_size, optimiser, schedule) -> tuple[float, float]:
    """One pass over the training pictures in a new order, mirrored and shifted where that keeps the class."""
    model.train()
    total_loss = torch.zeros((), device=allowed.device)
    correct = torch.zeros((), device=allowed.device)
    for index in torch.randperm(len(train)).to(allowed.device).split(batch_size):
        images, labels = train.batch(index)
        if len(labels) < min(2, len(train)):  # BatchNorm has no statistics of one picture
            continue
        images, labels = data.normalise(images.to(allowed.device)), labels.to(allowed.device)
        if data.flip:
            images = _mirror_and_shift(images)
        target = smooth_labels(labels, allowed, smoothing)
        with fast_arithmetic(images.device):
            logits = model(images.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        total_loss += loss.detach() * len(index)
        correct += (logits.argmax(1) == labels).sum()
    model.eval()
    return (total_loss / len(train)).item(), (correct / len(train)).item()


@torch.no_grad()
def logits_of(model: nn.Module, images: torch.Tensor, data: Data, batch_size: int = 500) -> torch.Tensor:
    """Logits float32 [N, K], on the CPU, for uint8 pictures; the model is put into eval mode."""
    like = next(model.parameters())  # networks in half precision take pictures in half precision
    model.eval()
    parts = (data.normalise(batch.to(like.device)).to(like.dtype) for batch in images.split(batch_size))
    return torch.cat([model(part).float().cpu() for part in parts])


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


def _save(path, arguments, model, optimiser, schedule, history, best) -> None:
    state = optimiser.state_dict()["state"]
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in best.items()}
    tensors |= {f"optimiser.{i}.{name}": tensor for i, entry in state.items() for name, tensor in entry.items()}
    words = {"arguments": arguments, "history": history, "schedule": schedule.state_dict()}
    words["groups"] = optimiser.state_dict()["param_groups"]
    save_tensors(path, tensors, words)


def _resume(path, arguments, model, optimiser, schedule) -> tuple[dict, dict] | None:
    """Put everything back as the checkpoint has it, where it was written by a call with the same arguments."""
    tensors, words = load_tensors(path)
    if words["arguments"] != arguments:
        return None
    parts = {part: {} for part in ("model", "best", "optimiser")}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    model.load_state_dict(parts["model"])
    state = {}
    for name, tensor in parts["optimiser"].items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": words["groups"]})
    schedule.load_state_dict(words["schedule"])
    return words["history"], parts["best"]
