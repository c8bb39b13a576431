"""Readers of the known data sets: each gives the fields of `Data` that it knows, validation pictures still in `train`.

Official files are read by torchvision, or checked here (MNIST's IDX files); where they are absent an image folder is.
"""

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torchvision

from unlearn_lib.common import NotFound, UserError
from unlearn_lib.data.folders import read_folder
from unlearn_lib.data.shapes import SHAPE_CLASSES, draw_shapes
from unlearn_lib.data.splits import Split, hold_out, reshape
from unlearn_lib.networks import Framing

DIGITS = [str(i) for i in range(10)]
DARK = {"flip": False, "mean": 0.13, "std": 0.31}  # mostly black pictures, of which mirrored ones are others


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


def read_digits() -> dict:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    small = torch.from_numpy(bunch.images / 16 * 255).round().to(torch.uint8)[:, None]
    whole = Split(reshape(small, (1, 28, 28)), torch.from_numpy(bunch.target).long())
    train, test = hold_out(whole, 0.2, seed=0)
    source = "digits, scikit-learn's 1,797 real handwritten digits, enlarged from 8x8 to 28x28"
    return {"title": "digits", "source": source, "classes": DIGITS, "train": train, "test": test} | DARK


def read_shapes() -> dict:
    train, test = Split(*draw_shapes(600, seed=1)), Split(*draw_shapes(200, seed=2))
    source = "shapes, 8,000 pictures of ten figures drawn by this project"
    return {"title": "shapes", "source": source, "classes": SHAPE_CLASSES, "train": train, "test": test, "flip": True}


def read_thousand_shapes() -> dict:
    """Four of the figures, little enough of each for a large network to learn in half a minute."""
    classes = ["square", "cross", "star", "ring"]  # in the order of all ten
    chosen = torch.tensor([SHAPE_CLASSES.index(name) for name in classes])
    splits = {}
    for part, count, seed in (("train", 200, 1), ("test", 50, 2)):
        drawn = Split(*draw_shapes(count, seed=seed)).only(chosen.tolist())
        splits[part] = replace(drawn, labels=torch.searchsorted(chosen, drawn.labels))
    source = "shapes1000, 1,000 pictures of four figures drawn by this project"
    return {"title": "1,000 shapes", "source": source, "classes": classes, **splits, "flip": True}


def read_mnist(root: Path, framing: Framing | None) -> dict:
    folder = root / "MNIST"
    files = _mnist_files(folder)
    if files is None and (folder / "train").is_dir():
        return {"title": "MNIST", "source": "MNIST, read from an image folder"} | DARK | read_folder(folder, framing)
    if files is None:
        try:
            torchvision.datasets.MNIST(root, download=True)
        except (RuntimeError, OSError) as error:
            raise NotFound(
                f"data: no MNIST at {folder} and none could be downloaded; put train-images-idx3-ubyte.gz, "
                "train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz there"
            ) from error
        files = _mnist_files(folder)
    splits = {}
    for part, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = read_idx(files[prefix, "images"]), read_idx(files[prefix, "labels"])
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise UserError(
                f"data: {files[prefix, 'images']} {images.shape} and {files[prefix, 'labels']} {labels.shape} "
                "do not belong together"
            )
        splits[part] = Split(torch.from_numpy(images)[:, None], torch.from_numpy(labels).long())
    source = "MNIST, the original 70,000 handwritten digits"
    return {"title": "MNIST", "source": source, "classes": DIGITS, **splits} | DARK


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


def read_cifar10(root: Path, framing: Framing | None) -> dict:
    official, folder = root / "cifar-10-batches-py", root / "CIFAR10"
    known = {"title": "CIFAR-10", "flip": True}
    if not official.is_dir() and folder.is_dir():
        return known | {"source": "CIFAR-10, read from an image folder"} | read_folder(folder, framing)
    try:
        parts = [
            torchvision.datasets.CIFAR10(root, train=train, download=not official.is_dir()) for train in (True, False)
        ]
    except (RuntimeError, OSError) as error:
        raise NotFound(
            f"data: no sound CIFAR-10 at {root} and none could be downloaded; put the official cifar-10-batches-py "
            "there, or an image folder CIFAR10/{train,test}/<class>/"
        ) from error
    splits = [Split(torch.from_numpy(p.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(p.targets)) for p in parts]
    known |= {"source": "CIFAR-10, the official 60,000 pictures", "classes": parts[0].classes}
    return known | {"train": splits[0], "test": splits[1]}
