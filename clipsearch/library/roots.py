"""The folders of a library: adding them, nesting them, and following them to another place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from clipsearch.errors import LibraryError, NotInLibraryError
from clipsearch.library.carrying import Replaced, follow_change
from clipsearch.library.descriptions import unite_words
from clipsearch.library.paths import from_column, relative_to, spellings, to_column
from clipsearch.library.records import RootRecord

if TYPE_CHECKING:
    from sqlalchemy import Connection

_NEARLY_ALL = 0.8  # of a root's files: others may have been removed or changed since


def all_roots(connection: Connection) -> list[RootRecord]:
    """The roots in the order they were added."""
    rows = connection.exec_driver_sql("SELECT id, path FROM root ORDER BY id").fetchall()
    return [RootRecord(row[0], Path(from_column(row[1]))) for row in rows]


def covering_root(connection: Connection, path: Path) -> RootRecord | None:
    """The root that a folder is or lies in."""
    known = all_roots(connection)
    return next((root for root in known if relative_to(path, root.path) is not None), None)


def insert_root(connection: Connection, path: Path, added_at: str) -> RootRecord:
    """Adds a folder that no root covers; the roots in it become part of it."""
    known = all_roots(connection)
    connection.exec_driver_sql(
        "INSERT INTO root (path, added_at) VALUES (?, ?)", (to_column(str(path)), added_at)
    )
    new = RootRecord(connection.exec_driver_sql("SELECT last_insert_rowid()").scalar_one(), path)
    for root in known:
        below = relative_to(root.path, path)
        if below is not None:
            _move_files(connection, root, new, below)
    return new


def repoint_root(
    connection: Connection, library: Path, old: Path, new: Path, *, force: bool
) -> RootRecord:
    """Says that a root lies elsewhere now; its files and all they point to stay as they are.

    If ``new`` is a root, too, and holds the same contents, or with ``force``, the two become one:
    see ``_merge``. NotInLibraryError if ``old`` is no root; LibraryError if ``new`` overlaps with
    another root otherwise.
    """
    known = all_roots(connection)
    wanted = spellings(old)
    moved = next((root for root in known if root.path in wanted), None)
    if moved is None:
        folders = ", ".join(str(root.path) for root in known) or "none"
        raise NotInLibraryError(
            what=f"A folder {old}", path=library, advice=f"Its folders are: {folders}"
        )
    for root in known:
        if root.id == moved.id:
            continue
        if root.path == new and (force or _hold_the_same(connection, moved, root)):
            _merge(connection, moved, root)
            return root
        if relative_to(new, root.path) is not None or relative_to(root.path, new) is not None:
            hint = "; or make both one: --force" if root.path == new else ""
            raise LibraryError(
                reason=f"{new} and {root.path}, which is a folder of the library too, would hold "
                f"the same files. Forget one of them first: clipsearch forget {root.path}{hint}"
            )
    connection.exec_driver_sql(
        "UPDATE root SET path = ? WHERE id = ?", (to_column(str(new)), moved.id)
    )
    return RootRecord(moved.id, new)


def set_inodes(connection: Connection, inodes: Mapping[int, int]) -> None:
    """Notes the new inodes of files that are otherwise as they were, by file id."""
    if inodes:
        connection.exec_driver_sql(
            "UPDATE file SET inode = ? WHERE id = ?",
            [(inode, identity) for identity, inode in inodes.items()],
        )


def _hold_the_same(connection: Connection, old: RootRecord, new: RootRecord) -> bool:
    """True if nearly all that one root held lies in the other, by name and content."""
    known, shared = connection.exec_driver_sql(
        """SELECT count(*), count(after.id) FROM file AS before LEFT JOIN file AS after
        ON after.root_id = ? AND after.relpath = before.relpath AND after.item_id = before.item_id
        WHERE before.root_id = ? AND before.item_id IS NOT NULL""",
        (new.id, old.id),
    ).one()
    return bool(shared) and shared >= _NEARLY_ALL * known


def _merge(connection: Connection, old: RootRecord, new: RootRecord) -> None:
    """Hands the files of one root to another that is the same folder.

    Of files that both have, the row of ``new`` stays. Where its content is another one than ``old``
    knew, the file was changed in between: what a person said of it follows.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    rows = connection.exec_driver_sql(
        """SELECT before.id, before.item_id, after.id, after.item_id
        FROM file AS before LEFT JOIN file AS after
        ON after.relpath = before.relpath AND after.root_id = ?
        WHERE before.root_id = ?""",
        (new.id, old.id),
    ).fetchall()
    held: dict[int | None, list[int]] = defaultdict(list)  # by item, the rows of ``old``
    for before, before_item, _, _ in rows:
        held[before_item].append(before)
    changes, touched = [], set()
    for before, before_item, after, after_item in rows:
        if after is None:
            connection.exec_driver_sql("UPDATE file SET root_id = ? WHERE id = ?", (new.id, before))
            continue
        for statement in (
            "UPDATE file SET moved_to = :after WHERE moved_to = :before AND id <> :after",
            "UPDATE carried SET file_id = :after WHERE file_id = :before",
            # What the row that stays knows is later, if it knows anything.
            """UPDATE OR IGNORE sidecar SET file_id = :after WHERE file_id = :before
            AND (SELECT item_id IS NULL FROM file WHERE id = :after)""",
            "DELETE FROM file WHERE id = :before",
        ):
            connection.exec_driver_sql(statement, {"before": before, "after": after})
        if after_item is None:
            connection.exec_driver_sql(
                "UPDATE file SET item_id = ? WHERE id = ?", (before_item, after)
            )
        elif before_item not in (None, after_item):
            was_known = any(row != before for row in held[after_item])
            changes.append(Replaced(after, before_item, after_item, None, was_known))
        touched |= {before_item} - {None}
    for change in changes:  # when each file is known once
        follow_change(connection, change, (), now)
    unite_words(connection, touched)
    connection.exec_driver_sql("DELETE FROM root WHERE id = ?", (old.id,))


def _move_files(connection: Connection, old: RootRecord, new: RootRecord, below: str) -> None:
    """Hands the files of a nested root to the root above it, ``below`` which they lie."""
    rows = connection.exec_driver_sql(
        "SELECT id, relpath FROM file WHERE root_id = ?", (old.id,)
    ).fetchall()
    if rows:
        connection.exec_driver_sql(
            "UPDATE file SET root_id = ?, relpath = ? WHERE id = ?",
            [(new.id, to_column(f"{below}/{from_column(row[1])}"), row[0]) for row in rows],
        )
    connection.exec_driver_sql("DELETE FROM root WHERE id = ?", (old.id,))
