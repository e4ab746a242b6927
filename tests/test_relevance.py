"""Where relevant results end: found without labels, for any model, and never by accident."""

from __future__ import annotations

import io

import numpy as np
import pytest

from clipsearch.errors import VectorError
from clipsearch.judging import Judged
from clipsearch.relevance import KINDS, Calibration, Relevance, neutral_texts
from clipsearch.vectors import Matrix, Vector, unit_rows

DIM = 48


def _random(count: int, seed: int, shift: float = 0.0) -> Matrix:
    rows = np.random.default_rng(seed).normal(size=(count, DIM))
    rows[:, 0] += shift
    return unit_rows(rows)


def _library(planted: int, topic: Vector, seed: int = 0, size: int = 600) -> Matrix:
    """``planted`` pictures near a topic, first, among unrelated ones."""
    near = topic + 0.1 * np.random.default_rng(seed).normal(size=(planted, DIM))
    return unit_rows(np.concatenate([near, _random(size - planted, seed + 1)]))


def _judged(library: Matrix, query: Vector, seed: int = 9) -> tuple[Relevance, Matrix]:
    calibration = Calibration.of(library, _random(200, seed))
    scores = library @ query - calibration.offsets(library)
    return calibration.judge(query, scores), scores


@pytest.mark.parametrize("planted", [1, 5, 60])
@pytest.mark.parametrize("seed", range(3))
def test_a_planted_topic_is_found_whole_and_alone(planted: int, seed: int) -> None:
    topic = _random(1, 100 + seed)[0]
    relevance, scores = _judged(_library(planted, topic, seed), topic)
    assert np.flatnonzero(scores >= relevance.cutoff).tolist() == list(range(planted))
    assert relevance.probability(scores)[:planted].min() > 0.5
    assert relevance.probability(scores)[planted:].max() < 0.5


def test_what_the_library_lacks_gives_nothing() -> None:
    library = _library(20, _random(1, 1)[0])
    empty = 0
    for query in _random(40, 2):
        relevance, scores = _judged(library, query)
        empty += bool(scores.max() < relevance.cutoff)
    assert empty >= 34  # 85 %


def test_nothing_is_nothing_however_the_same_scores_are_rounded() -> None:
    """Another processor or another size of batch adds up in another order."""
    library, neutral = _library(20, _random(1, 1)[0]), _random(200, 9)
    calibration = Calibration.of(library, neutral)
    offsets = calibration.offsets(library)
    nothing = 0
    for query in _random(60, 2):
        scores = library @ query
        relevance = calibration.judge(query, scores - offsets)
        if (scores - offsets).max() >= relevance.cutoff:
            continue
        nothing += 1
        judged = Judged(relevance, offsets, np.arange(len(library)))
        backwards = unit_rows(library[:, ::-1].astype(np.float64)) @ query[::-1]
        for again in (scores, np.float32(backwards), np.nextafter(scores, np.float32(2))):
            assert not (again >= judged.cutoffs).any()
            assert not (np.float32(again - offsets) >= np.float32(relevance.cutoff)).any()
    assert nothing >= 40


def test_the_same_pictures_count_however_a_model_scales_its_cosines() -> None:
    """A direction that all vectors share narrows the cosines, as in CLIP; nothing else changes."""
    topic = _random(1, 3)[0]
    library, neutral = _library(10, topic), _random(200, 9)

    def squeezed(rows: Matrix) -> Matrix:
        return unit_rows(np.concatenate([rows, np.full((len(rows), 1), 3.0)], axis=1))

    kept = []
    for pictures, texts, query in (
        (library, neutral, topic),
        (squeezed(library), squeezed(neutral), squeezed(topic[None])[0]),
    ):
        calibration = Calibration.of(pictures, texts)
        scores = pictures @ query - calibration.offsets(pictures)
        kept.append(np.flatnonzero(scores >= calibration.judge(query, scores).cutoff).tolist())
    assert kept[0] == kept[1] == list(range(10))


def test_a_picture_that_fits_every_text_is_taken_off() -> None:
    neutral = _random(200, 9, shift=2.0)
    hub = unit_rows(neutral.mean(axis=0, keepdims=True))
    library = np.concatenate([hub, _random(300, 4)])
    offsets = Calibration.of(library, neutral).offsets(library)
    assert offsets[0] == offsets.max() > 0
    assert abs(float(offsets.mean())) < 1e-3


def test_probability_rises_with_the_score() -> None:
    relevance, _ = _judged(_library(5, _random(1, 1)[0]), _random(1, 1)[0])
    found = relevance.probability(np.linspace(-1, 1, 201))
    assert (np.diff(found) >= 0).all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_stricter_never_finds_more() -> None:
    topic = _random(1, 1)[0]
    library = _library(5, topic)
    calibration = Calibration.of(library, _random(200, 9))
    scores = library @ topic
    cutoffs = [calibration.judge(topic, scores, strictness=s).cutoff for s in (-3, 0, 3, 30)]
    assert cutoffs == sorted(cutoffs)
    assert cutoffs[-1] > scores.max()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1, 2, 3])
def test_tiny_libraries_are_judged(size: int, kind: str) -> None:
    library = _random(size, 5)
    calibration = Calibration.of(library, _random(50, 6))
    relevance = calibration.judge(_random(1, 7)[0], library @ _random(1, 7)[0], kind)  # type: ignore[arg-type]
    assert np.isfinite([relevance.cutoff, relevance.middle, relevance.slope]).all()
    assert relevance.slope > 0


@pytest.mark.parametrize("kind", KINDS)
def test_without_neutral_texts_pictures_still_are_judged(kind: str) -> None:
    topic = _random(1, 1)[0]
    library = _library(5, topic)
    scores = library @ topic
    relevance = Calibration.of(library, library[:0]).judge(topic, scores, kind)  # type: ignore[arg-type]
    assert 0 in np.flatnonzero(scores >= relevance.cutoff)


def test_the_right_picture_of_five_is_found_alone() -> None:
    topic = _random(1, 8)[0]
    relevance, scores = _judged(_library(1, topic, size=5), topic)
    assert np.flatnonzero(scores >= relevance.cutoff).tolist() == [0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_library_of_copies_is_all_or_nothing(kind: str) -> None:
    library = np.repeat(_random(1, 5), 30, axis=0)
    calibration = Calibration.of(library, _random(50, 6))
    for query in _random(5, 7):
        kept = library @ query >= calibration.judge(query, library @ query, kind).cutoff  # type: ignore[arg-type]
        assert kept.all() or not kept.any()


def test_a_picture_that_is_in_the_library_finds_itself() -> None:
    library = _random(50, 5)
    calibration = Calibration.of(library, _random(50, 6))
    scores = library @ library[7]
    relevance = calibration.judge(library[7], scores, "image")
    assert scores[7] >= relevance.cutoff


def test_what_is_no_number_is_refused() -> None:
    library = _random(10, 5)
    calibration = Calibration.of(library, _random(20, 6))
    bad = np.full(10, np.nan, np.float32)
    with pytest.raises(VectorError):
        calibration.judge(library[0], bad)
    with pytest.raises(VectorError):
        calibration.judge(np.full(DIM, np.inf, np.float32), library @ library[0])
    for sample, neutral in [
        (np.full((2, DIM), np.nan, np.float32), library),
        (library, np.zeros((2, DIM), np.float32)),
        (library, library[:, :-1]),
    ]:
        with pytest.raises(VectorError):
            Calibration.of(sample, neutral)


def test_a_calibration_survives_a_file() -> None:
    library = _random(30, 5)
    before = Calibration.of(library, _random(20, 6))
    file = io.BytesIO()
    np.savez(file, **before.to_arrays())  # type: ignore[arg-type]
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        after = Calibration.from_arrays(arrays)
    for kind in KINDS:
        assert after.judge(library[3], library @ library[3], kind) == before.judge(
            library[3], library @ library[3], kind
        )
        np.testing.assert_array_equal(after.offsets(library, kind), before.offsets(library, kind))
    with pytest.raises((KeyError, ValueError)):
        Calibration.from_arrays({"scales": np.zeros((1, 2))})


def test_the_neutral_texts_are_a_few_hundred_different_lines() -> None:
    texts = neutral_texts()
    assert 200 <= len(texts) <= 400
    assert len(set(texts)) == len(texts)
    assert all(text == text.strip() and text for text in texts)
