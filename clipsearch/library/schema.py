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
    (
        # A video is an item of its own, and each of its moments is one below it, with a time.
        "ALTER TABLE item ADD COLUMN kind TEXT NOT NULL DEFAULT 'picture'",
        "ALTER TABLE item ADD COLUMN parent_id INTEGER REFERENCES item ON DELETE CASCADE",
        "ALTER TABLE item ADD COLUMN time_s REAL",
        "CREATE INDEX item_parent ON item (parent_id) WHERE parent_id IS NOT NULL",
        # Names, sizes and times of the sidecars that were read with a file.
        "ALTER TABLE file ADD COLUMN sidecars TEXT NOT NULL DEFAULT ''",
        # One keyword may come from several places: each is kept, and replaced, by itself.
        """CREATE TABLE new_item_tag (
            item_id INTEGER NOT NULL REFERENCES item ON DELETE CASCADE,
            tag_id INTEGER NOT NULL REFERENCES tag ON DELETE CASCADE,
            source TEXT NOT NULL CHECK (source IN ('user', 'model')),
            origin TEXT NOT NULL,
            score REAL,
            PRIMARY KEY (item_id, tag_id, source, origin)) WITHOUT ROWID""",
        "INSERT INTO new_item_tag SELECT item_id, tag_id, source, 'hand', score FROM item_tag",
        "DROP TABLE item_tag",
        "ALTER TABLE new_item_tag RENAME TO item_tag",
        "CREATE INDEX item_tag_tag ON item_tag (tag_id)",
        "CREATE INDEX caption_item ON caption (item_id)",
        # What can be found at a path: its picture, or the moments of its video.
        "DROP VIEW present_file",
        """CREATE VIEW present_file AS
            SELECT file.id, root_id, relpath, coalesce(moment.id, file.item_id) AS item_id
            FROM file JOIN item ON item.id = file.item_id
            LEFT JOIN item AS moment ON moment.parent_id = file.item_id
            WHERE missing_since IS NULL AND (item.kind = 'picture' OR moment.id IS NOT NULL)""",
    ),
    (
        # What a person said of a tag on a picture, in review: kept as labels, also for training.
        """CREATE TABLE tag_answer (
            item_id INTEGER NOT NULL REFERENCES item ON DELETE CASCADE,
            tag_id INTEGER NOT NULL REFERENCES tag ON DELETE CASCADE,
            accepted INTEGER NOT NULL CHECK (accepted IN (0, 1)),
            answered_at TEXT NOT NULL,
            PRIMARY KEY (item_id, tag_id)) WITHOUT ROWID""",
        # From which score on a tag holds, where answers have moved it: scores are of one space.
        """CREATE TABLE tag_cutoff (
            space_id TEXT NOT NULL REFERENCES space ON DELETE CASCADE,
            tag_id INTEGER NOT NULL REFERENCES tag ON DELETE CASCADE,
            cutoff REAL NOT NULL,
            PRIMARY KEY (space_id, tag_id)) WITHOUT ROWID""",
        # Thumbs up and down on the answers of a query.
        """CREATE TABLE feedback (
            query TEXT NOT NULL,
            item_id INTEGER NOT NULL REFERENCES item ON DELETE CASCADE,
            relevant INTEGER NOT NULL CHECK (relevant IN (0, 1)),
            given_at TEXT NOT NULL,
            PRIMARY KEY (query, item_id)) WITHOUT ROWID""",
        # Pairs that a person has told apart, the smaller id first.
        """CREATE TABLE not_duplicate (
            item_id INTEGER NOT NULL REFERENCES item ON DELETE CASCADE,
            other_id INTEGER NOT NULL REFERENCES item ON DELETE CASCADE,
            PRIMARY KEY (item_id, other_id), CHECK (item_id < other_id)) WITHOUT ROWID""",
        # Sidecars that were written, for undo: as they were before (NULL: there was none).
        """CREATE TABLE written_sidecar (
            path TEXT PRIMARY KEY,
            before BLOB,
            after_hash TEXT NOT NULL,
            written_at TEXT NOT NULL) WITHOUT ROWID""",
        # Folders of links and playlists that are kept current with a saved search.
        """CREATE TABLE album_export (
            destination TEXT PRIMARY KEY,
            saved_search_id INTEGER NOT NULL REFERENCES saved_search ON DELETE CASCADE,
            form TEXT NOT NULL CHECK (form IN ('links', 'playlist'))) WITHOUT ROWID""",
        "CREATE INDEX item_taken ON item (taken_at)",
    ),
    (
        # Names that photos have taught. A photo is its content; where it was is for reading it
        # again, should another model have to.
        """CREATE TABLE concept (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            name TEXT NOT NULL UNIQUE,
            added_at TEXT NOT NULL)""",
        """CREATE TABLE concept_photo (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            concept_id INTEGER NOT NULL REFERENCES concept ON DELETE CASCADE,
            hash TEXT NOT NULL,
            path TEXT NOT NULL,
            UNIQUE (concept_id, hash))""",
        # Vectors of photos that the library does not hold.
        """CREATE TABLE concept_vector (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            hash TEXT NOT NULL,
            space_id TEXT NOT NULL REFERENCES space ON DELETE CASCADE,
            vector BLOB NOT NULL,
            checksum INTEGER NOT NULL,
            UNIQUE (hash, space_id))""",
    ),
    (
        # Tags that a person had given by hand before answering in review: undo gives them back.
        """CREATE TABLE tag_before_answer (
            item_id INTEGER NOT NULL REFERENCES item ON DELETE CASCADE,
            tag_id INTEGER NOT NULL REFERENCES tag ON DELETE CASCADE,
            PRIMARY KEY (item_id, tag_id)) WITHOUT ROWID""",
        # What each sidecar of a file says, the most specific first. Files with the same content
        # have one item, of which all their sidecars speak.
        """CREATE TABLE sidecar (
            file_id INTEGER NOT NULL REFERENCES file ON DELETE CASCADE,
            name TEXT NOT NULL,
            place INTEGER NOT NULL,
            size INTEGER NOT NULL,
            mtime_ns INTEGER NOT NULL,
            said TEXT NOT NULL,
            failure TEXT,
            read_at TEXT NOT NULL,
            PRIMARY KEY (file_id, name)) WITHOUT ROWID""",
        # What a photo says itself, where its files have sidecars.
        """CREATE TABLE own_words (
            item_id INTEGER PRIMARY KEY REFERENCES item ON DELETE CASCADE,
            said TEXT NOT NULL)""",
        # Where a file went that was seen to be renamed: such a row waits for nothing.
        "ALTER TABLE file ADD COLUMN moved_to INTEGER REFERENCES file ON DELETE SET NULL",
        "CREATE INDEX file_moved ON file (moved_to) WHERE moved_to IS NOT NULL",
        # Each content that another one replaced under the same path, and what a person had said
        # of it: as it was given to the new one, in JSON, so that it can be taken back.
        """CREATE TABLE carried (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            file_id INTEGER NOT NULL REFERENCES file ON DELETE CASCADE,
            from_item INTEGER NOT NULL REFERENCES item ON DELETE CASCADE,
            to_item INTEGER NOT NULL REFERENCES item ON DELETE CASCADE,
            carried_at TEXT NOT NULL,
            is_same INTEGER,
            was_known INTEGER NOT NULL,
            was_moved INTEGER NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('carried', 'kept', 'settled')),
            words TEXT NOT NULL)""",
        "CREATE INDEX carried_file ON carried (file_id)",
        "CREATE INDEX carried_from ON carried (from_item)",
        "CREATE INDEX carried_to ON carried (to_item)",
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
    kind: str,
    parent_id: int | None,
    time_s: float | None,
) -> int:
    """A signed 64-bit checksum of everything an item row says."""
    fields: tuple[object, ...] = (
        content_hash,
        width,
        height,
        format_name,
        size,
        taken_at,
        metadata,
    )
    if kind != "picture":  # pictures keep the checksums that version 1 gave them
        fields = (*fields, kind, parent_id, time_s)
    return _signed(xxhash.xxh3_64_intdigest(repr(fields).encode("utf-8", "surrogatepass")))


def embedding_checksum(item_id: int, space_id: str, vector: bytes) -> int:
    """A signed 64-bit checksum of a vector's bytes and of whose and which they are."""
    return _signed(xxhash.xxh3_64_intdigest(f"{item_id} {space_id} ".encode() + vector))


def concept_checksum(content_hash: str, space_id: str, vector: bytes) -> int:
    """As ``embedding_checksum``, of a photo of a concept."""
    return _signed(xxhash.xxh3_64_intdigest(f"{content_hash} {space_id} ".encode() + vector))


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number
