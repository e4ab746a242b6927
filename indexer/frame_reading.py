"""One frame of a video for who shows it: decoded in a process that may die of it."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from clipsearch.errors import ImageNotFoundError, ImageUnreadableError
from indexer.decoders import DECODE_S, DecoderDiedError, DecoderPool


class FrameReader:
    """Reads frames, one at a time; the process is started at the first."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._decoders = DecoderPool(1, max_pixels)
        self._decoders.start()

    def read(self, path: Path, time_s: float, *, target_side: int) -> Image.Image:
        """The frame at a time, upright RGB, its longer side at most max(2 * target_side, 640).

        Raises ImageNotFoundError or ImageUnreadableError.
        """
        if not path.exists():
            raise ImageNotFoundError(path=path)
        request = {"do": "frame", "path": str(path), "max_pixels": self._max_pixels}
        request |= {"time_s": time_s, "target_side": target_side}
        with self._decoders.borrow() as decoder:
            try:
                answer, rows = decoder.ask(request, DECODE_S)
            except DecoderDiedError as error:
                raise ImageUnreadableError(path=path, reason=str(error)) from error
        if answer["status"] != "frame":
            raise ImageUnreadableError(path=path, reason=answer["reason"])
        width, height = answer["size"]
        return Image.frombytes("RGB", (width, height), rows)
