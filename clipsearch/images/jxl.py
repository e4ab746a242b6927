"""JPEG XL, through pillow-jxl-plugin where it is installed: the extra ``clipsearch[jxl]``.

The plugin decodes while it opens, so the size is read from the codestream here first.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from clipsearch.images.opened import Limit, Opened, missing_package, unreadable
from clipsearch.images.pillow_formats import open_with_pillow
from clipsearch.images.upright import upright_rgb, upright_size

_BYTES_PER_PIXEL = 16  # libjxl works in floats of three or four channels
# ISO 18181-1, B.2: width as a fraction of the height
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}


def open_jxl(data: bytes, limit: Limit) -> Opened:
    """Reads size and orientation from the header. Its decode gives the first frame."""
    width, height, orientation = _read_header(_codestream(data, limit))
    limit.check(width, height, _BYTES_PER_PIXEL)

    def decode(target_side: int | None) -> Image.Image:
        is_jpeg, info, pixels, icc_profile = _decoded(data, limit)
        if is_jpeg:  # a JPEG packed without loss: its own bytes come back, and its own orientation
            return open_with_pillow("JPEG", pixels, limit).decode(target_side)
        image = _from_pixels(info, pixels)
        if icc_profile:
            image.info["icc_profile"] = bytes(icc_profile)
        return upright_rgb(image, target_side=target_side)  # libjxl has rotated it

    return Opened("JXL", *upright_size(width, height, orientation), decode)


def _decoded(data: bytes, limit: Limit) -> tuple[bool, _Info, bytes, bytes | None]:
    try:
        from pillow_jxl import Decoder
    except ImportError as error:
        raise missing_package(limit, "JPEG XL", "'clipsearch[jxl]'") from error
    try:
        is_jpeg, info, pixels, icc_profile, _ = Decoder(num_threads=0)(data)
    except Exception as error:
        raise unreadable(limit, "damaged or not supported by libjxl") from error
    except BaseException as error:  # a panic of the plugin's Rust code derives from this
        if type(error).__name__ != "PanicException":
            raise
        raise unreadable(limit, f"damaged ({error})") from error
    return is_jpeg, info, pixels, icc_profile


class _Info:
    """What the plugin says about pixels."""

    mode: str
    width: int
    height: int


def _from_pixels(info: _Info, pixels: bytes) -> Image.Image:
    size = (info.width, info.height)
    if info.mode == "F;16":  # Pillow has no half floats
        samples = np.frombuffer(pixels, np.float16).astype(np.float32)
        return Image.fromarray(samples.reshape(info.height, info.width))
    return Image.frombytes(info.mode, size, pixels)


def _codestream(data: bytes, limit: Limit) -> bytes:
    """The first bytes of the codestream, out of its container if it has one (ISO 18181-2)."""
    if data[:2] == b"\xff\x0a":
        return data[:64]
    place = 0
    while place + 8 <= len(data):
        length, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        start = place + 8
        if length == 1:
            length, start = int.from_bytes(data[start : start + 8], "big"), start + 8
        if kind in (b"jxlc", b"jxlp"):
            start += 4 if kind == b"jxlp" else 0  # the number of the part
            return data[start : start + 64]
        if length < 8:
            break
        place += length
    raise unreadable(limit, "damaged: no JPEG XL codestream in it")


class _Bits:
    """Numbers of a JPEG XL header: the lowest bit of each byte comes first."""

    def __init__(self, data: bytes) -> None:
        self._number = int.from_bytes(data, "little")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        if count > self._left:
            raise ValueError("its header is cut off")
        value = self._number & ((1 << count) - 1)
        self._number >>= count
        self._left -= count
        return value


def _read_header(codestream: bytes) -> tuple[int, int, int]:
    """Width, height as stored, and orientation (ISO 18181-1, SizeHeader and ImageMetadata)."""
    bits = _Bits(codestream[2:])
    is_small = bits.take(1)
    height = _side(bits, is_small)
    ratio = bits.take(3)
    if ratio:
        over, under = _RATIOS[ratio]
        width = height * over // under
    else:
        width = _side(bits, is_small)
    orientation = 1
    if not bits.take(1) and bits.take(1):  # not all defaults, and extra fields
        orientation = bits.take(3) + 1
    return width, height, orientation


def _side(bits: _Bits, is_small: int) -> int:
    if is_small:
        return (bits.take(5) + 1) * 8
    return bits.take((9, 13, 18, 30)[bits.take(2)]) + 1
