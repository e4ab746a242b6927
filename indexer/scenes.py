"""Which looks at a video become its moments: the measure of change, merging and thinning."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

Look = NDArray[np.uint8]  # a frame averaged down to LOOK_HEIGHT x LOOK_WIDTH RGB cells
LOOK_WIDTH, LOOK_HEIGHT = 32, 18

_BLANK_RANGE = 24  # of 255: darkest to brightest cell of a black, white or faded frame
_ALIKE_MEAN = 0.03
_ALIKE_WORST = 0.12  # at the 98th percentile: something new may be small
_CUT = 0.10  # the least change that can be a cut ...
_CUT_OVER_USUAL = 2.5  # ... where a moving camera changes little from look to look
_CUT_FOR_SURE = 0.38
_USUAL_LOOKS = 9
_BURST_SHARE = 10  # a tenth of the moments may be used ahead of time, where cuts are quick


class MomentChooser:
    """Says of each look, in order of time, whether it becomes a moment."""

    def __init__(self, *, every_s: float, max_moments: int, duration_s: float) -> None:
        self.chosen = 0
        self._interval_s = max(every_s, duration_s / max_moments)
        self._max_moments = max_moments
        self._burst = max(max_moments // _BURST_SHARE, 1)
        self._is_owed = True
        self._saw_blank = False
        self._previous: Look | None = None
        self._moment: Look | None = None
        self._settled_s = 0.0  # when the scene was last found to be in the moments
        self._changes: deque[float] = deque(maxlen=_USUAL_LOOKS)

    @property
    def is_full(self) -> bool:
        return self.chosen >= self._max_moments

    @property
    def wants_neighbour(self) -> bool:
        """True after a blank look where a moment was due: the next frames may show more."""
        return self._is_owed and self._saw_blank

    def choose(self, look: Look, time_s: float, progress: float) -> bool:
        """``progress`` is the share of the video that is behind, 0 to 1: it thins evenly."""
        self._saw_blank = is_blank(look)
        if self._saw_blank:
            self._is_owed = True  # what comes after black is a new scene
            return False
        if self._is_change(look) or time_s - self._settled_s >= self._interval_s:
            self._is_owed = True
        if not self._is_owed:
            return False
        if self._moment is not None and are_alike(look, self._moment):
            self._is_owed, self._settled_s = False, time_s
            return False
        allowed = self._burst + (self._max_moments - self._burst) * min(progress, 1.0)
        if self.chosen >= allowed:
            return False  # it stays owed, and a later look will be its moment
        self.chosen += 1
        self._is_owed, self._settled_s, self._moment = False, time_s, look
        return True

    def _is_change(self, look: Look) -> bool:
        """A cut: far more change since the last look than was usual between the last few."""
        previous, self._previous = self._previous, look
        if previous is None:
            return True
        change = difference(previous, look)
        usual = float(np.median(self._changes)) if self._changes else 0.0
        self._changes.append(change)
        return change > min(max(_CUT, _CUT_OVER_USUAL * usual), _CUT_FOR_SURE)


def difference(one: Look, other: Look) -> float:
    """How much two looks differ, 0 to 1: the mean of where and of how much colour there is.

    Where: the mean absolute difference of the cells, which a moved camera makes large. How much:
    half the L1 distance of the colour histograms (4 x 4 x 4 bins), which it leaves small, and
    which two scenes of one brightness make large.
    """
    cells = float(np.abs(one.astype(np.int16) - other).mean()) / 255
    histograms = float(np.abs(_histogram(one) - _histogram(other)).sum()) / 2
    return (cells + histograms) / 2


def are_alike(one: Look, other: Look) -> bool:
    """True where the same picture would be kept twice: nothing moved, and nothing small came."""
    cells = np.abs(one.astype(np.int16) - other).mean(axis=2) / 255
    return bool(cells.mean() < _ALIKE_MEAN and np.percentile(cells, 98) < _ALIKE_WORST)


def is_blank(look: Look) -> bool:
    """True for black, white or any even colour."""
    grey = look.mean(axis=2)
    return bool(grey.max() - grey.min() < _BLANK_RANGE)


def contrast(look: Look) -> float:
    """The standard deviation of the cells, to choose the least blank of blank looks."""
    return float(look.std())


def _histogram(look: Look) -> NDArray[np.float64]:
    bins = (look >> 6).astype(np.int64) @ np.array([16, 4, 1])
    shares: NDArray[np.float64] = np.bincount(bins.ravel(), minlength=64) / bins.size
    return shares
