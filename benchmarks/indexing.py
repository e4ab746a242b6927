"""Indexing 1,000 JPEGs of 500 px, against its ceiling: reading, decoding and encoding, each alone.

    python benchmarks/indexing.py [--photos 1000] [--model large|embedded]

``large`` is ViT-B-32-256 with random weights. The ceiling is the sum of the three, each measured
alone on one core in the same run, divided by the cores. The compiled runtime is made before the
clock starts, and its loading is within it. Memory is the peak of the index process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from encoder_runtimes import random_large
from search_latency import make_photos

from clipsearch.config import available_cores, resolve
from clipsearch.encoders import compile_encoder, load_encoder
from clipsearch.images import decode_image

ALLOWED = 1.10
MEMORY_MB = 1500


def alone(address: str, folder: Path, cache: Path) -> dict[str, float]:
    """Seconds for each part over all photos, on one core; runs in a process of its own."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    encoder = load_encoder(address, settings=resolve({"cache_dir": cache, "threads": 1}))
    paths = sorted(folder.glob("*.jpg"))
    begun = time.perf_counter()
    data = [path.read_bytes() for path in paths]
    read = time.perf_counter() - begun
    begun = time.perf_counter()
    images = [decode_image(one, name="-", target_side=160) for one in data]
    decode = time.perf_counter() - begun
    pixels = [encoder.preprocess(image) for image in images]
    import numpy as np

    batches = [np.stack(pixels[start : start + 32]) for start in range(0, len(pixels), 32)]
    encoder.encode_images(batches[0])
    begun = time.perf_counter()
    for batch in batches:
        encoder.encode_images(batch)
    return {"read": read, "decode": decode, "encode": time.perf_counter() - begun}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--model", choices=["large", "embedded"], default="large")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        base = Path(temporary)
        photos, cache = base / "photos", base / "cache"
        photos.mkdir()
        make_photos(photos, arguments.photos)
        address = random_large(base) if arguments.model == "large" else "embedded"
        compile_encoder(address, settings=resolve({"cache_dir": cache}))
        child = [sys.executable, __file__, "--alone", address, str(photos), str(cache)]
        parts = json.loads(subprocess.run(child, check=True, capture_output=True).stdout)
        ceiling = sum(parts.values()) / available_cores()
        index = [sys.executable, "-m", "clipsearch", "index", str(photos), "--model", address]
        environment = {**os.environ, "CLIPSEARCH_CACHE_DIR": str(cache)}
        for run in range(2):  # the second one tells how much the machine varies
            library = ["--library", str(base / f"{run}.clipsearch"), "--quiet"]
            begun = time.perf_counter()
            process = subprocess.Popen([*index, *library], env=environment)
            _, status, usage = os.wait4(process.pid, 0)
            taken = time.perf_counter() - begun
            if status:
                sys.exit("the index command failed")
            peak = usage.ru_maxrss / 1024
            ratio = taken / ceiling
            verdict = "met" if ratio <= ALLOWED else "MISSED"
            print(
                f"{arguments.model}: {arguments.photos} photos in {taken:.1f} s "
                f"({arguments.photos / taken:.0f} images/s), {ratio:.2f} x the ceiling; "
                f"bar <= {ALLOWED}: {verdict}"
            )
        told = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in parts.items())
        print(
            f"the parts alone on one core: {told}; over {available_cores()} cores {ceiling:.1f} s"
        )
        print(f"peak memory of clipsearch index: {peak:.0f} MB; bar < {MEMORY_MB} MB")


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--alone":
        print(json.dumps(alone(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))))
    else:
        main()
