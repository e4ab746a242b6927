"""Embedding spaces, and vectors as arrays and as bytes: the only place that knows the layout."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clipsearch.errors import VectorError

Vector: TypeAlias = NDArray[np.float32]  # (dim,), unit length
Matrix: TypeAlias = NDArray[np.float32]  # (n, dim), unit rows
Pixels: TypeAlias = NDArray[np.uint8]  # (3, h, w) or (n, 3, h, w), RGB
Ids: TypeAlias = NDArray[np.int64]  # (n,), positive, distinct

STORED_DTYPE = np.dtype("<f2")
_SMALLEST_NORM = 1e-6
_LARGEST_ID = np.iinfo(np.int64).max
_UNIT_TOLERANCE = 1e-2  # float16 storage loses about 1e-3


@dataclass(frozen=True)
class EmbeddingSpace:
    """What makes two vectors comparable: the same model, weights, preprocessing and dimension."""

    model: str
    weights_sha256: str
    preprocess: str
    dim: int

    @property
    def id(self) -> str:
        """The first 16 hex digits of the sha256 over the four fields."""
        canonical = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def unit_rows(matrix: NDArray[np.floating]) -> Matrix:
    """Scales each row of (n, dim) to length 1; VectorError for NaN, infinite or zero rows."""
    rows = _numbers(matrix)
    if rows.ndim != 2:
        raise VectorError(reason=f"expected vectors of shape (n, dim), got {rows.shape}")
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    bad = ~np.isfinite(norms[:, 0]) | (norms[:, 0] < _SMALLEST_NORM)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise VectorError(reason=f"vector {row} has length {norms[row, 0]}; it must be finite, > 0")
    return np.asarray(rows / norms, dtype=np.float32)


def unit_vector(vector: NDArray[np.floating]) -> Vector:
    """Scales (dim,) to length 1; VectorError for NaN, infinite, zero, or another shape."""
    numbers = _numbers(vector)
    if numbers.ndim != 1:
        raise VectorError(reason=f"expected one vector of shape (dim,), got {numbers.shape}")
    return np.asarray(unit_rows(numbers[None])[0], dtype=np.float32)


def _numbers(matrix: Any) -> Matrix:
    """Any array as float32; VectorError for what is no array of real numbers."""
    try:
        given = np.asarray(matrix)
    except (ValueError, TypeError) as error:  # rows of several lengths
        raise VectorError(reason=f"expected vectors of one length: {error}") from error
    if given.dtype.kind not in "fiub":
        raise VectorError(reason=f"expected real numbers, got an array of {given.dtype}")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is told of as that
        return np.ascontiguousarray(given, dtype=np.float32)


def checked_ids(ids: Any) -> Ids:
    """Ids as (n,) int64; VectorError for what is no list of whole numbers from 0 on."""
    try:
        given = np.asarray(ids)
    except (ValueError, TypeError) as error:
        raise VectorError(reason=f"expected a list of ids: {error}") from error
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise VectorError(
            reason=f"expected (n,) whole numbers as ids, got {given.shape} {given.dtype}"
        )
    if given.size and (given.min() < 0 or given.max() > _LARGEST_ID):
        raise VectorError(
            reason=f"ids must not be negative, nor above 2^63, got {given.min()} to {given.max()}"
        )
    return given.astype(np.int64, copy=False)


def require_unit_rows(matrix: NDArray[np.floating], dim: int) -> Matrix:
    """Returns (n, dim) as float32; VectorError unless every row is finite and of unit length."""
    rows = _numbers(matrix)
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise VectorError(reason=f"expected vectors of shape (n, {dim}), got {rows.shape}")
    norms = np.linalg.norm(rows, axis=1)
    bad = ~(np.abs(norms - 1.0) <= _UNIT_TOLERANCE)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise VectorError(reason=f"vector {row} has length {norms[row]}; unit vectors are required")
    return rows


def to_bytes(vector: Vector) -> bytes:
    """Stores one unit vector as little-endian float16, 2 * dim bytes."""
    checked = require_unit_rows(np.asarray(vector).reshape(1, -1), np.asarray(vector).size)
    return bytes(checked[0].astype(STORED_DTYPE).tobytes())


def from_bytes(blobs: list[bytes], dim: int) -> Matrix:
    """Reads n stored vectors as (n, dim) float32 unit rows; VectorError if a length is wrong."""
    expected = STORED_DTYPE.itemsize * dim
    for row, blob in enumerate(blobs):
        if len(blob) != expected:
            raise VectorError(reason=f"stored vector {row} has {len(blob)} bytes, not {expected}")
    stored = np.frombuffer(b"".join(blobs), dtype=STORED_DTYPE).reshape(len(blobs), dim)
    return unit_rows(stored.astype(np.float32)) if blobs else np.empty((0, dim), np.float32)
