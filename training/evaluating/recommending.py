"""Which of several models to use on this machine, and by what rule."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from training.evaluating.bootstrap import Interval, mean_interval
from training.evaluating.measuring import Measured

SLOWEST_TEXT_MS = 500.0  # a person waits for it at every search
LARGEST_SHARE = 0.5  # of this machine's memory

RULE = (
    "Models that take more than half of this machine's memory, or more than half a second a text, "
    "are left out. Of the others, those whose quality cannot be told from the best one's (95 % "
    "paired bootstrap over pictures) are equally good; of them, the one that encodes most pictures "
    "a second."
)


@dataclass(frozen=True)
class Compared:
    """A model beside the best: ``difference`` in quality, in points, and its 95 % interval."""

    model: str
    quality: float
    difference: float
    interval: Interval
    as_good: bool
    too_much: str  # why this machine cannot have it, or ""


@dataclass(frozen=True)
class Recommendation:
    """``model`` is None where all are too much for this machine."""

    model: str | None
    why: str
    rule: str
    compared: tuple[Compared, ...]


def recommend(measured: Sequence[Measured], memory_mb: float | None = None) -> Recommendation:
    """Compares models that were measured on the same pictures. See ``RULE``."""
    memory_mb = total_memory_mb() if memory_mb is None else memory_mb
    troubles = [_trouble(one, memory_mb) for one in measured]
    fitting = [one for one, trouble in zip(measured, troubles, strict=True) if not trouble]
    best = max(fitting or measured, key=lambda one: one.report.quality)
    compared = []
    for one, trouble in zip(measured, troubles, strict=True):
        less = one.of_each - best.of_each
        found = mean_interval(less)
        compared.append(
            Compared(
                model=one.report.model,
                quality=one.report.quality,
                difference=round(float(less.mean()), 2),
                interval=found,
                as_good=found[1] >= 0,
                too_much=trouble,
            )
        )
    if not fitting:
        return Recommendation(None, "all are too much for this machine", RULE, tuple(compared))
    equal = [
        one
        for one, beside in zip(measured, compared, strict=True)
        if beside.as_good and not beside.too_much
    ]
    chosen = max(equal, key=_speed)
    return Recommendation(chosen.report.model, _why(chosen, best, equal), RULE, tuple(compared))


def _why(chosen: Measured, best: Measured, equal: Sequence[Measured]) -> str:
    if len(equal) == 1:
        return "no other is as good on these pictures"
    if chosen.report.timing is None:
        return f"{len(equal)} are equally good on these pictures, and none was timed"
    if chosen is best:
        return f"the fastest of {len(equal)} that are equally good on these pictures, and the best"
    return f"as good as {best.report.model} as far as these pictures can tell, and faster"


def _speed(one: Measured) -> tuple[float, float]:
    """Pictures a second, then quality."""
    return (one.report.timing.images_per_s if one.report.timing else 0.0, one.report.quality)


def _trouble(one: Measured, memory_mb: float | None) -> str:
    timing = one.report.timing
    if timing is None:
        return ""
    if timing.peak_mb and memory_mb and timing.peak_mb > LARGEST_SHARE * memory_mb:
        return f"takes {timing.peak_mb:,.0f} MB of this machine's {memory_mb:,.0f}"
    if timing.ms_per_text > SLOWEST_TEXT_MS:
        return f"takes {timing.ms_per_text:,.0f} ms a text"
    return ""


def total_memory_mb() -> float | None:
    """This machine's memory, or None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**20
    except (AttributeError, ValueError, OSError):
        return None
