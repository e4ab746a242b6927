"""TIFF: the directory that holds the picture, read by Pillow, or as floats by ourselves."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

from PIL import Image

from clipsearch.errors import ImageError
from clipsearch.images.deep_samples import FULL_WHITE, with_few_bits
from clipsearch.images.float_tiff import open_float_tiff
from clipsearch.images.opened import Limit, Opened
from clipsearch.images.pillow_formats import read_with_plugin
from clipsearch.images.tiff_directories import (
    BITS,
    ORIENTATION,
    PHOTOMETRIC,
    PROFILE,
    beginning_at,
    directories,
    find_picture,
    with_black_as_zero,
)
from clipsearch.images.upright import upright_rgb, upright_size

_WHITE_IS_ZERO = 0
_PACKED_BITS, _PACKED_WHITE = (12,), 4095  # Pillow widens these with zeros above


def open_tiff(data: bytes, limit: Limit) -> Opened:
    """Reads the header of the full-size picture and checks it. Raises what Pillow raises.

    Where that one is of a kind that cannot be read, the first directory, a smaller copy of it,
    stands for it as a RAW file's preview does.
    """
    first = next(directories(data), None)
    shown = find_picture(data)
    if first is None or shown is None or shown.place == first.place:
        return _open(data, limit)
    limit.check(*shown.size)
    orientation = first.first(ORIENTATION, 1)
    try:
        return _open(
            beginning_at(data, shown.place),
            limit,
            orientation=1 if ORIENTATION in shown.numbers else orientation,
            profile=_profile(data, limit) if PROFILE not in shown.bytes else None,
        )
    except Exception:
        if not first.is_picture:
            raise
        width, height = upright_size(*shown.size, shown.first(ORIENTATION, orientation))
        return replace(_open(data, limit), width=width, height=height)


def _open(
    data: bytes, limit: Limit, *, orientation: int = 1, profile: bytes | None = None
) -> Opened:
    """The first directory's picture; ``orientation`` and ``profile`` where it has none itself."""
    is_negative = False
    try:
        opened = read_with_plugin("TIFF", data, limit)
    except SyntaxError:
        positive = _positive(data)
        if positive is None:
            return open_float_tiff(data, limit)
        data, is_negative = positive, True
        opened = read_with_plugin("TIFF", data, limit)
    if profile is not None:
        opened.info["icc_profile"] = profile
    tags: Any = getattr(opened, "tag_v2", {})
    white = None
    if isinstance(opened.info.get("icc_profile"), bytes):
        white = FULL_WHITE
    elif tags.get(BITS) == _PACKED_BITS:
        white = _PACKED_WHITE
    if tags.get(PHOTOMETRIC) == _WHITE_IS_ZERO and opened.mode.startswith("I;16"):
        is_negative = True
    is_deep = any("16" in str(tile.args) for tile in opened.tile)

    def decode(target_side: int | None) -> Image.Image:
        opened.load()
        image: Image.Image = opened
        if is_deep and white is None:
            image = with_few_bits(opened, lambda: read_with_plugin("TIFF", data, limit))
        return upright_rgb(image, orientation, target_side, white=white, is_negative=is_negative)

    # Pillow has already undone the directory's own orientation.
    return Opened("TIFF", *upright_size(*opened.size, orientation), decode)


def _positive(data: bytes) -> bytes | None:
    """Big-endian samples of 16 bits whose zero is white, which Pillow does not know, as others."""
    first = next(directories(data), None)
    if first is None or first.numbers.get(BITS) != (16,):
        return None
    return with_black_as_zero(data, first)


def _profile(data: bytes, limit: Limit) -> bytes | None:
    """The colour profile of the first directory, which holds for what lies below it, too."""
    found = None
    with suppress(ImageError, SyntaxError, OSError, ValueError, TypeError, KeyError):
        found = read_with_plugin("TIFF", data, limit).info.get("icc_profile")
    return found if isinstance(found, bytes) else None
