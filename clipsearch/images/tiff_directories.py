"""The image file directories of a TIFF, and which of them holds the picture.

After TIFF 6.0, "TIFF Technical Note 1" (1995, SubIFDs), DNG 1.7, and BigTIFF
(www.awaresystems.be/imaging/tiff/bigtiff.html). Stops quietly where a file is damaged.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

NEW_SUBFILE_TYPE, SUBFILE_TYPE, WIDTH, HEIGHT, BITS = 254, 255, 256, 257, 258
COMPRESSION, PHOTOMETRIC, MAKE, ORIENTATION = 259, 262, 271, 274
SUB_DIRECTORIES, PROFILE, DNG_VERSION = 330, 34675, 50706
_READ = {
    *(NEW_SUBFILE_TYPE, SUBFILE_TYPE, WIDTH, HEIGHT, COMPRESSION, PHOTOMETRIC, MAKE, ORIENTATION),
    *(SUB_DIRECTORIES, DNG_VERSION, BITS),
}
_SHORT_BYTES = 2
_REDUCED, _PAGE, _MASK, _DEPTH_MAP = 1, 2, 4, 8  # bits of NEW_SUBFILE_TYPE
_OLD_REDUCED, _OLD_PAGE = 2, 3  # values of SUBFILE_TYPE
_MASKS = {4, 51177, 52527}  # PHOTOMETRIC: transparency mask, depth map, semantic mask
_MAX_DIRECTORIES, _MAX_ENTRIES, _MAX_VALUES = 64, 512, 64  # of hostile files, too
# A first page of at most this many pixels a side, with the same picture at least twice as large
# behind it, is a thumbnail even if nothing says so. Sides may be rounded by a pixel or two.
_THUMBNAIL_SIDE = 512
_LARGER = 2


@dataclass(frozen=True)
class Directory:
    """One picture of the file; ``numbers`` and ``bytes`` are its values by tag.

    ``places`` are where the entries of these tags hold their values, or the place of those.
    """

    place: int
    places: dict[int, int]
    numbers: dict[int, tuple[int, ...]]
    bytes: dict[int, bytes]

    def first(self, tag: int, default: int = -1) -> int:
        numbers = self.numbers.get(tag, ())
        return numbers[0] if numbers else default

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as stored."""
        return self.first(WIDTH, 0), self.first(HEIGHT, 0)

    @property
    def is_picture(self) -> bool:
        """False for masks and depth maps, which go with another directory."""
        kind = self.first(NEW_SUBFILE_TYPE, 0)
        return not kind & (_MASK | _DEPTH_MAP) and self.first(PHOTOMETRIC) not in _MASKS

    @property
    def is_reduced(self) -> bool:
        """True for what calls itself a smaller copy of another directory's picture."""
        if self.first(NEW_SUBFILE_TYPE, 0) & _REDUCED:
            return True
        return NEW_SUBFILE_TYPE not in self.numbers and self.first(SUBFILE_TYPE) == _OLD_REDUCED

    @property
    def is_page(self) -> bool:
        """True for what calls itself a page of a document."""
        return bool(self.first(NEW_SUBFILE_TYPE, 0) & _PAGE) or (
            self.first(SUBFILE_TYPE) == _OLD_PAGE
        )


def directories(data: bytes) -> Iterator[Directory]:
    """The directories in order, each followed by its subdirectories."""
    order = "<" if data[:2] == b"II" else ">"
    layout = _layout(data, order)
    if layout is None:
        return
    count_format, entry, next_format, waiting = layout
    count_bytes, entry_bytes = struct.calcsize(count_format), struct.calcsize(entry)
    next_bytes = struct.calcsize(next_format)
    seen = set[int]()
    while waiting and len(seen) < _MAX_DIRECTORIES:
        place = waiting.pop(0)
        if place in seen or not 8 <= place <= len(data) - count_bytes:
            continue
        seen.add(place)
        count = min(struct.unpack_from(count_format, data, place)[0], _MAX_ENTRIES)
        begin, end = place + count_bytes, place + count_bytes + entry_bytes * count
        places: dict[int, int] = {}
        numbers: dict[int, tuple[int, ...]] = {}
        held: dict[int, bytes] = {}
        for at in range(begin, min(end, len(data) - entry_bytes + 1), entry_bytes):
            tag, kind, length, _ = struct.unpack_from(entry, data, at)
            if tag in _READ:
                places[tag] = at + entry_bytes - next_bytes
                value = (places[tag], kind, min(length, _MAX_VALUES))
                numbers[tag], held[tag] = _value(data, order, next_format, *value)
            elif tag == PROFILE:
                held[tag] = b""  # that there is one
        yield Directory(place, places, numbers, held)
        following = []
        if end + next_bytes <= len(data):
            following = [struct.unpack_from(next_format, data, end)[0]]
        waiting = [*numbers.get(SUB_DIRECTORIES, ()), *following, *waiting]


def find_picture(data: bytes) -> Directory | None:
    """The directory to show: the first that is no reduced copy, mask or depth map.

    Of a file that holds only reduced copies, the largest. None where nothing can be read.
    """
    reduced: list[Directory] = []
    found: Directory | None = None
    for directory in directories(data):
        if not directory.is_picture:
            continue
        if found is not None:
            if _is_enlarged(found, directory):
                return directory
        elif directory.is_reduced:
            reduced.append(directory)
        elif directory.is_page or max(directory.size) > _THUMBNAIL_SIDE:
            return directory
        else:
            found = directory
    return found or max(reduced, key=lambda one: one.size[0] * one.size[1], default=None)


def _is_enlarged(small: Directory, large: Directory) -> bool:
    """Whether a later picture may be the one that a small first one shows."""
    (width, height), (full_width, full_height) = small.size, large.size
    if large.is_reduced or large.is_page or min(width, height) <= 0:
        return False
    if full_width < _LARGER * width or full_height < _LARGER * height:
        return False
    shrink = max(full_width / width, full_height / height)
    return abs(full_width / shrink - width) <= 1.0 and abs(full_height / shrink - height) <= 1.0


def beginning_at(data: bytes, place: int) -> bytes:
    """The same file with another directory as its first."""
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    if _is_big(data):
        return b"".join((data[:8], place.to_bytes(8, order), memoryview(data)[16:]))
    return b"".join((data[:4], place.to_bytes(4, order), memoryview(data)[8:]))


def with_black_as_zero(data: bytes, directory: Directory) -> bytes | None:
    """The same file, a directory's PHOTOMETRIC of 0 (white is zero) made 1; None if it is not 0."""
    if directory.first(PHOTOMETRIC) != 0 or len(directory.bytes[PHOTOMETRIC]) != _SHORT_BYTES:
        return None
    order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
    at = directory.places[PHOTOMETRIC]
    rest = memoryview(data)[at + _SHORT_BYTES :]
    return b"".join((memoryview(data)[:at], (1).to_bytes(_SHORT_BYTES, order), rest))


def _is_big(data: bytes) -> bool:
    return data[2:4] in (b"+\0", b"\0+")


def _layout(data: bytes, order: str) -> tuple[str, str, str, list[int]] | None:
    """Formats of a directory's count, an entry and a place; and where the first directory lies."""
    if _is_big(data) and len(data) >= 16:
        return (
            f"{order}Q",
            f"{order}HHQQ",
            f"{order}Q",
            [struct.unpack_from(f"{order}Q", data, 8)[0]],
        )
    if data[2:4] in (b"*\0", b"\0*") and len(data) >= 8:
        return (
            f"{order}H",
            f"{order}HHII",
            f"{order}I",
            [struct.unpack_from(f"{order}I", data, 4)[0]],
        )
    return None


def _value(
    data: bytes, order: str, place_format: str, at: int, kind: int, length: int
) -> tuple[tuple[int, ...], bytes]:
    letter = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}.get(kind, "B")  # else as bytes
    size = struct.calcsize(order + letter) * length
    if size > struct.calcsize(place_format):  # then the entry holds the place of the value
        at = struct.unpack_from(place_format, data, at)[0]
    held = data[at : at + size]
    if len(held) < size:
        return (), held
    return struct.unpack(f"{order}{length}{letter}", held), held
