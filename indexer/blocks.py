"""Where picture files keep their EXIF, XMP and IPTC: the containers, walked block by block.

Decoders stop at the first damage and open only what they can decode; metadata of a truncated
photo, or of a RAW file, is good all the same. Nothing here looks into a block: it is cut out by the
sizes that the container gives, and each walk is bounded, whatever the sizes say.
"""

from __future__ import annotations

import importlib
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from indexer.exif import ExifBlock, is_tiff

MAX_XMP_BYTES = 4 * 2**20  # and of an EXIF item; larger ones carry depth maps and edits
_MAX_STEPS = 20_000  # segments, chunks or boxes of one file
_XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_EXIF_UUID = b"JpgTiffExif->JP2"
_IPTC_UUID = bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38")
_CANON_UUID = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48")
_JPEG_XMP, _JPEG_XMP_MORE = (
    b"http://ns.adobe.com/xap/1.0/\0",
    b"http://ns.adobe.com/xmp/extension/\0",
)
_PNG_XMP = b"XML:com.adobe.xmp\0"
_PNG_PROFILE = b"Raw profile type "
_PACKET = re.compile(rb"<x:xmpmeta\b.*?</x:xmpmeta>", re.DOTALL)
_IPTC_RESOURCE, _EXIF_RESOURCE, _XMP_RESOURCE = 0x0404, 0x0422, 0x0424


@dataclass
class Blocks:
    """The blocks of one file, in its order; XMP as bytes of XML, IPTC as bytes of IIM."""

    exif: list[ExifBlock] = field(default_factory=list)
    xmp: list[bytes] = field(default_factory=list)
    iptc: list[bytes] = field(default_factory=list)

    def add_exif(self, data: bytes) -> None:
        """Adds a TIFF block, with or without the name that JPEG puts before it."""
        data = data.removeprefix(b"Exif\0\0").removeprefix(b"Exif\0")
        if is_tiff(data):
            self.exif.append(ExifBlock(data))

    def add_xmp(self, data: bytes) -> None:
        if 0 < len(data) <= MAX_XMP_BYTES:
            self.xmp.append(data)

    def add_iptc(self, data: bytes) -> None:
        if data:
            self.iptc.append(data)

    def add_resources(self, data: bytes) -> None:
        """Adds what Photoshop's image resources hold."""
        for number, resource in _resources(data):
            if number == _IPTC_RESOURCE:
                self.add_iptc(resource)
            elif number == _EXIF_RESOURCE:
                self.add_exif(resource)
            elif number == _XMP_RESOURCE:
                self.add_xmp(resource)


def find_blocks(data: bytes) -> Blocks:
    """Cuts the blocks out of a picture file, which is known by its first bytes."""
    found = Blocks()
    if data.startswith(b"\xff\xd8"):
        _walk_jpeg(data, found)
    elif data.startswith(b"\x89PNG\r\n\x1a\n"):
        _walk_png(data, found)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        _walk_webp(data, found)
    elif data.startswith((b"GIF87a", b"GIF89a")):
        _find_packet(data, found)
    elif data.startswith(b"8BPS"):
        _walk_psd(data, found)
    elif data.startswith(b"FUJIFILMCCD-RAW"):
        offset, size = struct.unpack(">2L", data[84:92].ljust(8, b"\0"))
        _walk_jpeg(data[offset : offset + size], found)  # its preview holds the metadata
    elif is_tiff(data):
        found.add_exif(data)
    elif data[4:8] in (b"ftyp", b"jP  ", b"JXL "):
        _walk_boxes(data, found)
    return found


def _walk_jpeg(data: bytes, found: Blocks) -> None:
    """APP1 holds EXIF and XMP, APP13 IPTC. Where a size is wrong the next marker is looked for."""
    exif, resources, extended = bytearray(), bytearray(), {}
    place = 2
    for _ in range(_MAX_STEPS):
        place = data.find(b"\xff", place)
        if place < 0 or place + 4 > len(data):
            break
        marker = data[place + 1]
        if marker in (0xDA, 0xD9):  # the picture itself, or its end
            break
        size = int.from_bytes(data[place + 2 : place + 4], "big")
        if not 0xC0 <= marker <= 0xFE or 0xD0 <= marker <= 0xD8 or size < 2:
            place += 1
            continue
        body = data[place + 4 : place + 2 + size]
        if marker == 0xE1 and body.startswith(b"Exif\0"):
            if not exif or not is_tiff(body[6:]):  # more than 64 KiB are split
                exif += body[6:]
        elif marker == 0xE1 and body.startswith(_JPEG_XMP):
            found.add_xmp(body[len(_JPEG_XMP) :])
        elif marker == 0xE1 and body.startswith(_JPEG_XMP_MORE):
            rest = body[len(_JPEG_XMP_MORE) :]
            extended[(rest[:32], rest[36:40])] = rest[40:]  # digest and offset
        elif marker == 0xED and body.startswith(b"Photoshop 3.0\0"):
            resources += body[len(b"Photoshop 3.0\0") :]
        following = place + 2 + size
        is_next = data[following : following + 1] == b"\xff" or following >= len(data)
        place = following if is_next else place + 2
    found.add_exif(bytes(exif))
    found.add_resources(bytes(resources))
    for digest in dict.fromkeys(digest for digest, _ in extended):
        found.add_xmp(b"".join(part for key, part in sorted(extended.items()) if key[0] == digest))


def _walk_png(data: bytes, found: Blocks) -> None:
    place = 8
    for _ in range(_MAX_STEPS):
        if place + 8 > len(data):
            return
        size, kind = struct.unpack(">L4s", data[place : place + 8])
        body = data[place + 8 : place + 8 + size]
        if kind == b"eXIf":
            found.add_exif(body)
        elif kind == b"iTXt" and body.startswith(_PNG_XMP):
            compressed, rest = body[len(_PNG_XMP) : len(_PNG_XMP) + 1], body[len(_PNG_XMP) + 2 :]
            text = rest.split(b"\0", 2)[-1]  # after language and translated keyword
            found.add_xmp(_inflated(text) if compressed == b"\1" else text)
        elif kind in (b"tEXt", b"zTXt") and body.startswith(_PNG_PROFILE):
            name, _, text = body[len(_PNG_PROFILE) :].partition(b"\0")
            _add_profile(name, _inflated(text[1:]) if kind == b"zTXt" else text, found)
        place += 12 + size


def _add_profile(name: bytes, text: bytes, found: Blocks) -> None:
    """A block as ImageMagick writes it into PNG: its name, its size, and hexadecimal digits."""
    try:
        data = bytes.fromhex(text.split(b"\n", 3)[3].decode("ascii"))
    except (IndexError, ValueError):
        return
    if name == b"xmp" or data.startswith(_JPEG_XMP):
        found.add_xmp(data.removeprefix(_JPEG_XMP))
    elif name == b"iptc" and not data.startswith(b"8BIM"):
        found.add_iptc(data)
    elif name in (b"iptc", b"8bim"):
        found.add_resources(data)
    else:
        found.add_exif(data)


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, MAX_XMP_BYTES)
    except zlib.error:
        return b""


def _walk_webp(data: bytes, found: Blocks) -> None:
    place = 12
    for _ in range(_MAX_STEPS):
        if place + 8 > len(data):
            return
        kind, size = struct.unpack("<4sL", data[place : place + 8])
        if kind == b"EXIF":
            found.add_exif(data[place + 8 : place + 8 + size])
        elif kind == b"XMP ":
            found.add_xmp(data[place + 8 : place + 8 + size])
        place += 8 + size + size % 2


def _find_packet(data: bytes, found: Blocks) -> None:
    """GIF: XMP stands unescaped in an application extension."""
    start = data.find(b"XMP DataXMP")
    if start >= 0 and (packet := _PACKET.search(data, start, start + MAX_XMP_BYTES)):
        found.add_xmp(packet[0])


def _walk_psd(data: bytes, found: Blocks) -> None:
    """Header, colour table, image resources."""
    place = 26
    place += 4 + int.from_bytes(data[place : place + 4], "big")
    size = int.from_bytes(data[place : place + 4], "big")
    found.add_resources(data[place + 4 : place + 4 + size])


def _resources(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Photoshop's image resources: number and content."""
    place = 0
    for _ in range(_MAX_STEPS):
        if data[place : place + 4] not in (b"8BIM", b"8BPS", b"PHUT", b"AgHg", b"DCSR", b"MeSa"):
            return
        number = int.from_bytes(data[place + 4 : place + 6], "big")
        named = place + 6
        name_size = 1 + (data[named] if named < len(data) else 0)
        place = named + name_size + name_size % 2
        size = int.from_bytes(data[place : place + 4], "big")
        place += 4
        yield number, data[place : place + size]
        place += size + size % 2


def _walk_boxes(data: bytes, found: Blocks) -> None:
    """The boxes of HEIC, AVIF, JPEG XL, JPEG 2000 and CR3 (ISO 14496-12)."""
    for kind, start, end in _boxes(data, 0, len(data)):
        if kind == b"meta":
            _walk_items(data, start + 4, end, found)
        elif kind == b"Exif":  # JPEG XL: four bytes say where the TIFF begins
            _add_offset_exif(data[start:end], found)
        elif kind == b"xml ":
            found.add_xmp(data[start:end])
        elif kind == b"brob":
            _add_brotli(data[start : start + 4], data[start + 4 : end], found)
        elif kind == b"moov":
            for inner, start_inner, end_inner in _boxes(data, start, end):
                if inner == b"uuid":
                    _add_uuid(data, start_inner, end_inner, found)
        elif kind == b"uuid":
            _add_uuid(data, start, end, found)


def _boxes(data: bytes, place: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of the content of each box between two places."""
    for _ in range(_MAX_STEPS):
        if place + 8 > end:
            return
        size, kind = struct.unpack(">L4s", data[place : place + 8])
        header = 8
        if size == 1:
            size, header = int.from_bytes(data[place + 8 : place + 16], "big"), 16
        following = end if size == 0 else place + size
        if following < place + header:
            return
        yield kind, place + header, min(following, end)
        place = following


def _add_uuid(data: bytes, start: int, end: int, found: Blocks) -> None:
    name, content = data[start : start + 16], start + 16
    if name == _XMP_UUID:
        found.add_xmp(data[content:end])
    elif name == _EXIF_UUID:
        found.add_exif(data[content:end])
    elif name == _IPTC_UUID:
        found.add_iptc(data[content:end])
    elif name == _CANON_UUID:
        parts = {kind: data[first:last] for kind, first, last in _boxes(data, content, end)}
        if is_tiff(parts.get(b"CMT1", b"")):
            found.exif.append(
                ExifBlock(parts[b"CMT1"], parts.get(b"CMT2", b""), parts.get(b"CMT4", b""))
            )


def _add_offset_exif(data: bytes, found: Blocks) -> None:
    """EXIF with the offset of its TIFF before it; some writers count it wrongly."""
    offset = int.from_bytes(data[:4], "big")
    for start in (4 + offset, 4, 0, 10):
        if is_tiff(data[start:]):
            found.add_exif(data[start:])
            return


def _add_brotli(kind: bytes, data: bytes, found: Blocks) -> None:
    """A compressed box of JPEG XL; left alone where brotli is not installed."""
    try:
        reader = importlib.import_module("brotli").Decompressor()
        content = bytes(reader.process(data, output_buffer_limit=MAX_XMP_BYTES))
    except Exception:  # not installed, an older release without the limit, or damaged
        return
    if kind == b"Exif":
        _add_offset_exif(content, found)
    elif kind == b"xml ":
        found.add_xmp(content)


def _walk_items(data: bytes, start: int, end: int, found: Blocks) -> None:
    """The items of a HEIC or AVIF file: EXIF, and XMP as XML (ISO 23008-12)."""
    parts = {kind: (first, last) for kind, first, last in _boxes(data, start, end)}
    if b"iinf" not in parts or b"iloc" not in parts:
        return
    wanted = dict(_metadata_items(data, *parts[b"iinf"]))
    inline = parts.get(b"idat", (0, 0))[0]
    try:
        for item, extents in _locations(data, *parts[b"iloc"], inline):
            if item not in wanted:
                continue
            content = bytearray()
            for place, size in extents:  # damaged ones may name the whole file many times
                content += data[place : place + min(size, MAX_XMP_BYTES - len(content))]
            if wanted[item] == b"Exif":
                _add_offset_exif(bytes(content), found)
            else:
                found.add_xmp(bytes(content))
    except (struct.error, IndexError, OverflowError):
        return  # a truncated table


def _metadata_items(data: bytes, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Number and kind of the items that hold metadata."""
    counted = 2 if data[start : start + 1] == b"\0" else 4
    for kind, first, last in _boxes(data, start + 4 + counted, end):
        version = data[first] if first < last else 0
        if kind != b"infe" or version < 2:
            continue
        width = 2 if version == 2 else 4
        item = int.from_bytes(data[first + 4 : first + 4 + width], "big")
        body = data[first + 6 + width : last]
        if body[:4] == b"Exif" or (body[:4] == b"mime" and b"application/rdf+xml" in body[:256]):
            yield item, body[:4]


class _Reader:
    """Big-endian numbers one after the other; struct.error past the end."""

    def __init__(self, data: bytes, place: int, end: int) -> None:
        self._data, self._place, self._end = data, place, end

    def number(self, width: int) -> int:
        if self._place + width > self._end:
            raise struct.error("past the end")
        self._place += width
        return int.from_bytes(self._data[self._place - width : self._place], "big")


def _locations(
    data: bytes, start: int, end: int, inline: int
) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Each item's number and where in the file its parts lie: place and size."""
    reader = _Reader(data, start, end)
    version = reader.number(4) >> 24
    widths = reader.number(2)
    offset_width, length_width, base_width, index_width = (
        widths >> shift & 15 for shift in (12, 8, 4, 0)
    )
    count = reader.number(2 if version < 2 else 4)
    left = _MAX_STEPS
    for _ in range(min(count, _MAX_STEPS)):
        item = reader.number(2 if version < 2 else 4)
        method = reader.number(2) & 15 if version in (1, 2) else 0
        reader.number(2)
        base = reader.number(base_width) + (inline if method == 1 else 0)
        extents = []
        for _ in range(reader.number(2)):
            if version in (1, 2):
                reader.number(index_width)
            offset, size = reader.number(offset_width), reader.number(length_width)
            left -= 1
            if left < 0:
                return
            extents.append((base + offset, size or len(data)))
        if method in (0, 1):
            yield item, extents
