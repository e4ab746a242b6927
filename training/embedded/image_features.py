"""What the lower, frozen stages of the backbone make of several views of each photo.

It never changes while the rest learns, so it is computed once, with OpenVINO, which is several
times faster than torch on a CPU, and kept on disk.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from clipsearch.encoders.openvino_runtime import ov
from training.embedded.backbone import WIDTH, Halves, load_backbone
from training.embedded.config import ImagesConfig
from training.embedded.corpus import SENTENCE_SOURCES, CaptionedPhoto

_BATCH = 16


@dataclass(frozen=True)
class Views:
    """Views of photos, one a row: (photo, view) numbers, lower outputs, and pooled features.

    ``lower`` (rows, channels, h, w) lies on disk; ``pooled`` is (rows, 1280). Both are float16.
    """

    rows: NDArray[np.int32]
    lower: NDArray[np.float16]
    pooled: NDArray[np.float16]

    def of_photos(self) -> list[NDArray[np.int64]]:
        """Per photo, its rows."""
        order = np.argsort(self.rows[:, 0], kind="stable")
        counts = np.bincount(self.rows[:, 0])
        return np.split(order, np.cumsum(counts)[:-1])

    def shipped(self) -> NDArray[np.int64]:
        """The rows of each photo's first view, in the photos' order."""
        first = np.flatnonzero(self.rows[:, 1] == 0)
        return np.asarray(first[np.argsort(self.rows[first, 0])])


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


def compute_views(
    photos: Sequence[CaptionedPhoto],
    rows: NDArray[np.int32],
    config: ImagesConfig,
    place: Path,
    tell: Callable[[int], None],
) -> Views:
    """Computes ``rows`` of photos; keeps them as ``place``-lower.npy and ``place``-pooled.npy.

    What is already there is only read.
    """
    lower_file = place.with_name(f"{place.name}-lower.npy")
    pooled_file = place.with_name(f"{place.name}-pooled.npy")
    if not pooled_file.exists():  # written last
        _compute(photos, rows, config, lower_file, pooled_file, tell)
    lower = np.load(lower_file, mmap_mode="r", allow_pickle=False)
    return Views(rows, lower, np.load(pooled_file, allow_pickle=False))


def _compute(
    photos: Sequence[CaptionedPhoto],
    rows: NDArray[np.int32],
    config: ImagesConfig,
    lower_file: Path,
    pooled_file: Path,
    tell: Callable[[int], None],
) -> None:
    side = config.side
    halves = Halves(load_backbone(config.backbone)[0], config.unfrozen_from).eval()
    example = torch.zeros(1, 3, side, side)
    with torch.no_grad():
        shape = tuple(halves(example)[0].shape[1:])
    converted = ov.convert_model(halves, example_input=example)
    converted.reshape([-1, 3, side, side])
    compiled = ov.Core().compile_model(converted, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"})
    lower = np.lib.format.open_memmap(lower_file, "w+", np.float16, (len(rows), *shape))
    pooled = np.zeros((len(rows), WIDTH), np.float16)

    def keep(request: ov.InferRequest, start: int) -> None:
        made = request.get_output_tensor(0).data
        lower[start : start + len(made)] = made
        pooled[start : start + len(made)] = request.get_output_tensor(1).data

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
    lower.flush()
    half = pooled_file.with_suffix(".part.npy")
    np.save(half, pooled)
    half.replace(pooled_file)
