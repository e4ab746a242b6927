"""How far the fill of a new model's vectors is: a small file beside the database, for people.

The vectors themselves say what is done; the file adds speed, time left, and how it ended.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from clipsearch.library.lock import fill_holder

_FILE = "fill.json"
LOG = "fill.log"  # what a fill in the background has to say
RUNNING, STOPPED, FAILED = "running", "stopped", "failed"


@dataclass(frozen=True)
class FillState:
    """A fill as it was last told of. ``state`` is running, stopped or failed."""

    address: str
    state: str
    doing: str  # for people: loading, filling, waiting, tagging
    done: int = 0  # files read in this run
    total: int = 0
    images_per_s: float | None = None
    seconds_left: float | None = None
    process: int = 0
    error: str | None = None


def read_fill_state(library: Path) -> FillState | None:
    """What the file says, corrected by whether its process lives; None if no fill is known."""
    try:
        told = FillState(**json.loads((library / _FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    if told.state == RUNNING and fill_holder(library) is None:
        return replace(told, state=STOPPED, seconds_left=None)  # it was killed
    return told


def write_fill_state(library: Path, told: FillState | None) -> None:
    """Replaces the file, or removes it; where that is not possible nobody is told, no more."""
    file = library / _FILE
    with contextlib.suppress(OSError):
        if told is None:
            file.unlink(missing_ok=True)
            return
        half = file.with_name(f"{_FILE}.{os.getpid()}")
        half.write_text(json.dumps(asdict(told)), encoding="utf-8")
        half.replace(file)
