"""Starting processes of our own: the same interpreter and packages, never code of the folder."""

from __future__ import annotations

import os
import sys


def own_command(*arguments: str) -> list[str]:
    """The command line of this interpreter, which imports nothing from the present folder (-P).

    That may be a photo folder from someone else, with a numpy.py in it.
    """
    return [sys.executable, "-P", *arguments]


def own_environment(**changes: str) -> dict[str, str]:
    """This process's environment, in which the new one finds the packages where this one does."""
    paths = os.pathsep.join(entry for entry in sys.path if entry)
    return {**os.environ, "PYTHONPATH": paths, **changes}
