"""What a vector index offers, whatever library is behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

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
