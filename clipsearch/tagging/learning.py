"""What answers in review teach: from which score on a tag holds, and how likely it fits there."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# Chosen on half of the labelled tags of benchmarks/review.py, reported on the other half.
AT_CUTOFF = -1.0  # log odds that a tag fits a picture whose score is its cut-off
PRIOR_WIDTH = 0.4  # how unsure a calibrated cut-off is, in units of the logistic's own scale
_MAX_LOG_ODDS = 30.0


def fitting_probability(
    scores: NDArray[np.floating], cutoff: float, slope: float
) -> NDArray[np.float64]:
    """How likely a tag fits pictures with these scores, (n,), given its cut-off.

    At the cut-off it is well below 1/2: F1 is best where a tag is given down to half of the F1
    that it reaches (Lipton, Elkan and Narayanaswamy 2014), so most of what is asked there does
    not fit, and a "no" tells little.
    """
    odds = slope * (np.asarray(scores, np.float64) - cutoff) + AT_CUTOFF
    return np.asarray(1 / (1 + np.exp(-np.clip(odds, -_MAX_LOG_ODDS, _MAX_LOG_ODDS))))


def learned_cutoff(said: NDArray[Any], slope: float, calibrated: float) -> float:
    """The most likely cut-off after answers (n, 2), n > 0: scores, and 1 for yes or -1 for no.

    Logistic regression on the score alone by ``fitting_probability``, its slope the calibrated
    one, with a normal prior of PRIOR_WIDTH on the cut-off around the calibrated one. The log
    posterior is concave, so bisecting its derivative finds it.
    """
    score, sign = said.T
    width = PRIOR_WIDTH / slope
    furthest = slope * len(said) * width**2  # each answer pulls by less than the slope
    low, high = calibrated - furthest, calibrated + furthest
    for _ in range(60):
        middle = (low + high) / 2
        fits = fitting_probability(score, middle, slope)
        pull = slope * float((fits - (sign > 0)).sum())
        if pull < (middle - calibrated) / width**2:
            high = middle
        else:
            low = middle
    return float((low + high) / 2)
