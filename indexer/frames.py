"""A decoded video frame to a picture as it is shown, and to the small look that scenes compare.

Frames are av's; this module calls their methods and imports nothing of it.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from indexer.scenes import LOOK_HEIGHT, LOOK_WIDTH, Look

Frame = Any  # av.VideoFrame, which only video.py may name

# The display matrix's a, b, c, d (libavutil/display.h) -> what makes the picture upright.
_UPRIGHT = {
    (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
    (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
    (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
    (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
    (0, 1, -1, 0): Image.Transpose.ROTATE_270,
    (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
    (0, -1, 1, 0): Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)
_PQ = 16  # SMPTE ST 2084, the curve of HDR10 (ITU-T H.273, table 3)
_UNSPECIFIED = 2  # colour matrix, likewise table 4
_HD_HEIGHT = 720  # from here on players take an unspecified matrix for BT.709
_WHITE_NITS = 203.0  # ITU-R BT.2408: the white of a page in HDR
_PEAK_NITS = 1000.0
_2020_TO_709 = np.array(  # ITU-R BT.2087, linear light
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    dtype=np.float32,
)


def shown_size(frame: Frame, pixel_ratio: Fraction | None) -> tuple[int, int]:
    """Width and height as players show it: upright, and with square pixels."""
    width, height = frame.width, frame.height
    if pixel_ratio and Fraction(1, 10) <= pixel_ratio <= 10:
        if pixel_ratio > 1:
            width = round(width * pixel_ratio)
        else:
            height = round(height / pixel_ratio)
    return (height, width) if _orientation(frame) in _SIDEWAYS else (width, height)


def make_picture(frame: Frame, pixel_ratio: Fraction | None, longest: int) -> Image.Image:
    """The frame as upright RGB, its longer side at most ``longest`` pixels."""
    width, height = shown_size(frame, pixel_ratio)
    scale = min(1.0, longest / max(width, height))
    width, height = max(round(width * scale), 1), max(round(height * scale), 1)
    orientation = _orientation(frame)
    if orientation in _SIDEWAYS:
        width, height = height, width
    # Where the two fields of an interlaced frame would show as a comb, one of them is taken.
    has_comb = frame.interlaced_frame and height > frame.height // 2
    pixels = _pixels(frame, width, frame.height if has_comb else height)
    if frame.color_trc == _PQ:
        pixels = _tone_mapped(pixels)
    image = Image.fromarray(np.ascontiguousarray(pixels[::2] if has_comb else pixels))
    if has_comb:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return image if orientation is None else image.transpose(orientation)


def make_look(frame: Frame) -> Look:
    """The frame averaged down to a few cells, (18, 32, 3) uint8, not turned."""
    return _pixels(frame, LOOK_WIDTH, LOOK_HEIGHT)


def _pixels(frame: Frame, width: int, height: int) -> NDArray[np.uint8]:
    """(height, width, 3) uint8 RGB; transparency is laid on white."""
    is_guessed = frame.colorspace == _UNSPECIFIED and frame.height >= _HD_HEIGHT
    has_alpha = any(component.is_alpha for component in frame.format.components)
    resized = frame.reformat(
        width=width,
        height=height,
        format="rgba" if has_alpha else "rgb24",
        interpolation="AREA",
        src_colorspace="ITU709" if is_guessed else None,
        threads=1,
    )
    pixels: NDArray[np.uint8] = resized.to_ndarray()
    if not has_alpha:
        return pixels
    opacity = pixels[:, :, 3:].astype(np.float32) / 255
    return np.rint(pixels[:, :, :3] * opacity + 255 * (1 - opacity)).astype(np.uint8)


def _orientation(frame: Frame) -> Image.Transpose | None:
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return None
    numbers = np.frombuffer(bytes(matrix), dtype=np.int32)  # a b u, c d v, x y w as 16.16
    a, b, c, d = (round(float(numbers[at]) / 65536) for at in (0, 1, 3, 4))
    return _UPRIGHT.get((a, b, c, d))


def _tone_mapped(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """HDR10 to sRGB: light by ST 2084's formula, Reinhard's curve to white, BT.709 primaries."""
    signal = (np.arange(256, dtype=np.float32) / 255) ** np.float32(1 / 78.84375)
    light = np.maximum(signal - 0.8359375, 0) / (18.8515625 - 18.6875 * signal)
    nits = 10_000 * light ** np.float32(1 / 0.1593017578125)
    linear = (nits / _WHITE_NITS)[pixels] @ _2020_TO_709.T
    peak = _PEAK_NITS / _WHITE_NITS
    linear = np.maximum(linear, 0)
    mapped = linear * (1 + linear / peak**2) / (1 + linear)
    curve = np.where(mapped <= 0.0031308, 12.92 * mapped, 1.055 * mapped ** (1 / 2.4) - 0.055)
    srgb: NDArray[np.uint8] = np.clip(np.rint(curve * 255), 0, 255).astype(np.uint8)
    return srgb
