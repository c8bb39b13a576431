"""Classes as people give them: by name, index, range, wnid, or a file with one of these a line."""

import operator
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from unlearn_lib.common import UserError, as_list, count_names, is_boolean, log, read_text


def parse_classes(
    given: str | int | Iterable[str | int],
    classes: list[str],
    argument: str = "forget",
    wnids: list[str] | None = None,
) -> list[int]:
    """Class indices, sorted, from exact names, indices, ranges such as `0-49`, wnids and files, read in that order.

    A text that is a class's name is that class, also where names are digits; ranges are of indices. An int is an index.
    Where names are digits, the log says which class an index took. A file holds one of these a line.
    Raises UserError on anything else, and on a name that several classes have.
    """
    chosen = set()
    for item in _items(given, classes, argument, wnids):
        found = _indices(item, classes, argument, wnids)
        if found is None:
            names = ", ".join(classes[:12]) + (", ..." if len(classes) > 12 else "")
            raise UserError(
                f"{argument}: no class {str(item)!r}; a name ({names}), an index from 0 to {len(classes) - 1}, "
                f"a range such as 0-1{', a wnid' if wnids else ''} or a file with one of them a line is accepted"
            )
        if item not in classes and any(classes[i].isdecimal() and classes[i] != str(i) for i in found):
            log.warning(
                "%s: %s was read as an index: class %s", argument, item, count_names([classes[i] for i in found])
            )
        chosen.update(found)
    return sorted(chosen)


def _items(given, classes: list[str], argument: str, wnids: list[str] | None) -> Iterator[str | int]:
    """What is given, one by one, the lines of a file in its place."""
    for item in as_list(given):
        path = os.path.expanduser(item) if isinstance(item, str) else ""
        if path and _indices(item, classes, argument, wnids) is None and os.path.isfile(path):
            yield from filter(None, map(str.strip, read_text(Path(path), argument).splitlines()))
        else:
            yield item


def _indices(item: str | int, classes: list[str], argument: str, wnids: list[str] | None) -> list[int] | None:
    """The classes that one name, index, range or wnid means; None where it means none."""
    if not isinstance(item, str):
        try:
            index = -1 if is_boolean(item) else operator.index(item)
        except TypeError:  # None, a fraction
            return None
        return [index] if 0 <= index < len(classes) else None
    same = [i for i, name in enumerate(classes) if name == item]
    if len(same) > 1:
        raise UserError(f"{argument}: {item!r} is the name of the classes {same}; give the index")
    if same:
        return same
    first, dash, last = item.partition("-")
    last = last if dash else first
    if first.isdecimal() and last.isdecimal() and int(first) <= int(last) < len(classes):
        return list(range(int(first), int(last) + 1))
    return [wnids.index(item)] if item in (wnids or []) else None
