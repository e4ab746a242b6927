"""Duplicates: what each tier finds of known copies of real photos, and 100,000 vectors in time.

    python benchmarks/dupes.py photos --photos FOLDER [--copies 300]
    python benchmarks/dupes.py speed [--count 100000] [--dim 384]

``photos`` indexes a folder of different photos with the embedded model, beside changed versions of
some of them, and counts for each kind of version the tier that it was found in together with its
original. ``speed`` finds the near pairs of clustered unit vectors and prints the peak of memory.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from clipsearch.config import available_cores
from clipsearch.copies import nearness
from clipsearch.duplicates import find_duplicates
from clipsearch.library import Library
from clipsearch.near_pairs import near_pairs
from clipsearch.vectors import Matrix, unit_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["photos", "speed"], nargs="?", default="speed")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--copies", type=int, default=300)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    arguments = parser.parse_args()
    if arguments.what == "speed":
        measure_speed(arguments.count, arguments.dim)
    else:
        with tempfile.TemporaryDirectory() as folder:
            measure_tiers(arguments.photos, Path(folder), arguments.copies)


def shrunk(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)))


def cropped(image: Image.Image, kept: float) -> Image.Image:
    x, y = (round(side * (1 - kept) / 2) for side in image.size)
    return image.crop((x, y, image.width - x, image.height - y))


def shaken(image: Image.Image, share: float) -> Image.Image:
    """The next shot from a hand: the same size, a little to the side."""
    x, y = (round(side * share) for side in image.size)
    return image.crop((x, y, image.width, image.height)).resize(image.size)


VERSIONS: dict[str, tuple[str, Callable[[Image.Image], Image.Image]]] = {
    "jpeg-60": ("jpg", lambda image: image),
    "png": ("png", lambda image: image),
    "half-size": ("jpg", lambda image: shrunk(image, 0.5)),
    "three-quarters": ("jpg", lambda image: shrunk(image, 0.75)),
    "enlarged": ("webp", lambda image: shrunk(image, 1.5)),
    "brighter-15": ("jpg", lambda image: ImageEnhance.Brightness(image).enhance(1.15)),
    "crop-90": ("jpg", lambda image: cropped(image, 0.9)),
    "crop-70": ("jpg", lambda image: cropped(image, 0.7)),
    "shaken-4": ("jpg", lambda image: shaken(image, 0.04)),
    "mirrored": ("jpg", lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
}


def measure_tiers(photos: Path, folder: Path, count: int) -> None:
    sources = sorted(path for path in photos.iterdir() if path.suffix in (".jpg", ".png", ".webp"))
    for path in random.Random(0).sample(sources, count):
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        for name, (suffix, change) in VERSIONS.items():
            change(image).save(folder / f"{path.stem}@{name}.{suffix}", quality=60)
    place = folder / "bench.clipsearch"
    index = [sys.executable, "-m", "clipsearch", "index", str(photos), str(folder), "--quiet"]
    subprocess.run([*index, "--model", "embedded", "--library", str(place)], check=True)
    with Library.open(place) as library:
        started = time.perf_counter()
        # Each kind of version by itself against the originals: groups of many would hide it.
        groups = find_duplicates(library)
        elapsed_s = time.perf_counter() - started
    tier_of: dict[str, Counter[str]] = {name: Counter() for name in VERSIONS}
    wrong: Counter[str] = Counter()
    for group in groups:
        stems = [shot.paths[0].stem for shot in (group.best, *group.others)]
        wrong[group.tier] += sum(1 for s in stems[1:] if s[:5] != stems[0][:5])
        for stem in stems:
            others = [other for other in stems if other != stem]
            if "@" in stem and any(other[:5] == stem[:5] for other in others):
                tier_of[stem.split("@")[1]].setdefault(group.tier, 0)
                tier_of[stem.split("@")[1]][group.tier] += 1
    print(
        f"{len(sources):,} photos, {count} of them in {len(VERSIONS)} versions, {elapsed_s:.1f} s"
    )
    print(f"{'version':<16}{'same':>8}{'alike':>8}  grouped with another version, of {count}")
    for name, counted in tier_of.items():
        print(f"{name:<16}{counted['same']:>8}{counted['alike']:>8}")
    print(f"pictures grouped with another photo: same {wrong['same']}, alike {wrong['alike']}")


def clustered(count: int, dim: int) -> Matrix:
    """Vectors as of photos: one direction in common, 2,000 scenes, a falling spectrum, copies."""
    generator = np.random.default_rng(0)
    falling = (np.arange(1, dim + 1) ** -0.5).astype(np.float32)
    common = unit_rows(generator.standard_normal((1, dim), dtype=np.float32))
    scenes = unit_rows(generator.standard_normal((2000, dim), dtype=np.float32) * falling)
    rows = generator.standard_normal((count, dim), dtype=np.float32) * falling
    rows = 0.5 * common + scenes[generator.integers(0, 2000, count)] + 0.9 * unit_rows(rows)
    copies = count // 20  # one in twenty has a copy
    noise = generator.standard_normal((copies, dim), dtype=np.float32)
    rows[-copies:] = rows[:copies] + 0.01 * noise
    return unit_rows(rows)


def measure_speed(count: int, dim: int) -> None:
    rows = clustered(count, dim)
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started, computed = time.perf_counter(), time.process_time()
    bounds = nearness(rows)
    found = near_pairs(rows, bounds.near)
    elapsed_s, computed_s = time.perf_counter() - started, time.process_time() - computed
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{count:,} vectors of {dim}, {available_cores()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"from cosine {found.threshold:.3f} on: {len(found.first):,} pairs")
    print(f"{elapsed_s:.1f} s, of which this process computed {computed_s:.1f} s of its threads")
    print(f"peak memory {peak_mb:,.0f} MB, of which {before_mb:,.0f} MB before (the vectors)")


if __name__ == "__main__":
    main()
