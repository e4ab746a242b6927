"""Named places where a test can have the process killed, as a power cut would.

``CLIPSEARCH_FAILPOINT=before-commit:3`` sends SIGKILL at the third passing of ``before-commit``.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

VARIABLE = "CLIPSEARCH_FAILPOINT"
NAMES = (
    "before-commit",
    "inside-commit",
    "inside-carrying",
    "after-commit",
    "cache-half-written",
    "cache-before-manifest",
    "before-switch",
    "inside-switch",
    "inside-drop",
    "after-drop",
)
_passed: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """Kills this process if the environment asks for it here; otherwise does nothing."""
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    _passed[name] += 1
    place, _, count = wanted.partition(":")
    if place == name and _passed[name] == int(count or 1):
        os.kill(os.getpid(), signal.SIGKILL)
