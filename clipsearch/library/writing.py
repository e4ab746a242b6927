"""LibraryWriter: every change of a library, each in one transaction."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipsearch.errors import StorageError, VectorError
from clipsearch.library.carrying import carry_on, follow_files, known_rows, take_back
from clipsearch.library.database import Database
from clipsearch.library.descriptions import (
    describe_items,
    items_of,
    keep_sidecars,
    unite_words,
)
from clipsearch.library.failpoints import failpoint
from clipsearch.library.forgetting import forget_path
from clipsearch.library.name_dating import date_all_by_names, date_by_names
from clipsearch.library.paths import to_column
from clipsearch.library.records import (
    Batch,
    Carried,
    FileState,
    ForgetReport,
    NewItem,
    RootRecord,
    SpaceRecord,
)
from clipsearch.library.roots import covering_root, insert_root, repoint_root, set_inodes
from clipsearch.library.schema import embedding_checksum, item_checksum
from clipsearch.library.spaces import activate, drop, keep_parts, name_of, plan_switch
from clipsearch.library.tag_writing import TagWriter
from clipsearch.model_names import MODELS, unmarked
from clipsearch.user_paths import expand_user
from clipsearch.vectors import EmbeddingSpace, require_unit_rows, to_bytes

if TYPE_CHECKING:
    from sqlalchemy import Connection


class LibraryWriter:
    """Made by ``Library.writer``, which holds the lock for it."""

    def __init__(self, path: Path, database: Database) -> None:
        self._path = path
        self._database = database
        self.tags = TagWriter(database)

    def add_root(self, path: Path) -> RootRecord:
        """Adds a folder, or returns the root that covers it already.

        A folder above known roots takes them over: their files keep their items.
        """
        path = expand_user(path).resolve()
        with self._database.writing() as connection:
            root = covering_root(connection, path)
            if root is None:
                root = insert_root(connection, path, _now())
                _next_revision(connection)
            return root

    def move_root(self, old: Path, new: Path, *, force: bool = False) -> RootRecord:
        """Says that a root lies elsewhere now; its files keep their items, vectors and tags.

        ``old`` need not exist any more. A ``new`` that is a root already and holds the same
        contents becomes one with it, with ``force`` whatever it holds. NotInLibraryError if ``old``
        is no root of the library, LibraryError if ``new`` overlaps with one otherwise.
        """
        new = expand_user(new).resolve()
        with self._database.writing() as connection:
            root = repoint_root(connection, self._path, old, new, force=force)
            _next_revision(connection)
            return root

    def add_space(
        self,
        space: EmbeddingSpace,
        *,
        address: str,
        runtime: str,
        precision: str,
        parts: Mapping[str, str] | None = None,
    ) -> SpaceRecord:
        """Adds a space, not active, or updates the address of a known one.

        A mark in the address (see ``model_names``) is not part of it. The runtime and precision
        that first filled a space stay with it. ``parts`` are checksums of what its model's
        configuration says, to tell later what has changed.
        """
        origin, _ = unmarked(address)
        with self._database.writing() as connection:
            connection.exec_driver_sql(
                """INSERT INTO space
                (id, model, weights_sha256, preprocess, dim, address, runtime, precision, added_at)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
                ON CONFLICT (id) DO UPDATE SET address = excluded.address""",
                (
                    space.id,
                    space.model,
                    space.weights_sha256,
                    space.preprocess,
                    space.dim,
                    origin,
                    runtime,
                    precision,
                    _now(),
                ),
            )
            keep_parts(connection, space.id, parts or {})
            row = connection.exec_driver_sql(
                "SELECT runtime, precision, active FROM space WHERE id = ?", (space.id,)
            ).one()
            embedded = _scalar(
                connection, "SELECT count(*) FROM embedding WHERE space_id = ?", space.id
            )
            name = name_of(connection, space.id)
        return SpaceRecord(space.id, space, name, row[0], row[1], embedded, bool(row[2]), origin)

    def activate_space(self, space_id: str) -> None:
        """Makes a space the one that searches use, and its model the library's."""
        failpoint("before-switch")
        with self._database.writing() as connection:
            activate(connection, space_id, self._path)
            failpoint("inside-switch")
            _next_revision(connection)

    def plan_switch(self, space_id: str | None) -> None:
        """Says which space searches are to use once it is full; None withdraws what was said."""
        with self._database.writing() as connection:
            plan_switch(connection, space_id)

    def drop_space(self, space_id: str) -> int:
        """Removes a space with its vectors, cut-offs, search index, and the library's own copy of
        its model; returns how many vectors.

        ModelChangeError for the one that searches use. The database keeps its size until
        ``Library.shrink``.
        """
        with self._database.writing() as connection:
            vectors = drop(connection, space_id)
            failpoint("inside-drop")
        failpoint("after-drop")
        shutil.rmtree(self._path / "index" / space_id, ignore_errors=True)
        for copy in (self._path / MODELS).glob(f"*-{space_id}"):
            shutil.rmtree(copy, ignore_errors=True)
        return vectors

    def commit(self, batch: Batch) -> None:
        """Writes a batch whole or not at all: items, vectors, file rows, and the next revision.

        Vectors alone of a space that is not searched leave the revision, so that a fill of hours
        does not have the search index made anew every few seconds.
        VectorError for vectors that are not finite unit rows of the space's dimension, or whose
        content hash is neither known nor new.
        """
        failpoint("before-commit")
        with self._database.writing() as connection:
            last_known = batch.last_known
            if last_known is None:
                last_known = _scalar(connection, "SELECT coalesce(max(id), 0) FROM item")
            _insert_items(connection, batch.new_items)
            describe_items(connection, batch.descriptions)
            if batch.vectors is not None:
                _insert_vectors(connection, *batch.vectors)
            failpoint("inside-commit")
            touched = items_of(connection, batch.files, batch.missing)
            before = known_rows(connection, batch.files)
            _upsert_files(connection, batch.files)
            failpoint("inside-carrying")
            follow_files(connection, batch.files, before, last_known, batch.leaving, _now())
            keep_sidecars(connection, batch.files)
            touched |= items_of(connection, batch.files, ())
            set_inodes(connection, batch.inodes)
            connection.exec_driver_sql(
                """UPDATE file SET missing_since = ? WHERE missing_since IS NULL
                AND id IN (SELECT value FROM json_each(?))""",
                (_now(), json.dumps(batch.missing)),
            )
            unite_words(connection, touched)
            date_by_names(connection, _items_of(connection, batch))
            beside = _only_beside(connection, batch)
            if beside is None:
                _next_revision(connection)
        failpoint("after-commit")
        if beside is not None:  # its index, if anyone asked for it, would pass for current
            shutil.rmtree(self._path / "index" / beside, ignore_errors=True)

    def date_all_by_names(self) -> None:
        """Gives items of before names were read the day that their files' names tell, once."""
        with self._database.writing() as connection:
            if date_all_by_names(connection):
                _next_revision(connection)

    def forget(self, path: Path) -> ForgetReport:
        """Removes a file, a folder, or whole roots from the library, and their thumbnails.

        An item goes, with its vectors, tags and captions, unless another path holds it, and so do
        earlier contents of the path. NotInLibraryError if nothing of the path is known. Nothing on
        the disk but thumbnails and the search index, both caches, is touched.
        """
        with self._database.writing() as connection:
            report = forget_path(connection, self._path, path)
            _next_revision(connection)
            # Before the commit: a crash must not leave pictures behind that were forgotten.
            self._remove_caches({row[0] for row in _all(connection, "SELECT hash FROM item")})
        self._database.checkpoint()
        return report

    def take_back(self, carried: Carried) -> None:
        """Has what a person said of a photo back with the picture that it was before."""
        with self._database.writing() as connection:
            take_back(connection, carried.id)
            _next_revision(connection)

    def carry_on(self, carried: Carried) -> None:
        """Gives what was kept with an earlier picture to the one that its path has now."""
        with self._database.writing() as connection:
            carry_on(connection, carried.id, _now())
            _next_revision(connection)

    def _remove_caches(self, kept: set[str]) -> None:
        """Removes all pictures but those of the ``kept`` contents, and the search index."""
        try:
            for file in (*self._path.glob("thumbs/*/*"), *self._path.glob("views/*/*")):
                if file.name.split(".")[0] not in kept:
                    file.unlink(missing_ok=True)
        except OSError as error:
            raise StorageError(
                path=error.filename or self._path,
                reason=error.strerror or error,
                advice="check the folder's permissions",
            ) from error
        shutil.rmtree(self._path / "index", ignore_errors=True)


def _items_of(connection: Connection, batch: Batch) -> list[int]:
    """The items whose names or words a batch changes."""
    hashes = [file.content_hash for file in batch.files if file.content_hash is not None]
    hashes += [description.content_hash for description in batch.descriptions]
    rows = _all(
        connection,
        """SELECT id FROM item WHERE hash IN (SELECT value FROM json_each(?)) UNION
        SELECT item_id FROM file WHERE item_id IS NOT NULL
        AND id IN (SELECT value FROM json_each(?))""",
        json.dumps(hashes),
        json.dumps(batch.missing),
    )
    return [row[0] for row in rows]


def _only_beside(connection: Connection, batch: Batch) -> str | None:
    """The space that is not searched whose vectors are all that a batch holds, or None."""
    alone = Batch(vectors=batch.vectors, leaving=batch.leaving, last_known=batch.last_known)
    if batch.vectors is None or batch != alone:
        return None
    space_id = batch.vectors[0]
    active = _scalar(connection, "SELECT active FROM space WHERE id = ?", space_id)
    return None if active else space_id


def _insert_items(connection: Connection, items: list[NewItem]) -> None:
    for item in items:
        parent = None
        if item.parent_hash is not None:
            parent = _scalar(connection, "SELECT id FROM item WHERE hash = ?", item.parent_hash)
        fields = (
            item.content_hash,
            item.width,
            item.height,
            item.format,
            item.bytes,
            item.taken_at,
            json.dumps(item.metadata, sort_keys=True),
            item.kind,
            parent,
            item.time_s,
        )
        connection.exec_driver_sql(
            """INSERT INTO item (hash, width, height, format, bytes, taken_at, metadata,
                kind, parent_id, time_s, checksum)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (hash) DO NOTHING""",
            (*fields, item_checksum(*fields)),
        )


def _insert_vectors(connection: Connection, space_id: str, hashes: list[str], matrix: Any) -> None:
    dim = _scalar(connection, "SELECT dim FROM space WHERE id = ?", space_id)
    if dim is None:
        raise VectorError(reason=f"the library has no space {space_id}")
    rows = require_unit_rows(matrix, dim)
    if len(rows) != len(hashes):
        raise VectorError(reason=f"{len(rows)} vectors were given for {len(hashes)} pictures")
    if not hashes:
        return
    found = connection.exec_driver_sql(
        "SELECT hash, id FROM item WHERE hash IN (SELECT value FROM json_each(?))",
        (json.dumps(hashes),),
    )
    ids: dict[str, int] = {row[0]: row[1] for row in found}
    if missing := set(hashes) - set(ids):
        raise VectorError(reason=f"no item has the content {missing.pop()}")
    blobs = [to_bytes(row) for row in rows]
    connection.exec_driver_sql(
        """INSERT INTO embedding (item_id, space_id, vector, checksum) VALUES (?, ?, ?, ?)
        ON CONFLICT (space_id, item_id)
        DO UPDATE SET vector = excluded.vector, checksum = excluded.checksum""",
        [
            (ids[name], space_id, blob, embedding_checksum(ids[name], space_id, blob))
            for name, blob in zip(hashes, blobs, strict=True)
        ],
    )


def _upsert_files(connection: Connection, files: list[FileState]) -> None:
    if not files:
        return
    now = _now()
    connection.exec_driver_sql(
        """INSERT INTO file
        (root_id, relpath, size, mtime_ns, inode, item_id, failure, sidecars, changed_at)
        VALUES (?, ?, ?, ?, ?, (SELECT id FROM item WHERE hash = ?), ?, ?, ?)
        ON CONFLICT (root_id, relpath) DO UPDATE SET
            size = excluded.size, mtime_ns = excluded.mtime_ns, inode = excluded.inode,
            item_id = CASE WHEN excluded.failure IS NULL
                THEN excluded.item_id ELSE file.item_id END,
            failure = excluded.failure, sidecars = excluded.sidecars,
            changed_at = excluded.changed_at, missing_since = NULL, moved_to = NULL""",
        [
            (
                file.root_id,
                to_column(file.relpath),
                file.size,
                file.mtime_ns,
                file.inode,
                file.content_hash,
                file.failure,
                file.sidecars,
                now,
            )
            for file in files
        ],
    )
    for file in files:
        if file.moved_from is not None:
            connection.exec_driver_sql(
                """UPDATE file SET moved_to = (SELECT id FROM file AS new
                    WHERE new.root_id = ? AND new.relpath = ?) WHERE id = ?""",
                (file.root_id, to_column(file.relpath), file.moved_from),
            )


def _all(connection: Connection, statement: str, *values: Any) -> list[Any]:
    return list(connection.exec_driver_sql(statement, values).fetchall())


def _scalar(connection: Connection, statement: str, *values: Any) -> Any:
    row = connection.exec_driver_sql(statement, values).first()
    return None if row is None else row[0]


def _next_revision(connection: Connection) -> None:
    """Also draws a new mark: two libraries with one past may have the same revision number."""
    connection.exec_driver_sql("UPDATE meta SET value = value + 1 WHERE key = 'revision'")
    connection.exec_driver_sql(
        "INSERT OR REPLACE INTO meta VALUES ('mark', lower(hex(randomblob(8))))"
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
