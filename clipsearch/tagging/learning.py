"""What answers in review teach: from which score on a tag holds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# How far answers move a cut-off: it is where the log odds are 0, with a normal prior around the
# calibrated one of this width, in units of the logistic's own.
_PRIOR_WIDTH = 1.0


def learned_cutoff(said: NDArray[Any], slope: float, calibrated: float) -> float:
    """The most likely cut-off after answers (n, 2), n > 0: scores, and 1 for yes or -1 for no.

    Logistic regression on the score alone, its slope the calibrated one, with a normal prior
    on where it crosses 1/2; the log posterior is concave, so bisecting its derivative finds it.
    """
    score, sign = said.T
    width = _PRIOR_WIDTH / slope
    low, high = min(calibrated, score.min()) - 1.0, max(calibrated, score.max()) + 1.0
    for _ in range(60):
        middle = (low + high) / 2
        doubt = 1 / (1 + np.exp(np.clip(sign * slope * (score - middle), -30, 30)))
        if slope * float((sign * doubt).sum()) + (middle - calibrated) / width**2 > 0:
            high = middle
        else:
            low = middle
    return float((low + high) / 2)
