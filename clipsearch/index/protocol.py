"""What a vector index offers, whatever library is behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clipsearch.vectors import Ids, Matrix, Vector


@dataclass(frozen=True)
class Neighbours:
    """The nearest rows, best first: (k,) int64 ids and (k,) float32 cosines, in [-1, 1]."""

    ids: Ids
    scores: np.ndarray[tuple[int], np.dtype[np.float32]]


class VectorIndex(Protocol):
    """Unit vectors by id, searched exactly."""

    def __len__(self) -> int: ...

    @property
    def ids(self) -> Ids:
        """All ids, ascending."""
        ...

    @property
    def rows(self) -> Matrix:
        """The vectors of ``ids``, (n, dim), not to be changed."""
        ...

    def put(self, ids: Ids, vectors: Matrix) -> None:
        """Adds (n, dim) unit rows under (n,) ids, replacing those that are known.

        VectorError for NaN, zero or non-unit rows, a wrong dimension, or an id given twice.
        """
        ...

    def remove(self, ids: Ids) -> int:
        """Removes the rows with these ids and returns how many there were."""
        ...

    def search(self, query: Vector, k: int, among: Ids | None = None) -> Neighbours:
        """The ``k`` rows with the highest cosine to ``query`` (dim,), fewer if there are fewer.

        ``among`` restricts the search to some ids; unknown ids are ignored. Equal scores are
        ordered by id, so the same question always has the same answer.
        """
        ...


def best_first(scores: NDArray[np.float32], k: int | None = None) -> NDArray[np.int64]:
    """Places of the ``k`` highest scores (None: all), best first, ties in their order."""
    count = len(scores)
    if k is None or k >= count:
        return np.argsort(-scores, kind="stable")
    if k <= 0:
        return np.empty(0, np.int64)
    worst = np.partition(scores, count - k)[count - k]
    candidates = np.flatnonzero(scores >= worst)
    return candidates[np.argsort(-scores[candidates], kind="stable")][:k]
