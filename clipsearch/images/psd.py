"""Photoshop documents (PSD and PSB): the merged picture that lies behind the layers.

Read here rather than by Pillow 12, which takes neither 16 bits nor PSB, shifts the channels of some
compressed files, takes a saved selection for transparency, and shows Photoshop's note that there is
no merged picture as if it were one. After Adobe's "Photoshop File Formats Specification" (2019).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from clipsearch.images.opened import Limit, Opened, unreadable
from clipsearch.images.pillow_formats import decode_jpeg, open_jpeg
from clipsearch.images.upright import upright_rgb

_BITMAP, _GREY, _INDEXED, _RGB, _CMYK, _MULTICHANNEL, _DUOTONE, _LAB = 0, 1, 2, 3, 4, 7, 8, 9
_MODES = {
    _BITMAP: "1",
    _GREY: "L",
    _INDEXED: "P",
    _RGB: "RGB",
    _CMYK: "CMYK",
    _MULTICHANNEL: "L",
    _DUOTONE: "L",
    _LAB: "LAB",
}
_DEPTHS = (1, 8, 16, 32)
# Numbers of image resources.
_ALPHA_NAMES, _THUMBNAIL, _ICC_PROFILE, _TRANSPARENT_INDEX, _VERSION_INFO = (
    1006,
    1036,
    1039,
    1047,
    1057,
)
_THUMBNAIL_HEADER = 28
# Tagged blocks that say the merged picture has transparency, where the layers are in a block too.
_TRANSPARENCY_BLOCKS = (b"8BIMMtrn", b"8BIMMt16", b"8BIMMt32")
_RAW, _RLE = 0, 1


@dataclass(frozen=True)
class _Document:
    data: bytes
    is_large: bool  # PSB: counts have twice the bytes
    channels: int
    width: int
    height: int
    depth: int
    mode: int
    palette: bytes
    resources: dict[int, bytes]
    has_transparency: bool
    pixels_at: int


def open_psd(data: bytes, limit: Limit) -> Opened:
    """Reads the header and checks it; struct.error or ImageError where it is damaged."""
    document = _read(data, limit)
    version_info = document.resources.get(_VERSION_INFO, b"")
    is_merged = len(version_info) < 5 or version_info[4] != 0

    def decode(target_side: int | None) -> Image.Image:
        if is_merged:
            return upright_rgb(_merged(document, limit), target_side=target_side)
        thumbnail = document.resources.get(_THUMBNAIL, b"")[_THUMBNAIL_HEADER:]
        if not thumbnail:
            raise unreadable(
                limit,
                "it holds layers and no merged picture. Save it again in Photoshop with "
                "Maximize Compatibility",
            )
        return decode_jpeg(open_jpeg(thumbnail, limit)[0], 1, target_side)

    return Opened("PSD", document.width, document.height, decode)


def _read(data: bytes, limit: Limit) -> _Document:
    version, channels, height, width, depth, mode = struct.unpack_from(">4xH6xHIIHH", data)
    limit.check(width, height)
    if version not in (1, 2) or mode not in _MODES or depth not in _DEPTHS:
        raise unreadable(
            limit, f"a kind of PSD that is not supported ({version=}, {mode=}, {depth} bits)"
        )
    is_large = version == 2
    place = 26
    (length,) = struct.unpack_from(">I", data, place)
    palette = data[place + 4 : place + 4 + length]
    place += 4 + length
    (length,) = struct.unpack_from(">I", data, place)
    resources = dict(_resources(data[place + 4 : place + 4 + length]))
    place += 4 + length
    (length,) = struct.unpack_from(">Q" if is_large else ">I", data, place)
    place += 8 if is_large else 4
    layers = data[place : place + length]
    return _Document(
        data=data,
        is_large=is_large,
        channels=channels,
        width=width,
        height=height,
        depth=depth,
        mode=mode,
        palette=palette,
        resources=resources,
        has_transparency=_has_transparency(layers, is_large, resources),
        pixels_at=place + length,
    )


def _resources(block: bytes) -> Iterator[tuple[int, bytes]]:
    place = 0
    while block[place : place + 4] == b"8BIM" and place + 12 <= len(block):
        (number,) = struct.unpack_from(">H", block, place + 4)
        place += 6 + (block[place + 6] + 2) // 2 * 2  # a name, padded to an even length
        if place + 4 > len(block):
            return
        (length,) = struct.unpack_from(">I", block, place)
        yield number, block[place + 4 : place + 4 + length]
        place += 4 + (length + 1) // 2 * 2


def _has_transparency(layers: bytes, is_large: bool, resources: dict[int, bytes]) -> bool:
    """Whether the channel after the colours is transparency rather than a saved selection.

    A negative number of layers says so. Other programs write no layers at all; a selection has a
    name.
    """
    if not layers:
        return _ALPHA_NAMES not in resources
    place = 8 if is_large else 4
    count = int.from_bytes(layers[place : place + 2], "big", signed=True)
    return count < 0 or any(block in layers for block in _TRANSPARENCY_BLOCKS)


def _merged(document: _Document, limit: Limit) -> Image.Image:
    mode = _MODES[document.mode]
    bands = 1 if mode in ("1", "P") else len(Image.new(mode, (1, 1)).getbands())
    wanted = bands + (document.has_transparency and mode in ("L", "RGB"))
    if document.channels < bands:
        raise unreadable(limit, f"it lacks channels (it has {document.channels} of {bands})")
    planes = list(_planes(document, min(wanted, document.channels), limit))
    if mode == "1":
        size = (document.width, document.height)
        image = Image.frombytes("1", size, planes[0].tobytes(), "raw", "1;I")
    elif mode == "P":
        image = planes[0]
        image.putpalette(document.palette[:768], "RGB;L")
        clear = document.resources.get(_TRANSPARENT_INDEX, b"")
        if len(clear) >= 2:
            image.info["transparency"] = min(int.from_bytes(clear[:2], "big"), 255)
    else:
        if mode == "CMYK":
            planes = [plane.point(range(255, -1, -1)) for plane in planes]
        name = mode if len(planes) == bands else {"L": "LA", "RGB": "RGBA"}[mode]
        image = Image.merge(name, planes)
    if _ICC_PROFILE in document.resources and document.depth < 32:  # that one is for linear light
        image.info["icc_profile"] = document.resources[_ICC_PROFILE]
    return image


def _planes(document: _Document, wanted: int, limit: Limit) -> Iterator[Image.Image]:
    """Each channel as 8 bits; packed rows of a bitmap stay packed."""
    row_bytes = (document.width * document.depth + 7) // 8
    size = (row_bytes, document.height)
    data, place = document.data, document.pixels_at + 2
    compression = int.from_bytes(data[document.pixels_at : place], "big")
    if compression not in (_RAW, _RLE):
        raise unreadable(
            limit, f"its merged picture is compressed in an unknown way ({compression})"
        )
    counts = np.empty(0, dtype=np.int64)
    if compression == _RLE:
        kind = np.dtype(">u4" if document.is_large else ">u2")
        rows = document.channels * document.height
        counts = np.frombuffer(data, kind, rows, place).astype(np.int64)
        place += rows * kind.itemsize
    for channel in range(wanted):
        if compression == _RLE:
            first = channel * document.height
            length = int(counts[first : first + document.height].sum())
            packed = data[place : place + length]
            plane = Image.frombytes("L", size, packed, "packbits", "L")
        else:
            length = row_bytes * document.height
            plane = Image.frombytes("L", size, data[place : place + length])
        place += length
        if document.depth == 16:  # big-endian: the first byte of two is what 8 bits keep
            plane = Image.fromarray(np.ascontiguousarray(np.asarray(plane)[:, ::2]))
        elif document.depth == 32:
            plane = _from_linear_light(plane)
        yield plane


def _from_linear_light(plane: Image.Image) -> Image.Image:
    """Floats of 0 to 1 and beyond, proportional to light, as 8 bits with a gamma of 2.2."""
    light = np.frombuffer(plane.tobytes(), ">f4").reshape(plane.height, plane.width // 4)
    light = np.clip(np.nan_to_num(light), 0.0, 1.0)
    return Image.fromarray(np.rint(255.0 * light ** (1 / 2.2)).astype(np.uint8))
