"""What a person said of an item, apart from what its files say: read, given to another, removed.

Each kind of words is a list of rows of plain values, so that they can be kept as JSON.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol

from clipsearch.library.descriptions import HAND

Said = dict[str, list[list[Any]]]  # kind: rows


class Connection(Protocol):
    """What runs statements here: SQLAlchemy's connection, or SQLite's own in its dress."""

    def exec_driver_sql(self, statement: str, parameters: Any = ..., /) -> Any: ...


_READ = {
    "tags": """SELECT name FROM item_tag JOIN tag ON tag.id = tag_id
        WHERE item_id = :item AND source = 'user' AND origin = :hand ORDER BY name""",
    "captions": "SELECT text FROM caption WHERE item_id = :item AND source = :hand ORDER BY id",
    "answers": """SELECT name, accepted, answered_at FROM tag_answer JOIN tag ON tag.id = tag_id
        WHERE item_id = :item ORDER BY name""",
    "tags before": """SELECT name FROM tag_before_answer JOIN tag ON tag.id = tag_id
        WHERE item_id = :item ORDER BY name""",
    "thumbs": "SELECT query, relevant, given_at FROM feedback WHERE item_id = :item ORDER BY query",
    "told apart": """SELECT CASE item_id WHEN :item THEN other_id ELSE item_id END
        FROM not_duplicate WHERE :item IN (item_id, other_id) ORDER BY 1""",
    "learned names": """SELECT name FROM concept_photo JOIN concept ON concept.id = concept_id
        WHERE hash = (SELECT hash FROM item WHERE id = :item) ORDER BY name""",
}
# Each changes nothing where the item has it already, or has a later one.
_GIVE = {
    "tags": """INSERT INTO item_tag (item_id, tag_id, source, origin)
        SELECT :item, id, 'user', :hand FROM tag WHERE name = :a ON CONFLICT DO NOTHING""",
    "captions": """INSERT INTO caption (item_id, text, source) SELECT :item, :a, :hand
        WHERE NOT EXISTS (SELECT 1 FROM caption
            WHERE item_id = :item AND text = :a AND source = :hand)""",
    "answers": """INSERT INTO tag_answer (item_id, tag_id, accepted, answered_at)
        SELECT :item, id, :b, :c FROM tag WHERE name = :a
        ON CONFLICT (item_id, tag_id) DO UPDATE
        SET accepted = excluded.accepted, answered_at = excluded.answered_at
        WHERE excluded.answered_at > tag_answer.answered_at""",
    "tags before": """INSERT INTO tag_before_answer (item_id, tag_id)
        SELECT :item, id FROM tag WHERE name = :a ON CONFLICT DO NOTHING""",
    "thumbs": """INSERT INTO feedback (query, item_id, relevant, given_at)
        VALUES (:a, :item, :b, :c)
        ON CONFLICT (query, item_id) DO UPDATE
        SET relevant = excluded.relevant, given_at = excluded.given_at
        WHERE excluded.given_at > feedback.given_at""",
    "told apart": """INSERT INTO not_duplicate SELECT min(:item, id), max(:item, id) FROM item
        WHERE id = :a AND id <> :item ON CONFLICT DO NOTHING""",
    "learned names": """INSERT INTO concept_photo (concept_id, hash, path)
        SELECT concept.id, item.hash, coalesce((SELECT path FROM concept_photo AS taught
            WHERE taught.concept_id = concept.id
            AND taught.hash = (SELECT hash FROM item WHERE id = :source)), '')
        FROM concept JOIN item ON item.id = :item WHERE name = :a ON CONFLICT DO NOTHING""",
}
_REMOVE = {
    "tags": """DELETE FROM item_tag WHERE item_id = :item AND source = 'user' AND origin = :hand
        AND tag_id = (SELECT id FROM tag WHERE name = :a)""",
    "captions": "DELETE FROM caption WHERE item_id = :item AND text = :a AND source = :hand",
    "answers": """DELETE FROM tag_answer WHERE item_id = :item AND answered_at = :c
        AND tag_id = (SELECT id FROM tag WHERE name = :a)""",
    "tags before": """DELETE FROM tag_before_answer
        WHERE item_id = :item AND tag_id = (SELECT id FROM tag WHERE name = :a)""",
    "thumbs": "DELETE FROM feedback WHERE item_id = :item AND query = :a AND given_at = :c",
    "told apart": """DELETE FROM not_duplicate
        WHERE item_id = min(:item, :a) AND other_id = max(:item, :a)""",
    "learned names": """DELETE FROM concept_photo
        WHERE concept_id = (SELECT id FROM concept WHERE name = :a)
        AND hash = (SELECT hash FROM item WHERE id = :item)""",
}
_ONE = {
    "tags": "tag",
    "captions": "caption",
    "answers": "answer",
    "thumbs": "thumb",
    "learned names": "learned name",
    "albums": "album",
}
_NAMING_TAGS = ("tags", "answers", "tags before")  # which nothing else may have any more
BEFORE = "tags before"  # an answer of review, which undo gives back: a part of the answer
ALBUMS = "albums"  # saved queries that name the item, such as similar:#12


class OverDriver:
    """SQLite's own connection with the one method of SQLAlchemy's that reading words takes."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    def exec_driver_sql(self, statement: str, values: Any = ()) -> Any:
        return self._driver.execute(statement, values)


def said_of(connection: Connection, item: int) -> Said:
    """Everything that a person said of one item; kinds without any are left out."""
    found: Said = {}
    for kind, statement in _READ.items():
        rows = _run(connection, statement, item=item).fetchall()
        if rows:
            found[kind] = [list(row) for row in rows]
    if albums := [[name] for name, _ in _albums_naming(connection, item)]:
        found[ALBUMS] = albums
    return found


def give(connection: Connection, said: Said, item: int, source: int) -> Said:
    """Gives words to an item, as they were of ``source``; returns those that it did not have.

    What it has already, or answered later, stays. Albums are no one's to copy: see ``move_albums``.
    """
    given: Said = {}
    for kind, statement in _GIVE.items():
        for row in said.get(kind, ()):
            if kind in _NAMING_TAGS:
                _run(connection, "INSERT INTO tag (name) VALUES (:a) ON CONFLICT DO NOTHING", row)
            if _run(connection, statement, row, item=item, source=source).rowcount > 0:
                given.setdefault(kind, []).append(row)
    return given


def remove(connection: Connection, said: Said, item: int) -> None:
    """Takes words from an item; answers that were given anew since stay."""
    for kind, statement in _REMOVE.items():
        for row in said.get(kind, ()):
            _run(connection, statement, row, item=item)


def move_albums(connection: Connection, said: Said, old: int, new: int) -> None:
    """Has the saved queries of ``said`` that name one item name another."""
    wanted = {name for (name,) in said.get(ALBUMS, ())}
    for name, query in _albums_naming(connection, old):
        if name in wanted:
            connection.exec_driver_sql(
                "UPDATE saved_search SET query = ? WHERE name = ?",
                (_naming(old).sub(f"#{new}", query), name),
            )


def words_said(counts: Mapping[str, int]) -> str:
    """How many of each kind, in words: ``2 tags, 1 caption``."""
    return ", ".join(
        f"{count:,} {kind if count != 1 else _ONE.get(kind, kind)}"
        for kind, count in counts.items()
    )


def _albums_naming(connection: Connection, item: int) -> list[tuple[str, str]]:
    rows = connection.exec_driver_sql(
        "SELECT name, query FROM saved_search WHERE instr(query, ?)", (f":#{item}",)
    )
    return [(row[0], row[1]) for row in rows.fetchall() if _naming(item).search(row[1])]


def _naming(item: int) -> re.Pattern[str]:
    return re.compile(rf"(?<=:)#{item}(?![0-9])")


def _run(connection: Connection, statement: str, row: list[Any] | None = None, **ids: int) -> Any:
    values = dict(zip("abc", row or (), strict=False))
    return connection.exec_driver_sql(statement, {**values, **ids, "hand": HAND})
