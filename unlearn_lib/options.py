"""Options: the fields of a specification, with their kind, range and help, checked in one place.

A specification is a frozen dataclass whose fields are made by `option`. Its `__post_init__` calls `check_options`,
which converts and checks every value once. The shell makes its arguments from the same fields.
"""

from collections.abc import Collection
from dataclasses import MISSING, Field, field, fields

from unlearn_lib.common import UserError, check_number, check_switch

KINDS = ("whole", "number", "switch", "text")
PLACES = {  # options of every command: where things lie and are done
    "data_root": {"metavar": "DIR", "help": "where data sets lie; by default $UNLEARN_DATA, else data/"},
    "runs_root": {"metavar": "DIR", "help": "where runs are kept; by default $UNLEARN_RUNS, else data/runs/"},
    "device": {"metavar": "NAME", "help": "cuda, mps or cpu; by default the first of these that exists"},
    "version": {"metavar": "NAME", "help": "appended to the names of run folders; by default nothing"},
}


def option(
    kind: str,
    default: object = MISSING,
    *,
    help: str,
    metavar: str | None = None,
    choices: Collection[str] | None = None,
    **limits: float,
) -> Field:
    """Make a field of a specification.

    Args:
        kind: one of KINDS. `text` takes any value, as text.
        default: without one the option is required. None means that the program chooses.
        help: one phrase for the shell, with the unit.
        metavar: what stands for the value in the shell's help.
        choices: the accepted texts, where there are few.
        limits: of a number, as `check_number` takes them.
    """
    details = {"kind": kind, "help": help, "metavar": metavar, "choices": choices, "limits": limits}
    return field(default=default, metadata=details)


def check_options(specification: object) -> None:
    """Convert and check the options of a frozen dataclass in place; None stays where it is the default.

    Raises:
        UserError: names the first option whose value is not accepted.
    """
    for each in fields(specification):
        given = getattr(specification, each.name)
        if "kind" in each.metadata and not (given is None and each.default is None):
            object.__setattr__(specification, each.name, _check_option(each, given))


def _check_option(option: Field, given: object) -> object:
    kind, choices = option.metadata["kind"], option.metadata["choices"]
    if kind == "switch":
        return check_switch(option.name, given)
    if kind != "text":
        return check_number(option.name, given, whole=kind == "whole", **option.metadata["limits"])
    if choices and str(given) not in choices:
        raise UserError(f"{option.name}: got {given!r}; expected {', '.join(choices)}")
    return str(given)
