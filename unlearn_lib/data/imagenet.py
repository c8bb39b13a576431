"""ImageNet on disk: a folder a class, or one flat folder with the ground truth beside it.

The classes stand in the order of their wnids, which is that of torchvision's weights.
"""

import csv
from pathlib import Path

import torch
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.models import ResNet18_Weights

from unlearn_lib.common import NotFound, UserError
from unlearn_lib.networks import Framing

WNIDS = Path(__file__).with_name("wnids.txt")
TRUTHS = ("val.txt", "LOC_val_solution.csv", "ILSVRC2012_validation_ground_truth.txt")
FRAMING = Framing((3, 224, 224), 256, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def imagenet_classes() -> tuple[list[str], list[str]]:
    """The names of the 1,000 classes, as torchvision's weights have them, and their wnids."""
    return list(ResNet18_Weights.IMAGENET1K_V1.meta["categories"]), WNIDS.read_text().split()


def imagenet_splits(folder: Path, framing: Framing | None = None) -> list[tuple[list[Path], Framing, torch.Tensor]]:
    """Paths, framing and labels of the training pictures (none where there is no `train`) and of those in `val`.

    val: `val/<wnid>/*.JPEG`, or flat `val/ILSVRC2012_val_*.JPEG` with one of TRUTHS beside it or in it.
    Raises FileNotFoundError where there are no pictures, ValueError where their classes cannot be told.
    """
    _, wnids = imagenet_classes()
    index = {wnid: i for i, wnid in enumerate(wnids)}
    splits = []
    for part in ("train", "val"):
        below = folder / part
        found = {path.name for path in below.iterdir() if path.is_dir()} & index.keys() if below.is_dir() else set()
        paths = [p for wnid in sorted(found) for p in _pictures(below / wnid)]
        labels = [index[path.parent.name] for path in paths]
        if part == "val" and not paths and below.is_dir():
            paths = _pictures(below)
            truth = _truth(folder, wnids, len(paths)) if paths else {}
            absent = [path.name for path in paths if path.stem not in truth]
            if absent:
                raise UserError(f"data: the ground truth beside {below} does not name {absent[0]}")
            labels = [truth[path.stem] for path in paths]
        splits.append((paths, framing or FRAMING, torch.tensor(labels, dtype=torch.int64)))
    if not splits[1][0]:
        raise NotFound(
            f"data: no ImageNet at {folder}; put val/<wnid>/*.JPEG there, or val/ILSVRC2012_val_*.JPEG with "
            f"{' or '.join(TRUTHS)} beside it"
        )
    return splits


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMG_EXTENSIONS)


def _truth(folder: Path, wnids: list[str], count: int) -> dict[str, int]:
    """Each picture's class, by the picture's name without suffix."""
    file = next((f for name in TRUTHS for f in (folder / name, folder / "val" / name) if f.is_file()), None)
    if file is None:
        raise NotFound(f"data: {folder / 'val'} is flat; put {' or '.join(TRUTHS)} into {folder}")
    rows = [row for row in csv.reader(file.read_text().replace(",", " ").splitlines(), delimiter=" ") if row]
    if file.name == TRUTHS[2]:
        if len(rows) != count:
            raise UserError(f"data: {file} has {len(rows)} lines, for {count} pictures")
        order = _devkit_order(folder, file)
        return {f"ILSVRC2012_val_{i:08d}": wnids.index(order[int(row[0])]) for i, row in enumerate(rows, 1)}
    truth = {}
    for name, word, *_ in rows:
        if word in wnids or (word.isdecimal() and int(word) < len(wnids)):
            truth[Path(name).stem] = wnids.index(word) if word in wnids else int(word)
    return truth


def _devkit_order(folder: Path, file: Path) -> dict[int, str]:
    """The devkit's own numbers of the classes, which are not in the order of the wnids, from its meta.mat."""
    from scipy.io import loadmat

    meta = next((m for m in (folder / "meta.mat", folder / "val" / "meta.mat") if m.is_file()), None)
    if meta is None:
        raise NotFound(f"data: {file.name} numbers the classes as the devkit does; put its meta.mat beside it")
    synsets = loadmat(meta, squeeze_me=True)["synsets"]
    return {int(entry["ILSVRC2012_ID"]): str(entry["WNID"]) for entry in synsets}
