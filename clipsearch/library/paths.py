"""Paths as the database keeps them: text, or bytes for names that are not valid UTF-8."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from clipsearch.user_paths import expand_user


def to_column(path: str) -> str | bytes:
    """Text where possible; a name with undecodable bytes is kept as those bytes."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(path)
    return path


def from_column(value: str | bytes) -> str:
    return os.fsdecode(value) if isinstance(value, bytes) else value


def spellings(path: Path) -> list[Path]:
    """Every way in which a root and a path below it may spell a file or folder, links first.

    A root is kept with its links resolved, what lies below it as the scan met it: any folder on the
    way may be where one ends and the other begins. Each of the two may write its accented letters
    composed (as Linux and Windows do) or decomposed (as macOS does), whatever was typed.
    """
    absolute = Path(os.path.abspath(expand_user(path)))  # noqa: PTH100 - keeps links
    folders = [*reversed(absolute.parents), absolute]
    pairs = [(top.resolve(), absolute.relative_to(top)) for top in folders]
    found = [top / rest for top, rest in pairs]
    for top, rest in pairs:
        found += [one / other for one in _normal_forms(top) for other in _normal_forms(rest)]
    return list(dict.fromkeys(found))


def _normal_forms(path: Path) -> list[Path]:
    forms = (str(path), *(unicodedata.normalize(form, str(path)) for form in ("NFC", "NFD")))
    return [Path(form) for form in dict.fromkeys(forms)]


def relative_to(path: Path, root: Path) -> str | None:
    """The path below a root with forward slashes, "" for the root itself, None if outside."""
    if path == root:
        return ""
    try:
        return path.relative_to(root).as_posix()
    except ValueError:
        return None
