"""How well captions find their pictures, and pictures their captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from clipsearch.vectors import Matrix

CUTOFFS = (1, 5, 10)


@dataclass(frozen=True)
class Retrieval:
    """Recall in percent at 1, 5 and 10, and the median rank of the right answer (1 is best).

    ``text_to_image``: of all captions, how many find their picture among the first k pictures.
    ``mean_reciprocal_rank``: of the captions' own pictures.
    ``image_to_text``: of all pictures, how many have one of their captions among the first k.
    """

    pictures: int
    captions: int
    text_to_image: dict[int, float]
    image_to_text: dict[int, float]
    median_rank: float
    mean_reciprocal_rank: float

    def as_record(self) -> dict[str, object]:
        return asdict(self)


def evaluate_retrieval(images: Matrix, texts: Matrix, owner: Sequence[int]) -> Retrieval:
    """``images`` (n, dim) and ``texts`` (m, dim), unit rows; text j belongs to image ``owner[j]``.

    Pictures may have several captions each. Ties count against us: a right answer that scores the
    same as wrong ones is ranked after them.
    """
    owners = np.asarray(owner)
    scores = texts @ images.T
    text_ranks = rank_own(images, texts, owner)
    image_ranks = np.array([_best_rank(scores[:, i], owners == i) for i in range(len(images))])
    return Retrieval(
        pictures=len(images),
        captions=len(texts),
        text_to_image=_recall(text_ranks),
        image_to_text=_recall(image_ranks),
        median_rank=float(np.median(text_ranks)),
        mean_reciprocal_rank=round(float((1 / text_ranks).mean()), 4),
    )


def rank_own(images: Matrix, texts: Matrix, owner: Sequence[int]) -> NDArray[np.int64]:
    """(m,): where each text finds its own image among all, from 1 on; ties count against it."""
    scores = texts @ images.T
    own = scores[np.arange(len(texts)), np.asarray(owner)]
    ranks: NDArray[np.int64] = (scores >= own[:, None]).sum(axis=1)
    return ranks


def _best_rank(scores: NDArray[np.float32], is_own: NDArray[np.bool_]) -> int:
    """The rank of a picture's best caption among all captions."""
    best = scores[is_own].max()
    return int((scores[~is_own] >= best).sum()) + 1


def _recall(ranks: NDArray[np.int64]) -> dict[int, float]:
    return {k: round(100 * float((ranks <= k).mean()), 2) for k in CUTOFFS}
