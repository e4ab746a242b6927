"""A video file to its facts and its moments: the only place that imports av (FFmpeg).

How frames are come by, what becomes a moment, and how it becomes a picture stand in key_frames,
scenes and frames, which see av's objects and not av. Sound is never decoded. Whatever av raises
leaves here as an ``ImageError`` that names the file. Decoders can crash and hang on hostile files:
call this in a process that may be killed.
"""

from __future__ import annotations

import io
import stat
import unicodedata
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from PIL import Image

from clipsearch.clocks import split
from clipsearch.errors import (
    ImageEmptyError,
    ImageError,
    ImageNotFoundError,
    ImagePackageError,
    ImageTooLargeError,
    ImageUnreadableError,
)
from indexer.frames import make_look, make_picture, shown_size
from indexer.key_frames import MIN_STEP_S, Pace, Track, walk
from indexer.scenes import MomentChooser, contrast
from indexer.video_tags import first_tag, read_date, read_place

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# FFmpeg's demuxer -> what the library calls the format. Nothing else is opened: FFmpeg also reads
# playlists, which name other files and addresses.
VIDEO_FORMATS = {
    "mov": "MP4",  # or MOV or 3GP, as the brand in the file says
    "matroska": "MKV",  # or WEBM
    "avi": "AVI",
    "mpegts": "MPEG-TS",
    "mpeg": "MPEG-PS",
    "asf": "WMV",
    "flv": "FLV",
}
LIVE_PHOTO_MAX_S = 6.0

_BROWSER_FORMATS = ("mov", "matroska")  # their times are shown as they stand in the file
_STILL_BRANDS = ("heic", "heix", "heim", "heis", "hevc", "mif1", "msf1", "avif", "avis", "crx")
_LIVE_PHOTO_SUFFIXES = (".heic", ".heif", ".jpg", ".jpeg")
_MIN_IMAGE_SIDE = 640  # what a thumbnail and most models need
_READ_BYTES = 2**20
_HEAD_BYTES = 64  # holds the DocType of a Matroska file
_MAX_LOOKS = 2000  # of a video of known length
_SEEK_BACK_S = 15.0  # holds a key frame of most broadcasts and camcorders
_DURATION_SCAN_BYTES = 2**28
_MAX_DURATION_S = 30 * 24 * 3600  # a header that says more is not believed
_SAME_FRAME_S = 0.001  # times are kept in milliseconds
_NO_FRAME = "no frame of the video can be decoded"


@dataclass(frozen=True)
class VideoFacts:
    """What a video says about itself. ``width`` and ``height`` are as it is shown, upright."""

    width: int
    height: int
    duration_s: float
    format: str
    codec: str
    frame_rate: float | None
    taken_at: str | None
    make: str | None
    model: str | None
    latitude: float | None
    longitude: float | None
    content_identifier: str | None  # marks the video half of a Live Photo
    is_in_utc: bool = False  # taken_at, as of PhotoMetadata


@dataclass(frozen=True)
class Moment:
    """A frame worth finding, and where an HTML5 video element seeks to show it."""

    time_s: float
    image: Image.Image


def read_facts(path: Path, *, max_pixels: int) -> VideoFacts:
    """Reads what a video says about itself, and decodes one frame to know that it can be.

    Raises ImageNotFoundError, ImageEmptyError, ImageTooLargeError (from the header, before
    decoding) or ImageUnreadableError.
    """
    with _open(path, max_pixels, threads=1) as clip:
        frame = next((frame for _, frame in walk(clip.track, Pace())), None)
        if frame is None:
            raise ImageUnreadableError(path=path, reason=_NO_FRAME)
        width, height = shown_size(frame, clip.stream.sample_aspect_ratio)
        tags = {**clip.stream.metadata, **clip.container.metadata}
        latitude, longitude = read_place(tags)
        taken_at, is_in_utc = split(read_date(tags))
        return VideoFacts(
            width=width,
            height=height,
            duration_s=clip.duration_s or _scanned_duration_s(path, max_pixels),
            format=clip.format,
            codec=clip.stream.codec_context.codec.canonical_name,
            frame_rate=_frame_rate(clip.stream),
            taken_at=taken_at,
            is_in_utc=is_in_utc,
            make=first_tag(
                tags, "com.apple.quicktime.make", "com.android.manufacturer", "make", "make-eng"
            ),
            model=first_tag(
                tags, "com.apple.quicktime.model", "com.android.model", "model", "model-eng"
            ),
            latitude=latitude,
            longitude=longitude,
            content_identifier=first_tag(tags, "com.apple.quicktime.content.identifier"),
        )


def read_moments(
    path: Path,
    *,
    every_s: float = 10.0,
    max_moments: int = 200,
    max_pixels: int,
    target_side: int,
    threads: int = 1,
    on_progress: Callable[[], None] | None = None,
) -> Iterator[Moment]:
    """Gives a video's scene changes, and a moment at least every ``every_s``, as they are found.

    Times rise. Moments that would be near-equal to the one before, and blank ones, are left out; a
    long video is thinned evenly to ``max_moments``. Pictures are upright RGB, their longer side
    at most max(2 * target_side, 640) pixels. Where a long stretch holds no moment, ``on_progress``
    is still called, at least once for every key frame and decoded frame. A damaged video gives
    its moments up to the damage; raises what ``read_facts`` raises where there is none.
    """
    longest = max(2 * target_side, _MIN_IMAGE_SIDE)
    found = 0
    try:
        with _open(path, max_pixels, threads=threads) as clip:
            for moment in _moments(clip, every_s, max_moments, longest, on_progress):
                found += 1
                yield moment
    except ImageError:
        if not found:
            raise
    if not found:
        raise ImageUnreadableError(path=path, reason=_NO_FRAME)


def is_live_photo_pair(facts: VideoFacts, picture_names: Collection[str], video_name: str) -> bool:
    """True where the video is the moving half of a picture beside it, and counts with that.

    ``picture_names`` are the names of the files in the video's folder. The picture has the same
    stem (IMG_1234.HEIC, or IMG_1234.HEIC.MOV for the video), in any case and Unicode form.
    """
    if facts.format not in ("MOV", "MP4"):
        return False
    if facts.content_identifier is None and facts.duration_s > LIVE_PHOTO_MAX_S:
        return False
    stem = _folded(PurePath(video_name).stem)
    for name in map(_folded, picture_names):
        picture = PurePath(name)
        if picture.suffix in _LIVE_PHOTO_SUFFIXES and stem in (picture.stem, name):
            return True
    return False


def read_frame(path: Path, time_s: float, *, max_pixels: int, target_side: int) -> Image.Image:
    """The frame that is shown at a time, upright RGB, reduced as a Moment's picture is.

    Past the end it is the last frame. Where seeking goes too far, as it does in MPEG-TS and
    MPEG-PS, it is read from further back. Raises what ``read_facts`` raises.
    """
    longest = max(2 * target_side, _MIN_IMAGE_SIDE)
    for start_s in (time_s, time_s - _SEEK_BACK_S, None):  # None: from the beginning
        with _open(path, max_pixels, threads=1) as clip:
            shown = _shown_at(clip, time_s, start_s)
            if shown is not None and (start_s is None or shown[0] <= time_s + _SAME_FRAME_S):
                return make_picture(shown[1], clip.stream.sample_aspect_ratio, longest)
    raise ImageUnreadableError(path=path, reason=_NO_FRAME)


@dataclass
class _Clip:
    """An open video and the track of it that is looked at."""

    container: InputContainer
    stream: VideoStream
    track: Track
    format: str
    duration_s: float  # 0 where the file does not say
    size_bytes: int

    def progress(self, time_s: float) -> float:
        """The share of the video that is behind at this time, 0 to 1."""
        if time_s <= self.duration_s:
            return time_s / self.duration_s if self.duration_s else 0.0
        return self.track.position_bytes / self.size_bytes


class _File(io.FileIO):
    """A file that answers a seek to nowhere as FFmpeg expects, without an exception."""

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return super().seek(offset, whence)
        except OSError:
            return -1


@contextmanager
def _file(path: Path) -> Iterator[_File]:
    """A regular, non-empty file, open for reading; ImageError says why it cannot be."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise ImageUnreadableError(path=path, reason=f"it is {kind}")
        if status.st_size == 0:
            raise ImageEmptyError(path=path)
        file = _File(path)
    except FileNotFoundError as error:
        raise ImageNotFoundError(path=path) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageUnreadableError(path=path, reason=reason) from error
    with file:
        yield file


@contextmanager
def _open(path: Path, max_pixels: int, *, threads: int) -> Iterator[_Clip]:
    """The video of a file; within the block, whatever av raises becomes an ImageError."""
    with _file(path) as file:
        try:
            import av
        except ImportError as error:
            extra = "'clipsearch[video]'"
            raise ImagePackageError(path=path, kind="a video", package=extra) from error
        try:
            head = file.read(_HEAD_BYTES)
            file.seek(0)
            with av.open(
                file,
                mode="r",
                metadata_errors="replace",
                container_options={"format_whitelist": ",".join(VIDEO_FORMATS)},
                options={"max_pixels": str(max_pixels)},
                buffer_size=_READ_BYTES,
            ) as container:
                yield _clip(path, container, head, max_pixels=max_pixels, threads=threads)
        except ImageError:
            raise
        except MemoryError as error:
            reason = "not enough memory to decode it"
            raise ImageUnreadableError(path=path, reason=reason) from error
        except Exception as error:  # a damaged file makes av raise nearly anything
            told = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
            reason = f"it is not a video, or damaged or not supported ({told})"
            raise ImageUnreadableError(path=path, reason=reason) from error


def _clip(
    path: Path, container: InputContainer, head: bytes, *, max_pixels: int, threads: int
) -> _Clip:
    """Chooses the track as players do; refuses what is no video and what is too large."""
    from av.error import FFmpegError
    from av.stream import Discard, Disposition

    kind = container.format.name.split(",")[0]
    brand = container.metadata.get("major_brand", "").strip().lower()
    if brand in _STILL_BRANDS:
        raise ImageUnreadableError(path=path, reason=f"it is a still picture ('{brand}')")
    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    tracks = [track for track in container.streams.video if not track.disposition & covers]
    if not tracks:
        what = "sound only" if container.streams.audio else "no video"
        raise ImageUnreadableError(path=path, reason=f"it holds {what}")
    stream = next((track for track in tracks if track.disposition & Disposition.default), tracks[0])
    if stream.codec_context is None:
        raise ImageUnreadableError(path=path, reason="there is no decoder for its kind of video")
    pixels = stream.width * stream.height
    if pixels > max_pixels:
        raise ImageTooLargeError(path=path, pixels=pixels, max_pixels=max_pixels)
    stream.codec_context.options = {"max_pixels": str(max_pixels)}  # a later frame may be larger
    stream.codec_context.thread_type = "AUTO"
    stream.codec_context.thread_count = threads
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all  # sound above all
    tick_s = float(stream.time_base or 1)
    duration_s = (container.duration or 0) / 1_000_000 or (stream.duration or 0) * tick_s
    start_s = (container.start_time or 0) / 1_000_000
    return _Clip(
        container=container,
        stream=stream,
        track=Track(
            packets=container.demux(stream),
            decoder=stream.codec_context,
            tick_s=tick_s,
            offset_s=0.0 if kind in _BROWSER_FORMATS else start_s,
            damage=FFmpegError,
        ),
        format=_format(kind, brand, head),
        duration_s=duration_s if 0 < duration_s < _MAX_DURATION_S else 0.0,
        size_bytes=max(path.stat().st_size, 1),
    )


def _format(kind: str, brand: str, head: bytes) -> str:
    if kind == "mov" and brand in ("", "qt"):  # QuickTime is older than brands
        return "MOV"
    if kind == "mov" and brand.startswith("3g"):
        return "3GP"
    if kind == "matroska" and b"webm" in head:
        return "WEBM"
    return VIDEO_FORMATS[kind]


def _frame_rate(stream: VideoStream) -> float | None:
    rate = float(stream.average_rate or 0)
    return round(rate, 3) if 0 < rate <= 1000 else None


def _scanned_duration_s(path: Path, max_pixels: int) -> float:
    """Where the file does not say how long it is: the time of the last packet.

    Of a large file only a part is read, and the rest taken to be like it.
    """
    latest_s = 0.0
    with _open(path, max_pixels, threads=1) as clip:
        for packet in clip.track.read():
            begin_s = clip.track.seconds(packet) or 0.0
            latest_s = max(latest_s, begin_s + (packet.duration or 0) * clip.track.tick_s)
            if clip.track.position_bytes > _DURATION_SCAN_BYTES:
                return latest_s * clip.size_bytes / clip.track.position_bytes
    return latest_s


def _shown_at(clip: _Clip, time_s: float, start_s: float | None) -> tuple[float, VideoFrame] | None:
    """The last frame up to a time, or the first one after it; seeks to ``start_s`` before."""
    track = clip.track
    if start_s is not None:
        ticks = max(round((start_s + track.offset_s) / track.tick_s), 0)
        with suppress(track.damage):  # without an index it is read from where it is
            clip.container.seek(ticks, stream=clip.stream)
    shown: tuple[float, VideoFrame] | None = None
    for frame in track.frames():
        at_s = track.seconds(frame)
        if at_s is None:
            continue
        if shown is not None and at_s > time_s + _SAME_FRAME_S:
            break
        shown = at_s, frame
    return shown


def _moments(
    clip: _Clip,
    every_s: float,
    max_moments: int,
    longest: int,
    on_progress: Callable[[], None] | None,
) -> Iterator[Moment]:
    chooser = MomentChooser(every_s=every_s, max_moments=max_moments, duration_s=clip.duration_s)
    pace = Pace(
        every_s=every_s,
        wants_neighbour=lambda: chooser.wants_neighbour,
        on_progress=on_progress or bool,
    )
    least_blank: tuple[float, Moment] | None = None
    last_s = -1.0
    for time_s, frame in walk(clip.track, pace):
        pace.step_s = max(MIN_STEP_S, max(clip.duration_s, time_s) / _MAX_LOOKS)
        look = make_look(frame)
        if time_s > last_s and chooser.choose(look, time_s, clip.progress(time_s)):
            last_s = time_s
            yield Moment(time_s, make_picture(frame, clip.stream.sample_aspect_ratio, longest))
            if chooser.is_full:
                return
        elif not chooser.chosen and (least_blank is None or contrast(look) > least_blank[0]):
            picture = make_picture(frame, clip.stream.sample_aspect_ratio, longest)
            least_blank = contrast(look), Moment(time_s, picture)
    if not chooser.chosen and least_blank:
        yield least_blank[1]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
