"""Relevance feedback: Rocchio against a logistic model, by simulated users on labelled photos.

    python benchmarks/feedback.py --dev dev.parquet [--vectors KEPT.npy]

The parquet file has the columns image and labels. For every label of at least 10 photos "a photo of
LABEL" is asked; a user answers the best k results truly, thumb up or down; the rest is ranked
anew, and average precision is taken over what was not answered (the residual collection), so that
nothing is won by remembering the answers. Strengths are chosen on one half of the labels, by the
mean over 1 to 10 answers, and the figures are of the other half.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from pyarrow import parquet

from clipsearch import load_encoder
from clipsearch.feedback import refined
from clipsearch.vectors import Matrix, Vector, unit_rows, unit_vector

ANSWERS = (0, 1, 2, 3, 5, 10)
LEAST_PHOTOS = 10
Method = Callable[[Vector, Matrix, Matrix], Vector]


def rocchio(liked_strength: float, disliked_strength: float, doubt: float) -> Method:
    def move(question: Vector, liked: Matrix, disliked: Matrix) -> Vector:
        return refined(
            question,
            liked,
            disliked,
            liked_strength=liked_strength,
            disliked_strength=disliked_strength,
            doubt=doubt,
        )

    return move


def logistic(scale: float, rate: float) -> Method:
    """Logistic regression on the answers, held to the question: |w - s q|^2 / 2, times 1 / rate."""

    def move(question: Vector, liked: Matrix, disliked: Matrix) -> Vector:
        rows = np.concatenate([liked, disliked]).astype(np.float64)
        wanted = np.array([1.0] * len(liked) + [0.0] * len(disliked))
        start = scale * question.astype(np.float64)
        weights, bias = start.copy(), -float((rows @ start).mean())
        for _ in range(200):
            chance = 1 / (1 + np.exp(-(rows @ weights + bias)))
            slope = rows.T @ (chance - wanted) + (weights - start) / rate
            weights -= 0.5 * min(1.0, rate) * slope / (1 + len(rows) * min(1.0, rate) / 4)
            bias -= 0.5 * float((chance - wanted).mean())
        return unit_vector(weights)

    return move


def average_precision(scores: np.ndarray, wanted: np.ndarray) -> float:
    order = np.argsort(-scores, kind="stable")
    hits = wanted[order]
    places = np.flatnonzero(hits) + 1
    return float((np.arange(1, len(places) + 1) / places).mean())


def simulate(
    method: Method, rows: Matrix, questions: dict[str, Vector], truth: dict[str, np.ndarray], k: int
) -> float:
    found = []
    for name, question in questions.items():
        scores = rows @ question
        judged = np.argsort(-scores, kind="stable")[:k]
        rest = np.setdiff1d(np.arange(len(rows)), judged)
        wanted = truth[name]
        if not wanted[rest].any():
            continue
        if k:
            liked, disliked = rows[judged[wanted[judged]]], rows[judged[~wanted[judged]]]
            scores = rows @ method(question, liked, disliked)
        found.append(average_precision(scores[rest], wanted[rest]))
    return float(np.mean(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dev", type=Path, default=Path("../shared/data/dev/dev.parquet"))
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--model", default="embedded")
    arguments = parser.parse_args()
    table = parquet.read_table(arguments.dev, columns=["image", "labels"]).to_pylist()
    table = [row for row in table if row["labels"]]
    encoder = load_encoder(arguments.model)
    if arguments.vectors and arguments.vectors.exists():
        rows = unit_rows(np.load(arguments.vectors, allow_pickle=False))
    else:
        parts = []
        for start in range(0, len(table), 32):
            some = [
                Image.open(io.BytesIO(row["image"])).convert("RGB")
                for row in table[start : start + 32]
            ]
            parts.append(encoder.encode_images(np.stack([encoder.preprocess(i) for i in some])))
        rows = unit_rows(np.concatenate(parts))
        if arguments.vectors:
            np.save(arguments.vectors, rows)
    truth: dict[str, np.ndarray] = {}
    for name in sorted({label for row in table for label in row["labels"]}):
        wanted = np.array([name in row["labels"] for row in table])
        if wanted.sum() >= LEAST_PHOTOS:
            truth[name] = wanted
    texts = encoder.encode_texts([f"a photo of {name}" for name in truth])
    questions = dict(zip(truth, texts, strict=True))
    tuned = dict(list(questions.items())[::2])
    held = dict(list(questions.items())[1::2])
    strengths = [(b, c, d) for b in (0.5, 1, 2) for c in (0, 0.25, 0.5, 1) for d in (0, 1, 3, 6)]
    methods = {f"Rocchio {b:g} {c:g} {d:g}": rocchio(b, c, d) for b, c, d in strengths}
    held_to = [(s, r) for s in (5, 20, 40) for r in (3, 10, 100)]
    methods |= {f"logistic {s:g} {r:g}": logistic(s, r) for s, r in held_to}
    print(f"{len(rows):,} photos, {len(questions)} labels, {len(held)} of them held out")
    for family in ("Rocchio", "logistic"):
        own = {name: method for name, method in methods.items() if name.startswith(family)}
        scored = {
            name: sum(simulate(method, rows, tuned, truth, k) for k in ANSWERS[1:])
            for name, method in own.items()
        }
        best = max(scored, key=scored.__getitem__)
        print(f"\n{best} is the best of its kind: mean average precision of what is left")
        print("answers  as asked  refined")
        for k in ANSWERS:
            asked = simulate(lambda question, _liked, _disliked: question, rows, held, truth, k)
            print(f"{k:>7}  {asked:8.3f}  {simulate(own[best], rows, held, truth, k):7.3f}")


if __name__ == "__main__":
    main()
