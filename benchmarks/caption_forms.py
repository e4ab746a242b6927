"""Reading captions at scale: time, memory, and how many copies the split has to keep together.

    python benchmarks/caption_forms.py SOURCE [SOURCE ...]

SOURCE is anything that ``clipsearch train --captions`` takes. Every picture is decoded once.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

from training.data import CaptionSource, read_captions, split_by_content

TRAIN = sorted(Path("../shared/data/train").glob("*.parquet"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", type=Path, nargs="*", default=TRAIN)
    arguments = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as work:
        found = read_captions(CaptionSource(tuple(arguments.sources)), Path(work))
        took_s = time.monotonic() - started
        learning, held_out = split_by_content(found.pictures, 0.2, 0)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        captions = sum(len(picture.captions) for picture in found.pictures)
        print(
            f"{len(found.pictures):,} pictures, {captions:,} captions, {len(found.skipped)} rows "
            f"skipped, {found.near_copies} near copies; {took_s:.0f} s, {peak:,.0f} MiB at most; "
            f"{len(learning):,} to learn from, {len(held_out):,} held out"
        )


if __name__ == "__main__":
    main()
