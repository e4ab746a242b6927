"""From decoded pixels of any mode to plain upright sRGB."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipsearch.images.colour import apply_transform, lab_to_srgb, transform_to_srgb
from clipsearch.images.deep_samples import FULL_WHITE, USUAL_WHITES, to_eight_bits

LARGE_PIXELS = 24_000_000  # above this a picture is converted in bands where it may be reduced
_BAND_PIXELS = 4_000_000
_UPRIGHT = {  # EXIF orientation -> what makes the picture upright (Exif 2.32, tag 0x0112)
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright_size(width: int, height: int, orientation: int) -> tuple[int, int]:
    """Width and height after the orientation is undone."""
    return (height, width) if 5 <= orientation <= 8 else (width, height)


def upright_rgb(
    image: Image.Image,
    orientation: int = 1,
    target_side: int | None = None,
    *,
    white: int | None = None,
    is_negative: bool = False,
) -> Image.Image:
    """Flattens a decoded picture to RGB without metadata and turns it upright.

    Its ``info`` may hold ``icc_profile`` and ``transparency``. With ``target_side`` a picture whose
    colours have to be converted is made smaller first, its shorter side at least twice that many
    pixels: converting 12 million pixels takes longer than all the rest. ``white`` is the largest
    value of samples of 16 bits, where the file says so; ``is_negative``: these mean darkness.
    """
    said = image.info.get("icc_profile")
    profile = said if isinstance(said, bytes) else None
    image = _eight_bit(image, white or (FULL_WHITE if profile else None), is_negative=is_negative)
    if reduction(image.size, target_side) > 1:
        return upright_from_bands(_crops(image, target_side), image, orientation, target_side)
    flat = _flattened(image, profile, target_side)
    if orientation in _UPRIGHT:
        flat = flat.transpose(_UPRIGHT[orientation])
    flat.info = {}  # a place or a serial number must not travel into what is made of it
    return flat


def reduction(size: tuple[int, int], target_side: int | None) -> int:
    """By how much a large picture is reduced for ``target_side``; 1 where it is left as it is."""
    if target_side is None or size[0] * size[1] <= LARGE_PIXELS:
        return 1
    return max(1, min(size) // (2 * target_side))


def upright_from_bands(
    bands: Iterable[Image.Image],
    whole: Image.Image,
    orientation: int,
    target_side: int | None,
) -> Image.Image:
    """``upright_rgb`` of a large picture from bands of its rows, each made smaller at once.

    The bands have a multiple of ``reduction`` rows but the last; ``whole`` gives size and info.
    So converting takes no memory to speak of beside what the bands are cut from.
    """
    factor = reduction(whole.size, target_side)
    profile = whole.info.get("icc_profile")
    small = Image.new("RGB", (-(-whole.width // factor), -(-whole.height // factor)))
    top = 0
    for band in bands:
        band.info = whole.info
        flat = _flattened(band, profile if isinstance(profile, bytes) else None, None, factor)
        flat = flat if flat.width == small.width else flat.reduce(factor)
        small.paste(flat, (0, top))
        top += flat.height
    if orientation in _UPRIGHT:
        small = small.transpose(_UPRIGHT[orientation])
    return small


def _crops(image: Image.Image, target_side: int | None) -> Iterator[Image.Image]:
    factor = reduction(image.size, target_side)
    step = max(1, _BAND_PIXELS // image.width // factor) * factor
    for top in range(0, image.height, step):
        yield image.crop((0, top, image.width, min(image.height, top + step)))


def from_float_colours(samples: NDArray[np.float32]) -> Image.Image:
    """(height, width, 3) floats as RGB, scaled together as grey floats are."""
    return _from_samples(_stretched(samples))


def _flattened(
    image: Image.Image, profile: bytes | None, target_side: int | None, factor: int = 1
) -> Image.Image:
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        paper = Image.new("RGB", image.size, "white")
        # not made smaller: the colour of what is transparent would bleed into the edges
        paper.paste(_srgb(colours.convert("RGB"), profile, None), mask=colours.getchannel("A"))
        return paper
    if factor > 1 and image.mode in ("RGB", "L", "CMYK", "LAB"):
        image = image.reduce(factor)
    if image.mode == "LAB":
        return lab_to_srgb(_made_smaller(image, target_side))
    if image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    return _srgb(image, profile, target_side)


def _srgb(image: Image.Image, profile: bytes | None, target_side: int | None) -> Image.Image:
    transform = transform_to_srgb(profile, image.mode)
    if transform is not None:
        return apply_transform(_made_smaller(image, target_side), transform)
    return image if image.mode == "RGB" else image.convert("RGB")


def _made_smaller(image: Image.Image, target_side: int | None) -> Image.Image:
    factor = min(image.size) // (2 * target_side) if target_side else 1
    return image.reduce(factor) if factor > 1 else image


def _eight_bit(image: Image.Image, white: int | None, *, is_negative: bool) -> Image.Image:
    if image.mode.startswith("I;16"):
        samples = to_eight_bits(np.asarray(image), white)
        flat = Image.fromarray(255 - samples if is_negative else samples)
        flat.info = {key: said for key, said in image.info.items() if key != "transparency"}
        return flat
    if image.mode in ("I", "F"):
        return _from_samples(_stretched(np.asarray(image, dtype=np.float32)))
    return image


def _stretched(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scales 32-bit integers or floats to 0..255 by the smallest usual range that holds them.

    Such files do not say what white is: 1.0 and the largest values of 8, 10, 12, 14 and 16 bits
    are the customs; anything else, or anything negative (heights, temperatures), is stretched from
    its least to its greatest value.
    """
    samples = np.nan_to_num(samples, posinf=0.0, neginf=0.0)
    low, high = float(samples.min()), float(samples.max())
    if low >= 0:
        for white in (1.0, *map(float, USUAL_WHITES)):
            if high <= white:
                return samples * np.float32(255.0 / white)
    return (samples - np.float32(low)) * np.float32(255.0 / (high - low or 1.0))


def _from_samples(samples: NDArray[np.float32]) -> Image.Image:
    """Mode L, or RGB where there are three samples a pixel."""
    return Image.fromarray(np.clip(np.rint(samples), 0, 255).astype(np.uint8))
