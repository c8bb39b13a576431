"""What is kept on disk: whole or not at all, known by what it was made from, and made once however many want it.

Tensors are safetensors, the rest is strict JSON; there is no pickle. A thing is kept together with its key, a flat
specification of all that makes its bits (digests of data and weights, numbers, the seed, the recipe's version), and is
used again only where the key is the same.
"""

import errno
import hashlib
import json
import os
import platform
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from unlearn_lib.common import UserError, log

HOST = platform.node() or "here"
Made = tuple[dict[str, torch.Tensor], dict]  # tensors by name, and facts for the JSON beside them


def digest(*parts: object) -> str:
    """Sixteen hex digits of SHA-256 over tensors (shape, type, bits), state dicts, files (a Path) and plain values."""
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, torch.Tensor):
            sha.update(f"{part.dtype}{tuple(part.shape)}".encode())
            sha.update(part.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        elif isinstance(part, Path):
            with open(part, "rb") as file:
                sha.update(hashlib.file_digest(file, "sha256").digest())
        elif isinstance(part, dict):
            sha.update(digest(*(piece for item in sorted(part.items()) for piece in item)).encode())
        else:
            sha.update(repr(part).encode())
    return sha.hexdigest()[:16]


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, also against other processes, threads and machines; waiting for it is told in the log.

    It is the operating system's, on a shared folder the file server's: a process that dies gives it back. It may be
    taken again inside itself. Whoever gets it sweeps up what dead processes of this machine left half written.
    """
    path = folder.parent / ".locks" / f"{folder.name}.lock"
    owner = path.with_suffix(".owner")
    with explain_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, is_singleton=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            with suppress(OSError, ValueError):
                log.info("%s: somebody else is at work on it (%s); waiting", folder.name, owner.read_text())
            lock.acquire()
    try:
        if lock.lock_counter == 1:
            with suppress(OSError):  # neither is needed, on a disk that refuses
                owner.write_text(f"process {os.getpid()} on {HOST}")
                _sweep(folder.parent)
                _sweep(folder)
        yield
    finally:
        lock.release()


def scratch_path(path: Path) -> Path:
    """A name beside `path` for what is to take its place, with the process in it that will write it."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:6]}.{os.getpid()}@{HOST}.new")


def _sweep(folder: Path) -> None:
    """Remove what processes of this machine that are no more left half written in a folder."""
    for path in folder.glob(f".*@{HOST}.new") if os.name == "posix" else ():
        try:
            os.kill(int(path.name.removesuffix(f"@{HOST}.new").rpartition(".")[2]), 0)
        except ProcessLookupError:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        except PermissionError:  # somebody else's process, which lives
            continue


def cached(path: Path, key: dict, make: Callable[[], Made], *, force: bool = False) -> Made:
    """What `make` returns, tensors and facts, made once and kept at `path` (`.safetensors`; `.json`: facts alone).

    key: the specification of what makes the bits; anything kept under another key, or damaged, is made anew. Two
    processes that want the same do the work once. force: make it anew in any case.
    """
    with lock_folder(path.parent):
        found = None if force else load_kept(path, key)
        if found is None:
            found = make()
            save_kept(path, key, *found)
    return found


def save_kept(path: Path, key: dict, tensors: dict[str, torch.Tensor], facts: dict) -> None:
    """Write tensors and facts under a key, in place of what was at `path`."""
    if path.suffix == ".json":
        write_json(path, {"key": key, "facts": facts, "digest": digest(json.dumps(facts, sort_keys=True))})
    else:
        save_tensors(path, tensors, {"key": key, "facts": facts})


def load_kept(path: Path, key: dict, *, strict: bool = False) -> Made | None:
    """What is kept at `path` under this key; None where it is absent, damaged, or made from something else.

    strict: raise UserError where it is damaged.
    """
    try:
        tensors, content = ({}, read_json(path)) if path.suffix == ".json" else load_tensors(path)
    except UserError:
        if strict and path.is_file():
            raise
        return None
    whole = content.get("digest") in (None, digest(json.dumps(content.get("facts"), sort_keys=True)))
    return (tensors, content["facts"]) if whole and content.get("key") == json.loads(json.dumps(key)) else None


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], facts: dict | None = None) -> None:
    """Write a safetensors file, whole or not at all; `facts` go into its header as JSON, and a digest of all of it."""
    tensors, places = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}, set()
    for name, tensor in tensors.items():  # layers may share their weights, which the format does not know
        tensors[name] = tensor.clone() if tensor.data_ptr() in places else tensor
        places.add(tensor.data_ptr())
    text = json.dumps(facts or {}, allow_nan=False)
    with atomic_file(path) as scratch:
        save_file(tensors, scratch, {"json": f"{text}\n{digest(tensors, text)}"})  # of two entries the order is random


def load_tensors(path: Path) -> Made:
    """Tensors and facts of a safetensors file. Raises UserError where it is absent, or not what its digest says."""
    try:
        version = None  # it is opened twice in there, between which another file may have taken its place
        while version != (version := (path.stat().st_ino, path.stat().st_mtime_ns)):
            with safe_open(path, "pt") as file:
                text, _, written = (file.metadata() or {}).get("json", "{}").partition("\n")
                tensors = {name: file.get_tensor(name) for name in [*file.keys()]}
        if written and written != digest(tensors, text):
            raise ValueError("another digest")
        return tensors, json.loads(text)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"model file: {path} is damaged or no safetensors file") from error


def write_json(path: Path, content: dict) -> None:
    """Write strict JSON with sorted keys, whole or not at all: a line an entry.

    `indent` would take seconds for the confusions of a thousand classes, and a line for each of their cells.
    """
    lines = [json.dumps({name: content[name]}, sort_keys=True, allow_nan=False)[1:-1] for name in sorted(content)]
    with atomic_file(path) as scratch:
        scratch.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def read_json(path: Path) -> dict:
    """Read a JSON object. Raises UserError where there is none."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"run: {path} cannot be read; --force makes the run anew") from error


@contextmanager
def atomic_file(path: Path, argument: str = "runs-root") -> Iterator[Path]:
    """A file beside `path` to write into, which takes its place once it is whole; UserError if the disk refuses it."""
    scratch = scratch_path(path)
    with explain_disk_errors(path, argument):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield scratch
            _sync(scratch)
            scratch.replace(path)
            _sync(path.parent)
        finally:
            with suppress(OSError):
                scratch.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk, so that no power loss undoes their order."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # file systems without such a thing for folders
            raise
    finally:
        os.close(handle)


@contextmanager
def explain_disk_errors(path: Path, argument: str = "runs-root") -> Iterator[None]:
    """Turn what the disk refuses (it is full, it is read-only) into a sentence."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if isinstance(error, UserError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{argument}: {path} cannot be written ({reason})") from error
