"""Vectors: only finite unit rows get in, and bytes come back as they went."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from clipsearch.errors import VectorError
from clipsearch.vectors import (
    EmbeddingSpace,
    from_bytes,
    require_unit_rows,
    to_bytes,
    unit_rows,
    unit_vector,
)

SPACE = EmbeddingSpace(model="m", weights_sha256="ab", preprocess="p", dim=4)
matrices = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(1, 40)),
    elements=st.floats(-1e3, 1e3, width=32),
)


@given(matrices)
def test_unit_rows_are_unit_or_refused(matrix: np.ndarray) -> None:
    if (np.linalg.norm(matrix, axis=1) < 1e-6).any():
        with pytest.raises(VectorError):
            unit_rows(matrix)
    else:
        np.testing.assert_allclose(np.linalg.norm(unit_rows(matrix), axis=1), 1, rtol=1e-5)


@given(matrices)
def test_stored_vectors_come_back_within_float16(matrix: np.ndarray) -> None:
    norms = np.linalg.norm(matrix, axis=1)
    rows = unit_rows(matrix[norms > 1e-3]) if (norms > 1e-3).any() else np.ones((1, 1), np.float32)
    back = from_bytes([to_bytes(row) for row in rows], rows.shape[1])
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, rows, atol=2e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_nan_infinite_and_zero_vectors_are_refused(bad: float) -> None:
    with pytest.raises(VectorError, match="vector 1"):
        unit_rows(np.array([[1, 0], [bad, 0]], np.float32))
    with pytest.raises(VectorError):
        unit_vector(np.full(3, bad))


def test_vectors_that_are_not_unit_or_of_another_dimension_are_refused() -> None:
    with pytest.raises(VectorError, match="length"):
        require_unit_rows(np.full((1, 4), 0.9, np.float32), 4)
    with pytest.raises(VectorError, match="shape"):
        require_unit_rows(np.eye(3, dtype=np.float32), 4)


def test_a_stored_vector_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(VectorError, match="3 bytes"):
        from_bytes([b"abc"], 4)
    assert from_bytes([], 4).shape == (0, 4)


def test_a_space_is_told_apart_by_each_of_its_four_fields() -> None:
    others = [
        EmbeddingSpace("n", "ab", "p", 4),
        EmbeddingSpace("m", "ac", "p", 4),
        EmbeddingSpace("m", "ab", "q", 4),
        EmbeddingSpace("m", "ab", "p", 5),
    ]
    assert len({SPACE.id, *(space.id for space in others)}) == 5
    assert SPACE.id == EmbeddingSpace("m", "ab", "p", 4).id
    assert len(SPACE.id) == 16
