"""Photos, texts and what the frozen models say of them: everything the stages learn from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipsearch.errors import TrainingError
from training.embedded import backbone, heads
from training.embedded.class_knowledge import ClassKnowledge
from training.embedded.config import ImagesConfig
from training.embedded.corpus import (
    SENTENCE_SOURCES,
    CaptionedPhoto,
    read_photos,
    vocabulary_texts,
)
from training.embedded.image_features import (
    ViewFeatures,
    planned_views,
    rows_of_photos,
    whole_views,
)
from training.embedded.progress import kept_table
from training.embedded.student import token_strings
from training.embedded.teacher import WIDTH, Teacher
from training.evaluation import Retrieval, evaluate_retrieval

SPLITS = ("dev", "val")


@dataclass(frozen=True)
class HeldOut:
    """Photos that are never learned from: their maps, sentences, and the photo of each sentence."""

    maps: NDArray[np.float16]
    sentences: list[str]
    owner: list[int]

    def judge(self, joint: heads.Joint, said: Tensor, published: backbone.Tail) -> Retrieval:
        """How (sentences, 384) unit rows find their photos, seen by ``joint``.

        The ``published`` tail stands in for one that ``joint`` has not learned.
        """
        features = backbone.pool(joint.tail or published, self.maps)
        with torch.no_grad():
            images = joint.images(torch.from_numpy(features.astype(np.float32)))
        return evaluate_retrieval(images.numpy(), said.numpy(), self.owner)


class Material:
    """What is learned from, and what it is judged by; ``work`` keeps the tables made of it."""

    def __init__(self, data: Path, work: Path, images: ImagesConfig) -> None:
        self._data, self._work, self.images = data, work, images
        files = sorted((data / "train").glob("*.parquet"))
        missing = [str(file) for split in SPLITS if not (file := self._held_out(split)).exists()]
        if not files or missing:
            lacking = ", ".join(missing) or "train/*.parquet"
            raise TrainingError(reason=f"{data} does not have {lacking}")
        work.mkdir(parents=True, exist_ok=True)
        self.photos = list(read_photos(files))
        captions = sorted({text for photo in self.photos for text in photo.captions})
        self.texts = vocabulary_texts(captions)
        self.backbone, weight, bias = backbone.load_backbone(images.backbone)
        self.stem, self.tail = backbone.split(self.backbone)
        self.knowledge = ClassKnowledge(weight, bias)

    @cached_property
    def teacher(self) -> Tensor:
        """(texts, 384) unit rows of the sentence teacher."""
        return self.embed("teacher", self.texts)

    @cached_property
    def classes(self) -> Tensor:
        """(phrases, 384) the same of what the classifier's classes are called."""
        return self.embed("classes", self.knowledge.texts)

    @cached_property
    def tokens(self) -> Tensor:
        """(49408, 384) the same of what each token of the text tower says."""
        return self.embed("tokens", token_strings())

    @cached_property
    def maps(self) -> NDArray[np.float16]:
        """(views, channels, height, width) of the frozen part of the backbone, on disk."""
        rows = planned_views(self.photos, self.images)
        return self._maps(self._of_views("train"), self.photos, rows)

    @cached_property
    def pooled(self) -> NDArray[np.float16]:
        """(views, 1280) of the whole backbone as it was published."""
        tail, maps = self.tail, self.maps
        file = self._file(self._of_views("pooled"))
        shape = (len(maps), backbone.WIDTH)
        return kept_table(file, shape, lambda part: backbone.pool(tail, maps[part]))

    @cached_property
    def views(self) -> list[NDArray[np.int64]]:
        """Per photo, its rows in ``maps``."""
        return rows_of_photos(planned_views(self.photos, self.images))

    @cached_property
    def captions(self) -> list[list[int]]:
        """Per photo, the rows of its captions in ``texts``."""
        number = {text: row for row, text in enumerate(self.texts)}
        return [[number[text] for text in photo.captions] for photo in self.photos]

    def pairs(self, leave_out: NDArray[np.bool_] | None = None) -> heads.Pairs:
        """Photos with captions, without those that ``leave_out`` (photos,) marks."""
        sources = [photo.source for photo in self.photos]
        weights = heads.pair_weights(sources, self.images.sentences_weight)
        if leave_out is not None:
            weights = np.where(leave_out, 0.0, weights)
        return heads.Pairs(self.views, self.captions, weights / weights.sum())

    def lessons(self, leave_out: NDArray[np.bool_] | None = None) -> heads.Lessons:
        """All that a fit learns from, without the photos that ``leave_out`` marks."""
        return heads.Lessons(
            self.pairs(leave_out), self.maps, self.pooled, self.teacher, self.knowledge
        )

    def held_out(self, split: str) -> HeldOut:
        """``dev``, of which the photos with sentences, or ``val``."""
        photos = list(read_photos([self._held_out(split)]))
        photos = [photo for photo in photos if photo.source in SENTENCE_SOURCES or split == "val"]
        sentences = [text for photo in photos for text in photo.captions]
        owner = [place for place, photo in enumerate(photos) for _ in photo.captions]
        return HeldOut(self._maps(split, photos, whole_views(photos)), sentences, owner)

    def sentences_of(self, split: str) -> Tensor:
        """(sentences, 384) unit rows of the sentence teacher for a split's sentences."""
        return self.embed(f"{split}-sentences", self.held_out(split).sentences)

    def _held_out(self, split: str) -> Path:
        return self._data / split / f"{split}.parquet"

    def _maps(
        self, name: str, photos: list[CaptionedPhoto], rows: NDArray[np.int32]
    ) -> NDArray[np.float16]:
        make = ViewFeatures(photos, self.stem, self.images)
        file = self._file(name)
        return kept_table(file, (len(rows), *make.shape), lambda part: make(rows[part]))

    def _file(self, name: str) -> Path:
        return self._work / f"{self.images.backbone}-{self.images.side}" / f"{name}.npy"

    def _of_views(self, name: str) -> str:
        images = self.images
        views = f"{images.views_of_sentences}-{images.views_of_labels}"
        return f"{name}-{views}-{images.least_area:g}-{images.aspect_jitter:g}"

    def embed(self, name: str, texts: list[str]) -> Tensor:
        """(texts, 384) unit rows of the sentence teacher, kept under a name."""
        file = self._work / f"{name}.npy"
        make = Teacher()
        table = kept_table(file, (len(texts), WIDTH), lambda part: make(texts[part]))
        return torch.from_numpy(table.astype(np.float32))
