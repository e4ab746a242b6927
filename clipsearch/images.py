"""Bytes to upright RGB pictures under a pixel limit, and thumbnails.

This is the only place that opens pictures. They are recognised by their content, not their name.
The size is read from the header and checked before a pixel is decoded, so a decompression bomb
costs nothing. Whatever Pillow raises leaves here as an ``ImageError`` that names the file.
"""

from __future__ import annotations

import io
import stat
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    ExifTags,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from clipsearch.errors import (
    ImageEmptyError,
    ImageError,
    ImageNotFoundError,
    ImageTooLargeError,
    ImageUnreadableError,
)

EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
)
DEFAULT_MAX_PIXELS = 200_000_000
MAX_FILE_BYTES = 2**30  # a picture is read whole; 200 million pixels of 5 bytes fit
THUMBNAIL_SIDE = 320

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_PLUGINS = (  # importing them registers the formats in Image.OPEN
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
    GifImagePlugin,
    BmpImagePlugin,
    TiffImagePlugin,
)
_PREFIX_BYTES = 16  # what Pillow's own format tests look at
_UPRIGHT = {  # EXIF orientation -> what makes the picture upright (Exif 2.32, tag 0x0112)
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_THUMBNAIL_QUALITY = 75
_THUMBNAIL_EFFORT = 0  # WebP method 0: three times as fast as the default, 10 % larger


@dataclass(frozen=True)
class Metadata:
    """What a picture says about itself. ``width`` and ``height`` are of the upright original."""

    width: int
    height: int
    format: str  # as Pillow names it: JPEG, PNG, WEBP, GIF, BMP, TIFF, MPO
    taken_at: str | None  # ISO 8601, with the camera's offset where it wrote one
    make: str | None
    model: str | None


def load_image(
    path: Path, *, max_pixels: int = DEFAULT_MAX_PIXELS, target_side: int | None = None
) -> Image.Image:
    """Opens a picture file as upright RGB; the first frame of an animated one.

    Transparency is laid on white, 16-bit samples are scaled to 8. With ``target_side`` a JPEG may
    come back smaller by 2, 4 or 8, its shorter side still at least twice that many pixels, which
    decodes several times faster. Raises ImageNotFoundError, ImageEmptyError, ImageTooLargeError
    (from the header, before decoding) or ImageUnreadableError.
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
    """The picture as ``decode_image`` gives it, and what it says about itself."""
    if not data:
        raise ImageEmptyError(path=name)
    try:
        opened = _open(data, name)
        width, height = opened.size
        if width * height > max_pixels:
            raise ImageTooLargeError(path=name, pixels=width * height, max_pixels=max_pixels)
        if target_side is not None:
            # draft picks the largest reduction that leaves both sides at least this long
            opened.draft(opened.mode, (2 * target_side, 2 * target_side))
        opened.load()
        return _upright_rgb(opened), _metadata(opened, width, height)
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageUnreadableError(path=name, reason="not enough memory to decode it") from error
    except Exception as error:  # damaged files make Pillow raise nearly anything
        reason = str(error).strip() or type(error).__name__
        raise ImageUnreadableError(
            path=name, reason=f"damaged or not supported ({reason})"
        ) from error


def read_file(path: Path) -> bytes:
    """Reads a whole regular file of at most MAX_FILE_BYTES; ImageError says why it cannot."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait for ever
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise ImageUnreadableError(path=path, reason=f"it is {kind}")
        if status.st_size > MAX_FILE_BYTES:
            reason = f"{status.st_size:,} bytes, over the limit of {MAX_FILE_BYTES:,}"
            raise ImageUnreadableError(path=path, reason=reason)
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImageNotFoundError(path=path) from error
    except MemoryError as error:
        raise ImageUnreadableError(path=path, reason="not enough memory to read it") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageUnreadableError(path=path, reason=reason) from error


def make_thumbnail(image: Image.Image, side: int = THUMBNAIL_SIDE) -> bytes:
    """Encodes an RGB picture as WebP, its longer side at most ``side`` pixels, without metadata."""
    small = image.copy() if max(image.size) <= 2 * side else image.reduce(_whole_steps(image, side))
    small.thumbnail((side, side), Image.Resampling.BILINEAR)
    small.info = {}
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=_THUMBNAIL_QUALITY, method=_THUMBNAIL_EFFORT)
    return buffer.getvalue()


def _whole_steps(image: Image.Image, side: int) -> tuple[int, int]:
    """The box average that is cheap to take before the fine resize; keeps twice ``side``."""
    steps = max(image.size) // (2 * side)
    return min(steps, image.width), min(steps, image.height)


def _open(data: bytes, name: str) -> ImageFile.ImageFile:
    """Reads the header with the plugin that recognises the bytes.

    Image.open is not used because it applies Pillow's own pixel limit, a global of the process
    that other code may rely on.
    """
    for format_name in _FORMATS:
        factory, accept = Image.OPEN[format_name]
        if accept is not None and accept(data[:_PREFIX_BYTES]) is True:
            return factory(io.BytesIO(data), name)
    raise ImageUnreadableError(path=name, reason=f"it is {_kind_of(data)}")


def _kind_of(data: bytes) -> str:
    if data[4:8] == b"ftyp":
        brand = data[8:12].decode("ascii", "replace").strip()
        return f"an HEIC, AVIF or video file ('{brand}'), which is not supported"
    if not data.strip(b"\0"):
        return "nothing but zero bytes"
    return "not a JPEG, PNG, WebP, GIF, BMP or TIFF picture"


def _upright_rgb(opened: Image.Image) -> Image.Image:
    """Turns a decoded picture upright, then flattens it to plain RGB without metadata."""
    orientation = _orientation(opened)
    image = _flattened(opened)
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    image.info = {}  # a place or a serial number must not travel into what is made of it
    return image


def _orientation(opened: Image.Image) -> int:
    """The EXIF orientation still to be undone; Pillow has already undone that of a TIFF."""
    if opened.format == "TIFF":
        return 1
    value = _exif(opened).get(ExifTags.Base.Orientation)
    return value if isinstance(value, int) else 1


def _flattened(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return _from_samples(np.asarray(image, dtype=np.float32) / np.float32(257))
    if image.mode in ("I", "F"):
        return _from_samples(_stretched(np.asarray(image, dtype=np.float32)))
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        paper = Image.new("RGB", image.size, "white")
        paper.paste(colours, mask=colours.getchannel("A"))
        return paper
    return image if image.mode == "RGB" else image.convert("RGB")


def _stretched(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scales 32-bit integers or floats to 0..255 by the smallest usual range that holds them.

    Such files do not say what white is: 1.0, 255 and 65535 are the customs; anything else, or
    anything negative (heights, temperatures), is stretched from its least to its greatest value.
    """
    samples = np.nan_to_num(samples, posinf=0.0, neginf=0.0)
    low, high = float(samples.min()), float(samples.max())
    if low >= 0:
        for white in (1.0, 255.0, 65535.0):
            if high <= white:
                return samples * np.float32(255.0 / white)
    return (samples - np.float32(low)) * np.float32(255.0 / (high - low or 1.0))


def _from_samples(samples: NDArray[np.float32]) -> Image.Image:
    grey = np.clip(np.rint(samples), 0, 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _metadata(opened: Image.Image, width: int, height: int) -> Metadata:
    """Width and height as the header gave them, before any draft."""
    exif = _exif(opened)
    if _orientation(opened) >= 5:
        width, height = height, width
    return Metadata(
        width=width,
        height=height,
        format=opened.format or "",
        taken_at=_taken_at(opened),
        make=_text(exif.get(ExifTags.Base.Make)),
        model=_text(exif.get(ExifTags.Base.Model)),
    )


def _exif(opened: Image.Image) -> Image.Exif:
    """The EXIF block, or an empty one: a picture whose EXIF is damaged is still a picture."""
    try:
        return opened.getexif()
    except Exception:
        return Image.Exif()


def _taken_at(opened: Image.Image) -> str | None:
    try:
        details = opened.getexif().get_ifd(ExifTags.IFD.Exif)
    except Exception:  # damaged, as above
        return None
    for date_tag, offset_tag in (
        (ExifTags.Base.DateTimeOriginal, ExifTags.Base.OffsetTimeOriginal),
        (ExifTags.Base.DateTimeDigitized, ExifTags.Base.OffsetTimeDigitized),
    ):
        date = _text(details.get(date_tag)) or ""
        offset = _text(details.get(offset_tag)) or ""
        for text, pattern in ((date + offset, "%Y:%m:%d %H:%M:%S%z"), (date, "%Y:%m:%d %H:%M:%S")):
            try:
                return datetime.strptime(text, pattern).isoformat()
            except ValueError:
                continue  # no offset, or cameras' "0000:00:00 00:00:00"
    return None


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return None
    return "".join(letter for letter in value if letter.isprintable()).strip()[:200] or None
