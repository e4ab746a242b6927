"""What a person said of a photo stays with it when another program writes its file anew.

The path gets a new item then, and this decides what becomes of the words of the old one. As long as
the old content has a file, words follow the content: a backup that was kept, a swap of two names. A
picture that was edited has them, too. Nothing is ever dropped: each change of a path is a row of
``carried``, with what was given, and can be taken back.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipsearch.library.database import Database
from clipsearch.library.name_dating import keep_day_of_name
from clipsearch.library.paths import from_column, to_column
from clipsearch.library.records import Carried, FileState
from clipsearch.library.said import (
    ALBUMS,
    BEFORE,
    OverDriver,
    Said,
    give,
    move_albums,
    remove,
    said_of,
)

if TYPE_CHECKING:
    from sqlalchemy import Connection

CARRIED, KEPT, SETTLED = "carried", "kept", "settled"  # settled: nothing to say of it any more

_IS_EDIT = "state = 'carried' AND is_same IS NOT 0 AND NOT was_known"
_FAR_S = 1.0  # moments of an edited video count as the same up to this far apart


@dataclass(frozen=True)
class Known:
    """The row of a path as it was before a batch."""

    file: int
    item: int | None
    is_missing: bool


@dataclass(frozen=True)
class Replaced:
    """A path that has another content now. ``was_known``: one of another path, too."""

    file: int
    old: int
    new: int
    is_same: bool | None
    was_known: bool
    was_missing: bool = False


def known_rows(connection: Connection, files: Sequence[FileState]) -> dict[tuple[int, str], Known]:
    """The rows that the library has of some files, by root and relative path.

    Of a new path, to which a file was moved, the row that it left.
    """
    found = {}
    for file in files:
        row = connection.exec_driver_sql(
            """SELECT id, item_id, missing_since FROM file WHERE root_id = ? AND relpath = ?
            UNION ALL SELECT id, item_id, missing_since FROM file WHERE id = ? LIMIT 1""",
            (file.root_id, to_column(file.relpath), file.moved_from),
        ).first()
        if row is not None:
            found[file.root_id, file.relpath] = Known(row[0], row[1], row[2] is not None)
    return found


def follow_files(
    connection: Connection,
    files: Sequence[FileState],
    before: dict[tuple[int, str], Known],
    last_known: int,
    leaving: Collection[int],
    now: str,
) -> None:
    """Decides for each file of a batch whose rows are written; ``before`` says what was there.

    Items above ``last_known`` are new in this run. Rows in ``leaving`` are there and will be marked
    as missing at its end.
    """
    replaced = [
        (file, known)
        for file in files
        if (known := before.get((file.root_id, file.relpath))) is not None
        and known.item is not None
        and file.content_hash is not None
    ]
    for file, known in replaced:
        new = _item(connection, file.content_hash)
        if new is not None and known.item is not None and new != known.item:
            was_known = new <= last_known and (
                any(one.item == new and one.file != known.file for one in before.values())
                or _has_other(connection, new, known.file)
                or _was_at_another(connection, new, known.file)
            )
            row = _row_of(connection, file)
            change = Replaced(row, known.item, new, file.is_same, was_known, known.is_missing)
            follow_change(connection, change, leaving, now)
    if connection.exec_driver_sql("SELECT 1 FROM carried LIMIT 1").first() is not None:
        for file in files:
            item = _item(connection, file.content_hash)
            if item is not None and item <= last_known:
                _come_back(connection, item)


def follow_change(
    connection: Connection, change: Replaced, leaving: Collection[int], now: str
) -> None:
    """Writes down that a path has another content, and gives that what was said of the old one.

    The table of cases is in docs/indexing.md.
    """
    others = connection.exec_driver_sql(
        """SELECT id, missing_since IS NULL FROM file
        WHERE item_id = ? AND id <> ? AND moved_to IS NULL""",
        (change.old, change.file),
    ).fetchall()
    has_file = any(is_there and identity not in leaving for identity, is_there in others)
    is_version = _are_versions(connection, change.old, change.new)
    if has_file:
        state = SETTLED if change.was_known or change.is_same is False else CARRIED
    elif is_version:
        state = CARRIED
    elif _was_replaced_by(connection, change.new, change.old):
        state = KEPT  # the other picture is back: each has its own words
    elif change.was_known:
        state = CARRIED if change.is_same else KEPT
    else:
        state = KEPT if change.was_missing and change.is_same is False else CARRIED
    if is_version or change.is_same:
        keep_day_of_name(connection, change.old, change.new)
    _write(connection, change, state, now, moves=not others)


def take_back(connection: Connection, identity: int) -> None:
    """Has the words of one change back with the old content; what was said since stays."""
    row = _row(connection, identity)
    current = _scalar(connection, "SELECT item_id FROM file WHERE id = ?", row.file)
    for entry in row.entries:
        old, new = entry["from"], entry["to"]
        if row.was_moved:
            give(connection, entry["words"], old, new)
        holders = {new, _latest(connection, new)} | ({current} - {None})
        for holder in holders - {old}:
            remove(connection, entry["given"], holder)
            if row.was_moved:
                move_albums(connection, entry["words"], holder, old)
    _set_state(connection, identity, KEPT)


def carry_on(connection: Connection, identity: int, now: str) -> None:
    """Gives what was kept with an old content to the one that its path has now."""
    row = _row(connection, identity)
    current = _scalar(connection, "SELECT item_id FROM file WHERE id = ?", row.file)
    if current is None or current == row.old:
        return
    _set_state(connection, identity, SETTLED)
    change = Replaced(row.file, row.old, current, row.is_same, was_known=False)
    _write(connection, change, CARRIED, now, moves=not _has_other(connection, row.old, row.file))


class Carryings:
    """Reads what was carried over."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def last(self) -> int:
        """The number of the newest change; later ones are greater."""
        with self._database.reading() as connection:
            return int(connection.execute("SELECT coalesce(max(id), 0) FROM carried").fetchone()[0])

    def said_of(self, items: Sequence[int]) -> int:
        """Of how many of some items a person has said something."""
        with self._database.reading() as connection:
            return sum(bool(said_of(OverDriver(connection), item)) for item in items)

    def all(self, *, after: int = 0) -> list[Carried]:
        """What holds now: the last of each path that was carried, and all that is kept."""
        with self._database.reading() as connection:
            rows = connection.execute(
                """SELECT carried.id, root.path, relpath, from_item, to_item, carried_at, is_same,
                    state, words FROM carried
                JOIN file ON file.id = file_id JOIN root ON root.id = root_id
                WHERE carried.id > ? AND state <> 'settled' AND (state = 'kept' OR carried.id IN (
                    SELECT max(id) FROM carried WHERE state = 'carried' AND words <> '[]'
                    GROUP BY file_id, is_same IS 0))
                ORDER BY carried.id""",
                (after,),
            ).fetchall()
            found = []
            for identity, root, relpath, old, new, at, is_same, state, words in rows:
                counts = _counted(
                    [entry["words"] for entry in json.loads(words)]
                    if state == CARRIED
                    else [said_of(OverDriver(connection), old)]
                )
                if counts:
                    path = Path(from_column(root)) / from_column(relpath)
                    same = None if is_same is None else bool(is_same)
                    found.append(Carried(identity, path, old, new, at, same, state, counts))
        return found


def _counted(words: Sequence[Said]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for said in words:
        for kind, rows in said.items():
            if kind == BEFORE:
                continue
            counts[kind] = counts.get(kind, 0) + len(rows)
    return counts


# --- giving -----------------------------------------------------------------------------------


def _write(connection: Connection, change: Replaced, state: str, now: str, *, moves: bool) -> None:
    """One row of ``carried``; words move where the old content has no row, else are copied.

    Those that went along with another copy already, which was edited, too, are copied from there.
    """
    entries = []
    if state == CARRIED and change.is_same is not False:
        _gather(connection, change.old)
    moves = moves and _latest(connection, change.old) == change.old
    for old, new in _pairs(connection, change.old, change.new) if state == CARRIED else ():
        source = _latest(connection, old) if change.is_same is not False else old
        said = said_of(connection, source) if source != new else {}
        if not moves:
            said.pop(ALBUMS, None)
        if said:
            given = give(connection, said, new, source)
            if moves:
                remove(connection, said, old)
                move_albums(connection, said, old, new)
            entries.append({"from": old, "to": new, "words": said, "given": given})
    connection.exec_driver_sql(
        """INSERT INTO carried (file_id, from_item, to_item, carried_at, is_same, was_known,
            was_moved, state, words) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        (
            change.file,
            change.old,
            change.new,
            now,
            None if change.is_same is None else int(change.is_same),
            int(change.was_known),
            int(moves),
            state,
            json.dumps(entries),
        ),
    )


def _gather(connection: Connection, item: int) -> None:
    """Takes back what another picture got of an item that lives on in an edited copy."""
    rows = connection.exec_driver_sql(
        """SELECT id FROM carried WHERE from_item = ? AND state = 'carried' AND was_moved
        AND (is_same = 0 OR was_known)""",
        (item,),
    ).fetchall()
    for (identity,) in rows:
        take_back(connection, identity)
        _set_state(connection, identity, SETTLED)


def _pairs(connection: Connection, old: int, new: int) -> list[tuple[int, int]]:
    """The items whose words go together: the contents, and of videos their moments by time."""
    pairs = [(old, new)]
    times = "SELECT id, time_s FROM item WHERE parent_id = ? ORDER BY time_s"
    before = connection.exec_driver_sql(times, (old,)).fetchall()
    after = connection.exec_driver_sql(times, (new,)).fetchall() if before else []
    for moment, time_s in before if after else ():
        nearest, its_time_s = min(after, key=lambda row: abs(row[1] - time_s))
        if abs(its_time_s - time_s) <= _FAR_S:
            pairs.append((moment, nearest))
    return pairs


def _come_back(connection: Connection, item: int) -> None:
    """An old content has a file again: what was said of it is its own again.

    Of the same picture it gets what holds now, also what was said of the edited one meanwhile. What
    was given to another picture is taken back from it.
    """
    rows = connection.exec_driver_sql(
        """SELECT id, to_item, is_same, was_known, was_moved, state FROM carried
        WHERE from_item = ? AND (state = 'kept' OR (state = 'carried' AND was_moved))""",
        (item,),
    ).fetchall()
    for identity, new, is_same, was_known, _, state in rows:
        if state == CARRIED and (is_same == 0 or was_known):
            take_back(connection, identity)
        elif state == CARRIED:
            for old, other in _pairs(connection, item, new):
                latest = _latest(connection, other)
                if latest != old:
                    said = said_of(connection, latest)
                    said.pop(ALBUMS, None)
                    give(connection, said, old, latest)
            connection.exec_driver_sql("UPDATE carried SET was_moved = 0 WHERE id = ?", (identity,))
            continue
        _set_state(connection, identity, SETTLED)


def _latest(connection: Connection, item: int) -> int:
    """Where the words of an item went, from change to change; itself if they are still there."""
    seen = {item}
    while True:
        row = connection.exec_driver_sql(
            """SELECT to_item FROM carried WHERE from_item = ? AND state = 'carried' AND was_moved
            ORDER BY id DESC LIMIT 1""",
            (item,),
        ).first()
        if row is None or row[0] in seen:
            return item
        item = row[0]
        seen.add(item)


# --- looking ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    file: int
    old: int
    is_same: bool | None
    was_moved: bool
    entries: list[dict[str, Any]]


def _row(connection: Connection, identity: int) -> _Row:
    file, old, is_same, was_moved, words = connection.exec_driver_sql(
        "SELECT file_id, from_item, is_same, was_moved, words FROM carried WHERE id = ?",
        (identity,),
    ).one()
    same = None if is_same is None else bool(is_same)
    return _Row(file, old, same, bool(was_moved), json.loads(words))


def _are_versions(connection: Connection, one: int, other: int) -> bool:
    """True if edits of one picture lead from an item to the other, either way."""
    found = connection.exec_driver_sql(
        f"""WITH RECURSIVE version (item) AS (
            SELECT ?
            UNION SELECT to_item FROM version JOIN carried ON from_item = item WHERE {_IS_EDIT}
            UNION SELECT from_item FROM version JOIN carried ON to_item = item WHERE {_IS_EDIT})
        SELECT 1 FROM version WHERE item = ?""",  # noqa: S608 - our own constant
        (one, other),
    )
    return found.first() is not None


def _was_replaced_by(connection: Connection, old: int, new: int) -> bool:
    found = connection.exec_driver_sql(
        "SELECT 1 FROM carried WHERE from_item = ? AND to_item = ? AND is_same = 0", (old, new)
    )
    return found.first() is not None


def _has_other(connection: Connection, item: int, file: int) -> bool:
    found = connection.exec_driver_sql(
        "SELECT 1 FROM file WHERE item_id = ? AND id <> ?", (item, file)
    )
    return found.first() is not None


def _was_at_another(connection: Connection, item: int, file: int) -> bool:
    """True if another path had an item before its content changed."""
    found = connection.exec_driver_sql(
        "SELECT 1 FROM carried WHERE from_item = ? AND file_id <> ?", (item, file)
    )
    return found.first() is not None


def _row_of(connection: Connection, file: FileState) -> int:
    row: int = _scalar(
        connection,
        "SELECT id FROM file WHERE root_id = ? AND relpath = ?",
        file.root_id,
        to_column(file.relpath),
    )
    return row


def _item(connection: Connection, content_hash: str | None) -> int | None:
    item: int | None = _scalar(connection, "SELECT id FROM item WHERE hash = ?", content_hash)
    return item


def _set_state(connection: Connection, identity: int, state: str) -> None:
    connection.exec_driver_sql("UPDATE carried SET state = ? WHERE id = ?", (state, identity))


def _scalar(connection: Connection, statement: str, *values: Any) -> Any:
    row = connection.exec_driver_sql(statement, values).first()
    return None if row is None else row[0]
