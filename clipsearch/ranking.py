"""From a question's vectors to ranked items: scores, what NOT costs, order, and near-copies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipsearch.feedback import refined
from clipsearch.relevance import Kind
from clipsearch.vectors import Ids, Matrix, Vector, unit_rows, unit_vector

# What a question consists of.
TEXT: Kind = "text"
IMAGE: Kind = "image"
MIXED: Kind = "mixed"

# How much of what should not be there is taken off. Of the ways that benchmarks/semantic_not.py
# compares, penalties and projections did no better than this, and this is one product.
NOT_STRENGTH = 0.4

# duplicate:no: pictures that are at least so similar and of nearly the same shape are one.
SAME_COSINE = 0.98
SAME_SHAPE = 0.02  # difference of width / height, as a part of it
_BLOCK = 128  # answers that are compared with each other at a time
_LOOKED_AT = 8  # of an answer's near-copies: the nearest, a version being nearer than other pages

Scores = NDArray[np.float32]
Places = NDArray[np.int64]  # rows of an index
GroupsOf = Callable[[Ids], NDArray[np.int64]]  # items -> numbers of their groups of duplicates


@dataclass(frozen=True)
class Part:
    """What a question compares with: a unit vector, its weight (below 0: NOT), and its kind.

    ``items`` are pictures that the vector was made of: it fits them better than others like them.
    """

    vector: Vector
    weight: float
    kind: Kind  # TEXT or IMAGE; MIXED where both are in the vector
    items: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Question:
    """What pictures are compared with: a unit vector, and what it was made of."""

    vector: Vector
    kind: Kind  # TEXT, IMAGE or MIXED
    is_wanted: bool  # False if it says only what should not be there

    @classmethod
    def of(cls, parts: Sequence[Part]) -> Question:
        """Adds what is wanted as unit vectors, by weight, and takes off a part of the rest.

        Query arithmetic in the joint space: sum(w x) / |sum(w x)| - NOT_STRENGTH * sum(v y), then
        made a unit vector. If nothing is wanted, it points away from the rest. VectorError if
        nothing is left.
        """
        rows = unit_rows(np.stack([part.vector for part in parts]))
        weights = np.array([part.weight for part in parts], dtype=np.float32)
        wanted = weights > 0
        total = NOT_STRENGTH * (weights[~wanted] @ rows[~wanted])
        if wanted.any():
            total = total + unit_vector(weights[wanted] @ rows[wanted])
        kinds = {part.kind for part in parts if part.weight > 0 or not wanted.any()}
        kind = kinds.pop() if len(kinds) == 1 else MIXED
        return cls(unit_vector(total), kind, bool(wanted.any()))

    def refined(self, liked: Matrix, disliked: Matrix) -> Question:
        """The question moved by (n, dim) rows that answer it and rows that do not."""
        kind = self.kind if self.kind == IMAGE or not len(liked) else MIXED
        return Question(refined(self.vector, liked, disliked), kind, self.is_wanted)

    def scores(self, rows: Matrix) -> Scores:
        """The cosine to each of (n, dim) unit rows."""
        cosines: Scores = np.clip(rows @ self.vector, -1.0, 1.0)
        return cosines


def first_of_groups(groups: NDArray[np.int64], k: int) -> Places:
    """Places of the first of each group in an order, at most ``k``."""
    _, first = np.unique(groups, return_index=True)
    return np.sort(first)[:k]


def without_near_copies(
    rows: Callable[[Places], Matrix],
    shapes: NDArray[np.float64],
    k: int,
    are_one: Callable[[Places], NDArray[np.bool_]] | None = None,
) -> Places:
    """Places of those of an order that are no near-copy of an earlier one, at most ``k``.

    ``rows`` gives the vectors of places, zeros for what has none; ``shapes`` are width / height.
    ``are_one`` says of (n, 2) places that are near copies by these which are one picture.
    """
    kept: list[int] = []
    matrix: list[Matrix] = []
    for start in range(0, len(shapes), _BLOCK):
        places = np.arange(start, min(start + _BLOCK, len(shapes)))
        block = rows(places)
        before = np.concatenate([*matrix, block])
        others = np.concatenate([np.array(kept, dtype=np.int64), places])
        alike = _alike(block, shapes[places], before, shapes[others])
        alike &= others[None] < places[:, None]
        if are_one is not None and alike.any():
            alike = _confirmed(alike, block @ before.T, places, others, are_one)
        chosen: list[int] = []
        for place in range(len(places)):
            if not alike[place, [*range(len(kept)), *(len(kept) + one for one in chosen)]].any():
                chosen.append(place)
        kept += [start + place for place in chosen]
        matrix.append(block[chosen])
        if len(kept) >= k:
            break
    return np.array(kept[:k], dtype=np.int64)


def _confirmed(
    alike: NDArray[np.bool_],
    cosines: Matrix,
    places: Places,
    others: Places,
    are_one: Callable[[Places], NDArray[np.bool_]],
) -> NDArray[np.bool_]:
    """Those of the alike that are one picture, by a look at the nearest of each."""
    nearest = np.argsort(np.where(alike, -cosines, np.inf), axis=1)[:, :_LOOKED_AT]
    looked = np.zeros_like(alike)
    np.put_along_axis(looked, nearest, True, axis=1)
    first, second = np.nonzero(alike & looked)
    found = np.zeros_like(alike)
    found[first, second] = are_one(np.column_stack([places[first], others[second]]))
    return found


def _alike(
    one: Matrix, shapes: NDArray[np.float64], other: Matrix, others: NDArray[np.float64]
) -> NDArray[np.bool_]:
    same_shape = np.abs(shapes[:, None] - others[None]) <= SAME_SHAPE * others[None]
    found: NDArray[np.bool_] = (one @ other.T >= SAME_COSINE) & same_shape
    return found
