"""Albums: queries with a name, and the folders and playlists that are kept current with them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from clipsearch.library.database import Database
from clipsearch.library.paths import from_column, to_column

LINKS, PLAYLIST = "links", "playlist"  # what an export can be


@dataclass(frozen=True)
class Album:
    """A saved query."""

    name: str
    query: str
    added_at: str  # ISO 8601, UTC


@dataclass(frozen=True)
class AlbumExport:
    """Where an album is kept as a folder of links, or as a playlist."""

    album: Album
    destination: Path
    form: str


class Albums:
    """Reads and writes albums. Each is a short transaction, also while an index run goes on."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[Album]:
        """All albums by name."""
        return [
            Album(*row)
            for row in self._rows("SELECT name, query, added_at FROM saved_search ORDER BY name")
        ]

    def get(self, name: str) -> Album | None:
        return next((album for album in self.all() if album.name == name), None)

    def save(self, name: str, query: str) -> Album:
        """Keeps a query under a name; one that has the name gets the new query."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._write(
            """INSERT INTO saved_search (name, query, added_at) VALUES (?, ?, ?)
            ON CONFLICT (name) DO UPDATE SET query = excluded.query""",
            name,
            query,
            now,
        )
        return next(album for album in self.all() if album.name == name)

    def remove(self, name: str) -> bool:
        """Forgets an album and where it was exported; False if there is none of the name."""
        return self._write("DELETE FROM saved_search WHERE name = ?", name) > 0

    def exports(self) -> list[AlbumExport]:
        """Everything that is kept current, by destination."""
        rows = self._rows(
            """SELECT name, query, added_at, destination, form
            FROM album_export JOIN saved_search ON saved_search.id = saved_search_id
            ORDER BY destination"""
        )
        return [AlbumExport(Album(*row[:3]), Path(from_column(row[3])), row[4]) for row in rows]

    def keep_current(self, name: str, destination: Path, form: str) -> None:
        """Remembers an export of a known album; a destination belongs to one album."""
        self._write(
            """INSERT OR REPLACE INTO album_export (destination, saved_search_id, form)
            SELECT ?, id, ? FROM saved_search WHERE name = ?""",
            to_column(str(destination)),
            form,
            name,
        )

    def leave(self, destination: Path) -> None:
        """Keeps a destination current no longer."""
        self._write("DELETE FROM album_export WHERE destination = ?", to_column(str(destination)))

    def _rows(self, statement: str, *values: Any) -> list[Any]:
        with self._database.reading() as connection:
            return connection.execute(statement, values).fetchall()

    def _write(self, statement: str, *values: Any) -> int:
        with self._database.writing() as connection:
            return int(connection.exec_driver_sql(statement, values).rowcount)
