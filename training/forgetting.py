"""Learning without forgetting: how much of the old model a new one has kept, and mixing the two.

WiSE-FT (Wortsman et al. 2022, section 3): theta = (1 - alpha) old + alpha new, weight by weight.
Between the two ends there are often models that keep nearly all of the old one's knowledge and
have nearly all of the new one's gain. ``alpha`` is chosen by what is measured on both sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from clipsearch.encoders.openclip import OpenClipModel
from clipsearch.vectors import Matrix, unit_rows
from training.data import CaptionedPicture
from training.evaluation import Retrieval, evaluate_retrieval, rank_both, summarise
from training.examples import Answers
from training.general_texts import general_texts
from training.towers import encode_pictures, encode_texts
from training.views import Views

Weights = dict[str, torch.Tensor]
_K = 10
# How sure the old model's answers are made, so that a fall weighs as it would on real captions: its
# first ten of 1,000 photos hold the right one of about six in ten captions.
_AS_SURE = 60.0
_IMAGINED = 600  # stand-ins for pictures
_NEARNESS = 0.2  # cosine of a stand-in and its text


@dataclass(frozen=True)
class Probe:
    """General pictures and texts, which nobody trains on, and where they are from.

    ``owner`` says which picture a text belongs to. Where it is None there are no captions, and the
    old model's own answers are what is to be kept; where there are no pictures either, vectors
    around other general texts stand for them.
    """

    source: str  # file | library | texts
    pictures: tuple[CaptionedPicture, ...]
    texts: tuple[str, ...]
    owner: tuple[int, ...] | None
    trust: str  # for people: how far to believe it


class Kept:
    """How much of what the old model knew another state of it still finds, as R@10 in percent.

    With captions this is text-to-image R@10. Without, each text's right picture is taken to be
    distributed as the old model's own softmax over all pictures says, and the figure is the
    expected R@10: the share of that distribution on the ten pictures that rank first now. No change
    of the model can raise it.
    """

    def __init__(self, loaded: OpenClipModel, probe: Probe, *, images_move: bool) -> None:
        self._loaded, self._probe, self._move = loaded, probe, images_move
        texts = encode_texts(loaded, probe.texts)
        self._views = Views(probe.pictures, loaded.preprocessing)
        if probe.pictures:
            self._images = encode_pictures(loaded, self._views)
        else:
            self._images = _imagined(encode_texts(loaded, general_texts(_IMAGINED, "probe", 1)))
        self._shares = _expected(texts @ self._images.T) if probe.owner is None else None
        self.before = self._recall(texts)

    def now(self) -> float:
        """The figure for the weights that the model has now."""
        if self._move and self._probe.pictures:
            self._images = encode_pictures(self._loaded, self._views)
        return self._recall(encode_texts(self._loaded, self._probe.texts))

    def turn_to(self, loaded: OpenClipModel) -> None:
        """Goes on with another model of the same origin, whose pictures may have another size."""
        if loaded is not self._loaded:
            self._loaded = loaded
            self._views = Views(self._probe.pictures, loaded.preprocessing)

    def _recall(self, texts: Matrix) -> float:
        if self._shares is None:
            owner = self._probe.owner or ()
            found = evaluate_retrieval(self._images, texts, owner, self._probe.texts)
            return found.text_to_image[_K]
        scores = texts @ self._images.T
        first = np.argsort(-scores, axis=1, kind="stable")[:, :_K]
        held = np.take_along_axis(self._shares, first, axis=1).sum(axis=1)
        return round(100 * float(held.mean()), 2)


class Exam:
    """Captions and their pictures, asked again and again of a model whose weights change."""

    def __init__(
        self, loaded: OpenClipModel, pictures: Sequence[CaptionedPicture], *, images_move: bool
    ) -> None:
        self._loaded, self._move, self._pictures = loaded, images_move, pictures
        self.views = Views(pictures, loaded.preprocessing)
        self.texts = [caption for picture in pictures for caption in picture.captions]
        self.owner = [place for place, picture in enumerate(pictures) for _ in picture.captions]
        self._images: Matrix | None = None

    def turn_to(self, loaded: OpenClipModel) -> None:
        """Goes on with another model of the same origin, whose pictures may have another size."""
        if loaded is not self._loaded:
            self._loaded = loaded
            self.views = Views(self._pictures, loaded.preprocessing)

    def sit(self) -> tuple[Retrieval, NDArray[np.int64]]:
        """Retrieval among these pictures alone with the weights that the model has now.

        Also the rank of its own picture for each caption, (captions,). Any picture with the same
        caption is as right as its own.
        """
        now = self.answers()
        ranks, back = rank_both(now.images, now.texts, self.owner, self.texts)
        return summarise(ranks, back, pictures=len(now.images)), ranks

    def answers(self) -> Answers:
        """The vectors of the pictures and captions with the weights that the model has now."""
        if self._images is None or self._move:
            self._images = encode_pictures(self._loaded, self.views)
        return Answers(self._images, encode_texts(self._loaded, self.texts))


@dataclass(frozen=True)
class Mixture:
    """One alpha, and what was measured at it: on the user's held-out pictures and on the probe."""

    alpha: float
    own: Retrieval
    kept: float


def copy_weights(model: torch.nn.Module) -> Weights:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def mix(model: torch.nn.Module, old: Weights, new: Weights, alpha: float) -> None:
    """Gives ``model`` (1 - alpha) old + alpha new; the ends, 0 and 1, to the bit."""
    if alpha in (0, 1):
        model.load_state_dict(new if alpha else old)
        return
    model.load_state_dict(
        {
            name: torch.lerp(value, new[name], alpha) if value.is_floating_point() else new[name]
            for name, value in old.items()
        }
    )


def choose(
    mixtures: Sequence[Mixture],
    ranks: Sequence[NDArray[np.int64]],
    before: float,
    max_forgetting: float,
) -> Mixture:
    """The largest gain among those whose probe falls by at most ``max_forgetting`` points.

    ``ranks`` are, for each mixture, those of the held-out captions' own pictures, (captions,). Gain
    is the mean of 1 / rank, which tells more apart than recall where few pictures are held out. Of
    the mixtures that are within one standard error of the best, over the captions pair by pair, the
    one with the largest alpha: the held-out pictures cannot tell it from the best, and it has most
    of what was learned of the others. Alpha 0 must be among ``mixtures``; it is the answer where
    nothing else is safe, or all that is finds less.
    """
    safe = [
        (mixture, 1 / own)
        for mixture, own in zip(mixtures, ranks, strict=True)
        if mixture.alpha == 0 or before - mixture.kept <= max_forgetting
    ]
    best = max((found for _, found in safe), key=lambda found: float(found.mean()))
    return max((m for m, found in safe if _is_as_good(found, best)), key=lambda m: m.alpha)


def _is_as_good(found: NDArray[np.float64], best: NDArray[np.float64]) -> bool:
    less = best - found
    error = float(less.std(ddof=1)) / math.sqrt(len(less)) if len(less) > 1 else 0.0
    return float(less.mean()) <= error


def _imagined(texts: Matrix) -> Matrix:
    """Stand-ins for pictures: (n, dim) unit rows, as near their texts as real ones.

    Exactly the texts' vectors would be far too easy to tell apart.
    """
    noise = np.random.default_rng(0).standard_normal(texts.shape, dtype=np.float32)
    rows = _NEARNESS * texts + (1 - _NEARNESS**2) ** 0.5 * unit_rows(noise)
    return unit_rows(rows)


def _expected(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Softmax of each row, at the temperature where its first ten hold ``_AS_SURE`` percent."""
    rows = np.sort(scores.astype(np.float64), axis=1)[:, ::-1]
    rows -= rows[:, :1]
    low, high = 0.0, 2000.0
    for _ in range(40):
        scale = (low + high) / 2
        shares = np.exp(scale * rows)
        held = 100 * float((shares[:, :_K].sum(axis=1) / shares.sum(axis=1)).mean())
        low, high = (scale, high) if held < _AS_SURE else (low, scale)
    shares = np.exp(low * (scores - scores.max(axis=1, keepdims=True)).astype(np.float64))
    found: NDArray[np.float64] = shares / shares.sum(axis=1, keepdims=True)
    return found
