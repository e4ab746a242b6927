"""From the start of a new process to the printed answer of a text search, with the embedded model.

    python benchmarks/search_latency.py [--photos 1000] [--runs 7]

The ceiling is what nobody can avoid: starting Python and importing numpy, timed in the same run.
The photos are the sample photos, cropped at random so that each is a picture of its own.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "sample_data"))
from gather import gather


def make_photos(folder: Path, count: int) -> None:
    """Writes ``count`` different JPEGs of 500 px."""
    originals = [Image.open(path).convert("RGB") for path in gather(folder / "originals")]
    chance = random.Random(1)
    for number in range(count):
        picture = originals[number % len(originals)]
        side = chance.uniform(0.5, 0.95) * min(picture.size)
        left = chance.uniform(0, picture.width - side)
        upper = chance.uniform(0, picture.height - side)
        box = (round(left), round(upper), round(left + side), round(upper + side))
        picture.crop(box).resize((500, 500)).save(folder / f"{number:05}.jpg", quality=88)


def median_s(command: list[str], runs: int) -> float:
    """The median wall time of a command in seconds, after one run that warms the disk cache."""
    times = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder, library = Path(temporary) / "photos", str(Path(temporary) / "bench.clipsearch")
        folder.mkdir()
        make_photos(folder, arguments.photos)
        clipsearch = [sys.executable, "-m", "clipsearch"]
        index = [*clipsearch, "index", str(folder), "--model", "embedded", "--library", library]
        subprocess.run(index, check=True, capture_output=True)
        search = [*clipsearch, "search", "a cup of coffee", "--library", library]
        floor = median_s([sys.executable, "-c", "import numpy"], arguments.runs)
        taken = median_s(search, arguments.runs)
        print(f"photos                     {arguments.photos}")
        print(f"python + numpy alone       {floor:.3f} s")
        print(f"clipsearch search          {taken:.3f} s   (median of {arguments.runs})")
        print(f"ratio to the floor         {taken / floor:.1f}")
        print(f"bar: <= 0.8 s              {'met' if taken <= 0.8 else 'MISSED'}")


if __name__ == "__main__":
    main()
