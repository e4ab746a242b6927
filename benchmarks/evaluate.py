"""The figures of docs/evaluate.md: the embedded model, or another, on held-out photos.

    python benchmarks/evaluate.py --data ../shared/data [--model embedded]

DATA holds val/val.parquet (captions) and dev/dev.parquet (labels where kind is label).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from clipsearch.cli import main


def run() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="embedded")
    arguments = parser.parse_args()
    measure = ["evaluate", "--model", arguments.model, "--data"]
    val, dev = (str(arguments.data / name / f"{name}.parquet") for name in ("val", "dev"))
    return main([*measure, val]) or main([*measure, dev, "--only", "kind=label", "--parts", "all"])


if __name__ == "__main__":
    sys.exit(run())
