"""What every wing needs: the error that is a sentence for the user, the log, progress, checks, devices."""

import html
import logging
import math
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_data_path
from tqdm.auto import tqdm

if TYPE_CHECKING:  # torch takes a second to import, and the shell's help needs none of it
    import torch

_ABOVE = Path(__file__).resolve().parents[1]
_CHECKOUT = (_ABOVE / "pyproject.toml").is_file() and (_ABOVE / "notebooks").is_dir()
# Below it lie data/, data/runs/ and figures/: the repository, or for an installed package the user's data folder.
REPOSITORY = _ABOVE if _CHECKOUT else user_data_path("unlearn_lib", appauthor=False)
log = logging.getLogger("unlearn_lib")
SEEDS = 2**32  # every random generator in use takes a seed below it


class UserError(ValueError):
    """Bad input, in one sentence: the argument, what it got, what it expects, what to do.

    Example:
        >>> UserError("lr: got 0; expected a number above 0")
    """


class NotFound(UserError, FileNotFoundError):
    """Something that the user named, or that the program needs, does not exist."""


def show_log(stream=None) -> None:
    """Show what the program does and reuses, a line each, on `stream`, by default standard output.

    A second call replaces the handler of the first one; other handlers stay. A screen shows no line twice: where the
    root logger (`logging.basicConfig`) writes it there, this handler does not.

    Example:
        >>> show_log()
    """
    for handler in [*log.handlers]:
        if handler.name == show_log.__name__:
            log.removeHandler(handler)
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.name = show_log.__name__
    handler.addFilter(lambda record: not (_is_screen(handler) and _is_on_screen(record)))
    log.addHandler(handler)
    log.setLevel(logging.INFO)


def _is_screen(handler: logging.Handler) -> bool:
    return getattr(handler, "stream", None) in (sys.stdout, sys.stderr)


def _is_on_screen(record: logging.LogRecord) -> bool:
    """Return whether the root logger writes the record to a screen."""
    return log.propagate and any(_is_screen(h) and record.levelno >= h.level for h in logging.root.handlers)


def count_threads() -> int | None:
    """Return the number of threads that $OMP_NUM_THREADS allows; None where it gives no number.

    OpenMP accepts a list, such as `4,2`, with one number a level of nesting. The first one counts here.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isdigit() and int(first) else None


def read_text(path: Path, argument: str) -> str:
    """Return a text file's content: UTF-8 or, by its byte order mark, UTF-16. Raises UserError for others."""
    try:
        content = path.read_bytes()
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    except OSError as error:
        raise UserError(f"{argument}: {path} cannot be read ({error.strerror})") from error
    if "\0" in text:
        raise UserError(f"{argument}: {path} is not text in UTF-8 or UTF-16; save it as one of them")
    return text


def fold_result(*results: object):
    """Return an exercise's result for a notebook, hidden behind a click; running all cells does not open it."""
    from IPython.display import HTML  # only notebooks call this

    return HTML(f"<details><summary>Result</summary>{html.escape(' '.join(map(str, results)))}</details>")


_follower: ContextVar[Callable[[str, int, int | None], None] | None] = ContextVar("follower", default=None)


@contextmanager
def redirect_progress(report: Callable[[str, int, int | None], None]) -> Iterator[None]:
    """In this thread, call `report(description, steps done, of how many)` in place of drawing a bar.

    An exception that it raises ends the work.
    """
    token = _follower.set(report)
    try:
        yield
    finally:
        _follower.reset(token)


def progress(steps: Iterable, description: str, total: int | None = None, first: int = 0) -> Iterable:
    """Return the steps with a progress bar on standard error or in the notebook; `UNLEARN_PROGRESS=0` turns it off.

    first: how many of `total` steps an earlier call did; the bar begins there.
    """
    if report := _follower.get():
        return _report_steps(steps, description, total, first, report)
    off = os.environ.get("UNLEARN_PROGRESS") == "0"
    bar = tqdm(steps, desc=description, total=total, initial=first, disable=off, file=sys.stderr, leave=False)
    if box := getattr(bar, "container", None):  # in a notebook: a closed bar leaves an error on Voila's pages
        box.close = lambda: setattr(box.layout, "display", "none")
    return bar


def _report_steps(steps: Iterable, description: str, total: int | None, first: int, report: Callable) -> Iterator:
    total = len(steps) if total is None and isinstance(steps, Sized) else total
    done = first
    for done, step in enumerate(steps, first + 1):
        report(description, done - 1, total)
        yield step
    report(description, done, total)


def join_names(names: list[str], most: int = 10) -> str:
    """Return names in a row; of many, the first ones and how many more there are."""
    shown = ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
    return shown.encode(errors="replace").decode()  # names on disk need not be text


def printable(name: str) -> str:
    """Return a name on disk as text; two different names stay different."""
    return name.encode(errors="backslashreplace").decode()


def count_names(names: list[str]) -> str:
    """Return how many there are and the first of them, for a line of the log."""
    return f"{len(names)} ({join_names(names, 5)})"


def check_number(
    name: str,
    given: object,
    *,
    whole: bool = False,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> int | float:
    """Return `given` as a finite number within the limits.

    Text, NumPy numbers and tensors of one element are converted; papermill passes numbers as text.

    Args:
        whole: accept whole numbers alone, and return an int.
        least, most: the smallest and largest accepted value.
        above, below: the same, themselves not accepted.

    Raises:
        UserError: names the argument, what it got and what it expects.
    """
    value = None
    with suppress(TypeError, ValueError, OverflowError, RuntimeError):
        if not is_boolean(given) and not isinstance(given, bytes | bytearray):
            value = int(given) if isinstance(given, int) else float(given)
            value = int(value) if whole and value == int(value) else value
    limits = {"of at least": least, "above": above, "up to": most, "below": below}
    accepted = (
        value is not None
        and math.isfinite(value)
        and (not whole or isinstance(value, int))
        and (least is None or value >= least)
        and (above is None or value > above)
        and (most is None or value <= most)
        and (below is None or value < below)
    )
    if not accepted:
        expected = " and ".join(f"{word} {limit}" for word, limit in limits.items() if limit is not None)
        raise UserError(f"{name}: got {given!r}; expected a {'whole ' * whole}number {expected}".rstrip())
    return value


def check_switch(name: str, given: object) -> bool:
    """Return True or False, also from text. Raises UserError for anything else."""
    value = {"true": True, "1": True, "false": False, "0": False}.get(str(given).strip().lower())
    if value is None:
        raise UserError(f"{name}: got {given!r}; expected True or False")
    return value


def check_seed(given: object) -> int:
    """Return a seed of a random generator. Raises UserError for anything but a whole number below 2^32."""
    return check_number("seed", given, whole=True, least=0, below=SEEDS)


def is_boolean(given: object) -> bool:
    """Return whether it is a truth value of any library: as a number it would pass for 1 or 0, a mask for indices."""
    return isinstance(given, bool) or str(getattr(given, "dtype", "")).endswith("bool")


def as_list(given: object) -> Iterable:
    """Return what was given, to be iterated over: a text, a number and a tensor of one number are one item."""
    is_one = isinstance(given, str | bytes) or not isinstance(given, Iterable) or getattr(given, "ndim", 1) == 0
    return [given] if is_one else given


def check_classes(classes: Collection[int], num_classes: int, *, none: bool = False) -> list[int]:
    """Return class indices, sorted. Raises UserError where one is out of range, or where there are none.

    none: accept an empty collection.
    """
    chosen = sorted({check_number("classes", c, whole=True) for c in as_list(classes)})
    if not (chosen or none) or min(chosen, default=0) < 0 or max(chosen, default=0) >= num_classes:
        raise UserError(f"classes: got {chosen}; expected at least one from 0 to {num_classes - 1}")
    return chosen


def check_forget(forget: Collection[int], num_classes: int) -> list[int]:
    """Return the forget classes as sorted indices. Raises UserError for none, for all, and for one out of range."""
    chosen = sorted({check_number("forget", c, whole=True) for c in as_list(forget)})
    if not chosen or chosen[0] < 0 or chosen[-1] >= num_classes or len(chosen) == num_classes:
        given = "none" if not chosen else "all" if chosen == list(range(num_classes)) else chosen
        raise UserError(f"forget: got {given}; expected 1 to {num_classes - 1} of the classes 0 to {num_classes - 1}")
    return chosen


def pick_device(name: str | None = None) -> "torch.device":
    """Return the device of that name, by default the first that exists of CUDA, MPS, CPU. Raises UserError."""
    import torch

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
        raise UserError(f"device: got {name!r}; this machine has: {', '.join(available)}")
    return device


def get_device(model: "torch.nn.Module") -> "torch.device":
    """Return the device of a model's parameters."""
    return next(model.parameters()).device


def free_memory(device: "torch.device") -> float:
    """Return the free bytes of a CUDA device; infinity for others, and where it cannot be measured."""
    import torch

    with suppress(RuntimeError, AssertionError):
        return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else math.inf
    return math.inf


def fast_arithmetic(device: "torch.device", precision: str | None = None) -> AbstractContextManager:
    """Return bfloat16 autocast where the processor supports it, else a context that does nothing.

    It makes KarpathyNet four times faster on such a CPU. precision: float32 or bfloat16, for this one in any case.
    """
    import torch

    if precision is not None:
        return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()
    if device.type == "cuda":
        has_it = torch.cuda.is_bf16_supported()
    else:
        features = torch.cpu.get_capabilities() if device.type == "cpu" else {}
        has_it = bool(features.get("avx512_bf16") or features.get("amx_bf16") or features.get("bf16"))
    return torch.autocast(device.type, torch.bfloat16) if has_it else nullcontext()
