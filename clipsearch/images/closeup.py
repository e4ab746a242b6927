"""Whether two pictures are one and the same: by what thumbnails show, not by what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 32  # of the grey picture that is compared
_COARSE, _BLOCKS = 8, 8  # sides of the first look, of the colours, and of the grid of places
_DRAFT_SIDE = 160  # a JPEG of at least this size is decoded at a fraction of its own
_NOISE = 2.0  # grey levels that mean nothing
# Between re-encoded, resized and brightened copies of 300 photos and 2,521 pairs of different
# photos that a model puts close together (benchmarks/dupes.py): the details of copies correlate by
# 0.86 and more, of the others by at most 0.41. Between lies the next shot of a burst.
_LEAST_SHAPE, _LEAST_DETAIL = 0.95, 0.86
_MOST_ANYWHERE = 0.5  # difference in the worst of 64 places, in deviations of the whole picture
_MOST_BRIGHTER = 64.0  # grey levels
_MOST_COLOUR, _MOST_COLOUR_ANYWHERE = 12.0, 40.0  # difference of the colour channels, levels
_LEAST_ASPECT = 0.97
_AT_ONCE = 4096  # pairs


@dataclass(frozen=True)
class Closeup:
    """A picture as far as telling copies apart needs it. ``sharpness``: variance of Laplacian."""

    grey: NDArray[np.uint8]  # (SIDE, SIDE)
    colours: NDArray[np.uint8]  # (8, 8, 2): Cb and Cr
    sharpness: float


def closeup(image: Image.Image) -> Closeup:
    """Looks closely at an upright picture or its thumbnail; a JPEG may be undecoded still."""
    if image.format == "JPEG":
        image.draft("YCbCr", (_DRAFT_SIDE, _DRAFT_SIDE))
    channels = image.convert("YCbCr")
    grey = channels.getchannel("Y")
    full = np.asarray(grey, dtype=np.float32)
    small = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX))
    coarse = np.asarray(channels.resize((_COARSE, _COARSE), Image.Resampling.BOX))
    return Closeup(small, coarse[:, :, 1:], float(_laplacian(full[None]).var()))


class Closeups:
    """Many close-ups, compared in pairs. ``aspects`` are width / height of the originals."""

    def __init__(self, closeups: list[Closeup], aspects: NDArray[np.float64]) -> None:
        self._aspects = aspects
        self._grey = np.array([one.grey for one in closeups]).reshape(-1, SIDE, SIDE)
        self._colours = np.array([one.colours for one in closeups]).reshape(len(closeups), -1)

    def same(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.bool_]:
        """For each pair of places, whether the two are one picture, re-encoded or resized.

        A crop, a mirrored copy, and another photo of the same scene are not.
        """
        answers = np.zeros(len(first), dtype=bool)
        if not len(first):
            return answers
        shares = self._aspects[first] / self._aspects[second]
        likely = np.flatnonzero(np.minimum(shares, 1 / shares) >= _LEAST_ASPECT)
        step = SIDE // _COARSE
        coarse = self._grey.reshape(-1, _COARSE, step, _COARSE, step).mean(axis=(2, 4))
        for begin in range(0, len(likely), 16 * _AT_ONCE):
            some = likely[begin : begin + 16 * _AT_ONCE]
            alike = _correlation(coarse[first[some]], coarse[second[some]]) >= _LEAST_SHAPE
            chosen = some[alike]
            for start in range(0, len(chosen), _AT_ONCE):
                pairs = chosen[start : start + _AT_ONCE]
                answers[pairs] = self._same(first[pairs], second[pairs])
        return answers

    def _same(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.bool_]:
        one, other = self._grey[first].astype(np.float32), self._grey[second].astype(np.float32)
        brighter = np.abs(one.mean(axis=(1, 2)) - other.mean(axis=(1, 2)))
        colour = np.abs(
            self._colours[first].astype(np.float32) - self._colours[second].astype(np.float32)
        )
        same: NDArray[np.bool_] = (
            (_correlation(one, other) >= _LEAST_SHAPE)
            & (_correlation(_laplacian(one), _laplacian(other)) >= _LEAST_DETAIL)
            & (_worst_place(one, other) <= _MOST_ANYWHERE)
            & (brighter <= _MOST_BRIGHTER)
            & (colour.mean(axis=1) <= _MOST_COLOUR)
            & (colour.max(axis=1) <= _MOST_COLOUR_ANYWHERE)
        )
        return same


def _laplacian(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, h, w): each pixel less the mean of its four neighbours, edges repeated."""
    padded = np.pad(pictures, ((0, 0), (1, 1), (1, 1)), mode="edge")
    around = padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
    return np.asarray(pictures - around / 4, dtype=np.float32)


def _correlation(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each pair of (n, h, w) pictures; of two that show nothing, 1."""
    one = first - first.mean(axis=(1, 2), keepdims=True)
    other = second - second.mean(axis=(1, 2), keepdims=True)
    nothing = 0.25 * one[0].size  # half a grey level everywhere
    both = np.einsum("nij,nij->n", one, other) + nothing
    lengths = np.einsum("nij,nij->n", one, one) + nothing
    lengths = lengths * (np.einsum("nij,nij->n", other, other) + nothing)
    return np.asarray(both / np.sqrt(lengths), dtype=np.float32)


def _worst_place(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """The largest root mean square difference in a grid of places, brightness and contrast aside.

    Two frames of one scene agree nearly everywhere; where somebody moved, they do not.
    """
    one = first - first.mean(axis=(1, 2), keepdims=True)
    other = second - second.mean(axis=(1, 2), keepdims=True)
    one /= one.std(axis=(1, 2), keepdims=True) + _NOISE
    other /= other.std(axis=(1, 2), keepdims=True) + _NOISE
    step = SIDE // _BLOCKS
    squares = ((one - other) ** 2).reshape(-1, _BLOCKS, step, _BLOCKS, step).mean(axis=(2, 4))
    return np.asarray(np.sqrt(squares.max(axis=(1, 2))), dtype=np.float32)


def read_closeup(thumbnail: Path) -> Closeup | None:
    """Looks at a thumbnail of our own making; None where there is none that can be read."""
    try:
        with Image.open(thumbnail) as image:
            return closeup(image)
    except (OSError, ValueError, SyntaxError):  # it is a cache: gone, or damaged
        return None
