"""What the frozen part of the backbone makes of several views of each photo.

It never changes while the rest learns, so it is computed once, with OpenVINO, which is several
times faster than torch on a CPU.
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from clipsearch.encoders.openvino_runtime import ov
from training.embedded.config import ImagesConfig
from training.embedded.corpus import SENTENCE_SOURCES, CaptionedPhoto

_BATCH = 16


def shipped_view(picture: Image.Image, side: int) -> Image.Image:
    """The view that the shipped preprocessing gives: squashed, bicubic."""
    return picture.resize((side, side), Image.Resampling.BICUBIC)


def random_view(picture: Image.Image, config: ImagesConfig, chance: random.Random) -> Image.Image:
    """A random crop of area and aspect as ``config`` says, flipped half the time.

    The jitter is there because many of the training photos had been squashed to squares.
    """
    width, height = picture.size
    side, widest = config.side, math.log(config.aspect_jitter)
    area = chance.uniform(config.least_area, 1.0) * width * height
    aspect = width / height * math.exp(chance.uniform(-widest, widest))
    crop_w = min(width, round((area * aspect) ** 0.5))
    crop_h = min(height, round((area / aspect) ** 0.5))
    left, upper = chance.randint(0, width - crop_w), chance.randint(0, height - crop_h)
    box = (left, upper, left + crop_w, upper + crop_h)
    view = picture.resize((side, side), Image.Resampling.BICUBIC, box=box)
    if chance.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return view


def planned_views(photos: Sequence[CaptionedPhoto], config: ImagesConfig) -> NDArray[np.int32]:
    """(rows, 2): photo and view, all first views before all second ones."""
    counts = [
        config.views_of_sentences if photo.source in SENTENCE_SOURCES else config.views_of_labels
        for photo in photos
    ]
    return np.array(
        [
            (number, view)
            for view in range(max(counts))
            for number, count in enumerate(counts)
            if view < count
        ],
        np.int32,
    )


def whole_views(photos: Sequence[CaptionedPhoto]) -> NDArray[np.int32]:
    """(photos, 2): the shipped view of each, and no other."""
    return np.array([(number, 0) for number in range(len(photos))], np.int32).reshape(-1, 2)


def rows_of_photos(rows: NDArray[np.int32]) -> list[NDArray[np.int64]]:
    """Per photo, the places of its views in ``rows``."""
    order = np.argsort(rows[:, 0], kind="stable")
    return np.split(order, np.cumsum(np.bincount(rows[:, 0]))[:-1])


def cut_view(
    photo: CaptionedPhoto, number: int, view: int, config: ImagesConfig
) -> NDArray[np.float32]:
    """(3, side, side) in -1..1: a view of photo ``number``, the same for the same numbers.

    View 0 is the shipped one, the others are random.
    """
    picture = Image.open(io.BytesIO(photo.image)).convert("RGB")
    chance = random.Random(number * 1000 + view)
    made = random_view(picture, config, chance) if view else shipped_view(picture, config.side)
    return np.asarray(made, np.float32).transpose(2, 0, 1) / 127.5 - 1.0


class ViewFeatures:
    """The maps that ``stem``, the frozen part of the backbone, makes of views.

    They are float16 and of ``shape`` each. The stem is compiled when the first are wanted.
    """

    def __init__(
        self, photos: Sequence[CaptionedPhoto], stem: nn.Module, config: ImagesConfig
    ) -> None:
        self._photos, self._stem, self._config = photos, stem, config
        self._example = torch.zeros(1, 3, config.side, config.side)
        with torch.no_grad():
            self.shape: tuple[int, ...] = stem(self._example).shape[1:]

    @cached_property
    def _model(self) -> ov.CompiledModel:
        converted = ov.convert_model(self._stem, example_input=self._example)
        converted.reshape([-1, *self._example.shape[1:]])
        return ov.Core().compile_model(converted, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"})

    def __call__(self, rows: NDArray[np.int32]) -> NDArray[np.float16]:
        """(n, *shape) of the views ``rows``, (n, 2) numbers of photo and view."""
        made = np.empty((len(rows), *self.shape), np.float16)

        def keep(request: ov.InferRequest, start: int) -> None:
            maps = request.get_output_tensor(0).data
            made[start : start + len(maps)] = maps

        def cut(row: NDArray[np.int32]) -> NDArray[np.float32]:
            number, view = int(row[0]), int(row[1])
            return cut_view(self._photos[number], number, view, self._config)

        queue = ov.AsyncInferQueue(self._model, 2)
        queue.set_callback(keep)
        with ThreadPoolExecutor(2) as pool:
            for start in range(0, len(rows), _BATCH):
                queue.start_async(
                    [np.stack(list(pool.map(cut, rows[start : start + _BATCH])))], start
                )
        queue.wait_all()
        return made


def has_bfloat16() -> bool:
    """Whether this CPU computes in bfloat16; others only imitate it, slowly."""
    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
