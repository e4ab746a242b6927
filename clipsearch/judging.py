"""What is relevant to one question, as scores and probabilities of the index's rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clipsearch.ranking import Scores
from clipsearch.relevance import Relevance
from clipsearch.vectors import Ids


@dataclass(frozen=True)
class Judged:
    """What is relevant to one question, for each row of the index."""

    relevance: Relevance
    offsets: Scores  # (n,)
    ids: Ids  # (n,) ascending

    @property
    def cutoffs(self) -> Scores:
        """(n,) the least score of each row."""
        return np.asarray(self.offsets + np.float32(self.relevance.cutoff), np.float32)

    def probabilities(self, pairs: list[tuple[int, float | None]]) -> dict[int, float]:
        """By item, of items and their scores."""
        scored = [(item, score) for item, score in pairs if score is not None]
        rows = np.searchsorted(self.ids, [item for item, _ in scored])
        evidence = np.array([score for _, score in scored], np.float32) - self.offsets[rows]
        likely = self.relevance.probability(evidence)
        return {item: float(one) for (item, _), one in zip(scored, likely, strict=True)}
