"""What is asked before a change of models: room on the disk, the same files, which space."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clipsearch.config import Settings
from clipsearch.encoders.registry import EMBEDDED
from clipsearch.errors import ModelChangeError
from clipsearch.library import Library
from clipsearch.model_names import LOCAL_DIR
from clipsearch.own_models import told_change
from clipsearch.vectors import EmbeddingSpace

_ROW_BYTES = 76  # of SQLite beside a vector: 50,000 of 512 numbers take 55 MB


@dataclass(frozen=True)
class Estimate:
    """What a fill will take on the disk, in bytes."""

    pictures: int
    database_bytes: int
    index_bytes: int
    free_bytes: int


def estimate_fill(library: Library, dim: int, lacking: int) -> Estimate:
    """For vectors of ``dim`` numbers, of pictures that lack one."""
    everything = len(library.present_items())
    return Estimate(
        pictures=lacking,
        database_bytes=lacking * (2 * dim + _ROW_BYTES),
        index_bytes=everything * (4 * dim + 8),
        free_bytes=shutil.disk_usage(library.path).free,
    )


def tell_changed(
    library: Library,
    address: str,
    space: EmbeddingSpace,
    settings: Settings,
    notify: Callable[[str], None],
    *,
    as_new: bool = False,
) -> None:
    """Tells where an address now names another model than the one that filled vectors.

    A folder is where models are made, and the library keeps its own copy of each: what lies there
    now is taken as another one. Elsewhere that is asked for by ``as_new``, or ModelChangeError.
    The embedded model changes with a release of this program; asking for it means the present one.
    """
    changed = None if address == EMBEDDED else told_change(library, address, space, settings)
    if changed is None:
        return
    if address.startswith(LOCAL_DIR) or as_new:
        notify(f"{changed} It is taken as a new model beside the old one")
        return
    raise ModelChangeError(
        reason=f"{changed} Put the old files back, or take it as a new model beside the old one: "
        f"clipsearch models use {address} --as-new"
    )


def size_on_disk(library: Path) -> int:
    """The bytes of the database with its log."""
    return sum(file.stat().st_size for file in library.glob("library.db*") if file.exists())
