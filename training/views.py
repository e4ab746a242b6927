"""Pictures as a model wants them: whole as they will be indexed, or cut at random for training."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from clipsearch.config import available_cores
from clipsearch.encoders.preprocessing import Preprocessing
from clipsearch.images import decode_image, make_thumbnail
from clipsearch.vectors import Pixels
from training.data import CaptionedPicture

_KEPT_SIDE = 1.5  # pictures are kept in memory at this multiple of the model's input side
KEPT_BYTES = 1 << 30  # of pictures that one set keeps in memory; the others are read again


@dataclass(frozen=True)
class Cut:
    """How training pictures are cut; what it says is part of a run's recipe.

    ``least``: the smallest share of the largest possible square that a cut may have. CLIP's paper
    (section 2.5) resizes and takes a random square crop and nothing else: that is 1. ``aspect``:
    cuts are up to so many times wider or higher than square and are squeezed into it. ``flip``:
    half of them are mirrored, and so are left, right, and writing.
    """

    least: float = 0.6
    aspect: float = 1.0
    flip: bool = False


class Views:
    """Cuts and whole pictures of a set.

    They are kept at a little more than the model's input size up to ``kept_bytes``; what is beyond
    is read and decoded anew each time, which changes no pixel.
    """

    def __init__(
        self,
        pictures: Sequence[CaptionedPicture],
        preprocessing: Preprocessing,
        cut: Cut | None = None,
        *,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self._pictures = pictures
        self._preprocessing = preprocessing
        self._cut = cut or Cut()
        self._side = max(preprocessing.height, preprocessing.width)
        self._kept: dict[int, Image.Image] = {}
        self._room = kept_bytes
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._pictures)

    def whole(self, places: Sequence[int]) -> Pixels:
        """(n, 3, h, w): each picture as it will be indexed."""
        return np.stack([self._preprocessing.apply(image) for image in self._images(places)])

    def cut(self, places: Sequence[int], chance: random.Random) -> Pixels:
        """(n, 3, h, w): random cuts, as ``Cut`` says, the same for the same ``chance``."""
        return self.cut_each(places, [chance] * len(places))

    def cut_each(self, places: Sequence[int], chances: Sequence[random.Random]) -> Pixels:
        """(n, 3, h, w): random cuts, each by a chance of its own."""
        images = self._images(places)
        return np.stack([self._cropped(*each) for each in zip(images, chances, strict=True)])

    def thumbnail(self, place: int, side: int) -> bytes:
        """A picture as a small JPEG, for reports."""
        return make_thumbnail(self._image(place), side)

    def _images(self, places: Sequence[int]) -> Iterable[Image.Image]:
        if all(place in self._kept for place in places):
            return [self._kept[place] for place in places]
        with ThreadPoolExecutor(available_cores()) as pool:
            return list(pool.map(self._image, places))

    def _image(self, place: int) -> Image.Image:
        if (kept := self._kept.get(place)) is not None:
            return kept
        picture = self._pictures[place].image
        side = round(self._side * _KEPT_SIDE)
        image = decode_image(picture.read(), name=picture.name, target_side=side)
        image.thumbnail((2 * side, 2 * side))
        size = 3 * image.width * image.height
        with self._lock:
            if size <= self._room and place not in self._kept:
                self._room -= size
                self._kept[place] = image
        return image

    def _cropped(self, image: Image.Image, chance: random.Random) -> Pixels:
        """A cut of the shape that the model's preprocessing shows: a square, or all of it.

        Models that squash or pad see whole pictures, so their cuts have the picture's shape.
        """
        how, target = self._cut, self._preprocessing
        share = chance.uniform(how.least, 1.0) ** 0.5
        stretch = how.aspect ** chance.uniform(-1.0, 1.0)
        shape = target.width / target.height
        if target.resize_mode != "shortest":
            shape = image.width / image.height
        # The largest box of the shape, stretched, inside the picture; then a share of it.
        largest = min(image.width, image.height * shape * stretch)
        width = max(1, round(largest * share))
        height = max(1, round(largest * share / (shape * stretch)))
        left = round(chance.uniform(0, image.width - width))
        upper = round(chance.uniform(0, image.height - height))
        cropped = image.crop((left, upper, left + width, upper + height))
        if stretch != 1:
            longer = max(width, height)
            size = (round(longer * min(1.0, shape)), round(longer / max(1.0, shape)))
            cropped = cropped.resize((max(1, size[0]), max(1, size[1])), Image.Resampling.BICUBIC)
        if how.flip and chance.random() < 0.5:
            cropped = cropped.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return target.apply(cropped)
