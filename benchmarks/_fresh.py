"""Measuring in a fresh process, so that nothing another measurement left behind is counted."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from typing import Any


def in_a_process(script: str, *arguments: str) -> dict[str, Any]:
    """What ``script`` prints as JSON in its last line, run in a process of its own."""
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def peak_mib() -> float:
    """The most memory this process has had resident so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
