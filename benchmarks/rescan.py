"""A second clipsearch index over unchanged files: nothing is opened, so it must be quick.

    python benchmarks/rescan.py [--files 20000] [--runs 5] [--patterns 0]

The floor is the walk alone: os.scandir and stat over the same folders, timed in the same run. With
--patterns, an ignore file with so many lines that fit nothing lies in the root. The parts are the
best of the runs, each timed alone in this process.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from clipsearch.library import Batch, FileState, Library, NewItem
from clipsearch.vectors import EmbeddingSpace
from indexer.changes import plan_changes
from indexer.ignore import IGNORE_FILE
from indexer.scan import scan

PER_FOLDER = 200
DIM = 384
BARS_S = {20_000: 2.0, 100_000: 5.0}  # files: seconds


def fill(folder: Path, library_path: Path, count: int) -> None:
    """Makes ``count`` files and a library that knows them all, as an index run would leave it."""
    for number in range(count):
        place = folder / f"{number // PER_FOLDER:03}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:05}.jpg").write_bytes(b"photo %d" % number)
    rows = np.random.default_rng(0).standard_normal((count, DIM)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    hashes = [f"{number:032x}" for number in range(count)]
    with Library.open(library_path, create=True) as library, library.writer() as writer:
        root = writer.add_root(folder)
        space = writer.add_space(
            EmbeddingSpace("embedded", "0" * 64, "-", DIM),
            address="embedded",
            runtime="none",
            precision="f32",
        )
        writer.activate_space(space.id)
        files = [
            FileState(
                root_id=root.id,
                relpath=found.relpath,
                size=found.size,
                mtime_ns=found.mtime_ns,
                inode=found.inode,
                content_hash=content_hash,
                failure=None,
            )
            for found, content_hash in zip(scan(folder).files, hashes, strict=True)
        ]
        items = [NewItem(name, 500, 500, "JPEG", 8, None, {}) for name in hashes]
        vectors = (space.id, hashes, rows)
        writer.commit(Batch(new_items=items, vectors=vectors, files=files, missing=[]))


def walk(folder: str) -> int:
    """What no scan can avoid."""
    count = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                count += walk(entry.path)
            else:
                entry.stat()
                count += 1
    return count


def parts(library_path: Path, runs: int) -> dict[str, float]:
    """Seconds of what a rescan is made of."""
    best: dict[str, float] = {}

    def took(what: str, started: float) -> float:
        now = time.perf_counter()
        best[what] = min(best.get(what, now), now - started)
        return time.perf_counter()

    with Library.open(library_path) as library:
        (root,) = library.roots()
        for _ in range(runs):
            started = time.perf_counter()
            found = scan(root.path)
            started = took("scan", started)
            known = library.files(root.id)
            started = took("rows of the library", started)
            plan_changes(root.id, found, known)
            took("comparing", started)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--patterns", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, library = Path(temporary) / "photos", Path(temporary) / "bench.clipsearch"
        fill(folder, library, arguments.files)
        if arguments.patterns:
            lines = "".join(f"private-{number}-*.png\n" for number in range(arguments.patterns))
            (folder / IGNORE_FILE).write_text(lines)
        index = [sys.executable, "-m", "clipsearch", "index", "--library", str(library), "--json"]
        walks, runs = [], []
        for _ in range(arguments.runs):
            started = time.perf_counter()
            walk(str(folder))
            walks.append(time.perf_counter() - started)
            started = time.perf_counter()
            done = subprocess.run(index, check=True, capture_output=True, text=True)
            runs.append(time.perf_counter() - started)
            if f'"unchanged": {arguments.files}' not in done.stdout:
                sys.exit(f"the run was to find nothing new: {done.stdout}")
        floor, taken = statistics.median(walks), statistics.median(runs)
        print(f"files                      {arguments.files:,}")
        print(f"walk and stat alone        {floor:.3f} s")
        print(f"clipsearch index           {taken:.3f} s   (new process, median of {len(runs)})")
        print(f"ratio to the walk          {taken / floor:.1f}")
        for what, seconds in parts(library, arguments.runs).items():
            print(f"  {what:<25}{seconds:.3f} s")
        for files, bar in BARS_S.items():
            if arguments.files == files:
                print(f"bar: <= {bar:.0f} s{'met' if taken <= bar else 'MISSED':>20}")


if __name__ == "__main__":
    main()
