"""Ranks of many captions among many pictures: a block at a time, beside the whole matrix.

    python benchmarks/retrieval_at_size.py [--sizes 10000 30000 100000] [--dim 384] [--matrix-gib 8]

As many captions as pictures; each caption's vector is its picture's with noise, so that about half
the captions find their picture among the first ten. Both directions. Each measurement has a fresh
process: peak resident memory above what it had before, and the time. The two ways take turns, and
the ratios are of neighbours. A matrix of float32 larger than --matrix-gib is not made.
"""

from __future__ import annotations

import argparse
import json
import time

from _fresh import in_a_process, peak_mib

BYTES = 4  # of a float32
NOISE = 0.85  # share of a caption's vector that is not its picture's, at 384 numbers and 10,000


def measure(way: str, size: int, dim: int, threads: int) -> dict[str, float]:
    import numpy as np
    from threadpoolctl import threadpool_limits

    from training.evaluation import rank_both, summarise

    chance = np.random.default_rng(0)

    def unit_rows() -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        rows = chance.standard_normal((size, dim), dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows

    images = unit_rows()
    texts = unit_rows()
    texts *= NOISE
    texts += (1 - NOISE) * images
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    with threadpool_limits(threads):
        images[:64] @ texts[:64].T
        before = peak_mib()
        started = time.perf_counter()
        if way == "blocks":
            text_ranks, image_ranks = rank_both(images, texts, range(size))
        else:
            matrix = texts @ images.T
            own = np.diagonal(matrix).copy()
            text_ranks = np.array(
                [(row >= found).sum() for row, found in zip(matrix, own, strict=True)]
            )
            image_ranks = np.zeros(size, dtype=np.int64)
            for row in matrix:
                image_ranks += row >= own
        found = summarise(text_ranks, image_ranks, pictures=size)
        took = time.perf_counter() - started
    after = peak_mib()
    return {"mib": after - before, "s": took, "recall": found.text_to_image[10],
            "back": found.image_to_text[10]}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--matrix-gib", type=float, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="pairs; one where no matrix is made")
    parser.add_argument("--one", nargs=4)
    arguments = parser.parse_args()
    if arguments.one:
        way, *numbers = arguments.one
        print(json.dumps(measure(way, *(int(number) for number in numbers))))
        return
    for size in arguments.sizes:
        one = (str(size), str(arguments.dim), str(arguments.threads))
        matrix_gib = size * size * BYTES / 2**30
        if matrix_gib > arguments.matrix_gib:
            found = in_a_process(__file__, "--one", "blocks", *one)
            print(f"{size:,}: {found['mib']:.0f} MiB, {found['s']:.1f} s, "
                  f"R@10 {found['recall']} and {found['back']}; the matrix would take "
                  f"{matrix_gib:.0f} GiB", flush=True)  # fmt: skip
            continue
        pairs = [
            (
                in_a_process(__file__, "--one", "blocks", *one),
                in_a_process(__file__, "--one", "matrix", *one),
            )
            for _ in range(arguments.rounds)
        ]
        for name, found in zip(("blocks", "matrix"), pairs[0], strict=True):
            print(f"{size:,}, {name}: {found['mib']:.0f} MiB, {found['s']:.2f} s, "
                  f"R@10 {found['recall']} and {found['back']}")  # fmt: skip
        for name, key in (("memory", "mib"), ("time", "s")):
            ratios = " ".join(f"{ours[key] / whole[key]:.3f}" for ours, whole in pairs)
            print(f"  blocks / matrix, {name}: {ratios}", flush=True)


if __name__ == "__main__":
    main()
