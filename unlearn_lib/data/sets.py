"""Data: pictures as uint8 tensors in memory, with the words that belong to them.

`load_data(name)` reads MNIST, CIFAR-10 or any image folder, and the two embedded sets `digits` and `shapes`.
Forget and retain sets are made by a class mask on those tensors.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from unlearn_lib.common import REPOSITORY, NotFound, UserError
from unlearn_lib.data.imagenet import imagenet_classes, imagenet_splits
from unlearn_lib.data.pictures import Pictures
from unlearn_lib.data.sources import (
    Split,
    hold_out,
    read_cifar10,
    read_digits,
    read_folder,
    read_mnist,
    read_shapes,
    read_thousand_shapes,
    reshape,
)
from unlearn_lib.networks import Framing

NAMES = ("mnist", "cifar10", "imagenet", "digits", "shapes", "shapes1000")


@dataclass(frozen=True)
class Data:
    """One data set: its three splits and the words that travel with them.

    `name` goes into file names, `title` into figures, `source` says in a sentence where the pictures come from.
    `flip` says whether a mirrored picture still shows its class. mean, std: of all values, or of each channel.
    `wnids` are ImageNet's names of the classes, None for other sets.
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

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width of a picture."""
        return tuple(self.test.images.shape[1:])

    @property
    def pixel_range(self) -> tuple[float, float]:
        """Smallest and largest value of a normalised picture, over all channels."""
        mean, std = (torch.tensor(value, dtype=torch.double) for value in (self.mean, self.std))
        return (-mean / std).min().item(), ((1 - mean) / std).max().item()

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 pictures as the networks take them: float32, (value / 255 - mean) / std."""
        mean, std = (
            value if isinstance(value, float) else torch.tensor(value, device=images.device)[:, None, None]
            for value in (self.mean, self.std)
        )
        return (images.float() / 255 - mean) / std

    @property
    def unreadable(self) -> list[str]:
        """Names of the pictures that did not open and were left out, as far as it is known by now."""
        splits = (self.train, self.val, self.test)
        late = [s.images.paths[i].name for s in splits for i in (~s.opened).nonzero().flatten().tolist()]
        return [name for split in splits for name in split.unreadable] + late


def load_data(
    name: str,
    root: str | Path | None = None,
    *,
    shape: tuple[int, int, int] | None = None,
    framing: Framing | None = None,
    seed: int = 0,
) -> Data:
    """Load a data set by its name (one of NAMES), or an image folder by its path.

    root: where data sets lie; `$UNLEARN_DATA`, else the repository's `data/`. shape: (C, H, W) to bring the
    pictures to. framing: shape, cut and normalisation together, as pretrained weights want them. seed: of the
    validation split (10 % of train, the same share of every class).
    Raises ValueError on files that cannot be read as what they should be, FileNotFoundError on absent ones.
    """
    root = Path(root or os.environ.get("UNLEARN_DATA") or REPOSITORY / "data").expanduser()
    framing = framing or (Framing(tuple(shape)) if shape else None)
    wnids = None
    if name == "digits":
        title, source, classes, train, test, flip = read_digits()
    elif name in ("shapes", "shapes1000"):
        title, source, classes, train, test, flip = read_shapes() if name == "shapes" else read_thousand_shapes()
    elif name == "mnist":
        title, source, classes, train, test, flip = read_mnist(root, framing)
    elif name == "cifar10":
        title, source, classes, train, test, flip = read_cifar10(root, framing)
    elif name == "imagenet":
        title, source, flip = "ImageNet", "ImageNet, read when needed", True
        classes, wnids = imagenet_classes()
        train, test = (Split(Pictures(*part), labels) for *part, labels in imagenet_splits(root / "ImageNet", framing))
    elif Path(name).expanduser().is_dir():
        folder = Path(name).expanduser().resolve()
        name = title = folder.name
        source, flip = f"the image folder {folder.name}", True
        classes, train, test = read_folder(folder, framing)
    else:
        raise NotFound(f"data: {name!r} is neither a data set ({', '.join(NAMES)}) nor an image folder that exists")
    for split in (train, test):
        if len(split) and not 0 <= int(split.labels.min()) <= int(split.labels.max()) < len(classes):
            raise UserError(f"data: {name} has labels outside 0 to {len(classes) - 1}")
    if framing is not None and tuple(test.images.shape[1:]) != framing.shape:
        source += f", brought to {framing.shape[1]}x{framing.shape[2]}" + (" grey" if framing.shape[0] == 1 else "")
        train, test = (replace(split, images=reshape(split.images, framing.shape)) for split in (train, test))
    unreadable = train.unreadable
    train, val = hold_out(train, 0.1, seed)
    normal = {"mean": 0.13, "std": 0.31} if name in ("mnist", "digits") else {}  # mostly black pictures
    if framing is not None and framing.mean is not None:
        normal = {"mean": framing.mean, "std": framing.std}
    train = replace(train, unreadable=unreadable)
    return Data(name, title, source, list(classes), train, val, test, flip, **normal, wnids=wnids)


def parse_classes(
    given: str | int | Iterable[str | int],
    classes: list[str],
    argument: str = "forget",
    wnids: list[str] | None = None,
) -> list[int]:
    """Class indices, sorted, from exact names, indices, ranges such as `0-49`, wnids and files, read in that order.

    Where all class names are digits they are read as indices. A file holds one such word a line.
    Raises ValueError on anything else, and on a name that several classes have.
    """
    by_index = all(name.isdigit() for name in classes)
    chosen = set()
    for word in map(str, [given] if isinstance(given, str | int) else given):
        first, dash, last = word.partition("-")
        if word in classes and not by_index:
            same = [i for i, name in enumerate(classes) if name == word]
            if len(same) > 1:
                raise UserError(f"{argument}: {word!r} is the name of the classes {same}; give the index")
            chosen.add(same[0])
        elif word.isdecimal() and int(word) < len(classes):
            chosen.add(int(word))
        elif dash and first.isdecimal() and last.isdecimal() and int(first) <= int(last) < len(classes):
            chosen.update(range(int(first), int(last) + 1))
        elif word in (wnids or []):
            chosen.add(wnids.index(word))
        elif word and Path(word).expanduser().is_file():
            lines = Path(word).expanduser().read_text().splitlines()
            words = [line.strip() for line in lines if line.strip()]
            chosen.update(parse_classes(words, classes, argument, wnids))
        else:
            names = ", ".join(classes[:12]) + (", ..." if len(classes) > 12 else "")
            raise UserError(
                f"{argument}: no class {word!r}; a name ({names}), an index from 0 to {len(classes) - 1}, "
                f"a range such as 0-1{', a wnid' if wnids else ''} or a file with one of them a line is accepted"
            )
    return sorted(chosen)
