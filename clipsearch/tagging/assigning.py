"""Scores to tags: cut-offs, the best of each picture, groups, and what is implied."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipsearch.relevance import Calibration
from clipsearch.tagging.vocabulary import Vocabulary
from clipsearch.vectors import Ids, Matrix

TOP_TAGS = 5
# Chosen on labels of photos the embedded model was trained on, see docs/tagging.md.
NEUTRAL_ABOVE = 1  # neutral texts that may fit a picture better than a tag it gets
CERTAINTY = 2 / 3  # softmax probability from which on one of a group holds
_BEST = 3  # scores of each tag that its cut-off is made from
_SAMPLE = 1024  # vectors: each tag's mean is taken over them, a thousand times and more

Blocks = Callable[[], Iterator[tuple[Ids, Matrix]]]  # all vectors of the library, in pieces
Row = tuple[int, str, float]  # item, tag, cosine


@dataclass(frozen=True)
class Cutoffs:
    """For each concept, from which score on it holds, and the slope of its log odds there."""

    values: NDArray[np.float32]
    slopes: NDArray[np.float32]


def calibrate(prototypes: Matrix, neutral: Matrix, count: int, blocks: Blocks) -> Cutoffs:
    """Finds each tag's cut-off as that of a query is found, from its scores in the library.

    Only the best scores of each tag are kept on the way, and a sample of the vectors: ``count`` of
    them pass, one block at a time.
    """
    best = np.full((_BEST, len(prototypes)), -1.0, np.float32)
    sample: list[Matrix] = []
    step, passed = max(1, -(-count // _SAMPLE)), 0
    for _, vectors in blocks():
        sample.append(vectors[-passed % step :: step])
        passed += len(vectors)
        _keep_best(best, vectors @ prototypes.T)
    calibration = Calibration.of(np.concatenate(sample), neutral)
    known = min(_BEST, passed)
    judged = [
        calibration.judge(prototype, scores[:known])
        for prototype, scores in zip(prototypes, best.T, strict=True)
    ]
    return Cutoffs(
        np.array([one.cutoff for one in judged], np.float32),
        np.array([one.slope for one in judged], np.float32),
    )


def _keep_best(best: NDArray[np.float32], scores: NDArray[np.float32]) -> None:
    """Updates the best scores of each column, the highest first; ``scores`` is used up."""
    columns = np.arange(best.shape[1])
    for _ in range(min(len(best), len(scores))):
        rows = scores.argmax(axis=0)
        found = scores[rows, columns]
        scores[rows, columns] = -2.0
        best[-1] = np.maximum(best[-1], found)
        best[:] = -np.sort(-best, axis=0)


class Tagger:
    """Gives pictures their tags.

    A concept holds where its cosine reaches its cut-off, at most NEUTRAL_ABOVE neutral texts fit
    the picture better, and it is among the ``top`` best of the picture. Of a group the one with
    the highest softmax probability holds, if that is at least CERTAINTY; where there may be none
    it also has to pass as every other. Everything above a concept holds with it.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        prototypes: Matrix,
        cutoffs: Cutoffs,
        neutral: Matrix,
        top: int = TOP_TAGS,
    ) -> None:
        self.vocabulary = vocabulary
        self.prototypes = prototypes
        self.cutoffs = cutoffs
        self._neutral = neutral
        self._top = top
        self._columns = {name.casefold(): at for at, name in enumerate(vocabulary.names)}
        depth = max((len(concept.ancestors) for concept in vocabulary.concepts), default=0)
        # Each concept and what is above it, filled up with itself: one look-up implies them all.
        self._lineage = np.array(
            [
                (at, *concept.ancestors, *[at] * (depth - len(concept.ancestors)))
                for at, concept in enumerate(vocabulary.concepts)
            ],
            dtype=np.int64,
        )
        self._grouped = np.zeros(len(vocabulary), bool)
        for group in vocabulary.groups:
            self._grouped[list(group.members)] = True

    def assign(
        self, ids: Ids, vectors: Matrix, decided: Collection[tuple[int, str]] = ()
    ) -> list[Row]:
        """The tags of some items, by item.

        ``decided`` are items, and folded names of tags on which a person has the say.
        """
        scores = vectors @ self.prototypes.T
        forbidden = self._codes_of(ids, decided)
        passing = scores >= self.cutoffs.values
        if len(self._neutral) > NEUTRAL_ABOVE:
            fits = vectors @ self._neutral.T
            at = fits.shape[1] - 1 - NEUTRAL_ABOVE
            passing &= scores >= np.partition(fits, at, axis=1)[:, at : at + 1]
        passing.ravel()[forbidden] = False
        chosen = [self._best(scores, passing & ~self._grouped), *self._of_groups(scores, passing)]
        codes = np.concatenate(chosen)
        rows, columns = np.divmod(codes, len(self.vocabulary))
        implied = rows[:, None] * len(self.vocabulary) + self._lineage[columns]
        held = np.setdiff1d(implied, forbidden)  # sorted, each once
        rows, columns = np.divmod(held, len(self.vocabulary))
        names = self.vocabulary.names
        return [
            (item, names[column], score)
            for item, column, score in zip(
                ids[rows].tolist(), columns.tolist(), scores[rows, columns].tolist(), strict=True
            )
        ]

    def _codes_of(self, ids: Ids, decided: Collection[tuple[int, str]]) -> NDArray[np.int64]:
        """Positions in the flattened (n, t) scores."""
        row = {item: number for number, item in enumerate(ids.tolist())} if decided else {}
        return np.array(
            [
                row[item] * len(self.vocabulary) + self._columns[name]
                for item, name in decided
                if item in row and name in self._columns
            ],
            dtype=np.int64,
        )

    def _best(
        self, scores: NDArray[np.float32], passing: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """Of each picture the best concepts that pass, ``top`` at most, as codes."""
        codes = np.flatnonzero(passing)
        rows = codes // len(self.vocabulary)
        order = np.lexsort((-scores.ravel()[codes], rows))
        first = np.searchsorted(rows, rows)  # where each code's own row begins
        return codes[order[np.arange(len(codes)) - first < self._top]]

    def _of_groups(
        self, scores: NDArray[np.float32], passing: NDArray[np.bool_]
    ) -> Iterator[NDArray[np.int64]]:
        for group in self.vocabulary.groups:
            members = np.array(group.members)
            slope = float(self.cutoffs.slopes[members].mean())
            logits = slope * (scores[:, members] - scores[:, members].max(axis=1, keepdims=True))
            # The winner's logit is 0 now, so its probability is one over the sum.
            probability = 1 / np.exp(logits).sum(axis=1)
            winner = members[logits.argmax(axis=1)]
            rows = np.flatnonzero(probability >= CERTAINTY)
            if not group.always_one:
                rows = rows[passing[rows, winner[rows]]]
            yield rows * len(self.vocabulary) + winner[rows]
