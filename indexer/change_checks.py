"""What is asked before a change of models: room on the disk, the same files, which space."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from clipsearch.encoders import differences, model_parts
from clipsearch.encoders.registry import EMBEDDED
from clipsearch.errors import ModelChangeError, NotInLibraryError
from clipsearch.library import Library, SpaceRecord
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


def refuse_changed(library: Library, address: str, space: EmbeddingSpace) -> None:
    """ModelChangeError if an address now names another model than the one that filled vectors.

    The embedded model changes with a release of this program; asking for it means the present one.
    """
    if address == EMBEDDED:
        return
    known = library.spaces()
    if any(one.id == space.id for one in known):
        return
    before = [one for one in known if one.address == address]
    if not before:
        return
    latest = before[-1]
    parts = library.models.parts(latest.id)
    changed = ", ".join(differences(latest.space, space, parts, model_parts(address)))
    raise ModelChangeError(
        reason=f"The model {address} is not the one any more that made the {latest.embedded:,} "
        f"vectors of it in this library: its {changed} changed. Vectors of both are never mixed. "
        f"Put the old files back, or take it as a new model beside the old one: "
        f"clipsearch models use {address} --as-new"
    )


def find_space(library: Library, name: str) -> SpaceRecord:
    """The space that an address, or the beginning of a space's id, names.

    NotInLibraryError if there is none, ModelChangeError if there are several.
    """
    spaces = library.spaces()
    found = [one for one in spaces if one.address == name] or [
        one for one in spaces if len(name) >= 4 and one.id.startswith(name)
    ]
    if not found:
        held = ", ".join(one.address for one in spaces) or "none yet"
        raise NotInLibraryError(
            what=f"A model '{name}'", path=library.path, advice=f"It has vectors of: {held}"
        )
    if len(found) > 1:
        said = ", ".join(f"{one.id} ({'in use' if one.active else 'kept'})" for one in found)
        raise ModelChangeError(reason=f"'{name}' names several: say which by its id: {said}")
    return found[0]


def size_on_disk(library: Path) -> int:
    """The bytes of the database with its log."""
    return sum(file.stat().st_size for file in library.glob("library.db*") if file.exists())
