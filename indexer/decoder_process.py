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
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from clipsearch.encoders.preprocessing import Preprocessing
from clipsearch.errors import (
    ImageError,
    ImageNotFoundError,
    ImagePackageError,
    ImageUnreadableError,
)
from clipsearch.hashing import hash_content, hash_file, moment_hash
from clipsearch.images import (
    THUMBNAIL_SUFFIX,
    VIDEO_EXTENSIONS,
    make_thumbnail,
    read_file,
    read_header,
    read_picture,
    sniff,
)
from indexer.fields import PhotoMetadata
from indexer.messages import BrokenMessageError, receive, send
from indexer.metadata import read_metadata
from indexer.sidecars import MAX_SIDECAR_BYTES, describe

# Seconds of computing for one picture or one moment of a video; a picture gets more by its size.
COMPUTE_S = 10.0
PIXELS_PER_S = 5_000_000
VIDEO_COMPUTE_S = 120.0  # for a whole video, and one more for each of its seconds
_TELL_EVERY_S = 5.0
PICTURE, VIDEO = "picture", "video"
_SNIFFED_BYTES = 64
# Address space beyond what the largest allowed picture takes.
_MEMORY_BYTES = 3 << 30
_BYTES_PER_PIXEL = 16  # decoded, flattened, turned and reduced, some of it at the same time


class Server:
    """Answers requests about one file at a time."""

    def __init__(self, requests: IO[bytes], answers: IO[bytes]) -> None:
        self._requests = requests
        self._answers = answers
        self._path = Path()
        self._data = b""
        self._max_pixels = 0

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
                reason = "not enough memory to decode it within the limit of this process"
                self._say({"status": "failed", "reason": reason, "is_settled": True})

    def _say(self, record: dict[str, Any], attachment: bytes = b"") -> None:
        with contextlib.suppress(ValueError):
            limit_computing(0)
        send(self._answers, record, attachment)

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
        sidecars: list[str],
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
            "described": self._described(read_metadata(self._data), sidecars),
        }
        self._data = b""
        self._say(answer, np.ascontiguousarray(pixels).tobytes())

    def _video(
        self,
        content_hash: str,
        preprocessing: dict[str, Any],
        target_side: int,
        thumbnails: str,
        sidecars: list[str],
    ) -> None:
        """Decodes the video's moments, one message each, and at the end what is said about it."""
        from indexer import video

        limit_computing(COMPUTE_S)
        facts = video.read_facts(self._path, max_pixels=self._max_pixels)
        names = [entry.name for entry in os.scandir(self._path.parent)]
        is_live = video.is_live_photo_pair(facts, names, self._path.name)
        moments: Iterator[video.Moment] = iter(())
        if not is_live:
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
        about = PhotoMetadata(
            taken_at=facts.taken_at,
            is_in_utc=facts.is_in_utc,
            make=facts.make,
            model=facts.model,
            latitude=facts.latitude,
            longitude=facts.longitude,
        )
        described = self._described(about, sidecars)
        described["metadata"] |= {"duration_s": round(facts.duration_s, 3), "codec": facts.codec}
        if is_live:
            described["metadata"]["live_photo"] = True
        self._say(
            {
                "status": "video",
                "width": facts.width,
                "height": facts.height,
                "format": facts.format,
                "bytes": self._path.stat().st_size,
                "described": described,
            }
        )

    def _frame(self, path: str, max_pixels: int, time_s: float, target_side: int) -> None:
        """Decodes the frame of a video at a time, as rows of RGB."""
        from indexer import video

        self._path = Path(path)
        limit_computing(COMPUTE_S)
        image = video.read_frame(self._path, time_s, max_pixels=max_pixels, target_side=target_side)
        self._say({"status": "frame", "size": list(image.size)}, image.tobytes())

    def _show(self, path: str, max_pixels: int, target_side: int | None) -> None:
        """Decodes a picture for people, as rows of RGB."""
        self._path = Path(path)
        data = read_file(self._path)
        limit_computing(COMPUTE_S)
        header = read_header(data, name=path, max_pixels=max_pixels)
        limit_computing(COMPUTE_S + header.width * header.height / PIXELS_PER_S)
        image, _ = read_picture(data, name=path, max_pixels=max_pixels, target_side=target_side)
        self._say({"status": "frame", "size": list(image.size)}, image.tobytes())

    def _progress(self, most_s: float) -> Callable[[], None]:
        """What a video calls as it goes on: its limit is for one step, and one for all of it."""
        begun_s = time.process_time()
        told_at = time.monotonic()

        def progress() -> None:
            nonlocal told_at
            if time.process_time() - begun_s > most_s:
                reason = f"it took more than {most_s:.0f} s of computing"
                raise ImageUnreadableError(path=self._path, reason=reason)
            if time.monotonic() - told_at > _TELL_EVERY_S:
                told_at = time.monotonic()
                self._say({"status": "progress"})
            limit_computing(COMPUTE_S)

        return progress

    def _describe(self, sidecars: list[str]) -> None:
        """Says what the file and its sidecars say in words, without decoding a pixel."""
        limit_computing(COMPUTE_S)
        described = self._described(read_metadata(self._data), sidecars)
        self._data = b""
        self._say({"status": "described", "described": described})

    def _described(self, embedded: PhotoMetadata, sidecars: list[str]) -> dict[str, Any]:
        contents = {}
        for name in sidecars:
            with contextlib.suppress(OSError), (self._path.parent / name).open("rb") as file:
                contents[name] = file.read(MAX_SIDECAR_BYTES + 1)
        said = describe(embedded, contents)
        return {
            "taken_at": said.metadata.date,
            "metadata": said.metadata.facts(),
            "tags": [[keyword.name, keyword.origin] for keyword in said.keywords],
            "captions": [[caption.text, caption.source] for caption in said.captions],
        }


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """What an error says, for JSON."""
    return {
        name: value if isinstance(value, (int, float)) else str(value)
        for name, value in fields.items()
    }


def thumbnail_path(folder: Path, content_hash: str) -> Path:
    """Where the thumbnail of a content lies below ``thumbs``."""
    return folder / content_hash[:2] / f"{content_hash}{THUMBNAIL_SUFFIX}"


def keep_thumbnail(image: Image.Image, destination: Path) -> None:
    """Saves a thumbnail; a full or read-only disk is met when the library is written."""
    if destination.exists():
        return
    written = destination.with_name(f"{destination.stem}.{os.getpid()}.tmp")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with open(written, "wb", opener=_private) as file:
            file.write(make_thumbnail(image))
        written.replace(destination)
    except OSError:
        return  # thumbnails are a cache: they can be made again from the photo


def _private(path: str, flags: int) -> int:
    """Opens a file that only its owner may read: it shows what a photo shows."""
    return os.open(path, flags, 0o600)


def limit_computing(seconds: float) -> None:
    """Has the operating system end this process after so much computing; 0 lifts the limit.

    Computing, not time: a laptop that sleeps or a machine that is busy does not fail a photo.
    Where there is no such limit (Windows) the pool's own limit of time has to do.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def limit_memory(max_pixels: int) -> None:
    """Makes allocations beyond the limit fail, so that a bomb is a MemoryError and not a crash."""
    try:
        import resource
    except ImportError:  # Windows
        return
    wanted = _MEMORY_BYTES + _BYTES_PER_PIXEL * max_pixels
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))


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
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that indexes
    limit_memory(int(sys.argv[1]))
    # Codecs print to stdout: keep the answers on a descriptor that they do not know.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    Server(sys.stdin.buffer, answers).run()


if __name__ == "__main__":
    main()
