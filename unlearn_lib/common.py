"""What every wing needs: the error that is a sentence for the user, the log, progress, checks, devices."""

import html
import logging
import math
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import fields
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
WHOLE = set(  # the arguments that are whole numbers
    "epochs train_epochs batch_size train_batch_size samples steps seed seeds size save_every num_classes classes "
    "forget".split()
)
SEEDS = 2**32  # of which every random generator in use takes any


class UserError(ValueError):
    """Input that cannot be worked with, in one sentence: the argument, what was given, what is accepted."""


class NotFound(UserError, FileNotFoundError):
    """Something that the user named, or that has to lie somewhere, is not there."""


def show_log(stream=None) -> None:
    """Show what the program does and reuses, a line each, on `stream`, by default standard output.

    A second call replaces the handler of the first one; other handlers stay. A screen shows no line twice: where the
    root logger (`logging.basicConfig`) writes it there, this handler does not.
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
    """A text file in UTF-8 or, marked as such, UTF-16, as editors write them. Raises UserError on others."""
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
    """What an exercise's solution prints, for a notebook to show behind a click; running all cells does not open it."""
    from IPython.display import HTML  # only notebooks call this

    return HTML(f"<details><summary>Result</summary>{html.escape(' '.join(map(str, results)))}</details>")


_follower: ContextVar[Callable[[str, int, int | None], None] | None] = ContextVar("follower", default=None)


@contextmanager
def redirect_progress(tell: Callable[[str, int, int | None], None]) -> Iterator[None]:
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


def join_names(names: list[str], most: int = 10) -> str:
    """Names in a row, the first of them where they are many."""
    shown = ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
    return shown.encode(errors="replace").decode()  # names on disk need not be text


def printable(name: str) -> str:
    """A name on disk as text, which it need not be; two names are never made one."""
    return name.encode(errors="backslashreplace").decode()


def count_names(names: list[str]) -> str:
    """How many, and the first of them, for a line of the log."""
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


def as_number(name: str, given: object) -> int | float:
    """A number from what people give: from text too, which papermill passes, from NumPy's and tensors of one.

    Raises UserError, naming the argument, for what is none, and for fractions and seeds that cannot be.
    """
    value = None
    with suppress(TypeError, ValueError, OverflowError, RuntimeError):
        if not is_boolean(given) and not isinstance(given, bytes | bytearray):
            value = float(given)
            value = int(value) if name in WHOLE and value.is_integer() else value
    if name == "seed" and not (isinstance(value, int) and 0 <= value < SEEDS):
        raise UserError(f"seed: {given!r} given; a whole number from 0 to {SEEDS - 1} is accepted")
    if value is None or (name in WHOLE and isinstance(value, float) and value == value):
        kind = "whole number" if name in WHOLE else "number"
        raise UserError(f"{name}: {given!r} given; a {kind} is accepted")
    return value


def as_switch(name: str, given: object) -> bool:
    """True or False, also as text. Raises UserError, naming the argument, for anything else."""
    value = {"true": True, "1": True, "false": False, "0": False}.get(str(given).strip().lower())
    if value is None:
        raise UserError(f"{name}: {given!r} given; True or False is accepted")
    return value


def settle(specification: object, but: str) -> None:
    """Give the fields of a frozen dataclass their kind, so that `"1"` and 1 are the same run; None stays by default."""
    for field in fields(specification):
        given = getattr(specification, field.name)
        if field.init and field.name != but and (given is not None or field.default is not None):
            if field.type in (int, float, int | None, float | None):
                given = as_number(field.name, given)
            else:
                given = as_switch(field.name, given) if field.type in (bool, bool | None) else str(given)
            object.__setattr__(specification, field.name, given)


def is_boolean(given: object) -> bool:
    """Whether it is True or False, of whatever kind: it would pass for 1 or 0, and masks for indices."""
    return isinstance(given, bool) or str(getattr(given, "dtype", "")).endswith("bool")


def as_list(given: object) -> Iterable:
    """What is given, one by one: a text, a number and a tensor of one number are one thing."""
    one = isinstance(given, str | bytes) or not isinstance(given, Iterable) or getattr(given, "ndim", 1) == 0
    return [given] if one else given


def check_positive(**numbers: object) -> dict[str, int | float]:
    """The numbers, see `as_number`; raises UserError, naming it, for the first that is not positive and finite."""
    numbers = {name: as_number(name, given) for name, given in numbers.items()}
    for name, value in numbers.items():
        if not 0 < value < 1e30:  # what float32 still divides by
            raise UserError(f"{name}: {value} given; a positive, finite number is accepted")
    return numbers


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
    """The device by name, else the best there is: CUDA, then MPS, then the CPU. Raises UserError on others."""
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
        raise UserError(f"device: {name!r} is not to be had here; accepted: {', '.join(available)}")
    return device


def get_device(model: "torch.nn.Module") -> "torch.device":
    """Where a model's parameters are."""
    return next(model.parameters()).device


def free_memory(device: "torch.device") -> float:
    """Bytes that are free on a CUDA device; no bound for others, and where nobody can tell."""
    import torch

    with suppress(RuntimeError, AssertionError):
        return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else math.inf
    return math.inf


def fast_arithmetic(device: "torch.device", precision: str | None = None) -> AbstractContextManager:
    """bfloat16 autocast where the processor has it (four times faster for KarpathyNet on such a CPU), else nothing.

    precision: float32 or bfloat16, to have that one in any case.
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
