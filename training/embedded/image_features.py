"""Features of the frozen backbone for several views of each photo.

They never change while the rest learns, so they are computed once, with OpenVINO, which is several
times faster than torch on a CPU.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from clipsearch.encoders.openvino_runtime import ov
from training.embedded.backbone import WIDTH, load_backbone
from training.embedded.config import ImagesConfig
from training.embedded.corpus import SENTENCE_SOURCES, CaptionedPhoto

_BATCH = 16


def shipped_view(picture: Image.Image, side: int) -> Image.Image:
    """The view that the shipped preprocessing gives: squashed, bicubic."""
    return picture.resize((side, side), Image.Resampling.BICUBIC)


def random_view(picture: Image.Image, side: int, chance: random.Random) -> Image.Image:
    """A random crop of 45-100 % of the area, its aspect jittered by 0.7-1.4, flipped half the time.

    The jitter matters because many of the training photos had been squashed to squares.
    """
    width, height = picture.size
    area = chance.uniform(0.45, 1.0) * width * height
    aspect = width / height * np.exp(chance.uniform(np.log(0.7), np.log(1.4)))
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


def rows_of_photos(rows: NDArray[np.int32]) -> list[NDArray[np.int64]]:
    """Per photo, the places of its views in ``rows``."""
    order = np.argsort(rows[:, 0], kind="stable")
    return np.split(order, np.cumsum(np.bincount(rows[:, 0]))[:-1])


def compute_features(
    photos: Sequence[CaptionedPhoto],
    rows: NDArray[np.int32],
    config: ImagesConfig,
    tell: Callable[[int], None],
) -> NDArray[np.float16]:
    """(rows, 1280): the pooled features of each view of ``rows``, (photo, view) numbers.

    View 0 is the shipped one, the others are random, the same for the same numbers.
    """
    side = config.side
    converted = ov.convert_model(
        load_backbone(config.backbone)[0], example_input=torch.zeros(1, 3, side, side)
    )
    converted.reshape([-1, 3, side, side])
    compiled = ov.Core().compile_model(converted, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"})
    features = np.zeros((len(rows), WIDTH), np.float16)

    def keep(request: ov.InferRequest, start: int) -> None:
        made = request.get_output_tensor(0).data
        features[start : start + len(made)] = made

    def cut(row: NDArray[np.int32]) -> NDArray[np.uint8]:
        number, view = int(row[0]), int(row[1])
        picture = Image.open(io.BytesIO(photos[number].image)).convert("RGB")
        chance = random.Random(number * 1000 + view)
        made = random_view(picture, side, chance) if view else shipped_view(picture, side)
        return np.asarray(made)

    queue = ov.AsyncInferQueue(compiled, 2)
    queue.set_callback(keep)
    with ThreadPoolExecutor(2) as pool:
        for start in range(0, len(rows), _BATCH):
            cuts = np.stack(list(pool.map(cut, rows[start : start + _BATCH])))
            pixels = cuts.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1.0
            queue.start_async({0: np.ascontiguousarray(pixels)}, start)
            tell(start)
    queue.wait_all()
    return features
