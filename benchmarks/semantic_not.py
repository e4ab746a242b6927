"""Semantic NOT on labelled photos: which way of "X -Y" pushes Y down without losing X.

    python benchmarks/semantic_not.py [--model embedded] [--data ../shared/data/dev/dev.parquet]

Two pools of photos that the embedded model was not trained on: those with keywords (a concept is a
keyword), and those with five sentences (a concept is there if two of them name it; photos where
only one does are in doubt and left out for that concept). Every pair of concepts that is together
in three photos or more, and X without Y in five or more, is a question "X -Y". What is wanted is X
without Y. Printed are means over all questions:

AP        average precision for X without Y
Y in 20   the part of the first 20 that shows Y: to be pushed down
X in 20   the part of the first 20 that shows X: not to be lost
"""

from __future__ import annotations

import argparse
import io
import re
from collections.abc import Callable, Iterator
from itertools import permutations
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from clipsearch import load_encoder
from clipsearch.encoders import Encoder
from clipsearch.ranking import TEXT, Part, Question

DATA = Path(__file__).parents[2] / "shared" / "data" / "dev" / "dev.parquet"
WORDS = {
    "a dog": r"dogs?|pupp(y|ies)",
    "a man": r"man|men|guys?",
    "a woman": r"woman|women|lady|ladies",
    "a child": r"child(ren)?|kids?|boys?|girls?|toddlers?|bab(y|ies)",
    "people": r"people|persons?|man|men|woman|women|boys?|girls?|child(ren)?|kids?|guys?|players?",
    "grass": r"grass(y)?|lawn",
    "snow": r"snow(y)?",
    "water": r"water|lake|ocean|sea|river|pool|waves?",
    "a beach": r"beach|sand",
    "a ball": r"balls?|soccer|football|basketball",
    "a bicycle": r"bikes?|bicycles?|bikers?|cyclists?",
    "a street": r"streets?|roads?|sidewalks?",
    "a red shirt": r"red",
    "a tree": r"trees?|forest|woods",
    "a rock": r"rocks?|rocky|cliffs?|mountains?",
}
FIRST = 20

Pool = tuple[np.ndarray, dict[str, np.ndarray]]  # vectors (n, dim); concept: 1, 0, or -1 for doubt
Scoring = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--data", type=Path, default=DATA)
    arguments = parser.parse_args()
    encoder = load_encoder(arguments.model)
    photos = pq.read_table(arguments.data).to_pylist()
    keywords = [photo for photo in photos if photo["kind"] == "keywords"]
    sentences = [photo for photo in photos if len(photo["captions"]) >= 5]
    for name, pool in (
        ("keywords", (vectors(encoder, keywords), by_keyword(keywords))),
        ("sentences", (vectors(encoder, sentences), by_sentence(sentences))),
    ):
        questions = list(pairs(pool))
        print(f"\n{name}: {len(pool[0])} photos, {len(questions)} questions")
        print(f"{'':<30}{'AP':>8}{'Y in 20':>9}{'X in 20':>9}")
        for label, scoring in ways().items():
            found = np.array([judged(encoder, pool, x, y, scoring) for x, y in questions])
            mean = found.mean(axis=0)
            print(f"{label:<30}{mean[0]:8.3f}{mean[1]:9.3f}{mean[2]:9.3f}", flush=True)


def vectors(encoder: Encoder, photos: list[dict[str, object]]) -> np.ndarray:
    found = []
    for photo in photos:
        picture = Image.open(io.BytesIO(photo["image"])).convert("RGB")  # type: ignore[arg-type]
        found.append(encoder.encode_images(encoder.preprocess(picture)[None])[0])
    return np.stack(found)


def by_keyword(photos: list[dict[str, object]]) -> dict[str, np.ndarray]:
    names = {name for photo in photos for name in photo["labels"]}  # type: ignore[attr-defined]
    found = {
        f"a photo of {name}": np.array([int(name in photo["labels"]) for photo in photos])  # type: ignore[operator]
        for name in sorted(names)
    }
    return {name: has for name, has in found.items() if has.sum() >= 8}


def by_sentence(photos: list[dict[str, object]]) -> dict[str, np.ndarray]:
    found = {}
    for name, pattern in WORDS.items():
        says = re.compile(rf"\b({pattern})\b", re.IGNORECASE)
        counts = [sum(bool(says.search(c)) for c in photo["captions"]) for photo in photos]  # type: ignore[attr-defined]
        found[name] = np.array([1 if n >= 2 else -n for n in counts])
    return found


def pairs(pool: Pool) -> Iterator[tuple[str, str]]:
    for x, y in permutations(pool[1], 2):
        has_x, has_y = pool[1][x] == 1, pool[1][y] == 1
        if (has_x & has_y).sum() >= 3 and (has_x & (pool[1][y] == 0)).sum() >= 5:
            yield x, y


def ways() -> dict[str, Scoring]:
    """Scores of (n, dim) rows for unit vectors x and y."""

    def subtraction(weight: float) -> Scoring:
        return lambda rows, x, y: rows @ (x - weight * y)

    def projection(rows: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        kept = x - (x @ y) * y
        return rows @ kept / np.linalg.norm(kept)

    def penalty(strength: float) -> Scoring:
        def scores(rows: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
            likeness = rows @ y
            return rows @ x - strength * np.maximum(likeness - likeness.mean(), 0)

        return scores

    def late_penalty(strength: float, deviations: float) -> Scoring:
        """Costs only from some deviations above the mean on: where Y probably is."""

        def scores(rows: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
            likeness = rows @ y
            start = likeness.mean() + deviations * likeness.std()
            return rows @ x - strength * np.maximum(likeness - start, 0)

        return scores

    def standardized(strength: float) -> Scoring:
        """Subtraction of scores that were brought to the same mean and deviation."""

        def scores(rows: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
            to_x, to_y = rows @ x, rows @ y
            return to_x / to_x.std() - strength * to_y / to_y.std()

        return scores

    def adopted(rows: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return Question.of([Part(x, 1.0, TEXT), Part(y, -1.0, TEXT)]).scores(rows)

    def own_part(strength: float) -> Scoring:
        """A penalty on what of y is not in x: photos of X lose nothing for being of X."""

        def scores(rows: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
            apart = y - (x @ y) * x
            likeness = rows @ (apart / np.linalg.norm(apart))
            return rows @ x - strength * np.maximum(likeness - likeness.mean(), 0)

        return scores

    found: dict[str, Scoring] = {"X alone": lambda rows, x, _: rows @ x}
    found |= {f"subtraction, {w}": subtraction(w) for w in (0.25, 0.3, 0.4, 0.5, 0.75, 1.0)}
    found["orthogonal projection"] = projection
    found |= {f"penalty, {w}": penalty(w) for w in (0.25, 0.5, 0.75, 1.0, 2.0)}
    found |= {
        f"penalty from {d} s.d., {w}": late_penalty(w, d)
        for d in (0.5, 1.0)
        for w in (0.5, 1.0, 2.0)
    }
    found |= {f"penalty on y without x, {w}": own_part(w) for w in (0.25, 0.5, 0.75, 1.0)}
    found |= {f"standardized subtraction, {w}": standardized(w) for w in (0.3, 0.4, 0.5)}
    found["as clipsearch does it"] = adopted
    return found


def judged(
    encoder: Encoder, pool: Pool, x: str, y: str, scoring: Scoring
) -> tuple[float, float, float]:
    rows, concepts = pool
    sure = (concepts[x] >= 0) & (concepts[y] >= 0)
    has_x, has_y = concepts[x][sure] == 1, concepts[y][sure] == 1
    order = np.argsort(-scoring(rows[sure], text(encoder, x), text(encoder, y)), kind="stable")
    wanted = (has_x & ~has_y)[order]
    precision = np.cumsum(wanted) / np.arange(1, len(wanted) + 1)
    average = float(precision[wanted].mean())
    first = order[:FIRST]
    return average, float(has_y[first].mean()), float(has_x[first].mean())


_TEXTS: dict[str, np.ndarray] = {}


def text(encoder: Encoder, words: str) -> np.ndarray:
    if words not in _TEXTS:
        _TEXTS[words] = encoder.encode_texts([words])[0]
    return _TEXTS[words]


if __name__ == "__main__":
    main()
