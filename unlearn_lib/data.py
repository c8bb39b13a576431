"""Data: pictures as uint8 tensors in memory, with the words that belong to them.

`load_data(name)` reads MNIST, CIFAR-10 or any image folder, and the two embedded sets `digits` and `shapes`.
Forget and retain sets are made by a class mask on those tensors.
"""

import gzip
import os
import sys
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision
from PIL import Image, ImageOps
from torch.nn.functional import interpolate
from torchvision.datasets.folder import IMG_EXTENSIONS
from tqdm.auto import tqdm

from unlearn_lib.shapes import CLASSES as SHAPES
from unlearn_lib.shapes import draw_shapes

REPOSITORY = Path(__file__).resolve().parents[1]


def progress(steps: Iterable, description: str, total: int | None = None) -> tqdm:
    """The one progress bar of a run, on standard error or in the notebook; `UNLEARN_PROGRESS=0` turns it off."""
    off = os.environ.get("UNLEARN_PROGRESS") == "0"
    return tqdm(steps, desc=description, total=total, disable=off, file=sys.stderr, leave=False)


@dataclass(frozen=True)
class Split:
    """Pictures uint8 [N, C, H, W] and their labels int64 [N]."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def only(self, classes: Collection[int]) -> "Split":
        """The pictures of these classes, by a mask."""
        return self.take(torch.isin(self.labels, torch.tensor(sorted(classes), dtype=torch.int64)))

    def without(self, classes: Collection[int]) -> "Split":
        """The pictures of all other classes, by a mask."""
        return self.take(~torch.isin(self.labels, torch.tensor(sorted(classes), dtype=torch.int64)))

    def take(self, index: torch.Tensor) -> "Split":
        """The pictures at `index` (positions or a boolean mask)."""
        return Split(self.images[index], self.labels[index])


@dataclass(frozen=True)
class Data:
    """One data set: its three splits and the words that travel with them.

    `name` goes into file names, `title` into figures, `source` says in a sentence where the pictures come from.
    `flip` says whether a mirrored picture still shows its class.
    """

    name: str
    title: str
    source: str
    classes: list[str]
    train: Split
    val: Split
    test: Split
    flip: bool
    mean: float = 0.5
    std: float = 0.25

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width of a picture."""
        return tuple(self.test.images.shape[1:])

    def normalise(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 pictures as the networks take them: float32, (value / 255 - mean) / std."""
        return (images.float() / 255 - self.mean) / self.std


def load_data(
    name: str, root: str | Path | None = None, *, shape: tuple[int, int, int] | None = None, seed: int = 0
) -> Data:
    """Load a data set by name (`mnist`, `cifar10`, `digits`, `shapes`) or an image folder by its path.

    root: where data sets lie; `$UNLEARN_DATA`, else the repository's `data/`. shape: (C, H, W) to bring the
    pictures to. seed: of the validation split (10 % of train, the same share of every class).
    Raises ValueError on files that cannot be read as what they should be, FileNotFoundError on absent ones.
    """
    root = Path(root or os.environ.get("UNLEARN_DATA") or REPOSITORY / "data").expanduser()
    if name == "digits":
        title, source, classes, train, test, flip = _digits()
    elif name == "shapes":
        title = "shapes"
        source = "shapes, 8,000 pictures of ten figures drawn by this project"
        train, test = Split(*draw_shapes(600, seed=1)), Split(*draw_shapes(200, seed=2))
        classes, flip = SHAPES, True
    elif name == "mnist":
        title, source, classes, train, test, flip = _mnist(root, shape)
    elif name == "cifar10":
        title, source, classes, train, test, flip = _cifar10(root, shape)
    elif Path(name).expanduser().is_dir():
        folder = Path(name).expanduser().resolve()
        name = title = folder.name
        source, flip = f"the image folder {folder.name}", True
        classes, train, test = _folder(folder, shape)
    else:
        raise FileNotFoundError(
            f"data: {name!r} is neither a data set (mnist, cifar10, digits, shapes) nor an image folder that exists"
        )
    for split in (train, test):
        if len(split) and not 0 <= int(split.labels.min()) <= int(split.labels.max()) < len(classes):
            raise ValueError(f"data: {name} has labels outside 0 to {len(classes) - 1}")
    if shape is not None and tuple(test.images.shape[1:]) != tuple(shape):
        source += f", brought to {shape[1]}x{shape[2]}" + (" grey" if shape[0] == 1 else "")
        train, test = (Split(_reshape(split.images, shape), split.labels) for split in (train, test))
    train, val = hold_out(train, 0.1, seed)
    grey = {"mean": 0.13, "std": 0.31} if name in ("mnist", "digits") else {}  # mostly black pictures
    return Data(name, title, source, list(classes), train, val, test, flip, **grey)


def hold_out(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Split in two, `share` of every class going to the second; the same seed, the same pictures."""
    generator = torch.Generator().manual_seed(seed)
    held = torch.zeros(len(split), dtype=torch.bool)
    for label in split.labels.unique():
        members = (split.labels == label).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator)
        held[members[order[: round(share * len(members))]]] = True
    return split.take(~held), split.take(held)


def parse_classes(given: str | int | Iterable[str | int], classes: list[str], argument: str = "forget") -> list[int]:
    """Class indices, sorted, from exact names, indices and ranges such as `0-49`, read in that order.

    Where all class names are digits they are read as indices. Raises ValueError on anything else.
    """
    by_index = all(name.isdigit() for name in classes)
    chosen = set()
    for word in map(str, [given] if isinstance(given, str | int) else given):
        first, dash, last = word.partition("-")
        if word in classes and not by_index:
            chosen.add(classes.index(word))
        elif word.isdecimal() and int(word) < len(classes):
            chosen.add(int(word))
        elif dash and first.isdecimal() and last.isdecimal() and int(first) <= int(last) < len(classes):
            chosen.update(range(int(first), int(last) + 1))
        else:
            names = ", ".join(classes[:12]) + (", ..." if len(classes) > 12 else "")
            raise ValueError(
                f"{argument}: no class {word!r}; a name ({names}), an index from 0 to {len(classes) - 1} "
                "or a range such as 0-1 is accepted"
            )
    return sorted(chosen)


def check_forget(forget: Collection[int], num_classes: int) -> list[int]:
    """Forget classes as sorted indices; raises ValueError where none or all are given, or one is out of range."""
    chosen = sorted({int(c) for c in forget})
    if not chosen or chosen[0] < 0 or chosen[-1] >= num_classes or len(chosen) == num_classes:
        given = "none" if not chosen else "all" if chosen == list(range(num_classes)) else chosen
        raise ValueError(
            f"forget: {given} given; between 1 and {num_classes - 1} of the classes 0 to {num_classes - 1} "
            "can be forgotten"
        )
    return chosen


def read_idx(path: Path) -> np.ndarray:
    """Read one IDX file of bytes, gzipped or not; raises ValueError where it is damaged or of another kind."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            content = file.read()
    except (EOFError, gzip.BadGzipFile, gzip.zlib.error) as error:
        raise ValueError(f"data: {path} is not a whole gzip file; fetch it again") from error
    dimensions = content[3] if len(content) > 3 else 0
    start = 4 + 4 * dimensions
    if content[:3] != b"\0\0\x08" or not dimensions or len(content) < start:
        raise ValueError(f"data: {path} is not an IDX file of bytes")
    shape = np.frombuffer(content, ">u4", dimensions, offset=4).astype(np.int64)
    if len(content) - start != int(np.prod(shape, dtype=object)):
        raise ValueError(f"data: {path} holds {len(content) - start} bytes of data, its header promises {tuple(shape)}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()


def _digits():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    small = torch.from_numpy(bunch.images / 16 * 255).round().to(torch.uint8)[:, None]
    whole = Split(_reshape(small, (1, 28, 28)), torch.from_numpy(bunch.target).long())
    source = "digits, scikit-learn's 1,797 real handwritten digits, enlarged from 8x8 to 28x28"
    return "digits", source, [str(i) for i in range(10)], *hold_out(whole, 0.2, seed=0), False


def _mnist(root: Path, shape):
    folder, classes = root / "MNIST", [str(i) for i in range(10)]
    files = _mnist_files(folder)
    if files is None and (folder / "train").is_dir():
        return "MNIST", "MNIST, read from an image folder", *_folder(folder, shape), False
    if files is None:
        try:
            torchvision.datasets.MNIST(root, download=True)
        except (RuntimeError, OSError) as error:
            raise FileNotFoundError(
                f"data: no MNIST at {folder} and none could be downloaded; put train-images-idx3-ubyte.gz, "
                "train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz there"
            ) from error
        files = _mnist_files(folder)
    splits = []
    for part in ("train", "t10k"):
        images, labels = read_idx(files[part, "images"]), read_idx(files[part, "labels"])
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise ValueError(
                f"data: {files[part, 'images']} {images.shape} and {files[part, 'labels']} {labels.shape} "
                "do not belong together"
            )
        splits.append(Split(torch.from_numpy(images)[:, None], torch.from_numpy(labels).long()))
    return "MNIST", "MNIST, the original 70,000 handwritten digits", classes, *splits, False


def _mnist_files(folder: Path) -> dict | None:
    """The four IDX files by part and kind, gzipped or not, hyphen or dot before `idx`; None where one is absent."""
    found = {}
    for part in ("train", "t10k"):
        for kind, code in (("images", "idx3"), ("labels", "idx1")):
            for name in (f"{part}-{kind}{mark}{code}-ubyte{end}" for mark in "-." for end in ("", ".gz")):
                for path in (folder / name, folder / "raw" / name):
                    if path.is_file():
                        found.setdefault((part, kind), path)
    return found if len(found) == 4 else None


def _cifar10(root: Path, shape):
    official, folder = root / "cifar-10-batches-py", root / "CIFAR10"
    if not official.is_dir() and folder.is_dir():
        classes, train, test = _folder(folder, shape)
        return "CIFAR-10", "CIFAR-10, read from an image folder", classes, train, test, True
    try:
        parts = [
            torchvision.datasets.CIFAR10(root, train=train, download=not official.is_dir()) for train in (True, False)
        ]
    except (RuntimeError, OSError) as error:
        raise FileNotFoundError(
            f"data: no sound CIFAR-10 at {root} and none could be downloaded; put the official cifar-10-batches-py "
            "there, or an image folder CIFAR10/{train,test}/<class>/"
        ) from error
    splits = (Split(torch.from_numpy(p.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(p.targets)) for p in parts)
    return "CIFAR-10", "CIFAR-10, the official 60,000 pictures", parts[0].classes, *splits, True


def _folder(folder: Path, shape) -> tuple[list[str], Split, Split]:
    """Read `{train,test or val}/<class>/*`, or `<class>/*` split 80/20 per class; a class is a folder's name."""
    train_folder = folder / "train"
    test_folder = next((folder / part for part in ("test", "val") if (folder / part).is_dir()), None)
    if train_folder.is_dir() and test_folder is None:
        raise ValueError(f"data: {folder} has a folder train, but neither test nor val beside it")
    parts = [train_folder, test_folder] if train_folder.is_dir() else [test_folder or folder]
    classes = sorted(p.name for p in parts[0].iterdir() if p.is_dir() and not p.name.startswith("."))
    splits = [_read_pictures(part, classes, shape) for part in parts]
    if len(splits) == 1:
        splits = hold_out(splits[0], 0.2, seed=0)
    return classes, *splits


def _read_pictures(folder: Path, classes: list[str], shape) -> Split:
    """Decode all pictures below `folder`, each brought to `shape`, or else to the shape of the first."""
    unknown = {p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")} - set(classes)
    paths = [p for c in classes for p in sorted((folder / c).glob("*")) if p.suffix.lower() in IMG_EXTENSIONS]
    if unknown or not paths:
        what = f"classes that train has not: {', '.join(sorted(unknown))}" if unknown else "no pictures"
        raise ValueError(f"data: {folder} has {what}; <class>/*.jpg, .png and the like are accepted")
    if shape is None:
        with Image.open(paths[0]) as first:
            shape = (1 if first.mode == "L" else 3, first.height, first.width)

    def decode(path: Path) -> np.ndarray:
        try:
            with Image.open(path) as picture:
                colours = picture.convert("L" if shape[0] == 1 else "RGB")
        except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises on damaged files
            raise ValueError(f"data: the picture {path} does not open; mend it or take it away") from error
        if colours.size != (shape[2], shape[1]):
            colours = ImageOps.fit(colours, (shape[2], shape[1]), Image.Resampling.BILINEAR)
        return np.asarray(colours).reshape(shape[1], shape[2], -1).transpose(2, 0, 1)

    images = torch.empty(len(paths), *shape, dtype=torch.uint8)
    large = paths[0].stat().st_size > 20_000  # handing out smaller pictures costs more than it wins
    with ThreadPoolExecutor() as pool:
        decoded = pool.map(decode, paths) if large else map(decode, paths)
        for i, pixels in enumerate(progress(decoded, f"reading {folder.name}", len(paths))):
            images[i] = torch.from_numpy(pixels.copy())
    index = {name: i for i, name in enumerate(classes)}
    return Split(images, torch.tensor([index[p.parent.name] for p in paths]))


def _reshape(images: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
    """uint8 pictures at another size, grey made colour or colour grey, in chunks."""
    result = torch.empty(len(images), *shape, dtype=torch.uint8)
    grey = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    for start in range(0, len(images), 4096):
        chunk = images[start : start + 4096].float()
        if chunk.shape[1] == 3 and shape[0] == 1:
            chunk = (chunk * grey).sum(1, keepdim=True)
        if chunk.shape[-2:] != tuple(shape[1:]):
            chunk = interpolate(chunk, shape[1:], mode="bilinear", antialias=True, align_corners=False)
        result[start : start + 4096] = chunk.round().clamp(0, 255).to(torch.uint8)  # grey spreads over channels
    return result
