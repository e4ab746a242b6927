"""The formats that Pillow reads by itself: JPEG, PNG, WebP, GIF, BMP, AVIF, JPEG 2000, most TIFFs.

Image.open is not used because it applies Pillow's own pixel limit, a global of the process that
other code may rely on, and because it imports every plugin there is.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Iterator
from typing import cast

from PIL import ExifTags, Image, ImageFile

from clipsearch.images.animation import count_gif_frames, load_representative
from clipsearch.images.deep_samples import FULL_WHITE, with_few_bits
from clipsearch.images.opened import Limit, Opened, unreadable
from clipsearch.images.png_bands import can_be_banded, read_bands
from clipsearch.images.upright import reduction, upright_from_bands, upright_rgb, upright_size

PLUGINS = {  # format, as Pillow names it -> the module that registers it in Image.OPEN
    "JPEG": "JpegImagePlugin",
    "PNG": "PngImagePlugin",
    "WEBP": "WebPImagePlugin",
    "GIF": "GifImagePlugin",
    "BMP": "BmpImagePlugin",
    "TIFF": "TiffImagePlugin",
    "AVIF": "AvifImagePlugin",
    "JPEG2000": "Jpeg2KImagePlugin",
}
_ANIMATED = {"PNG", "WEBP", "GIF", "AVIF"}  # the further pictures of a TIFF or MPO are other pages
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # TIFF tags


def open_with_pillow(kind: str, data: bytes, limit: Limit) -> Opened:
    """Reads the header with the plugin of that kind and checks it. Raises what Pillow raises."""
    if kind == "TIFF":
        from clipsearch.images.tiff import open_tiff

        return open_tiff(data, limit)
    opened = read_with_plugin(kind, data, limit)
    frames = 1
    if kind == "GIF":
        frames = count_gif_frames(data)
    elif kind in _ANIMATED:
        frames = getattr(opened, "n_frames", 1)
    orientation = _orientation(opened, kind, data)
    width, height = upright_size(*opened.size, orientation)

    def decode(target_side: int | None) -> Image.Image:
        if frames > 1:
            return upright_rgb(load_representative(opened, frames, limit), orientation, target_side)
        step = reduction(opened.size, target_side)
        if kind == "PNG" and step > 1 and can_be_banded(data):
            bands = read_bands(data, step)
            return upright_from_bands(bands, opened, orientation, target_side)
        is_deep = any("16" in str(tile.args) for tile in opened.tile)
        white = _white(opened, kind, data) if is_deep else None
        _load_reduced(opened, kind, data, target_side)
        image: Image.Image = opened
        if is_deep and white is None:
            image = with_few_bits(opened, lambda: read_with_plugin(kind, data, limit))
        return upright_rgb(image, orientation, target_side, white=white)

    return Opened(opened.format or kind, width, height, decode, frames)


def open_jpeg(data: bytes, limit: Limit) -> tuple[ImageFile.ImageFile, int | None]:
    """A JPEG that lies in another file, header read and checked, and its EXIF orientation if any.

    ``decode_jpeg`` gives its pixels.
    """
    opened = read_with_plugin("JPEG", data, limit)
    value = _exif(opened).get(ExifTags.Base.Orientation)
    return opened, value if isinstance(value, int) else None


def decode_jpeg(
    opened: ImageFile.ImageFile, orientation: int, target_side: int | None
) -> Image.Image:
    """What ``open_jpeg`` opened, upright."""
    _load_reduced(opened, "JPEG", b"", target_side)
    return upright_rgb(opened, orientation, target_side)


def read_with_plugin(kind: str, data: bytes, limit: Limit) -> ImageFile.ImageFile:
    """A picture whose header was read by Pillow's plugin of that kind, and checked."""
    if kind == "WEBP":
        limit.check(*_webp_size(data))  # Pillow's reader takes memory for the pixels at once
    importlib.import_module(f"PIL.{PLUGINS[kind]}")
    factory, accept = Image.OPEN[kind]
    accepted = accept is None or accept(data[:32])
    if isinstance(accepted, str):  # Pillow's way to say that a codec was left out of it
        raise unreadable(limit, f"this Pillow was built without {kind}")
    if not accepted:
        raise unreadable(limit, f"its header is not one of a {kind} picture")
    opened = factory(io.BytesIO(data), limit.name)
    limit.check(*opened.size)
    if kind == "TIFF":
        tags = getattr(opened, "tag_v2", {})  # a tile is decoded whole, however small the picture
        limit.check(int(tags.get(_TILE_WIDTH, 1)), int(tags.get(_TILE_LENGTH, 1)))
    return opened


def _load_reduced(
    opened: ImageFile.ImageFile, kind: str, data: bytes, target_side: int | None
) -> None:
    """Decodes; JPEG and JPEG 2000 at a half, a quarter or an eighth where that is enough."""
    if target_side is not None:
        if kind == "JPEG":
            # draft picks the largest reduction that leaves both sides at least this long
            opened.draft(opened.mode, (2 * target_side, 2 * target_side))
        elif kind == "JPEG2000":
            halvings = (min(opened.size) // (2 * target_side)).bit_length() - 1
            halvings = min(halvings, _wavelet_levels(data))
            cast("_Reducible", opened).reduce = _reducible(opened.size, halvings)
    opened.load()


class _Reducible:
    """The part of Pillow's JPEG 2000 reader that Image's own method of the same name hides."""

    reduce: int


def _reducible(size: tuple[int, int], halvings: int) -> int:
    """The most halvings, up to that many, that Pillow can do.

    It expects the reduced size rounded where OpenJPEG rounds up, and fails where they differ.
    """
    for count in range(halvings, 0, -1):
        if all((side + (1 << count >> 1)) >> count == -(-side >> count) for side in size):
            return count
    return 0


def _wavelet_levels(data: bytes) -> int:
    """How often a JPEG 2000 picture can be halved (ISO 15444-1, annex A: the marker COD)."""
    place = data.find(b"\xff\x4f\xff\x51") + 2
    while 2 <= place <= len(data) - 10 and data[place] == 0xFF:
        if data[place + 1] == 0x52:  # COD: length, style, order, layers (2), transform, levels
            return min(data[place + 9], 32)
        if data[place + 1] == 0x90:  # the first tile: no COD before it
            break
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return 0


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height as the first chunk says (RFC 9649, 2; RFC 6386, 9.1)."""
    chunk = data[12:16]
    if chunk == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        return width, height
    if chunk == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = (int.from_bytes(data[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    return width, height


def _orientation(opened: ImageFile.ImageFile, kind: str, data: bytes) -> int:
    """The EXIF orientation still to be undone."""
    if kind in ("JPEG2000", "BMP"):
        return 1
    if kind == "PNG" and not _may_say_orientation(data):
        return 1  # Pillow would decode a PNG to look for EXIF behind the pixels
    value = _exif(opened).get(ExifTags.Base.Orientation)
    return value if isinstance(value, int) else 1


def _may_say_orientation(png: bytes) -> bool:
    """Whether a PNG holds EXIF, also in ImageMagick's way, or XMP with an orientation."""
    return any(
        kind == b"eXIf"
        or (
            kind in (b"tEXt", b"zTXt", b"iTXt")
            and png.startswith((b"Raw profile type", b"XML:com.adobe.xmp"), place)
        )
        for kind, place in _png_chunks(png)
    )


def _png_chunks(png: bytes) -> Iterator[tuple[bytes, int]]:
    """The kind of each chunk of a PNG, and where its content lies."""
    place = 8
    while place + 8 <= len(png):
        yield png[place + 4 : place + 8], place + 8
        place += 12 + int.from_bytes(png[place : place + 4], "big")


def _white(opened: ImageFile.ImageFile, kind: str, data: bytes) -> int | None:
    """What white is among samples of 16 bits, where the file says how its own use them.

    A colour profile is about all of them. So is a PNG's number of significant bits, the upper ones
    (PNG, 11.3.2.4), and JPEG 2000 samples of fewer bits, which OpenJPEG widens.
    """
    if isinstance(opened.info.get("icc_profile"), bytes):
        return FULL_WHITE
    if kind == "PNG" and any(chunk == b"sBIT" for chunk, _ in _png_chunks(data)):
        return FULL_WHITE
    if kind == "JPEG2000" and _sample_bits(data) < 16:
        return FULL_WHITE
    return None


def _sample_bits(data: bytes) -> int:
    """Of the first channel of a JPEG 2000 picture (ISO 15444-1, annex A: the marker SIZ)."""
    place = data.find(b"\xff\x4f\xff\x51") + 40
    return (data[place] & 0x7F) + 1 if 40 <= place < len(data) else 16


def _exif(opened: Image.Image) -> Image.Exif:
    """The EXIF block, or an empty one: a picture whose EXIF is damaged is still a picture."""
    try:
        return opened.getexif()
    except Exception:
        return Image.Exif()
