"""One bad call is one clear error of ours: the next call works, and so do those beside it."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipsearch.config import resolve
from clipsearch.encoders import Encoder, load_encoder
from clipsearch.encoders.compiled import CompiledEncoder
from clipsearch.encoders.openclip import TorchEncoder
from clipsearch.errors import (
    ClipsearchError,
    DeviceError,
    ImageUnreadableError,
    ModelError,
    VectorError,
)
from clipsearch.index.faiss_index import FaissIndex
from clipsearch.vectors import require_unit_rows, to_bytes, unit_rows, unit_vector

SIDE, DIM = 32, 16  # of the small model


@pytest.fixture(scope="module", params=["compiled", "torch", "compiled bf16", "torch bf16"])
def encoder(request: pytest.FixtureRequest, tiny_model_dir: Path) -> Encoder:
    runtime, _, precision = request.param.partition(" ")
    settings = replace(resolve(), runtime=runtime, precision=precision or "auto", device="cpu")
    try:
        loaded = load_encoder(f"local-dir:{tiny_model_dir}", settings=settings)
        loaded.encode_images(pixels(1))
    except DeviceError as error:
        pytest.skip(str(error))
    return loaded


def pixels(count: int) -> np.ndarray[Any, Any]:
    chance = np.random.default_rng(4)
    return chance.integers(0, 256, (count, 3, SIDE, SIDE), dtype=np.uint8)


BAD_PIXELS: dict[str, Callable[[], Any]] = {
    "larger": lambda: np.zeros((2, 3, 48, 48), np.uint8),
    "smaller": lambda: np.zeros((1, 3, 16, 16), np.uint8),
    "not square": lambda: np.zeros((1, 3, SIDE, SIDE + 1), np.uint8),
    "colours last": lambda: np.zeros((2, SIDE, SIDE, 3), np.uint8),
    "one picture": lambda: np.zeros((3, SIDE, SIDE), np.uint8),
    "with alpha": lambda: np.zeros((1, 4, SIDE, SIDE), np.uint8),
    "grey": lambda: np.zeros((1, 1, SIDE, SIDE), np.uint8),
    "flat": lambda: np.zeros((2, 3 * SIDE * SIDE), np.uint8),
    "five axes": lambda: np.zeros((1, 1, 3, SIDE, SIDE), np.uint8),
    "none of another size": lambda: np.zeros((0, 3, 48, 48), np.uint8),
    "float": lambda: pixels(2).astype(np.float32) / 255,
    "nan": lambda: np.full((1, 3, SIDE, SIDE), np.nan),
    "int64": lambda: pixels(2).astype(np.int64),
    "bool": lambda: pixels(1) > 9,
    "objects": lambda: pixels(1).astype(object),
    "strings": lambda: np.full((1, 3, SIDE, SIDE), "x"),
    "of several sizes": lambda: [pixels(1)[0], np.zeros((3, 8, 8), np.uint8)],
    "a Pillow image": lambda: Image.new("RGB", (SIDE, SIDE)),
    "nothing": lambda: None,
    "a number": lambda: 7,
}


@pytest.mark.parametrize("name", BAD_PIXELS)
def test_pixels_that_cannot_be_used_are_refused_and_the_next_call_works(
    encoder: Encoder, name: str
) -> None:
    good = pixels(2)
    before = encoder.encode_images(good)
    with pytest.raises(VectorError) as caught:
        encoder.encode_images(BAD_PIXELS[name]())
    assert "encode_images" in str(caught.value)
    np.testing.assert_array_equal(encoder.encode_images(good), before)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (np.zeros((2, SIDE, SIDE, 3), np.uint8), "colours come first"),
        (np.zeros((3, SIDE, SIDE), np.uint8), "a batch of one"),
        (np.zeros((1, 3, SIDE, SIDE), np.float32), "levels from 0 to 255"),
        (np.zeros((1, 3, 48, 48), np.uint8), r"\(n, 3, 32, 32\) uint8, not \(1, 3, 48, 48\) uint8"),
    ],
)
def test_a_refusal_says_what_to_do(encoder: Encoder, given: Any, told: str) -> None:
    with pytest.raises(VectorError, match=told):
        encoder.encode_images(given)


def test_what_lies_otherwise_in_memory_is_the_same_pictures(encoder: Encoder) -> None:
    good = pixels(9)
    wanted = encoder.encode_images(good)
    last = np.ascontiguousarray(good.transpose(0, 2, 3, 1))
    frozen = good.copy()
    frozen.flags.writeable = False
    twice = np.repeat(good, 2, axis=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for same in (last.transpose(0, 3, 1, 2), twice[::2], np.asfortranarray(good), frozen):
            np.testing.assert_array_equal(encoder.encode_images(same), wanted)
        np.testing.assert_array_equal(encoder.encode_images(list(good)), wanted)
    assert encoder.encode_images(good[::-1])[-1] @ wanted[0] > 0.999


def test_no_pictures_and_no_texts_are_no_vectors(encoder: Encoder) -> None:
    for none in (pixels(0), [], np.empty(0)):
        assert encoder.encode_images(none).shape == (0, DIM)
    for nothing in ([], (), iter(())):
        assert encoder.encode_texts(nothing).shape == (0, DIM)


def test_many_pictures_at_once_are_many_calls(encoder: Encoder) -> None:
    many = np.tile(pixels(7), (30, 1, 1, 1))
    rows = encoder.encode_images(many)
    assert rows.shape == (210, DIM)
    np.testing.assert_allclose(rows[:7], rows[-7:], atol=0.02)


@pytest.mark.parametrize(
    "given",
    ["a dog", b"a dog", None, 3, [None], ["a dog", 3], [["a dog"]], [b"a dog"], [float("nan")]],
    ids=repr,
)
def test_what_is_no_list_of_texts_is_refused_and_the_next_call_works(
    encoder: Encoder, given: Any
) -> None:
    before = encoder.encode_texts(["a dog"])
    with pytest.raises(VectorError, match="encode_texts"):
        encoder.encode_texts(given)
    np.testing.assert_array_equal(encoder.encode_texts(["a dog"]), before)


@pytest.mark.parametrize(
    "text", ["", " ", "\0", "\ud800", "a\udcff dog", "🐈" * 3000, "x" * 100_000, "<end_of_text>"]
)
def test_any_text_has_a_vector(encoder: Encoder, text: str) -> None:
    assert np.isfinite(encoder.encode_texts([text, "a dog"])).all()


def test_texts_may_come_as_any_sequence(encoder: Encoder) -> None:
    wanted = encoder.encode_texts(["a dog", "a cat"])
    for same in (("a dog", "a cat"), np.array(["a dog", "a cat"]), iter(["a dog", "a cat"])):
        np.testing.assert_array_equal(encoder.encode_texts(same), wanted)


def test_calls_that_fail_do_not_disturb_those_beside_them(encoder: Encoder) -> None:
    good = pixels(17)
    images, texts = encoder.encode_images(good), encoder.encode_texts(["a dog"])
    wrong: list[str] = []
    start = threading.Barrier(4)

    def work(number: int) -> None:
        start.wait()
        for _ in range(5):
            if number % 2:
                try:
                    encoder.encode_images(np.zeros((3, 3, 20 + number, 40), np.uint8))
                    wrong.append("a wrong shape was taken")
                except VectorError:
                    pass
                try:
                    encoder.encode_texts([number])  # type: ignore[list-item]
                    wrong.append("a number was taken")
                except VectorError:
                    pass
            elif not np.allclose(encoder.encode_images(good), images, atol=1e-6) or not (
                np.allclose(encoder.encode_texts(["a dog"]), texts, atol=1e-6)
            ):
                wrong.append("another vector")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_runtime_that_fails_is_our_error_and_the_next_call_works(encoder: Encoder) -> None:
    """As where memory runs out: the tower is handed what it was not made for."""
    good = pixels(3)
    before = encoder.encode_images(good)
    if isinstance(encoder, CompiledEncoder):
        queue = encoder._requests
        with encoder._running["image"], pytest.raises(RuntimeError):
            queue.start_async([np.zeros((1, 3, 9, 9), np.uint8)], (before.copy(), 0))
            queue.wait_all()
        with pytest.raises(ModelError):  # what an infer request remembers, and is then replaced
            encoder.encode_images(np.tile(good, (40, 1, 1, 1)))
    else:
        assert isinstance(encoder, TorchEncoder)
        mean, encoder._mean = encoder._mean, encoder._mean.reshape(3)[:2]
        with pytest.raises(ModelError, match="could not encode these pictures"):
            encoder.encode_images(good)
        encoder._mean = mean
    np.testing.assert_allclose(encoder.encode_images(good), before, atol=1e-6)


@pytest.mark.parametrize("given", [np.zeros((3, 9, 9), np.uint8), None, "a.jpg", "no pixels"])
def test_what_is_no_picture_cannot_be_prepared(encoder: Encoder, given: Any) -> None:
    image = Image.new("RGB", (0, 4)) if isinstance(given, str) and " " in given else given
    with pytest.raises(ImageUnreadableError):
        encoder.preprocess(image)


BAD_ROWS: dict[str, Any] = {
    "nan": np.array([[np.nan, 1.0]]),
    "infinite": np.array([[np.inf, 1.0]]),
    "too large": np.array([[1e300, 1.0]]),
    "zero": np.zeros((1, 2)),
    "strings": np.array([["a", "b"]]),
    "objects": np.array([[None, 1]], dtype=object),
    "complex": np.array([[1j, 1]]),
    "of several lengths": [[1.0], [1.0, 2.0]],
    "one axis": np.ones(2),
    "three axes": np.ones((1, 1, 2)),
    "nothing": None,
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_arrays_that_are_no_vectors_are_refused(name: str) -> None:
    with pytest.raises(VectorError):
        unit_rows(BAD_ROWS[name])
    with pytest.raises(VectorError):
        require_unit_rows(BAD_ROWS[name], 2)
    if name not in ("one axis", "of several lengths", "nothing"):
        with pytest.raises(VectorError):
            unit_vector(BAD_ROWS[name][0] if name != "three axes" else BAD_ROWS[name])


@pytest.mark.parametrize(
    "query",
    [np.ones(3), np.ones((1, 2)), np.ones(()), np.array([np.nan, 1]), np.zeros(2), "ab", None],
    ids=repr,
)
def test_a_question_that_is_no_vector_leaves_the_index_as_it_is(query: Any) -> None:
    index = FaissIndex(2)
    index.put(np.array([4, 9]), np.eye(2, dtype=np.float32))
    with pytest.raises(VectorError):
        index.search(query, 1)
    assert index.search(np.array([0.0, 2.0]), 1).ids.tolist() == [9]


@pytest.mark.parametrize(
    "ids",
    [[1.5, 2.0], ["a", "b"], [[1, 2]], [True, False], [-1, 2], [2**64 - 1, 1], None],
    ids=repr,
)
def test_ids_that_are_no_whole_numbers_are_refused(ids: Any) -> None:
    index = FaissIndex(2)
    index.put(np.array([4, 9]), np.eye(2, dtype=np.float32))
    with pytest.raises(VectorError):
        index.put(ids, np.eye(2, dtype=np.float32))
    with pytest.raises(ClipsearchError):
        index.remove(ids)
    if ids is not None:
        with pytest.raises(VectorError):
            index.search(np.array([1.0, 0.0]), 1, among=ids)
    assert index.ids.tolist() == [4, 9]


def test_a_vector_is_kept_only_as_one() -> None:
    with pytest.raises(VectorError):
        to_bytes(np.array(["a"]))  # type: ignore[arg-type]
