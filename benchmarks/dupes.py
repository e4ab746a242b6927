"""Duplicates: what each tier finds of known copies of real photos, and 100,000 vectors in time.

    python benchmarks/dupes.py photos --photos FOLDER [--copies 300]
    python benchmarks/dupes.py words [--pairs 1000] [--from 0]
    python benchmarks/dupes.py speed [--count 100000] [--dim 384]
    python benchmarks/dupes.py looks [--looked 5000]

``photos`` indexes a folder of different photos with the embedded model, beside changed versions of
some of them, and counts for each kind of version the tier that it was found in together with its
original. ``words`` looks closely at pairs of documents, chats and slides that differ in words only,
rendered, scanned and photographed, and at versions of them. ``speed`` finds the near pairs of
clustered unit vectors and prints the peak of memory, ``looks`` how long close looks take at
versions of pictures of 1600 x 1200 and 4000 x 3000 pixels.
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
import rendered_words
from PIL import Image, ImageEnhance

from clipsearch.close_looks import look_closely
from clipsearch.config import available_cores
from clipsearch.copies import nearness
from clipsearch.duplicates import find_duplicates
from clipsearch.hashing import hash_file
from clipsearch.images.looking import Eyes
from clipsearch.library import ItemRecord, Library
from clipsearch.near_pairs import near_pairs
from clipsearch.vectors import Matrix, unit_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "what", choices=["photos", "words", "speed", "looks"], nargs="?", default="speed"
    )
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--copies", type=int, default=300)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--from", type=int, default=0, dest="start")
    parser.add_argument("--looked", type=int, default=5000)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    arguments = parser.parse_args()
    if arguments.what == "speed":
        measure_speed(arguments.count, arguments.dim)
    elif arguments.what == "words":
        measure_words(arguments.pairs, arguments.start)
    elif arguments.what == "looks":
        measure_looks(arguments.looked)
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


WIDTHS = (*2 * (600, 700, 800, 900, 1000, 1240), 1600, 2000, 3000)


def measure_words(count: int, start: int) -> None:
    """Pairs that differ in words only, the second one often changed further; then versions."""
    kinds = list(rendered_words.KINDS)
    found: dict[tuple[str, str], Counter[str]] = {}
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        eyes = Eyes(200_000_000)
        for number in range(start, start + count):
            chance = random.Random(number)
            kind, width = kinds[number % len(kinds)], chance.choice(WIDTHS)
            how = rendered_words.CAPTURES[number // len(kinds) % len(rendered_words.CAPTURES)]
            change = chance.choice(rendered_words.CHANGES)
            one, other = rendered_words.pair(kind, number, width, change)
            one = rendered_words.captured(one, how, number, 1)
            other = rendered_words.captured(other, how, number, 2)
            version = chance.choice(["as it is", *rendered_words.VERSIONS])
            if version != "as it is":
                other = rendered_words.VERSIONS[version](other)
            saved = _saved(one, name, "one")
            verdict = eyes.look(saved, _saved(other, name, "other"))["verdict"]
            found.setdefault(("words", change), Counter())[verdict] += 1
            if verdict == "same":
                wrong.append(f"{number} {kind} {width} {how} {change} {version}")
                print("same though the words differ:", wrong[-1], flush=True)
            version = chance.choice(list(rendered_words.VERSIONS))
            true = _saved(rendered_words.VERSIONS[version](one), name, "true")
            found.setdefault(("version", version), Counter())[
                eyes.look(saved, true)["verdict"]
            ] += 1
    print(f"{count:,} pairs that differ in words only, and as many versions")
    for (what, name), counted in sorted(found.items()):
        print(f"{what:<10}{name:<16}", dict(sorted(counted.items())))
    print(f"same though the words differ: {len(wrong)}")


def _saved(image: Image.Image, folder: str, name: str) -> dict[str, object]:
    path = Path(folder) / f"{name}.bmp"
    image.save(path)
    return {"hash": hash_file(path), "paths": [str(path)]}


def measure_looks(count: int) -> None:
    """How long it takes to look at pairs of a JPEG and a version of it, by all processes."""
    for size in ((1600, 1200), (4000, 3000)):
        with tempfile.TemporaryDirectory() as name:
            records, paths, pairs = {}, {}, []
            some = max(10, count // 50)
            for number in range(some):
                scene = rendered_words.scenery(size[0], random.Random(number))
                for half, shown in enumerate((scene, shrunk(scene, 0.5))):
                    path, item = Path(name) / f"{number}-{half}.jpg", 2 * number + half
                    shown.save(path, quality=88)
                    content = hash_file(path)
                    records[item] = ItemRecord(item, content, *shown.size, "JPEG", 1, None, {})
                    paths[item] = [path]
                pairs.append((2 * number, 2 * number + 1))
            started = time.perf_counter()
            looks = look_closely(pairs, records, paths)
            elapsed_s = time.perf_counter() - started
        told = Counter(look.verdict for look in looks)
        children_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        a_pair_s = elapsed_s / some
        print(
            f"{size[0]} x {size[1]} and half of it: {1000 * a_pair_s:.0f} ms a pair by the clock,"
        )
        print(f"  {available_cores()} cores, so {a_pair_s * count:.0f} s for {count:,};")
        print(f"  {dict(told)}; a process takes up to {children_mb:.0f} MB")


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
