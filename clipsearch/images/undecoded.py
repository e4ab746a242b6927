"""What a decoded picture no longer tells: how many pages its file has, and what shines through."""

from __future__ import annotations

import io
import struct

from PIL import Image

_MOST_PAGES = 1000
_REDUCED = 1  # bit 0 of NewSubfileType (TIFF 6.0, tag 254): a smaller copy of another page
_NEW_SUBFILE_TYPE = 254


def count_pages(data: bytes) -> int:
    """Pages of a TIFF that are no reduced copies of others; 1 for every other file.

    Counts at most 1,000, and ends where the file is damaged.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or struct.unpack_from(f"{order}H", data, 2)[0] != 42:
        return 1
    pages, seen = 0, set[int]()
    try:
        (place,) = struct.unpack_from(f"{order}I", data, 4)
        while place and place not in seen and len(seen) < _MOST_PAGES:
            seen.add(place)
            (count,) = struct.unpack_from(f"{order}H", data, place)
            kind = 0
            for entry in range(place + 2, place + 2 + 12 * min(count, 4), 12):
                tag, _, _, value = struct.unpack_from(f"{order}HHII", data, entry)
                kind = value if tag == _NEW_SUBFILE_TYPE else kind
            pages += not kind & _REDUCED
            (place,) = struct.unpack_from(f"{order}I", data, place + 2 + 12 * count)
    except struct.error:
        pass
    return max(1, pages)


def transparency(data: bytes, size: tuple[int, int]) -> Image.Image | None:
    """How opaque a PNG, WebP or GIF is, at ``size``, mode L; None if it is so wholly, or unknown.

    For pictures that were decoded under their limits before: this decodes them once more.
    """
    if not _may_be_transparent(data):
        return None
    with Image.open(io.BytesIO(data), formats=("PNG", "WEBP", "GIF")) as opened:
        if not opened.has_transparency_data:
            return None
        alpha = opened.convert("RGBA").getchannel("A")
    return None if alpha.getextrema()[0] == 255 else alpha.resize(size, Image.Resampling.BOX)


def _may_be_transparent(data: bytes) -> bool:
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return data[25:26] in (b"\x04", b"\x06") or b"tRNS" in data[:65536]
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        is_extended = data[12:16] == b"VP8X"
        return data[12:16] == b"VP8L" or (is_extended and bool(data[20] & 0x10))
    return data[:4] == b"GIF8"
