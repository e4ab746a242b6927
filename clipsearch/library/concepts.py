"""Named concepts as they are kept: names, the contents of their photos, and vectors of photos.

A photo is kept by the hash of its file. One that the library holds needs no more: its vectors are
there in every space, also in those to come. Of others a vector is kept for each space.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from clipsearch.errors import LibraryCorruptError, VectorError
from clipsearch.library.database import Database
from clipsearch.library.paths import from_column, to_column
from clipsearch.library.schema import concept_checksum
from clipsearch.vectors import Ids, Matrix, Vector, from_bytes, to_bytes

_VECTOR = "coalesce(embedding.vector, concept_vector.vector)"
_PHOTOS = """concept LEFT JOIN concept_photo ON concept_id = concept.id
    LEFT JOIN item ON item.hash = concept_photo.hash
    LEFT JOIN embedding ON embedding.item_id = item.id AND embedding.space_id = :space
    LEFT JOIN concept_vector ON concept_vector.hash = concept_photo.hash
        AND concept_vector.space_id = :space"""


@dataclass(frozen=True)
class Concept:
    """A name that photos have taught; ``known`` of them have a vector in a space."""

    name: str
    photos: int
    known: int
    added_at: str  # ISO 8601, UTC


@dataclass(frozen=True)
class ConceptPhoto:
    """A photo that teaches a name, and where it was when it did."""

    content_hash: str
    path: Path
    is_known: bool  # it has a vector in the space


class Concepts:
    """Reads and writes concepts. Each is a short transaction, also while an index run goes on."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def names(self) -> list[str]:
        """The names, sorted."""
        return [row[0] for row in self._rows("SELECT name FROM concept ORDER BY name")]

    def all(self, space_id: str) -> list[Concept]:
        """All concepts by name, with what a space knows of them."""
        rows = self._rows(
            f"""SELECT concept.name, count(concept_photo.id), count({_VECTOR}), concept.added_at
            FROM {_PHOTOS} GROUP BY concept.id ORDER BY concept.name""",  # noqa: S608 - our own
            space=space_id,
        )
        return [Concept(*row) for row in rows]

    def photos(self, name: str, space_id: str) -> list[ConceptPhoto]:
        """The photos of a concept in the order they were added; none of an unknown name."""
        rows = self._rows(
            f"""SELECT concept_photo.hash, path, {_VECTOR} IS NOT NULL FROM {_PHOTOS}
            WHERE concept.name = :name AND path IS NOT NULL
            ORDER BY concept_photo.id""",  # noqa: S608 - our own constants
            name=name,
            space=space_id,
        )
        return [ConceptPhoto(row[0], Path(from_column(row[1])), bool(row[2])) for row in rows]

    def vectors(self, name: str, space_id: str, dim: int) -> tuple[Ids, Matrix]:
        """What a space knows of a concept: (n, dim) unit rows, and their items, 0 for none."""
        rows = self._rows(
            f"""SELECT coalesce(item.id, 0), {_VECTOR} FROM {_PHOTOS}
            WHERE concept.name = :name AND {_VECTOR} IS NOT NULL
            ORDER BY concept_photo.id""",  # noqa: S608 - our own constants
            name=name,
            space=space_id,
        )
        try:
            matrix = from_bytes([row[1] for row in rows], dim)
        except VectorError as error:
            raise LibraryCorruptError(path=self._database.path.parent, reason=str(error)) from error
        return np.array([row[0] for row in rows], dtype=np.int64), matrix

    def with_vector(self, hashes: Sequence[str], space_id: str) -> set[str]:
        """Those of some contents that have a vector in a space, of the library's or of ours."""
        rows = self._rows(
            """SELECT hash FROM item JOIN embedding ON item_id = item.id
            WHERE space_id = :space AND hash IN (SELECT value FROM json_each(:hashes))
            UNION SELECT hash FROM concept_vector
            WHERE space_id = :space AND hash IN (SELECT value FROM json_each(:hashes))""",
            space=space_id,
            hashes=json.dumps(list(hashes)),
        )
        return {row[0] for row in rows}

    def keep(
        self,
        name: str,
        photos: Mapping[str, Path],
        space_id: str,
        vectors: Mapping[str, Vector],
        *,
        replace: bool = False,
    ) -> None:
        """Adds photos, by content, to a name old or new, and vectors of those that have none.

        With ``replace`` they are its only photos.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._database.writing() as connection:
            connection.exec_driver_sql(
                "INSERT OR IGNORE INTO concept (name, added_at) VALUES (?, ?)", (name, now)
            )
            (row,) = connection.exec_driver_sql("SELECT id FROM concept WHERE name = ?", (name,))
            if replace:
                connection.exec_driver_sql(
                    """DELETE FROM concept_photo WHERE concept_id = ?
                    AND hash NOT IN (SELECT value FROM json_each(?))""",
                    (row[0], json.dumps(list(photos))),
                )
            for content_hash, path in photos.items():
                connection.exec_driver_sql(
                    """INSERT INTO concept_photo (concept_id, hash, path) VALUES (?, ?, ?)
                    ON CONFLICT (concept_id, hash) DO UPDATE SET path = excluded.path""",
                    (row[0], content_hash, to_column(str(path))),
                )
            for content_hash, vector in vectors.items():
                blob = to_bytes(vector)
                connection.exec_driver_sql(
                    """INSERT OR REPLACE INTO concept_vector (hash, space_id, vector, checksum)
                    VALUES (?, ?, ?, ?)""",
                    (content_hash, space_id, blob, concept_checksum(content_hash, space_id, blob)),
                )
            _remove_unused(connection)

    def remove(self, name: str) -> bool:
        """Forgets a name, its photos and their vectors; False if it is not known."""
        with self._database.writing() as connection:
            gone = connection.exec_driver_sql("DELETE FROM concept WHERE name = ?", (name,))
            _remove_unused(connection)
            return bool(gone.rowcount)

    def _rows(self, statement: str, **values: Any) -> list[Any]:
        with self._database.reading() as connection:
            return connection.execute(statement, values).fetchall()


def _remove_unused(connection: Any) -> None:
    connection.exec_driver_sql(
        "DELETE FROM concept_vector WHERE hash NOT IN (SELECT hash FROM concept_photo)"
    )
