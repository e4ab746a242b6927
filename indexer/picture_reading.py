"""One picture or frame of a video for who shows it: decoded in a process that may die of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from clipsearch import errors
from clipsearch.errors import ImageError, ImageNotFoundError, ImageUnreadableError
from indexer.decoders import DECODE_S, DecoderDiedError, DecoderPool

_AT_ONCE = 2


class PictureReader:
    """Reads for a page that many people may look at; processes start when they are needed."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._decoders = DecoderPool(_AT_ONCE, max_pixels)
        self._decoders.start()

    def close(self) -> None:
        """Ends the processes."""
        self._decoders.stop()

    def read(self, path: Path, *, target_side: int | None = None) -> Image.Image:
        """What ``clipsearch.images.load_image`` gives, and its errors."""
        return self._ask(path, {"do": "show", "target_side": target_side})

    def read_frame(self, path: Path, time_s: float, *, target_side: int) -> Image.Image:
        """The frame at a time, upright RGB, its longer side at most max(2 * target_side, 640).

        Raises ImageNotFoundError or another ImageError.
        """
        return self._ask(path, {"do": "frame", "time_s": time_s, "target_side": target_side})

    def _ask(self, path: Path, request: dict[str, Any]) -> Image.Image:
        if not path.exists():
            raise ImageNotFoundError(path=path)
        request |= {"path": str(path), "max_pixels": self._max_pixels}
        try:
            answer, rows = self._answer(request)
        except DecoderDiedError as error:
            raise ImageUnreadableError(path=path, reason=str(error)) from error
        if answer["status"] == "failed":
            raise _as_it_was(path, answer)
        return Image.frombytes("RGB", tuple(answer["size"]), rows)

    def _answer(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """A decoder's, asked once more where something else than the file ended the first."""
        with self._decoders.borrow() as decoder:
            try:
                return decoder.ask(request, DECODE_S)
            except DecoderDiedError as error:
                if error.by_the_file or decoder.is_closed:
                    raise
                return decoder.ask(request, DECODE_S)


def _as_it_was(path: Path, answer: dict[str, Any]) -> ImageError:
    """The error that was raised in the decoder."""
    kind = getattr(errors, answer.get("error", ""), None)
    if isinstance(kind, type) and issubclass(kind, ImageError):
        return kind(**answer["fields"])
    return ImageUnreadableError(path=path, reason=answer["reason"])
