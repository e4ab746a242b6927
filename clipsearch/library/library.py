"""Library: the only door to the database, and everything that can be read through it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from clipsearch.errors import LibraryCorruptError, LibraryNotFoundError, StorageError, VectorError
from clipsearch.library.albums import Albums
from clipsearch.library.backing_up import back_up
from clipsearch.library.carrying import Carryings
from clipsearch.library.checking import check_library
from clipsearch.library.concepts import Concepts
from clipsearch.library.database import Database
from clipsearch.library.facts import Facts
from clipsearch.library.failures import COUNT_SIDECARS, list_failures, sidecar_failures
from clipsearch.library.folders import make_folder
from clipsearch.library.lock import writer_lock
from clipsearch.library.opinions import Opinions
from clipsearch.library.paths import from_column, relative_to, spellings, to_column
from clipsearch.library.reachable import places_of_items
from clipsearch.library.records import (
    CheckReport,
    Counts,
    FailureRecord,
    FileRecord,
    ItemRecord,
    RootRecord,
    SpaceRecord,
    Statistics,
    Words,
)
from clipsearch.library.spaces import Spaces
from clipsearch.library.statistics import count_statistics
from clipsearch.library.tags import TagReader
from clipsearch.library.writing import LibraryWriter
from clipsearch.user_paths import expand_user
from clipsearch.vectors import Ids, Matrix, from_bytes

_SETTING = "setting."
_STATE = """SELECT group_concat(value, '-') FROM
    (SELECT value FROM meta WHERE key IN ('revision', 'mark') ORDER BY key DESC)"""
_VECTORS = "SELECT item_id, vector FROM embedding WHERE space_id = :space ORDER BY item_id"


class Library:
    """A library folder, opened. Use it as a context manager; reads are thread-safe."""

    def __init__(self, path: Path, database: Database) -> None:
        self.path = path
        self.albums = Albums(database)
        self.carryings = Carryings(database)
        self.concepts = Concepts(database)
        self.opinions = Opinions(database)
        self.models = Spaces(database)
        self._database = database

    @classmethod
    def open(cls, path: Path, *, create: bool = False) -> Library:
        """Opens a library folder; ``create`` makes it where there is none.

        Raises LibraryNotFoundError, LibraryVersionError, LibraryCorruptError, StorageError.
        """
        path = expand_user(path).absolute()
        file = path / "library.db"
        is_new = not _exists(file)
        if is_new and not create:
            raise LibraryNotFoundError(path=path)
        if is_new:
            make_folder(path)
        database = Database(file)
        try:
            database.migrate(create=create)
        except BaseException:
            database.close()
            raise
        return cls(path, database)

    def close(self) -> None:
        self._database.close()

    def __enter__(self) -> Library:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # --- the library itself -----------------------------------------------------------------

    @property
    def revision(self) -> int:
        """Grows by one with every change of items, vectors or files."""
        value = self._scalar("SELECT value FROM meta WHERE key = 'revision'")
        try:
            return int(value)
        except (TypeError, ValueError):
            reason = f"its revision is {value!r}, not a number"
            raise LibraryCorruptError(path=self.path, reason=reason) from None

    @property
    def state(self) -> str:
        """Names what is committed: never the same twice, also not after restoring a backup."""
        return str(self._scalar(_STATE))

    def settings(self) -> dict[str, str]:
        """The library's own settings, such as its model."""
        rows = self._rows(
            "SELECT substr(key, :skip), value FROM meta WHERE key LIKE 'setting.%'",
            skip=len(_SETTING) + 1,
        )
        return dict(rows)

    def set_setting(self, name: str, value: str) -> None:
        with self._database.writing() as connection:
            connection.exec_driver_sql(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)", (_SETTING + name, value)
            )

    def counts(self) -> Counts:
        row = self._rows(
            """SELECT (SELECT count(DISTINCT item_id) FROM present_file),
                count(*) FILTER (WHERE item_id IS NOT NULL AND missing_since IS NULL),
                count(*) FILTER (WHERE missing_since IS NOT NULL),
                count(*) FILTER (WHERE failure IS NOT NULL AND missing_since IS NULL),
                (SELECT count(*) FROM embedding JOIN space ON space.id = space_id WHERE active),
                (SELECT count(DISTINCT item_id) FROM file JOIN item ON item.id = item_id
                    WHERE kind = 'video' AND missing_since IS NULL),
                count(*) FILTER (WHERE failure IS NOT NULL AND item_id IS NOT NULL
                    AND missing_since IS NULL),
                (SELECT count(DISTINCT file_id) FROM carried
                    WHERE state = 'carried' AND words <> '[]')
            FROM file"""
        )[0]
        counts = Counts(*row)
        return replace(counts, failures=counts.failures + self._scalar(COUNT_SIDECARS))

    def statistics(self) -> Statistics:
        """Counts by format, year, camera and kind of failure, and sizes on the disk."""
        with self._database.reading() as connection:
            return count_statistics(connection, self.path)

    def describe_itself(self) -> None:
        """Writes README.txt anew, which may be of a version that knew less."""
        with suppress(StorageError):
            make_folder(self.path)

    def check(self, *, repair: bool = False) -> CheckReport:
        """Verifies every page, row, checksum and vector; ``repair`` removes what is damaged.

        What was removed is read and embedded again by the next index run.
        """
        if not repair:
            return CheckReport(check_library(self._database, repair=False))
        with writer_lock(self.path):
            return CheckReport(check_library(self._database, repair=True))

    def backup(self, destination: Path) -> None:
        """Writes a consistent copy of the database, even while it is being written.

        StorageError if ``destination`` exists or cannot be written.
        """
        back_up(self._database, destination)

    @contextmanager
    def writer(self) -> Iterator[LibraryWriter]:
        """The one writer; LibraryLockedError if another process has it. Readers go on."""
        with writer_lock(self.path):
            yield LibraryWriter(self.path, self._database)

    def shrink(self) -> None:
        """Gives the space of deleted rows back to the disk; readers go on meanwhile.

        It takes as much free space as the rest of the database. LibraryLockedError as in
        ``writer``, StorageError if the disk is too full.
        """
        with writer_lock(self.path):
            self._database.shrink()

    @property
    def tags(self) -> TagReader:
        """Tags, answers about them, and the sidecars they were written to."""
        return TagReader(self._database)

    # --- spaces and vectors -----------------------------------------------------------------

    def spaces(self) -> list[SpaceRecord]:
        """All spaces, in the order they were added."""
        return self.models.all()

    def active_space(self) -> SpaceRecord | None:
        """The space that searches use; None before the first picture."""
        return next((space for space in self.spaces() if space.active), None)

    def vectors(self, space_id: str) -> tuple[Ids, Matrix]:
        """All vectors of a space: (n,) item ids in ascending order, (n, dim) unit rows."""
        return self._matrix(space_id, self._rows(_VECTORS, space=space_id))

    def snapshot(self, space_id: str) -> tuple[str, Ids, Matrix]:
        """The state, and the vectors of a space as they are in exactly that state."""
        with self._database.reading() as connection:
            state = str(_fetch(connection, _STATE, {})[0][0])
            rows = _fetch(connection, _VECTORS, {"space": space_id})
        return state, *self._matrix(space_id, rows)

    def vectors_of(self, space_id: str, item_ids: Sequence[int]) -> tuple[Ids, Matrix]:
        """The vectors that a space has of some items, in ascending order of the ids."""
        rows = self._rows(
            """SELECT item_id, vector FROM embedding WHERE space_id = :space
            AND item_id IN (SELECT value FROM json_each(:ids)) ORDER BY item_id""",
            space=space_id,
            ids=_as_json(item_ids),
        )
        return self._matrix(space_id, rows)

    def embedded_ids(self, space_id: str) -> set[int]:
        """The items that have a vector in a space."""
        rows = self._rows("SELECT item_id FROM embedding WHERE space_id = :space", space=space_id)
        return {row[0] for row in rows}

    def _matrix(self, space_id: str, rows: Sequence[Any]) -> tuple[Ids, Matrix]:
        dim = self._scalar("SELECT dim FROM space WHERE id = :space", space=space_id)
        ids = np.array([row[0] for row in rows], dtype=np.int64)
        try:
            return ids, from_bytes([row[1] for row in rows], int(dim or 0))
        except VectorError as error:
            raise LibraryCorruptError(path=self.path, reason=str(error)) from error

    # --- roots, files, items ----------------------------------------------------------------

    def roots(self) -> list[RootRecord]:
        rows = self._rows("SELECT id, path FROM root ORDER BY id")
        return [RootRecord(row[0], Path(from_column(row[1]))) for row in rows]

    def files(self, root_id: int) -> list[FileRecord]:
        """Every file row of a root, also of missing and unreadable files, by relative path."""
        rows = self._rows(
            """SELECT id, root_id, relpath, size, mtime_ns, inode, item_id, missing_since,
                failure, sidecars
            FROM file WHERE root_id = :root ORDER BY relpath""",
            root=root_id,
        )
        return [FileRecord(row[0], row[1], from_column(row[2]), *row[3:]) for row in rows]

    def failures(self) -> list[FailureRecord]:
        """The files that are there and could not be read, sidecars among them, by path."""
        with self._database.reading() as connection:
            return list_failures(connection)

    def sidecar_failures(self, root_id: int) -> dict[tuple[str, str], str]:
        """Why sidecars could not be read, by the relative path of their photo and their name."""
        with self._database.reading() as connection:
            return sidecar_failures(connection, root_id)

    def items(self, ids: Sequence[int]) -> dict[int, ItemRecord]:
        """The items with these ids; unknown ids are left out."""
        rows = self._rows(
            """SELECT id, hash, width, height, format, bytes, taken_at, metadata,
                kind, parent_id, time_s
            FROM item WHERE id IN (SELECT value FROM json_each(:ids))""",
            ids=_as_json(ids),
        )
        return {row[0]: self._item(row) for row in rows}

    def _item(self, row: Sequence[Any]) -> ItemRecord:
        try:
            return ItemRecord(*[*row[:7], json.loads(row[7]), *row[8:]])
        except (TypeError, ValueError) as error:
            reason = f"the metadata of item {row[0]} cannot be read"
            raise LibraryCorruptError(path=self.path, reason=reason) from error

    def words_of(self, item: int) -> Words:
        """The tags and captions of an item; a moment has those of its video."""
        tags = self._rows(
            """SELECT name, origin FROM item_tag JOIN tag ON tag.id = tag_id WHERE source = 'user'
            AND item_id = (SELECT coalesce(parent_id, id) FROM item WHERE id = :item)
            ORDER BY name, origin""",
            item=item,
        )
        captions = self._rows(
            """SELECT text, source FROM caption
            WHERE item_id = (SELECT coalesce(parent_id, id) FROM item WHERE id = :item)
            ORDER BY id""",
            item=item,
        )
        return Words(tuple(map(tuple, tags)), tuple(map(tuple, captions)))

    def item_by_hash(self, hashes: Sequence[str]) -> dict[str, int]:
        """The ids of the items with these content hashes; unknown hashes are left out."""
        rows = self._rows(
            "SELECT hash, id FROM item WHERE hash IN (SELECT value FROM json_each(:hashes))",
            hashes=json.dumps(list(hashes)),
        )
        return {row[0]: row[1] for row in rows}

    def unproved_live_photos(self) -> set[int]:
        """Videos that earlier versions took for the moving half of a photo by their name alone."""
        rows = self._rows(
            """SELECT id FROM item WHERE kind = 'video' AND parent_id IS NULL
            AND json_extract(metadata, '$.live_photo')
            AND json_extract(metadata, '$.live_photo_of') IS NULL"""
        )
        return {row[0] for row in rows}

    def paths(self, ids: Sequence[int]) -> dict[int, list[Path]]:
        """The files of each item that were there, those that can be opened now first.

        Of each kind they are sorted; items without any are left out.
        """
        rows = self._rows(
            # Not through present_file, which would be walked as a whole for a few items.
            """SELECT item.id, path, relpath, failure IS NOT NULL FROM item
            JOIN file ON file.item_id = coalesce(item.parent_id, item.id)
            JOIN root ON root.id = root_id
            WHERE item.id IN (SELECT value FROM json_each(:ids))
            AND missing_since IS NULL AND item.kind <> 'video'""",
            ids=_as_json(ids),
        )
        return places_of_items(rows)

    def looks(self, item: int) -> dict[Path, tuple[int, int, int]]:
        """Size, time in ns and inode with which each file of an item was read last.

        Without those that could not be read since: what lies there is not the item's content.
        """
        rows = self._rows(
            """SELECT path, relpath, size, mtime_ns, inode FROM file JOIN root ON root.id = root_id
            WHERE failure IS NULL
            AND item_id = (SELECT coalesce(parent_id, id) FROM item WHERE id = :item)""",
            item=item,
        )
        return {_joined(root, relpath): tuple(look) for root, relpath, *look in rows}

    def times(self, ids: Sequence[int]) -> dict[int, float]:
        """Where in their videos the moments among these items are, in seconds."""
        rows = self._rows(
            """SELECT id, time_s FROM item WHERE time_s IS NOT NULL
            AND id IN (SELECT value FROM json_each(:ids))""",
            ids=_as_json(ids),
        )
        return {row[0]: row[1] for row in rows}

    def item_at(self, path: Path) -> int | None:
        """The item of an indexed file, or None; of a video, its first moment."""
        for wanted, root in product(spellings(path), self.roots()):
            relpath = relative_to(wanted, root.path)
            if relpath:
                item = self._scalar(
                    """SELECT min(item_id) FROM present_file
                    WHERE root_id = :root AND relpath = :rel""",
                    root=root.id,
                    rel=to_column(relpath),
                )
                if item is not None:
                    return int(item)
        return None

    def last_item(self) -> int:
        """The greatest id of an item; those that come later are greater."""
        return int(self._scalar("SELECT coalesce(max(id), 0) FROM item"))

    def present_items(self) -> Ids:
        """The pictures and moments that have at least one file that is there, ascending."""
        rows = self._rows("SELECT DISTINCT item_id FROM present_file ORDER BY item_id")
        return np.array([row[0] for row in rows], dtype=np.int64)

    def facts(self) -> Facts:
        """What filters look at, as it is now."""
        return Facts(self._database.reading)

    # --- plumbing ---------------------------------------------------------------------------

    def _rows(self, statement: str, **values: Any) -> Sequence[Any]:
        with self._database.reading() as connection:
            return _fetch(connection, statement, values)

    def _scalar(self, statement: str, **values: Any) -> Any:
        rows = self._rows(statement, **values)
        return rows[0][0] if rows else None


def _fetch(connection: sqlite3.Connection, statement: str, values: dict[str, Any]) -> Sequence[Any]:
    return connection.execute(statement, values).fetchall()


def _as_json(ids: Sequence[int]) -> str:
    return json.dumps([int(identity) for identity in ids])


def _joined(root: str | bytes, relpath: str | bytes) -> Path:
    return Path(from_column(root)) / from_column(relpath)


def _exists(file: Path) -> bool:
    try:
        return file.exists()
    except OSError as error:
        raise StorageError(
            path=file, reason=error.strerror or error, advice="check the folder's permissions"
        ) from error
