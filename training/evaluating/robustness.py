"""What is left of a figure when pictures are corrupted, and whether that is more than expected.

Taori et al. 2020, "Measuring robustness to natural distribution shifts": effective robustness is
the accuracy under the shift less what the clean accuracy lets expect (section 2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from clipsearch.encoders import Encoder
from clipsearch.errors import DatasetError
from clipsearch.vectors import Matrix
from training.evaluating.corruptions import KINDS, corrupt, prepared
from training.evaluating.dataset import Picture
from training.evaluating.encoding import Progress, encode_pictures

SEVERITIES = (1, 3, 5)  # of five: weak, middling, strong
LEAST_MODELS = 4  # a line through the two others of three would fit anything


@dataclass(frozen=True)
class Robustness:
    """In percent. ``each`` has, for each kind, the figure at each of ``severities``.

    ``corrupted`` is their mean, ``kept`` its share of ``clean``. ``measure`` says what is measured.
    """

    measure: str
    pictures: int
    severities: tuple[int, ...]
    clean: float
    corrupted: float
    kept: float
    each: dict[str, tuple[float, ...]]


def judge_robustness(
    encoder: Encoder,
    pictures: Sequence[Picture],
    figure: Callable[[Matrix], float],
    measure: str,
    *,
    seed: int = 0,
    progress: Progress = lambda _done, _total: None,
) -> Robustness:
    """``figure`` (of the pictures' (n, dim) vectors, in percent) for clean and corrupted pictures.

    Both are of pictures whose shorter side is 224 pixels, for which severities are made. The
    noise depends on the picture and the seed, not on the model.
    """

    def measured(kind: str | None, severity: int) -> float:
        def change(image: Image.Image, place: int) -> Image.Image:
            small = prepared(image)
            return small if kind is None else corrupt(small, kind, severity, seed + place)

        rows, failed = encode_pictures(encoder, pictures, change=change)
        if failed:
            raise DatasetError(
                name=next(iter(failed.values())),
                reason="it was read before",
                advice="Leave the pictures in their place while they are measured on.",
            )
        return figure(rows)

    total = 1 + len(KINDS) * len(SEVERITIES)
    clean = measured(None, 0)
    done = 1
    each: dict[str, tuple[float, ...]] = {}
    for kind in KINDS:
        found = []
        for severity in SEVERITIES:
            progress(done, total)
            found.append(round(measured(kind, severity), 2))
            done += 1
        each[kind] = tuple(found)
    progress(total, total)
    corrupted = float(np.mean(list(each.values())))
    return Robustness(
        measure=measure,
        pictures=len(pictures),
        severities=SEVERITIES,
        clean=round(clean, 2),
        corrupted=round(corrupted, 2),
        kept=round(100 * corrupted / clean, 1) if clean else 0.0,
        each=each,
    )


def effective_robustness(clean: Sequence[float], corrupted: Sequence[float]) -> list[float] | None:
    """For each model, in points: its corrupted figure less what the others' line expects of it.

    The line is fitted by least squares in logits, as in the paper (section 2), through all models
    but the one that is judged: there, the baseline are models trained in the standard way, which we
    have not. None for fewer than ``LEAST_MODELS``, or where all others have the same clean figure.
    """
    if len(clean) < LEAST_MODELS:
        return None
    x, y = _logits(clean), _logits(corrupted)
    found = []
    for place in range(len(x)):
        others = np.arange(len(x)) != place
        if np.ptp(x[others]) == 0:
            return None
        slope, start = np.polyfit(x[others], y[others], 1)
        expected = 100 / (1 + np.exp(-(slope * x[place] + start)))
        found.append(round(float(corrupted[place] - expected), 2))
    return found


def _logits(percents: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """log(p / (1 - p)), of percents kept half a point off 0 and 100."""
    shares = np.clip(np.asarray(percents, dtype=np.float64), 0.5, 99.5) / 100
    return np.log(shares / (1 - shares))
