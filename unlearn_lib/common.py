"""What every wing needs: the error that is a sentence for the user, the log, progress, checks, devices."""

import logging
import math
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from pathlib import Path

import torch
from platformdirs import user_data_path
from tqdm.auto import tqdm

_ABOVE = Path(__file__).resolve().parents[1]
_CHECKOUT = (_ABOVE / "pyproject.toml").is_file() and (_ABOVE / "notebooks").is_dir()
# Below it lie data/, data/runs/ and figures/: the repository, or for an installed package the user's data folder.
REPOSITORY = _ABOVE if _CHECKOUT else user_data_path("unlearn_lib", appauthor=False)
log = logging.getLogger("unlearn_lib")


class UserError(ValueError):
    """Input that cannot be worked with, in one sentence: the argument, what was given, what is accepted."""


class NotFound(UserError, FileNotFoundError):
    """Something that the user named, or that has to lie somewhere, is not there."""


def show_log(stream=None) -> None:
    """Show what is done and reused, a line each, on `stream` (standard output by default: a notebook's cell)."""
    log.handlers = [logging.StreamHandler(stream or sys.stdout)]
    log.setLevel(logging.INFO)


def read_text(path: Path, argument: str) -> str:
    """A text file in UTF-8 or, marked as such, UTF-16, as editors write them. Raises UserError on others."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(f"{argument}: {path} is not text in UTF-8 or UTF-16; save it as one of them")
    return text


_follower: ContextVar[Callable[[str, int, int | None], None] | None] = ContextVar("follower", default=None)


@contextmanager
def followed(tell: Callable[[str, int, int | None], None]) -> Iterator[None]:
    """In this thread no bar is drawn: `tell(description, steps done, of how many)` follows it, and may end the work."""
    token = _follower.set(tell)
    try:
        yield
    finally:
        _follower.reset(token)


def progress(steps: Iterable, description: str, total: int | None = None, first: int = 0) -> Iterable:
    """The one progress bar of a run, on standard error or in the notebook; `UNLEARN_PROGRESS=0` turns it off.

    first: how many of `total` steps an earlier call has done, where the bar begins.
    """
    if tell := _follower.get():
        return _told(steps, description, total, first, tell)
    off = os.environ.get("UNLEARN_PROGRESS") == "0"
    bar = tqdm(steps, desc=description, total=total, initial=first, disable=off, file=sys.stderr, leave=False)
    if box := getattr(bar, "container", None):  # in a notebook: a bar that is closed leaves an error on Voila's pages
        box.close = lambda: setattr(box.layout, "display", "none")
    return bar


def _told(steps: Iterable, description: str, total: int | None, first: int, tell: Callable) -> Iterator:
    total = len(steps) if total is None and isinstance(steps, Sized) else total
    done = first
    for done, step in enumerate(steps, first + 1):
        tell(description, done - 1, total)
        yield step
    tell(description, done, total)


def listed(names: list[str], most: int = 10) -> str:
    """Names in a row, the first of them where they are many."""
    shown = ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
    return shown.encode(errors="replace").decode()  # names on disk need not be text


def check_positive(**numbers: float) -> None:
    """Raise UserError, naming the argument, for the first number that is not positive and finite."""
    for name, value in numbers.items():
        if not 0 < value < 1e30:  # what float32 still divides by
            raise UserError(f"{name}: {value} given; a positive, finite number is accepted")


def check_classes(classes: Collection[int], num_classes: int) -> list[int]:
    """Class indices, sorted; raises UserError where there are none or one is out of range."""
    chosen = sorted({int(c) for c in classes})
    if not chosen or chosen[0] < 0 or chosen[-1] >= num_classes:
        raise UserError(f"classes: {chosen} given; at least one from 0 to {num_classes - 1} is accepted")
    return chosen


def check_forget(forget: Collection[int], num_classes: int) -> list[int]:
    """Forget classes as sorted indices; raises UserError where none or all are given, or one is out of range."""
    chosen = sorted({int(c) for c in forget})
    if not chosen or chosen[0] < 0 or chosen[-1] >= num_classes or len(chosen) == num_classes:
        given = "none" if not chosen else "all" if chosen == list(range(num_classes)) else chosen
        raise UserError(
            f"forget: {given} given; between 1 and {num_classes - 1} of the classes 0 to {num_classes - 1} "
            "can be forgotten"
        )
    return chosen


def pick_device(name: str | None = None) -> torch.device:
    """The device by name, else the best there is: CUDA, then MPS, then the CPU. Raises UserError on others."""
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    try:
        device = torch.device(name or available[0])
    except RuntimeError:
        device = None
    if device is None or device.type not in available:
        raise UserError(f"device: {name!r} is not to be had here; accepted: {', '.join(available)}")
    return device


def device_of(model: torch.nn.Module) -> torch.device:
    """Where a model's parameters are."""
    return next(model.parameters()).device


def free_memory(device: torch.device) -> float:
    """Bytes that are free on a CUDA device; no bound for others, and where nobody can tell."""
    with suppress(RuntimeError, AssertionError):
        return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else math.inf
    return math.inf


def fast_arithmetic(device: torch.device, precision: str | None = None) -> AbstractContextManager:
    """bfloat16 autocast where the processor has it (four times faster for KarpathyNet on such a CPU), else nothing.

    precision: float32 or bfloat16, to have that one in any case.
    """
    if precision is not None:
        return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()
    if device.type == "cuda":
        has_it = torch.cuda.is_bf16_supported()
    else:
        features = torch.cpu.get_capabilities() if device.type == "cpu" else {}
        has_it = bool(features.get("avx512_bf16") or features.get("amx_bf16") or features.get("bf16"))
    return torch.autocast(device.type, torch.bfloat16) if has_it else nullcontext()
