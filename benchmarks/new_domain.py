"""A domain that the model does not know: fine-tuned on handwritten digits, before and after.

    python benchmarks/new_domain.py [--pictures 300] [--data ../shared/data] [--learn WHAT]

The digits are those that scikit-learn brings (1,797 of 8 x 8 pixels, ten classes), enlarged; the
embedded model learns from some of them with captions as "the handwritten digit seven", as
``clipsearch train`` does by default. Of 500 others, the share whose caption of the ten is nearest
(zero-shot, CLIP section 3.1). What became of the rest: sentences of val that find their photo among
all of val, where that is at hand.
"""

from __future__ import annotations

import argparse
import csv
import io
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from _relevance_questions import Rows, image_vectors, text_vectors
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits

from clipsearch.config import resolve
from clipsearch.encoders import load_encoder
from training.evaluation import evaluate_retrieval
from training.run import Options, fine_tune

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
JUDGED = 500
_SIDE = 160


def drawn(pixels: NDArray[np.float64]) -> bytes:
    """(8, 8) of 0 to 16, as dark ink on paper: a PNG."""
    grey = Image.fromarray((255 - 15.9 * pixels).astype(np.uint8))
    png = io.BytesIO()
    grey.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).convert("RGB").save(png, "PNG")
    return png.getvalue()


def told(address: str, digits: Rows, classes: NDArray[np.int64], val: Path) -> str:
    """What the model at ``address`` finds."""
    encoder = load_encoder(address, settings=resolve({}))
    captions = text_vectors(encoder, [f"the handwritten digit {name}" for name in NAMES])
    guesses = (image_vectors(encoder, digits) @ captions.T).argmax(axis=1)
    line = f"{len(digits)} other digits, top-1 {100 * (guesses == classes).mean():.1f} %"
    if not val.exists():
        return f"{line}; {val} is not there"
    rows = pq.read_table(val).to_pylist()
    said = [text for row in rows for text in row["captions"]]
    owner = [place for place, row in enumerate(rows) for _ in row["captions"]]
    found = evaluate_retrieval(image_vectors(encoder, rows), text_vectors(encoder, said), owner)
    return f"{line}; val, sentences to photos, R@1 and R@10 " + " and ".join(
        f"{found.text_to_image[k]:.1f} %" for k in (1, 10)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--learn")
    parser.add_argument("--max-forgetting", type=float, default=1.0)
    arguments = parser.parse_args()
    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    taught, others = order[: arguments.pictures], order[arguments.pictures :][:JUDGED]
    digits = [{"image": drawn(found.images[n])} for n in others]
    classes = found.target[others]
    val = arguments.data / "val" / "val.parquet"
    print("before:", told("embedded", digits, classes, val), flush=True)
    with tempfile.TemporaryDirectory() as work:
        table = Path(work) / "captions.csv"
        with table.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["path", "caption"])
            for n in taught:
                (table.parent / f"{n}.png").write_bytes(drawn(found.images[n]))
                rows.writerow([f"{n}.png", f"the handwritten digit {NAMES[found.target[n]]}"])
        started = time.monotonic()
        report = fine_tune(
            table,
            Path(work) / "run",
            "embedded",
            options=Options(learn=arguments.learn, max_forgetting=arguments.max_forgetting),
            settings=resolve({}),
            tell=print,
        )
        print(
            f"{len(taught)} digits taught in {time.monotonic() - started:.0f} s, learning "
            f"{report.learn}, {report.steps} steps; {report.alpha:.0%} mixed in",
            flush=True,
        )
        address = f"local-dir:{Path(work) / 'run' / 'export'}"
        print("after: ", told(address, digits, classes, val))


if __name__ == "__main__":
    main()
