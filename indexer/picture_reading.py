"""One picture or frame of a video for who shows it: decoded in a process that may die of it."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Any

from PIL import Image

from clipsearch import errors
from clipsearch.errors import ImageError, ImageNotFoundError, ImageUnreadableError
from indexer.decoder_process import PIXELS_PER_S
from indexer.decoders import DECODE_S, DecoderDiedError, DecoderPool

_AT_ONCE = 2
_LARGE_PIXELS = 24_000_000  # a picture of more is decoded while no other is
_MOST_SIDE = 8_192  # of what ``read`` returns
_NO_LIMIT = 2**62


class PictureReader:
    """Reads for a page that many people may look at; processes start when they are needed.

    However many ask at once, _AT_ONCE pictures are decoded, or one large one.
    """

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._decoders = DecoderPool(_AT_ONCE, max_pixels)
        self._decoders.start()
        self._places = threading.Semaphore(_AT_ONCE)
        self._gathering = threading.Lock()  # of two large ones each could wait for the other

    def close(self) -> None:
        """Ends the processes."""
        self._decoders.stop()

    def read(self, path: Path, *, target_side: int) -> Image.Image:
        """What ``clipsearch.images.load_image`` gives, and its errors; at most _MOST_SIDE long."""
        shown = {"side": _MOST_SIDE}
        answer, rows = self._show(path, None, {"target_side": target_side, "shown": shown})
        return Image.frombytes("RGB", tuple(answer["size"]), rows)

    def encode(
        self, path: Path, *, content_hash: str, side: int, quality: int, target_side: int
    ) -> bytes:
        """The picture upright as a JPEG of at most ``side`` pixels a side, without metadata.

        Raises ImageNotFoundError or another ImageError, also where the file's content is not that
        of ``content_hash``.
        """
        shown = {"side": side, "quality": quality}
        request = {"target_side": target_side, "shown": shown}
        return self._show(path, content_hash, request)[1]

    def encode_frame(
        self, path: Path, time_s: float, *, side: int, quality: int, target_side: int
    ) -> bytes:
        """The frame at a time, as ``encode`` gives a picture."""
        shown = {"side": side, "quality": quality}
        request = {"do": "frame", "time_s": time_s, "target_side": target_side, "shown": shown}
        with self._places:
            return self._ask(path, request)[1]

    def _show(
        self, path: Path, content_hash: str | None, request: dict[str, Any]
    ) -> tuple[dict[str, Any], bytes]:
        request |= {"content_hash": content_hash}
        with self._places:
            answer, data = self._ask(path, {"do": "show", "at_once": _LARGE_PIXELS, **request})
        if answer["status"] != "large":
            return answer, data
        with contextlib.ExitStack() as alone:
            with self._gathering:
                for _ in range(_AT_ONCE):
                    alone.enter_context(self._places)
            most = {"do": "show", "at_once": _NO_LIMIT, **request}
            return self._ask(path, most, DECODE_S + self._max_pixels / PIXELS_PER_S)

    def _ask(
        self, path: Path, request: dict[str, Any], timeout_s: float = DECODE_S
    ) -> tuple[dict[str, Any], bytes]:
        if not path.exists():
            raise ImageNotFoundError(path=path)
        request |= {"path": str(path), "max_pixels": self._max_pixels}
        try:
            answer, data = self._answer(request, timeout_s)
        except DecoderDiedError as error:
            raise ImageUnreadableError(path=path, reason=str(error)) from error
        if answer["status"] == "failed":
            raise _as_it_was(path, answer)
        return answer, data

    def _answer(self, request: dict[str, Any], timeout_s: float) -> tuple[dict[str, Any], bytes]:
        """A decoder's, asked once more where something else than the file ended the first."""
        with self._decoders.borrow() as decoder:
            try:
                return decoder.ask(request, timeout_s)
            except DecoderDiedError as error:
                if error.by_the_file or decoder.is_closed:
                    raise
                return decoder.ask(request, timeout_s)


def _as_it_was(path: Path, answer: dict[str, Any]) -> ImageError:
    """The error that was raised in the decoder."""
    kind = getattr(errors, answer.get("error", ""), None)
    if isinstance(kind, type) and issubclass(kind, ImageError):
        return kind(**answer["fields"])
    return ImageUnreadableError(path=path, reason=answer["reason"])
