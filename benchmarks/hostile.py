"""Mutated copies of real files by the thousand: no crash, no hang over 10 s, no growth.

    python benchmarks/hostile.py [--files 2000] [--seed 1] [--data FOLDER]

Takes the photos and videos that installed packages carry, and those of --data (by default the
messy folder beside the checkout, where there is one), and writes copies that are cut off, have
flipped bits, a wrong ending, or a header that lies about the size. Indexes them all with a small
model, then again. Counts what became of them, the slowest file, and the memory of the processes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "sample_data"))
sys.path.insert(0, str(Path(__file__).parents[1]))
from gather import gather

from clipsearch.images import EXTENSIONS, VIDEO_EXTENSIONS
from clipsearch.library import failure_kind
from tests.models import VIT, save_model

ENDINGS = sorted(EXTENSIONS | VIDEO_EXTENSIONS)
MAX_SOURCE_BYTES = 4_000_000
MAX_FILE_S = 10.0
MESSY = Path(__file__).parents[2] / "shared" / "data" / "messy"


def cut(data: bytearray, chance: random.Random) -> None:
    """Cuts the end off, at any place."""
    del data[chance.randrange(len(data)) :]


def flip(data: bytearray, chance: random.Random) -> None:
    """Flips a few bits anywhere."""
    for _ in range(chance.choice([1, 3, 20, 200])):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def flip_header(data: bytearray, chance: random.Random) -> None:
    """Changes bytes near the start, where sizes and offsets are."""
    for _ in range(chance.choice([1, 2, 8])):
        data[chance.randrange(min(len(data), 600))] = chance.choice([0, 1, 0x7F, 0x80, 0xFF])


def lie(data: bytearray, chance: random.Random) -> None:
    """Writes a huge or strange number over four bytes near the start."""
    place = chance.randrange(max(1, min(len(data), 2000) - 4))
    number = chance.choice([0, 1, 65_535, 2**24, 2**31 - 1, 2**32 - 1])
    data[place : place + 4] = struct.pack(chance.choice("<>") + "I", number)


def fill(data: bytearray, chance: random.Random) -> None:
    """Overwrites a stretch with zeros or noise, as a broken disk leaves it."""
    start = chance.randrange(len(data))
    end = min(len(data), start + chance.choice([512, 4096, 65_536]))
    noise = chance.randbytes(end - start)
    data[start:end] = noise if chance.random() < 0.5 else bytes(end - start)


MUTATIONS: list[Callable[[bytearray, random.Random], None]] = [cut, flip, flip_header, lie, fill]


def mutate(sources: list[Path], folder: Path, count: int, seed: int) -> None:
    chance = random.Random(seed)
    for number in range(count):
        source = chance.choice(sources)
        data = bytearray(source.read_bytes())
        chance.choice(MUTATIONS)(data, chance)
        ending = source.suffix if chance.random() < 0.8 else chance.choice(ENDINGS)
        place = folder / f"{number // 500:03}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:05}{ending}").write_bytes(data)


def sources_in(folders: list[Path]) -> list[Path]:
    return sorted(
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.suffix.lower() in ENDINGS and 0 < path.stat().st_size <= MAX_SOURCE_BYTES
    )


class Memory(threading.Thread):
    """The resident memory of a process and its children, over time."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self._process = process
        self.samples_mb: list[float] = []
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.5):
            self.samples_mb.append(sum(_resident_mb(one) for one in self._family()))

    def _family(self) -> list[int]:
        try:
            told = Path(f"/proc/{self._process}/task/{self._process}/children").read_text()
        except OSError:
            return [self._process]
        return [self._process, *map(int, told.split())]


def _resident_mb(process: int) -> float:
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def report(summary: dict[str, object], reasons: Counter[str], samples_mb: list[float]) -> None:
    """Prints what became of the files, and the memory that it took."""
    told = {name: summary.get(name, 0) for name in ("added", "copied", "new_failures")}
    print(f"read {told['added']}, copies {told['copied']}, refused {told['new_failures']}")
    for reason, count in reasons.most_common():
        print(f"  {count:>5} x {reason}")
    died = sum(count for reason, count in reasons.items() if reason.startswith("decoding "))
    print(f"decoders that a file ended: {died}")
    third = max(1, len(samples_mb) // 3)
    early, late = max(samples_mb[:third], default=0), max(samples_mb[-third:], default=0)
    print(f"memory of all processes: {early:.0f} MB in the first third, {late:.0f} MB in the last")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", type=Path, default=MESSY)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        gather(base / "originals")
        folders = [base / "originals"] + ([arguments.data] if arguments.data.is_dir() else [])
        sources = sources_in(folders)
        mutate(sources, base / "photos", arguments.files, arguments.seed)
        model = f"local-dir:{save_model(base / 'model', VIT)}"
        index = [sys.executable, "-m", "clipsearch", "index", "--json", "--quiet"]
        index += ["--library", str(base / "hostile.clipsearch"), "--runtime", "torch"]
        begun = time.monotonic()
        process = subprocess.Popen(
            [*index, str(base / "photos"), "--model", model], stdout=subprocess.PIPE, text=True
        )
        memory = Memory(process.pid)
        memory.start()
        reasons: Counter[str] = Counter()
        last, slowest = 0.0, 0.0
        summary: dict[str, object] = {}
        assert process.stdout is not None
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "failure":
                reasons[failure_kind(event["failure"])] += 1
            if event["event"] == "summary":
                summary = event
            if event["event"] == "progress":
                now = time.monotonic()
                slowest = max(slowest, now - last) if last else 0.0  # the first waits for torch
                last = now
        code = process.wait()
        memory.ended.set()
        taken = time.monotonic() - begun
        second = subprocess.run(index, check=False, capture_output=True, text=True)
        again = json.loads(second.stdout.splitlines()[-1])
        shutil.rmtree(base / "photos")
    print(f"{arguments.files:,} mutated copies of {len(sources)} real files, seed {arguments.seed}")
    report(summary, reasons, memory.samples_mb)
    print(f"exit code {code}, {taken:.0f} s")
    print(f"longest time without a file done: {slowest:.1f} s (bar {MAX_FILE_S} s)")
    print(
        f"a second run read {again['added'] + again['changed']} files, "
        f"new failures: {again['new_failures']}"
    )
    if code not in (0, 100) or again["new_failures"]:
        sys.exit("MISSED: the run did not end as it should")


if __name__ == "__main__":
    main()
