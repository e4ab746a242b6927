"""How well captions find their pictures, and pictures their captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from clipsearch.vectors import Matrix

CUTOFFS = (1, 5, 10)
_BLOCK = 2048  # texts and pictures whose similarities are held at once: 16 MB
_PAIRS = 4096  # close pairs that are computed again at once

Ranks = NDArray[np.int64]


@dataclass(frozen=True)
class Retrieval:
    """Recall in percent at 1, 5 and 10, and the median rank of the right answer (1 is best).

    ``text_to_image``: of all captions, how many find their picture among the first k pictures.
    ``mean_reciprocal_rank``: of the captions' own pictures.
    ``image_to_text``: of all pictures, how many have one of their captions among the first k;
    ``image_median_rank`` is that of the best of them.
    """

    pictures: int
    captions: int
    text_to_image: dict[int, float]
    image_to_text: dict[int, float]
    median_rank: float
    mean_reciprocal_rank: float
    image_median_rank: float = 0.0

    def as_record(self) -> dict[str, object]:
        return asdict(self)


def evaluate_retrieval(
    images: Matrix, texts: Matrix, owner: Sequence[int], captions: Sequence[str] | None = None
) -> Retrieval:
    """``images`` (n, dim) and ``texts`` (m, dim), unit rows; text j belongs to image ``owner[j]``.

    Pictures may have several captions each. Those without any can be found by mistake, and are
    not asked for their captions. Ties count against us: a right answer that scores the same as
    wrong ones is ranked after them. With the words of the texts as ``captions`` (m,), a caption is
    right for every picture that has the same one.
    """
    return summarise(*rank_both(images, texts, owner, captions), pictures=len(images))


def summarise(text_ranks: Ranks, image_ranks: Ranks, *, pictures: int) -> Retrieval:
    """The figures of ranks as ``rank_both`` gives them."""
    return Retrieval(
        pictures=pictures,
        captions=len(text_ranks),
        text_to_image=_recall(text_ranks),
        image_to_text=_recall(image_ranks),
        median_rank=float(np.median(text_ranks)),
        mean_reciprocal_rank=round(float((1 / text_ranks).mean()), 4),
        image_median_rank=float(np.median(image_ranks)),
    )


def rank_own(
    images: Matrix, texts: Matrix, owner: Sequence[int], captions: Sequence[str] | None = None
) -> Ranks:
    """(m,): where each text finds its own image among all, from 1 on; ties count against it."""
    return rank_both(images, texts, owner, captions)[0]


def rank_both(
    images: Matrix,
    texts: Matrix,
    owner: Sequence[int],
    captions: Sequence[str] | None = None,
    *,
    block: int = _BLOCK,
) -> tuple[Ranks, Ranks]:
    """(m,) where each text finds its own image, and where each image finds its first own text.

    The second has an entry for each image that has texts, in ascending order. Of texts with the
    same ``captions`` there is but one to be found, and it finds the first of all their images.
    The similarities are never held as a whole: ``block`` x ``block`` of them at a time, in float32.
    Those too close to the right one to be told from it in float32 are computed again in float64, so
    that the ranks are those of the full float64 matrix, and equal vectors tie wherever the blocks
    end.
    """
    owners = np.asarray(owner, dtype=np.int64)
    asking = np.arange(len(texts))
    if captions is not None:
        _, firsts, asking = np.unique(np.asarray(captions), return_index=True, return_inverse=True)
        texts = texts[firsts]
    right = np.unique(asking * len(images) + owners)  # pairs of text and image, by text
    text_of, image_of = np.divmod(right, len(images))
    scores_of = _dots(texts, images, text_of, image_of)
    own, best = np.full(len(texts), -np.inf), np.full(len(images), -np.inf)
    np.maximum.at(own, text_of, scores_of)
    np.maximum.at(best, image_of, scores_of)
    asked = np.flatnonzero(np.isfinite(best))
    best[~np.isfinite(best)] = np.inf  # nothing is ahead where nobody asks
    doubt = _doubt(texts, images)
    text_ranks = np.ones(len(texts), np.int64)
    image_ranks = np.ones(len(images), np.int64)
    for row in range(0, len(texts), block):
        rows = slice(row, row + block)
        of_rows = slice(*np.searchsorted(text_of, (row, row + block)))
        for column in range(0, len(images), block):
            columns = slice(column, column + block)
            scores = texts[rows] @ images[columns].T
            own_texts, own_images = text_of[of_rows] - row, image_of[of_rows] - column
            inside = (own_images >= 0) & (own_images < scores.shape[1])
            scores[own_texts[inside], own_images[inside]] = -np.inf  # not ahead of themselves
            vectors = texts[rows], images[columns]
            said, _ = _at_least(scores, own[rows, None], doubt, vectors)
            text_ranks[rows] += np.bincount(said, minlength=len(scores))
            _, seen = _at_least(scores, best[None, columns], doubt, vectors)
            image_ranks[columns] += np.bincount(seen, minlength=scores.shape[1])
    return text_ranks[asking], image_ranks[asked]


def _doubt(texts: Matrix, images: Matrix) -> np.float32:
    """How far two float32 similarities may be from their order in float64.

    A sum of d products is off by at most d * 2^-24 of the product of both lengths (Higham 2002,
    section 3.1); twice that, since the bar is rounded, too.
    """
    lengths = [float(np.linalg.norm(rows, axis=1).max(initial=0)) for rows in (texts, images)]
    return np.float32(2 * (texts.shape[1] + 1) * 2.0**-24 * lengths[0] * lengths[1])


def _at_least(
    scores: NDArray[np.float32],
    bar: NDArray[np.float64],
    doubt: np.float32,
    vectors: tuple[Matrix, Matrix],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns where the similarity of ``vectors`` is no less than ``bar``, in float64."""
    bar32 = bar.astype(np.float32)
    rows, columns = np.divmod(np.flatnonzero(scores >= bar32 - doubt), scores.shape[1])
    sure = scores[rows, columns] > np.broadcast_to(bar32 + doubt, scores.shape)[rows, columns]
    close = rows[~sure], columns[~sure]
    sure[~sure] = _dots(*vectors, *close) >= np.broadcast_to(bar, scores.shape)[close]
    return rows[sure], columns[sure]


def _dots(
    texts: Matrix, images: Matrix, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The similarities of pairs in float64, each by itself: equal vectors get equal ones."""
    found = np.empty(len(rows))
    for start in range(0, len(rows), _PAIRS):
        part = slice(start, start + _PAIRS)
        found[part] = (texts[rows[part]].astype(np.float64) * images[columns[part]]).sum(axis=1)
    return found


def _recall(ranks: Ranks) -> dict[int, float]:
    return {k: round(100 * float((ranks <= k).mean()), 2) for k in CUTOFFS}
