"""Pictures in screen size, kept beside the thumbnails: bounded, and forgotten with their photos."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
from pathlib import Path

from clipsearch.images import THUMBNAIL_SUFFIX

VIEWS = "views"
MAX_BYTES = 512 * 2**20
_LEAST_FREE_BYTES = 256 * 2**20  # that are left on the disk
_OURS = re.compile(  # names of files, whole or left half written
    rf"[0-9a-f]{{32}}[^/]*({re.escape(THUMBNAIL_SUFFIX)}|\.tmp)"
)
_ROOM = 0.9  # of that is left after the oldest were removed


class ViewCache:
    """Files below ``LIBRARY/views``, each named by the content it shows; thread-safe.

    A folder that cannot be written only makes it slower.
    """

    def __init__(self, library: Path, max_bytes: int = MAX_BYTES) -> None:
        self._folder = library / VIEWS
        self._max_bytes = max_bytes
        self._bytes = -1  # not counted yet
        self._changing = threading.Lock()

    def read(self, content_hash: str) -> bytes | None:
        """What was kept; it then is among the last to be removed."""
        place = self._place(content_hash)
        try:
            data = place.read_bytes()
        except OSError:
            return None
        with contextlib.suppress(OSError):
            os.utime(place)
        return data

    def keep(self, content_hash: str, data: bytes) -> None:
        """Writes it whole or not at all, for its owner; removes the oldest beyond the limit."""
        place = self._place(content_hash)
        written = place.with_name(f"{place.stem}.{os.getpid()}.{threading.get_ident()}.tmp")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(self._folder).free - len(data) < _LEAST_FREE_BYTES:
                return
            with open(written, "wb", opener=_private) as file:
                file.write(data)
            written.replace(place)
        except OSError:
            with contextlib.suppress(OSError):
                written.unlink()
            return
        with self._changing:
            if self._bytes >= 0:
                self._bytes += len(data)
            if self._bytes < 0 or self._bytes > self._max_bytes:
                self._bytes = self._remove_oldest()

    def _place(self, content_hash: str) -> Path:
        return self._folder / content_hash[:2] / f"{content_hash}{THUMBNAIL_SUFFIX}"

    def _remove_oldest(self) -> int:
        """Counts what is there and removes what is too much of it; the bytes that are left.

        The folder may be a link to one that holds other files: those stay.
        """
        found = []
        for file in self._folder.glob("[0-9a-f][0-9a-f]/*"):
            if not _OURS.fullmatch(file.name) or not file.name.startswith(file.parent.name):
                continue
            with contextlib.suppress(OSError):
                status = file.stat()
                found.append((status.st_mtime_ns, status.st_size, file))
        held = sum(size for _, size, _ in found)
        if held <= self._max_bytes:
            return held
        for _, size, file in sorted(found):
            with contextlib.suppress(OSError):
                file.unlink()
                held -= size
            if held <= self._max_bytes * _ROOM:
                break
        return held


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
