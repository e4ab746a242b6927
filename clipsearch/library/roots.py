"""The folders of a library: adding them, nesting them, and following them to another place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from clipsearch.errors import LibraryError, NotInLibraryError
from clipsearch.library.paths import from_column, relative_to, spellings, to_column
from clipsearch.library.records import RootRecord

if TYPE_CHECKING:
    from sqlalchemy import Connection


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


def repoint_root(connection: Connection, library: Path, old: Path, new: Path) -> RootRecord:
    """Says that a root lies elsewhere now; its files and all they point to stay as they are.

    NotInLibraryError if ``old`` is no root; LibraryError if ``new`` lies in another root or
    contains one.
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
        if relative_to(new, root.path) is not None or relative_to(root.path, new) is not None:
            raise LibraryError(
                reason=f"{new} and {root.path}, which is a folder of the library too, would hold "
                f"the same files. Forget one of them first: clipsearch forget {root.path}"
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
