"""The database's tables, version by version, and the checksums of its rows."""

from __future__ import annotations

import xxhash

APPLICATION_ID = 0x434C5053  # "CLPS", so that `file library.db` and we can tell whose it is

# Migration n brings a database from version n to n + 1. Never edit one that has been released.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
        "INSERT INTO meta VALUES ('revision', '0')",
        """CREATE TABLE root (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            path TEXT NOT NULL UNIQUE,
            added_at TEXT NOT NULL)""",
        """CREATE TABLE item (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            hash TEXT NOT NULL UNIQUE,
            width INTEGER NOT NULL,
            height INTEGER NOT NULL,
            format TEXT NOT NULL,
            bytes INTEGER NOT NULL,
            taken_at TEXT,
            metadata TEXT NOT NULL,
            checksum INTEGER NOT NULL)""",
        """CREATE TABLE file (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            root_id INTEGER NOT NULL REFERENCES root ON DELETE CASCADE,
            relpath TEXT NOT NULL,
            size INTEGER NOT NULL,
            mtime_ns INTEGER NOT NULL,
            inode INTEGER NOT NULL,
            item_id INTEGER REFERENCES item,
            missing_since TEXT,
            failure TEXT,
            changed_at TEXT NOT NULL,
            UNIQUE (root_id, relpath))""",
        "CREATE INDEX file_item ON file (item_id)",
        """CREATE VIEW present_file AS SELECT * FROM file
            WHERE item_id IS NOT NULL AND missing_since IS NULL""",
        """CREATE TABLE space (
            id TEXT PRIMARY KEY,
            model TEXT NOT NULL,
            weights_sha256 TEXT NOT NULL,
            preprocess TEXT NOT NULL,
            dim INTEGER NOT NULL,
            address TEXT NOT NULL,
            runtime TEXT NOT NULL,
            precision TEXT NOT NULL,
            active INTEGER NOT NULL DEFAULT 0,
            added_at TEXT NOT NULL)""",
        "CREATE UNIQUE INDEX one_active_space ON space (active) WHERE active = 1",
        """CREATE TABLE embedding (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            item_id INTEGER NOT NULL REFERENCES item ON DELETE CASCADE,
            space_id TEXT NOT NULL REFERENCES space ON DELETE CASCADE,
            vector BLOB NOT NULL,
            checksum INTEGER NOT NULL,
            UNIQUE (space_id, item_id))""",
        "CREATE TABLE tag (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE)",
        """CREATE TABLE item_tag (
            item_id INTEGER NOT NULL REFERENCES item ON DELETE CASCADE,
            tag_id INTEGER NOT NULL REFERENCES tag ON DELETE CASCADE,
            source TEXT NOT NULL CHECK (source IN ('user', 'model')),
            score REAL,
            PRIMARY KEY (item_id, tag_id, source)) WITHOUT ROWID""",
        """CREATE TABLE caption (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            item_id INTEGER NOT NULL REFERENCES item ON DELETE CASCADE,
            text TEXT NOT NULL,
            source TEXT NOT NULL)""",
        """CREATE TABLE saved_search (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            name TEXT NOT NULL UNIQUE,
            query TEXT NOT NULL,
            added_at TEXT NOT NULL)""",
    ),
)
VERSION = len(MIGRATIONS)


def item_checksum(
    content_hash: str,
    width: int,
    height: int,
    format_name: str,
    size: int,
    taken_at: str | None,
    metadata: str,
) -> int:
    """A signed 64-bit checksum of everything an item row says."""
    fields = (content_hash, width, height, format_name, size, taken_at, metadata)
    return _signed(xxhash.xxh3_64_intdigest(repr(fields).encode("utf-8", "surrogatepass")))


def embedding_checksum(item_id: int, space_id: str, vector: bytes) -> int:
    """A signed 64-bit checksum of a vector's bytes and of whose and which they are."""
    return _signed(xxhash.xxh3_64_intdigest(f"{item_id} {space_id} ".encode() + vector))


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number
