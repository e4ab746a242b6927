"""A process that opens files and is expected to die of one now and then.

    python -m indexer.decoder_process

Codecs crash, hang and eat memory on damaged files, and a thread cannot be killed: so pictures and
videos are opened here, under limits of time and memory, and the process that indexes only loses
the one file. It reads requests from stdin and answers on stdout, see ``messages``. Each request
is about the file that was opened last.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from clipsearch.encoders.preprocessing import Preprocessing
from clipsearch.errors import (
    ImageError,
    ImageNotFoundError,
    ImagePackageError,
    ImageUnreadableError,
)
from clipsearch.hashing import hash_content, hash_file, moment_hash
from clipsearch.images import (
    VIDEO_EXTENSIONS,
    read_file,
    read_header,
    read_picture,
    sniff,
)
from clipsearch.process_limits import (
    end_with_parent,
    ignore_signals,
    limit_computing,
    limit_memory,
)
from clipsearch.uniting import Saying
from indexer.fields import PhotoMetadata
from indexer.live_photos import MAX_STILL_BYTES, still_of
from indexer.messages import BrokenMessageError, receive, send
from indexer.metadata import read_metadata
from indexer.showing import give_memory_back, limit_shown_memory, shown_as
from indexer.sidecar_names import Beside
from indexer.sidecar_stamps import read_sidecar
from indexer.sidecars import read_sidecars, saying_of
from indexer.thumbnails import keep_thumbnail, thumbnail_path

if TYPE_CHECKING:
    from indexer.video import VideoFacts

# Seconds of computing for one picture or one moment of a video; a picture gets more by its size.
COMPUTE_S = 10.0
PIXELS_PER_S = 5_000_000
VIDEO_COMPUTE_S = 120.0  # for a whole video, and one more for each of its seconds
_TELL_EVERY_S = 5.0
PICTURE, VIDEO = "picture", "video"
_SNIFFED_BYTES = 64


class Server:
    """Answers requests about one file at a time."""

    def __init__(
        self, requests: IO[bytes], answers: IO[bytes], *, has_full_memory: bool = True
    ) -> None:
        self._requests = requests
        self._answers = answers
        self._path = Path()
        self._data = b""
        self._max_pixels = 0
        self._has_full_memory = has_full_memory

    def run(self) -> None:
        """Answers until the other side closes the stream."""
        actions: dict[str, Callable[..., None]] = {
            "open": self._open,
            "picture": self._picture,
            "video": self._video,
            "describe": self._describe,
            "frame": self._frame,
            "show": self._show,
        }
        while True:
            try:
                request, _ = receive(self._requests)
            except BrokenMessageError:
                return
            try:
                actions[request.pop("do")](**request)
            except ImageError as error:
                reason = str(error).removeprefix(f"{self._path} ")
                # What only lacks a package is tried again at every run, until it is there.
                is_settled = not isinstance(error, ImagePackageError)
                answer = {"status": "failed", "reason": reason, "is_settled": is_settled}
                self._say(answer | {"error": type(error).__name__, "fields": _plain(error.fields)})
            except MemoryError:
                self._data = b""
                give_memory_back()
                reason = "not enough memory to decode it within the limit of this process"
                self._fail(reason, is_settled=self._has_full_memory)
            except OSError as error:  # of the disk, the system's limits: not of the file
                self._fail(error.strerror or str(error), is_settled=False)
            except Exception as error:
                self._fail(f"reading it failed ({type(error).__name__}: {error})", is_settled=True)

    def _fail(self, reason: str, *, is_settled: bool) -> None:
        fields = {"path": str(self._path), "reason": reason}
        answer = {"status": "failed", "reason": reason, "is_settled": is_settled}
        self._say(answer | {"error": ImageUnreadableError.__name__, "fields": fields})

    def _say(self, record: dict[str, Any], attachment: bytes = b"") -> None:
        with contextlib.suppress(ValueError):
            limit_computing(0)
        try:
            send(self._answers, record, attachment)
        except OSError:
            raise SystemExit from None  # nobody listens any more

    def _open(self, path: str, max_pixels: int) -> None:
        """Reads and hashes a file, and says what it is by its header."""
        self._path, self._max_pixels, self._data = Path(path), max_pixels, b""
        try:
            before = _look(self._path)
            kind = _kind(self._path)
            if kind == VIDEO:
                content_hash = hash_file(self._path)
            else:
                self._data = read_file(self._path)
                content_hash = hash_content(self._data)
            if _look(self._path) != before:
                self._say({"status": "left", "reason": "it changed while it was being read"})
                return
        except (FileNotFoundError, ImageNotFoundError):
            self._say({"status": "left", "reason": "it was removed before it could be read"})
            return
        except (ImageError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            reason = str(reason).removeprefix(f"{self._path} ")
            self._say({"status": "unopened", "reason": reason})
            return
        answer = {"status": "open", "file": before, "hash": content_hash, "kind": kind, "pixels": 0}
        if kind != VIDEO:
            limit_computing(COMPUTE_S)
            try:
                header = read_header(self._data, name=str(self._path), max_pixels=max_pixels)
                answer["pixels"] = header.width * header.height
            except ImageError as error:
                answer["failure"] = str(error).removeprefix(f"{self._path} ")
        self._say(answer)

    def _picture(
        self,
        preprocessing: dict[str, Any],
        target_side: int,
        thumbnail: str,
        compute_s: float,
        sidecars: list[list[str]],
    ) -> None:
        """Decodes the picture: what the model sees, a thumbnail, and what is said about it."""
        limit_computing(compute_s)
        image, facts = read_picture(
            self._data,
            name=str(self._path),
            max_pixels=self._max_pixels,
            target_side=target_side,
        )
        pixels = Preprocessing(**_tuples(preprocessing)).apply(image)
        keep_thumbnail(image, Path(thumbnail))
        answer = {
            "status": "picture",
            "width": facts.width,
            "height": facts.height,
            "format": facts.format,
            "bytes": len(self._data),
            "shape": list(pixels.shape),
            "described": self._described(saying_of(read_metadata(self._data)), sidecars),
        }
        self._data = b""
        self._say(answer, np.ascontiguousarray(pixels).tobytes())

    def _video(
        self,
        content_hash: str,
        preprocessing: dict[str, Any],
        target_side: int,
        thumbnails: str,
        sidecars: list[list[str]],
    ) -> None:
        """Decodes the video's moments, one message each, and at the end what is said about it."""
        from indexer import video

        facts, about = self._about_video()
        moments: Iterator[video.Moment] = iter(())
        if "live_photo" not in about:
            moments = video.read_moments(
                self._path,
                max_pixels=self._max_pixels,
                target_side=target_side,
                on_progress=self._progress(VIDEO_COMPUTE_S + facts.duration_s),
            )
        apply = Preprocessing(**_tuples(preprocessing)).apply
        for moment in moments:
            pixels = np.ascontiguousarray(apply(moment.image))
            name = moment_hash(content_hash, moment.time_s)
            keep_thumbnail(moment.image, thumbnail_path(Path(thumbnails), name))
            self._say(
                {"status": "moment", "time_s": moment.time_s, "shape": list(pixels.shape)},
                pixels.tobytes(),
            )
            limit_computing(COMPUTE_S)
        self._say(
            {
                "status": "video",
                "width": facts.width,
                "height": facts.height,
                "format": facts.format,
                "bytes": self._path.stat().st_size,
                "described": self._described(about, sidecars),
            }
        )

    def _begin_of(self, name: str) -> bytes:
        """Of a file beside the opened one; nothing of one that cannot be read or is no file."""
        path = self._path.parent / name
        with contextlib.suppress(OSError):
            if path.is_file():
                with path.open("rb") as file:
                    return file.read(MAX_STILL_BYTES)
        return b""

    def _frame(
        self, path: str, max_pixels: int, time_s: float, target_side: int, shown: dict[str, int]
    ) -> None:
        """Decodes the frame of a video at a time, as ``showing.shown_as`` gives it."""
        from indexer import video

        self._path = Path(path)
        limit_shown_memory()
        limit_computing(COMPUTE_S)
        image = video.read_frame(self._path, time_s, max_pixels=max_pixels, target_side=target_side)
        self._say(*shown_as(image, shown))
        del image
        give_memory_back()

    def _show(
        self,
        path: str,
        max_pixels: int,
        target_side: int,
        shown: dict[str, int],
        content_hash: str | None,
        at_once: int,
    ) -> None:
        """Decodes a picture for people, as ``showing.shown_as`` gives it.

        Says ``large`` and leaves it where it has more than ``at_once`` pixels. With a
        ``content_hash`` the file is refused if it is another by now.
        """
        self._path = Path(path)
        limit_shown_memory()
        data = read_file(self._path)
        if content_hash is not None and hash_content(data) != content_hash:
            reason = "it is not the file that was indexed any more"
            raise ImageUnreadableError(path=path, reason=reason)
        limit_computing(COMPUTE_S)
        header = read_header(data, name=path, max_pixels=max_pixels)
        pixels = header.width * header.height
        if pixels > at_once:
            self._say({"status": "large"})
            return
        limit_computing(COMPUTE_S + pixels / PIXELS_PER_S)
        image, _ = read_picture(data, name=path, max_pixels=max_pixels, target_side=target_side)
        del data
        self._say(*shown_as(image, shown))
        del image
        give_memory_back()

    def _progress(self, most_s: float) -> Callable[[], None]:
        """What a video calls as it goes on: its limit is for one step, and one for all of it."""
        begun_s = time.process_time()
        told_at = time.monotonic()

        def progress() -> None:
            nonlocal told_at
            if time.process_time() - begun_s > most_s:
                reason = f"it took too much computing (more than {most_s:.0f} s)"
                raise ImageUnreadableError(path=self._path, reason=reason)
            if time.monotonic() - told_at > _TELL_EVERY_S:
                told_at = time.monotonic()
                self._say({"status": "progress"})
            limit_computing(COMPUTE_S)

        return progress

    def _describe(self, sidecars: list[list[str]]) -> None:
        """Says what the file and its sidecars say in words, without decoding a pixel."""
        limit_computing(COMPUTE_S)
        if self._data:
            own: Saying = saying_of(read_metadata(self._data))
        else:
            _, own = self._about_video()
        self._data = b""
        self._say({"status": "described", "described": self._described(own, sidecars)})

    def _about_video(self) -> tuple[VideoFacts, Saying]:
        """The facts of the video that was opened, and what they say for people."""
        from indexer import video

        limit_computing(COMPUTE_S)
        facts = video.read_facts(self._path, max_pixels=self._max_pixels)
        still = still_of(
            self._path.name,
            format_name=facts.format,
            duration_s=facts.duration_s,
            identifier=facts.content_identifier,
            names=[entry.name for entry in os.scandir(self._path.parent)],
            read=self._begin_of,
        )
        about = saying_of(
            PhotoMetadata(
                taken_at=facts.taken_at,
                is_in_utc=facts.is_in_utc,
                make=facts.make,
                model=facts.model,
                latitude=facts.latitude,
                longitude=facts.longitude,
            )
        )
        about |= {"duration_s": round(facts.duration_s, 3), "codec": facts.codec}
        if still is not None:
            about |= {"live_photo": True, "live_photo_of": still}
        return facts, about

    def _described(self, own: Saying, sidecars: list[list[str]]) -> dict[str, Any]:
        """What the file says itself, and by name what each of its sidecars says."""
        beside = [Beside(name, role) for name, role in sidecars]
        contents = {name: read_sidecar(self._path.parent / name) for name, _ in beside}
        read = read_sidecars(own, self._path.name, beside, contents)
        return {
            "own": own,
            "sidecars": [
                [one.name, one.said.as_record(), one.failure, one.is_settled] for one in read
            ],
        }


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """What an error says, for JSON."""
    return {
        name: value if isinstance(value, (int, float)) else str(value)
        for name, value in fields.items()
    }


def _look(path: Path) -> list[int]:
    """Size, modification time and inode."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ino]


def _kind(path: Path) -> str:
    """Whether a file is to be opened as a picture or as a video, by its first bytes."""
    if not path.is_file():
        return PICTURE  # opening a named pipe would wait for ever; reading it says what it is
    with path.open("rb") as file:
        found = sniff(file.read(_SNIFFED_BYTES))
    if found:
        return VIDEO if found == VIDEO else PICTURE
    return VIDEO if path.suffix.lower() in VIDEO_EXTENSIONS else PICTURE


def _tuples(preprocessing: dict[str, Any]) -> dict[str, Any]:
    """JSON has no tuples, and the dataclass wants them."""
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in preprocessing.items()
    }


def preprocessing_record(preprocessing: Preprocessing) -> dict[str, Any]:
    """What ``Server`` makes a Preprocessing of again."""
    return asdict(preprocessing)


def main() -> None:
    ignore_signals()
    end_with_parent(sys.stdin.fileno())
    has_full_memory = limit_memory(int(sys.argv[1]))
    # Codecs print to stdout: keep the answers on a descriptor that they do not know.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    send(answers, {"status": "ready"})
    Server(sys.stdin.buffer, answers, has_full_memory=has_full_memory).run()


if __name__ == "__main__":
    main()
