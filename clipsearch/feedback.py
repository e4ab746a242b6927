"""A question made better by answers: pictures that are, and are not, what was meant."""

from __future__ import annotations

import numpy as np

from clipsearch.vectors import Matrix, Vector, unit_rows, unit_vector

# Of the strengths that benchmarks/feedback.py compares, with simulated users on labelled photos.
LIKED_STRENGTH, DISLIKED_STRENGTH = 1.0, 0.5
DOUBT = 3.0  # answers: with so many a mean counts half


def refined(
    question: Vector,
    liked: Matrix,
    disliked: Matrix,
    *,
    liked_strength: float = LIKED_STRENGTH,
    disliked_strength: float = DISLIKED_STRENGTH,
    doubt: float = DOUBT,
) -> Vector:
    """Moves a unit question (dim,) to the mean of (n, dim) liked rows and away from the disliked.

    Rocchio 1971: q + b mean(liked) - c mean(disliked), then made a unit vector. The mean of n rows
    counts by n / (n + doubt): one picture shows much that was not meant. Text and pictures
    lie apart in such spaces, so the moved question scores higher: compare its scores only with its
    own. VectorError if nothing is left.
    """
    moved = unit_vector(question).astype(np.float64)
    if len(liked):
        moved = moved + liked_strength * _mean(liked, doubt)
    if len(disliked):
        moved = moved - disliked_strength * _mean(disliked, doubt)
    return unit_vector(moved)


def _mean(rows: Matrix, doubt: float) -> Vector:
    share = len(rows) / (len(rows) + doubt)
    return np.asarray(share * unit_rows(rows).mean(axis=0), dtype=np.float32)
