"""Readers: each gives a data set's title, source in words, classes, training and test pictures, and whether a mirrored
picture still shows its class.

Official files are read by torchvision, or checked here (MNIST's IDX files); where they are absent an image folder is.
"""

import gzip
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch.nn.functional import interpolate

from unlearn_lib.common import NotFound, UserError
from unlearn_lib.data.pictures import Pictures, find_pictures, first_framing, read_pictures
from unlearn_lib.data.shapes import SHAPE_CLASSES, draw_shapes
from unlearn_lib.networks import Framing


@dataclass(frozen=True)
class Split:
    """Pictures uint8 [N, C, H, W], in memory or on disk, and their labels int64 [N].

    unreadable: names of pictures that belong here and did not open.
    """

    images: torch.Tensor | Pictures
    labels: torch.Tensor
    unreadable: tuple[str, ...] = ()

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
        images = self.images.take(index) if isinstance(self.images, Pictures) else self.images[index]
        return Split(images, self.labels[index])

    def batch(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Decoded pictures and labels at `index`; those on disk that do not open are left out."""
        images, labels = self.images[index], self.labels[index]
        if isinstance(self.images, Pictures):
            good = self.opened[index]
            images, labels = images[good], labels[good]
        return images, labels

    @property
    def opened(self) -> torch.Tensor:
        """bool [N]: False for a picture on disk of which it is known that it does not open."""
        on_disk = isinstance(self.images, Pictures)
        return self.images.opened if on_disk else torch.ones(len(self), dtype=torch.bool)


def hold_out(split: Split, share: float, seed: int) -> tuple[Split, Split]:
    """Split in two, `share` of every class going to the second; the same seed, the same pictures."""
    generator = torch.Generator().manual_seed(seed)
    held = torch.zeros(len(split), dtype=torch.bool)
    for label in split.labels.unique():
        members = (split.labels == label).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator)
        held[members[order[: round(share * len(members))]]] = True
    return split.take(~held), split.take(held)


def read_idx(path: Path) -> np.ndarray:
    """Read one IDX file of bytes, gzipped or not; raises ValueError where it is damaged or of another kind."""
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            content = file.read()
    except (EOFError, gzip.BadGzipFile, gzip.zlib.error) as error:
        raise UserError(f"data: {path} is not a whole gzip file; fetch it again") from error
    dimensions = content[3] if len(content) > 3 else 0
    start = 4 + 4 * dimensions
    if content[:3] != b"\0\0\x08" or not dimensions or len(content) < start:
        raise UserError(f"data: {path} is not an IDX file of bytes")
    shape = np.frombuffer(content, ">u4", dimensions, offset=4).astype(np.int64)
    if len(content) - start != int(np.prod(shape, dtype=object)):
        raise UserError(f"data: {path} holds {len(content) - start} bytes of data, its header promises {tuple(shape)}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()


def read_digits():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    small = torch.from_numpy(bunch.images / 16 * 255).round().to(torch.uint8)[:, None]
    whole = Split(reshape(small, (1, 28, 28)), torch.from_numpy(bunch.target).long())
    source = "digits, scikit-learn's 1,797 real handwritten digits, enlarged from 8x8 to 28x28"
    return "digits", source, [str(i) for i in range(10)], *hold_out(whole, 0.2, seed=0), False


def read_shapes():
    train, test = Split(*draw_shapes(600, seed=1)), Split(*draw_shapes(200, seed=2))
    return "shapes", "shapes, 8,000 pictures of ten figures drawn by this project", SHAPE_CLASSES, train, test, True


def read_thousand_shapes():
    """Four of the figures, few enough of each for a large network to learn in half a minute."""
    classes = ["square", "cross", "star", "ring"]  # in the order of all ten
    own = torch.tensor([SHAPE_CLASSES.index(name) for name in classes])
    splits = []
    for count, seed in ((200, 1), (50, 2)):
        part = Split(*draw_shapes(count, seed=seed)).only(own.tolist())
        splits.append(replace(part, labels=torch.searchsorted(own, part.labels)))
    return "1,000 shapes", "shapes1000, 1,000 pictures of four figures drawn by this project", classes, *splits, True


def read_mnist(root: Path, framing: Framing | None):
    folder, classes = root / "MNIST", [str(i) for i in range(10)]
    files = _mnist_files(folder)
    if files is None and (folder / "train").is_dir():
        return "MNIST", "MNIST, read from an image folder", *read_folder(folder, framing), False
    if files is None:
        try:
            torchvision.datasets.MNIST(root, download=True)
        except (RuntimeError, OSError) as error:
            raise NotFound(
                f"data: no MNIST at {folder} and none could be downloaded; put train-images-idx3-ubyte.gz, "
                "train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz there"
            ) from error
        files = _mnist_files(folder)
    splits = []
    for part in ("train", "t10k"):
        images, labels = read_idx(files[part, "images"]), read_idx(files[part, "labels"])
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise UserError(
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


def read_cifar10(root: Path, framing: Framing | None):
    official, folder = root / "cifar-10-batches-py", root / "CIFAR10"
    if not official.is_dir() and folder.is_dir():
        classes, train, test = read_folder(folder, framing)
        return "CIFAR-10", "CIFAR-10, read from an image folder", classes, train, test, True
    try:
        parts = [
            torchvision.datasets.CIFAR10(root, train=train, download=not official.is_dir()) for train in (True, False)
        ]
    except (RuntimeError, OSError) as error:
        raise NotFound(
            f"data: no sound CIFAR-10 at {root} and none could be downloaded; put the official cifar-10-batches-py "
            "there, or an image folder CIFAR10/{train,test}/<class>/"
        ) from error
    splits = (Split(torch.from_numpy(p.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(p.targets)) for p in parts)
    return "CIFAR-10", "CIFAR-10, the official 60,000 pictures", parts[0].classes, *splits, True


def read_folder(folder: Path, framing: Framing | None) -> tuple[list[str], Split, Split]:
    """Read `{train,test or val}/<class>/*`, or `<class>/*` split 80/20 per class; a class is a folder's name."""
    train_folder = folder / "train"
    test_folder = next((folder / part for part in ("test", "val") if (folder / part).is_dir()), None)
    if train_folder.is_dir() and test_folder is None:
        raise UserError(f"data: {folder} has a folder train, but neither test nor val beside it")
    parts = [train_folder, test_folder] if train_folder.is_dir() else [test_folder or folder]
    classes = sorted(p.name for p in parts[0].iterdir() if p.is_dir() and not p.name.startswith("."))
    found = [find_pictures(part, classes) for part in parts]
    framing = framing or first_framing(found[0][0])
    splits = []
    for part, (paths, labels) in zip(parts, found, strict=True):
        images, kept, unreadable = read_pictures(paths, framing, part.name)
        lost = set(labels.tolist()) - set(labels[kept].tolist())
        if lost:
            raise UserError(f"data: no picture of {classes[min(lost)]} in {part} opens; mend them or take it away")
        splits.append(Split(images, labels[kept], tuple(unreadable)))
    if len(splits) == 1:
        train, test = hold_out(splits[0], 0.2, seed=0)
        splits = [replace(train, unreadable=splits[0].unreadable), test]
    return classes, *splits


def reshape(images: torch.Tensor, shape: tuple[int, int, int]) -> torch.Tensor:
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
