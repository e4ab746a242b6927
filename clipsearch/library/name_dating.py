"""Items that have a day by the names of their files alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Any

from clipsearch.library.paths import from_column
from clipsearch.library.schema import item_checksum
from clipsearch.name_dates import NameDate, best_date

if TYPE_CHECKING:
    from sqlalchemy import Connection

TAKEN_FROM, NAME = "taken_from", "name"  # in an item's metadata, where only a name told its day
_DONE = "dated_by_names"  # in the table meta


def is_from_name(metadata: str) -> bool:
    """True if metadata, as JSON in a row, say that only a name told the day."""
    return f'"{TAKEN_FROM}": "{NAME}"' in metadata


def date_by_names(connection: Connection, items: Sequence[int]) -> bool:
    """Gives those of some items that nothing else dates the day that their files' names tell.

    Names of files that are there count; where none of them tells a day, what an earlier name told
    stays. Moments of a video have its day. True if an item changed.
    """
    rows = connection.exec_driver_sql(
        """SELECT item.id, taken_at, metadata, relpath
        FROM item JOIN file ON file.item_id = item.id
        WHERE missing_since IS NULL AND item.id IN (SELECT value FROM json_each(?))""",
        (json.dumps(list(items)),),
    )
    names: dict[int, list[str]] = {}
    said: dict[int, tuple[str | None, str]] = {}
    for item, taken_at, metadata, relpath in rows:
        if taken_at is None or is_from_name(metadata):
            names.setdefault(item, []).append(from_column(relpath).rpartition("/")[2])
            said[item] = taken_at, metadata
    changed = False
    for item, (taken_at, metadata) in said.items():
        date = best_date(names[item])
        facts = _facts(metadata)
        told = None if date is None or facts is None else _as_text(date, facts)
        if told is not None and told != taken_at:
            _write(connection, item, told)
            changed = True
    return changed


def keep_day_of_name(connection: Connection, old: int, new: int) -> None:
    """Gives an edited picture that nothing dates the day that a name told of it before."""
    (told, metadata), (taken_at, _) = (
        connection.exec_driver_sql(
            "SELECT taken_at, metadata FROM item WHERE id = ?", (item,)
        ).one()
        for item in (old, new)
    )
    if taken_at is None and told is not None and is_from_name(metadata):
        _write(connection, new, told)


def date_all_by_names(connection: Connection) -> bool:
    """The same for all items, once a library."""
    done = connection.exec_driver_sql("SELECT 1 FROM meta WHERE key = ?", (_DONE,)).first()
    if done is not None:
        return False
    connection.exec_driver_sql("INSERT INTO meta VALUES (?, '1')", (_DONE,))
    items = connection.exec_driver_sql("SELECT id FROM item WHERE parent_id IS NULL").fetchall()
    return date_by_names(connection, [row[0] for row in items])


def _facts(metadata: str) -> dict[str, Any] | None:
    """None for a damaged row, which is left for a check of the library to find."""
    try:
        found = json.loads(metadata)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _as_text(date: NameDate, metadata: dict[str, Any]) -> str:
    """ISO 8601; a time in UTC as the clocks at the item's place show it, if that is known."""
    if not date.is_utc:
        return date.clock.isoformat()
    from clipsearch.places import local_time

    moment = date.clock.replace(tzinfo=UTC)
    latitude, longitude = metadata.get("latitude"), metadata.get("longitude")
    if latitude is None or longitude is None:
        return moment.isoformat()
    return (local_time(moment, latitude, longitude) or moment).isoformat()


def _write(connection: Connection, item: int, taken_at: str) -> None:
    found = connection.exec_driver_sql(
        """SELECT id, metadata, hash, width, height, format, bytes, kind, parent_id, time_s
        FROM item WHERE id = ? OR parent_id = ?""",
        (item, item),
    ).fetchall()
    for number, metadata, *facts in found:
        known = _facts(metadata)
        if known is None:
            continue
        told = json.dumps(known | {TAKEN_FROM: NAME}, sort_keys=True)
        content_hash, width, height, form, size, *of_video = facts
        checksum = item_checksum(content_hash, width, height, form, size, taken_at, told, *of_video)
        connection.exec_driver_sql(
            "UPDATE item SET taken_at = ?, metadata = ?, checksum = ? WHERE id = ?",
            (taken_at, told, checksum, number),
        )
