"""A picture whose header was read and checked, and whose pixels were not touched yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from clipsearch.errors import ImagePackageError, ImageTooLargeError, ImageUnreadableError

DEFAULT_MAX_PIXELS = 200_000_000
_USUAL_BYTES = 8  # a pixel; what 16 bits of four channels take, and 8 bits with a copy of them


@dataclass(frozen=True)
class Limit:
    """How large the picture ``name`` may be, in pixels of one frame."""

    name: str
    max_pixels: int

    def check(self, width: int, height: int, bytes_per_pixel: int = _USUAL_BYTES) -> None:
        """ImageTooLargeError over the limit, ImageUnreadableError over its memory or at no pixels.

        A format whose decoder takes more than eight bytes for a pixel gets fewer pixels.
        """
        pixels = width * height
        if width <= 0 or height <= 0:
            raise ImageUnreadableError(
                path=self.name, reason=f"its header says it has no pixels ({width} x {height})"
            )
        if pixels > self.max_pixels:
            raise ImageTooLargeError(path=self.name, pixels=pixels, max_pixels=self.max_pixels)
        if pixels * bytes_per_pixel > self.max_pixels * _USUAL_BYTES:
            needed = -(-pixels * bytes_per_pixel // _USUAL_BYTES)
            reason = (
                f"decoding it takes {pixels * bytes_per_pixel:,} bytes, over the limit of "
                f"{self.max_pixels * _USUAL_BYTES:,} bytes. If you trust it, raise the limit: "
                f"--max-pixels {needed}"
            )
            raise ImageUnreadableError(path=self.name, reason=reason)


@dataclass(frozen=True)
class Opened:
    """``width`` and ``height`` are of the upright original.

    ``decode`` takes the ``target_side`` of ``load_image`` and returns plain upright RGB. It may
    raise anything: ``reading`` turns that into an ImageError.
    """

    format: str
    width: int
    height: int
    decode: Callable[[int | None], Image.Image]
    frames: int = 1


def unreadable(limit: Limit, reason: str) -> ImageUnreadableError:
    """The error that names the file and says why."""
    return ImageUnreadableError(path=limit.name, reason=reason)


def missing_package(limit: Limit, kind: str, package: str) -> ImagePackageError:
    """The error for a format whose package is not installed; ``package`` is what to give to pip."""
    return ImagePackageError(path=limit.name, kind=kind, package=package)
