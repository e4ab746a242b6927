"""The file of an item, opened: only where it still is the file that was indexed."""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import xxhash

from clipsearch.errors import ImageError, ImageNotFoundError, ImageUnreadableError
from clipsearch.library import ItemRecord, Library

_CHUNK_BYTES = 4 << 20
_KEPT = 4_096  # files whose content was compared
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
# What every browser shows by itself; the rest is offered as a download.
BROWSER_TYPES = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "AVIF": "image/avif",
    # Browsers play what they can of these; a film that they cannot is still a download.
    "MP4": "video/mp4",
    "MOV": "video/mp4",  # the same boxes; few browsers know video/quicktime
    "3GP": "video/mp4",
    "WEBM": "video/webm",
    "MKV": "video/x-matroska",
}
Identity = tuple[int, ...]


@dataclass(frozen=True)
class OpenedFile:
    """A descriptor for the caller to close, and what was true of it when it was compared."""

    path: Path
    descriptor: int
    status: os.stat_result

    def is_still_there(self) -> bool:
        """Whether its path still leads to what was opened."""
        try:
            return _identity(self.path.stat()) == _identity(self.status)
        except OSError:
            return False


class FileOpener:
    """Opens the files of items, whatever lies at their paths by now; thread-safe.

    A path may have become a link to something else, or another file. So what is opened is compared:
    by the size, time and inode with which it was indexed, else (drives that are mounted anew have
    other inodes) by content, once for each state of a file.
    """

    def __init__(self, library: Library) -> None:
        self._library = library
        self._same: OrderedDict[tuple[Identity, str], bool] = OrderedDict()
        self._comparing = threading.Lock()

    def open(self, record: ItemRecord) -> OpenedFile:
        """The first copy that is still the content of the item.

        ImageNotFoundError where every copy is gone, ImageUnreadableError where they are others.
        """
        failure: ImageError = ImageNotFoundError(path=f"of item {record.id} any more")
        looks = self._library.looks(record.id)
        for path in self._library.paths([record.id]).get(record.id, ()):
            try:
                opened = _open_regular(path)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                failure = ImageUnreadableError(path=path, reason=reason)
                continue
            try:
                if self._is_same(opened, looks.get(path), record):
                    return opened
                reason = "it is not the file that was indexed; clipsearch index looks at it again"
                failure = ImageUnreadableError(path=path, reason=reason)
            except OSError as error:
                failure = ImageUnreadableError(path=path, reason=error.strerror or str(error))
            os.close(opened.descriptor)
        raise failure

    def _is_same(
        self, opened: OpenedFile, look: tuple[int, int, int] | None, record: ItemRecord
    ) -> bool:
        status = opened.status
        if look == (status.st_size, status.st_mtime_ns, status.st_ino) and status.st_ino:
            return True
        if status.st_size != record.bytes:
            return False
        seen = (_identity(status), record.content_hash)
        with self._comparing:
            if seen not in self._same:
                content = record.content_hash.split("-")[0]  # of a moment: its video's
                self._same[seen] = _hash(opened.descriptor) == content
                if len(self._same) > _KEPT:
                    self._same.popitem(last=False)
            return self._same[seen]


def _identity(status: os.stat_result) -> Identity:
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _open_regular(path: Path) -> OpenedFile:
    """Nothing but a file is opened: a named pipe would wait, a device do who knows what."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(0, "it is not a regular file")
    descriptor = os.open(path, _FLAGS)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "it is not a regular file")
    except OSError:
        os.close(descriptor)
        raise
    return OpenedFile(path, descriptor, status)


def _hash(descriptor: int) -> str:
    """As ``clipsearch.hashing.hash_file``; leaves the descriptor at its start."""
    state = xxhash.xxh3_128()
    os.lseek(descriptor, 0, os.SEEK_SET)
    while chunk := os.read(descriptor, _CHUNK_BYTES):
        state.update(chunk)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return str(state.hexdigest())
