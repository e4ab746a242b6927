"""One connection to library.db, as all of ours are: its mode, its pragmas, damaged text."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

# Measured: 50,000 float16 vectors of 512 take 55 MB with pages of 16 KiB, 68 MB with 4 KiB.
_PAGE_SIZE = 16384
_BUSY_TIMEOUT_MS = 10_000


def connect(path: Path) -> sqlite3.Connection:
    """Opens the database, to be written where that is possible; raises sqlite3.Error."""
    mode = _mode(path)
    driver = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, check_same_thread=False
    )
    # We begin transactions ourselves: the driver's own way does not roll back DDL.
    driver.isolation_level = None
    driver.text_factory = _text
    try:
        driver.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        driver.execute("PRAGMA foreign_keys = ON")
        if mode == "rwc":
            driver.execute(f"PRAGMA page_size = {_PAGE_SIZE}")  # only before the first page
            driver.execute("PRAGMA journal_mode = WAL")
            driver.execute("PRAGMA synchronous = FULL")
            driver.execute("PRAGMA secure_delete = ON")  # what is forgotten is overwritten
    except BaseException:
        driver.close()
        raise
    return driver


def _mode(path: Path) -> str:
    """How SQLite is to open the file: as its URI parameter ``mode``."""
    folder_is_writable = os.access(path.parent, os.W_OK)
    if not path.exists() or (folder_is_writable and os.access(path, os.W_OK)):
        return "rwc"
    if folder_is_writable or path.with_name(path.name + "-wal").exists():
        return "ro"  # its owner may be writing it now
    # SQLite can keep no shared memory in a read-only folder, so the file is read as it is.
    return "ro&immutable=1"


def _text(data: bytes) -> str:
    """Reads damaged text, too, so that ``check`` can say in which row it is."""
    return data.decode("utf-8", "surrogateescape")
