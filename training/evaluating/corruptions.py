"""Common corruptions at five severities, after Hendrycks and Dietterich 2019 (ImageNet-C).

Ten of their fifteen and one of their four extras, with the strengths of their code for pictures of
224 pixels, in numpy and Pillow. Left out are those that need images of frost and snow, and glass,
zoom and elastic. Motion is a straight line of box weights here, fog has its own plasma.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

SIDE = 224  # pixels of the shorter side that the strengths are made for
SEVERITIES = (1, 2, 3, 4, 5)
Floats = NDArray[np.float64]  # (h, w, 3) in [0, 1]
Chance = np.random.Generator


def prepared(image: Image.Image) -> Image.Image:
    """The picture with its shorter side at 224 pixels, RGB: to be corrupted, or clean."""
    scale = SIDE / min(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def corrupt(image: Image.Image, kind: str, severity: int, seed: int) -> Image.Image:
    """A ``prepared`` picture with one of ``KINDS``, at severity 1 to 5; noise is by the seed."""
    return KINDS[kind](image, severity - 1, np.random.default_rng([seed, severity]))


def _floats(image: Image.Image) -> Floats:
    return np.asarray(image, dtype=np.float64) / 255


def _image(values: Floats) -> Image.Image:
    return Image.fromarray((np.clip(values, 0, 1) * 255).round().astype(np.uint8))


def _gaussian_noise(image: Image.Image, level: int, chance: Chance) -> Image.Image:
    values = _floats(image)
    spread = (0.08, 0.12, 0.18, 0.26, 0.38)[level]
    return _image(values + chance.normal(0, spread, values.shape))


def _shot_noise(image: Image.Image, level: int, chance: Chance) -> Image.Image:
    light = (60, 25, 12, 5, 3)[level]
    return _image(chance.poisson(_floats(image) * light) / light)


def _impulse_noise(image: Image.Image, level: int, chance: Chance) -> Image.Image:
    values = _floats(image)
    hit = chance.random(values.shape) < (0.03, 0.06, 0.09, 0.17, 0.27)[level]
    return _image(np.where(hit, chance.integers(0, 2, values.shape), values))


def _gaussian_blur(image: Image.Image, level: int, _chance: Chance) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur((1, 2, 3, 4, 6)[level]))


def _defocus_blur(image: Image.Image, level: int, _chance: Chance) -> Image.Image:
    radius = (3, 4, 6, 8, 10)[level]
    reach = range(-radius, radius + 1)
    disk = [(x, y) for x in reach for y in reach if x * x + y * y <= radius * radius]
    return _image(_mean_of_shifts(_floats(image), disk))


def _motion_blur(image: Image.Image, level: int, chance: Chance) -> Image.Image:
    length = (7, 11, 15, 19, 25)[level]
    angle = chance.uniform(-math.pi / 4, math.pi / 4)
    steps = np.arange(length) - length // 2
    line = [(round(step * math.cos(angle)), round(step * math.sin(angle))) for step in steps]
    return _image(_mean_of_shifts(_floats(image), line))


def _mean_of_shifts(values: Floats, shifts: list[tuple[int, int]]) -> Floats:
    """The mean of the picture moved by each (x, y); beyond its edges it goes on as a mirror."""
    reach = max(max(abs(x), abs(y)) for x, y in shifts)
    wide = np.pad(values, ((reach, reach), (reach, reach), (0, 0)), mode="symmetric")
    height, width = values.shape[:2]
    total = np.zeros_like(values)
    for x, y in shifts:
        total += wide[reach + y : reach + y + height, reach + x : reach + x + width]
    return total / len(shifts)


def _fog(image: Image.Image, level: int, chance: Chance) -> Image.Image:
    strength, decay = ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))[level]
    values = _floats(image)
    brightest = values.max()
    cloud = _plasma(values.shape[0], values.shape[1], decay, chance)
    return _image((values + strength * cloud[..., None]) * brightest / (brightest + strength))


def _plasma(height: int, width: int, decay: float, chance: Chance) -> Floats:
    """(h, w) in [0, 1]: noise at every scale, each half as coarse and ``decay`` times as weak."""
    total = np.zeros((height, width))
    weight, cells = 1.0, 2
    while cells < max(height, width):
        noise = chance.uniform(-1, 1, (cells + 1, cells + 1)).astype(np.float32)
        layer = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        total += weight * np.asarray(layer, dtype=np.float64)
        weight, cells = weight / decay, cells * 2
    total -= total.min()
    return total / max(float(total.max()), 1e-9)


def _brightness(image: Image.Image, level: int, _chance: Chance) -> Image.Image:
    """The value of HSV is raised, hue and saturation stay."""
    values = _floats(image)
    value = values.max(axis=2, keepdims=True)
    raised = np.minimum(value + (0.1, 0.2, 0.3, 0.4, 0.5)[level], 1)
    return _image(np.where(value > 0, values / np.maximum(value, 1e-9) * raised, raised))


def _contrast(image: Image.Image, level: int, _chance: Chance) -> Image.Image:
    values = _floats(image)
    middle = values.mean(axis=(0, 1), keepdims=True)
    return _image((values - middle) * (0.4, 0.3, 0.2, 0.1, 0.05)[level] + middle)


def _pixelate(image: Image.Image, level: int, _chance: Chance) -> Image.Image:
    share = (0.6, 0.5, 0.4, 0.3, 0.25)[level]
    small = (max(1, int(image.width * share)), max(1, int(image.height * share)))
    return image.resize(small, Image.Resampling.BOX).resize(image.size, Image.Resampling.NEAREST)


def _jpeg(image: Image.Image, level: int, _chance: Chance) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=(25, 18, 15, 10, 7)[level])
    return Image.open(buffer).convert("RGB")


KINDS: dict[str, Callable[[Image.Image, int, Chance], Image.Image]] = {
    "gaussian noise": _gaussian_noise,
    "shot noise": _shot_noise,
    "impulse noise": _impulse_noise,
    "gaussian blur": _gaussian_blur,
    "defocus blur": _defocus_blur,
    "motion blur": _motion_blur,
    "fog": _fog,
    "brightness": _brightness,
    "contrast": _contrast,
    "pixelate": _pixelate,
    "jpeg": _jpeg,
}
