"""Colour profiles (ICC) to sRGB, for pictures that are not sRGB already.

A profile is compared with sRGB once, when it is first met; after that a photo with the same profile
costs a look into a small cache, and a photo without one not even that.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from PIL import ImageCms

# How far a colour may move, in levels of 255, for a profile to count as sRGB: its makers round
# differently.
_SAME_LEVELS = 3
_MAX_PROFILE_BYTES = 8 * 2**20  # the largest press profiles have 4 MB
_MODES = {"L", "RGB", "CMYK"}


def transform_to_srgb(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """What turns pictures of ``mode`` (L, RGB or CMYK) into sRGB.

    None where nothing is to be done: no profile, sRGB already, or one that is damaged or belongs to
    another kind of picture, which is ignored as every viewer does.
    """
    if not profile or mode not in _MODES or len(profile) > _MAX_PROFILE_BYTES:
        return None
    return _transform(profile, mode)


def apply_transform(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    """The picture in sRGB; it has to be of the mode that the transform was made for."""
    return transform.apply(image)


def lab_to_srgb(image: Image.Image) -> Image.Image:
    """A picture of mode LAB as RGB."""
    return apply_transform(image, _lab_transform())


@lru_cache(maxsize=24)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    from PIL import ImageCms  # most collections hold no profile but sRGB's, many none at all

    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.PERCEPTUAL,
        )
        return transform if _changes_colours(transform, mode) else None
    except Exception:  # a damaged profile makes Pillow raise several kinds
        return None


@lru_cache(maxsize=1)
def _lab_transform() -> ImageCms.ImageCmsTransform:
    from PIL import ImageCms

    return ImageCms.buildTransform(
        ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
    )


def _changes_colours(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    if mode == "CMYK":
        return True
    if mode == "L":
        samples = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    else:
        steps = np.linspace(0, 255, 8).astype(np.uint8)
        cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(32, 16, 3)
        samples = Image.fromarray(cube)
    before = np.asarray(samples.convert("RGB"), dtype=np.int16)
    after = np.asarray(transform.apply(samples), dtype=np.int16)
    return int(np.abs(before - after).max()) > _SAME_LEVELS
