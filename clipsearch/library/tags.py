"""Tags as they are read: who gave which, how often, and what was answered in review."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clipsearch.library.database import Database
from clipsearch.library.paths import from_column, relative_to, spellings
from clipsearch.vectors import Ids, Matrix, from_bytes

USER, MODEL = "user", "model"
STATE_KEY = "tagging."  # in the table meta, before a vocabulary's name

_PRESENT = "SELECT item_id FROM present_file"
# A video has the words; its moments, which have the vectors, are found by them.
_OWNER = "coalesce(item.parent_id, item.id)"


class TagCount(NamedTuple):
    """How many pictures and moments that are there have a tag, by who gave it."""

    name: str
    user: int
    model: int


class ItemTag(NamedTuple):
    """A tag on an item; ``score`` is there for tags that a model gave."""

    item: int
    name: str
    source: str
    origin: str
    score: float | None


class Answer(NamedTuple):
    """What a person said of a tag on a picture in review."""

    item: int
    name: str
    accepted: bool
    answered_at: str  # ISO 8601, UTC


class KnownFile(NamedTuple):
    """A file of an item, as it was when it was read last."""

    path: Path
    size: int
    mtime_ns: int
    content_hash: str


class WrittenSidecar(NamedTuple):
    """A sidecar that was written; ``before`` is None where there was none."""

    path: Path
    before: bytes | None
    after_hash: str
    written_at: str


class TagReader:
    """Made by ``Library.tags``."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def counts(self) -> list[TagCount]:
        """Every tag that something has, the most frequent first."""
        rows = self._rows(
            f"""SELECT tag.name, count(DISTINCT shown.id) FILTER (WHERE source = 'user'),
                count(DISTINCT shown.id) FILTER (WHERE source = 'model')
            FROM item_tag JOIN tag ON tag.id = tag_id
            JOIN item AS shown ON shown.id = item_tag.item_id OR shown.parent_id = item_tag.item_id
            WHERE shown.id IN ({_PRESENT})
            GROUP BY tag.id"""  # noqa: S608 - our own constant
            if self._has_videos()
            else f"""SELECT tag.name, count(DISTINCT item_id) FILTER (WHERE source = 'user'),
                count(DISTINCT item_id) FILTER (WHERE source = 'model')
            FROM item_tag JOIN tag ON tag.id = tag_id WHERE item_id IN ({_PRESENT})
            GROUP BY tag.id"""  # noqa: S608 - our own constant
        )
        found = [TagCount(*row) for row in rows if row[1] or row[2]]
        return sorted(found, key=lambda tag: (-tag.user - tag.model, tag.name))

    def _has_videos(self) -> bool:
        return bool(self._rows("SELECT 1 FROM item WHERE parent_id IS NOT NULL LIMIT 1"))

    def vectors_after(self, space_id: str, item: int, limit: int) -> tuple[Ids, Matrix]:
        """The vectors of a space of the next items after one: (n,) ascending ids, (n, dim)."""
        rows = self._rows(
            """SELECT item_id, vector FROM embedding WHERE space_id = :space AND item_id > :item
            ORDER BY item_id LIMIT :limit""",
            space=space_id,
            item=item,
            limit=limit,
        )
        dim = self._rows("SELECT dim FROM space WHERE id = :space", space=space_id)
        ids = np.array([row[0] for row in rows], dtype=np.int64)
        return ids, from_bytes([row[1] for row in rows], int(dim[0][0]) if dim else 0)

    def embedded_after(self, space_id: str, item: int) -> int:
        """How many items after one have a vector in a space."""
        return int(
            self._rows(
                "SELECT count(*) FROM embedding WHERE space_id = :space AND item_id > :item",
                space=space_id,
                item=item,
            )[0][0]
        )

    def decided(self, first: int, last: int) -> set[tuple[int, str]]:
        """Items, first to last, and the folded names of tags on which a person has the say.

        Those are the tags that people and files gave, and all that were answered in review.
        """
        return self._decided("BETWEEN :first AND :last", first=first, last=last)

    def decided_among(self, items: Sequence[int]) -> set[tuple[int, str]]:
        """The same for some items."""
        return self._decided(
            "IN (SELECT value FROM json_each(:ids))", ids=json.dumps([int(i) for i in items])
        )

    def _decided(self, which: str, **values: Any) -> set[tuple[int, str]]:
        rows = self._rows(
            f"""SELECT item.id, tag.name FROM item JOIN item_tag ON item_tag.item_id = {_OWNER}
            JOIN tag ON tag.id = tag_id WHERE source = 'user' AND item.id {which}
            UNION SELECT item_id, tag.name FROM tag_answer JOIN tag ON tag.id = tag_id
            WHERE item_id {which}""",  # noqa: S608 - our own text
            **values,
        )
        return {(row[0], row[1].casefold()) for row in rows}

    def of_items(self, items: Sequence[int]) -> list[ItemTag]:
        """Every tag of these items themselves, by item and name."""
        rows = self._rows(
            """SELECT item_id, name, source, origin, score
            FROM item_tag JOIN tag ON tag.id = tag_id
            WHERE item_id IN (SELECT value FROM json_each(:ids))
            ORDER BY item_id, name, source, origin""",
            ids=json.dumps([int(item) for item in items]),
        )
        return [ItemTag(*row) for row in rows]

    def given_by_model(self, origin: str, name: str | None = None) -> list[ItemTag]:
        """The tags that a vocabulary gave to what is there: all, or one."""
        rows = self._rows(
            f"""SELECT item_id, name, source, origin, score
            FROM item_tag JOIN tag ON tag.id = tag_id
            WHERE source = 'model' AND origin = :origin AND (:name IS NULL OR name = :name)
            AND item_id IN ({_PRESENT}) ORDER BY item_id, name""",  # noqa: S608 - our constant
            origin=origin,
            name=name,
        )
        return [ItemTag(*row) for row in rows]

    def tagged_items(self) -> list[int]:
        """All that is there and has a tag by hand or by a model; videos for their moments."""
        rows = self._rows(
            f"""SELECT DISTINCT {_OWNER} FROM item
            JOIN item_tag ON item_tag.item_id IN (item.id, item.parent_id)
            WHERE item.id IN ({_PRESENT}) AND (source = 'model' OR origin = 'hand')
            ORDER BY 1"""  # noqa: S608 - our own constants
        )
        return [row[0] for row in rows]

    def moments_of(self, items: Sequence[int]) -> dict[int, list[int]]:
        """The moments of each video among these items."""
        rows = self._rows(
            """SELECT parent_id, id FROM item
            WHERE parent_id IN (SELECT value FROM json_each(:ids)) ORDER BY id""",
            ids=json.dumps([int(item) for item in items]),
        )
        found: dict[int, list[int]] = {}
        for video, moment in rows:
            found.setdefault(video, []).append(moment)
        return found

    def files_of(self, items: Sequence[int]) -> dict[int, list[KnownFile]]:
        """The files that are there of pictures and videos, by path.

        Of one that could not be read since, what lies there is not the item's content: its size and
        time are -1.
        """
        rows = self._rows(
            """SELECT item_id, path, relpath, iif(failure IS NULL, size, -1),
                iif(failure IS NULL, mtime_ns, -1), item.hash FROM file
            JOIN root ON root.id = root_id JOIN item ON item.id = item_id
            WHERE missing_since IS NULL AND item_id IN (SELECT value FROM json_each(:ids))""",
            ids=json.dumps([int(item) for item in items]),
        )
        found: dict[int, list[KnownFile]] = {}
        for item, root, relpath, *state in rows:
            path = Path(from_column(root)) / from_column(relpath)
            found.setdefault(item, []).append(KnownFile(path, *state))
        return {item: sorted(files) for item, files in found.items()}

    def items_at(self, path: Path) -> list[int]:
        """The pictures and videos of a file, or of everything below a folder."""
        roots = self._rows("SELECT id, path FROM root ORDER BY id")
        for wanted, (root, folder) in product(spellings(path), roots):
            inside = relative_to(wanted, Path(from_column(folder)))
            is_above = relative_to(Path(from_column(folder)), wanted) is not None
            if inside is None and not is_above:
                continue
            rows = self._rows(
                """SELECT relpath, item_id FROM file
                WHERE root_id = :root AND item_id IS NOT NULL AND missing_since IS NULL""",
                root=root,
            )
            found = {
                item
                for relpath, item in rows
                if not inside
                or from_column(relpath) == inside
                or from_column(relpath).startswith(inside + "/")
            }
            if found:
                return sorted(found)
        return []

    def answers(self, name: str | None = None) -> list[Answer]:
        """What was answered in review, of all tags or one; labels, also for training."""
        rows = self._rows(
            """SELECT item_id, name, accepted, answered_at
            FROM tag_answer JOIN tag ON tag.id = tag_id
            WHERE :name IS NULL OR name = :name ORDER BY answered_at, item_id""",
            name=name,
        )
        return [Answer(row[0], row[1], bool(row[2]), row[3]) for row in rows]

    def cutoffs(self, space_id: str) -> dict[str, float]:
        """From which score on tags hold in a space, where answers have moved it."""
        rows = self._rows(
            """SELECT name, cutoff FROM tag_cutoff JOIN tag ON tag.id = tag_id
            WHERE space_id = :space""",
            space=space_id,
        )
        return dict(rows)

    def state(self, vocabulary: str) -> dict[str, Any] | None:
        """What the last run with a vocabulary left to be known, or None."""
        rows = self._rows("SELECT value FROM meta WHERE key = :key", key=STATE_KEY + vocabulary)
        return dict(json.loads(rows[0][0])) if rows else None

    def vocabularies(self) -> list[str]:
        """The names of the vocabularies that this library was tagged with, last used first."""
        rows = self._rows(
            """SELECT substr(key, :skip) FROM meta WHERE key LIKE 'tagging.%'
            ORDER BY coalesce(json_extract(value, '$.used_at'), '') DESC, key""",
            skip=len(STATE_KEY) + 1,
        )
        return [row[0] for row in rows]

    def written_sidecars(self) -> list[WrittenSidecar]:
        """The sidecars that were written and not undone, by path."""
        rows = self._rows("SELECT path, before, after_hash, written_at FROM written_sidecar")
        found = [WrittenSidecar(Path(from_column(row[0])), *row[1:]) for row in rows]
        return sorted(found)

    def _rows(self, statement: str, **values: Any) -> Sequence[Any]:
        with self._database.reading() as connection:
            return connection.execute(statement, values).fetchall()
