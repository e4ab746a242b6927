"""The two sides of a batch, as unit vectors: random cuts of pictures, and captions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from clipsearch.encoders.openclip import OpenClipModel
from training.data import CaptionedPicture
from training.towers import encode_texts, image_vectors, text_vectors
from training.views import Cut, Views

ENCODED_AT_ONCE = 32
_FIXED_CUTS = 4  # of each picture, for a locked image tower


class ImageSide:
    """Unit vectors of random cuts; computed once, for a few cuts each, if the tower is locked.

    A picture's cut depends on its place and the seed alone, not on which pictures come with it.
    """

    def __init__(
        self,
        loaded: OpenClipModel,
        pictures: Sequence[CaptionedPicture],
        *,
        locked: bool,
        seed: int,
        cut: Cut,
        compiled: bool = False,
    ) -> None:
        self._loaded = loaded
        tower: Any = loaded.model
        self._encode: Any = torch.compile(tower.encode_image) if compiled else tower.encode_image
        self.views = Views(pictures, loaded.preprocessing, cut)
        self._fixed: list[Tensor] = []  # per cut: (pictures, dim)
        if locked:
            with torch.no_grad():
                self._fixed = [
                    self._all_cut(len(pictures), f"{seed} {cut}") for cut in range(_FIXED_CUTS)
                ]

    def vectors(self, places: Sequence[int], seed: str) -> Tensor:
        """(n, dim) unit rows, with gradients unless the tower is locked; the same for a seed."""
        if self._fixed:
            chosen = [random.Random(f"{seed} {place}").choice(self._fixed) for place in places]
            return torch.stack([cut[place] for cut, place in zip(chosen, places, strict=True)])
        chances = [random.Random(f"{seed} {place}") for place in places]
        pixels = self.views.cut_each(places, chances)
        return image_vectors(self._loaded, pixels, encode=self._encode)

    def _all_cut(self, count: int, seed: str) -> Tensor:
        starts = range(0, count, ENCODED_AT_ONCE)
        batches = (range(start, min(start + ENCODED_AT_ONCE, count)) for start in starts)
        return torch.cat([self.vectors(places, seed) for places in batches])


class TextSide:
    """Unit vectors of captions; computed once if the tower is locked."""

    def __init__(
        self, loaded: OpenClipModel, pictures: Sequence[CaptionedPicture], *, locked: bool
    ) -> None:
        self._loaded = loaded
        self._fixed: Tensor | None = None
        if locked:
            captions = sorted({caption for picture in pictures for caption in picture.captions})
            self._row = {caption: row for row, caption in enumerate(captions)}
            self._fixed = torch.from_numpy(encode_texts(loaded, captions)).to(loaded.device)

    def vectors(self, captions: Sequence[str]) -> Tensor:
        """(n, dim) unit rows, with gradients unless the tower is locked."""
        if self._fixed is None:
            return text_vectors(self._loaded, captions)
        return self._fixed[[self._row[caption] for caption in captions]]
