"""How the stages tell how far they are, and keep what they made when they are interrupted."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CHECKPOINT_SECONDS = 300  # between two states that an interrupted stage goes on from
Tell = Callable[[str], None]
_PART = 4096  # rows, about a minute of pictures


def tell(message: str) -> None:
    """Says it on standard error, with the time of day."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {message}\n")


def kept_table(
    file: Path,
    shape: tuple[int, ...],
    make: Callable[[slice], NDArray[np.float16]],
    tell: Tell = tell,
) -> NDArray[np.float16]:
    """The float16 table of ``file``, mapped and read-only; made first if it is not there.

    ``make`` gives the rows of a slice. What it made counts at once: interrupted, the next call goes
    on after it. A table of another ``shape`` is made anew.
    """
    if not file.exists():
        half, progress = file.with_suffix(".part.npy"), file.with_suffix(".part.txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        done = int(progress.read_text(encoding="ascii")) if progress.exists() else 0
        if done and np.load(half, mmap_mode="r", allow_pickle=False).shape != shape:
            done = 0
        table = np.lib.format.open_memmap(half, "r+" if done else "w+", np.float16, shape)
        for start in range(done, shape[0], _PART):
            rows = slice(start, min(start + _PART, shape[0]))
            table[rows] = make(rows)
            table.flush()
            progress.write_text(str(rows.stop), encoding="ascii")
            tell(f"{file.name} {rows.stop:,}/{shape[0]:,}")
        del table
        half.replace(file)
        progress.unlink(missing_ok=True)
    found: NDArray[np.float16] = np.load(file, mmap_mode="r", allow_pickle=False)
    return found
