"""One writer a library: a lock that the operating system releases when its holder dies."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from clipsearch.errors import LibraryLockedError, StorageError

if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[bytes]) -> None:
        file.seek(1 << 20)  # beyond the text, so that others can read who holds it
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _try_lock(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


_HELD = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)


@contextlib.contextmanager
def writer_lock(library: Path) -> Iterator[None]:
    """Holds the library's writer lock; LibraryLockedError names who holds it already."""
    path = library / "writer.lock"
    try:
        file = path.open("ab+", buffering=0)
    except OSError as error:
        raise _unusable(path, error) from error
    with file:
        try:
            _try_lock(file)
        except OSError as error:
            if error.errno not in _HELD:
                raise _unusable(path, error) from error
            file.seek(0)
            holder = file.read(200).decode("utf-8", "replace").strip() or "unknown"
            raise LibraryLockedError(path=library, holder=holder) from None
        with contextlib.suppress(OSError):  # a full disk: the lock holds without a name, too
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node() or 'this machine'}\n".encode())
        yield  # closing the file releases the lock


def _unusable(path: Path, error: OSError) -> StorageError:
    return StorageError(
        path=path, reason=error.strerror or error, advice="check the folder's permissions"
    )
