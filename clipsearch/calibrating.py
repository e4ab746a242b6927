"""The calibration of a library, and the vectors of the neutral texts, from caches or made anew.

The texts' vectors depend on the model alone and lie with the other caches of this machine;
``index`` makes them. A calibration and what neutral texts make of each picture lie next to the
index, made by the first question after a change. Neither is trusted: what does not fit is made
again.
"""

from __future__ import annotations

import os
import threading
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from clipsearch.config import Settings
from clipsearch.encoders import Encoder
from clipsearch.errors import VectorError
from clipsearch.relevance import Calibration, Kind, neutral_texts
from clipsearch.vectors import EmbeddingSpace, Ids, Matrix, require_unit_rows

_BATCH = 64  # texts at once
_BLOCK = 8192  # pictures at once
_FORMAT = 2


@dataclass(frozen=True)
class Calibrated:
    """A calibration, and what to take off the scores of each row of an index, in its order."""

    calibration: Calibration
    text_offsets: NDArray[np.float32]  # (n,)
    mixed_offsets: NDArray[np.float32]

    def offsets(self, kind: Kind) -> NDArray[np.float32]:
        """(n,) of a query of this kind."""
        if kind == "text":
            return self.text_offsets
        return self.mixed_offsets if kind == "mixed" else np.zeros_like(self.text_offsets)


def neutral_vectors(
    space: EmbeddingSpace, settings: Settings, encoder: Callable[[], Encoder]
) -> Matrix:
    """The vectors of the neutral texts in a space, (m, dim); ``encoder`` is called if need be."""
    path = _neutral_path(space, settings)
    with suppress(OSError, ValueError, VectorError):
        return require_unit_rows(np.load(path, allow_pickle=False), space.dim)
    texts, model = neutral_texts(), encoder()
    parts = [model.encode_texts(texts[at : at + _BATCH]) for at in range(0, len(texts), _BATCH)]
    vectors = np.concatenate(parts)
    _save(path, lambda file: np.save(file, vectors, allow_pickle=False))
    return vectors


def has_neutral_vectors(space: EmbeddingSpace, settings: Settings) -> bool:
    """True if they need not be made."""
    return _neutral_path(space, settings).is_file()


def calibrated(
    folder: Path, ids: Ids, rows: Matrix, present: NDArray[np.int64] | None, neutral: Matrix
) -> Calibrated:
    """Measures the rows of an index by their ids, or reads what was measured from ``folder``.

    ``present`` are the places of those that count, None for all; ``folder`` is the index's own.
    """
    path = folder / "relevance.npz"
    # An item's vector never changes, so the ids say which rows there are.
    mark = f"{_FORMAT} {_checksum(ids)} {_checksum(present)} {_checksum(neutral)}"
    with suppress(OSError, ValueError, KeyError, zipfile.BadZipFile), np.load(path) as arrays:
        if str(arrays["mark"]) == mark and len(arrays["text_offsets"]) == len(rows):
            calibration = Calibration.from_arrays(arrays)
            return Calibrated(calibration, arrays["text_offsets"], arrays["mixed_offsets"])
    calibration = Calibration.of(rows if present is None else rows[present], neutral)
    blocks = [rows[at : at + _BLOCK] for at in range(0, len(rows), _BLOCK)] or [rows]
    text = np.concatenate([calibration.offsets(block) for block in blocks])
    made = Calibrated(calibration, text, np.asarray(text / 2, np.float32))
    arrays = {**calibration.to_arrays(), "mark": np.array(mark)}
    arrays |= {"text_offsets": made.text_offsets, "mixed_offsets": made.mixed_offsets}
    has_index = False
    with suppress(OSError):  # a folder that may not be looked into
        has_index = folder.is_dir()  # then the library can be written
    if has_index:
        _save(path, lambda file: np.savez(file, allow_pickle=False, **arrays))
    return made


def _neutral_path(space: EmbeddingSpace, settings: Settings) -> Path:
    texts = xxhash.xxh3_64("\n".join(neutral_texts()).encode()).hexdigest()
    return settings.cache_dir / "neutral" / f"{space.id}-{texts}.npy"


def _checksum(array: NDArray[Any] | None) -> str:
    return "all" if array is None else str(xxhash.xxh3_64(array.tobytes()).hexdigest())


def _save(path: Path, write: Callable[[Any], object]) -> None:
    """Writes a cache file whole or not at all; where that cannot be done, it is made next time."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_name(f".{path.name}-{os.getpid()}-{threading.get_ident()}")
        with half.open("wb") as file:
            write(file)
        half.replace(path)
