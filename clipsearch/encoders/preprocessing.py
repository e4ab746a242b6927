"""From an upright picture to the pixels a model wants, with Pillow alone.

Pixel for pixel what open_clip's own transform does before it normalises, so that both runtimes see
the same picture and neither needs torch for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from clipsearch.errors import ImageUnreadableError
from clipsearch.vectors import Pixels

_INTERPOLATIONS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_RESIZE_MODES = ("shortest", "longest", "squash")


@dataclass(frozen=True)
class Preprocessing:
    """open_clip's ``preprocess_cfg``, checked."""

    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    resize_mode: str
    fill_color: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Preprocessing:
        """Reads a ``preprocess_cfg``; ValueError names what is missing or not understood."""
        for name in ("size", "mean", "std"):
            if name not in config:
                raise ValueError(f"preprocess_cfg has no '{name}'")
        size = config["size"]
        height, width = (size, size) if isinstance(size, int) else size[-2:]
        interpolation = config.get("interpolation") or "bicubic"
        resize_mode = config.get("resize_mode") or "shortest"
        if interpolation == "random":  # a training option; open_clip then infers with bicubic
            interpolation = "bicubic"
        if interpolation not in _INTERPOLATIONS:
            raise ValueError(f"interpolation '{interpolation}' is not known")
        if resize_mode not in _RESIZE_MODES:
            raise ValueError(f"resize_mode '{resize_mode}' is not known")
        mean, std = (tuple(float(x) for x in config[name]) for name in ("mean", "std"))
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError("mean and std need three numbers each, std above 0")
        fill = int(config.get("fill_color") or 0)
        return cls(int(height), int(width), mean, std, interpolation, resize_mode, fill)

    def identity(self) -> str:
        """One canonical string; two models with the same one see the same pixels."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    def apply(self, image: Image.Image) -> Pixels:
        """Resizes and crops to (3, height, width) uint8, RGB.

        ImageUnreadableError for a picture without pixels, and for what is no Pillow image.
        """
        if not isinstance(image, Image.Image) or not min(image.size):
            raise ImageUnreadableError(
                path="What was given",
                reason=f"it is a {type(image).__name__}"
                f"{f' of {image.width} x {image.height} pixels' if hasattr(image, 'width') else ''}"
                ", not a Pillow image with pixels",
            )
        image = image if image.mode == "RGB" else image.convert("RGB")
        if self.resize_mode == "squash":
            fitted = self._resized(image, self.width, self.height)
        elif self.resize_mode == "longest":
            fitted = self._longest(image)
        else:
            fitted = self._shortest(image)
        return np.ascontiguousarray(np.asarray(fitted, dtype=np.uint8).transpose(2, 0, 1))

    def _resized(self, image: Image.Image, width: int, height: int) -> Image.Image:
        if image.size == (width, height):
            return image
        # A panorama one pixel high would else be scaled to nothing.
        size = (max(1, width), max(1, height))
        return image.resize(size, _INTERPOLATIONS[self.interpolation])

    def _shortest(self, image: Image.Image) -> Image.Image:
        if self.width != self.height:
            # open_clip scales the short edge to its target and always bicubic here.
            ratio = min(image.height / self.height, image.width / self.width)
            size = (round(image.width / ratio), round(image.height / ratio))
            scaled = image.resize(size, Image.Resampling.BICUBIC)
            return _centre(scaled, self.width, self.height, 0)
        side = self.width
        if image.width <= image.height:
            size = (side, int(side * image.height / image.width))
        else:
            size = (int(side * image.width / image.height), side)
        return _centre(self._resized(image, *size), side, side, 0)

    def _longest(self, image: Image.Image) -> Image.Image:
        ratio = max(image.height / self.height, image.width / self.width)
        size = (round(image.width / ratio), round(image.height / ratio))
        scaled = self._resized(image, *size)
        return _centre(scaled, self.width, self.height, self.fill_color)


def _centre(image: Image.Image, width: int, height: int, fill: int) -> Image.Image:
    """Crops the middle, padding what is too small; rounds as torchvision does."""
    pad_x, pad_y = max(0, width - image.width), max(0, height - image.height)
    if pad_x or pad_y:
        canvas = Image.new("RGB", (image.width + pad_x, image.height + pad_y), (fill, fill, fill))
        canvas.paste(image, (pad_x // 2, pad_y // 2))
        image = canvas
    left, upper = round((image.width - width) / 2.0), round((image.height - height) / 2.0)
    return image.crop((left, upper, left + width, upper + height))
