"""One file in, everything but its vector out: hash, pixels, words and thumbnail, read once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from clipsearch.encoders import Encoder
from clipsearch.hashing import moment_hash
from clipsearch.images import THUMBNAIL_SIDE
from clipsearch.library import (
    MOMENT,
    PICTURE,
    Description,
    Library,
    NewItem,
    SidecarState,
    described,
    mark_as_cache,
)
from clipsearch.library import VIDEO as VIDEO_ITEM
from clipsearch.places import place_name
from clipsearch.uniting import SidecarSaying, unite
from clipsearch.vectors import Pixels
from indexer.changes import settled_mtime_ns
from indexer.decoder_process import (
    COMPUTE_S,
    PIXELS_PER_S,
    VIDEO,
    preprocessing_record,
)
from indexer.decoders import DECODE_S, OPEN_S, Decoder, DecoderDiedError, DecoderPool
from indexer.scan import FoundFile
from indexer.sidecar_stamps import stamped, with_unread
from indexer.thumbnails import thumbnail_path

_THUMBNAIL_TARGET_SIDE = THUMBNAIL_SIDE // 2  # a reduced JPEG keeps twice this

# Pictures above this are decoded one at a time, so that several processes never hold several of
# them: 40 million pixels take 160 MB, twice that while transparency is laid on white.
_LARGE_PIXELS = 40_000_000
_PLACED = ("over", "fill")  # parts of what a sidecar says that may hold a position
_TRIES = 2  # of a file whose decoder something else ended


@dataclass(frozen=True)
class Job:
    """A file to read. ``content_hash`` is set for items that only lack a vector.

    ``moments`` are the times of those items, by their own hashes, if they are moments of a video.
    """

    path: Path
    root_id: int = 0
    file: FoundFile | None = None
    content_hash: str | None = None
    moments: tuple[tuple[str, float], ...] = ()
    describe: bool = False  # its words are read again even if its content is known

    @property
    def is_backlog(self) -> bool:
        """True for items that lack a vector; their file rows are as they should be."""
        return self.file is None


@dataclass(frozen=True)
class MomentReading:
    """One moment of a video: its own content hash, where it is, and what the model sees."""

    content_hash: str
    time_s: float
    pixels: Pixels


@dataclass(frozen=True)
class Reading:
    """What one file gave. Exactly one of these holds:

    ``left`` the file is not settled and stays as it is in the library; ``failure`` it is not
    usable; ``pixels`` it needs a vector; ``moments`` is not None: it is a video that needs one
    for each of them; none of them: its content is in the library, or is made by another reading
    of the same run.
    """

    job: Job
    file: FoundFile | None = None  # as it was when it was read
    content_hash: str = ""
    known_item: int | None = None
    item: NewItem | None = None  # when the library does not hold the content
    description: Description | None = None
    beside: tuple[SidecarState, ...] | None = None  # if the sidecars were read
    pixels: Pixels | None = None  # (3, h, w)
    moments: tuple[MomentReading, ...] | None = None
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
        model_side = max(encoder.preprocessing.height, encoder.preprocessing.width)
        self.target_side = max(model_side, _THUMBNAIL_TARGET_SIDE)
        self._encoder.set_result(encoder)
        return encoder

    def refuse(self, error: BaseException) -> None:
        """Wakes those who wait with an exception."""
        if not self._encoder.done():
            self._encoder.set_exception(error)


class Reader:
    """Reads files in decoder processes; the first to meet a new content has it decoded.

    ``embedded`` holds the items that already have a vector in the space being filled, ``doubted``
    the videos whose moments are looked for again.
    """

    def __init__(
        self,
        library: Library,
        encoder: EncoderOnDemand,
        decoders: DecoderPool,
        max_pixels: int,
    ) -> None:
        self.embedded: Collection[int] = ()
        self.doubted: Collection[int] = ()
        self._library = library
        self._encoder = encoder
        self._decoders = decoders
        self._max_pixels = max_pixels
        self._claimed: set[str] = set()
        self._claiming = threading.Lock()
        self._one_large = threading.Lock()
        self._thumbnails = library.path / "thumbs"
        mark_as_cache(self._thumbnails)

    def read(self, job: Job) -> Reading:
        """Never raises for what a file can cause."""
        with self._decoders.borrow() as decoder:
            for attempt in range(_TRIES):
                try:
                    return self._read(job, decoder)
                except DecoderDiedError as error:
                    if error.by_the_file:
                        return Reading(job, job.file, failure=str(error), was_read=error.is_settled)
                    if attempt + 1 == _TRIES or decoder.is_closed:
                        return Reading(job, left=str(error))
        raise AssertionError("the last try returns")

    def _read(self, job: Job, decoder: Decoder) -> Reading:
        request = {"do": "open", "path": str(job.path), "max_pixels": self._max_pixels}
        read_at_ns = time.time_ns()
        answer, _ = decoder.ask(request, OPEN_S)
        if answer["status"] == "left":
            return Reading(job, left=answer["reason"])
        if answer["status"] == "unopened":
            return Reading(job, job.file, failure=answer["reason"], was_read=False)
        content_hash = answer["hash"]
        if job.content_hash not in (None, content_hash):
            return Reading(job, left="its content changed")
        size, mtime_ns, inode = answer["file"]
        file = None
        if job.file is not None:
            settled = settled_mtime_ns(mtime_ns, read_at_ns)
            file = job.file._replace(size=size, mtime_ns=settled, inode=inode)
        known_item = self._library.item_by_hash([content_hash]).get(content_hash)
        reading = Reading(job, file, content_hash, known_item)
        if "failure" in answer:
            return replace(reading, failure=answer["failure"])
        is_video = answer["kind"] == VIDEO
        if not self._claim(content_hash, known_item, is_video=is_video and not job.is_backlog):
            return self._described(reading, decoder)
        encoder = self._encoder.ask()  # it says how large a picture it needs
        if known_item is not None and known_item in self.embedded:
            return reading  # seen only with its space
        try:
            if is_video:
                return self._video(reading, decoder, encoder)
            if answer["pixels"] <= _LARGE_PIXELS:
                return self._picture(reading, decoder, encoder, answer["pixels"])
            with self._one_large:
                return self._picture(reading, decoder, encoder, answer["pixels"])
        except DecoderDiedError as error:
            if not error.by_the_file:
                self._release(content_hash)
                raise
            return replace(reading, failure=str(error), was_read=error.is_settled)

    def _picture(
        self, reading: Reading, decoder: Decoder, encoder: Encoder, pixels: int
    ) -> Reading:
        compute_s = COMPUTE_S + pixels / PIXELS_PER_S
        request = {
            "do": "picture",
            "preprocessing": preprocessing_record(encoder.preprocessing),
            "target_side": self._encoder.target_side,
            "thumbnail": str(thumbnail_path(self._thumbnails, reading.content_hash)),
            "compute_s": compute_s,
            "sidecars": _sidecars(reading.job),
        }
        answer, attached = decoder.ask(request, DECODE_S + compute_s)
        if answer["status"] == "failed":
            return replace(reading, failure=answer["reason"], was_read=answer["is_settled"])
        found = _unpacked(answer, attached)
        if reading.job.is_backlog:
            return replace(reading, pixels=found)
        reading = replace(_with_words(reading, answer["described"]), pixels=found)
        if reading.known_item is not None:
            return reading
        return replace(reading, item=_new_item(answer, reading, PICTURE))

    def _video(self, reading: Reading, decoder: Decoder, encoder: Encoder) -> Reading:
        request = {
            "do": "video",
            "content_hash": reading.content_hash,
            "preprocessing": preprocessing_record(encoder.preprocessing),
            "target_side": self._encoder.target_side,
            "thumbnails": str(self._thumbnails),
            "sidecars": _sidecars(reading.job),
        }
        moments: list[MomentReading] = []
        answer, attached = decoder.ask(request, DECODE_S)
        while answer["status"] in ("moment", "progress"):
            if answer["status"] == "moment":
                time_s = float(answer["time_s"])
                name = moment_hash(reading.content_hash, time_s)
                moments.append(MomentReading(name, time_s, _unpacked(answer, attached)))
            answer, attached = decoder.answer(DECODE_S)
        if answer["status"] == "failed":
            return replace(reading, failure=answer["reason"], was_read=answer["is_settled"])
        if reading.job.is_backlog:
            return replace(reading, moments=_nearest(reading.job.moments, moments))
        reading = _with_words(reading, answer["described"])
        item = _new_item(answer, reading, VIDEO_ITEM)
        return replace(reading, item=item, moments=tuple(moments))

    def _described(self, reading: Reading, decoder: Decoder) -> Reading:
        """Known content: read again in words if this file has sidecars, or had some."""
        job = reading.job
        if not job.describe:
            return reading
        request = {"do": "describe", "sidecars": _sidecars(job)}
        answer, _ = decoder.ask(request, DECODE_S)
        if answer["status"] == "failed":
            return reading
        return _with_words(reading, answer["described"])

    def _claim(self, content_hash: str, known_item: int | None, *, is_video: bool) -> bool:
        """True for the one reading that has to make this content's vectors.

        A known video has its moments, which are committed along with it.
        """
        is_whole = is_video and known_item not in self.doubted
        if known_item is not None and (is_whole or known_item in self.embedded):
            return False
        with self._claiming:
            if content_hash in self._claimed:
                return False
            self._claimed.add(content_hash)
            return True

    def _release(self, content_hash: str) -> None:
        with self._claiming:
            self._claimed.discard(content_hash)


def _sidecars(job: Job) -> list[list[str]]:
    if job.file is None:
        return []
    return [[sidecar.name, sidecar.role] for sidecar in stamped(job.file.sidecars)]


def _unpacked(answer: dict[str, Any], attached: bytes) -> Pixels:
    return np.frombuffer(attached, np.uint8).reshape(answer["shape"])


def _new_item(answer: dict[str, Any], reading: Reading, kind: str) -> NewItem:
    description = reading.description
    assert description is not None  # noqa: S101 - it came with the answer
    return NewItem(
        content_hash=description.content_hash,
        width=answer["width"],
        height=answer["height"],
        format=answer["format"],
        bytes=answer["bytes"],
        taken_at=description.taken_at,
        metadata=description.metadata,
        kind=kind,
    )


def _with_words(reading: Reading, answer: dict[str, Any]) -> Reading:
    """The reading with what the file and its sidecars say, each position with its place's name."""
    own, file = _placed(answer["own"]), reading.file
    stamps = {one.name: one for one in stamped(file.sidecars)} if file is not None else {}
    beside, unread = [], set()
    for name, record, failure, is_settled in answer["sidecars"]:
        said = {key: _placed(value) if key in _PLACED else value for key, value in record.items()}
        stamp = stamps[name]
        beside.append(SidecarState(name, stamp.size, stamp.mtime_ns, said, failure))
        if not is_settled:
            unread.add(name)
    united = unite(own, [[SidecarSaying.from_record(one.said) for one in beside]])
    description = described(reading.content_hash, united, [reading.job.path.name])
    if reading.job.describe:
        description = replace(description, own=own)
    if file is not None and unread:
        file = file._replace(sidecars=with_unread(file.sidecars, unread))
    if reading.job.describe:  # else it has no sidecars, and had none
        reading = replace(reading, beside=tuple(beside))
    return replace(reading, file=file, description=description)


def _placed(saying: dict[str, Any]) -> dict[str, Any]:
    if saying.get("latitude") is None or saying.get("longitude") is None:
        return saying
    place = place_name(saying["latitude"], saying["longitude"])
    return saying if place is None else {**saying, "place": place}


def _nearest(
    wanted: tuple[tuple[str, float], ...], found: list[MomentReading]
) -> tuple[MomentReading, ...]:
    """For each moment that the library holds, the pixels of the nearest one that was decoded."""
    if not found:
        return ()
    return tuple(
        replace(
            min(found, key=lambda moment: abs(moment.time_s - time_s)),
            content_hash=content_hash,
            time_s=time_s,
        )
        for content_hash, time_s in wanted
    )


def moment_item(video: NewItem, moment: MomentReading) -> NewItem:
    """The item of a moment, below its video's."""
    return replace(
        video,
        content_hash=moment.content_hash,
        kind=MOMENT,
        parent_hash=video.content_hash,
        time_s=moment.time_s,
    )
