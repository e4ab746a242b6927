"""Forgetting: what is named goes, with everything known of it; nothing else ever does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipsearch.errors import NotInLibraryError
from clipsearch.library.descriptions import unite_words
from clipsearch.library.paths import from_column, relative_to, spellings
from clipsearch.library.records import ForgetReport
from clipsearch.library.roots import all_roots

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Of some items those that a path has; or had, before its content changed.
_OF_A_PATH = """SELECT value FROM json_each(?) WHERE value IN (
    SELECT item_id FROM file WHERE item_id IS NOT NULL)"""
_OR_BEFORE = "OR value IN (SELECT from_item FROM carried UNION SELECT to_item FROM carried)"

_DELETE_UNUSED_TAGS = """DELETE FROM tag
    WHERE NOT EXISTS (SELECT 1 FROM item_tag WHERE tag_id = tag.id)
    AND id NOT IN (SELECT tag_id FROM tag_answer UNION SELECT tag_id FROM tag_before_answer
        UNION SELECT tag_id FROM tag_cutoff)"""


def forget_path(connection: Connection, library: Path, path: Path) -> ForgetReport:
    """Deletes the rows of a file, a folder or whole roots, and the items that were theirs alone.

    Those are the present contents, and earlier ones of the same paths. An item that another path
    holds stays: also one that is missing now or cannot be read, because it may come back. A path
    from which the file was seen to be renamed to a forgotten one goes along with it, and so do tags
    that nothing else has and what was kept to undo the writing of sidecars beside it.
    NotInLibraryError if nothing of the path is known.
    """
    roots, files = _known_at(connection, path)
    if not roots and not files:
        raise NotInLibraryError(
            what=path, path=library, advice="See what it holds: clipsearch info"
        )
    gone = _with_traces(connection, files)
    present = _column(
        connection,
        "SELECT DISTINCT item_id FROM file WHERE item_id IS NOT NULL AND id IN "
        "(SELECT value FROM json_each(?))",
        gone,
    )
    earlier = _column(
        connection,
        """SELECT from_item FROM carried WHERE file_id IN (SELECT value FROM json_each(:ids))
        UNION SELECT to_item FROM carried WHERE file_id IN (SELECT value FROM json_each(:ids))""",
        gone,
    )
    _drop_written_sidecars(connection, gone)
    for statement in (
        "DELETE FROM file WHERE id IN (SELECT value FROM json_each(:ids))",
        "DELETE FROM carried WHERE file_id IN (SELECT value FROM json_each(:ids))",
    ):
        connection.exec_driver_sql(statement, {"ids": json.dumps(gone)})
    connection.exec_driver_sql(
        "DELETE FROM root WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(roots),)
    )
    kept = set(_column(connection, _OF_A_PATH, present))
    kept_earlier = set(_column(connection, f"{_OF_A_PATH} {_OR_BEFORE}", earlier))
    unite_words(connection, kept)  # the words beside other copies stay
    for item in (set(present) - kept) | (set(earlier) - set(present) - kept_earlier):
        connection.exec_driver_sql("DELETE FROM item WHERE id = ?", (item,))
    connection.exec_driver_sql(_DELETE_UNUSED_TAGS)
    return ForgetReport(
        files=len(files),
        items=len(set(present) - kept),
        kept_for=_waiting(connection, kept),
    )


def _with_traces(connection: Connection, files: list[int]) -> list[int]:
    """The rows, and those that only say where their files were before they were renamed."""
    return _column(
        connection,
        """WITH RECURSIVE gone (id) AS (
            SELECT value FROM json_each(?)
            UNION SELECT file.id FROM file JOIN gone ON moved_to = gone.id
            WHERE missing_since IS NOT NULL)
        SELECT id FROM gone""",
        files,
    )


def _drop_written_sidecars(connection: Connection, files: list[int]) -> None:
    """Drops what sidecars of some rows were before they were written.

    One that bears no ending (a.xmp) stays while the library has another file of that name.
    """
    written = connection.exec_driver_sql("SELECT path FROM written_sidecar").fetchall()
    if not written:
        return
    gone = set(files)
    full: dict[bool, set[Path]] = {True: set(), False: set()}  # whether the file is forgotten
    stems: dict[bool, set[Path]] = {True: set(), False: set()}
    for identity, root, relpath in connection.exec_driver_sql(
        "SELECT file.id, path, relpath FROM file JOIN root ON root.id = root_id"
    ):
        path = Path(from_column(root)) / from_column(relpath)
        full[identity in gone].add(path)
        stems[identity in gone].add(path.with_suffix(""))
    for (column,) in written:
        bearer = Path(from_column(column)).with_suffix("")  # a.jpg or a, of a.jpg.xmp or a.xmp
        of_one = bearer in full[True] and bearer not in full[False]
        if of_one or (bearer in stems[True] and bearer not in stems[False] | full[False]):
            connection.exec_driver_sql("DELETE FROM written_sidecar WHERE path = ?", (column,))


def _waiting(connection: Connection, items: set[int]) -> tuple[Path, ...]:
    """The paths of items that have none which is there and can be read."""
    rows = connection.exec_driver_sql(
        """SELECT root.path, relpath FROM file JOIN root ON root.id = root_id
        WHERE item_id IN (SELECT value FROM json_each(?)) AND item_id NOT IN (
            SELECT item_id FROM file WHERE item_id IS NOT NULL
            AND missing_since IS NULL AND failure IS NULL)""",
        (json.dumps(sorted(items)),),
    ).fetchall()
    return tuple(sorted(Path(from_column(row[0])) / from_column(row[1]) for row in rows))


def _known_at(connection: Connection, path: Path) -> tuple[list[int], list[int]]:
    """The roots in a folder, and the ids of the file rows at or below a path."""
    for wanted in spellings(path):
        roots: list[int] = []
        files: list[int] = []
        for root in all_roots(connection):
            rows = connection.exec_driver_sql(
                "SELECT id, relpath FROM file WHERE root_id = ?", (root.id,)
            ).fetchall()
            if relative_to(root.path, wanted) is not None:
                roots.append(root.id)
                files += [row[0] for row in rows]
            elif relpath := relative_to(wanted, root.path):
                files += [row[0] for row in rows if _is_at(from_column(row[1]), relpath)]
        if roots or files:
            return roots, files
    return [], []


def _is_at(relpath: str, wanted: str) -> bool:
    return relpath == wanted or relpath.startswith(wanted + "/")


def _column(connection: Connection, statement: str, ids: list[int]) -> list[Any]:
    values: Any = {"ids": json.dumps(ids)} if ":ids" in statement else (json.dumps(ids),)
    return [row[0] for row in connection.exec_driver_sql(statement, values).fetchall()]
