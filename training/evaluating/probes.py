"""Linear probes on a model's image vectors, and how many labels zero-shot is worth.

Radford et al. 2021: appendix A.3 (logistic regression, L-BFGS, at most 1,000 iterations, the
regularisation found by a sweep), section 3.1.5 and Figure 7 (the crossing point). The paper takes
the features before the last projection; an encoder gives those after it, so these are used.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsearch.errors import DependencyError
from clipsearch.vectors import Matrix

STEPS = np.logspace(-6, 6, 97)  # 96 steps of an eighth of a decade, as in appendix A.3
FIRST = tuple(range(0, 97, 16))  # 1e-6, 1e-4, ..., 1e6
SHOTS = (1, 2, 4, 8, 16)
MAX_ITERATIONS = 1000
Classes = NDArray[np.int64]


@dataclass(frozen=True)
class LinearProbe:
    """``c`` is scikit-learn's, the inverse of the regularisation; ``top1`` in percent."""

    top1: float
    c: float
    trained_on: int
    judged_on: int
    classes: int


@dataclass(frozen=True)
class FewShot:
    """Top-1 in percent for each of ``shots`` labelled pictures a class, over several draws.

    ``crossing`` is how many labelled pictures a class match zero-shot, with ``=``; or the end of
    what was tried, with ``<`` or ``>``. All figures are of the same ``judged_on`` pictures and the
    same ``classes``: those with enough pictures for all of ``shots``.
    """

    shots: tuple[int, ...]
    top1: tuple[float, ...]
    standard_deviation: tuple[float, ...]
    seeds: int
    zero_shot: float
    full: float
    full_shots: float  # labelled pictures a class, on average, of the probe on all of them
    crossing: float
    relation: str
    classes: int
    judged_on: int


def sweep(score: Callable[[int], float]) -> int:
    """The step, of ``STEPS``, that scores best, as appendix A.3 looks for it.

    First every 16th; then, around the best so far, half as far to either side, and so on down to
    a single step. Of equals the smaller, which is regularised more.
    """
    known = {step: score(step) for step in FIRST}
    reach = FIRST[1] // 2
    while reach:
        best = _best(known)
        for step in (best - reach, best + reach):
            if 0 <= step < len(STEPS) and step not in known:
                known[step] = score(step)
        reach //= 2
    return _best(known)


def _best(known: dict[int, float]) -> int:
    return min(known, key=lambda step: (-known[step], step))


def fit(rows: Matrix, classes: Classes, c: float) -> Any:
    """Multinomial logistic regression: min c * sum of -log p(class | row) + |W|^2 / 2."""
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise DependencyError(
            reason="Probes need a package: pip install 'clipsearch[evaluate]'"
        ) from error
    with warnings.catch_warnings():
        # A thousand iterations are the paper's limit, reached or not.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=c, max_iter=MAX_ITERATIONS).fit(rows, classes)


def share_right(model: Any, rows: Matrix, classes: Classes) -> float:
    """Top-1 in percent."""
    return 100 * float((model.predict(rows) == classes).mean())


def split(classes: Classes, share: float, seed: int) -> tuple[Classes, Classes]:
    """Places to learn from and to judge on: of each class ``share`` to judge on, rounded down,
    but at least one if it has two or more. A class of one is learned, never judged."""
    chance = np.random.default_rng(seed)
    learn, judge = [], []
    for one in np.unique(classes):
        places = chance.permutation(np.flatnonzero(classes == one))
        held = 0 if len(places) < 2 else max(1, int(share * len(places)))
        judge.append(places[:held])
        learn.append(places[held:])
    return np.sort(np.concatenate(learn)), np.sort(np.concatenate(judge))


def choose_c(rows: Matrix, classes: Classes, seed: int) -> float:
    """The best of ``STEPS`` on a fifth of each class, held out of what is learned from."""
    learn, judge = split(classes, 0.2, seed)
    if not len(judge):
        return 1.0

    def score(step: int) -> float:
        model = fit(rows[learn], classes[learn], float(STEPS[step]))
        return share_right(model, rows[judge], classes[judge])

    return float(STEPS[sweep(score)])


def linear_probe(
    learn: tuple[Matrix, Classes], judge: tuple[Matrix, Classes], seed: int
) -> LinearProbe:
    """Chooses C within ``learn``, fits all of it, and judges on ``judge``; (n, dim) and (n,)."""
    rows, classes = learn
    c = choose_c(rows, classes, seed)
    return LinearProbe(
        top1=round(share_right(fit(rows, classes, c), *judge), 2),
        c=c,
        trained_on=len(rows),
        judged_on=len(judge[0]),
        classes=len(np.unique(classes)),
    )


def few_shot(
    learn: tuple[Matrix, Classes],
    judge: tuple[Matrix, Classes],
    zero_shot: Callable[[Matrix, Classes, Classes], float],
    *,
    seeds: int = 3,
    seed: int = 0,
) -> FewShot | None:
    """Probes on 1, 2, 4, 8, 16 pictures a class, ``seeds`` draws each; None for too few pictures.

    Of SHOTS as many are tried as at least half of the classes have pictures for; the others are
    left out of everything. C is chosen once for each number of shots, on the pictures of the first
    draw that were not drawn: kinder to the probe than life, so the crossing is rather too low.
    ``zero_shot(rows, classes, among)`` is its top-1 in percent among these classes only.
    """
    kept, shots = _enough(learn[1], judge[1])
    if not shots:
        return None
    taking = np.isin(learn[1], kept)
    rows, classes = learn[0][taking], learn[1][taking]
    judge = (judge[0][np.isin(judge[1], kept)], judge[1][np.isin(judge[1], kept)])
    means, spreads = [], []
    for count in shots:
        found = []
        c = 0.0
        for number in range(seeds):
            drawn = _draw(classes, count, seed + number)
            left = np.setdiff1d(np.arange(len(rows)), drawn)
            if number == 0:
                c = _tuned(rows, classes, drawn, left)
            found.append(share_right(fit(rows[drawn], classes[drawn], c), *judge))
        means.append(round(float(np.mean(found)), 2))
        spreads.append(round(float(np.std(found)), 2))
    full = linear_probe((rows, classes), judge, seed)
    free = round(zero_shot(*judge, kept), 2)
    each = len(rows) / len(kept)
    tried = [*zip(shots, means, strict=True)]
    crossing, relation = crossing_point(
        [*tried, (each, full.top1)] if each > shots[-1] else tried, free
    )
    return FewShot(
        shots=shots,
        top1=tuple(means),
        standard_deviation=tuple(spreads),
        seeds=seeds,
        zero_shot=free,
        full=full.top1,
        full_shots=round(each, 1),
        crossing=crossing,
        relation=relation,
        classes=len(kept),
        judged_on=len(judge[0]),
    )


def crossing_point(tried: Sequence[tuple[float, float]], zero_shot: float) -> tuple[float, str]:
    """How many shots match ``zero_shot``, and ``=``; or ``<`` the first, or ``>`` the last.

    ``tried`` are (shots, accuracy), ascending in shots; between two of them accuracy is a straight
    line over the logarithm of shots (Figure 7). The first place where it is reached counts.
    """
    if tried[0][1] >= zero_shot:
        return float(tried[0][0]), "=" if tried[0][1] == zero_shot else "<"
    for (few, low), (many, high) in itertools.pairwise(tried):
        if low < zero_shot <= high:
            share = (zero_shot - low) / (high - low)
            there = math.log(few) + share * (math.log(many) - math.log(few))
            return round(math.exp(there), 2), "="
    return round(float(tried[-1][0]), 2), ">"


def _enough(learn: Classes, judge: Classes) -> tuple[Classes, tuple[int, ...]]:
    """The classes that take part, and the numbers of shots that all of them have pictures for."""
    names, counts = np.unique(learn, return_counts=True)
    counts = np.where(np.isin(names, judge), counts, 0)
    least = max(2, math.ceil((counts > 0).sum() / 2))
    possible = [count for count in SHOTS if (counts >= count).sum() >= least]
    if not possible:
        return names[:0], ()
    return names[counts >= possible[-1]], tuple(possible)


def _draw(classes: Classes, count: int, seed: int) -> Classes:
    chance = np.random.default_rng(seed)
    return np.concatenate(
        [
            chance.choice(np.flatnonzero(classes == one), count, replace=False)
            for one in np.unique(classes)
        ]
    )


def _tuned(rows: Matrix, classes: Classes, drawn: Classes, left: Classes) -> float:
    if not len(left):
        return 1.0

    def score(step: int) -> float:
        model = fit(rows[drawn], classes[drawn], float(STEPS[step]))
        return share_right(model, rows[left], classes[left])

    return float(STEPS[sweep(score)])
