"""From a file or its bytes to a picture: opens, checks the limit, decodes, and names what fails."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from clipsearch.errors import (
    ImageEmptyError,
    ImageError,
    ImageNotFoundError,
    ImageUnreadableError,
)
from clipsearch.images import pillow_formats
from clipsearch.images.kinds import RAW_KINDS, identify
from clipsearch.images.opened import DEFAULT_MAX_PIXELS, Limit, Opened, unreadable

_ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-fA-F]+>")
MAX_FILE_BYTES = 2**30  # a picture is read whole; 200 million pixels of 5 bytes fit


@dataclass(frozen=True)
class Header:
    """What the first bytes of a picture say; width and height are of the upright original."""

    width: int
    height: int
    format: str  # JPEG, MPO, PNG, WEBP, GIF, BMP, TIFF, HEIC, AVIF, JXL, JPEG2000, PSD, CR2, NEF...


@dataclass(frozen=True)
class Metadata:
    """What was seen while a picture was decoded. Width and height as in ``Header``.

    ``frames`` is above 1 for an animated picture. Of a GIF at most 1,000 are counted.
    """

    width: int
    height: int
    format: str
    frames: int = 1


def load_image(
    path: Path, *, max_pixels: int = DEFAULT_MAX_PIXELS, target_side: int | None = None
) -> Image.Image:
    """Opens a picture file as upright sRGB; one frame of an animated one that stands for it.

    Transparency is laid on white, 16-bit samples are scaled to 8, colour profiles are converted.
    With ``target_side`` the picture may come back smaller, its shorter side still at least twice
    that many pixels, where that saves time. Raises ImageNotFoundError, ImageEmptyError,
    ImageTooLargeError (from the header, before decoding) or ImageUnreadableError.
    """
    return decode_image(
        read_file(path), name=str(path), max_pixels=max_pixels, target_side=target_side
    )


def decode_image(
    data: bytes,
    *,
    name: str,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    target_side: int | None = None,
) -> Image.Image:
    """``load_image`` from a file's bytes; errors call it ``name``."""
    return read_picture(data, name=name, max_pixels=max_pixels, target_side=target_side)[0]


def read_picture(
    data: bytes,
    *,
    name: str,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    target_side: int | None = None,
) -> tuple[Image.Image, Metadata]:
    """The picture as ``decode_image`` gives it, and what was seen on the way."""
    with _named_failures(name):
        opened = _open(data, Limit(name, max_pixels))
        image = opened.decode(target_side)
        return image, Metadata(opened.width, opened.height, opened.format, opened.frames)


def read_header(data: bytes, *, name: str, max_pixels: int = DEFAULT_MAX_PIXELS) -> Header:
    """Size and format without decoding a pixel; the same errors as ``read_picture``.

    It says how much work and memory the picture will be, and refuses what is over the limit.
    (A PNG that carries an orientation is the exception: Pillow decodes it to find that.)
    """
    with _named_failures(name):
        opened = _open(data, Limit(name, max_pixels))
        return Header(opened.width, opened.height, opened.format)


def read_file(path: Path) -> bytes:
    """Reads a whole regular file of at most MAX_FILE_BYTES; ImageError says why it cannot."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait for ever
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise ImageUnreadableError(path=path, reason=f"it is {kind}")
        if status.st_size > MAX_FILE_BYTES:
            limit = f"{MAX_FILE_BYTES >> 30} GiB"
            reason = f"it has {status.st_size:,} bytes, over the limit of {limit}"
            raise ImageUnreadableError(path=path, reason=reason)
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImageNotFoundError(path=path) from error
    except MemoryError as error:
        raise ImageUnreadableError(path=path, reason="not enough memory to read it") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageUnreadableError(path=path, reason=reason) from error


@contextmanager
def _named_failures(name: str) -> Iterator[None]:
    """Turns whatever the readers raise into an ImageError that names the file."""
    try:
        yield
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageUnreadableError(path=name, reason="not enough memory to decode it") from error
    except Exception as error:  # damaged files make the readers raise nearly anything
        reason = _words(error)
        raise ImageUnreadableError(
            path=name, reason=f"damaged or not supported ({reason})"
        ) from error


def _words(error: Exception) -> str:
    first = error.args[0] if error.args else ""
    text = first.decode("utf-8", "replace") if isinstance(first, bytes) else str(error)
    text = _ADDRESS.sub("", text)  # it differs from run to run and says nothing
    return " ".join(text.split()) or type(error).__name__


def _open(data: bytes, limit: Limit) -> Opened:
    """Reads the header with the reader of what the bytes are."""
    if not data:
        raise ImageEmptyError(path=limit.name)
    kind = identify(data, limit.name)
    if kind in pillow_formats.PLUGINS:
        return pillow_formats.open_with_pillow(kind, data, limit)
    # imported with the first file of their kind: a search for words meets none of them
    if kind == "HEIC":
        from clipsearch.images.heif import open_heif

        return open_heif(data, limit)
    if kind == "JXL":
        from clipsearch.images.jxl import open_jxl

        return open_jxl(data, limit)
    if kind == "PSD":
        from clipsearch.images.psd import open_psd

        return open_psd(data, limit)
    if kind in RAW_KINDS:
        from clipsearch.images.raw import open_raw

        return open_raw(kind, data, limit)
    raise unreadable(limit, f"it is {_what_else(kind, data)}")


def _what_else(kind: str, data: bytes) -> str:
    if kind == "video":
        return "a video"
    if not data.strip(b"\0"):
        return "nothing but zero bytes"
    return "not a JPEG, PNG, HEIC or any other kind of picture that can be read"
