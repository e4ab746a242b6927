"""How sure a figure is: bootstrap intervals over pictures (Efron and Tibshirani 1993, chapter 13).

Captions of one picture are not independent, so pictures are drawn, and their captions with them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
COVERAGE = 95  # percent
Floats = NDArray[np.float64]
Interval = tuple[float, float]


def draws(count: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[NDArray[np.int64]]:
    """(count,) for each resample: how often each of ``count`` pictures is in it."""
    chance = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(chance.integers(count, size=count), minlength=count)


def ratio_interval(
    right: NDArray[np.generic], asked: NDArray[np.generic], *, resamples: int = RESAMPLES
) -> Interval:
    """The 95 % interval in percent of sum(right) / sum(asked), both (n,) over pictures."""
    top, below = np.asarray(right, np.float64), np.asarray(asked, np.float64)
    found = [
        (float(drawn @ top), float(drawn @ below)) for drawn in draws(len(top), resamples=resamples)
    ]
    return interval([100 * some / all_ for some, all_ in found if all_ > 0])


def median_interval(
    ranks: NDArray[np.int64], owner: NDArray[np.int64], *, resamples: int = RESAMPLES
) -> Interval:
    """The 95 % interval of the median of ``ranks`` (m,), which are of pictures ``owner`` (m,)."""
    pictures, places = np.unique(owner, return_inverse=True)
    order = np.argsort(ranks, kind="stable")
    ranked, of_ranked = ranks[order], places[order]
    medians = []
    for drawn in draws(len(pictures), resamples=resamples):
        upto = np.cumsum(drawn[of_ranked])
        middle = np.array([(upto[-1] - 1) // 2, upto[-1] // 2])
        medians.append(float(ranked[np.searchsorted(upto, middle, side="right")].mean()))
    return interval(medians)


def mean_interval(values: Floats, *, resamples: int = RESAMPLES) -> Interval:
    """The 95 % interval of the mean of ``values`` (n,), one for each picture."""
    found = [
        float(drawn @ values) / len(values) for drawn in draws(len(values), resamples=resamples)
    ]
    return interval(found)


def interval(found: list[float]) -> Interval:
    """The 2.5 and 97.5 % quantiles of what the resamples gave."""
    margin = (100 - COVERAGE) / 2
    low, high = np.percentile(found, [margin, 100 - margin])
    return round(float(low), 2), round(float(high), 2)
