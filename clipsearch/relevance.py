"""Where the relevant results of a query end: a cut-off and a probability, made without labels.

Scores of two models, of two queries, or of words and pictures cannot be compared, so no number does
for all of them. What is compared here are places on a scale that is measured anew for each library
and model: 0 is what the query scores on average, 1 what a text scores on a picture that fits it.
How and how well: docs/relevance.md, benchmarks/relevance.py.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clipsearch.errors import VectorError
from clipsearch.vectors import Matrix, Vector, require_unit_rows

Kind = Literal["text", "image", "mixed"]
Scores: TypeAlias = NDArray[np.float32]  # (n,) cosines

KINDS: tuple[Kind, ...] = ("text", "image", "mixed")
SAMPLE = 4096  # vectors of a library that a calibration keeps
NEUTRAL_TEXTS = Path(__file__).with_name("neutral.txt")

_BEST = 3  # the level of a query is the mean of its best scores
_KEPT = 0.7  # of the way from the query's mean to its level: where the relevant ones end
_NOTHING_BELOW = 3.0  # spreads over the mean: a level that a thing the library lacks may reach
_PRIOR_SIZE = 20.0  # pictures that the prior mean weighs


def neutral_texts() -> list[str]:
    """The bank of neutral texts, a few hundred, in the order of the file."""
    lines = NEUTRAL_TEXTS.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@dataclass(frozen=True)
class Scale:
    """How queries of one kind score in one space: mean and spread over pairs that do not belong."""

    mean: float
    spread: float


@dataclass(frozen=True)
class Relevance:
    """What counts as an answer to one query.

    ``cutoff`` is the lowest score that does; it exceeds every score when nothing does.
    """

    cutoff: float
    middle: float  # the score whose probability is 1/2
    slope: float  # of the log odds, per unit of score

    def probability(self, scores: NDArray[np.floating]) -> NDArray[np.float32]:
        """The probability that a picture with this score answers the query, for each score."""
        odds = self.slope * (np.asarray(scores, np.float64) - self.middle)
        return np.asarray(1 / (1 + np.exp(-np.clip(odds, -30, 30))), np.float32)


@dataclass(frozen=True)
class Calibration:
    """The scales of one library in one space, and the sample of its vectors they come from."""

    sample: Matrix
    scales: dict[str, Scale]

    @classmethod
    def of(cls, sample: Matrix, neutral: Matrix) -> Calibration:
        """Measures the scales from (n, dim) vectors of the library and (m, dim) of neutral texts.

        n may be 0. Raises VectorError for rows that are not finite or not of unit length.
        """
        pictures = require_unit_rows(sample, neutral.shape[1])[:SAMPLE]
        texts = require_unit_rows(neutral, neutral.shape[1])
        some = pictures[:: max(1, len(pictures) // len(texts))][: len(texts)]
        scales = {"text": _scale(texts, pictures)}
        scales["image"] = _scale(some, pictures, own=True)
        mixed = some + texts[: len(some)]
        norms = np.linalg.norm(mixed, axis=1, keepdims=True)
        scales["mixed"] = _scale(mixed / np.maximum(norms, 1e-6), pictures, own=True)
        return cls(pictures, scales)

    def judge(self, query: Vector, scores: Scores, kind: Kind = "text") -> Relevance:
        """Finds where the answers to a query end.

        ``query`` is (dim,), of unit length. ``scores`` are its (n,) cosines to the pictures that
        may be answers (those that pass the filters), in any order; what the library scores apart
        from them is taken from the sample. VectorError if a score is not finite.
        """
        scores = np.asarray(scores, np.float32)
        if not np.isfinite(scores).all():
            raise VectorError(reason="a score is not a finite number")
        scale = self.scales[kind]
        own = self.sample @ np.asarray(query, np.float32)
        weight = len(own) / (len(own) + _PRIOR_SIZE)
        mean = weight * float(own.mean()) + (1 - weight) * scale.mean if len(own) else scale.mean
        level = _level(scores) if len(scores) else -1.0
        reach = max(level, _level(own) if len(own) else -1.0, scale.mean + scale.spread)
        cutoff = mean + _KEPT * (reach - mean)
        if level < scale.mean + _NOTHING_BELOW * scale.spread:
            cutoff = max(cutoff, float(np.nextafter(scores.max(initial=-1.0), np.float32(2))))
        return Relevance(cutoff, cutoff, 1.5 / scale.spread)

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Everything as arrays, for ``numpy.savez``."""
        record = json.dumps({kind: asdict(scale) for kind, scale in self.scales.items()})
        return {"sample": self.sample, "scales": np.array(record)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[np.generic]]) -> Calibration:
        """The inverse of ``to_arrays``; ValueError or KeyError for anything else."""
        scales = {kind: Scale(**s) for kind, s in json.loads(str(arrays["scales"])).items()}
        return cls(np.asarray(arrays["sample"], np.float32), scales)


def _scale(queries: Matrix, pictures: Matrix, *, own: bool = False) -> Scale:
    """Mean and spread of the cosines; ``own``: without each query's best, itself."""
    if len(queries) == 0 or len(pictures) < 2:
        return Scale(0.0, 0.1)
    scores = queries @ pictures.T
    if own:
        scores = np.sort(scores, axis=1)[:, :-1]
    return Scale(float(scores.mean()), max(float(scores.std()), 1e-3))


def _level(scores: NDArray[np.floating]) -> float:
    """The mean of the best scores, of a few at most."""
    best = min(_BEST, len(scores))
    return float(np.partition(scores, len(scores) - best)[-best:].mean())
