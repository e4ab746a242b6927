"""Which files could not be read, and why: photos, videos and what lies beside them."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from clipsearch.library.paths import from_column
from clipsearch.library.records import FailureRecord

# A sidecar that several photos share is one file.
_SIDECAR = "root_id || '/' || rtrim(relpath, replace(relpath, '/', '')) || name"
_BROKEN = """FROM sidecar JOIN file ON file.id = file_id JOIN root ON root.id = root_id
    WHERE sidecar.failure IS NOT NULL AND missing_since IS NULL"""
COUNT_SIDECARS = f"SELECT count(DISTINCT {_SIDECAR}) {_BROKEN}"


def count_reasons(connection: sqlite3.Connection) -> list[tuple[str, int]]:
    """Each reason as it is kept, and how many files have it."""
    photos = """SELECT failure, count(*) FROM file
        WHERE failure IS NOT NULL AND missing_since IS NULL GROUP BY 1"""
    sidecars = f"""SELECT sidecar.failure, count(DISTINCT {_SIDECAR}) {_BROKEN} GROUP BY 1"""
    return [row for which in (photos, sidecars) for row in connection.execute(which).fetchall()]


def list_failures(connection: sqlite3.Connection) -> list[FailureRecord]:
    """Every one that is there, by path."""
    rows = connection.execute(
        """SELECT path, relpath, failure, size, mtime_ns, changed_at
        FROM file JOIN root ON root.id = root_id
        WHERE failure IS NOT NULL AND missing_since IS NULL"""
    ).fetchall()
    found = {_joined(row): FailureRecord(_joined(row), *row[2:]) for row in rows}
    rows = connection.execute(
        "SELECT path, relpath, name, sidecar.failure, sidecar.size, sidecar.mtime_ns, read_at "
        + _BROKEN
    ).fetchall()
    for row in rows:
        path = _joined(row).with_name(row[2])
        found[path] = FailureRecord(path, *row[3:])
    return sorted(found.values(), key=lambda failure: failure.path)


def sidecar_failures(connection: sqlite3.Connection, root_id: int) -> dict[tuple[str, str], str]:
    """Reasons by the relative path of a photo and the name of its sidecar."""
    rows = connection.execute(
        """SELECT relpath, name, sidecar.failure FROM sidecar JOIN file ON file.id = file_id
        WHERE sidecar.failure IS NOT NULL AND root_id = ?""",
        (root_id,),
    ).fetchall()
    return {(from_column(row[0]), row[1]): row[2] for row in rows}


def _joined(row: Any) -> Path:
    return Path(from_column(row[0])) / from_column(row[1])
