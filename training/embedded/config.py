"""The recipe's numbers, read from ``recipe.toml``."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from clipsearch.errors import TrainingError

DEFAULT = Path(__file__).with_name("recipe.toml")


@dataclass(frozen=True)
class ImagesConfig:
    """The backbone, its input side in pixels, and how photos are cut and how often drawn.

    A random cut has at least ``least_area`` of the photo and an aspect of 1 / ``aspect_jitter`` to
    ``aspect_jitter`` times the photo's own.
    """

    backbone: str
    side: int
    views_of_sentences: int
    views_of_labels: int
    sentences_weight: float
    least_area: float
    aspect_jitter: float


@dataclass(frozen=True)
class TextConfig:
    """The size of the text tower; each of its heads has 64 dimensions."""

    width: int
    layers: int


@dataclass(frozen=True)
class FitConfig:
    """Fitting the head, with a map of the teacher's space or with the end of the backbone.

    ``captions`` of each photo are drawn in each step, and their mean is its text. ``average`` is
    the decay of the weights' running means; ``map_pull`` the weight of the squared
    distance of the map from the identity; ``tail_rate`` that of the backbone's end, if not 0.
    """

    steps: int
    batch: int
    captions: int
    rate: float
    knowledge: float
    dropout: float
    dropout_of_features: float
    average: float
    map_pull: float
    tail_rate: float


@dataclass(frozen=True)
class DistilConfig:
    """The text tower imitating its teacher."""

    steps: int
    batch: int
    rate: float


@dataclass(frozen=True)
class Config:
    """All of the recipe."""

    images: ImagesConfig
    text: TextConfig
    align: FitConfig
    distil: DistilConfig
    refit: FitConfig


def read_config(path: Path = DEFAULT) -> Config:
    """Reads a recipe. TrainingError names a key that is missing or unknown."""
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    return Config(
        images=_section(path, data, "images", ImagesConfig),
        text=_section(path, data, "text", TextConfig),
        align=_section(path, data, "align", FitConfig),
        distil=_section(path, data, "distil", DistilConfig),
        refit=_section(path, data, "refit", FitConfig),
    )


def _section(path: Path, data: dict[str, Any], name: str, kind: Any) -> Any:
    given = data.get(name, {})
    wrong = sorted({field.name for field in fields(kind)} ^ set(given))
    if wrong:
        raise TrainingError(
            reason=f"{path}: [{name}] must have the keys of the shipped recipe; "
            f"missing or unknown: {', '.join(wrong)}"
        )
    return kind(**given)
