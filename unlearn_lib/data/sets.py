"""Data: pictures as uint8 tensors, with the class names, the normalisation and the source that belong to them.

`load_data(name)` reads MNIST, CIFAR-10, ImageNet or any image folder, and the embedded sets `digits` and `shapes`.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import nn

from unlearn_lib.common import (
    REPOSITORY,
    NotFound,
    UserError,
    as_list,
    as_number,
    as_switch,
    count_names,
    join_names,
    log,
    printable,
)
from unlearn_lib.data.classes import parse_classes
from unlearn_lib.data.folders import read_folder
from unlearn_lib.data.imagenet import read_imagenet
from unlearn_lib.data.mirroring import mirrored_alike
from unlearn_lib.data.pictures import IN_MEMORY, Pictures
from unlearn_lib.data.sources import read_cifar10, read_digits, read_mnist, read_shapes, read_thousand_shapes
from unlearn_lib.data.splits import Split, hold_out, reshape
from unlearn_lib.networks import Framing, find_memory_format
from unlearn_lib.store import digest

NAMES = ("mnist", "cifar10", "imagenet", "digits", "shapes", "shapes1000")


@dataclass(frozen=True)
class Data:
    """One data set: its three splits and what belongs to them.

    name: goes into file names; a folder's last name, which is never one of NAMES. title: goes into figures. source:
    says in a sentence where the pictures come from. classes: names, in the order of the labels. train, val, test:
    pictures as they were read, at `shape` unless that would take too much memory. flip: whether training mirrors
    pictures, a mirrored one still showing its class. mean, std: of all values in [0, 1], or of each channel. wnids:
    ImageNet's own names of the classes, None for other sets. passed_over: what lies in the folder and is no picture
    of a class, named as below it, folders with a slash. framing: how pictures are brought to the network, None where
    they are taken as they are.
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

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width of a picture as the network gets it."""
        return tuple(self.framing.shape if self.framing else self.test.images.shape[1:])

    @property
    def pixel_range(self) -> tuple[float, float]:
        """Smallest and largest value of a normalised picture, over all channels."""
        mean, std = (torch.tensor(value, dtype=torch.double) for value in (self.mean, self.std))
        return (-mean / std).min().item(), ((1 - mean) / std).max().item()

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 pictures as the networks take them: at `shape`, float32, (value / 255 - mean) / std."""
        if self.framing is not None and tuple(images.shape[-3:]) != self.shape:
            images = reshape(images, self.shape)
        mean, std = (
            value if isinstance(value, float) else torch.tensor(value, device=images.device)[:, None, None]
            for value in (self.mean, self.std)
        )
        return (images.float() / 255 - mean) / std

    @property
    def unreadable(self) -> list[str]:
        """Names, as below the folder, of the pictures that did not open and were left out, as far as it is known."""
        splits = (self.train, self.val, self.test)
        late = [s.images.name(i) for s in splits for i in (~s.readable).nonzero().flatten().tolist()]
        return [name for split in splits for name in split.unreadable] + late

    @property
    def untested(self) -> list[int]:
        """The classes that have no test pictures."""
        return sorted(set(range(self.num_classes)) - set(self.test.labels.tolist()))

    def choose(self, given: str | int | Iterable[str | int], argument: str = "forget") -> list[int]:
        """Class indices as `parse_classes` reads them; the log names those without test pictures."""
        chosen = parse_classes(given, self.classes, argument, self.wnids)
        untested = [self.classes[i] for i in set(chosen) & set(self.untested)]
        if untested:
            log.warning(
                "%s: no test pictures of %s, so nothing can be measured on them", argument, count_names(untested)
            )
        return chosen

    @cached_property
    def test_fingerprint(self) -> str:
        """What a network sees for the test pictures, in sixteen hex digits: pictures, shape, normalisation."""
        return digest(self.test.fingerprint, self.framing, self.shape, self.mean, self.std)

    @cached_property
    def fingerprint(self) -> str:
        """What the whole data set is, in sixteen hex digits: pictures, split, classes, preprocessing.

        Pictures in memory count with every value; of those on disk only names, sizes and times of change are looked at.
        """
        return digest(self.test_fingerprint, self.train.fingerprint, self.val.fingerprint, self.classes, self.flip)


def iterate_batches(model: nn.Module, images: torch.Tensor | Pictures, data: Data) -> Iterator[torch.Tensor]:
    """uint8 pictures as the model takes them, batch by batch: normalised, on its device, in its precision and layout.

    A batch holds about two million numbers on a CPU: sixteen pictures of 224 x 224 take half the time of two hundred,
    and a gigabyte of activations instead of five (EfficientNet-Lite0).
    """
    like = next(model.parameters())
    size, layout = (2**21 if like.device.type == "cpu" else 2**25) // torch.Size(data.shape).numel(), None
    for part in images.split(max(1, min(500, size))):
        x = data.normalise(part.to(like.device)).to(like.dtype)
        layout = layout or find_memory_format(model, x[:2])
        yield x.contiguous(memory_format=layout)


@torch.no_grad()
def predict_logits(model: nn.Module, images: torch.Tensor | Pictures, data: Data) -> torch.Tensor:
    """Logits float32 [N, K], on the CPU, for uint8 pictures; the model is put into eval mode."""
    model.eval()
    return torch.cat([model(batch).float().cpu() for batch in iterate_batches(model, images, data)])


def data_name(given: str | Path) -> str:
    """The name under which `load_data` loads this: itself, or the folder's last name, `folder-` before one of NAMES."""
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
    """Load a data set by its name (one of NAMES), or an image folder by its path.

    root: where data sets lie; `$UNLEARN_DATA`, else the repository's `data/`. shape: (C, H, W) to bring the
    pictures to. framing: shape, cut and normalisation together, as pretrained weights want them. seed: of the
    validation split (10 % of train, the same share of every class). flip: whether training mirrors pictures; None:
    not digits, all others. What was left out or looks odd is said in the log.
    Raises UserError on files that cannot be read as what they should be, NotFound on absent ones.
    """
    name = str(name)
    root = Path(root or os.environ.get("UNLEARN_DATA") or REPOSITORY / "data").expanduser()
    if shape is not None:
        sides = tuple(as_number("size", side) for side in as_list(shape))
        if len(sides) != 3 or min(sides) < 1 or sides[0] not in (1, 3):
            raise UserError(f"shape: {shape} given; channels (1 or 3), height and width are accepted")
        framing = framing or Framing(sides)
    known, name = _read(name, root, framing), data_name(name)
    if flip is not None:
        known["flip"] = as_switch("flip", flip)
    train, test = known["train"], known["test"]
    for split in (train, test):
        if len(split) and not 0 <= int(split.labels.min()) <= int(split.labels.max()) < len(known["classes"]):
            raise UserError(f"data: {name} has labels outside 0 to {len(known['classes']) - 1}")
    if not len(test):
        raise UserError(f"data: {name} has no test pictures; at least two pictures of some class are needed")
    if framing is not None and tuple(test.images.shape[1:]) != framing.shape:
        grey = " grey" if framing.shape[0] == 1 else ""
        known["source"] += f", brought to {framing.shape[1]}x{framing.shape[2]}{grey}"
        if (len(train) + len(test)) * torch.Size(framing.shape).numel() <= IN_MEMORY:
            train, test = (replace(split, images=reshape(split.images, framing.shape)) for split in (train, test))
    if framing is not None and framing.mean is not None:
        known |= {"mean": framing.mean, "std": framing.std}
    learned, val = hold_out(train, 0.1, as_number("seed", seed))
    known |= {"train": replace(learned, unreadable=train.unreadable), "val": val, "test": test, "framing": framing}
    data = Data(name=name, **known)
    _tell(data)
    return data


def _read(name: str | Path, root: Path, framing: Framing | None) -> dict:
    """The fields of `Data` that the reader of this name knows."""
    if name in ("digits", "shapes", "shapes1000"):
        readers = {"digits": read_digits, "shapes": read_shapes, "shapes1000": read_thousand_shapes}
        return readers[name]()
    if name in ("mnist", "cifar10"):
        return (read_mnist if name == "mnist" else read_cifar10)(root, framing)
    if name == "imagenet":
        return read_imagenet(root / "ImageNet", framing)
    if not os.path.isdir(os.path.expanduser(name)):
        raise NotFound(f"data: {name!r} is neither a data set ({', '.join(NAMES)}) nor an image folder that exists")
    title = data_name(name)
    known = {"title": title, "source": f"the image folder {title}", "flip": True}
    try:
        return known | read_folder(Path(name).expanduser().resolve(), framing)
    except PermissionError as error:
        raise UserError(f"data: {error.filename} cannot be read ({error.strerror})") from error


def _tell(data: Data) -> None:
    """Say in the log what was left out, and what of the pictures looks odd."""
    if data.unreadable:
        many = len(data.unreadable) > 1
        what = f"{len(data.unreadable)} pictures do not open and are" if many else "1 picture does not open and is"
        log.warning("%s: %s left out: %s", data.name, what, join_names(data.unreadable, 5))
    if data.passed_over:
        log.warning(
            "%s: what is no picture of a class is passed over: %s", data.name, count_names(list(data.passed_over))
        )
    if data.untested:
        names = count_names([data.classes[i] for i in data.untested])
        log.warning("%s: classes without test pictures, of which nothing can be measured: %s", data.name, names)
    if data.flip and not isinstance(data.train.images, Pictures):
        for one, other in mirrored_alike(data.train, data.num_classes):
            names = (data.classes[one], data.classes[other])
            log.warning(
                "%s: mirrored, pictures of %s look like %s; --no-flip (flip=False) mirrors none", data.name, *names
            )
