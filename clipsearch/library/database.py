"""The connection to library.db: pragmas, transactions, migrations, and errors in our words."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipsearch.errors import (
    LibraryCorruptError,
    LibraryError,
    LibraryLockedError,
    LibraryNotFoundError,
    LibraryVersionError,
    StorageError,
)
from clipsearch.library.connecting import connect
from clipsearch.library.schema import APPLICATION_ID, MIGRATIONS, VERSION

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine


class Database:
    """One library.db. Connections are kept for the next block; every block is one transaction.

    What is read comes from SQLite's own connections; SQLAlchemy writes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._idle: list[sqlite3.Connection] = []
        self._writes_with: Engine | None = None
        self._is_closed = False
        self._changing = threading.Lock()  # of the three above

    def close(self) -> None:
        with self._changing:
            self._is_closed = True
            for driver in self._idle:
                driver.close()
            self._idle.clear()
            if self._writes_with is not None:
                self._writes_with.dispose()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A consistent view of what has been committed."""
        with _in_our_words(self.path), self._borrowed() as driver:
            driver.execute("BEGIN")
            try:
                yield driver
            finally:
                if driver.in_transaction:
                    driver.rollback()

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is committed at the end, or rolled back when an error leaves it."""
        with _in_our_words(self.path), self._engine().begin() as connection:
            yield connection

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[sqlite3.Connection]:
        with self._changing:
            driver = self._idle.pop() if self._idle else None
        driver = driver or connect(self.path)
        try:
            yield driver
        finally:
            with self._changing:
                if self._is_closed:
                    driver.close()
                else:
                    self._idle.append(driver)

    def _engine(self) -> Engine:
        with self._changing:
            if self._writes_with is None:
                self._writes_with = _engine(self.path)
            return self._writes_with

    def migrate(self, *, create: bool) -> None:
        """Brings the tables to the present version.

        LibraryVersionError if they are newer, LibraryCorruptError if they are not ours, and
        LibraryNotFoundError for an empty database unless ``create``.
        """
        with self.reading() as connection:
            version = _version(connection)
            tables = _value(connection, "SELECT count(*) FROM sqlite_schema")
            owner = _value(connection, "PRAGMA application_id")
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
            for statements in MIGRATIONS[_version(driver_of(connection)) :]:
                for statement in statements:
                    connection.exec_driver_sql(statement)
            connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")

    def copy_to(self, destination: Path) -> None:
        """Copies the database page by page, consistently, while others read and write it.

        Only its owner may read the copy: it says what is in all the photos.
        """
        try:
            os.close(os.open(destination, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except OSError as error:
            reason = error.strerror or str(error)
            advice = "check the folder's permissions"
            raise StorageError(path=destination, reason=reason, advice=advice) from error
        with (
            _in_our_words(self.path, written=destination),
            self._borrowed() as source,
            contextlib.closing(sqlite3.connect(destination)) as target,
        ):
            source.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")

    def checkpoint(self) -> None:
        """Empties the write-ahead log, which holds rows as they were before they were deleted.

        Not while others read for longer than they are waited for; then the last one to close the
        database does it.
        """
        with _in_our_words(self.path), self._borrowed() as driver:
            driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def shrink(self) -> None:
        """Writes the database anew without its free pages, and empties the write-ahead log."""
        with _in_our_words(self.path), self._borrowed() as driver:
            driver.execute("VACUUM")
            driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _engine(path: Path) -> Engine:
    # Imported here: a search only reads, and this is a sixth of its time.
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import QueuePool

    engine = create_engine(
        "sqlite://", creator=lambda: connect(path), poolclass=QueuePool, max_overflow=-1
    )

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def driver_of(connection: Connection) -> sqlite3.Connection:
    """SQLite's own connection below SQLAlchemy's, in the same transaction."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)  # noqa: S101 - our own engine
    return driver


def _version(connection: sqlite3.Connection) -> int:
    return int(_value(connection, "PRAGMA user_version"))


def _value(connection: sqlite3.Connection, statement: str) -> Any:
    return connection.execute(statement).fetchone()[0]


@contextlib.contextmanager
def _in_our_words(path: Path, *, written: Path | None = None) -> Iterator[None]:
    """Turns every error of SQLite, and of damaged JSON in rows, into one of ours.

    ``written`` is another file that is written.
    What is left is a mistake in our own code and stays as it is.
    """
    try:
        yield
    except Exception as error:
        cause = getattr(error, "orig", error)  # what SQLAlchemy wrapped
        if isinstance(cause, json.JSONDecodeError):
            reason = "words in a row of it were damaged on the disk"
            raise LibraryCorruptError(path=path.parent, reason=reason) from error
        if not isinstance(cause, sqlite3.Error):
            raise
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
