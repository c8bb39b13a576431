"""Readers of the known data sets: each returns the fields of `Data`, validation pictures still in `train`.

torchvision reads CIFAR-10's official files. Where official files are absent, an image folder is read.
"""

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets import CIFAR10, MNIST

from unlearn_lib.common import NotFound, UserError
from unlearn_lib.data.folders import read_folder
from unlearn_lib.data.shapes import SHAPE_CLASSES, draw_shapes
from unlearn_lib.data.splits import Split, hold_out, resize_pictures
from unlearn_lib.networks import Framing

DIGITS = {
    "classes": [str(i) for i in range(10)],
    "flip": False,  # a mirrored digit is not a digit
    "mean": 0.13,  # mostly black
    "std": 0.31,
}
IDX_FILES = {"train": ("train-images", "train-labels"), "test": ("t10k-images", "t10k-labels")}


def read_digits() -> dict:
    """Read scikit-learn's digits."""
    from sklearn.datasets import load_digits  # slow to import

    bunch = load_digits()
    small = torch.from_numpy(bunch.images / 16 * 255).round().to(torch.uint8)[:, None]
    whole = Split(resize_pictures(small, (1, 28, 28)), torch.from_numpy(bunch.target).long())
    train, test = hold_out(whole, 0.2, seed=0)
    source = "digits, scikit-learn's 1,797 real handwritten digits, enlarged from 8x8 to 28x28"
    return {"title": "digits", "source": source, "train": train, "test": test, **DIGITS}


def read_shapes() -> dict:
    """Draw all ten figures."""
    source = "shapes, 8,000 pictures of ten figures drawn by this project"
    return {"title": "shapes", "source": source, **_draw_splits(SHAPE_CLASSES, 600, 200)}


def read_thousand_shapes() -> dict:
    """Draw four of the figures; a large network learns so few pictures in half a minute."""
    source = "shapes1000, 1,000 pictures of four figures drawn by this project"
    return {"title": "1,000 shapes", "source": source, **_draw_splits(["square", "cross", "star", "ring"], 200, 50)}


def _draw_splits(classes: list[str], train: int, test: int) -> dict:
    """Draw these figures, `train` and `test` pictures of each class."""
    chosen = torch.tensor([SHAPE_CLASSES.index(name) for name in classes])  # ascending
    fields = {"classes": classes, "flip": True}
    for part, per_class, seed in (("train", train, 1), ("test", test, 2)):
        split = Split(*draw_shapes(per_class, seed)).only(chosen.tolist())
        fields[part] = Split(split.images, torch.searchsorted(chosen, split.labels))
    return fields


def read_mnist(root: Path, framing: Framing | None) -> dict:
    """Read MNIST's IDX files, else an image folder, else download them.

    Raises:
        NotFound: there are none, and they cannot be downloaded.
        UserError: a file is damaged.
    """
    folder = root / "MNIST"
    is_complete = all(_find_idx_file(folder, name) for names in IDX_FILES.values() for name in names)
    if not is_complete and (folder / "train").is_dir():
        return DIGITS | {"title": "MNIST", "source": "MNIST, read from an image folder"} | read_folder(folder, framing)
    if not is_complete:
        try:
            MNIST(root, download=True)
        except (RuntimeError, OSError) as error:
            raise NotFound(
                f"data: no MNIST at {folder} and none could be downloaded; put train-images-idx3-ubyte.gz, "
                "train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz there"
            ) from error
    fields = {"title": "MNIST", "source": "MNIST, the original 70,000 handwritten digits", **DIGITS}
    for part, names in IDX_FILES.items():
        images, labels = (read_idx(_find_idx_file(folder, name)) for name in names)
        if images.ndim != 3 or images.shape[:1] != labels.shape:
            shapes = f"{tuple(images.shape)} and {tuple(labels.shape)}"
            raise UserError(f"data: the {part} images and labels in {folder} do not belong together: {shapes}")
        if (labels > 9).any():
            raise UserError(f"data: {folder} has {part} labels outside 0 to 9")
        fields[part] = Split(images[:, None], labels.long())
    return fields


def _find_idx_file(folder: Path, name: str) -> Path | None:
    """Return an IDX file, gzipped or not, with a hyphen or a dot before `idx`; None where it is absent."""
    pattern = f"{name}[-.]idx?-ubyte*"
    return next(iter(sorted(folder.glob(pattern)) + sorted(folder.glob(f"raw/{pattern}"))), None)


def read_idx(path: Path) -> torch.Tensor:
    """Read one IDX file of bytes, gzipped or not (the format is described at LeCun's MNIST page).

    Raises:
        UserError: the file is damaged or of another kind.
    """
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        if not content.startswith(b"\0\0\x08"):
            raise ValueError("its header is another")
        shape = np.frombuffer(content, ">u4", content[3], offset=4)
        values = np.frombuffer(content, np.uint8, offset=4 + shape.nbytes)
        return torch.from_numpy(values.reshape(shape).copy())
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise UserError(f"data: {path} is not a whole IDX file of bytes ({error}); fetch it again") from error


def read_cifar10(root: Path, framing: Framing | None) -> dict:
    """Read CIFAR-10's official files, else an image folder, else download them.

    Raises:
        NotFound: there are none, or they fail their checksum, and they cannot be downloaded.
    """
    is_official = (root / "cifar-10-batches-py").is_dir()
    fields = {"title": "CIFAR-10", "flip": True}
    if not is_official and (root / "CIFAR10").is_dir():
        return fields | {"source": "CIFAR-10, read from an image folder"} | read_folder(root / "CIFAR10", framing)
    fields["source"] = "CIFAR-10, the official 60,000 pictures"
    try:
        for part in ("train", "test"):
            official = CIFAR10(root, train=part == "train", download=not is_official)
            images = torch.from_numpy(official.data).permute(0, 3, 1, 2).contiguous()
            fields[part] = Split(images, torch.tensor(official.targets))
            fields["classes"] = official.classes
    except (RuntimeError, OSError) as error:
        raise NotFound(
            f"data: no sound CIFAR-10 at {root} and none could be downloaded; put the official cifar-10-batches-py "
            "there, or an image folder CIFAR10/{train,test}/<class>/"
        ) from error
    return fields
