"""Checking a library: SQLite's own tests, then what every row says of itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from clipsearch.errors import LibraryError, VectorError
from clipsearch.library.database import Database
from clipsearch.library.records import Problem
from clipsearch.library.schema import embedding_checksum, item_checksum
from clipsearch.vectors import EmbeddingSpace, from_bytes

_FROM_BACKUP = "cannot be mended: restore a backup, or delete the library and index again"
# Mends a row that points to a row that is not there, by its table and the table it points to.
_LOOSE_ENDS = {
    ("file", "item"): "UPDATE file SET item_id = NULL WHERE id = ?",  # it is read again
    ("file", "root"): "DELETE FROM file WHERE id = ?",
    ("embedding", "item"): "DELETE FROM embedding WHERE id = ?",
    ("embedding", "space"): "DELETE FROM embedding WHERE id = ?",
    ("caption", "item"): "DELETE FROM caption WHERE id = ?",
    ("item", "item"): "DELETE FROM item WHERE id = ?",  # a moment without its video
}
_LOOSE_TAGS = """DELETE FROM item_tag WHERE ? IS NULL AND (
    item_id NOT IN (SELECT id FROM item) OR tag_id NOT IN (SELECT id FROM tag))"""


@dataclass(frozen=True)
class _Finding:
    """A damaged row, and the statements that mend the library by removing it, with the row."""

    where: str
    what: str
    row: int | str | None
    statements: tuple[str, ...]


def check_library(database: Database, *, repair: bool) -> list[Problem]:
    """Everything that is wrong; with ``repair``, damaged rows are removed in one transaction."""
    problems = _structure(database)
    if problems and repair and _mend_indexes(database):
        problems = [Problem(found.what, found.where, repaired=True) for found in problems]
    elif problems:
        return [Problem(f"{found.what}; {_FROM_BACKUP}", found.where) for found in problems]
    transaction = database.writing() if repair else database.reading()
    with transaction as connection:
        found = list(_findings(connection))
        if repair and found:
            _mend(connection, found)
    # A row may be wrong in several ways; the first says where to look.
    rows = {finding.where: finding for finding in reversed(found)}
    problems += [Problem(rows[where].what, where, repair) for where in reversed(rows)]
    return problems


def _structure(database: Database) -> list[Problem]:
    """What SQLite itself finds wrong with the pages and indexes of the file."""
    name = database.path.name
    try:
        with database.reading() as connection:
            lines = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
    except LibraryError as error:
        return [Problem(str(error.fields["reason"]), name)]
    return [Problem(str(line), name) for line in lines if line != "ok"]


def _mend_indexes(database: Database) -> bool:
    """Makes SQLite's indexes again from the tables; True if nothing is wrong then."""
    try:
        with database.writing() as connection:
            connection.exec_driver_sql("REINDEX")
    except LibraryError:
        return False
    return not _structure(database)


def _findings(connection: Connection) -> Iterator[_Finding]:
    yield from _spaces(connection)
    yield from _items(connection)
    yield from _embeddings(connection)
    yield from _loose_ends(connection)
    yield from _meta(connection)


def _spaces(connection: Connection) -> Iterator[_Finding]:
    rows = connection.exec_driver_sql(
        "SELECT id, model, weights_sha256, preprocess, dim FROM space"
    )
    for identity, *fields in rows:
        try:
            fits = EmbeddingSpace(*fields).id == identity
        except (TypeError, ValueError):
            fits = False
        if not fits:
            what = "what it says of its model does not fit its id: the row was damaged on the disk"
            yield _Finding(f"space {identity}", what, identity, ("DELETE FROM space WHERE id = ?",))


def _items(connection: Connection) -> Iterator[_Finding]:
    rows = connection.exec_driver_sql(
        """SELECT id, hash, width, height, format, bytes, taken_at, metadata,
            kind, parent_id, time_s, checksum FROM item"""
    )
    for identity, *fields, checksum in rows:
        if item_checksum(*fields) != checksum:
            what = "its checksum does not fit: the row was damaged on the disk"
            # Without its file rows the next index run reads and embeds those files again.
            statements = ("DELETE FROM file WHERE item_id = ?", "DELETE FROM item WHERE id = ?")
            yield _Finding(f"item {identity}", what, identity, statements)


def _embeddings(connection: Connection) -> Iterator[_Finding]:
    rows = connection.exec_driver_sql(
        """SELECT embedding.id, item_id, space_id, vector, checksum, dim
        FROM embedding LEFT JOIN space ON space.id = space_id"""
    )
    for identity, item, space, vector, checksum, dim in rows:
        if not isinstance(vector, bytes) or embedding_checksum(item, space, vector) != checksum:
            what = f"the vector of item {item} was damaged on the disk"
        elif dim is not None and (trouble := _vector_trouble(vector, dim)):
            what = f"the vector of item {item} cannot be used: {trouble}"
        else:
            continue
        statements = ("DELETE FROM embedding WHERE id = ?",)
        yield _Finding(f"embedding {identity}", what, identity, statements)


def _vector_trouble(vector: bytes, dim: Any) -> str | None:
    try:
        from_bytes([vector], dim)
    except (TypeError, VectorError) as error:
        return str(error)
    return None


def _loose_ends(connection: Connection) -> Iterator[_Finding]:
    for table, row, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall():
        what = f"points to a row of {parent} that is not there"
        statement = _LOOSE_ENDS.get((table, parent), _LOOSE_TAGS)
        yield _Finding(f"{table} {row or ''}".rstrip(), what, row, (statement,))


def _meta(connection: Connection) -> Iterator[_Finding]:
    row: Any = connection.exec_driver_sql("SELECT value FROM meta WHERE key = 'revision'").first()
    if row is None or not str(row[0]).isdecimal():
        yield _Finding("meta revision", "the revision is not a number", None, ())


def _mend(connection: Connection, findings: list[_Finding]) -> None:
    for finding in findings:
        for statement in finding.statements:
            connection.exec_driver_sql(statement, (finding.row,))
    # The caches were made from the damaged rows: a new revision has them made again.
    connection.exec_driver_sql(
        """INSERT INTO meta VALUES ('revision', '1') ON CONFLICT (key) DO UPDATE
        SET value = CASE WHEN value GLOB '[1-9]*' AND value NOT GLOB '*[^0-9]*'
            THEN value + 1 ELSE 1 END"""
    )
    connection.exec_driver_sql(
        "INSERT OR REPLACE INTO meta VALUES ('mark', lower(hex(randomblob(8))))"
    )
