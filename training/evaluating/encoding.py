"""Pictures and texts of a dataset to vectors, through any encoder, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from clipsearch.encoders import Encoder
from clipsearch.errors import ImageError
from clipsearch.images import THUMBNAIL_SIDE
from clipsearch.vectors import Matrix, Pixels
from training.evaluating.dataset import Picture

_PICTURES, _TEXTS = 32, 64  # at once
_READERS = 2
Change = Callable[[Image.Image, int], Image.Image]
Progress = Callable[[int, int], None]


def encode_pictures(
    encoder: Encoder,
    pictures: Sequence[Picture],
    *,
    change: Change | None = None,
    progress: Progress = lambda _done, _total: None,
) -> tuple[Matrix, dict[int, str]]:
    """(n, dim) unit rows, and for each place that could not be read the reason; its row is zero.

    Pictures are decoded as they are when they are indexed. ``change`` gets each of them and its
    place before the model's own preprocessing.
    """
    preprocessing = encoder.preprocessing
    side = max(preprocessing.height, preprocessing.width, THUMBNAIL_SIDE // 2)
    rows = np.zeros((len(pictures), encoder.space.dim), np.float32)
    failed: dict[int, str] = {}

    def prepared(place: int) -> Pixels | str:
        try:
            image = pictures[place].open(side)
        except ImageError as error:
            return str(error)
        return encoder.preprocess(image if change is None else change(image, place))

    with ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(pictures), _PICTURES):
            places = range(start, min(start + _PICTURES, len(pictures)))
            read = dict(zip(places, pool.map(prepared, places), strict=True))
            failed |= {place: found for place, found in read.items() if isinstance(found, str)}
            there = {place: found for place, found in read.items() if not isinstance(found, str)}
            if there:
                rows[list(there)] = encoder.encode_images(np.stack(list(there.values())))
            progress(places.stop, len(pictures))
    return rows, failed


def encode_texts(
    encoder: Encoder,
    texts: Sequence[str],
    *,
    progress: Progress = lambda _done, _total: None,
) -> Matrix:
    """(n, dim) unit rows; texts of a length together, so that few are padded by much."""
    rows = np.empty((len(texts), encoder.space.dim), np.float32)
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    for start in range(0, len(texts), _TEXTS):
        places = order[start : start + _TEXTS]
        rows[places] = encoder.encode_texts([texts[place] for place in places])
        progress(start + len(places), len(texts))
    return rows
