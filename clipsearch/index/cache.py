"""The index on disk: a cache of the database's vectors, loaded only if every byte is as written.

FAISS writes the file. Its rows are read back without FAISS, whose import would be a third of the
time that a question on the command line takes.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from clipsearch.errors import StorageError, VectorError
from clipsearch.index.faiss_index import VERSION, FaissIndex
from clipsearch.index.protocol import VectorIndex
from clipsearch.library import Library, SpaceRecord
from clipsearch.library.failpoints import failpoint
from clipsearch.vectors import Ids

_FORMAT = 2
_MANIFEST = "manifest.json"


def open_index(library: Library, space: SpaceRecord) -> VectorIndex:
    """The index of a space: from the cache if that is current and sound, else from the database.

    A rebuilt index is saved for the next process; where that is not possible it works all the same.
    """
    folder = library.path / "index" / space.id
    cached = _load(folder, library.state)
    if cached is not None:
        return cached
    state, ids, vectors = library.snapshot(space.id)
    index = FaissIndex(space.space.dim)
    if len(ids):
        index.put(ids, vectors)
    with suppress(OSError, StorageError):
        _save(index, folder, state)
    return index


def _load(folder: Path, state: str) -> FaissIndex | None:
    """The cached index if its manifest fits and its files' checksums agree, else None."""
    try:
        body, checksum = (folder / _MANIFEST).read_bytes().split(b"\n")
        if checksum != _checksum(body).encode():
            return None
        manifest: dict[str, Any] = json.loads(body)
        if [manifest["format"], manifest["state"], manifest["faiss"]] != [_FORMAT, state, VERSION]:
            return None
        ids_bytes = (folder / manifest["ids"]["name"]).read_bytes()
        if _checksum(ids_bytes) != manifest["ids"]["checksum"]:
            return None
        ids: Ids = np.load(io.BytesIO(ids_bytes), allow_pickle=False)
        vectors = manifest["vectors"]
        with (folder / vectors["name"]).open("rb") as file:
            head = file.read(vectors["rows_at"])
            rows = np.fromfile(file, np.float32)
        if _checksum(head, rows.data) != vectors["checksum"]:
            return None
        return FaissIndex.over(ids, rows.reshape(len(ids), vectors["dim"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, VectorError):
        return None  # it is only a cache


def _save(index: FaissIndex, folder: Path, state: str) -> None:
    """Writes the files under names of their own, then the manifest that makes them count.

    Several threads and processes may save at once: each names its own files, and the last
    manifest wins.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mark = f"{state}-{os.getpid()}-{threading.get_ident()}"
    vectors, ids = folder / f"vectors-{mark}.faiss", folder / f"ids-{mark}.npy"
    rows_at = index.save(vectors)
    _sync(vectors)
    failpoint("cache-half-written")
    written = io.BytesIO()
    np.save(written, index.ids, allow_pickle=False)
    ids.write_bytes(written.getvalue())
    _sync(ids)
    with vectors.open("rb") as file:
        head = file.read(rows_at)
    manifest: dict[str, Any] = {
        "format": _FORMAT,
        "state": state,
        "faiss": VERSION,
        # Of what should be in the files, so that what is not in them as it should be shows.
        "vectors": {
            "name": vectors.name,
            "dim": index.dim,
            "rows_at": rows_at,
            "checksum": _checksum(head, index.rows.data),
        },
        "ids": {"name": ids.name, "checksum": _checksum(written.getvalue())},
    }
    body = json.dumps(manifest).encode()
    half = folder / f"{_MANIFEST}-{mark}"
    half.write_bytes(body + b"\n" + _checksum(body).encode())
    _sync(half)
    failpoint("cache-before-manifest")
    half.replace(folder / _MANIFEST)
    _remove_others(folder, {vectors.name, ids.name, _MANIFEST})


def _remove_others(folder: Path, kept: set[str]) -> None:
    """Removes older files; one that another process has open or is writing may stay or go."""
    for path in folder.iterdir():
        if path.name not in kept:
            with suppress(OSError):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _checksum(*parts: bytes | memoryview) -> str:
    state = xxhash.xxh3_128()
    for part in parts:
        state.update(part)
    return str(state.hexdigest())
