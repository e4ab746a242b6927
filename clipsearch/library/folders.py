"""Library folders among others: known by what they hold, whatever they are called."""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from clipsearch.errors import StorageError

DATABASE, WRITER_LOCK, README = "library.db", "writer.lock", "README.txt"
# Folders in a library whose pictures are no photos. What else lies in it is the user's.
LIBRARY_CACHES = frozenset(("thumbs", "views", "index"))
README_BEGIN = "This folder is a clipsearch library."
_README_TEXT = f"""\
{README_BEGIN}

library.db is the truth: what is known about your photos, and their vectors. Back it up with
`clipsearch backup FILE`. models/, where it is there, holds the library's own copies of models
that you trained or chose by their folder: no one can make them again, so back it up, too.
Everything else here may be deleted; it is made again when needed.
thumbs/ and views/ hold small copies of your photos: treat them as privately as those.
Your photos are not in here, and clipsearch never changes them.
"""
CACHE_TAG = "CACHEDIR.TAG"
# bford.info/cachedir: backup and indexing programs pass over folders that hold it.
_CACHE_TAG_TEXT = """\
Signature: 8a477f597d28d172789f06886806bc55
# Made by clipsearch: what is in here can be made again. About this file: https://bford.info/cachedir
"""


def is_library(folder: str, names: Collection[str]) -> bool:
    """True for a library with this listing, also one in the making.

    A lone copy of a database, such as a backup among photos, makes none: it has no caches.
    """
    if DATABASE not in names:
        return False
    return WRITER_LOCK in names or (
        README in names and _begin(folder, README).startswith(README_BEGIN.encode())
    )


def make_folder(path: Path) -> None:
    """Makes a library's folder, for its owner alone, and says in it what it is.

    StorageError where it cannot be written.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)  # as private as the photos
        (path / README).write_text(_README_TEXT, encoding="utf-8")
    except OSError as error:
        raise StorageError(
            path=path, reason=error.strerror or error, advice="choose another place: --library PATH"
        ) from error


def mark_as_cache(folder: Path) -> None:
    """Makes a folder whose content can be made again, and says so in it to other programs."""
    tag = folder / CACHE_TAG
    with suppress(OSError):  # a full or read-only disk is met when the library is written
        if not tag.exists():
            folder.mkdir(parents=True, exist_ok=True)
            tag.write_text(_CACHE_TAG_TEXT, encoding="ascii")


def _begin(folder: str, name: str) -> bytes:
    path = os.path.join(folder, name)  # noqa: PTH118 - a scan has no Path objects
    if not os.path.isfile(path):  # noqa: PTH113 - opening a pipe would wait for ever
        return b""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - as above
            return file.read(len(README_BEGIN))
    except OSError:
        return b""
