"""All pairs of vectors that are nearly equal: exactly, in blocks, without an n x n matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipsearch.vectors import Matrix

MAX_PAIRS = 5_000_000
_ROWS, _COLUMNS = 512, 1024  # of a block: 2 MB of cosines stay in the processor's cache
_HEAD_SHARE = 8  # an eighth of the dimensions decides nearly every pair
_LEAST_HEAD = 8
_SAMPLE = 20_000  # rows that the directions are taken from
_ROUNDING = 1e-6  # of a squared length in float32
_MARGIN = 1e-5  # of a cosine in float32
_CHECKED_AT_ONCE = 16_384  # candidates; above, the whole block is multiplied


@dataclass(frozen=True)
class NearPairs:
    """(n,) rows ``first`` < ``second``, and their cosines, all at least ``threshold``."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    cosines: NDArray[np.float32]
    threshold: float  # higher than asked for where there were too many pairs


def near_pairs(
    rows: Matrix, threshold: float, *, since: int = 0, limit: int = MAX_PAIRS
) -> NearPairs:
    """Finds every pair of (n, dim) unit rows with a cosine of at least ``threshold``.

    Of the rows before ``since``, only pairs with a later one.

    Most pairs are ruled out by a bound: with the rows turned so that the first directions hold most
    of them, a cosine is at most the product of the heads plus that of the lengths of what is left
    (Cauchy-Schwarz). What remains is multiplied out, so the answer is exact. Where more than
    ``limit`` pairs are found, the nearest half of them are kept and the threshold rises.
    """
    heads = _heads(rows)
    found = _Found(threshold, limit)
    for top in range(0, len(rows), _ROWS):
        for left in range(max(top, since), len(rows), _COLUMNS):
            bounds = heads[top : top + _ROWS] @ heads[left : left + _COLUMNS].T
            places = np.flatnonzero(bounds >= found.threshold - _MARGIN)
            if not len(places):
                continue
            first, second = np.divmod(places, bounds.shape[1])
            first, second = first + top, second + left
            ahead = first < second
            first, second = first[ahead], second[ahead]
            if len(first) > _CHECKED_AT_ONCE:
                block = rows[top : top + _ROWS] @ rows[left : left + _COLUMNS].T
                cosines = block[first - top, second - left]
            else:
                cosines = np.einsum("ij,ij->i", rows[first], rows[second])
            found.add(first, second, cosines)
    return found.pairs()


def _heads(rows: Matrix) -> Matrix:
    """(n, m + 1): the rows along the m strongest directions, and the length of what is left."""
    dim = rows.shape[1]
    kept = max(_LEAST_HEAD, dim // _HEAD_SHARE - 1)
    if kept >= dim or not len(rows):
        return rows
    sample = rows[:: max(1, len(rows) // _SAMPLE)]
    _, directions = np.linalg.eigh((sample.T @ sample).astype(np.float64))
    heads = rows @ directions[:, ::-1][:, :kept].astype(np.float32)
    left = 1.0 - np.einsum("ij,ij->i", heads, heads)
    # Rounded up, so that a bound is never below the cosine it stands for.
    rest = np.sqrt(np.maximum(left, 0.0) + 4 * _ROUNDING)
    return np.hstack([heads, rest[:, None]]).astype(np.float32)


class _Found:
    """The pairs so far; at the limit the nearer half stays."""

    def __init__(self, threshold: float, limit: int) -> None:
        self.threshold = threshold
        self._limit = limit
        self._count = 0
        self._parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []

    def add(
        self,
        first: NDArray[np.int64],
        second: NDArray[np.int64],
        cosines: NDArray[np.float32],
    ) -> None:
        near = cosines >= self.threshold
        self._parts.append((first[near], second[near], cosines[near]))
        self._count += int(near.sum())
        if self._count > self._limit:
            self._keep_nearest(self._limit // 2)

    def pairs(self) -> NearPairs:
        self._keep_nearest(self._limit)
        if not self._parts:
            none = np.empty(0, np.int64)
            return NearPairs(none, none, np.empty(0, np.float32), self.threshold)
        first, second, cosines = self._parts[0]
        order = np.lexsort((second, first))
        return NearPairs(first[order], second[order], cosines[order], self.threshold)

    def _keep_nearest(self, count: int) -> None:
        if not self._parts:
            return
        columns = zip(*self._parts, strict=True)
        first, second, cosines = (np.concatenate(column) for column in columns)
        if len(cosines) > count:
            kept = np.argsort(-cosines, kind="stable")[:count]
            first, second, cosines = first[kept], second[kept], cosines[kept]
            self.threshold = float(cosines[-1])
        self._parts = [(first, second, cosines)]
        self._count = len(cosines)
