"""Image folders: one folder a class, with pictures at any depth below it, as in torchvision's ImageFolder.

A picture is a file whose ending Pillow knows, in any case. All other files are passed over and named.
torchvision's own listing would follow links in circles, stop at damaged files, and name none of those left out.
"""

import os
import re
from pathlib import Path

import torch
from PIL import Image

from unlearn_lib.common import UserError, log, printable
from unlearn_lib.data.pictures import IN_MEMORY, Pictures, choose_framing
from unlearn_lib.data.splits import Split, hold_out
from unlearn_lib.networks import Framing

SPLIT_NAME = re.compile(
    r"(train|training|test|testing|val|valid|validation|dev|eval|holdout)[-_. ]*(set|data|images)?[-_. ]*(20\d\d)?",
    re.IGNORECASE,
)


def is_hidden(path: os.DirEntry | Path) -> bool:
    """Return whether a file or folder belongs to the system: a dot file, or what macOS and Synology disks add."""
    return path.name.startswith(".") or path.name in ("__MACOSX", "@eaDir")


def list_classes(folder: Path) -> list[str]:
    """Return the sorted names of the folders in `folder` that are not hidden."""
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_hidden(path))


def list_pictures(folder: Path, passed_over: list[Path]) -> list[Path]:
    """Return all pictures below a folder, sorted; other files and folders are added to `passed_over`.

    Links are followed, but no folder is entered twice, and none that holds this one.
    """
    endings = Image.registered_extensions()
    visited = {os.path.realpath(parent) for parent in folder.absolute().parents}
    pictures = []

    def visit(place: Path) -> None:
        real = os.path.realpath(place)
        if real in visited or not os.access(place, os.R_OK | os.X_OK):
            passed_over.append(place)
            return
        visited.add(real)
        for entry in sorted(os.scandir(place), key=lambda entry: entry.name):
            path = Path(entry.path)
            if is_hidden(entry):
                passed_over.append(path)
            elif entry.is_dir():
                visit(path)
            elif entry.is_file() and path.suffix.lower() in endings:
                pictures.append(path)
            else:
                passed_over.append(path)

    visit(folder)
    return pictures


def list_labelled(folder: Path, classes: list[str], passed_over: list[Path]) -> tuple[list[Path], torch.Tensor]:
    """Return the paths and labels of the pictures below `<folder>/<class>/`; the rest is added to `passed_over`."""
    paths = []
    labels = []
    for label, name in enumerate(classes):
        if (folder / name).is_dir():
            below = list_pictures(folder / name, passed_over)
            paths += below
            labels += [label] * len(below)
    passed_over += [path for path in folder.glob("*") if not (path.name in classes and path.is_dir())]
    return paths, torch.tensor(labels, dtype=torch.int64)


def name_below(root: Path, paths: list[Path]) -> list[str]:
    """Return the sorted paths below `root`; folders end in a slash."""
    return sorted(f"{path.relative_to(root)}{'/' * path.is_dir()}" for path in paths)


def read_folder(folder: Path, framing: Framing | None) -> dict:
    """Read an image folder; a folder without splits is split 80/20, stratified.

    Returns:
        The fields of `Data` that are known: classes, train, test, damaged and passed_over.

    Raises:
        UserError: a class has no pictures, test has other classes than train, or folders look like unnamed splits.
    """
    parts = find_splits(folder)
    classes = list_classes(parts[0])
    passed_over = [path for path in folder.glob("*") if path not in parts and parts != [folder]]
    on_disk = []
    for part in parts:
        unknown = set(list_classes(part)) - set(classes)
        if unknown:
            raise UserError(f"data: {part} has classes that train has not: {', '.join(sorted(unknown))}")
        paths, labels = list_labelled(part, classes, passed_over)
        if not paths:
            raise UserError(f"data: {part} has no pictures; expected <class>/*.jpg, .png and the like")
        framing = framing or choose_framing(paths)
        on_disk.append(Split(Pictures(paths, framing, folder), labels))
    for label, name in enumerate(classes):
        if label not in on_disk[0].labels:
            raise UserError(f"data: no pictures in {parts[0] / name}; put some there or remove it")
    if len(classes) == 1:
        log.warning("data: %s holds one class alone, %s; is %s meant?", parts[0], classes[0], parts[0] / classes[0])

    splits = on_disk
    if sum(split.images.shape.numel() for split in on_disk) <= IN_MEMORY:
        splits = [split.load() for split in on_disk]
    for part, split, loaded in zip(parts, on_disk, splits, strict=True):
        lost = set(split.labels.tolist()) - set(loaded.labels.tolist())
        if lost:
            raise UserError(f"data: no picture of {classes[min(lost)]} in {part} opens; mend or remove the class")
    train, test = splits if len(splits) == 2 else hold_out(splits[0], 0.2, seed=0)
    return {
        "classes": [printable(name) for name in classes],
        "train": train,
        "test": test,
        "damaged": [name for split in on_disk for name in split.unreadable],
        "passed_over": name_below(folder, passed_over),
    }


def find_splits(folder: Path) -> list[Path]:
    """Return the folders of training and test, or the one folder that holds all classes.

    Raises:
        UserError: one of two splits is absent, or folders look like splits of another name.
    """
    train = folder / "train"
    test = folder / "test" if (folder / "test").is_dir() else folder / "val"
    if train.is_dir():
        if not test.is_dir():
            raise UserError(f"data: {folder} has a folder train, but neither test nor val")
        return [train, test]
    similar = [folder / name for name in list_classes(folder) if SPLIT_NAME.fullmatch(name)]
    if similar == [test]:
        return similar
    if len(similar) > 1 or any(list_classes(path) for path in similar):
        raise UserError(
            f"data: the folders {', '.join(path.name for path in similar)} in {folder} look like splits; rename them "
            "to train and to test or val, or give the folder that holds the classes"
        )
    return [folder]
