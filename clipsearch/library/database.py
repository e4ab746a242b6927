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
    LibraryLockedError,
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
        """Brings the tables to the present version; LibraryVersionError if they are newer."""
        with self.reading() as connection:
            version = _version(connection)
        if version == VERSION:
            return
        if version > VERSION:
            raise LibraryVersionError(path=self.path.parent, found=version, known=VERSION)
        if version == 0 and not create:
            raise LibraryCorruptError(
                path=self.path.parent, reason=f"{self.path.name} holds no library"
            )
        with self.writing() as connection:
            # Another process may have done it while we waited for the transaction.
            for statements in MIGRATIONS[_version(connection) :]:
                for statement in statements:
                    connection.exec_driver_sql(statement)
            connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")

    def copy_to(self, destination: Path) -> None:
        """Copies the database page by page, consistently, while others read and write it."""
        with _in_our_words(self.path):
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


def _engine(path: Path) -> Engine:
    writable = not path.exists() or os.access(path.parent, os.W_OK)
    # On a read-only disk SQLite can keep no shared memory beside the file; nobody can write the
    # file there either, so it may be read as it is.
    mode = "rwc" if writable else "ro&immutable=1"
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
        driver.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
        driver.execute("PRAGMA foreign_keys = ON")
        if writable:
            driver.execute(f"PRAGMA page_size = {_PAGE_SIZE}")  # only before the first page
            driver.execute("PRAGMA journal_mode = WAL")
            driver.execute("PRAGMA synchronous = FULL")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options()["clipsearch_begin"])

    return engine


def _version(connection: Connection) -> int:
    return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())


@contextlib.contextmanager
def _in_our_words(path: Path) -> Iterator[None]:
    """Turns every error of the database into one of ours."""
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
        else:
            raise
        raise StorageError(path=path, reason=str(cause), advice=advice) from error
