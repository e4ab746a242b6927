"""Checking a library: SQLite's own tests, then every row's checksum, then every vector."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection

from clipsearch.errors import LibraryCorruptError, VectorError
from clipsearch.library.database import Database
from clipsearch.library.records import Problem
from clipsearch.library.schema import embedding_checksum, item_checksum
from clipsearch.vectors import from_bytes

_FROM_BACKUP = "cannot be mended: restore a backup, or delete the library and index again"


def check_library(database: Database, *, repair: bool) -> list[Problem]:
    """Everything that is wrong; with ``repair``, damaged rows are removed in one transaction."""
    try:
        with database.reading() as connection:
            structural = list(_structure(connection))
    except LibraryCorruptError as error:
        return [Problem(f"{error.fields['reason']}; {_FROM_BACKUP}", database.path.name)]
    if structural:
        return structural
    transaction = database.writing() if repair else database.reading()
    with transaction as connection:
        items = list(_items(connection))
        embeddings = list(_embeddings(connection))
        meta = list(_meta(connection))
        if repair and (items or embeddings or meta):
            _remove(connection, [row for row, _ in items], [row for row, _ in embeddings])
    return [
        *(Problem(what, f"item {row}", repair) for row, what in items),
        *(Problem(what, f"embedding {row}", repair) for row, what in embeddings),
        *(Problem(what, "meta revision", repair) for what in meta),
    ]


def _structure(connection: Connection) -> Iterator[Problem]:
    for (line,) in connection.exec_driver_sql("PRAGMA integrity_check"):
        if line != "ok":
            yield Problem(f"{line}; {_FROM_BACKUP}", "library.db")
    for table, row, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check"):
        yield Problem(f"points to a row of {parent} that is not there", f"{table} {row}")


def _items(connection: Connection) -> Iterator[tuple[int, str]]:
    rows = connection.exec_driver_sql(
        "SELECT id, hash, width, height, format, bytes, taken_at, metadata, checksum FROM item"
    )
    for identity, *fields, checksum in rows:
        if item_checksum(*fields) != checksum:
            yield identity, "its checksum does not fit: the row was damaged on the disk"


def _embeddings(connection: Connection) -> Iterator[tuple[int, str]]:
    rows = connection.exec_driver_sql(
        """SELECT embedding.id, item_id, space_id, vector, checksum, dim
        FROM embedding JOIN space ON space.id = space_id"""
    )
    for identity, item, space, vector, checksum, dim in rows:
        if embedding_checksum(item, space, vector) != checksum:
            yield identity, f"the vector of item {item} was damaged on the disk"
            continue
        try:
            from_bytes([vector], dim)
        except VectorError as error:
            yield identity, f"the vector of item {item} cannot be used: {error}"


def _meta(connection: Connection) -> Iterator[str]:
    row: Any = connection.exec_driver_sql("SELECT value FROM meta WHERE key = 'revision'").first()
    if row is None or not str(row[0]).isdigit():
        yield "the revision is not a number"


def _remove(connection: Connection, items: list[int], embeddings: list[int]) -> None:
    """Removes damaged rows, so that the next index run reads and embeds those files again."""
    for item in items:
        connection.exec_driver_sql("DELETE FROM file WHERE item_id = ?", (item,))
        connection.exec_driver_sql("DELETE FROM item WHERE id = ?", (item,))
    for embedding in embeddings:
        connection.exec_driver_sql("DELETE FROM embedding WHERE id = ?", (embedding,))
    # The caches were made from the damaged rows: a new revision has them made again.
    connection.exec_driver_sql(
        """INSERT INTO meta VALUES ('revision', '1') ON CONFLICT (key) DO UPDATE
        SET value = CASE WHEN value GLOB '[0-9]*' THEN value + 1 ELSE unixepoch() END"""
    )
