"""Classes as users give them: by name, index, range of indices, wnid, or a text file that lists them line by line."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from unlearn_lib.common import UserError, as_list, count_names, is_boolean, join_names, log, read_text

INDICES = re.compile(r"(\d+)(?:-(\d+))?")


def parse_classes(
    given: str | int | Iterable[str | int],
    classes: list[str],
    argument: str = "forget",
    wnids: list[str] | None = None,
) -> list[int]:
    """Return the sorted indices of the classes that are given.

    A text is read as the first of these that fits: exact name, index, range such as `0-49`, wnid, file.
    An exact name wins also where names are digits. An int is an index. A file lists one class a line.

    Args:
        given: one class or several.
        classes: the names of all classes, in the order of their indices.
        argument: the name of the argument in errors and log lines.
        wnids: ImageNet's identifiers of the classes.

    Raises:
        UserError: a class does not exist, or several classes have its name.
    """
    items = []
    for item in as_list(given):
        path = os.path.expanduser(item) if isinstance(item, str) else ""
        if os.path.isfile(path) and not _find_indices(item, classes, argument, wnids):
            lines = read_text(Path(path), argument).splitlines()
            items += filter(None, map(str.strip, lines))
        else:
            items.append(item)
    chosen = set()
    for item in items:
        indices = _find_indices(item, classes, argument, wnids)
        if not indices:
            raise UserError(
                f"{argument}: no class {str(item)!r}; a name ({join_names(classes)}), an index from 0 to "
                f"{len(classes) - 1}, a range such as 0-1{', a wnid' if wnids else ''} or a file that lists them is "
                "accepted"
            )
        if item not in classes and any(classes[i].isdecimal() and classes[i] != str(i) for i in indices):
            names = count_names([classes[i] for i in indices])
            log.warning("%s: %s was read as an index: class %s", argument, item, names)
        chosen.update(indices)
    return sorted(chosen)


def _find_indices(item: str | int, classes: list[str], argument: str, wnids: list[str] | None) -> list[int]:
    """Return the indices that a name, index, range or wnid stands for; none where it is something else."""
    if isinstance(item, str):
        same = [i for i, name in enumerate(classes) if name == item]
        if len(same) > 1:
            raise UserError(f"{argument}: {item!r} is the name of the classes {same}; give the index")
        if same:
            return same
        if wnids and item in wnids:
            return [wnids.index(item)]
    match = INDICES.fullmatch(f"{item}")  # NumPy's integers and tensors of one are formatted as ints are
    if match is None or is_boolean(item):
        return []
    first, last = (int(number) for number in match.groups(match[1]))
    return list(range(first, last + 1)) if last < len(classes) else []
