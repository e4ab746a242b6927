"""FAISS: the only file that imports it.

FAISS takes NaN and repeated ids without a word, returns id -1 where it finds nothing, and loads a
bit-flipped file silently. All of that is stopped here and in ``cache``.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from clipsearch.errors import DependencyError, StorageError, VectorError
from clipsearch.index.protocol import Neighbours
from clipsearch.vectors import Ids, Matrix, Vector, require_unit_rows, unit_vector


def _installed() -> dict[str, str]:
    found = {}
    for name in ("faiss-gpu", "faiss-cpu"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def require_one_faiss(found: dict[str, str]) -> tuple[str, str]:
    """The name and version of the installed FAISS; DependencyError if there are two, or none."""
    if len(found) > 1:
        raise DependencyError(
            reason="faiss-gpu and faiss-cpu are both installed. They are the same module and "
            "overwrite each other's files. Repair it: pip uninstall faiss-cpu faiss-gpu, then "
            "pip install --force-reinstall one of them"
        )
    if not found:
        raise DependencyError(reason="FAISS is not installed: pip install faiss-cpu")
    return next(iter(found.items()))


NAME, VERSION = require_one_faiss(_installed())

import faiss  # noqa: E402 - only after it is clear that there is one of it

_WORTH_A_GPU = 200_000  # rows; below, a CPU answers before the question is on the GPU
_GPU_MAX_K = 2048  # FAISS's own limit on GPUs
Scores = np.ndarray[tuple[int], np.dtype[np.float32]]


class FaissIndex:
    """Exact inner-product search over unit rows, by id.

    The rows lie in one FAISS flat index. FAISS itself searches it on a GPU, where there is one
    and the index is worth the transfer. On a CPU a single question is faster as one matrix product
    over the same memory (figures: benchmarks/exact_query.py), so that is done there.
    """

    def __init__(self, dim: int) -> None:
        self._flat = faiss.IndexFlatIP(dim)
        self._ids = np.empty(0, np.int64)  # ascending; row i of the flat index has id _ids[i]
        self._on_gpu: faiss.Index | None = None

    @property
    def dim(self) -> int:
        return int(self._flat.d)

    def __len__(self) -> int:
        return len(self._ids)

    def put(self, ids: Ids, vectors: Matrix) -> None:
        rows = require_unit_rows(vectors, self.dim)
        ids = np.asarray(ids, dtype=np.int64)
        if ids.shape != (len(rows),):
            raise VectorError(reason=f"{len(rows)} vectors were given with ids of {ids.shape}")
        if len(ids) and ids.min() < 0:
            raise VectorError(reason=f"ids must not be negative, got {ids.min()}")
        if len(np.unique(ids)) != len(ids):
            raise VectorError(reason="an id was given twice")
        kept = ~np.isin(self._ids, ids)
        all_ids = np.concatenate([self._ids[kept], ids])
        all_rows = np.concatenate([self._rows()[kept], rows])
        order = np.argsort(all_ids, kind="stable")
        self._replace(all_ids[order], all_rows[order])

    def remove(self, ids: Ids) -> int:
        kept = ~np.isin(self._ids, np.asarray(ids, dtype=np.int64))
        removed = int(len(self._ids) - kept.sum())
        if removed:
            self._replace(self._ids[kept], self._rows()[kept])
        return removed

    def search(self, query: Vector, k: int, among: Ids | None = None) -> Neighbours:
        if np.asarray(query).shape != (self.dim,):
            raise VectorError(reason=f"the question has shape {np.shape(query)}, not ({self.dim},)")
        question = unit_vector(query)
        if among is None:
            if len(self._ids) >= _WORTH_A_GPU and 2 * k <= _GPU_MAX_K and gpu_count() > 0:
                return self._on_gpu_nearest(question, k)
            return _best(self._ids, self._rows() @ question, k)
        places = np.flatnonzero(np.isin(self._ids, np.asarray(among, dtype=np.int64)))
        # Gathering many rows costs more than the whole product, of which the rest is thrown away.
        few = len(places) * 4 < len(self._ids)
        scores = self._rows()[places] @ question if few else (self._rows() @ question)[places]
        return _best(self._ids[places], scores, k)

    def save(self, path: Path) -> None:
        """Writes the flat index; the ids are the caller's to keep. Raises StorageError."""
        try:
            faiss.write_index(self._flat, str(path))
        except (RuntimeError, TypeError) as error:  # TypeError: a path that is not UTF-8
            advice = "free some space, or keep the library in another folder"
            raise StorageError(path=path, reason=error, advice=advice) from error

    @property
    def ids(self) -> Ids:
        """All ids, ascending."""
        return self._ids

    @classmethod
    def load(cls, path: Path, ids: Ids) -> FaissIndex:
        """Reads what ``save`` wrote; VectorError if it does not fit the ids."""
        try:
            flat = faiss.read_index(str(path))
        except RuntimeError as error:
            raise VectorError(reason=f"{path} is no index: {error}") from error
        if not isinstance(flat, faiss.IndexFlatIP) or flat.ntotal != len(ids):
            raise VectorError(reason=f"{path} does not hold {len(ids)} vectors")
        index = cls(flat.d)
        index._flat, index._ids = flat, np.asarray(ids, dtype=np.int64)
        return index

    def _rows(self) -> Matrix:
        """FAISS's own memory as (n, dim) float32, without a copy."""
        if not len(self._ids):
            return np.empty((0, self.dim), np.float32)
        flat = faiss.rev_swig_ptr(self._flat.get_xb(), self._flat.ntotal * self.dim)
        return np.asarray(flat).reshape(-1, self.dim)

    def _replace(self, ids: Ids, rows: Matrix) -> None:
        flat = faiss.IndexFlatIP(self.dim)
        flat.add(np.ascontiguousarray(rows))
        self._flat, self._ids, self._on_gpu = flat, ids, None

    def _on_gpu_nearest(self, question: Vector, k: int) -> Neighbours:
        if self._on_gpu is None:
            self._on_gpu = faiss.index_cpu_to_all_gpus(self._flat)
        # Twice as many as asked for, so that ties at the end are still decided by id.
        found, places = self._on_gpu.search(question[None], min(2 * k, len(self._ids)))
        order = np.argsort(places[0])
        return _best(self._ids[places[0][order]], found[0][order], k)


def _best(ids: Ids, scores: Scores, k: int) -> Neighbours:
    """The ``k`` highest scores, ties by ascending id; ``ids`` are ascending already."""
    k = max(0, min(k, len(ids)))
    if not k:
        return Neighbours(np.empty(0, np.int64), np.empty(0, np.float32))
    worst = np.partition(scores, len(scores) - k)[len(scores) - k]
    candidates = np.flatnonzero(scores >= worst)
    order = candidates[np.argsort(-scores[candidates], kind="stable")][:k]
    return Neighbours(ids[order], np.clip(scores[order], -1.0, 1.0))


def gpu_count() -> int:
    """How many GPUs FAISS sees; 0 for the build without GPU support."""
    return int(faiss.get_num_gpus()) if hasattr(faiss, "get_num_gpus") else 0


def describe() -> str:
    """Which FAISS is active, for people."""
    return f"{NAME} {VERSION}, {gpu_count()} GPUs"
