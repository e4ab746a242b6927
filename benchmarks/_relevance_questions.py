"""What relevance.py asks, what answers it, and the vectors of both."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from clipsearch.encoders import Encoder
from clipsearch.vectors import Matrix, unit_rows

HERE = Path(__file__).parent
Rows = list[dict[str, Any]]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Asked:
    """One typed query: its line of the file, the right answers, and the photos known about."""

    text: str
    line: int
    right: Flags
    known: Flags

    def f1(self, found: Flags) -> float:
        found = found & self.known
        return float(2 * (found & self.right).sum() / max(1, found.sum() + self.right.sum()))

    def best_f1(self, scores: NDArray[np.float32]) -> float:
        """Of the best cut-off for this query alone: the oracle."""
        order = np.argsort(-scores[self.known])
        hits = np.cumsum(self.right[self.known][order])
        return float((2 * hits / (np.arange(len(hits)) + 1 + self.right.sum())).max())


@dataclass(frozen=True)
class Space:
    """Everything in one embedding space."""

    name: str
    dev: Matrix
    queries: Matrix
    absent: Matrix
    neutral: Matrix
    val: Matrix
    captions: Matrix


# --- what is right --------------------------------------------------------------------------


def _plain(word: str) -> str:
    return re.sub(r"[^a-z0-9 '-]", "", word.strip().lower())


def _forms(word: str) -> set[str]:
    word = _plain(word)
    return {word, f"{word}s", f"{word}es", f"{word[:-1]}ies" if word.endswith("y") else word}


def _is_right(row: dict[str, Any], words: list[str]) -> bool:
    """By a label, or by a word of a caption; ``=word`` is looked for among the labels alone."""
    labels = {_plain(label) for label in row["labels"]}
    if any(labels & _forms(word.lstrip("= ")) for word in words):
        return True
    said = set().union(*[_forms(word) for word in words if not word.strip().startswith("=")])
    if not said:
        return False
    text = " | ".join(_plain(caption) for caption in row["captions"])
    pattern = "|".join(re.escape(one) for one in said)
    return re.search(rf"(?<![a-z-])({pattern})(?![a-z-])", text) is not None


def lines_of(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def questions(rows: Rows) -> list[Asked]:
    corel = np.array([row["source"] == "corel5k" for row in rows])
    asked = []
    for number, line in enumerate(lines_of(HERE / "relevance_queries.tsv")):
        forms, known_by, words = line.split("\t")
        known = corel if known_by == "corel" else np.ones(len(rows), np.bool_)
        right = known & np.array([_is_right(row, words.split(",")) for row in rows])
        if right.sum() >= 2:
            asked += [Asked(form.strip(), number, right, known) for form in forms.split("|")]
    return asked


# --- vectors --------------------------------------------------------------------------------


def image_vectors(encoder: Encoder, rows: Rows) -> Matrix:
    parts = []
    for at in range(0, len(rows), 64):
        opened = [Image.open(io.BytesIO(row["image"])).convert("RGB") for row in rows[at : at + 64]]
        parts.append(encoder.encode_images(np.stack([encoder.preprocess(one) for one in opened])))
    return np.concatenate(parts)


def text_vectors(encoder: Encoder, texts: list[str]) -> Matrix:
    return np.concatenate(
        [encoder.encode_texts(texts[at : at + 64]) for at in range(0, len(texts), 64)]
    )


def kept_in(path: Path, make: Callable[[], Matrix]) -> Matrix:
    if not path.exists():
        np.save(path, make())
    return np.asarray(np.load(path))


def in_a_cone(space: Space, dim: int = 96, height: float = 1.5) -> Space:
    """The same space through a random projection, its pictures and texts pushed apart."""
    random = np.random.default_rng(0)
    turn = random.normal(size=(space.dev.shape[1], dim)) / np.sqrt(dim)
    ways = unit_rows(random.normal(size=(2, dim))) * height

    def moved(rows: Matrix, way: int) -> Matrix:
        return unit_rows(unit_rows(rows @ turn) + ways[way])

    return Space(
        f"{space.name}, projected into a cone",
        *(moved(space.dev, 0), moved(space.queries, 1), moved(space.absent, 1)),
        *(moved(space.neutral, 1), moved(space.val, 0), moved(space.captions, 1)),
    )
