"""One model after another on the same pictures: encoded once, then asked for by each part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from clipsearch.config import Settings
from clipsearch.encoders import Encoder, load_encoder
from clipsearch.errors import DatasetError
from clipsearch.vectors import Matrix
from training.evaluating import USUAL
from training.evaluating.dataset import Dataset, said_of
from training.evaluating.encoding import encode_pictures, encode_texts
from training.evaluating.retrieval import JudgedRetrieval, judge_retrieval
from training.evaluating.timing import Timing, time_model
from training.evaluating.zero_shot import (
    ONE_TEMPLATE,
    ZeroShot,
    class_ranks,
    class_vectors,
    ensembled,
    imagenet_templates,
    judge_zero_shot,
    truth_of,
)

_LEAST = 20  # pictures with captions or with labels, where there is the other as well
Show = Callable[[str, int, int], None]  # what is done, how many are, of how many


@dataclass(frozen=True)
class Plan:
    """What is to be measured; ``templates`` are those of the ensemble."""

    parts: tuple[str, ...] = USUAL
    templates: tuple[str, ...] = field(default_factory=imagenet_templates)
    seed: int = 0


@dataclass(frozen=True)
class ModelReport:
    """What was measured of a model; None where the data or the plan had no place for it.

    ``quality`` is what models are compared by: the mean reciprocal rank of the captions of each
    picture, or the ensemble's top-1 where more pictures have labels than captions; in percent.
    """

    model: str
    space: str
    dim: int
    quality: float
    retrieval: JudgedRetrieval | None
    zero_shot: ZeroShot | None
    timing: Timing | None


@dataclass(frozen=True)
class Measured:
    """A report, and (p,) the quality of each picture in percent, for paired comparisons."""

    report: ModelReport
    of_each: NDArray[np.float64]


def measure_models(
    addresses: Sequence[str],
    dataset: Dataset,
    plan: Plan,
    *,
    settings: Settings,
    tell: Callable[[str], None],
    show: Show,
) -> tuple[Dataset, list[Measured]]:
    """Measures each model on the same pictures: those of the dataset that can be read.

    Returns the dataset as it was measured on. DatasetError where too little of it can be read.
    """
    found: list[Measured] = []
    for number, address in enumerate(addresses):
        tell(f"Model {number + 1} of {len(addresses)}: {address}")
        encoder = load_encoder(address, settings=settings, notify=tell)
        images, failed = encode_pictures(
            encoder, dataset.pictures, progress=lambda *done: show("pictures", *done)
        )
        if failed and found:
            raise DatasetError(
                name=next(iter(failed.values())),
                reason="it was read for the model before",
                advice="Leave the pictures in their place while they are measured on.",
            )
        images = np.delete(images, list(failed), axis=0)
        dataset = dataset.without(failed).telling() if not found else dataset
        found.append(_measure(encoder, images, dataset, plan, settings, show))
    return dataset, found


def _measure(
    encoder: Encoder,
    images: Matrix,
    dataset: Dataset,
    plan: Plan,
    settings: Settings,
    show: Show,
) -> Measured:
    retrieval, zero_shot, timing = None, None, None
    of_each: NDArray[np.float64] | None = None
    captioned, labelled = words_of(dataset)
    if labelled and ("zero-shot" in plan.parts or labelled > captioned):
        zero_shot, right = _zero_shot(encoder, images, dataset, plan, show)
        of_each = 100 * right
    if captioned and ("retrieval" in plan.parts or captioned >= labelled):
        texts, owner = said_of(dataset.pictures)
        vectors = encode_texts(encoder, texts, progress=lambda *done: show("captions", *done))
        retrieval, reciprocal = judge_retrieval(images, vectors, owner)
        of_each = 100 * reciprocal if captioned >= labelled else of_each
    if "timing" in plan.parts:
        timing = time_model(encoder.address, settings)
    assert of_each is not None  # noqa: S101 - ``telling`` has refused data without either
    report = ModelReport(
        model=encoder.address,
        space=encoder.space.id,
        dim=encoder.space.dim,
        quality=round(float(of_each.mean()), 2),
        retrieval=retrieval if "retrieval" in plan.parts else None,
        zero_shot=zero_shot if "zero-shot" in plan.parts else None,
        timing=timing,
    )
    return Measured(report, of_each)


def _zero_shot(
    encoder: Encoder, images: Matrix, dataset: Dataset, plan: Plan, show: Show
) -> tuple[ZeroShot, NDArray[np.float64]]:
    """The figures, and (p,) 1 for each labelled picture that the ensemble gets right."""
    classes, places = dataset.classes(), dataset.labelled()
    templates = tuple(dict.fromkeys((*plan.templates, ONE_TEMPLATE)))
    vectors = class_vectors(
        encoder, classes, templates, progress=lambda *done: show("classes", *done)
    )
    one = vectors[templates.index(ONE_TEMPLATE)]
    vectors = vectors[: len(plan.templates)]
    truth = truth_of([dataset.pictures[place].labels for place in places], classes)
    judged = judge_zero_shot(images[places], vectors, plan.templates, truth, one)
    right = class_ranks(images[places], ensembled(vectors), truth) == 1
    return judged, right.astype(np.float64)


def words_of(dataset: Dataset) -> tuple[int, int]:
    """How many pictures have captions, and labels; 0 for either where they are too few."""
    captioned = len(dataset.captioned())
    labelled = len(dataset.labelled()) if len(dataset.classes()) >= 2 else 0
    return (
        captioned if captioned >= min(_LEAST, max(2, labelled)) else 0,
        labelled if labelled >= min(_LEAST, max(2, captioned)) else 0,
    )
