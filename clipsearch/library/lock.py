"""One writer a library: a lock that the operating system releases when its holder dies."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from clipsearch.errors import LibraryLockedError, StorageError

if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[str]) -> None:
        file.seek(1 << 20)  # beyond the text, so that others can read who holds it
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _try_lock(file: IO[str]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def writer_lock(library: Path) -> Iterator[None]:
    """Holds the library's writer lock; LibraryLockedError names who holds it already."""
    path = library / "writer.lock"
    try:
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise StorageError(
            path=path, reason=error.strerror or error, advice="check the folder's permissions"
        ) from error
    with file:
        try:
            _try_lock(file)
        except OSError:
            file.seek(0)
            holder = file.read(200).strip() or "unknown"
            raise LibraryLockedError(path=library, holder=holder) from None
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {platform.node() or 'this machine'}\n")
        file.flush()
        yield  # closing the file releases the lock
