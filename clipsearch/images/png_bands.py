"""Large PNGs a few rows at a time: Pillow holds a picture whole, at four bytes a pixel."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

from PIL import Image, PngImagePlugin

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BYTES_PER_PIXEL = {2: 3, 6: 4}  # colour type -> bytes, at 8 bits a sample (PNG, 11.2.1)
_BAND_BYTES = 16 << 20
_INFLATE_BYTES = 4 << 20


def can_be_banded(png: bytes) -> bool:
    """True for plain rows of 8-bit RGB or RGBA, which is what photos are stored as."""
    depth, colour, _, _, interlace = png[24:29]
    return depth == 8 and colour in _BYTES_PER_PIXEL and interlace == 0


def read_bands(png: bytes, step: int) -> Iterator[Image.Image]:
    """All rows of the picture, from the top, in bands of a multiple of ``step`` rows but the last.

    A row is stored as its difference to the one above, so each band is decoded below the last row
    of the band before. Raises ValueError for rows that are missing or damaged.
    """
    width, height = struct.unpack(">II", png[16:24])
    row_bytes = width * _BYTES_PER_PIXEL[png[25]]
    rows_at_once = max(1, _BAND_BYTES // row_bytes // step) * step
    rows = _rows(png, (1 + row_bytes) * rows_at_once, (1 + row_bytes) * height)
    above = b""
    for start in range(0, height, rows_at_once):
        count = min(rows_at_once, height - start)
        filtered = next(rows, b"")
        if len(filtered) != count * (1 + row_bytes):
            raise ValueError("its rows end too early")
        band = _decoded(png, width, above, filtered, row_bytes)
        above = b"\0" + band.crop((0, band.height - 1, width, band.height)).tobytes()
        yield band.crop((0, band.height - count, width, band.height))


def _decoded(png: bytes, width: int, above: bytes, filtered: bytes, row_bytes: int) -> Image.Image:
    """The rows as a small PNG of their own, without compression, for Pillow to decode."""
    count = (len(above) + len(filtered)) // (1 + row_bytes)
    header = struct.pack(">II", width, count) + png[24:29]
    body = zlib.compress(above + filtered, 0)
    small = _SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")
    image = PngImagePlugin.PngImageFile(io.BytesIO(small))
    image.load()
    return image


def _rows(png: bytes, size: int, most: int) -> Iterator[bytes]:
    """The inflated rows, so many bytes at a time, the last time what is left; at most ``most``."""
    inflate = zlib.decompressobj()
    kept, left = bytearray(), most
    for data in _data_chunks(png):
        rest: bytes = data
        while left and (rest or inflate.unconsumed_tail):
            try:
                found = inflate.decompress(rest, min(_INFLATE_BYTES, left))
            except zlib.error as error:
                raise ValueError(f"its rows are damaged ({error})") from error
            rest = inflate.unconsumed_tail
            left -= len(found)
            kept += found
            while len(kept) >= size:
                yield bytes(kept[:size])
                del kept[:size]
            if not found and not rest:
                break
    if kept:
        yield bytes(kept)


def _data_chunks(png: bytes) -> Iterator[bytes]:
    place = len(_SIGNATURE)
    while place + 8 <= len(png):
        length, kind = struct.unpack(">I4s", png[place : place + 8])
        if kind == b"IDAT":
            end = place + 8 + length
            data, check = png[place + 8 : end], png[end : end + 4]
            if zlib.crc32(kind + data) != int.from_bytes(check, "big"):
                raise ValueError("its rows are damaged: their check sum is another")
            yield data
        if kind == b"IEND":
            return
        place += 12 + length


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
