"""A library of 100,000 pictures: indexed, scanned again unchanged, searched; with what memory.

    python benchmarks/library_of_100k.py [--files 100000] [--pictures FOLDER]

The pictures are 64 px JPEGs, each of its own content, and the model a ViT of two layers with random
weights, so that what is measured is everything but the encoder: reading, decoding, thumbnails,
rows, commits, and what grows with the library. The compiled runtime is made beforehand.
With --pictures they are made in that folder once and kept, else in a temporary one.

Memory is looked at every half second: resident is the sum over clipsearch and its decoders, where a
page that two of them share counts twice; the bar is on that. Own is what the kernel says with
shared pages divided among those that share them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parent))
from models import VIT, save_model
from rescan import walk

from clipsearch.config import available_cores, resolve
from clipsearch.encoders import compile_encoder

PER_FOLDER = 1000
SIDE = 64
RESIDENT_GB = 2.0
RESCAN_S = 5.0
FULL_SIZE = 100_000  # what the bars are for
_LOOK_EVERY_S = 0.5
_RESCANS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=FULL_SIZE)
    parser.add_argument("--pictures", type=Path)
    arguments = parser.parse_args()
    count = arguments.files
    kept = arguments.pictures
    with (
        tempfile.TemporaryDirectory() as temporary,
        nullcontext(kept) if kept else tempfile.TemporaryDirectory() as place,
    ):
        base, pictures = Path(temporary), Path(place).absolute() / f"{count}"
        make_pictures(pictures, count)
        model = f"local-dir:{save_model(base / 'model', VIT)}"
        compile_encoder(model, settings=resolve({"cache_dir": base / "cache"}))
        os.environ["CLIPSEARCH_CACHE_DIR"] = str(base / "cache")
        library = ["--library", str(base / "bench.clipsearch")]
        print(f"{available_cores()} cores, load before the start {os.getloadavg()[0]:.1f}")
        index(pictures, count, [*library, "--model", model])
        rescan(pictures, count, library)
        for what in (["search", "a red square"], ["search", "a red square"], ["info"]):
            seconds, _ = clipsearch([*what, *library])
            print(f"{'clipsearch ' + what[0]:<28}{seconds:8.2f} s")
        size = sum(file.stat().st_size for file in base.glob("bench.clipsearch/library.db*"))
        print(f"{'library.db':<28}{size / 1e6:8.1f} MB")


def index(pictures: Path, count: int, arguments: list[str]) -> None:
    """Indexes all and prints the rate and the memory."""
    command = [sys.executable, "-m", "clipsearch", "index", str(pictures), "--json", *arguments]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        watch = Watch(process.pid)
        watch.start()
        told = process.communicate()
        watch.stop()
    taken = time.perf_counter() - started
    summary = json.loads(told[0].splitlines()[-1]) if told[0] else {}
    if process.returncode or summary.get("embedded") != count:
        sys.exit(f"clipsearch index did not embed {count} pictures: {summary} {told[1][-2000:]!r}")
    print(f"{'indexed':<28}{count:8,} pictures")
    print(f"{'clipsearch index':<28}{taken:8.1f} s, {count / taken:.0f} images/s")
    peak = watch.peak
    if not peak.resident:
        print("memory                      not measured: this system has no /proc")
        return
    gigabytes = peak.resident / 1e9
    verdict = _verdict(gigabytes < RESIDENT_GB, count)
    print(f"{'resident, all processes':<28}{gigabytes:8.2f} GB; bar < {RESIDENT_GB} GB: {verdict}")
    print(f"{'  own, all processes':<28}{peak.own / 1e9:8.2f} GB")
    print(f"{'  resident, main process':<28}{peak.main / 1e9:8.2f} GB")
    marks = ", ".join(f"{at:.0%} {size / 1e6:.0f}" for at, size in watch.course())
    print(f"  main process in MB as the run went on: {marks}")


def rescan(pictures: Path, count: int, arguments: list[str]) -> None:
    """Scans the unchanged folder again and prints the time beside the walk alone."""
    walks, runs = [], []
    for _ in range(_RESCANS):
        started = time.perf_counter()
        if walk(str(pictures)) != count:
            sys.exit("the folder holds other files than were made")
        walks.append(time.perf_counter() - started)
        seconds, told = clipsearch(["index", "--json", *arguments])
        runs.append(seconds)
        if json.loads(told.splitlines()[-1]).get("unchanged") != count:
            sys.exit(f"the run was to find nothing new: {told}")
    floor, taken = statistics.median(walks), statistics.median(runs)
    verdict = _verdict(taken <= RESCAN_S, count)
    print(f"{'walk and stat alone':<28}{floor:8.2f} s")
    print(
        f"{'the same, unchanged':<28}{taken:8.2f} s, x {taken / floor:.1f} of the walk; "
        f"bar <= {RESCAN_S:.0f} s: {verdict}"
    )


def clipsearch(arguments: list[str]) -> tuple[float, str]:
    """Seconds and the output of a command in a process of its own; exits when it fails."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "clipsearch", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"clipsearch {arguments[0]} failed: {done.stderr[-2000:]}")
    return time.perf_counter() - started, done.stdout


def _verdict(is_met: bool, count: int) -> str:
    if count < FULL_SIZE:
        return f"not judged by fewer than {FULL_SIZE:,} files"
    return "met" if is_met else "MISSED"


@dataclass(frozen=True)
class Memory:
    """Bytes of a process and all below it."""

    resident: int = 0
    own: int = 0
    main: int = 0


class Watch(threading.Thread):
    """Follows the memory of a process and of those it started."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peak = Memory()
        self._pid = pid
        self._seen: list[int] = []
        self._ending = threading.Event()

    def run(self) -> None:
        while not self._ending.wait(_LOOK_EVERY_S):
            now = [_memory(pid) for pid in _tree(self._pid)]
            if not now or not now[0][0]:
                continue
            main = now[0][0]
            self._seen.append(main)
            self.peak = Memory(
                max(self.peak.resident, sum(resident for resident, _ in now)),
                max(self.peak.own, sum(own for _, own in now)),
                max(self.peak.main, main),
            )

    def stop(self) -> None:
        self._ending.set()
        self.join()

    def course(self) -> list[tuple[float, int]]:
        """The main process's memory at some parts of the run: growth would show."""
        return [
            (part, self._seen[min(len(self._seen) - 1, int(part * len(self._seen)))])
            for part in (0.1, 0.25, 0.5, 0.75, 1.0)
            if self._seen
        ]


def _tree(pid: int) -> list[int]:
    """A process and all below it, itself first."""
    found = [pid]
    for parent in found:
        for thread in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(OSError):
                found += map(int, thread.read_text().split())
    return found


def _memory(pid: int) -> tuple[int, int]:
    """Resident bytes, and the same with shared pages divided; zeros where it is not told."""
    sizes: dict[str, Any] = {}
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, value, *_ = line.split()
            sizes[name] = int(value) * 1024
    return sizes.get("Rss:", 0), sizes.get("Pss:", 0)


def make_pictures(folder: Path, count: int) -> None:
    """Makes the pictures that are not there yet, a folder of a thousand at a time."""
    missing = [
        (folder / f"{start // PER_FOLDER:03}", start, min(start + PER_FOLDER, count))
        for start in range(0, count, PER_FOLDER)
        if not (folder / f"{start // PER_FOLDER:03}").is_dir()
    ]
    if not missing:
        return
    print(f"making {count:,} pictures of {SIDE} px", flush=True)
    with ProcessPoolExecutor(available_cores()) as pool:
        for job in [pool.submit(_make, *part) for part in missing]:
            job.result()


def _make(folder: Path, start: int, end: int) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as temporary:
        made = Path(temporary) / "pictures"
        made.mkdir()
        for number in range(start, end):
            colours = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
            picture = Image.fromarray(colours).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            picture.save(made / f"{number:06}.jpg", quality=80)
        made.replace(folder)


if __name__ == "__main__":
    main()
