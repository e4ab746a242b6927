"""One exact query over 100,000 vectors of 512, against plain numpy and plain FAISS in the same run.

python benchmarks/exact_query.py [--vectors 100000] [--dim 512] [--runs 50]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import faiss
import numpy as np

from clipsearch.index.faiss_index import FaissIndex


def median_ms(ask: Callable[[], object], runs: int) -> float:
    """The median wall time of a call in milliseconds, after three that warm up."""
    times = []
    for _ in range(runs + 3):
        started = time.perf_counter()
        ask()
        times.append(time.perf_counter() - started)
    return statistics.median(times[3:]) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--runs", type=int, default=50)
    arguments = parser.parse_args()
    chance = np.random.default_rng(0)
    rows = chance.standard_normal((arguments.vectors, arguments.dim), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    question = rows[7]
    index = FaissIndex(arguments.dim)
    index.put(np.arange(len(rows)), rows)
    some = np.arange(0, len(rows), 10)
    flat = faiss.IndexFlatIP(arguments.dim)
    flat.add(rows)

    def with_numpy() -> np.ndarray:
        scores = rows @ question
        best = np.argpartition(-scores, 20)[:20]
        return np.asarray(best[np.argsort(-scores[best])])

    theirs = flat.search(question[None], 20)[1][0]
    if not (list(index.search(question, 20).ids) == list(theirs) == list(with_numpy())):
        raise SystemExit("the three do not agree")
    plain = median_ms(with_numpy, arguments.runs)
    peer = median_ms(lambda: flat.search(question[None], 20), arguments.runs)
    ours = median_ms(lambda: index.search(question, 20), arguments.runs)
    part = median_ms(lambda: index.search(question, 20, among=some), arguments.runs)
    print(f"vectors                    {arguments.vectors:,} x {arguments.dim}")
    print(f"numpy                      {plain:.1f} ms")
    print(f"faiss IndexFlatIP          {peer:.1f} ms")
    print(f"clipsearch                 {ours:.1f} ms   (median of {arguments.runs})")
    print(f"clipsearch, among a tenth  {part:.1f} ms")
    print(f"ratio to faiss, to numpy   {ours / peer:.2f}, {ours / plain:.2f}")
    print(f"bar: <= 30 ms              {'met' if ours <= 30 else 'MISSED'}")


if __name__ == "__main__":
    main()
