"""ImageNet on disk: a folder a class, or one flat folder with the ground truth beside it.

The classes stand in the order of their wnids, which is that of torchvision's weights.
"""

from pathlib import Path

import torch
from torchvision.models import ResNet18_Weights

from unlearn_lib.common import NotFound, UserError, read_text
from unlearn_lib.data.folders import list_pictures
from unlearn_lib.data.pictures import Pictures
from unlearn_lib.data.splits import Split
from unlearn_lib.networks import Framing

WNIDS = Path(__file__).with_name("wnids.txt")
TRUTHS = ("val.txt", "LOC_val_solution.csv", "ILSVRC2012_validation_ground_truth.txt")
FRAMING = Framing((3, 224, 224), 256, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def imagenet_classes() -> tuple[list[str], list[str]]:
    """The names of the 1,000 classes, as torchvision's weights have them, and their wnids."""
    return list(ResNet18_Weights.IMAGENET1K_V1.meta["categories"]), WNIDS.read_text().split()


def read_imagenet(folder: Path, framing: Framing | None = None) -> dict:
    """The fields of `Data`: training pictures (none where there is no `train`), and those in `val` as test pictures.

    val: `val/<wnid>/*.JPEG`, or flat `val/ILSVRC2012_val_*.JPEG` with one of TRUTHS beside it or in it.
    Raises NotFound where there are no pictures, UserError where their classes cannot be told.
    """
    names, wnids = imagenet_classes()
    index = {wnid: i for i, wnid in enumerate(wnids)}
    splits, passed = {}, []
    for split, part in (("train", "train"), ("test", "val")):
        below = folder / part
        entries = sorted(below.iterdir()) if below.is_dir() else []
        folders = [path for path in entries if path.name in index and path.is_dir()]
        found = [(path, index[place.name]) for place in folders for path in list_pictures(place, passed, folder)]
        if part == "val" and entries and not folders:
            found = _flat(below, passed, wnids)
        else:
            passed += [str(path.relative_to(folder)) for path in entries if path not in folders]
        labels = torch.tensor([label for _, label in found], dtype=torch.int64)
        splits[split] = Split(Pictures([path for path, _ in found], framing or FRAMING, folder), labels)
    if not len(splits["test"]):
        raise NotFound(
            f"data: no ImageNet at {folder}; put val/<wnid>/*.JPEG there, or val/ILSVRC2012_val_*.JPEG with "
            f"{' or '.join(TRUTHS)} beside it"
        )
    passed = [name for name in passed if Path(name).name not in (*TRUTHS, "meta.mat")]
    known = {"title": "ImageNet", "source": "ImageNet, read when needed", "flip": True}
    return known | {"classes": names, "wnids": wnids, "passed_over": passed, **splits}


def _flat(below: Path, passed: list[str], wnids: list[str]) -> list[tuple[Path, int]]:
    """The pictures of a flat folder and their classes."""
    paths = list_pictures(below, passed, below.parent)
    truth = _truth(below.parent, wnids, len(paths)) if paths else {}
    absent = [path.name for path in paths if path.stem not in truth]
    if absent:
        raise UserError(f"data: the ground truth beside {below} does not name {absent[0]}")
    return [(path, truth[path.stem]) for path in paths]


def _truth(folder: Path, wnids: list[str], count: int) -> dict[str, int]:
    """Each picture's class, by the picture's name without suffix."""
    file = next((f for name in TRUTHS for f in (folder / name, folder / "val" / name) if f.is_file()), None)
    if file is None:
        raise NotFound(f"data: {folder / 'val'} is flat; put {' or '.join(TRUTHS)} into {folder}")
    rows = [line.replace(",", " ").split() for line in read_text(file, "data").splitlines() if line.strip()]
    index = {wnid: i for i, wnid in enumerate(wnids)}
    if file.name == TRUTHS[2]:
        if len(rows) != count:
            raise UserError(f"data: {file} has {len(rows)} lines, for {count} pictures")
        order = {number: index[wnid] for number, wnid in _devkit_order(folder, file).items() if wnid in index}
        strange = [row[0] for row in rows if row[0] not in order]
        if strange:
            raise UserError(f"data: {file} has {strange[0]!r}, which is no number of a class in meta.mat")
        return {f"ILSVRC2012_val_{i:08d}": order[row[0]] for i, row in enumerate(rows, 1)}
    index |= {str(i): i for i in range(len(wnids))}
    return {Path(row[0]).stem: index[row[1]] for row in rows if len(row) > 1 and row[1] in index}


def _devkit_order(folder: Path, file: Path) -> dict[str, str]:
    """The wnids by the devkit's own numbers of the classes, which are in another order, from its meta.mat."""
    from scipy.io import loadmat

    meta = next((m for m in (folder / "meta.mat", folder / "val" / "meta.mat") if m.is_file()), None)
    if meta is None:
        raise NotFound(f"data: {file.name} numbers the classes as the devkit does; put its meta.mat beside it")
    try:
        synsets = loadmat(meta, squeeze_me=True)["synsets"]
        return {str(int(entry["ILSVRC2012_ID"])): str(entry["WNID"]) for entry in synsets}
    except Exception as error:  # a damaged file raises whatever its reader stumbles over
        raise UserError(f"data: {meta} is not the devkit's meta.mat; fetch it again") from error
