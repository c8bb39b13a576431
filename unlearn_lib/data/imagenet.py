"""ImageNet on disk: one folder a class, or one flat folder and a file with the true classes.

The classes stand in the order of their wnids. torchvision's weights use the same order.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from torchvision.models import ResNet18_Weights

from unlearn_lib.common import NotFound, UserError, read_text
from unlearn_lib.data.folders import list_labelled, list_pictures, name_below
from unlearn_lib.data.pictures import Pictures
from unlearn_lib.data.splits import Split
from unlearn_lib.networks import Framing

WNIDS = Path(__file__).with_name("wnids.txt")
DEVKIT = "ILSVRC2012_validation_ground_truth.txt"
TRUTHS = ("val.txt", "LOC_val_solution.csv", DEVKIT)
FRAMING = Framing((3, 224, 224), 256, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def imagenet_classes() -> tuple[list[str], list[str]]:
    """Return the names of the 1,000 classes, as torchvision's weights have them, and their wnids."""
    return list(ResNet18_Weights.IMAGENET1K_V1.meta["categories"]), WNIDS.read_text().split()


def read_imagenet(root: Path, framing: Framing | None = None) -> dict:
    """Read `<root>/ImageNet`: training pictures from `train`, if it exists, and test pictures from `val`.

    val holds `<wnid>/*.JPEG`, or `ILSVRC2012_val_*.JPEG` with one of TRUTHS in it or above it.

    Returns:
        The fields of `Data`.

    Raises:
        NotFound: there are no pictures.
        UserError: the class of a picture is not known.
    """
    folder = root / "ImageNet"
    names, wnids = imagenet_classes()
    passed_over = []
    splits = {}
    for split, part in (("train", folder / "train"), ("test", folder / "val")):
        others = []
        paths, labels = list_labelled(part, wnids, others)
        if split == "test" and others and not paths:
            others = []
            paths = list_pictures(part, others)
            labels = _read_labels(folder, paths, wnids)
        passed_over += [path for path in others if path.name not in (*TRUTHS, "meta.mat")]
        splits[split] = Split(Pictures(paths, framing or FRAMING, folder), labels)
    if not len(splits["test"]):
        raise NotFound(
            f"data: no ImageNet at {folder}; put val/<wnid>/*.JPEG there, or val/ILSVRC2012_val_*.JPEG with "
            f"{' or '.join(TRUTHS)}"
        )
    fields = {"title": "ImageNet", "source": "ImageNet, read when needed", "flip": True}
    return fields | splits | {"classes": names, "wnids": wnids, "passed_over": name_below(folder, passed_over)}


def _read_labels(folder: Path, paths: list[Path], wnids: list[str]) -> torch.Tensor:
    """Return the labels of the pictures in the flat folder `val`, from the file with the true classes."""
    truth = _find_file(folder, TRUTHS)
    if truth is None:
        raise NotFound(f"data: {folder / 'val'} is flat; put {' or '.join(TRUTHS)} into {folder}")
    rows = [line.replace(",", " ").split() for line in read_text(truth, "data").splitlines()]
    codes = [str(i) for i in range(len(wnids))]
    if truth.name == DEVKIT:  # its lines hold a number for each picture in order
        rows = [(f"ILSVRC2012_val_{i:08d}", *row) for i, row in enumerate(rows, 1)]
        codes = _read_devkit_numbers(folder, wnids)
    labels = {code: i for names in (wnids, codes) for i, code in enumerate(names)}
    labels_by_picture = {Path(row[0]).stem: labels.get(row[1]) for row in rows if len(row) > 1}
    found = [labels_by_picture.get(path.stem) for path in paths]
    if None in found:
        raise UserError(f"data: {truth} does not name {paths[found.index(None)].name} and its class")
    return torch.tensor(found, dtype=torch.int64)


def _read_devkit_numbers(folder: Path, wnids: list[str]) -> list[str]:
    """Return the devkit's numbers of the classes, in the order of their wnids, from its meta.mat."""
    from scipy.io import loadmat

    meta = _find_file(folder, ["meta.mat"])
    if meta is None:
        raise NotFound(f"data: {DEVKIT} numbers the classes as the devkit does; put its meta.mat into {folder}")
    try:
        synsets = loadmat(meta, squeeze_me=True)["synsets"]
        numbers = dict(zip(synsets["WNID"], synsets["ILSVRC2012_ID"], strict=True))
        return [str(numbers[wnid]) for wnid in wnids]
    except Exception as error:  # loadmat raises many kinds for damaged files
        raise UserError(f"data: {meta} is not the devkit's meta.mat; fetch it again") from error


def _find_file(folder: Path, names: Iterable[str]) -> Path | None:
    """Return the first of these files in the folder or in its `val`; None where none exists."""
    paths = [place / name for name in names for place in (folder, folder / "val")]
    return next(filter(Path.is_file, paths), None)
