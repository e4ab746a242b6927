"""What photos say about themselves in words: tags and captions from metadata and sidecars."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from clipsearch.clocks import camera_clock, split
from clipsearch.library.name_dating import NAME, TAKEN_FROM, is_from_name
from clipsearch.library.paths import from_column, to_column
from clipsearch.library.records import Description, FileState
from clipsearch.library.schema import item_checksum
from clipsearch.uniting import SidecarSaying, United, unite

if TYPE_CHECKING:
    from sqlalchemy import Connection

HAND = "hand"  # the origin of what a person wrote in clipsearch itself
# Of a saying, what is kept as a column, as tags or as captions.
_WORDS = frozenset(
    ("taken_at", "keywords", "title", "title_origin", "description", "description_origin")
)


def describe_items(connection: Connection, descriptions: Sequence[Description]) -> None:
    """Replaces what metadata and sidecars said of some items; a person's own words stay."""
    for description in descriptions:
        row = connection.exec_driver_sql(
            "SELECT id FROM item WHERE hash = ?", (description.content_hash,)
        ).first()
        if row is None:
            continue  # its file could not be embedded after all
        _describe(connection, row[0], description)
        if description.own is not None:
            connection.exec_driver_sql(
                "INSERT OR REPLACE INTO own_words VALUES (?, ?)",
                (row[0], json.dumps(description.own, sort_keys=True)),
            )


def items_of(connection: Connection, files: Sequence[FileState], ids: Sequence[int]) -> set[int]:
    """The items that some files have now, given as they will be or by their ids.

    Nothing is looked up while no picture of the library has sidecars.
    """
    if connection.exec_driver_sql("SELECT 1 FROM own_words LIMIT 1").first() is None:
        return set()
    found = list(
        connection.exec_driver_sql(
            "SELECT item_id FROM file WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(ids)),),
        )
    )
    for file in files:
        found += connection.exec_driver_sql(
            "SELECT item_id FROM file WHERE root_id = ? AND relpath = ?",
            (file.root_id, to_column(file.relpath)),
        ).fetchall()
    return {row[0] for row in found if row[0] is not None}


def keep_sidecars(connection: Connection, files: Sequence[FileState]) -> None:
    """Replaces what is known of the sidecars of some files.

    What a sidecar said before stays where it could not be read now.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    for file in files:
        if file.beside is None:
            continue
        (identity,) = connection.exec_driver_sql(
            "SELECT id FROM file WHERE root_id = ? AND relpath = ?",
            (file.root_id, to_column(file.relpath)),
        ).one()
        said_before = dict(
            tuple(row)
            for row in connection.exec_driver_sql(
                "SELECT name, said FROM sidecar WHERE file_id = ?", (identity,)
            )
        )
        connection.exec_driver_sql("DELETE FROM sidecar WHERE file_id = ?", (identity,))
        for place, sidecar in enumerate(file.beside):
            said = json.dumps(sidecar.said, sort_keys=True)
            if sidecar.failure is not None:
                said = said_before.get(sidecar.name, said)
            connection.exec_driver_sql(
                "INSERT INTO sidecar VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    identity,
                    sidecar.name,
                    place,
                    sidecar.size,
                    sidecar.mtime_ns,
                    said,
                    sidecar.failure,
                    now,
                ),
            )


def unite_words(connection: Connection, items: Iterable[int]) -> None:
    """Describes items anew by what they say themselves and what lies beside each of their files.

    Left as they are: items of which no file is there now, and those that never had sidecars.
    """
    rows = connection.exec_driver_sql(
        """SELECT hash, item.id, said FROM own_words JOIN item ON item.id = item_id
        WHERE item_id IN (SELECT value FROM json_each(?))""",
        (json.dumps(sorted(items)),),
    ).fetchall()
    for content_hash, item, own in rows:
        files = connection.exec_driver_sql(
            """SELECT file.id, path, relpath FROM file JOIN root ON root.id = root_id
            WHERE item_id = ? AND missing_since IS NULL""",
            (item,),
        ).fetchall()
        if not files:
            continue
        beside = []
        for file, root, relpath in files:
            sidecars = connection.exec_driver_sql(
                "SELECT mtime_ns, said FROM sidecar WHERE file_id = ? ORDER BY place", (file,)
            ).fetchall()
            if sidecars:
                path = (from_column(root), from_column(relpath))
                newest_first = (-max(row[0] for row in sidecars), path)
                said = [SidecarSaying.from_record(json.loads(row[1])) for row in sidecars]
                beside.append((newest_first, said))
        beside.sort(key=lambda one: one[0])
        united = unite(json.loads(own), [said for _, said in beside])
        names = sorted(from_column(relpath).rpartition("/")[2] for _, _, relpath in files)
        _describe(connection, item, described(content_hash, united, names))


def described(content_hash: str, united: United, names: Sequence[str]) -> Description:
    """What is said of a content, as it is kept: numbers and names apart from its words.

    A date in UTC becomes that of the camera's clock, by the place or by the ``names`` of its files.
    """
    taken_at, is_in_utc = split(united.saying.get("taken_at"))
    if taken_at is not None and is_in_utc:
        place = (united.saying.get("latitude"), united.saying.get("longitude"))
        taken_at = camera_clock(taken_at, names, *place)
    return Description(
        content_hash=content_hash,
        taken_at=taken_at,
        metadata={
            name: value
            for name, value in united.saying.items()
            if value is not None and name not in _WORDS
        },
        tags=united.keywords,
        captions=united.captions,
    )


def _describe(connection: Connection, item: int, description: Description) -> None:
    """Writes what is said of an item; the moments of a video have its day and its facts, too."""
    rows = connection.exec_driver_sql(
        """SELECT id, taken_at, metadata, hash, width, height, format, bytes, kind, parent_id,
            time_s
        FROM item WHERE id = ? OR parent_id = ?""",
        (item, item),
    ).fetchall()
    for row, told_at, told, content_hash, width, height, form, size, *of_video in rows:
        taken_at, facts = description.taken_at, description.metadata
        if taken_at is None and is_from_name(told):
            taken_at, facts = told_at, {**facts, TAKEN_FROM: NAME}  # the name still tells it
        metadata = json.dumps(facts, sort_keys=True)
        checksum = item_checksum(
            content_hash, width, height, form, size, taken_at, metadata, *of_video
        )
        connection.exec_driver_sql(
            "UPDATE item SET taken_at = ?, metadata = ?, checksum = ? WHERE id = ?",
            (taken_at, metadata, checksum, row),
        )
    _replace_tags(connection, item, description)
    connection.exec_driver_sql(
        "DELETE FROM caption WHERE item_id = ? AND source <> ?", (item, HAND)
    )
    for text, source in description.captions:
        connection.exec_driver_sql(
            "INSERT INTO caption (item_id, text, source) VALUES (?, ?, ?)", (item, text, source)
        )


def _replace_tags(connection: Connection, item: int, description: Description) -> None:
    connection.exec_driver_sql(
        "DELETE FROM item_tag WHERE item_id = ? AND source = 'user' AND origin <> ?", (item, HAND)
    )
    for name, origin in description.tags:
        connection.exec_driver_sql(
            "INSERT INTO tag (name) VALUES (?) ON CONFLICT (name) DO NOTHING", (name,)
        )
        connection.exec_driver_sql(
            """INSERT INTO item_tag (item_id, tag_id, source, origin)
            SELECT ?, id, 'user', ? FROM tag WHERE name = ? ON CONFLICT DO NOTHING""",
            (item, origin, name),
        )
