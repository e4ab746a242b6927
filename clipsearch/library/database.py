"""The connection to library.db: pragmas, transactions, migrations, and errors in our words."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from clipsearch.errors import (
    LibraryCorruptError,
    LibraryError,
    LibraryLockedError,
    LibraryNotFoundError,
    LibraryVersionError,
    StorageError,
)
from clipsearch.library.schema import APPLICATION_ID, MIGRATIONS, VERSION

# Measured: 50,000 float16 vectors of 512 take 55 MB with pages of 16 KiB, 68 MB with 4 KiB.
_PAGE_SIZE = 16384
_BUSY_TIMEOUT_MS = 10_000
_READING = {"clipsearch_begin": "BEGIN"}
_WRITING = {"clipsearch_begin": "BEGIN IMMEDIATE"}


class Database:
    """One library.db. Connections are pooled; every block is one transaction."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = _engine(path)

    def close(self) -> None:
        self._engine.dispose()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A consistent view of what has been committed."""
        with (
            _in_our_words(self.path),
            self._engine.connect() as connection,
            connection.execution_options(**_READING).begin(),
        ):
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is committed at the end, or rolled back when an error leaves it."""
        with (
            _in_our_words(self.path),
            self._engine.connect() as connection,
            connection.execution_options(**_WRITING).begin(),
        ):
            yield connection

    def migrate(self, *, create: bool) -> None:
        """Brings the tables to the present version.

        LibraryVersionError if they are newer, LibraryCorruptError if they are not ours, and
        LibraryNotFoundError for an empty database unless ``create``.
        """
        with self.reading() as connection:
            version = _version(connection)
            tables = connection.exec_driver_sql("SELECT count(*) FROM sqlite_schema").scalar_one()
            owner = connection.exec_driver_sql("PRAGMA application_id").scalar_one()
        is_empty = not tables and not version
        if is_empty and not create:  # a crash came before the first transaction
            raise LibraryNotFoundError(path=self.path.parent)
        if not is_empty and owner != APPLICATION_ID:
            reason = f"{self.path.name} is a database of another program"
            raise LibraryCorruptError(path=self.path.parent, reason=reason)
        if version == VERSION:
            return
        if version > VERSION:
            raise LibraryVersionError(path=self.path.parent, found=version, known=VERSION)
        with self.writing() as connection:
            # Another process may have done it while we waited for the transaction.
            for statements in MIGRATIONS[_version(connection) :]:
                for statement in statements:
                    connection.exec_driver_sql(statement)
            connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")

    def copy_to(self, destination: Path) -> None:
        """Copies the database page by page, consistently, while others read and write it."""
        with _in_our_words(self.path, written=destination):
            source = self._engine.raw_connection()
            try:
                target = sqlite3.connect(destination)
                try:
                    driver = source.driver_connection
                    assert isinstance(driver, sqlite3.Connection)  # noqa: S101 - our own engine
                    driver.backup(target)
                    target.execute("PRAGMA journal_mode = DELETE")
                finally:
                    target.close()
            finally:
                source.close()


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


def _engine(path: Path) -> Engine:
    mode = _mode(path)
    engine = create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}", uri=True, check_same_thread=False
        ),
        poolclass=QueuePool,
        max_overflow=-1,
    )

    @event.listens_for(engine, "connect")
    def _prepare(driver: sqlite3.Connection, _record: Any) -> None:
        # We begin transactions ourselves: the driver's own way does not roll back DDL.
        driver.isolation_level = None
        driver.text_factory = _text
        driver.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        driver.execute("PRAGMA foreign_keys = ON")
        if mode == "rwc":
            driver.execute(f"PRAGMA page_size = {_PAGE_SIZE}")  # only before the first page
            driver.execute("PRAGMA journal_mode = WAL")
            driver.execute("PRAGMA synchronous = FULL")
            driver.execute("PRAGMA secure_delete = ON")  # what is forgotten is overwritten

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options()["clipsearch_begin"])

    return engine


def _version(connection: Connection) -> int:
    return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())


@contextlib.contextmanager
def _in_our_words(path: Path, *, written: Path | None = None) -> Iterator[None]:
    """Turns every error of SQLite into one of ours; ``written`` is another file that is written.

    What is left is a mistake in our own code and stays as it is.
    """
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DatabaseError) else error
        name = getattr(cause, "sqlite_errorname", "") or ""
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise LibraryCorruptError(path=path.parent, reason=str(cause)) from error
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise LibraryLockedError(path=path.parent, holder="an unknown process") from error
        if name.startswith(("SQLITE_FULL", "SQLITE_IOERR")):
            advice = "free some space and run again"
        elif name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
            advice = "check the folder's permissions"
        elif name:
            reason = f"The library {path.parent} cannot be used: {cause}"
            raise LibraryError(reason=reason) from error
        else:
            raise
        raise StorageError(path=written or path, reason=str(cause), advice=advice) from error
