"""Files and folders: written atomically, identified by what they were made from, and made once by any number of users.

Tensors are safetensors, the rest is strict JSON; there is no pickle. A result is stored with its key: everything that
determines its bits (digests of data and weights, numbers, the seed, the recipe's version). It is used again only under
the same key.
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
    """Return sixteen hex digits of SHA-256 of tensors (shape, type, bits), state dicts, files and values."""
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
    """Hold the lock of a folder against other processes, threads and machines; the log says that it waits.

    The lock is the operating system's, on a shared folder the file server's: a process that dies releases it. It is
    reentrant. Its holder removes what dead processes of this machine left half written.
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
                log.info("%s: another one works on it (%s); waiting", folder.name, owner.read_text())
            lock.acquire()
    try:
        if lock.lock_counter == 1:
            with suppress(OSError):  # the work goes on without them on a read-only disk
                owner.write_text(f"process {os.getpid()} on {HOST}")
                _sweep(folder.parent)
                _sweep(folder)
        yield
    finally:
        lock.release()


def scratch_path(path: Path) -> Path:
    """Return a name next to `path` for its replacement; it contains the process that writes it."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:6]}.{os.getpid()}@{HOST}.new")


def _sweep(folder: Path) -> None:
    """Remove what dead processes of this machine left half written in a folder."""
    for path in folder.glob(f".*@{HOST}.new") if os.name == "posix" else ():
        try:
            os.kill(int(path.name.removesuffix(f"@{HOST}.new").rpartition(".")[2]), 0)
        except ProcessLookupError:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        except PermissionError:  # another user's process, which is alive
            continue


def cached(path: Path, key: dict, make: Callable[[], Made], *, force: bool = False) -> Made:
    """Return the tensors and facts of `make`, made once and kept at `path` (`.safetensors`; `.json`: facts alone).

    Two processes that want the same do the work once.

    Args:
        key: everything that determines the bits. A damaged file, or one under another key, is replaced.
        force: make it in any case.
    """
    with lock_folder(path.parent):
        found = None if force else load_kept(path, key)
        if found is None:
            found = make()
            save_kept(path, key, *found)
    return found


def save_kept(path: Path, key: dict, tensors: dict[str, torch.Tensor], facts: dict) -> None:
    """Write tensors and facts under a key; they replace what was at `path`."""
    if path.suffix == ".json":
        write_json(path, {"key": key, "facts": facts, "digest": digest(json.dumps(facts, sort_keys=True))})
    else:
        save_tensors(path, tensors, {"key": key, "facts": facts})


def load_kept(path: Path, key: dict, *, strict: bool = False) -> Made | None:
    """Return what is kept at `path` under this key; None where it is absent, damaged, or under another key.

    strict: raise UserError where it is damaged.
    """
    try:
        tensors, content = ({}, read_json(path)) if path.suffix == ".json" else load_tensors(path)
    except UserError:
        if strict and path.is_file():
            raise
        return None
    is_whole = content.get("digest") in (None, digest(json.dumps(content.get("facts"), sort_keys=True)))
    is_same = content.get("key") == json.loads(json.dumps(key))
    return (tensors, content["facts"]) if is_whole and is_same else None


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], facts: dict | None = None) -> None:
    """Write a safetensors file atomically; its header holds `facts` as JSON and a digest of everything."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    seen = set()
    for name, tensor in tensors.items():  # the format refuses layers that share their weights
        tensors[name] = tensor.clone() if tensor.data_ptr() in seen else tensor
        seen.add(tensor.data_ptr())
    text = json.dumps(facts or {}, allow_nan=False)
    with atomic_file(path) as scratch:
        save_file(
            tensors, scratch, {"json": f"{text}\n{digest(tensors, text)}"}
        )  # the order of two entries would be random


def load_tensors(path: Path) -> Made:
    """Return tensors and facts of a safetensors file. Raises UserError for a damaged or absent one."""
    try:
        version = None  # the library opens the file twice; another one may replace it in between
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
    """Write strict JSON with sorted keys atomically, one line an entry.

    `indent` takes seconds for the confusion matrix of a thousand classes, and a line for each of its cells.
    """
    lines = [json.dumps({name: content[name]}, sort_keys=True, allow_nan=False)[1:-1] for name in sorted(content)]
    with atomic_file(path) as scratch:
        scratch.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def read_json(path: Path) -> dict:
    """Return a JSON object. Raises UserError where the file holds none."""
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"run: {path} cannot be read; --force makes the run again") from error


@contextmanager
def atomic_file(path: Path, argument: str = "runs-root") -> Iterator[Path]:
    """Yield a scratch file that replaces `path` when the block ends. Raises UserError where the disk refuses."""
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
    """Flush a file, or the names in a folder, to the disk (fsync), so that a power loss keeps their order."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot sync folders
            raise
    finally:
        os.close(handle)


@contextmanager
def explain_disk_errors(path: Path, argument: str = "runs-root") -> Iterator[None]:
    """Turn an error of the disk (full, read-only) into a UserError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        if isinstance(error, UserError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{argument}: {path} cannot be written ({reason})") from error
