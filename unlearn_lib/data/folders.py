"""Image folders, read as torchvision's ImageFolder reads them: a folder a class, whatever lies below it.

Pictures are files with an ending that Pillow knows, in any case. Whatever else lies there is passed over by name.
"""

import os
import re
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from unlearn_lib.common import UserError, log, printable
from unlearn_lib.data.pictures import IN_MEMORY, Pictures, first_framing
from unlearn_lib.data.splits import Split, hold_out
from unlearn_lib.networks import Framing

SPLIT = re.compile(r"(train|training|test|testing|val|valid|validation|dev|eval|holdout)(set|data|images)?(20\d\d)?")


def list_pictures(folder: Path, passed: list[str], root: Path) -> list[Path]:
    """All pictures below a folder, in its order of names; what is none is added to `passed`, named as below `root`.

    Links are followed, but no folder is entered twice, and none that holds this one. Hidden files are passed over.
    """
    endings, found = set(Image.registered_extensions()), []
    entered = {os.path.realpath(above) for above in folder.absolute().parents}

    def walk(place: str) -> None:
        real = os.path.realpath(place)
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name) if real not in entered else None
        except OSError:  # not ours to read
            entries = None
        if entries is None:
            passed.append(f"{os.path.relpath(place, root)}/")
            return
        entered.add(real)
        for entry in entries:
            if is_class(entry) and entry.is_dir():
                walk(entry.path)
            elif is_class(entry) and entry.is_file() and os.path.splitext(entry.name)[1].lower() in endings:
                found.append(Path(entry.path))
            else:
                passed.append(os.path.relpath(entry.path, root) + "/" * entry.is_dir())

    walk(str(folder))
    return found


def is_class(entry: os.DirEntry | Path) -> bool:
    """Whether a name may be that of a class or a picture: not hidden, not what macOS and Synology's disks add."""
    return not entry.name.startswith(".") and entry.name not in ("__MACOSX", "@eaDir")


def find_pictures(folder: Path, classes: list[str], passed: list[str], root: Path) -> tuple[list[Path], torch.Tensor]:
    """The paths and labels of all pictures below `<folder>/<class>/`. Raises UserError on other folders there."""
    entries = sorted(folder.iterdir())
    unknown = {p.name for p in entries if p.is_dir() and is_class(p)} - set(classes)
    passed += [f"{p.relative_to(root)}{'/' * p.is_dir()}" for p in entries if not (p.is_dir() and is_class(p))]
    below = [list_pictures(folder / name, passed, root) if (folder / name).is_dir() else [] for name in classes]
    if unknown or not any(below):
        what = f"classes that train has not: {', '.join(sorted(unknown))}" if unknown else "no pictures"
        raise UserError(f"data: {folder} has {what}; <class>/*.jpg, .png and the like are accepted")
    labels = [label for label, paths in enumerate(below) for _ in paths]
    return [path for paths in below for path in paths], torch.tensor(labels)


def read_folder(folder: Path, framing: Framing | None) -> dict:
    """Read `{train,test or val}/<class>/**`, or `<class>/**` split 80/20 per class; a class is a folder's name.

    Returns classes, train, test and what was passed over. Raises UserError on a class without pictures, and on folders
    that look like splits of another name.
    """
    parts, passed = _parts(folder), []
    if parts != [folder]:
        beside = sorted(p for p in folder.iterdir() if not (p.exists() and any(p.samefile(part) for part in parts)))
        passed += [f"{p.name}{'/' * p.is_dir()}" for p in beside]
    classes = sorted(p.name for p in parts[0].iterdir() if p.is_dir() and is_class(p))
    found = [find_pictures(part, classes, passed, folder) for part in parts]
    empty = sorted(set(range(len(classes))) - set(found[0][1].tolist()))
    if empty:
        raise UserError(f"data: no pictures in {parts[0] / classes[empty[0]]}; put some there or take it away")
    framing = framing or first_framing(found[0][0])
    large = sum(len(paths) for paths, _ in found) * torch.Size(framing.shape).numel() > IN_MEMORY
    splits = []
    for part, (paths, labels) in zip(parts, found, strict=True):
        pictures = Pictures(paths, framing, folder)
        images = pictures if large else pictures.read([*range(len(paths))], part.name)
        good = pictures.readable  # of those that stay on disk nobody knows yet
        lost = set(labels.tolist()) - set(labels[good].tolist())
        if lost:
            raise UserError(f"data: no picture of {classes[min(lost)]} in {part} opens; mend them or take it away")
        unreadable = tuple(pictures.name(i) for i in (~good).nonzero().flatten().tolist())
        splits.append(Split(images[good] if unreadable else images, labels[good], unreadable))
    if len(splits) == 1:
        train, test = hold_out(splits[0], 0.2, seed=0)
        splits = [replace(train, unreadable=splits[0].unreadable), test]
    if len(classes) == 1:
        log.warning("data: %s holds one class alone, %s; is %s meant?", parts[0], classes[0], parts[0] / classes[0])
    return {"classes": list(map(printable, classes)), "train": splits[0], "test": splits[1], "passed_over": passed}


def _parts(folder: Path) -> list[Path]:
    """The folders of the splits: of training and test, or the one that holds all classes. Raises UserError."""
    train = folder / "train"
    test = next((folder / part for part in ("test", "val") if (folder / part).is_dir()), None)
    if train.is_dir() and test is None:
        raise UserError(f"data: {folder} has a folder train, but neither test nor val beside it")
    if train.is_dir():
        return [train, test]
    folders = [p for p in sorted(folder.iterdir()) if p.is_dir() and is_class(p)]
    like = [p for p in folders if SPLIT.fullmatch(re.sub("[-_. ]", "", p.name.lower()))]
    if like == [test]:
        return [test]
    if len(like) > 1 or any(child.is_dir() and is_class(child) for p in like for child in p.iterdir()):
        raise UserError(
            f"data: the folders {', '.join(p.name for p in like)} in {folder} look like splits; are they? Call them "
            "train, and test or val, for that, or give the folder that holds the classes"
        )
    return [folder]
