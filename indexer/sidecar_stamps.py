"""The sidecars of a folder as files: names, sizes and times, and their bytes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from clipsearch.config import DEFAULT_SIDECAR_TEXT
from indexer.sidecar_names import SidecarNames, may_be_sidecar
from indexer.sidecars import MAX_SIDECAR_BYTES, TAGS, too_large

_OFF = "off"
_NOT_READ = "?"  # in place of size and time: the next run reads it again


class FolderSidecars:
    """The sidecars of one folder, from its listing.

    ``text`` says what a .txt beside a picture holds: captions, tags, or nothing that counts.
    """

    def __init__(
        self, entries: Iterable[os.DirEntry[str]], text: str = DEFAULT_SIDECAR_TEXT
    ) -> None:
        listed = [entry for entry in entries if not entry.is_dir(follow_symlinks=False)]
        # A stamp is text, a line each: a name that would break that is no sidecar.
        self._entries = {
            entry.name: entry
            for entry in listed
            if may_be_sidecar(entry.name)
            and _fits_a_line(entry.name)
            and not (text == _OFF and _is_text(entry.name))
        }
        files = (entry.name for entry in listed if not may_be_sidecar(entry.name))
        self._names = SidecarNames([*self._entries, *files] if self._entries else [])
        self._text = text

    def stamp(self, picture_name: str) -> str:
        """A line for each sidecar of a picture, or "" if it has none."""
        if not self._entries:
            return ""
        lines = []
        for name, role in self._names.beside(picture_name):
            how = TAGS if self._text == TAGS and _is_text(name) else role
            state = _state(self._entries[name])
            if state is not None:
                lines.append(f"{state}:{how}:{name}")
        return "\n".join(lines)


class StampedSidecar(NamedTuple):
    """A sidecar as it was when its folder was listed; ``role`` is one of ``sidecar_names``."""

    name: str
    role: str
    size: int  # bytes; this and the time are 0 where they are not known
    mtime_ns: int


def stamped(stamp: str) -> list[StampedSidecar]:
    """The sidecars in a stamp, in its order."""
    lines = (line.split(":", 3) for line in stamp.split("\n") if line)
    return [
        StampedSidecar(name, role, *(int(part) if part.isdecimal() else 0 for part in state))
        for *state, role, name in lines
    ]


def with_unread(stamp: str, names: Collection[str]) -> str:
    """The stamp so that the next run reads some sidecars again, though they stay as they are."""
    lines = (line.split(":", 3) for line in stamp.split("\n") if line)
    return "\n".join(
        f"{_NOT_READ}:{_NOT_READ}:{role}:{name}"
        if name in names
        else f"{size}:{time}:{role}:{name}"
        for size, time, role, name in lines
    )


def read_sidecar(path: Path) -> bytes | OSError:
    """The content of a sidecar or why it cannot be read."""
    try:
        # A pipe that took its place would keep a plain open waiting for ever.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return OSError(errno.EINVAL, "it is no regular file")
            if status.st_size > MAX_SIDECAR_BYTES:
                return too_large(status.st_size)
            return file.read(MAX_SIDECAR_BYTES + 1)
    except OSError as error:
        return error


def _state(entry: os.DirEntry[str]) -> str | None:
    """Size and time; None for what is gone since the folder was listed, or is no file."""
    try:
        status = entry.stat()
    except OSError as error:
        # What said something before is not forgotten because its disk or its link's target is
        # away, or for want of a permission.
        is_gone = isinstance(error, FileNotFoundError) and not entry.is_symlink()
        return None if is_gone else f"{_NOT_READ}:0"
    if not stat.S_ISREG(status.st_mode):
        return None  # reading a pipe would wait for ever
    return f"{status.st_size}:{status.st_mtime_ns}"


def _fits_a_line(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return "\n" not in name


def _is_text(name: str) -> bool:
    return name[-4:].lower() == ".txt"
