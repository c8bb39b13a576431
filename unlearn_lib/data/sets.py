"""Data sets: pictures as uint8 tensors, with their class names, normalisation and source.

`load_data(name)` reads MNIST, CIFAR-10, ImageNet or any image folder, and the embedded sets `digits` and `shapes`.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from unlearn_lib.common import (
    REPOSITORY,
    NotFound,
    UserError,
    as_list,
    check_number,
    check_seed,
    check_switch,
    count_names,
    join_names,
    log,
    printable,
)
from unlearn_lib.data.classes import parse_classes
from unlearn_lib.data.folders import read_folder
from unlearn_lib.data.imagenet import read_imagenet
from unlearn_lib.data.pictures import IN_MEMORY, Pictures
from unlearn_lib.data.sources import read_cifar10, read_digits, read_mnist, read_shapes, read_thousand_shapes
from unlearn_lib.data.splits import Split, hold_out, resize_pictures
from unlearn_lib.networks import Framing, find_memory_format
from unlearn_lib.store import digest

EMBEDDED = {"digits": read_digits, "shapes": read_shapes, "shapes1000": read_thousand_shapes}
OFFICIAL = {"mnist": read_mnist, "cifar10": read_cifar10, "imagenet": read_imagenet}
NAMES = (*OFFICIAL, *EMBEDDED)


@dataclass(frozen=True)
class Data:
    """One data set.

    Attributes:
        name: goes into file names; that of a folder is never one of NAMES.
        title: goes into figures.
        source: says in a sentence where the pictures come from.
        classes: their names, in the order of the labels.
        train, val, test: pictures as they were read; at `shape` unless that would take too much memory.
        flip: whether training mirrors pictures; only right where a mirrored picture still shows its class.
        mean, std: of all values in [0, 1], or of each channel.
        wnids: ImageNet's identifiers of the classes, None for other sets.
        passed_over: files and folders that are no pictures of a class, as paths below the folder.
        framing: how pictures are cut and scaled for the network; None where they are taken as they are.
        damaged: pictures that did not open when they were loaded, as paths below the folder.

    Example:
        >>> load_data("digits").shape
        (1, 28, 28)
    """

    name: str
    title: str
    source: str
    classes: list[str]
    train: Split
    val: Split
    test: Split
    flip: bool
    mean: float | tuple[float, ...] = 0.5
    std: float | tuple[float, ...] = 0.25
    wnids: list[str] | None = None
    passed_over: list[str] | tuple[str, ...] = ()
    framing: Framing | None = None
    damaged: list[str] | tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a picture as the network gets it."""
        return tuple(self.framing.shape if self.framing else self.test.images.shape[1:])

    @property
    def pixel_range(self) -> tuple[float, float]:
        """Smallest and largest value of a normalised picture, over all channels."""
        mean = torch.tensor(self.mean, dtype=torch.double)
        std = torch.tensor(self.std, dtype=torch.double)
        return (-mean / std).min().item(), ((1 - mean) / std).max().item()

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """Return uint8 pictures as networks take them: at `shape`, float32, (value / 255 - mean) / std."""
        if self.framing is not None and tuple(images.shape[-3:]) != self.shape:
            images = resize_pictures(images, self.shape)
        mean, std = (
            value if isinstance(value, float) else torch.tensor(value, device=images.device)[:, None, None]
            for value in (self.mean, self.std)
        )
        return (images.float() / 255 - mean) / std

    @property
    def unreadable(self) -> list[str]:
        """Paths below the folder of the pictures that do not open; those on disk as far as they were read."""
        return [*self.damaged, *self.train.unreadable, *self.val.unreadable, *self.test.unreadable]

    @property
    def untested(self) -> list[int]:
        """Classes without test pictures."""
        return sorted(set(range(self.num_classes)) - set(self.test.labels.tolist()))

    def choose(self, given: str | int | Iterable[str | int], argument: str = "forget") -> list[int]:
        """Return class indices as `parse_classes` does; the log names those without test pictures."""
        chosen = parse_classes(given, self.classes, argument, self.wnids)
        untested = [self.classes[i] for i in self.untested if i in chosen]
        if untested:
            names = count_names(untested)
            log.warning("%s: no test pictures of %s, so nothing can be measured on them", argument, names)
        return chosen

    @cached_property
    def test_fingerprint(self) -> str:
        """Digest what a network sees of the test pictures: pictures, labels, shape and normalisation."""
        return digest(self.test.fingerprint, self.framing, self.shape, self.mean, self.std)

    @cached_property
    def fingerprint(self) -> str:
        """Digest the whole data set: pictures, splits, classes and preprocessing, in sixteen hex digits.

        Pictures in memory count with every value, those on disk with names, sizes and times of change.
        """
        return digest(self.test_fingerprint, self.train.fingerprint, self.val.fingerprint, self.classes, self.flip)


def iterate_batches(model: nn.Module, images: torch.Tensor | Pictures, data: Data) -> Iterator[torch.Tensor]:
    """Yield uint8 pictures as the model takes them: normalised, on its device, in its precision and memory format.

    A batch on a CPU holds about two million numbers. Sixteen pictures of 224 x 224 take half the time of two hundred,
    and 1 GB of activations, not 5 (EfficientNet-Lite0).
    """
    like = next(model.parameters())
    numbers = 2**21 if like.device.type == "cpu" else 2**25
    size = numbers // torch.Size(data.shape).numel()
    layout = None
    for part in images.split(max(1, min(500, size))):
        x = data.normalise(part.to(like.device)).to(like.dtype)
        layout = layout or find_memory_format(model, x[:2])
        yield x.contiguous(memory_format=layout)


@torch.no_grad()
def predict_logits(model: nn.Module, images: torch.Tensor | Pictures, data: Data) -> torch.Tensor:
    """Return logits float32 [N, K], on the CPU, for uint8 pictures; the model is put into eval mode."""
    model.eval()
    return torch.cat([model(batch).float().cpu() for batch in iterate_batches(model, images, data)])


def data_name(given: str | Path) -> str:
    """Return the name of the data set that `load_data` loads for this.

    That of a folder is its last name, with `folder-` before one of NAMES.
    """
    path = os.path.expanduser(given)
    if given in NAMES or not os.path.isdir(path):
        return str(given)
    name = printable(Path(path).resolve().name or "root")
    return f"folder-{name}" if name.lower() in NAMES else name


def load_data(
    name: str | Path,
    root: str | Path | None = None,
    *,
    shape: tuple[int, int, int] | None = None,
    framing: Framing | None = None,
    seed: int = 0,
    flip: bool | None = None,
) -> Data:
    """Load a data set by its name, or an image folder by its path. The log says what was left out.

    Args:
        name: one of NAMES, or a path.
        root: the folder of the data sets; default $UNLEARN_DATA, else the repository's `data/`.
        shape: (C, H, W) to resize the pictures to.
        framing: shape, cut and normalisation together, as pretrained weights need them.
        seed: of the validation split, 10 % of train, stratified.
        flip: whether training mirrors pictures; default for all data but digits and MNIST.

    Raises:
        NotFound: files are absent.
        UserError: an argument is not accepted, or files are damaged.

    Example:
        >>> load_data("digits").num_classes
        10
    """
    name = str(name)
    root = Path(root or os.environ.get("UNLEARN_DATA") or REPOSITORY / "data").expanduser()
    seed = check_seed(seed)
    flip = None if flip is None else check_switch("flip", flip)
    if shape is not None:
        sides = [check_number("shape", side, whole=True, least=1) for side in as_list(shape)]
        if len(sides) != 3 or sides[0] not in (1, 3):
            raise UserError(f"shape: got {shape}; expected channels (1 or 3), height and width")
        framing = framing or Framing(tuple(sides))
    fields = _read(name, root, framing)
    name = data_name(name)
    train = fields["train"]
    test = fields["test"]
    if not len(test):
        raise UserError(f"data: {name} has no test pictures; at least two pictures of some class are needed")
    if framing is not None and tuple(test.images.shape[1:]) != framing.shape:
        grey = " grey" if framing.shape[0] == 1 else ""
        fields["source"] += f", brought to {framing.shape[1]}x{framing.shape[2]}{grey}"
        if (len(train) + len(test)) * torch.Size(framing.shape).numel() <= IN_MEMORY:
            train = Split(resize_pictures(train.images, framing.shape), train.labels)
            test = Split(resize_pictures(test.images, framing.shape), test.labels)
    train, val = hold_out(train, 0.1, seed)
    fields |= {"train": train, "val": val, "test": test, "framing": framing}
    if framing is not None and framing.mean is not None:
        fields |= {"mean": framing.mean, "std": framing.std}
    if flip is not None:
        fields["flip"] = flip
    data = Data(name=name, **fields)
    _report_omissions(data)
    return data


def _read(name: str, root: Path, framing: Framing | None) -> dict:
    """Return the fields of `Data` that the reader of this name knows."""
    if name in EMBEDDED:
        return EMBEDDED[name]()
    if name in OFFICIAL:
        return OFFICIAL[name](root, framing)
    folder = os.path.expanduser(name)
    if not os.path.isdir(folder):
        raise NotFound(f"data: got {name!r}; expected {', '.join(NAMES)} or an image folder that exists")
    title = data_name(name)
    fields = {"title": title, "source": f"the image folder {title}", "flip": True}
    try:
        return fields | read_folder(Path(folder).resolve(), framing)
    except PermissionError as error:
        raise UserError(f"data: {error.filename} cannot be read ({error.strerror})") from error


def _report_omissions(data: Data) -> None:
    """Say in the log what was left out, and which classes cannot be measured."""
    if data.unreadable:
        many = len(data.unreadable) > 1
        what = f"{len(data.unreadable)} pictures do not open and are" if many else "1 picture does not open and is"
        log.warning("%s: %s left out: %s", data.name, what, join_names(data.unreadable, 5))
    if data.passed_over:
        log.warning("%s: no pictures of a class, passed over: %s", data.name, count_names(list(data.passed_over)))
    if data.untested:
        names = count_names([data.classes[i] for i in data.untested])
        log.warning("%s: classes without test pictures cannot be measured: %s", data.name, names)
