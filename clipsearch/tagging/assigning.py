"""Scores to tags: cut-offs, the best of each picture, groups, and what is implied."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipsearch.relevance import Calibration, Scale
from clipsearch.tagging.vocabulary import Vocabulary
from clipsearch.vectors import Ids, Matrix

TOP_TAGS = 5
# Chosen on labels of photos the embedded model was trained on, see docs/tagging.md.
NEUTRAL_ABOVE = 1  # neutral texts that may fit a picture better than a tag it gets
CERTAINTY = 2 / 3  # softmax probability from which on one of a group holds
_SAMPLE = 1024  # vectors: each tag's mean is taken over them, a thousand times and more

Blocks = Callable[[], Iterator[tuple[Ids, Matrix]]]  # all vectors of the library, in pieces
Row = tuple[int, str, float]  # item, tag, score


@dataclass(frozen=True)
class Cutoffs:
    """For each concept, from which score on it holds, and the slope of its log odds there.

    A score is a cosine less the picture's offset (``Calibration.offsets``). ``scale``, ``usual``
    and ``familiarity`` are what offsets are made of, so that they need no sample of the library.
    """

    values: NDArray[np.float32]
    slopes: NDArray[np.float32]
    scale: Scale
    usual: float
    familiarity: float

    def offsets(self, vectors: Matrix, neutral: Matrix) -> NDArray[np.float32]:
        """What to take off the cosines of (n, dim) pictures: (n,)."""
        nothing = np.empty((0, neutral.shape[1]), np.float32)
        usual = np.array([self.usual], np.float32)
        measured = Calibration(nothing, neutral, {"text": self.scale}, usual, self.familiarity)
        return measured.offsets(vectors)


def calibrate(prototypes: Matrix, neutral: Matrix, count: int, blocks: Blocks) -> Cutoffs:
    """Finds each tag's cut-off as that of a query is found, from its scores in the library.

    All vectors pass twice, one block at a time: for a sample of them, and for the best score of
    each tag in the whole library, of ``count`` items.
    """
    step, passed = max(1, -(-count // _SAMPLE)), 0
    sample: list[Matrix] = []
    for _, vectors in blocks():
        sample.append(vectors[-passed % step :: step])
        passed += len(vectors)
    calibration = Calibration.of(np.concatenate(sample), neutral)
    best = np.full(len(prototypes), -1.0, np.float32)
    for _, vectors in blocks():
        scores = vectors @ prototypes.T
        scores -= calibration.offsets(vectors)[:, None]
        np.maximum(best, scores.max(axis=0), out=best)
    # Of all scores only their number and the best one decide.
    scores_of_one = np.full(max(passed, 1), -1.0, np.float32)
    values, slopes = np.empty_like(best), np.empty_like(best)
    for at, prototype in enumerate(prototypes):
        scores_of_one[0] = best[at]
        judged = calibration.judge(prototype, scores_of_one)
        values[at], slopes[at] = judged.cutoff, judged.slope
    usual = float(calibration.fits.mean()) if len(calibration.fits) else 0.0
    return Cutoffs(values, slopes, calibration.scales["text"], usual, calibration.familiarity)


class Tagger:
    """Gives pictures their tags.

    A concept holds where its score reaches its cut-off, at most NEUTRAL_ABOVE neutral texts fit
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
        offsets = self.cutoffs.offsets(vectors, self._neutral)
        scores = vectors @ self.prototypes.T
        scores -= offsets[:, None]
        forbidden = self._codes_of(ids, decided)
        passing = scores >= self.cutoffs.values
        if len(self._neutral) > NEUTRAL_ABOVE:
            fits = vectors @ self._neutral.T
            at = fits.shape[1] - 1 - NEUTRAL_ABOVE
            passing &= scores >= np.partition(fits, at, axis=1)[:, at : at + 1] - offsets[:, None]
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

    def scores(self, at: int, vectors: Matrix) -> NDArray[np.float32]:
        """The scores of one concept: (n,)."""
        scores: NDArray[np.float32] = vectors @ self.prototypes[at]
        return scores - self.cutoffs.offsets(vectors, self._neutral)

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

    def _best(self, scores: NDArray[np.float32], passing: NDArray[np.bool_]) -> NDArray[np.int64]:
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
