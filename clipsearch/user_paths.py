"""Paths as people type them, with ``~`` for a home folder."""

from __future__ import annotations

import os
from pathlib import Path

from clipsearch.errors import UsageError


def expand_user(path: str | os.PathLike[str]) -> Path:
    """The path with a leading ``~`` or ``~NAME`` replaced by that user's home folder.

    A file or folder whose own name begins with ``~`` is itself, as in a shell, where no user has
    that name. UsageError where there is neither, and for what no path can hold.
    """
    given = os.fspath(path)
    if "\0" in given:
        shown = given.replace("\0", "\\0")
        raise UsageError(reason=f"The path {shown} holds a NUL character, which no file name has")
    try:
        return Path(given).expanduser()
    except RuntimeError:
        if os.path.lexists(given):
            return Path(given)
        first = Path(given).parts[0]
        if first == "~":
            reason = f"The home folder that {given} names is not known: set HOME, or write it out"
        else:
            reason = (
                f"There is no user {first[1:]}, whose home folder {given} would name. "
                f"For a file or folder of that name: ./{given}"
            )
        raise UsageError(reason=reason) from None


def expand_known_user(path: str | os.PathLike[str]) -> Path:
    """The same where a table of many files names one: what names no user is left as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)
