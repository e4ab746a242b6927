"""Retrieval over a dataset, with intervals."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipsearch.vectors import Matrix
from training.evaluating.bootstrap import Interval, median_interval, ratio_interval
from training.evaluation import CUTOFFS, Ranks, Retrieval, rank_both, summarise


@dataclass(frozen=True)
class JudgedRetrieval:
    """The figures, and 95 % intervals over pictures, by cut-off."""

    found: Retrieval
    text_to_image_intervals: dict[int, Interval]
    image_to_text_intervals: dict[int, Interval]
    median_rank_interval: Interval


def judge_retrieval(
    images: Matrix, texts: Matrix, owner: list[int]
) -> tuple[JudgedRetrieval, NDArray[np.float64]]:
    """``images`` (n, dim), ``texts`` (m, dim), text j of image ``owner[j]``; also (p,) for each of
    the p images with texts, in ascending order, the mean reciprocal rank of its texts."""
    text_ranks, image_ranks = rank_both(images, texts, owner)
    owners = np.asarray(owner, dtype=np.int64)
    asked, places = np.unique(owners, return_inverse=True)
    captions = np.bincount(places)
    reciprocal = np.bincount(places, weights=1 / text_ranks) / captions
    judged = JudgedRetrieval(
        found=summarise(text_ranks, image_ranks, pictures=len(images)),
        text_to_image_intervals={
            k: ratio_interval(_hits(text_ranks, places, k), captions) for k in CUTOFFS
        },
        image_to_text_intervals={
            k: ratio_interval(image_ranks <= k, np.ones(len(asked))) for k in CUTOFFS
        },
        median_rank_interval=median_interval(text_ranks, owners),
    )
    return judged, reciprocal


def _hits(ranks: Ranks, places: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """(p,): how many texts of each image found it among the first k."""
    return np.bincount(places, weights=ranks <= k).astype(np.float64)
