"""How fast a model is and how much memory it takes, in a process that does nothing else.

``python -m training.evaluating.timing ADDRESS`` prints the figures as one JSON object.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

from clipsearch.config import Settings, resolve
from clipsearch.errors import ModelError
from clipsearch.processes import own_command, own_environment

_TEXTS = ("a dog on the beach", "two people riding bicycles in a park", "a red car at night")
_BATCH = 32
_ROUNDS = 5
_LONGEST_S = 8.0  # of each measurement
_TIMEOUT_S = 1800


@dataclass(frozen=True)
class Timing:
    """``load_s`` is until the first text has its vector, imports included; ``ms_per_text`` one by
    one, the median; ``images_per_s`` in batches of 32, the best of several, decoding not included.

    ``peak_mb`` is the most memory the process had resident; None where the system does not tell.
    """

    runtime: str
    precision: str
    threads: int
    load_s: float
    ms_per_text: float
    images_per_s: float
    peak_mb: float | None


def time_model(address: str, settings: Settings) -> Timing:
    """Measures in a new process. ModelError with its last words if that fails."""
    command = own_command("-m", "training.evaluating.timing", address)
    chosen = {
        f"CLIPSEARCH_{name.upper()}": str(value)
        for name in ("library", "runtime", "device", "precision", "threads", "cache_dir")
        if (value := getattr(settings, name))
    }
    chosen["CLIPSEARCH_OFFLINE"] = "1" if settings.offline else "0"
    chosen["OMP_NUM_THREADS"] = str(settings.thread_count)  # numpy computes words
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=True,
            env=own_environment(PYTHONWARNINGS="ignore", **chosen),
        )
        return Timing(**json.loads(done.stdout.splitlines()[-1]))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError, TypeError) as error:
        said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        raise ModelError(
            reason=f"{address} could not be timed: {said[-1] if said else error}"
        ) from (error)


def measure(address: str, settings: Settings) -> Timing:
    """Measures in this process; the first thing it does, or the figures are of more."""
    started = time.perf_counter()
    import numpy as np

    from clipsearch.encoders import load_encoder

    encoder = load_encoder(address, settings=settings)
    encoder.encode_texts(_TEXTS[:1])
    load_s = time.perf_counter() - started
    texts = [
        _seconds(partial(encoder.encode_texts, [text]))
        for _ in range(4 * _ROUNDS)
        for text in _TEXTS
    ]
    side = encoder.preprocessing
    chance = np.random.default_rng(0)
    pixels = chance.integers(0, 256, (_BATCH, 3, side.height, side.width), dtype=np.uint8)
    encoder.encode_images(pixels)
    batches: list[float] = []
    while len(batches) < _ROUNDS and sum(batches) < _LONGEST_S:
        batches.append(_seconds(partial(encoder.encode_images, pixels)))
    return Timing(
        runtime=encoder.runtime,
        precision=encoder.precision,
        threads=settings.thread_count,
        load_s=round(load_s, 2),
        ms_per_text=round(1000 * median(texts), 2),
        images_per_s=round(_BATCH / min(batches), 1),
        peak_mb=_peak_mb(),
    )


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _peak_mb() -> float | None:
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the process was before it became Python
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 1024, 0)
    try:
        import resource
    except ImportError:  # Windows
        return None
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(used / (2**20 if sys.platform == "darwin" else 1024), 0)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(measure(sys.argv[1], resolve()))) + "\n")
