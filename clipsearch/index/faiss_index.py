"""FAISS: the only file that imports it.

FAISS takes NaN and repeated ids without a word, returns id -1 where it finds nothing, and loads a
bit-flipped file silently. All of that is stopped here and in ``cache``. Importing it takes a fifth
of a second, which a question to a cached index does without.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from clipsearch.errors import DependencyError, StorageError, VectorError
from clipsearch.index.protocol import Neighbours, best_first
from clipsearch.vectors import Ids, Matrix, Vector, checked_ids, require_unit_rows, unit_vector


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
        self.dim = dim
        self._ids = np.empty(0, np.int64)  # ascending; row i has id _ids[i]
        self._rows: Matrix = np.empty((0, dim), np.float32)
        self._flat: Any = None  # the FAISS index whose memory the rows are; None until needed
        self._on_gpu: Any = None

    def __len__(self) -> int:
        return len(self._ids)

    def put(self, ids: Ids, vectors: Matrix) -> None:
        rows = require_unit_rows(vectors, self.dim)
        ids = checked_ids(ids)
        if len(ids) != len(rows):
            raise VectorError(reason=f"{len(rows)} vectors were given with {len(ids)} ids")
        if len(np.unique(ids)) != len(ids):
            raise VectorError(reason="an id was given twice")
        kept = ~np.isin(self._ids, ids)
        all_ids = np.concatenate([self._ids[kept], ids])
        all_rows = np.concatenate([self._rows[kept], rows])
        order = np.argsort(all_ids, kind="stable")
        self._replace(all_ids[order], all_rows[order])

    def remove(self, ids: Ids) -> int:
        kept = ~np.isin(self._ids, checked_ids(ids))
        removed = int(len(self._ids) - kept.sum())
        if removed:
            self._replace(self._ids[kept], self._rows[kept])
        return removed

    def search(self, query: Vector, k: int, among: Ids | None = None) -> Neighbours:
        question = unit_vector(query)
        if question.shape != (self.dim,):
            raise VectorError(reason=f"the question has {question.size} numbers, not {self.dim}")
        if among is None:
            if len(self._ids) >= _WORTH_A_GPU and 2 * k <= _GPU_MAX_K and gpu_count() > 0:
                return self._on_gpu_nearest(question, k)
            return _best(self._ids, self._rows @ question, k)
        places = np.flatnonzero(np.isin(self._ids, checked_ids(among)))
        # Gathering many rows costs more than the whole product, of which the rest is thrown away.
        few = len(places) * 4 < len(self._ids)
        scores = self._rows[places] @ question if few else (self._rows @ question)[places]
        return _best(self._ids[places], scores, k)

    def save(self, path: Path) -> int:
        """Writes the flat index, and returns the byte at which its rows begin.

        The ids are the caller's to keep. Raises StorageError.
        """
        try:
            _faiss().write_index(self._flat_index(), str(path))
            return path.stat().st_size - self._rows.nbytes  # they are the end of the file
        except (RuntimeError, TypeError, OSError) as error:  # TypeError: a path that is not UTF-8
            advice = "free some space, or keep the library in another folder"
            raise StorageError(path=path, reason=error, advice=advice) from error

    @property
    def ids(self) -> Ids:
        """All ids, ascending."""
        return self._ids

    @property
    def rows(self) -> Matrix:
        """The vectors of ``ids``, (n, dim), without a copy."""
        return self._rows

    @classmethod
    def over(cls, ids: Ids, rows: Matrix) -> FaissIndex:
        """An index of ascending ids and the rows that ``save`` wrote for them, not copied.

        VectorError if they do not fit each other; the vectors themselves are not looked at again.
        """
        if rows.ndim != 2 or ids.shape != (len(rows),):
            raise VectorError(reason=f"rows of {rows.shape} do not fit ids of {ids.shape}")
        index = cls(rows.shape[1])
        index._replace(np.asarray(ids, dtype=np.int64), rows)
        return index

    def _replace(self, ids: Ids, rows: Matrix) -> None:
        self._ids, self._rows, self._flat, self._on_gpu = ids, rows, None, None

    def _flat_index(self) -> Any:
        """The rows in FAISS, which from now on holds the only copy of them."""
        if self._flat is None:
            flat = _faiss().IndexFlatIP(self.dim)
            flat.add(np.ascontiguousarray(self._rows))
            if len(self._ids):
                memory = _faiss().rev_swig_ptr(flat.get_xb(), flat.ntotal * self.dim)
                self._rows = np.asarray(memory).reshape(-1, self.dim)
            self._flat = flat
        return self._flat

    def _on_gpu_nearest(self, question: Vector, k: int) -> Neighbours:
        if self._on_gpu is None:
            self._on_gpu = _faiss().index_cpu_to_all_gpus(self._flat_index())
        # Twice as many as asked for, so that ties at the end are still decided by id.
        found, places = self._on_gpu.search(question[None], min(2 * k, len(self._ids)))
        order = np.argsort(places[0])
        return _best(self._ids[places[0][order]], found[0][order], k)


def _best(ids: Ids, scores: Scores, k: int) -> Neighbours:
    """The ``k`` highest scores, ties by ascending id; ``ids`` are ascending already."""
    cosines: Scores = np.clip(scores, -1.0, 1.0)  # first: what rounding put beyond 1 is a tie, too
    order = best_first(cosines, k)
    return Neighbours(ids[order], cosines[order])


def write_index(ids: Ids, rows: Matrix, path: Path) -> None:
    """Writes an inner-product index of (n, dim) rows by id, for other programs' FAISS.

    Raises StorageError.
    """
    index = _faiss().IndexIDMap2(_faiss().IndexFlatIP(rows.shape[1]))
    index.add_with_ids(np.ascontiguousarray(rows), ids)
    try:
        _faiss().write_index(index, str(path))
    except (RuntimeError, TypeError, OSError) as error:  # TypeError: a path that is not UTF-8
        raise StorageError(path=path, reason=error, advice="choose another place") from error


def _faiss() -> Any:
    """The module itself, imported when an index is written or a GPU may help."""
    import faiss

    return faiss


def gpu_count() -> int:
    """How many GPUs FAISS sees; 0 for the build without GPU support."""
    return int(_faiss().get_num_gpus()) if hasattr(_faiss(), "get_num_gpus") else 0


def describe() -> str:
    """Which FAISS is active, for people."""
    return f"{NAME} {VERSION}, {gpu_count()} GPUs"
