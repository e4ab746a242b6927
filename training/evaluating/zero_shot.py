"""Zero-shot classification: the class whose sentence is nearest (Radford et al. 2021, 3.1).

One template, the mean of 80 (section 3.1.4), and how far the choice of words decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipsearch.encoders import Encoder
from clipsearch.tagging.templates import NAME, built_in_templates
from clipsearch.vectors import Matrix, unit_rows
from training.evaluating.bootstrap import Interval, mean_interval, ratio_interval
from training.evaluating.dataset import spoken
from training.evaluating.encoding import Progress, encode_texts

ONE_TEMPLATE = "a photo of a {}."  # the paper's default for one
_BLOCK = 4096  # pictures whose scores are held at once
_TOP = 5
Truth = NDArray[np.bool_]  # (n, c): which classes are right for a picture; at least one
Ranks = NDArray[np.int64]


@dataclass(frozen=True)
class Accuracy:
    """In percent. ``top5`` is None with five classes or fewer, where it says nothing."""

    top1: float
    top1_interval: Interval
    top5: float | None
    mean_per_class: float


@dataclass(frozen=True)
class Wording:
    """Top-1 over the templates, each by itself: what a choice of words can cost."""

    templates: int
    lowest: float
    lowest_template: str
    highest: float
    highest_template: str
    mean: float
    standard_deviation: float
    each: tuple[float, ...]
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class ZeroShot:
    """``gain`` is the ensemble's top-1 less the one template's, in points, over the same pictures.

    With several labels a picture counts as right if any of them comes first.
    """

    pictures: int
    classes: int
    one_template: Accuracy
    ensemble: Accuracy
    gain: float
    gain_interval: Interval
    wording: Wording


def imagenet_templates() -> tuple[str, ...]:
    """The 80 templates of CLIP's ImageNet ensemble, as open_clip has them, too."""
    return built_in_templates()["imagenet"]


def prompts(names: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Each of ``names`` in each of ``templates``, t x c sentences."""
    said = [spoken(name) for name in names]
    return [template.replace(NAME, name) for template in templates for name in said]


def class_vectors(
    encoder: Encoder,
    names: Sequence[str],
    templates: Sequence[str],
    progress: Progress = lambda _done, _total: None,
) -> NDArray[np.float32]:
    """(t, c, dim) unit rows: each of ``names`` in each of ``templates``."""
    rows = encode_texts(encoder, prompts(names, templates), progress=progress)
    return rows.reshape(len(templates), len(names), encoder.space.dim)


def ensembled(vectors: NDArray[np.float32]) -> Matrix:
    """(c, dim) unit rows: the mean of the templates' unit vectors (section 3.1.4), (t, c, dim)."""
    return unit_rows(vectors.mean(axis=0))


def truth_of(labels: Sequence[Sequence[str]], names: Sequence[str]) -> Truth:
    """(n, c): True where a picture has the label."""
    column = {name: place for place, name in enumerate(names)}
    truth = np.zeros((len(labels), len(names)), dtype=np.bool_)
    for row, of_row in enumerate(labels):
        truth[row, [column[label] for label in of_row if label in column]] = True
    return truth


def class_ranks(images: Matrix, classes: Matrix, truth: Truth) -> Ranks:
    """(n,): where a right class comes first among all, from 1 on; ties count against it.

    Other right classes are not in the way.
    """
    ranks = np.empty(len(images), np.int64)
    for start in range(0, len(images), _BLOCK):
        rows = slice(start, start + _BLOCK)
        scores = images[rows] @ classes.T
        best = np.where(truth[rows], scores, -np.inf).max(axis=1)
        ranks[rows] = ((scores >= best[:, None]) & ~truth[rows]).sum(axis=1) + 1
    return ranks


def accuracy_of(ranks: Ranks, truth: Truth) -> Accuracy:
    """The figures of ``class_ranks``. Per class: the mean over classes of their pictures' top-1."""
    right = ranks == 1
    each = [right[truth[:, column]].mean() for column in np.flatnonzero(truth.any(axis=0))]
    return Accuracy(
        top1=_percent(right.mean()),
        top1_interval=ratio_interval(right, np.ones(len(right))),
        top5=_percent((ranks <= _TOP).mean()) if truth.shape[1] > _TOP else None,
        mean_per_class=_percent(float(np.mean(each))),
    )


def judge_zero_shot(
    images: Matrix,
    vectors: NDArray[np.float32],
    templates: Sequence[str],
    truth: Truth,
    one: Matrix,
) -> ZeroShot:
    """All zero-shot figures: ``images`` (n, dim), ``vectors`` (t, c, dim) of the ``templates``.

    ``one`` (c, dim) is of ``ONE_TEMPLATE``.
    """
    by_one = class_ranks(images, one, truth)
    by_all = class_ranks(images, ensembled(vectors), truth)
    each = [_percent((class_ranks(images, rows, truth) == 1).mean()) for rows in vectors]
    gains = 100 * ((by_all == 1).astype(np.float64) - (by_one == 1))
    low, high = int(np.argmin(each)), int(np.argmax(each))
    return ZeroShot(
        pictures=len(images),
        classes=truth.shape[1],
        one_template=accuracy_of(by_one, truth),
        ensemble=accuracy_of(by_all, truth),
        gain=round(float(gains.mean()), 2),
        gain_interval=mean_interval(gains),
        wording=Wording(
            templates=len(each),
            lowest=each[low],
            lowest_template=templates[low],
            highest=each[high],
            highest_template=templates[high],
            mean=round(float(np.mean(each)), 2),
            standard_deviation=round(float(np.std(each)), 2),
            each=tuple(each),
            sentences=tuple(templates),
        ),
    )


def _percent(share: float) -> float:
    return round(100 * float(share), 2)
