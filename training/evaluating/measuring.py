"""One model after another on the same pictures: encoded once, then asked for by each part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from clipsearch.config import Settings
from clipsearch.encoders import Encoder, counted_unread, load_encoder
from clipsearch.errors import DatasetError
from clipsearch.vectors import Matrix
from training.evaluating import USUAL
from training.evaluating.dataset import Dataset, Picture, said_of
from training.evaluating.encoding import encode_pictures, encode_texts
from training.evaluating.probes import Classes, FewShot, LinearProbe, few_shot, linear_probe, split
from training.evaluating.retrieval import JudgedRetrieval, judge_retrieval
from training.evaluating.robustness import Robustness, judge_robustness
from training.evaluating.timing import Timing, time_model
from training.evaluating.zero_shot import (
    ONE_TEMPLATE,
    ZeroShot,
    class_ranks,
    class_vectors,
    ensembled,
    imagenet_templates,
    judge_zero_shot,
    prompts,
    truth_of,
)
from training.evaluation import evaluate_retrieval

_LEAST = 20  # pictures with captions or with labels, where there is the other as well
_JUDGED_SHARE = 0.5  # of the labelled pictures, where no others are given to learn probes from
_CORRUPTED = 200  # pictures, each corrupted in 33 ways
_K = 10
Show = Callable[[str, int, int], None]  # what is done, how many are, of how many


@dataclass(frozen=True)
class Plan:
    """What is to be measured. ``templates`` are those of the ensemble; probes learn from ``train``,
    or from a half of the pictures."""

    parts: tuple[str, ...] = USUAL
    templates: tuple[str, ...] = field(default_factory=imagenet_templates)
    train: Dataset | None = None
    seed: int = 0


@dataclass(frozen=True)
class ModelReport:
    """What was measured of a model; None where the data or the plan had no place for it.

    ``quality`` is what models are compared by: the mean reciprocal rank of the captions of each
    picture, or the ensemble's top-1 where more pictures have labels than captions; in percent.
    """

    model: str
    space: str
    weights_sha256: str
    dim: int
    quality: float
    retrieval: JudgedRetrieval | None
    zero_shot: ZeroShot | None
    linear_probe: LinearProbe | None
    few_shot: FewShot | None
    robustness: Robustness | None
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
            encoder, dataset.pictures, progress=partial(show, "pictures")
        )
        if failed and found:
            raise DatasetError(
                name=next(iter(failed.values())),
                reason="it was read for the model before",
                advice="Leave the pictures in their place while they are measured on.",
            )
        images = np.delete(images, list(failed), axis=0)
        dataset = dataset.without(failed).telling() if not found else dataset
        measuring = _Measuring(encoder, images, dataset, plan, show)
        for note in measuring.unread():
            tell(note)
        found.append(measuring.all(settings))
    return dataset, found


def words_of(dataset: Dataset) -> tuple[int, int]:
    """How many pictures have captions, and labels; 0 for either where they are too few."""
    captioned = len(dataset.captioned())
    labelled = len(dataset.labelled()) if len(dataset.classes()) >= 2 else 0
    return (
        captioned if captioned >= min(_LEAST, max(2, labelled)) else 0,
        labelled if labelled >= min(_LEAST, max(2, captioned)) else 0,
    )


class _Measuring:
    """One model on one dataset. ``images`` (n, dim) are of its pictures."""

    def __init__(
        self, encoder: Encoder, images: Matrix, dataset: Dataset, plan: Plan, show: Show
    ) -> None:
        self._encoder, self._images, self._dataset = encoder, images, dataset
        self._plan, self._show = plan, show
        self._classes = dataset.classes()
        captioned, labelled = words_of(dataset)
        self._has_captions, self._has_labels = bool(captioned), bool(labelled)
        self._by_labels = labelled > captioned

    def unread(self) -> list[str]:
        """Notes on words that the model does not read to their end."""
        captions = said_of(self._dataset.pictures)[0] if self._has_captions else []
        templates = (*self._plan.templates, ONE_TEMPLATE)
        sentences = prompts(self._classes, templates) if self._has_labels else []
        told = (
            counted_unread(self._encoder, captions, "captions"),
            counted_unread(self._encoder, sentences, "sentences of classes"),
        )
        return [note for note in told if note is not None]

    def all(self, settings: Settings) -> Measured:
        wanted = self._plan.parts
        of_each = self._right_of_each() if self._by_labels else self._retrieval[1]
        probe, shots = self._probes()
        report = ModelReport(
            model=self._encoder.address,
            space=self._encoder.space.id,
            weights_sha256=self._encoder.space.weights_sha256,
            dim=self._encoder.space.dim,
            quality=round(100 * float(of_each.mean()), 2),
            retrieval=self._retrieval[0] if "retrieval" in wanted and self._has_captions else None,
            zero_shot=self._zero_shot() if "zero-shot" in wanted and self._has_labels else None,
            linear_probe=probe,
            few_shot=shots,
            robustness=self._robustness() if "robustness" in wanted else None,
            timing=time_model(self._encoder.address, settings) if "timing" in wanted else None,
        )
        return Measured(report, 100 * of_each)

    @cached_property
    def _texts(self) -> tuple[Matrix, list[int]]:
        """The captions' vectors, and the place of each one's picture."""
        texts, owner = said_of(self._dataset.pictures)
        return encode_texts(self._encoder, texts, progress=partial(self._show, "captions")), owner

    @cached_property
    def _retrieval(self) -> tuple[JudgedRetrieval, NDArray[np.float64]]:
        return judge_retrieval(self._images, *self._texts)

    # --- labels -----------------------------------------------------------------------------

    @cached_property
    def _said(self) -> tuple[NDArray[np.float32], Matrix]:
        """(t, c, dim) classes in the templates, and (c, dim) in the one."""
        templates = tuple(dict.fromkeys((*self._plan.templates, ONE_TEMPLATE)))
        vectors = class_vectors(
            self._encoder, self._classes, templates, progress=partial(self._show, "classes")
        )
        return vectors[: len(self._plan.templates)], vectors[templates.index(ONE_TEMPLATE)]

    @cached_property
    def _ensemble(self) -> Matrix:
        return ensembled(self._said[0])

    def _truth(self, places: Sequence[int]) -> NDArray[np.bool_]:
        return truth_of([self._dataset.pictures[place].labels for place in places], self._classes)

    def _right_of_each(self) -> NDArray[np.float64]:
        places = self._dataset.labelled()
        ranks = class_ranks(self._images[places], self._ensemble, self._truth(places))
        right: NDArray[np.float64] = (ranks == 1).astype(np.float64)
        return right

    def _zero_shot(self) -> ZeroShot:
        vectors, one = self._said
        places = self._dataset.labelled()
        truth = self._truth(places)
        return judge_zero_shot(self._images[places], vectors, self._plan.templates, truth, one)

    # --- probes -----------------------------------------------------------------------------

    def _probes(self) -> tuple[LinearProbe | None, FewShot | None]:
        wanted = [part for part in ("probe", "few-shot") if part in self._plan.parts]
        if not wanted or not self._has_labels:
            return None, None
        learn, judge = self._learn_and_judge()
        if len(np.unique(learn[1])) < 2 or not len(judge[1]):
            return None, None
        self._show("probes", 0, len(wanted))
        probe = linear_probe(learn, judge, self._plan.seed) if "probe" in wanted else None
        shots = (
            few_shot(learn, judge, self._zero_shot_among, seed=self._plan.seed)
            if "few-shot" in wanted
            else None
        )
        self._show("probes", len(wanted), len(wanted))
        return probe, shots

    def _learn_and_judge(self) -> tuple[tuple[Matrix, Classes], tuple[Matrix, Classes]]:
        places, classes = self._one_label(self._dataset.pictures)
        rows = self._images[places]
        if self._plan.train is None:
            learn, judge = split(classes, _JUDGED_SHARE, self._plan.seed)
            return (rows[learn], classes[learn]), (rows[judge], classes[judge])
        others = self._plan.train.pictures
        chosen, learnt = self._one_label(others)
        vectors, failed = encode_pictures(
            self._encoder,
            [others[place] for place in chosen],
            progress=partial(self._show, "pictures to learn from"),
        )
        vectors, learnt = np.delete(vectors, list(failed), 0), np.delete(learnt, list(failed))
        there = np.isin(classes, learnt)
        return (vectors, learnt), (rows[there], classes[there])

    def _one_label(self, pictures: Sequence[Picture]) -> tuple[list[int], Classes]:
        """The places of pictures with exactly one label, of the dataset's, and which it is."""
        number = {name: place for place, name in enumerate(self._classes)}
        found = [
            (place, number[one.labels[0]])
            for place, one in enumerate(pictures)
            if len(one.labels) == 1 and one.labels[0] in number
        ]
        return [place for place, _ in found], np.array([one for _, one in found], dtype=np.int64)

    def _zero_shot_among(self, rows: Matrix, classes: Classes, among: Classes) -> float:
        """Top-1 in percent where only some of the classes can be answered."""
        truth = classes[:, None] == among[None]
        return 100 * float((class_ranks(rows, self._ensemble[among], truth) == 1).mean())

    # --- robustness -------------------------------------------------------------------------

    def _robustness(self) -> Robustness:
        """Of the ensemble's top-1, or of R@10 where more pictures have captions than labels."""
        with_words = self._dataset.labelled() if self._by_labels else self._dataset.captioned()
        chance = np.random.default_rng(self._plan.seed)
        some = sorted(chance.permutation(with_words)[:_CORRUPTED].tolist())
        pictures = [self._dataset.pictures[place] for place in some]
        truth = self._truth(some) if self._by_labels else None
        at = {place: number for number, place in enumerate(some)}

        def figure(rows: Matrix) -> float:
            if truth is not None:
                return 100 * float((class_ranks(rows, self._ensemble, truth) == 1).mean())
            vectors, owner = self._texts
            own = [text for text, place in enumerate(owner) if place in at]
            owners = [at[owner[text]] for text in own]
            return evaluate_retrieval(rows, vectors[own], owners).text_to_image[_K]

        return judge_robustness(
            self._encoder,
            pictures,
            figure,
            "zero-shot top-1" if self._by_labels else f"R@{_K}, text to picture",
            seed=self._plan.seed,
            progress=partial(self._show, "corruptions"),
        )
