"""What a library holds, counted: by format, by year, by camera, and why files failed."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Any

from clipsearch.library.failures import count_reasons
from clipsearch.library.records import Statistics

# One row a content that is there: a picture, or a video (not its moments).
_PRESENT = """FROM item WHERE id IN
    (SELECT item_id FROM file WHERE item_id IS NOT NULL AND missing_since IS NULL)"""
_PARTICULAR = re.compile(r" \(|: ")
_OVER_LIMIT = re.compile(r"(bytes|pixels), (over the limit of [\d,]*\d)( [A-Za-z]+)?")
_MAKE, _MODEL = "json_extract(metadata, '$.make')", "json_extract(metadata, '$.model')"


def count_statistics(connection: sqlite3.Connection, folder: Path) -> Statistics:
    """Counts everything afresh; ``folder`` is the library's, whose sizes are taken."""
    return Statistics(
        formats=_counted(connection, f"SELECT format, count(*) {_PRESENT} GROUP BY 1"),
        years=_counted(
            connection,
            f"SELECT coalesce(substr(taken_at, 1, 4), 'unknown'), count(*) {_PRESENT} GROUP BY 1",
        ),
        cameras=_cameras(
            connection.execute(
                f"SELECT {_MAKE}, {_MODEL}, count(*) {_PRESENT} GROUP BY 1, 2"
            ).fetchall()
        ),
        failures=_reasons(count_reasons(connection)),
        live_photos=connection.execute(
            f"SELECT count(*) {_PRESENT} AND json_extract(metadata, '$.live_photo')"
        ).fetchone()[0],
        photo_bytes=connection.execute(f"SELECT coalesce(sum(bytes), 0) {_PRESENT}").fetchone()[0],
        library_bytes=_size(folder, "library.db*"),
        index_bytes=_size(folder, "index/*/*"),
        thumbnail_bytes=_size(folder, "thumbs/*/*"),
    )


def camera_name(make: str | None, model: str | None) -> str | None:
    """``Canon EOS 5D`` for ("Canon", "Canon EOS 5D") and ``Google Pixel 7`` for its two parts."""
    make, model = (make or "").strip(), (model or "").strip()
    if make.split(" ")[0].lower() in model.lower():
        return model or make or None
    return f"{make} {model}".strip() or None


def failure_kind(reason: str) -> str:
    """A reason without what is particular to one file, so that like failures can be counted."""
    over = _OVER_LIMIT.search(reason)
    if over is not None:
        unit, limit, said = over.groups()
        return f"{limit}{said or f' {unit}'}"
    reason = reason.removeprefix("cannot be read as a picture: ")
    kind = _PARTICULAR.split(reason, maxsplit=1)[0]
    return f"it {kind}" if kind.startswith("is ") else kind


def _counted(connection: sqlite3.Connection, statement: str) -> dict[str, int]:
    rows: list[Any] = list(connection.execute(statement).fetchall())
    return dict(sorted(((str(row[0]), int(row[1])) for row in rows), key=_most_first))


def _cameras(rows: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for make, model, count in rows:
        name = camera_name(make, model) or "unknown"
        counts[name] = counts.get(name, 0) + count
    return dict(sorted(counts.items(), key=_most_first))


def _reasons(rows: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for reason, count in rows:
        kind = failure_kind(reason)
        counts[kind] = counts.get(kind, 0) + count
    return dict(sorted(counts.items(), key=_most_first))


def _most_first(pair: tuple[str, int]) -> tuple[int, str]:
    return -pair[1], pair[0]


def _size(folder: Path, pattern: str) -> int:
    total = 0
    for path in folder.glob(pattern):
        try:
            total += path.stat().st_size
        except OSError:
            continue  # removed meanwhile
    return total
