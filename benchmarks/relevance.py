"""Where relevant results end: the automatic cut-off against labels that no model was trained on.

    python benchmarks/relevance.py [--model ADDRESS] [--data FOLDER] [--cache FOLDER]

Asks the queries of relevance_queries.tsv about the labelled photos of ``dev``, and for what
relevance_absent.txt lists, which no photo shows. The rule was chosen with an eye on all of them;
the probabilities were fitted on the even lines of the queries and are judged on the odd ones.
What nothing was chosen on: the photos of ``subjects``, the sentences of ``val``. Besides the
model, a space made of it by a random projection into a narrow cone stands for a model that scales
its cosines otherwise; its labels are never used.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from _relevance_questions import (
    HERE,
    Asked,
    Flags,
    Rows,
    Space,
    image_vectors,
    in_a_cone,
    kept_in,
    lines_of,
    questions,
    text_vectors,
)
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from clipsearch.config import resolve
from clipsearch.encoders import Encoder, load_encoder
from clipsearch.relevance import _ODDS, STRICTNESS, Calibration, neutral_texts
from clipsearch.vectors import Matrix

DATA = Path(__file__).parents[2] / "shared" / "data"
ABSENT_WANTED = 0.85
PARTS = {10: 60, 25: 40, 100: 10, 400: 4, 1 << 20: 1}  # photos of a part, and how many parts

# --- rules ----------------------------------------------------------------------------------


def _flat(scores: Matrix, absent: Matrix, asked: list[Asked]) -> tuple[float, float, float]:
    """The best single threshold with the labels: its F1, the threshold, and the nothing rate."""
    grid = np.quantile(scores, 1 - np.geomspace(1e-5, 0.3, 300))
    means = [
        np.mean([q.f1(row >= cut) for q, row in zip(asked, scores, strict=True)]) for cut in grid
    ]
    best = int(np.argmax(means))
    return float(means[best]), float(grid[best]), float((absent.max(axis=1) < grid[best]).mean())


def _gated(scores: Matrix, absent: Matrix, asked: list[Asked], kept: float) -> tuple[float, float]:
    """Keeps what is ``kept`` of the way from the mean to the best; F1 without a bar, and with the
    bar on the best score that silences ABSENT_WANTED of the absent things (chosen with labels).
    """
    mean, best = scores.mean(axis=1), scores.max(axis=1)
    cuts = mean + kept * (best - mean)
    values = np.array([q.f1(row >= c) for q, row, c in zip(asked, scores, cuts, strict=True)])
    bar = np.quantile(absent.max(axis=1), ABSENT_WANTED)
    return float(values.mean()), float(np.where(best > bar, values, 0).mean())


def _robust(scores: Matrix) -> Matrix:
    middle = np.median(scores, axis=1, keepdims=True)
    return (scores - middle) / (1.4826 * np.median(abs(scores - middle), axis=1, keepdims=True))


def _gumbel(scores: Matrix) -> Matrix:
    """Distance in scales of a Gumbel fit, by moments, to the scores below the 95th percentile."""
    limit = np.quantile(scores, 0.95, axis=1, keepdims=True)
    bulk = np.where(scores <= limit, scores, np.nan)
    beta = np.nanstd(bulk, axis=1, keepdims=True) * np.sqrt(6) / np.pi
    place = np.nanmean(bulk, axis=1, keepdims=True) - 0.5772 * beta
    return np.asarray((scores - place) / beta)


def _compared(space: Space, asked: list[Asked]) -> None:
    scores, absent = space.queries @ space.dev.T, space.absent @ space.dev.T
    to_neutral = space.dev @ space.neutral.T
    spread = to_neutral.std()
    soft = spread * np.log(np.exp(to_neutral / spread).mean(axis=1))
    sharp = spread / 2 * np.log(np.exp(to_neutral / (spread / 2)).mean(axis=1))
    mean, own = to_neutral.mean(axis=1), to_neutral.std(axis=1)
    rules: dict[str, Callable[[Matrix], Matrix]] = {
        "cosine": lambda s: s,
        "robust z of the query (median, MAD)": _robust,
        "Gumbel fit of the query's bulk": _gumbel,
        "z of the picture among neutral texts": lambda s: (s - mean) / own,
        "softmax with neutral texts": lambda s: s - soft,
        "the same, twice as sharp": lambda s: s - sharp,
        "half of the softmax (used)": lambda s: s - soft / 2,
    }
    print("\nflat: one threshold chosen with the labels; relative: of the way from mean to best,")
    print(f"without a bar, and with the bar that silences {ABSENT_WANTED:.0%} (chosen with labels)")
    print(f"  {'score':<40} flat F1  nothing | relative  with bar")
    for name, rule in rules.items():
        value, _, nothing = _flat(rule(scores), rule(absent), asked)
        free, barred = _gated(rule(scores), rule(absent), asked, 0.67)
        print(f"  {name:<40} {value:7.3f} {nothing:8.0%} | {free:8.3f} {barred:9.3f}")


# --- the automatic cut-off -------------------------------------------------------------------


def _automatic(space: Space, asked: list[Asked]) -> None:
    calibration = Calibration.of(space.dev, space.neutral)
    offsets = calibration.offsets(space.dev)
    scores, absent = space.queries @ space.dev.T, space.absent @ space.dev.T
    oracle = np.array([q.best_f1(row) for q, row in zip(asked, scores, strict=True)])

    def values(strictness: float) -> NDArray[np.float64]:
        return np.array(
            [
                q.f1(
                    row - offsets
                    >= calibration.judge(v, row - offsets, strictness=strictness).cutoff
                )
                for q, v, row in zip(asked, space.queries, scores, strict=True)
            ]
        )

    def nothing(strictness: float) -> float:
        cuts = [
            calibration.judge(v, row - offsets, strictness=strictness).cutoff
            for v, row in zip(space.absent, absent, strict=True)
        ]
        return float(
            np.mean([(row - offsets).max() < c for row, c in zip(absent, cuts, strict=True)])
        )

    flat, threshold, flat_nothing = _flat(scores, absent, asked)
    chosen = values(STRICTNESS)
    print(
        f"\nautomatic: F1 {chosen.mean():.3f}, absent things give nothing {nothing(STRICTNESS):.0%}"
    )
    print(f"best flat: F1 {flat:.3f} at {threshold:.3f}, nothing {flat_nothing:.0%}")
    share = chosen.mean() / oracle.mean()
    print(f"oracle:    F1 {oracle.mean():.3f}; the automatic one reaches {share:.2f} of it")
    halves = np.array([q.line % 2 for q in asked])
    for half in (0, 1):
        part = [q for q in asked if q.line % 2 == half]
        own_flat = _flat(scores[halves == half], absent, part)[0]
        here = chosen[halves == half].mean()
        print(
            f"  {('even', 'odd')[half]:<4} lines: automatic {here:.3f}  "
            f"flat tuned on these very queries {own_flat:.3f}  ratio to oracle "
            f"{here / oracle[halves == half].mean():.2f}"
        )
    print("strictness  F1     nothing on absent things")
    for strictness in (-2.5, -2.0, -1.5, -1.0, -0.6, -0.5, -0.4, -0.3, 0.0, 0.3, 0.6, 1.0):
        mark = "  <- default" if strictness == STRICTNESS else ""
        value = values(strictness).mean()
        print(f"  {strictness:5.1f}   {value:.3f}  {nothing(strictness):7.0%}{mark}")
    _reliability(space, asked)
    _fitted_odds(space, asked)
    _captions(space)


def _standings(
    space: Space, asked: list[Asked], half: int, size: int, random: np.random.Generator
) -> tuple[NDArray[np.float64], Flags]:
    """How far out photos stand, in spreads, and whether they are right, of random parts of dev.

    Asked are the queries of even (0) or odd (1) lines, and half of the absent things.
    """
    standings, right = [], []
    constant, per_spread = _ODDS
    for _ in range(PARTS[size]):
        part = random.choice(len(space.dev), min(size, len(space.dev)), replace=False)
        rows = space.dev[part]
        calibration = Calibration.of(rows, space.neutral)
        offsets = calibration.offsets(rows)
        every = np.ones(len(rows), np.bool_)
        known = [
            (vector, one.right[part], one.known[part])
            for one, vector in zip(asked, space.queries, strict=True)
            if one.line % 2 == half
        ]
        known += [(vector, ~every, every) for vector in space.absent[half::2]]
        for vector, answers, judged in known:
            evidence = rows @ vector - offsets
            relevance = calibration.judge(vector, evidence)
            odds = relevance.slope * (evidence.astype(np.float64) - relevance.middle)
            standings.append(((odds - constant) / per_spread)[judged])
            right.append(answers[judged])
    return np.concatenate(standings), np.concatenate(right)


def _reliability(space: Space, asked: list[Asked]) -> None:
    """Of the held-out queries and absent things: what share of a probability is right."""
    random = np.random.default_rng(2)
    constant, per_spread = _ODDS
    edges = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.01)
    print("probability: said and true, of held-out lines and half of the absent things")
    print("photos  error  " + "".join(f"{a:.2f}-{min(b, 1):.2f}  " for a, b in pairwise(edges)))
    for size in PARTS:
        standings, right = _standings(space, asked, 1, size, random)
        likely = 1 / (1 + np.exp(-constant - per_spread * standings))
        error, told = 0.0, ""
        for low, high in pairwise(edges):
            inside = (likely >= low) & (likely < high)
            if inside.any():
                said, true = likely[inside].mean(), right[inside].mean()
                error += abs(said - true) * inside.sum() / (likely >= edges[0]).sum()
                told += f"{said:.2f} {true:.2f}  "
            else:
                told += "   -       "
        print(f"{min(size, len(space.dev)):6}  {error:.3f}  {told}")


def _fitted_odds(space: Space, asked: list[Asked]) -> None:
    """What the odds of clipsearch/relevance.py would be, fitted anew on what is not held out."""
    random = np.random.default_rng(1)
    found = [_standings(space, asked, 0, size, random) for size in PARTS]
    weights = np.concatenate([np.full(len(right), 1e5 / len(right)) for _, right in found])
    standings, right = (np.concatenate(part) for part in zip(*found, strict=True))
    made = LogisticRegression(C=1e6).fit(standings[:, None], right, sample_weight=weights)
    print(f"odds {_ODDS}; fitted on the even lines, every size alike: {made.intercept_[0]:.2f}, "
          f"{made.coef_[0, 0]:.2f}")  # fmt: skip


def _subjects(encoder: Encoder, rows: Rows, photos: Matrix, space: Space) -> None:
    """Pets, toys and things: their classes as typed, and what is absent there, too."""
    names = sorted({label for row in rows for label in row["labels"]})
    calibration = Calibration.of(photos, space.neutral)
    offsets = calibration.offsets(photos)
    values, oracle = [], []
    asked = [
        Asked(name, 0, np.array([name in row["labels"] for row in rows]), np.ones(len(rows), "?"))
        for name in names
    ]
    scores = text_vectors(encoder, names) @ photos.T
    for one, vector, row in zip(asked, text_vectors(encoder, names), scores, strict=True):
        found = row - offsets >= calibration.judge(vector, row - offsets).cutoff
        values.append(one.f1(found))
        oracle.append(one.best_f1(row))
    nothing = [
        float((photos @ v - offsets).max()) < calibration.judge(v, photos @ v - offsets).cutoff
        for v in space.absent
    ]
    flat = _flat(scores, space.absent @ photos.T, asked)
    print(
        f"subjects ({len(rows)} photos, {len(names)} classes): automatic {np.mean(values):.3f}, "
        f"nothing {np.mean(nothing):.0%}; flat tuned there {flat[0]:.3f}, nothing {flat[2]:.0%}; "
        f"oracle {np.mean(oracle):.3f}"
    )


def _captions(space: Space) -> None:
    """Each sentence has one photo: is it kept, and how much with it?"""
    calibration = Calibration.of(space.val, space.neutral)
    offsets = calibration.offsets(space.val)
    kept, first, size, nothing = [], [], [], []
    owners = np.repeat(np.arange(len(space.val)), 5)[: len(space.captions)]
    for owner, vector in zip(owners, space.captions, strict=True):
        evidence = space.val @ vector - offsets
        found = evidence >= calibration.judge(vector, evidence).cutoff
        kept.append(found[owner])
        size.append(found.sum())
        nothing.append(not found.any())
        if (space.val @ vector > (space.val @ vector)[owner]).sum() < 10:
            first.append(found[owner])
    print(
        f"sentences of val: their photo is kept {np.mean(kept):.0%}, of those ranked in the first "
        f"ten {np.mean(first):.0%}; {np.median(size):.0f} photos found in the middle; "
        f"nothing {np.mean(nothing):.0%}"
    )


def _sizes(space: Space, asked: list[Asked]) -> None:
    """Libraries of other sizes: random parts of dev."""
    print("photos  F1 automatic  oracle  nothing on absent things   (6 random parts each)")
    random = np.random.default_rng(0)
    for size in (10, 25, 60, 150, 400, 1000):
        values, oracle, nothing = [], [], []
        for _ in range(6):
            part = random.choice(len(space.dev), size, replace=False)
            rows = space.dev[part]
            calibration = Calibration.of(rows, space.neutral)
            offsets = calibration.offsets(rows)
            for one, vector in zip(asked, space.queries, strict=True):
                if one.right[part].any():
                    here = Asked(one.text, one.line, one.right[part], one.known[part])
                    evidence = rows @ vector - offsets
                    values.append(here.f1(evidence >= calibration.judge(vector, evidence).cutoff))
                    oracle.append(here.best_f1(rows @ vector))
            for vector in space.absent:
                evidence = rows @ vector - offsets
                nothing.append(evidence.max() < calibration.judge(vector, evidence).cutoff)
        print(f"{size:6}  {np.mean(values):12.3f}  {np.mean(oracle):6.3f}  {np.mean(nothing):7.0%}")


def _pictures(space: Space, rows: Rows) -> None:
    """A labelled photo as the question: the others of its label are right."""
    calibration = Calibration.of(space.dev, space.neutral)
    labels = [set(row["labels"]) if row["kind"] == "label" else set() for row in rows]
    values, oracle = [], []
    for place in np.flatnonzero([bool(own) for own in labels])[::3]:
        right = np.array([bool(own & labels[place]) for own in labels])
        others = np.arange(len(rows)) != place
        if (right & others).sum() >= 2:
            one = Asked("", 0, (right & others)[others], np.ones(len(rows) - 1, np.bool_))
            scores = (space.dev @ space.dev[place])[others]
            cutoff = calibration.judge(space.dev[place], scores, "image").cutoff
            values.append(one.f1(scores >= cutoff))
            oracle.append(one.best_f1(scores))
    print(f"a photo as the question: F1 {np.mean(values):.3f}, oracle {np.mean(oracle):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--cache", type=Path, help="keeps the vectors for the next run")
    arguments = parser.parse_args()
    encoder = load_encoder(arguments.model, settings=resolve({}))
    with tempfile.TemporaryDirectory() as made:
        cache = (arguments.cache or Path(made)) / encoder.space.id
        cache.mkdir(parents=True, exist_ok=True)
        rows = pq.read_table(arguments.data / "dev" / "dev.parquet").to_pylist()
        val = pq.read_table(arguments.data / "val" / "val.parquet").to_pylist()
        val = [row for row in val if len(row["captions"]) >= 5]
        asked, absent = questions(rows), lines_of(HERE / "relevance_absent.txt")
        captions = [text for row in val for text in row["captions"][:5]]
        dev = kept_in(cache / "dev.npy", lambda: image_vectors(encoder, rows))
        space = Space(
            arguments.model,
            dev,
            text_vectors(encoder, [one.text for one in asked]),
            text_vectors(encoder, absent),
            text_vectors(encoder, neutral_texts()),
            kept_in(cache / "val.npy", lambda: image_vectors(encoder, val)),
            kept_in(cache / "captions.npy", lambda: text_vectors(encoder, captions)),
        )
        subjects = pq.read_table(arguments.data / "subjects.parquet").to_pylist()
        photos = kept_in(cache / "subjects.npy", lambda: image_vectors(encoder, subjects))
    print(f"{len(asked)} queries, {len(absent)} absent things, {len(rows)} photos")
    for one in (space, in_a_cone(space)):
        print(f"\n=== {one.name}")
        _automatic(one, asked)
        _pictures(one, rows)
        _sizes(one, asked)
        _compared(one, asked)
    _subjects(encoder, subjects, photos, space)


if __name__ == "__main__":
    main()
