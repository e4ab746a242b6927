"""A copy of the database that is whole, made while others read and write it."""

from __future__ import annotations

import os
from pathlib import Path

from clipsearch.errors import StorageError
from clipsearch.library.database import Database
from clipsearch.user_paths import expand_user


def back_up(database: Database, destination: Path) -> None:
    """Copies the database; the file appears under its name when it is complete.

    StorageError if ``destination`` exists or cannot be written.
    """
    destination = expand_user(destination).absolute()
    if destination.exists():
        raise StorageError(
            path=destination, reason="there is a file already", advice="choose another name"
        )
    half = destination.with_name(destination.name + ".part")
    try:
        half.unlink(missing_ok=True)
        database.copy_to(half)
        with half.open("rb+") as file:
            os.fsync(file.fileno())
        half.replace(destination)
    except OSError as error:
        raise StorageError(
            path=destination, reason=error.strerror or error, advice="choose another place"
        ) from error
    finally:
        half.unlink(missing_ok=True)
