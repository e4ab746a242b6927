"""Where the relevant results of a query end: a cut-off and a probability, made without labels.

Scores of two models, of two queries, or of words and pictures cannot be compared, so no number does
for all of them. Here a score counts by three things that are measured anew for each library and
model: how much of it any text would get from that picture (the neutral texts say), what the query
scores on average, and how far chance alone would reach in a library of that size.
What it means, and everything that was tried: docs/relevance.md, benchmarks/relevance.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clipsearch.errors import VectorError
from clipsearch.vectors import Matrix, Vector, require_unit_rows

Kind = Literal["text", "image", "mixed"]
Scores: TypeAlias = NDArray[np.float32]  # (n,) cosines

KINDS: tuple[Kind, ...] = ("text", "image", "mixed")
NEUTRAL_TEXTS = Path(__file__).with_name("neutral.txt")
SAMPLE = 4096  # vectors of a library that are enough to measure it

STRICTNESS = -0.3  # spreads over sqrt(2 ln n) that the best picture has to reach
# How far from the query's mean to its best the answers end, of the whole way.
_KEPT: dict[Kind, float] = {"text": 0.67, "image": 0.75, "mixed": 0.7}
# How far out answers stand, beside those of one question: what fits one of two parts, 1 / sqrt(2).
_SHARES: dict[Kind, float] = {"text": 1.0, "image": 1.0, "mixed": math.sqrt(0.5)}
_GENERAL_FIT = 0.5  # how much of what a picture has for any text is taken off
_ODDITY = 0.4  # how much further a question has to reach that is unlike all neutral texts
_OWN_MEAN = 0.5  # how much of a query's own mean is taken off before it is judged, at least
_HABIT = 0.25  # variance of means, as a part of the rest's, from which on it is a model's habit
_PRIOR_SIZE = 20.0  # pictures that the mean over all queries weighs against the query's own
_SAME = 0.995  # a cosine from which on a picture is the question itself
_SMALLEST_SPREAD = 1e-3
_ROUNDING = 1e-5  # what a cosine may differ by if it is added up in another order, and much more
# Log odds of being relevant: a constant, and per spread by which the picture stands out. Fitted on
# half of the benchmark's queries, asked of libraries of 10 to 2,491 photos.
_ODDS = (-6.63, 1.83)
_MAX_LOG_ODDS = 30.0


def neutral_texts() -> list[str]:
    """The bank of neutral texts, a few hundred, in the order of the file."""
    lines = NEUTRAL_TEXTS.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@dataclass(frozen=True)
class Scale:
    """How queries of one kind score on pictures in general.

    Means differ by query and by picture. Up to a point that is what is shown and asked; beyond, it
    is the model's habit, which counts not in ``spread``, and of which ``by_query`` and
    ``by_picture`` say how much to take off, from one half to 1.
    """

    mean: float
    spread: float
    by_query: float = _OWN_MEAN
    by_picture: float = _GENERAL_FIT


@dataclass(frozen=True)
class Relevance:
    """What counts as an answer to one query.

    ``cutoff`` is the lowest score that does; it exceeds every score when nothing does. Where
    ``Calibration.offsets`` were taken off the scores that were judged, take them off here, too.
    """

    cutoff: float
    middle: float  # the score whose probability is 1/2
    slope: float  # of the log odds, per unit of score

    def probability(self, scores: NDArray[np.floating]) -> NDArray[np.float32]:
        """How likely a picture with this score is an answer, for each score, in [0, 1]."""
        odds = self.slope * (np.asarray(scores, np.float64) - self.middle)
        return np.asarray(1 / (1 + np.exp(-np.clip(odds, -_MAX_LOG_ODDS, _MAX_LOG_ODDS))), "f4")


@dataclass(frozen=True)
class Calibration:
    """One library in one space, measured: see ``of``."""

    count: int  # vectors of the library that it was measured from
    centre: Vector  # (dim,) their mean, not of unit length
    neutral: Matrix  # (m, dim) vectors of the neutral texts
    scales: Mapping[str, Scale]  # by kind
    usual_fit: float  # how well any text fits a picture, on average
    familiarity: float  # of the neutral texts to each other, on average

    @classmethod
    def of(cls, sample: Matrix, neutral: Matrix) -> Calibration:
        """Measures a library from (n, dim) of its vectors and (m, dim) of the neutral texts.

        Of more than SAMPLE vectors, evenly spaced ones are taken. n and m may be 0. Raises
        VectorError for rows that are not finite, not of unit length, or of different dimensions.
        """
        texts = require_unit_rows(neutral, np.shape(neutral)[-1])
        pictures = require_unit_rows(sample, texts.shape[1])
        pictures = pictures[:: max(1, math.ceil(len(pictures) / SAMPLE))]
        some = pictures[:: max(1, len(pictures) // max(1, len(texts)))][: len(texts)]
        mixed = some + texts[: len(some)]
        mixed /= np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1e-6)
        text_scale = _scale(texts @ pictures.T, Scale(0.0, 0.1))
        scales = {
            "text": text_scale,
            "image": _scale(_without_best(some @ pictures.T), text_scale),
            "mixed": _scale(_without_best(mixed @ pictures.T), text_scale),
        }
        spread = text_scale.spread
        to_texts = texts @ texts.T
        np.fill_diagonal(to_texts, -np.inf)  # a text is familiar by the others
        familiarity = float(_soft_mean(to_texts, spread).mean()) if len(texts) > 1 else 0.0
        fits = _fits(pictures @ texts.T, text_scale)
        centre = pictures.mean(axis=0) if len(pictures) else np.zeros(texts.shape[1], np.float32)
        usual_fit = float(fits.mean()) if len(fits) else 0.0
        return cls(len(pictures), centre, texts, scales, usual_fit, familiarity)

    def offsets(self, vectors: Matrix, kind: Kind = "text") -> NDArray[np.float32]:
        """What to take off the scores of (n, dim) pictures before they are judged: (n,), mean 0.

        A picture that fits every text a bit (a hub) is no answer for being near to one. This is the
        softmax over the query and the neutral texts, as logarithm, at a temperature of one
        spread, and half of it. Pictures as questions have no such texts: zeros.
        """
        if kind == "image":
            return np.zeros(len(vectors), np.float32)
        cosines = np.asarray(vectors, np.float32) @ self.neutral.T
        share = 1.0 if kind == "text" else 0.5
        fits = _fits(cosines, self.scales["text"])
        return np.asarray(share * (fits - self.usual_fit), np.float32)

    def judge(
        self,
        query: Vector,
        scores: Scores,
        kind: Kind = "text",
        *,
        strictness: float = STRICTNESS,
    ) -> Relevance:
        """Finds where the answers to a query end.

        ``query`` is (dim,), of unit length. ``scores`` are (n,) cosines to the pictures that may be
        answers, in any order, best less their ``offsets``: of the whole library rather than of what
        passes a filter, and without those that the question was made of. VectorError if one of
        them is not finite.
        """
        scores = np.asarray(scores, np.float32)
        query = np.asarray(query, np.float32)
        if not (np.isfinite(scores).all() and np.isfinite(query).all()):
            raise VectorError(reason="a score or the question is not a finite number")
        scale = self.scales[kind]
        weight = self.count / (self.count + _PRIOR_SIZE)
        mean = weight * float(self.centre @ query) + (1 - weight) * scale.mean
        best = max(_best(scores), mean + scale.spread)
        zero, share = self._zero(query, mean, kind), _SHARES[kind]
        bar = zero + scale.spread * (
            share * math.sqrt(2 * math.log(max(len(scores), 2))) + strictness
        )
        cutoff = mean + _KEPT[kind] * (best - mean)
        if kind == "image" and scores.max(initial=-1.0) >= _SAME:
            cutoff = min(cutoff, _SAME)  # the picture itself is an answer
        elif _best(scores) < bar:
            cutoff = max(cutoff, float(scores.max(initial=-1.0)) + _ROUNDING)
        constant, per_spread = _ODDS
        slope = per_spread / (share * scale.spread)
        return Relevance(cutoff, zero - constant / slope, slope)

    def _zero(self, query: Vector, mean: float, kind: Kind) -> float:
        """The score from which standing out is counted, in spreads: n random ones, sqrt(2 ln n).

        It is half the query's own mean and half that of all queries. A query that is unlike every
        neutral text asks for something rare, and has to reach further.
        """
        scale = self.scales[kind]
        zero = scale.mean + scale.by_query * (mean - scale.mean)
        if kind == "image" or len(self.neutral) < 2:
            return zero
        familiarity = _soft_mean(query[None] @ self.neutral.T, self._text_spread)[0]
        oddity = float(self.familiarity - familiarity) / self._text_spread
        return zero + _ODDITY * oddity * scale.spread

    @property
    def _text_spread(self) -> float:
        return self.scales["text"].spread

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Everything as arrays by name, for ``numpy.savez``."""
        return {
            "count": np.array(self.count),
            "centre": self.centre,
            "neutral": self.neutral,
            "scales": np.array([astuple(self.scales[kind]) for kind in KINDS]),
            "usual_fit": np.array(self.usual_fit),
            "familiarity": np.array(self.familiarity),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Calibration:
        """The inverse of ``to_arrays``; KeyError or ValueError for anything else."""
        rows = arrays["scales"].tolist()
        return cls(
            int(arrays["count"]),
            arrays["centre"],
            arrays["neutral"],
            {kind: Scale(*row) for kind, row in zip(KINDS, rows, strict=True)},
            float(arrays["usual_fit"]),
            float(arrays["familiarity"]),
        )


def _scale(cosines: NDArray[np.float32], otherwise: Scale) -> Scale:
    """Mean and spread; ``otherwise`` for fewer than two cosines."""
    if cosines.size < 2:
        return otherwise
    mean = float(cosines.mean())
    by_query = cosines.mean(axis=1, keepdims=True) - mean
    by_picture = cosines.mean(axis=0, keepdims=True) - mean
    rest = max(float((cosines - mean - by_query - by_picture).var()), _SMALLEST_SPREAD**2)
    usual = _HABIT * rest
    parts = [float(by_query.var()), float(by_picture.var())]
    spread = math.sqrt(rest + sum(min(part, usual) for part in parts))
    shares = [part / (part + usual) for part in parts]
    return Scale(mean, spread, max(shares[0], _OWN_MEAN), max(shares[1], _GENERAL_FIT))


def _fits(cosines: NDArray[np.float32], scale: Scale) -> NDArray[np.float32]:
    """How well any text fits each picture, from its cosines to the neutral ones, (n, m) -> (n,)."""
    if cosines.size == 0:
        return np.zeros(len(cosines), np.float32)
    means = cosines.mean(axis=1)
    beyond = _soft_mean(cosines, scale.spread) - means
    return np.asarray(scale.by_picture * means + _GENERAL_FIT * beyond, np.float32)


def _without_best(cosines: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows with the mean of the others in place of their highest value: a picture to itself."""
    kept = np.array(cosines, np.float32)
    if kept.shape[1] > 1:
        rows, best = np.arange(len(kept)), kept.argmax(axis=1)
        others = (kept.sum(axis=1) - kept[rows, best]) / (kept.shape[1] - 1)
        kept[rows, best] = others
    return kept


def _soft_mean(cosines: NDArray[np.float32], temperature: float) -> NDArray[np.float32]:
    """temperature * log(mean(exp(row / temperature))) for each row: between mean and maximum."""
    if cosines.size == 0:
        return np.zeros(len(cosines), np.float32)
    highest = cosines.max(axis=1, keepdims=True)
    powers = np.exp((cosines - highest) / temperature).mean(axis=1)
    return np.asarray(highest[:, 0] + temperature * np.log(powers), np.float32)


def _best(scores: NDArray[np.float32]) -> float:
    """The best score but for pictures that are the question itself; -1 if there is none."""
    others = scores[scores < _SAME]
    return float(others.max(initial=-1.0))
