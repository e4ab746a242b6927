"""The recipe of the embedded model: its numbers are checked, its views and losses what they say."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from clipsearch.encoders.registry import EMBEDDED_FOLDER
from clipsearch.errors import TrainingError
from training.embedded.config import DEFAULT, read_config

pytest.importorskip("pyarrow", reason="the recipe reads parquet files")
from training.embedded import heads, student
from training.embedded.corpus import CaptionedPhoto
from training.embedded.image_features import (
    planned_views,
    random_view,
    rows_of_photos,
    shipped_view,
)

SOURCES = ("flickr8k", "corel5k", "flickr8k")


def test_the_shipped_recipe_is_that_of_the_shipped_model() -> None:
    file = EMBEDDED_FOLDER / "open_clip_config.json"
    shipped = json.loads(file.read_text(encoding="utf-8"))
    images = read_config().images
    assert shipped["model_cfg"] == {**student.model_config(images), "custom_text": True}
    assert shipped["preprocess_cfg"] == student.preprocess_config(images)


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    wrong = tmp_path / "recipe.toml"
    text = DEFAULT.read_text(encoding="utf-8")
    wrong.write_text(text.replace("backbone", "back_bone"), encoding="utf-8")
    with pytest.raises(TrainingError, match="back_bone, backbone"):
        read_config(wrong)


def test_photos_with_sentences_have_more_views_and_are_drawn_more_often() -> None:
    images = read_config().images
    photos = [CaptionedPhoto(str(n), b"", ("x",), source) for n, source in enumerate(SOURCES)]
    rows = planned_views(photos, images)
    assert rows[:3].tolist() == [[0, 0], [1, 0], [2, 0]], "all first views come first"
    views = rows_of_photos(rows)
    more, fewer = images.views_of_sentences, images.views_of_labels
    assert [len(of) for of in views] == [more, fewer, more]
    assert all({int(rows[row, 0]) for row in of} == {number} for number, of in enumerate(views))
    weights = heads.pair_weights(list(SOURCES), 6.0)
    assert weights == pytest.approx(np.array([6, 1, 6]) / 13)


def test_views_are_squares_and_random_ones_repeat_with_their_seed() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    assert np.asarray(shipped_view(picture, 32)).shape == (32, 32, 3)
    first, again, other = (
        np.asarray(random_view(picture, 32, random.Random(seed))) for seed in (1, 1, 2)
    )
    assert first.shape == (32, 32, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_imitation_falls_as_vectors_come_nearer_and_equal_texts_are_not_kept_apart() -> None:
    torch.manual_seed(0)
    wanted = F.normalize(torch.randn(6, 8), dim=1)
    wanted[5] = wanted[4]
    noise = torch.randn(6, 8)
    losses = [float(student.imitation_loss(wanted + far * noise, wanted)) for far in (0, 0.3, 1)]
    assert losses == sorted(losses)
    logits = 20 * wanted @ wanted.T
    logits[4, 5] = logits[5, 4] = float("-inf")
    apart = (torch.logsumexp(logits, 1) - logits.diagonal()).mean()
    assert losses[0] == pytest.approx(0.2 * float(apart), abs=1e-5)
