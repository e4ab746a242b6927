"""Where dropped pictures lie for a while: a private folder with a limit, gone with the server."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from clipsearch.library.lock import try_lock

MAX_UPLOAD_BYTES = 200 * 2**20
MAX_BYTES = 2**30  # of all uploads together, on their way or kept
LIFETIME_S = 900
_MAX_FILES = 1_000
_PREFIX = "clipsearch-uploads-"
_LOCK = "in-use.lock"
_SWEEP_EVERY_S = 30.0
_SETTLED_S = 60.0  # a file that was used so lately is not given up for another
_UNMARKED_S = 24 * 3600.0  # after which a folder without a lock belongs to nobody any more
_LEAST_FREE_BYTES = 256 * 2**20  # that are left on the disk


class Uploads:
    """The uploads of one server; a context manager that owns the folder and sweeps it.

    What has not been used for LIFETIME_S is removed, whatever it is.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self.folder = folder
        self._max_bytes = max_bytes
        self._coming = 0  # bytes of uploads on their way
        self._changing = threading.Lock()
        self._over = threading.Event()

    @contextlib.contextmanager
    def reserved(self, size: int) -> Iterator[bool]:
        """Keeps room for an upload while it arrives; False where there is none now."""
        with self._changing:
            granted = self._has_room(size)
            self._coming += size if granted else 0
        try:
            yield granted
        finally:
            with self._changing:
                self._coming -= size if granted else 0

    def holds(self, named: str) -> bool:
        """Whether a request may ask for what it calls ``named``: an uploaded file, no link."""
        asked = Path(named)
        try:
            if not asked.is_absolute() or not stat.S_ISREG(asked.lstat().st_mode):
                return False
            found = asked.resolve(strict=True)
        except (OSError, ValueError, RuntimeError):  # a NUL, or a link that leads back to itself
            return False
        return found.is_relative_to(self.folder.resolve()) and found.name != _LOCK

    def sweep(self, age_s: float = LIFETIME_S) -> None:
        """Removes what is older, and folders that are empty."""
        self._remove(self._files(), time.time() - age_s)
        for folder in self.folder.iterdir():
            if folder.is_dir() and not folder.is_symlink():
                with contextlib.suppress(OSError):
                    if time.time() - folder.stat().st_mtime > min(age_s, _SETTLED_S):
                        folder.rmdir()

    def sweep_until_over(self) -> threading.Thread:
        """Sweeps now and then, in a thread, until ``stop``."""

        def run() -> None:
            while not self._over.wait(_SWEEP_EVERY_S):
                with contextlib.suppress(OSError):
                    self.sweep()

        thread = threading.Thread(target=run, name="uploads", daemon=True)
        thread.start()
        return thread

    def stop(self) -> None:
        self._over.set()

    def _has_room(self, size: int) -> bool:
        """Also after the oldest files that nobody has just used are removed."""
        with contextlib.suppress(OSError):
            if shutil.disk_usage(self.folder).free - self._coming - size < _LEAST_FREE_BYTES:
                return False
        files = self._files()
        held = sum(used for _, used, _ in files)
        wanted = held + self._coming + size
        if wanted > self._max_bytes or len(files) >= _MAX_FILES:
            enough = wanted - self._max_bytes if len(files) < _MAX_FILES else float("inf")
            self._remove(files, time.time() - _SETTLED_S, enough)
            files = self._files()
            wanted = sum(used for _, used, _ in files) + self._coming + size
        return wanted <= self._max_bytes and len(files) < _MAX_FILES

    def _files(self) -> list[tuple[float, int, Path]]:
        """When each was last used, its size, and where it is; the oldest first."""
        found = []
        for folder, _, names in os.walk(self.folder):
            for name in names:
                path = Path(folder) / name
                with contextlib.suppress(OSError):
                    status = path.lstat()
                    found.append((max(status.st_mtime, status.st_ctime), status.st_size, path))
        return sorted(one for one in found if one[2].name != _LOCK)

    @staticmethod
    def _remove(
        files: list[tuple[float, int, Path]], before: float, enough: float = float("inf")
    ) -> None:
        removed = 0
        for used_at, size, path in files:
            if used_at > before or removed >= enough:
                break
            with contextlib.suppress(OSError):
                path.unlink()
                removed += size


@contextlib.contextmanager
def uploads_folder() -> Iterator[Uploads]:
    """A new folder for a server, marked as in use until the block ends; it is removed then.

    First removes the folders of servers that died.
    """
    remove_orphans(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    uploads = Uploads(folder)
    try:
        with (folder / _LOCK).open("ab+", buffering=0) as lock:
            try_lock(lock)
            uploads.sweep_until_over()
            yield uploads
    finally:
        uploads.stop()
        shutil.rmtree(folder, ignore_errors=True)


def remove_orphans(place: Path) -> None:
    """Removes folders of uploads that no living server of this user holds."""
    for folder in place.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            status = folder.lstat()
            owner = os.getuid() if hasattr(os, "getuid") else status.st_uid
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != owner:
                continue
            if (folder / _LOCK).exists():
                with (folder / _LOCK).open("ab+", buffering=0) as lock:
                    try_lock(lock)
            elif time.time() - status.st_mtime < _UNMARKED_S:
                continue
            shutil.rmtree(folder, ignore_errors=True)
