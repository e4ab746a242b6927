"""Evaluation: figures as counted by hand in float64, and a command that says what is wrong."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from clipsearch.vectors import unit_rows
from training.evaluating.bootstrap import median_interval, ratio_interval
from training.evaluation import rank_both

Call = Callable[..., subprocess.CompletedProcess[str]]


def some_rows(chance: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """Unit rows, some of them twice, so that there are true ties."""
    rows = unit_rows(chance.standard_normal((count, dim)))
    return rows[chance.integers(0, count, count)]


@given(
    seed=st.integers(0, 10_000),
    pictures=st.integers(2, 40),
    block=st.integers(1, 50),
    close=st.sampled_from([1.0, 1e-3, 1e-7]),
)
@hypothesis_settings(max_examples=60)
def test_ranks_in_blocks_are_those_of_the_whole_float64_matrix(
    seed: int, pictures: int, block: int, close: float
) -> None:
    chance = np.random.default_rng(seed)
    centre = chance.standard_normal(8)
    images = unit_rows(centre + close * some_rows(chance, pictures, 8))  # nearly all the same
    owner = chance.integers(0, pictures, 3 * pictures)
    texts = unit_rows(centre + close * some_rows(chance, len(owner), 8))

    text_ranks, image_ranks = rank_both(images, texts, owner.tolist(), block=block)

    # The oracle: every pair by itself in float64, so that equal vectors tie exactly.
    scores = (texts[:, None, :].astype(np.float64) * images[None]).sum(axis=2)
    own = scores[np.arange(len(owner)), owner]
    assert text_ranks.tolist() == (scores >= own[:, None]).sum(axis=1).tolist()
    expected = []
    for image in np.unique(owner):
        mine = owner == image
        expected.append(1 + (scores[~mine, image] >= scores[mine, image].max()).sum())
    assert image_ranks.tolist() == expected


def test_pictures_without_captions_are_in_the_way_but_not_asked() -> None:
    images = np.eye(3, dtype=np.float32)
    text_ranks, image_ranks = rank_both(images, images[[1]], [0])
    assert text_ranks.tolist() == [3]  # both others score as high: ties count against it
    assert image_ranks.tolist() == [1]


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    chance = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        right = chance.random(150) < 0.3
        low, high = ratio_interval(right, np.ones(150), resamples=200)
        inside += low <= 30 <= high
    assert 0.90 <= inside / 200 <= 0.99


def test_the_medians_interval_is_that_of_repeated_medians() -> None:
    ranks = np.array([5, 1, 9, 2, 2, 7], dtype=np.int64)
    owner = np.array([0, 0, 1, 2, 2, 2], dtype=np.int64)
    found = median_interval(ranks, owner, resamples=300)
    chance = np.random.default_rng(0)
    medians = []
    for _ in range(300):
        drawn = chance.integers(3, size=3)
        medians.append(np.median(np.concatenate([ranks[owner == one] for one in drawn])))
    assert found == pytest.approx(np.percentile(medians, [2.5, 97.5]), abs=0.01)


def test_evaluate_measures_captions(
    call_cli: Call, tiny_model_dir: Path, real_photos: Path
) -> None:
    done = call_cli(
        *("evaluate", "--model", f"local-dir:{tiny_model_dir}", "--json"),
        *("--data", real_photos / "captions.csv", "--parts", "retrieval"),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["retrieval"]["found"]["pictures"] == 25
    assert found["zero_shot"] is None
    assert found["timing"] is None
