"""Where the bytes of a captioned picture are: they are read again, and need not be held."""

from __future__ import annotations

import tempfile
import threading
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from clipsearch.errors import ImageUnreadableError, StorageError
from clipsearch.images import MAX_FILE_BYTES, read_file


class ImageSource(Protocol):
    """A picture that can be read as often as it is needed."""

    @property
    def name(self) -> str:
        """What people call it, for messages and reports."""
        ...

    def read(self) -> bytes:
        """The whole file's bytes; ImageError if they cannot be had."""
        ...


@dataclass(frozen=True)
class ImageFile:
    """A file of its own."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def read(self) -> bytes:
        return read_file(self.path)


@dataclass(frozen=True)
class ImageSlice:
    """Part of a larger file: a member of an uncompressed tar, which is never extracted."""

    path: Path
    offset: int
    size: int
    name: str

    def read(self) -> bytes:
        if self.size > MAX_FILE_BYTES:
            reason = f"{self.size:,} bytes, over the limit of {MAX_FILE_BYTES:,}"
            raise ImageUnreadableError(path=self.name, reason=reason)
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                data = file.read(self.size)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ImageUnreadableError(path=self.name, reason=reason) from error
        if len(data) < self.size:
            raise ImageUnreadableError(path=self.name, reason=f"{self.path} ends before it does")
        return data


@dataclass(frozen=True)
class LooseImage:
    """Bytes that were read on the way and have no place to be read from again, such as a cell.

    Whoever keeps it puts it into a ``Spill``.
    """

    name: str
    data: bytes = field(repr=False)

    def read(self) -> bytes:
        return self.data


class Spill:
    """One nameless file on disk for pictures that cannot be read again one by one.

    It is made in ``folder`` (else where temporary files belong) and is gone when nobody holds it
    or the process ends, however it ends.
    """

    def __init__(self, folder: Path | None = None) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by the finalizer
        self._lock = threading.Lock()
        self._end = 0
        self._where = folder or Path(tempfile.gettempdir())
        weakref.finalize(self, self._file.close)

    def keep(self, image: LooseImage) -> SpilledImage:
        """Writes a picture's bytes down. StorageError if the disk does not take them."""
        with self._lock:
            try:
                self._file.seek(self._end)
                self._file.write(image.data)
                self._file.flush()
            except OSError as error:
                raise StorageError(
                    path=self._where,
                    reason=error.strerror or error,
                    advice="pictures from Parquet and compressed tars are kept there meanwhile",
                ) from error
            kept = SpilledImage(self, self._end, len(image.data), image.name)
            self._end += len(image.data)
            return kept

    def read(self, offset: int, size: int) -> bytes:
        with self._lock:
            self._file.seek(offset)
            return self._file.read(size)


@dataclass(frozen=True)
class SpilledImage:
    """A picture in a ``Spill``."""

    spill: Spill
    offset: int
    size: int
    name: str

    def read(self) -> bytes:
        return self.spill.read(self.offset, self.size)
