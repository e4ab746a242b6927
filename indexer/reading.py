"""One file in, everything but its vector out: hash, pixels, metadata and thumbnail, read once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile

import xxhash
from PIL import Image

from clipsearch.encoders import Encoder
from clipsearch.errors import ImageError, ImageNotFoundError, ImageTooLargeError
from clipsearch.images import THUMBNAIL_SIDE, Metadata, make_thumbnail, read_file, read_picture
from clipsearch.library import Library, NewItem
from clipsearch.vectors import Pixels
from indexer.scan import FoundFile

_THUMBNAIL_TARGET_SIDE = THUMBNAIL_SIDE // 2  # a reduced JPEG keeps twice this

# Pictures above this are decoded one at a time, so that several threads never hold several of
# them: 40 million pixels take 160 MB, twice that while transparency is laid on white.
_LARGE_PIXELS = 40_000_000


@dataclass(frozen=True)
class Job:
    """A file to read. ``content_hash`` is set for an item that only lacks a vector."""

    path: Path
    root_id: int = 0
    file: FoundFile | None = None
    content_hash: str | None = None

    @property
    def is_backlog(self) -> bool:
        """True for an item that lacks a vector; its file rows are as they should be."""
        return self.file is None


@dataclass(frozen=True)
class Reading:
    """What one file gave. Exactly one of these holds:

    ``left`` the file is not settled and stays as it is in the library; ``failure`` it is not
    usable; ``pixels`` it needs a vector; none of them: its content is in the library, or is made
    by an earlier reading of the same run.
    """

    job: Job
    file: FoundFile | None = None  # as it was when it was read
    content_hash: str = ""
    known_item: int | None = None
    item: NewItem | None = None  # when the library does not hold the content
    pixels: Pixels | None = None  # (3, h, w)
    failure: str | None = None
    was_read: bool = True  # False: the file could not even be opened
    left: str | None = None


class EncoderOnDemand:
    """Lets worker threads ask for the encoder and the main thread load it, once, if ever."""

    def __init__(self) -> None:
        self.wanted: Future[None] = Future()
        self.target_side = _THUMBNAIL_TARGET_SIDE
        self._encoder: Future[Encoder] = Future()
        self._asking = threading.Lock()

    @property
    def is_settled(self) -> bool:
        return self._encoder.done()

    def ask(self) -> Encoder:
        """Waits for the encoder; raises what loading it raised."""
        with self._asking:
            if not self.wanted.done():
                self.wanted.set_result(None)
        return self._encoder.result()

    def provide(self, load: Callable[[], Encoder]) -> Encoder:
        """Loads it and wakes those who wait; they get the exception if loading fails."""
        try:
            encoder = load()
        except BaseException as error:
            self.refuse(error)
            raise
        model_side = max(encoder.preprocess(Image.new("RGB", (8, 8))).shape[-2:])
        self.target_side = max(model_side, _THUMBNAIL_TARGET_SIDE)
        self._encoder.set_result(encoder)
        return encoder

    def refuse(self, error: BaseException) -> None:
        """Wakes those who wait with an exception."""
        if not self._encoder.done():
            self._encoder.set_exception(error)


class Reader:
    """Reads files in worker threads; the first to meet a new content decodes it.

    ``embedded`` holds the items that already have a vector in the space being filled.
    """

    def __init__(
        self,
        library: Library,
        encoder: EncoderOnDemand,
        embedded: Collection[int],
        max_pixels: int,
    ) -> None:
        self.embedded = embedded
        self._library = library
        self._encoder = encoder
        self._max_pixels = max_pixels
        self._claimed: set[str] = set()
        self._claiming = threading.Lock()
        self._one_large = threading.Lock()
        self._thumbnails = library.path / "thumbs"

    def read(self, job: Job) -> Reading:
        """Never raises for what a file can cause."""
        try:
            before = _look(job)
            data = read_file(job.path)
            if _look(job) != before:
                return Reading(job, left="it changed while it was being read")
        except (FileNotFoundError, ImageNotFoundError):
            return Reading(job, left="it was removed before it could be read")
        except ImageError as error:
            return Reading(job, job.file, failure=_reason(error, job.path), was_read=False)
        except OSError as error:
            reason = error.strerror or str(error)
            return Reading(job, job.file, failure=reason, was_read=False)
        content_hash = hash_content(data)
        if job.content_hash not in (None, content_hash):
            return Reading(job, left="its content changed")
        known_item = self._library.item_by_hash([content_hash]).get(content_hash)
        if not self._claim(content_hash, known_item):
            return Reading(job, before, content_hash, known_item)
        return self._decode(job, before, data, content_hash, known_item)

    def _decode(
        self, job: Job, file: FoundFile, data: bytes, content_hash: str, known_item: int | None
    ) -> Reading:
        try:
            # The encoder says how large a picture it needs; asking waits until it is loaded.
            encoder = self._encoder.ask()
            if known_item is not None and known_item in self.embedded:
                return Reading(job, file, content_hash, known_item)  # seen only with its space
            image, metadata = self._picture(data, str(job.path))
            pixels = encoder.preprocess(image)
            self._keep_thumbnail(image, content_hash)
        except ImageError as error:
            reason = _reason(error, job.path)
            return Reading(job, file, content_hash, known_item, failure=reason)
        except MemoryError:
            reason = "not enough memory to prepare it"
            return Reading(job, file, content_hash, known_item, failure=reason)
        item = None if known_item is not None else _new_item(content_hash, len(data), metadata)
        return Reading(job, file, content_hash, known_item, item, pixels)

    def _claim(self, content_hash: str, known_item: int | None) -> bool:
        """True for the one reading that has to make this content's vector."""
        if known_item is not None and known_item in self.embedded:
            return False
        with self._claiming:
            if content_hash in self._claimed:
                return False
            self._claimed.add(content_hash)
            return True

    def _picture(self, data: bytes, name: str) -> tuple[Image.Image, Metadata]:
        read = partial(read_picture, data, name=name, target_side=self._encoder.target_side)
        try:
            return read(max_pixels=min(self._max_pixels, _LARGE_PIXELS))
        except ImageTooLargeError:
            with self._one_large:  # it may still be within the real limit
                return read(max_pixels=self._max_pixels)

    def _keep_thumbnail(self, image: Image.Image, content_hash: str) -> None:
        """Saves the thumbnail; a full or read-only disk is met when the library is written."""
        destination = self._thumbnails / content_hash[:2] / f"{content_hash}.webp"
        if destination.exists():
            return
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile(dir=destination.parent, suffix=".tmp", delete=False) as file:
                file.write(make_thumbnail(image))
            Path(file.name).replace(destination)
        except OSError:
            return  # thumbnails are a cache: they can be made again from the photo


def hash_content(data: bytes) -> str:
    """Names a content: xxh3 with 128 bits over the whole file, 32 hex digits.

    It runs at the speed of memory, where the cryptographic hashes would cost about a tenth of
    decoding; 128 bits make an accidental meeting among a billion photos less likely than 1e-20.
    """
    return xxhash.xxh3_128_hexdigest(data)


def _look(job: Job) -> FoundFile:
    status = job.path.stat()
    relpath = job.file.relpath if job.file else ""
    return FoundFile(relpath, status.st_size, status.st_mtime_ns, status.st_ino)


def _new_item(content_hash: str, size: int, metadata: Metadata) -> NewItem:
    return NewItem(
        content_hash=content_hash,
        width=metadata.width,
        height=metadata.height,
        format=metadata.format,
        bytes=size,
        taken_at=None,
        metadata={},
    )


def _reason(error: ImageError, path: Path) -> str:
    """The message without the path, which the library keeps beside it."""
    return str(error).removeprefix(f"{path} ")
