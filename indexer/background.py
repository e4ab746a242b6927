"""A change of models as a process of its own, which outlives the command or page that began it."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from clipsearch.errors import FillRunningError, StorageError
from clipsearch.library.fill_state import LOG
from clipsearch.library.lock import fill_holder
from clipsearch.processes import own_command, own_environment


def start_change(library: Path, address: str, flags: Sequence[str] = ()) -> tuple[int, Path]:
    """Begins ``clipsearch models use``; returns the process's id and the file it writes to.

    FillRunningError if a change is going on already, StorageError if the file cannot be written.
    """
    holder = fill_holder(library)
    if holder is not None:
        raise FillRunningError(path=library, holder=holder)
    log = library / LOG
    command = own_command("-m", "clipsearch", "models", "use", address, "--library", str(library))
    try:
        with log.open("wb") as written:
            process = subprocess.Popen(
                [*command, *flags],
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=subprocess.STDOUT,
                env=own_environment(),
                cwd=library,
                start_new_session=True,  # closing the terminal or Ctrl-C does not end it
            )
    except OSError as error:
        raise StorageError(
            path=log, reason=error.strerror or error, advice="check the folder's permissions"
        ) from error
    return process.pid, log
