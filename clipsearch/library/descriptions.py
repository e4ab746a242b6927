"""What photos say about themselves in words: tags and captions from metadata and sidecars."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clipsearch.library.name_dating import NAME, TAKEN_FROM, is_from_name
from clipsearch.library.records import Description
from clipsearch.library.schema import item_checksum

if TYPE_CHECKING:
    from sqlalchemy import Connection

HAND = "hand"  # the origin of what a person wrote in clipsearch itself


def describe_items(connection: Connection, descriptions: Sequence[Description]) -> None:
    """Replaces what metadata and sidecars said of some items; a person's own words stay."""
    for description in descriptions:
        found = connection.exec_driver_sql(
            """SELECT taken_at, metadata, id, hash, width, height, format, bytes, kind, parent_id,
                time_s
            FROM item WHERE hash = ?""",
            (description.content_hash,),
        ).first()
        if found is None:
            continue  # its file could not be embedded after all
        told_at, told, item, content_hash, width, height, format_name, size, *of_video = found
        taken_at, facts = description.taken_at, description.metadata
        if taken_at is None and is_from_name(told):
            taken_at, facts = told_at, facts | {TAKEN_FROM: NAME}  # the name still tells it
        metadata = json.dumps(facts, sort_keys=True)
        checksum = item_checksum(
            content_hash,
            width,
            height,
            format_name,
            size,
            taken_at,
            metadata,
            *of_video,
        )
        connection.exec_driver_sql(
            "UPDATE item SET taken_at = ?, metadata = ?, checksum = ? WHERE id = ?",
            (taken_at, metadata, checksum, item),
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
