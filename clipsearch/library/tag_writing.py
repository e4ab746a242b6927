"""Tags as they are written: by hand, by a model, and by answers in review."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipsearch.library.database import Database, driver_of
from clipsearch.library.descriptions import HAND
from clipsearch.library.paths import to_column
from clipsearch.library.tags import MODEL, STATE_KEY, USER, WrittenSidecar

if TYPE_CHECKING:
    from sqlalchemy import Connection

Row = tuple[int, str, float]  # item, tag, score


class TagWriter:
    """Made by ``LibraryWriter.tags``; each method is one transaction.

    The library's revision stays: neither vectors nor files change, so no index need be remade.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def replace_range(
        self, origin: str, after: int, last: int, rows: Iterable[Row], state: Mapping[str, Any]
    ) -> None:
        """Replaces what a vocabulary gave to the items after one up to the last, and its state."""
        with self._database.writing() as connection:
            connection.exec_driver_sql(
                """DELETE FROM item_tag WHERE item_id > ? AND item_id <= ?
                AND source = 'model' AND origin = ?""",
                (after, last, origin),
            )
            _insert(connection, rows, MODEL, origin)
            _set_state(connection, origin, state)

    def replace_items(self, origin: str, items: Sequence[int], rows: Iterable[Row]) -> None:
        """Replaces what a vocabulary gave to some items."""
        with self._database.writing() as connection:
            connection.exec_driver_sql(
                """DELETE FROM item_tag WHERE item_id IN (SELECT value FROM json_each(?))
                AND source = 'model' AND origin = ?""",
                (json.dumps([int(item) for item in items]), origin),
            )
            _insert(connection, rows, MODEL, origin)

    def set_state(self, origin: str, state: Mapping[str, Any]) -> None:
        """Says how a vocabulary was used last."""
        with self._database.writing() as connection:
            _set_state(connection, origin, state)

    def clear(self, origin: str) -> int:
        """Removes everything that a vocabulary gave, and its state; returns how many rows."""
        with self._database.writing() as connection:
            gone = connection.exec_driver_sql(
                "DELETE FROM item_tag WHERE source = 'model' AND origin = ?", (origin,)
            ).rowcount
            connection.exec_driver_sql("DELETE FROM meta WHERE key = ?", (STATE_KEY + origin,))
            return int(gone)

    def add_by_hand(self, items: Sequence[int], name: str) -> int:
        """Gives a tag to items, as their owner's; returns how many did not have it so."""
        with self._database.writing() as connection:
            rows = [(item, name, None) for item in items]
            return _insert(connection, rows, USER, HAND)

    def remove_by_hand(self, items: Sequence[int], name: str) -> int:
        """Takes a tag from items that was given by hand or by a model; returns from how many.

        What their files and sidecars say is not ours to remove; it would be back at the next scan.
        """
        with self._database.writing() as connection:
            wanted = json.dumps([int(item) for item in items])
            which = """FROM item_tag WHERE item_id IN (SELECT id FROM item
                    WHERE coalesce(parent_id, id) IN (SELECT value FROM json_each(?)))
                AND tag_id = (SELECT id FROM tag WHERE name = ?)
                AND (source = 'model' OR origin = 'hand')"""
            found = connection.exec_driver_sql(
                f"SELECT count(DISTINCT item_id) {which}",
                (wanted, name),
            ).scalar_one()
            connection.exec_driver_sql(f"DELETE {which}", (wanted, name))
            connection.exec_driver_sql(
                """DELETE FROM tag_before_answer
                WHERE item_id IN (SELECT value FROM json_each(?))
                AND tag_id = (SELECT id FROM tag WHERE name = ?)""",
                (wanted, name),
            )
            return int(found)

    def answer(self, item: int, name: str, *, accepted: bool) -> None:
        """Keeps an answer of a review. An accepted tag is its owner's from now on."""
        with self._database.writing() as connection:
            tag = _tag_ids(connection, [name])[name]
            connection.exec_driver_sql(
                """INSERT OR IGNORE INTO tag_before_answer SELECT item_id, tag_id FROM item_tag
                WHERE item_id = ? AND tag_id = ? AND source = 'user' AND origin = 'hand'
                AND (item_id, tag_id) NOT IN (SELECT item_id, tag_id FROM tag_answer)""",
                (item, tag),
            )
            connection.exec_driver_sql(
                """INSERT INTO tag_answer VALUES (?, ?, ?, ?) ON CONFLICT (item_id, tag_id)
                DO UPDATE SET accepted = excluded.accepted, answered_at = excluded.answered_at""",
                (item, tag, int(accepted), _now()),
            )
            connection.exec_driver_sql(
                """DELETE FROM item_tag WHERE item_id = ? AND tag_id = ?
                AND (source = 'model' OR origin = 'hand')""",
                (item, tag),
            )
            if accepted:
                _insert(connection, [(item, name, None)], USER, HAND)

    def withdraw_answer(self, item: int, name: str) -> None:
        """Takes an answer back, and the tag that it gave; one given by hand before is there."""
        with self._database.writing() as connection:
            which = "item_id = ? AND tag_id = (SELECT id FROM tag WHERE name = ?)"
            connection.exec_driver_sql(
                f"""DELETE FROM item_tag WHERE {which} AND source = 'user' AND origin = 'hand'
                AND EXISTS (SELECT 1 FROM tag_answer WHERE {which} AND accepted = 1)""",  # noqa: S608 - our own text
                (item, name, item, name),
            )
            given_before = connection.exec_driver_sql(
                f"DELETE FROM tag_before_answer WHERE {which}",  # noqa: S608 - our own text
                (item, name),
            ).rowcount
            if given_before:
                _insert(connection, [(item, name, None)], USER, HAND)
            connection.exec_driver_sql(
                f"DELETE FROM tag_answer WHERE {which}",  # noqa: S608 - our own text
                (item, name),
            )

    def set_cutoff(self, space_id: str, name: str, cutoff: float | None) -> None:
        """From which score on a tag holds in a space; None: as the calibration says."""
        with self._database.writing() as connection:
            tag = _tag_ids(connection, [name])[name]
            if cutoff is None:
                connection.exec_driver_sql(
                    "DELETE FROM tag_cutoff WHERE space_id = ? AND tag_id = ?", (space_id, tag)
                )
                return
            connection.exec_driver_sql(
                """INSERT INTO tag_cutoff VALUES (?, ?, ?) ON CONFLICT (space_id, tag_id)
                DO UPDATE SET cutoff = excluded.cutoff""",
                (space_id, tag, cutoff),
            )

    def remember_sidecar(self, path: Path, before: bytes | None, after_hash: str) -> None:
        """Keeps what a sidecar was, before it is written."""
        with self._database.writing() as connection:
            connection.exec_driver_sql(
                """INSERT INTO written_sidecar VALUES (?, ?, ?, ?) ON CONFLICT (path)
                DO UPDATE SET before = excluded.before, after_hash = excluded.after_hash,
                    written_at = excluded.written_at""",
                (to_column(str(path)), before, after_hash, _now()),
            )

    def remembered_sidecar(self, path: Path) -> WrittenSidecar | None:
        """What is kept of a sidecar that was written, or None."""
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT before, after_hash, written_at FROM written_sidecar WHERE path = ?",
                (to_column(str(path)),),
            ).fetchone()
        return None if row is None else WrittenSidecar(path, *row)

    def forget_sidecar(self, path: Path) -> None:
        """Says that a sidecar is as it was before."""
        with self._database.writing() as connection:
            connection.exec_driver_sql(
                "DELETE FROM written_sidecar WHERE path = ?", (to_column(str(path)),)
            )


def _insert(
    connection: Connection, rows: Iterable[tuple[int, str, float | None]], source: str, origin: str
) -> int:
    given = list(rows)
    if not given:
        return 0
    ids = _tag_ids(connection, sorted({name for _, name, _ in given}))
    # SQLite's own connection: SQLAlchemy takes three times as long for a million rows.
    done = driver_of(connection).executemany(
        """INSERT INTO item_tag (item_id, tag_id, source, origin, score) VALUES (?, ?, ?, ?, ?)
        ON CONFLICT DO NOTHING""",
        sorted((item, ids[name], source, origin, score) for item, name, score in given),
    )
    return done.rowcount


def _tag_ids(connection: Connection, names: Sequence[str]) -> dict[str, int]:
    listed = json.dumps(names)
    connection.exec_driver_sql(
        "INSERT INTO tag (name) SELECT value FROM json_each(?) WHERE true "
        "ON CONFLICT (name) DO NOTHING",
        (listed,),
    )
    rows = connection.exec_driver_sql(
        "SELECT name, id FROM tag WHERE name IN (SELECT value FROM json_each(?))", (listed,)
    )
    return {row[0]: row[1] for row in rows}


def _set_state(connection: Connection, origin: str, state: Mapping[str, Any]) -> None:
    connection.exec_driver_sql(
        "INSERT OR REPLACE INTO meta VALUES (?, ?)", (STATE_KEY + origin, json.dumps(state))
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
