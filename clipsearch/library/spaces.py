"""The embedding spaces of a library: which there are, which is searched, which one comes next.

A change of models is one row in ``meta`` until the new space is full, and then one transaction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipsearch.errors import ModelChangeError, NotInLibraryError
from clipsearch.library.database import Database
from clipsearch.library.records import SpaceRecord
from clipsearch.model_names import names_of
from clipsearch.vectors import EmbeddingSpace

if TYPE_CHECKING:
    from sqlalchemy import Connection

NEXT, PREVIOUS, PARTS = "space.next", "space.previous", "space.parts."
MODEL = "setting.model"


class Spaces:
    """Reads what is known of spaces and of a change from one to another."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[SpaceRecord]:
        """All spaces, in the order they were added."""
        rows = self._rows(
            """SELECT id, model, weights_sha256, preprocess, dim, address, runtime, precision,
                active, (SELECT count(*) FROM embedding WHERE space_id = space.id)
            FROM space ORDER BY space.rowid"""
        )
        names = names_of([(row[0], row[5]) for row in rows])
        return [
            SpaceRecord(
                id=row[0],
                space=EmbeddingSpace(row[1], row[2], row[3], row[4]),
                address=names[row[0]],
                runtime=row[6],
                precision=row[7],
                active=bool(row[8]),
                embedded=row[9],
                origin=row[5],
            )
            for row in rows
        ]

    def next(self) -> str | None:
        """The id of the space that searches will use once it is full, or None."""
        return self._named(NEXT)

    def previous(self) -> str | None:
        """The id of the space that searches used before the present one, if it is still there."""
        return self._named(PREVIOUS)

    def parts(self, space_id: str) -> dict[str, str]:
        """What a model's configuration said when its space was added, by part, as checksums."""
        rows = self._rows("SELECT value FROM meta WHERE key = ?", PARTS + space_id)
        return dict(json.loads(rows[0][0])) if rows else {}

    def lacking(self, space_id: str) -> list[int]:
        """The pictures and moments that are there and have no vector in a space, ascending."""
        rows = self._rows(
            """SELECT DISTINCT item_id FROM present_file WHERE item_id NOT IN
            (SELECT item_id FROM embedding WHERE space_id = ?) ORDER BY item_id""",
            space_id,
        )
        return [row[0] for row in rows]

    def _named(self, key: str) -> str | None:
        rows = self._rows(
            "SELECT space.id FROM meta JOIN space ON space.id = value WHERE key = ?", key
        )
        return rows[0][0] if rows else None

    def _rows(self, statement: str, *values: Any) -> list[Any]:
        with self._database.reading() as connection:
            return connection.execute(statement, values).fetchall()


def keep_parts(connection: Connection, space_id: str, parts: Mapping[str, str]) -> None:
    """Remembers the parts of a model; those of a known space stay as they are."""
    if parts:
        connection.exec_driver_sql(
            "INSERT OR IGNORE INTO meta VALUES (?, ?)", (PARTS + space_id, json.dumps(dict(parts)))
        )


def plan_switch(connection: Connection, space_id: str | None) -> None:
    """Says which space comes next; None withdraws what was said."""
    connection.exec_driver_sql("DELETE FROM meta WHERE key = ?", (NEXT,))
    if space_id is not None:
        connection.exec_driver_sql("INSERT INTO meta VALUES (?, ?)", (NEXT, space_id))
    # An index run that was to change the model and was interrupted has set it already.
    _remember_model(connection)


def activate(connection: Connection, space_id: str, library: Path) -> None:
    """Makes a space the one that searches use, and its model the library's."""
    connection.exec_driver_sql(
        "INSERT OR REPLACE INTO meta SELECT ?, id FROM space WHERE active AND id <> ?",
        (PREVIOUS, space_id),
    )
    connection.exec_driver_sql("UPDATE space SET active = 0 WHERE active = 1")
    done = connection.exec_driver_sql("UPDATE space SET active = 1 WHERE id = ?", (space_id,))
    if done.rowcount != 1:
        raise NotInLibraryError(what=f"Space {space_id}", path=library, advice="")
    connection.exec_driver_sql("DELETE FROM meta WHERE key = ?", (NEXT,))
    _remember_model(connection)


def _remember_model(connection: Connection) -> None:
    """Makes the model of the active space, if there is one, the library's."""
    active = connection.exec_driver_sql("SELECT id FROM space WHERE active").scalar()
    if active is not None:
        connection.exec_driver_sql(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)", (MODEL, name_of(connection, active))
        )


def name_of(connection: Connection, space_id: str) -> str:
    """What a space's model is called among those of the library (see ``model_names``)."""
    rows = connection.exec_driver_sql("SELECT id, address FROM space ORDER BY rowid").all()
    return names_of([(row[0], row[1]) for row in rows])[space_id]


def drop(connection: Connection, space_id: str) -> int:
    """Deletes a space with its vectors and what was learned in it; returns how many vectors.

    ModelChangeError for the one that searches use.
    """
    active = connection.exec_driver_sql("SELECT id FROM space WHERE active").scalar()
    if active == space_id:
        raise ModelChangeError(
            reason=f"Searches use the vectors of {name_of(connection, active)}. Change to another "
            "model first: clipsearch models use ADDRESS, or models back"
        )
    gone = connection.exec_driver_sql("DELETE FROM embedding WHERE space_id = ?", (space_id,))
    connection.exec_driver_sql("DELETE FROM space WHERE id = ?", (space_id,))
    connection.exec_driver_sql(
        "DELETE FROM meta WHERE key = ? OR (key IN (?, ?) AND value = ?)",
        (PARTS + space_id, NEXT, PREVIOUS, space_id),
    )
    return int(gone.rowcount)
