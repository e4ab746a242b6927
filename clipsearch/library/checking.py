"""Checking a library: SQLite's own tests, then what every row says of itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from clipsearch.errors import LibraryError, VectorError
from clipsearch.library.database import Database, driver_of
from clipsearch.library.records import Problem
from clipsearch.library.said import OverDriver, said_of
from clipsearch.library.schema import concept_checksum, embedding_checksum, item_checksum
from clipsearch.vectors import EmbeddingSpace, from_bytes

_FROM_BACKUP = "cannot be mended: restore a backup, or delete the library and index again"
# Mends a row that points to a row that is not there, by its table and the table it points to; from
# other tables it is removed.
_LOOSE_ENDS = {
    # It is read again.
    ("file", "item"): "UPDATE file SET item_id = NULL, mtime_ns = -1 WHERE id = ?",
    ("file", "file"): "UPDATE file SET moved_to = NULL WHERE id = ?",
}


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
    if repair:
        with database.writing() as connection:
            found = list(_findings(driver_of(connection)))
            if found:
                _mend(driver_of(connection), found)
    else:
        with database.reading() as driver:
            found = list(_findings(driver))
    # A row may be wrong in several ways; the first says where to look.
    rows = {finding.where: finding for finding in reversed(found)}
    problems += [Problem(rows[where].what, where, repair) for where in reversed(rows)]
    return problems


def _structure(database: Database) -> list[Problem]:
    """What SQLite itself finds wrong with the pages and indexes of the file."""
    name = database.path.name
    try:
        with database.reading() as connection:
            lines = connection.execute("PRAGMA integrity_check").fetchall()
    except LibraryError as error:
        return [Problem(str(error.fields["reason"]), name)]
    return [Problem(str(line), name) for (line,) in lines if line != "ok"]


def _mend_indexes(database: Database) -> bool:
    """Makes SQLite's indexes again from the tables; True if nothing is wrong then."""
    try:
        with database.writing() as connection:
            connection.exec_driver_sql("REINDEX")
    except LibraryError:
        return False
    return not _structure(database)


def _findings(connection: sqlite3.Connection) -> Iterator[_Finding]:
    yield from _spaces(connection)
    yield from _items(connection)
    yield from _embeddings(connection)
    yield from _concepts(connection)
    yield from _loose_ends(connection)
    yield from _words(connection)
    yield from _meta(connection)


def _spaces(connection: sqlite3.Connection) -> Iterator[_Finding]:
    rows = connection.execute("SELECT id, model, weights_sha256, preprocess, dim FROM space")
    for identity, *fields in rows:
        try:
            fits = EmbeddingSpace(*fields).id == identity
        except (TypeError, ValueError):
            fits = False
        if not fits:
            what = "what it says of its model does not fit its id: the row was damaged on the disk"
            yield _Finding(f"space {identity}", what, identity, ("DELETE FROM space WHERE id = ?",))


def _items(connection: sqlite3.Connection) -> Iterator[_Finding]:
    rows = connection.execute(
        """SELECT id, hash, width, height, format, bytes, taken_at, metadata,
            kind, parent_id, time_s, checksum FROM item"""
    )
    for identity, *fields, checksum in rows:
        if item_checksum(*fields) != checksum:
            what = "its checksum does not fit: the row was damaged on the disk"
            # The next index run reads and embeds its files again.
            statements: tuple[str, ...] = (
                "DELETE FROM file WHERE item_id = ?",
                "DELETE FROM item WHERE id = ?",
            )
            if said_of(OverDriver(connection), identity):
                statements = _emptied(identity)  # and gives the new item what this one holds
            yield _Finding(f"item {identity}", what, identity, statements)


def _emptied(item: int) -> tuple[str, ...]:
    """Makes a damaged item one of an unknown content: what a person said of it has to stay."""
    fields = (f"damaged-{item}", 0, 0, "", 0, None, "{}", "picture", None, None)
    return (
        "DELETE FROM embedding WHERE item_id = ?",
        "DELETE FROM item WHERE parent_id = ?",
        f"""UPDATE item SET hash = '{fields[0]}', width = 0, height = 0, format = '', bytes = 0,
            taken_at = NULL, metadata = '{{}}', kind = 'picture', parent_id = NULL, time_s = NULL,
            checksum = {item_checksum(*fields)} WHERE id = ?""",  # noqa: S608 - our own numbers
        "UPDATE file SET mtime_ns = -1 WHERE item_id = ?",
    )


def _embeddings(connection: sqlite3.Connection) -> Iterator[_Finding]:
    rows = connection.execute(
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


def _concepts(connection: sqlite3.Connection) -> Iterator[_Finding]:
    rows = connection.execute(
        """SELECT concept_vector.id, hash, space_id, vector, checksum, dim
        FROM concept_vector LEFT JOIN space ON space.id = space_id"""
    )
    for identity, content, space, vector, checksum, dim in rows:
        is_whole = (
            isinstance(vector, bytes) and concept_checksum(content, space, vector) == checksum
        )
        if not is_whole or (dim is not None and _vector_trouble(vector, dim)):
            what = f"the vector of photo {content}, which teaches a name, was damaged on the disk"
            statements = ("DELETE FROM concept_vector WHERE id = ?",)
            yield _Finding(f"concept_vector {identity}", what, identity, statements)


def _vector_trouble(vector: bytes, dim: Any) -> str | None:
    try:
        from_bytes([vector], dim)
    except (TypeError, VectorError) as error:
        return str(error)
    return None


def _loose_ends(connection: sqlite3.Connection) -> Iterator[_Finding]:
    for table, row, parent, key in connection.execute("PRAGMA foreign_key_check").fetchall():
        what = f"points to a row of {parent} that is not there"
        statement = _LOOSE_ENDS.get((table, parent))
        if statement is None and row is not None:
            statement = f"DELETE FROM {table} WHERE rowid = ?"  # noqa: S608 - our own tables
        elif statement is None:  # a table without row numbers
            keys = connection.execute(f"PRAGMA foreign_key_list({table})").fetchall()
            column = next(name for number, _, _, name, *_ in keys if number == key)
            statement = f"""DELETE FROM {table} WHERE ? IS NULL
                AND {column} NOT IN (SELECT id FROM {parent})"""  # noqa: S608 - our own tables
        yield _Finding(f"{table} {row or ''}".rstrip(), what, row, (statement,))


def _words(connection: sqlite3.Connection) -> Iterator[_Finding]:
    """What photos and sidecars say, and what was carried over, where it is no JSON any more."""
    again = "UPDATE file SET mtime_ns = -1 WHERE item_id = ?"
    for (item,) in connection.execute("SELECT item_id FROM own_words WHERE NOT json_valid(said)"):
        what = "what the photo says itself was damaged on the disk"
        yield _Finding(
            f"own_words {item}", what, item, ("DELETE FROM own_words WHERE item_id = ?", again)
        )
    again = "UPDATE file SET mtime_ns = -1 WHERE id = ?"
    rows = connection.execute(
        "SELECT DISTINCT file_id FROM sidecar WHERE NOT json_valid(said)"
    ).fetchall()
    for (file,) in rows:
        what = "what a sidecar says was damaged on the disk"
        yield _Finding(
            f"sidecar {file}", what, file, ("DELETE FROM sidecar WHERE file_id = ?", again)
        )
    for (row,) in connection.execute("SELECT id FROM carried WHERE NOT json_valid(words)"):
        what = "what was carried over was damaged on the disk: it cannot be taken back"
        yield _Finding(f"carried {row}", what, row, ("DELETE FROM carried WHERE id = ?",))


def _meta(connection: sqlite3.Connection) -> Iterator[_Finding]:
    row: Any = connection.execute("SELECT value FROM meta WHERE key = 'revision'").fetchone()
    if row is None or not str(row[0]).isdecimal():
        yield _Finding("meta revision", "the revision is not a number", None, ())


def _mend(connection: sqlite3.Connection, findings: list[_Finding]) -> None:
    for finding in findings:
        for statement in finding.statements:
            connection.execute(statement, (finding.row,))
    # The caches were made from the damaged rows: a new revision has them made again.
    connection.execute(
        """INSERT INTO meta VALUES ('revision', '1') ON CONFLICT (key) DO UPDATE
        SET value = CASE WHEN value GLOB '[1-9]*' AND value NOT GLOB '*[^0-9]*'
            THEN value + 1 ELSE 1 END"""
    )
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('mark', lower(hex(randomblob(8))))")
