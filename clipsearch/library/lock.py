"""Locks of a library that the operating system releases when their holder dies.

One process writes at a time, and one fills the vectors of a new model; the second of them writes
now and then only, so it has a lock of its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from clipsearch.errors import FillRunningError, LibraryLockedError, StorageError

if sys.platform == "win32":
    import msvcrt

    def try_lock(file: IO[bytes]) -> None:
        """Takes the lock of a file, until it is closed; OSError where another process has it."""
        file.seek(1 << 20)  # beyond the text, so that others can read who holds it
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def try_lock(file: IO[bytes]) -> None:
        """Takes the lock of a file, until it is closed; OSError where another process has it."""
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


_HELD = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
# A fill commits for a moment every few seconds: nobody else should be refused for that.
_PATIENCE_S = 1.0
_RETRY_S = 0.02
_FILL_LOCK = "fill.lock"


class _HeldError(Exception):
    """Another process has the lock; ``args[0]`` says which."""


@contextlib.contextmanager
def writer_lock(library: Path) -> Iterator[None]:
    """Holds the library's writer lock; LibraryLockedError names who holds it for a second."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_held(library / "writer.lock", _PATIENCE_S))
        except _HeldError as held:
            raise LibraryLockedError(path=library, holder=held.args[0]) from None
        yield


@contextlib.contextmanager
def fill_lock(library: Path) -> Iterator[None]:
    """Held while a new model's vectors are filled; FillRunningError names who does already."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_held(library / _FILL_LOCK, _PATIENCE_S / 4))
        except _HeldError as held:
            raise FillRunningError(path=library, holder=held.args[0]) from None
        yield


def fill_holder(library: Path) -> str | None:
    """The process that fills a new model's vectors now, or None."""
    path = library / _FILL_LOCK
    if not path.exists():
        return None
    try:
        with path.open("rb") as file:
            try_lock(file)
    except OSError as error:
        return _holder(path) if error.errno in _HELD else None
    return None


@contextlib.contextmanager
def _held(path: Path, patience_s: float) -> Iterator[None]:
    try:
        file = path.open("ab+", buffering=0)
    except OSError as error:
        raise _unusable(path, error) from error
    with file:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                try_lock(file)
                break
            except OSError as error:
                if error.errno not in _HELD:
                    raise _unusable(path, error) from error
            if time.monotonic() > deadline:
                raise _HeldError(_holder(path))
            time.sleep(_RETRY_S)
        with contextlib.suppress(OSError):  # a full disk: the lock holds without a name, too
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node() or 'this machine'}\n".encode())
        yield  # closing the file releases the lock


def _holder(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_bytes()[:200].decode("utf-8", "replace").strip() or "unknown"
    return "unknown"


def _unusable(path: Path, error: OSError) -> StorageError:
    return StorageError(
        path=path, reason=error.strerror or error, advice="check the folder's permissions"
    )
