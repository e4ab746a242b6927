"""What models are called in a library: no two by the same name, whatever lies in a folder today.

The model of a folder is ``local-dir:FOLDER@MARK``, where MARK begins the id of its space: so the
name means the library's own copy, also once other weights lie in the folder. Of models of another
address the latest has the plain name, and those before it have a mark.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

LOCAL_DIR = "local-dir:"
MODELS = "models"  # the folder in a library that holds its own copies
_MARK_DIGITS = 8
_MARKED = re.compile(rf"(.+)@([0-9a-f]{{{_MARK_DIGITS}}})")


def marked(address: str, space_id: str) -> str:
    """The name of one space among those of an address."""
    return f"{address}@{space_id[:_MARK_DIGITS]}"


def unmarked(name: str) -> tuple[str, str]:
    """The address and the mark of a name; the mark is "" where it has none."""
    found = _MARKED.fullmatch(name)
    return (found[1], found[2]) if found else (name, "")


def names_of(spaces: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The name of each space by its id, of ids and addresses in the order they were added."""
    latest = {address: space_id for space_id, address in spaces}
    return {
        space_id: marked(address, space_id)
        if address.startswith(LOCAL_DIR) or latest[address] != space_id
        else address
        for space_id, address in spaces
    }
