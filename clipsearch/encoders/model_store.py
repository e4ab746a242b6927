"""The models that a library keeps as its own, copied from the folders they were taken from.

A run of ``train`` is written anew or deleted, a download is moved: the vectors of a library would
then have no model any more that can ask for them. So a copy is what counts, and it is no cache.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from clipsearch.config import Settings
from clipsearch.encoders.local_model import (
    CONFIG,
    WEIGHTS,
    LocalModel,
    read_local_model,
    space_of,
    tokenizer_files,
)
from clipsearch.errors import (
    ModelChangeError,
    StorageError,
    WeightsCorruptError,
    WeightsNotFoundError,
)
from clipsearch.model_names import LOCAL_DIR, MODELS, unmarked
from clipsearch.vectors import EmbeddingSpace

_UNFINISHED = ".taking-"
# What else belongs to a model: a tokenizer's settings, who made it, and what one may do with it.
_BESIDE = ("*.json", "README*", "MODEL_CARD*", "LICENSE*", "LICENCE*", "NOTICE*")
_CHUNK_BYTES = 1 << 20
_MOVED = (
    "This library has no copy of it. Where it lies somewhere else, say so: clipsearch models use "
    "local-dir:NEW_FOLDER (nothing is embedded again for the same weights). Where it is gone, "
    "change to another model: clipsearch models use embedded"
)


def read_model(address: str, settings: Settings, space: EmbeddingSpace | None = None) -> LocalModel:
    """The model of a ``local-dir:`` address, read and checked, from the library's own copy of it.

    Without ``space`` and a mark in the address (see ``model_names``), it is what lies in the folder
    now. Raises what ``read_local_model`` raises; WeightsNotFoundError also where a known model is
    not in its folder any more.
    """
    store = ModelStore(settings.library)
    copy = store.find(space) if space is not None else store.named(address)
    if copy is not None:
        return read_local_model(copy, address)
    origin, mark = unmarked(address)
    if mark and folder_of(address).is_dir():  # a folder that is called like this
        origin, mark = address, ""
    if not mark:
        return read_local_model(folder_of(origin), address)
    folder = folder_of(origin)
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise WeightsNotFoundError(address=address, path=folder, advice=_MOVED)
    model = read_local_model(folder, address)
    found = model.space()
    if (found != space) if space is not None else not found.id.startswith(mark):
        raise WeightsNotFoundError(
            address=address, path=folder, advice=f"Another model is there now. {_MOVED}"
        )
    return model


def folder_of(address: str) -> Path:
    """The folder that a ``local-dir:`` address names."""
    return Path(address.removeprefix(LOCAL_DIR))


class ModelStore:
    """The folder ``models`` of a library: ``WEIGHTS_SHA256-SPACE`` for each model of a folder."""

    def __init__(self, library: Path) -> None:
        self.path = library / MODELS

    def find(self, space: EmbeddingSpace) -> Path | None:
        """Where the copy of a model lies, or None."""
        folder = self._folder(space)
        return folder if _is_whole(folder) else None

    def named(self, name: str) -> Path | None:
        """The copy that a name with a mark means (see ``model_names``), or None."""
        _, mark = unmarked(name)
        found = sorted(self.path.glob(f"*-{mark}*")) if mark else []
        return next((folder for folder in found if _is_whole(folder)), None)

    def take(self, model: LocalModel, space: EmbeddingSpace, *, anew: bool = False) -> bool:
        """Copies a model, whole or not at all; False if it is held already, unless ``anew``.

        Whoever calls it holds the library's lock. ModelChangeError if the model is not, or while
        it is copied no longer, that of ``space``; StorageError if there is no room for it.
        """
        if self.find(space) is not None and not anew:
            return False
        folder = self._folder(space)
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for left in self.path.glob(f"{_UNFINISHED}*"):  # by a process that was killed
                shutil.rmtree(left, ignore_errors=True)
            half = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self.path))
            try:
                _copy_model(model, space, half)
                shutil.rmtree(folder, ignore_errors=True)  # what is left of one that is damaged
                half.replace(folder)
                _sync_folder(self.path)
            finally:
                shutil.rmtree(half, ignore_errors=True)
        except OSError as error:
            raise StorageError(
                path=folder,
                reason=error.strerror or error,
                advice=f"the model in {model.folder} is as it was: free some space and run again",
            ) from error
        return True

    def _folder(self, space: EmbeddingSpace) -> Path:
        return self.path / f"{space.weights_sha256}-{space.id}"


def _is_whole(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()


def _copy_model(model: LocalModel, space: EmbeddingSpace, to: Path) -> None:
    beside = {file for pattern in _BESIDE for file in model.folder.glob(pattern)}
    for file in sorted({model.folder / CONFIG, *tokenizer_files(model.folder), *beside}):
        if file.is_file():
            _copy_file(file, to / file.name)
    weights = _copy_file(model.weights, to / WEIGHTS)
    copy = read_local_model(to, model.address)
    if space_of(copy.model_cfg, weights, copy.preprocessing, copy.tokenizer_sha256()) != space:
        raise ModelChangeError(
            reason=f"The files in {model.folder} changed while they were copied into the library. "
            "Nothing was kept; run again once nothing writes there"
        )
    _sync_folder(to)


def _copy_file(source: Path, to: Path) -> str:
    """Copies a file to the disk, not only to its cache; returns its sha256."""
    state = hashlib.sha256()
    with to.open("wb") as written:
        for chunk in _chunks(source):
            state.update(chunk)
            written.write(chunk)
        written.flush()
        os.fsync(written.fileno())
    return state.hexdigest()


def _chunks(source: Path) -> Iterator[bytes]:
    """A file in pieces; WeightsCorruptError where it cannot be read."""
    try:
        with source.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise WeightsCorruptError(
            path=source, reason=error.strerror or error, advice="Copy the file again."
        ) from error


def _sync_folder(folder: Path) -> None:
    """Has names of files survive a power cut; not every system can, nor needs to."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
