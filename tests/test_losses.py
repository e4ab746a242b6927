"""The objectives against plain numpy in float64, one pair at a time, and their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from training.loss import (
    bag_of_words_loss,
    bag_of_words_scores,
    feature_distillation,
    sigmoid_loss,
    similarity_distillation,
)

FLOAT64 = torch.float64


def unit(seed: int, rows: int, dim: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(rows, dim, generator=generator, dtype=FLOAT64)
    return torch.nn.functional.normalize(vectors, dim=1)


def number(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=FLOAT64, requires_grad=True)


@given(st.integers(1, 9), st.floats(0.5, 100), st.floats(-20, 5), st.integers(0, 99))
def test_the_sigmoid_loss_is_siglips(rows: int, scale: float, bias: float, seed: int) -> None:
    images, texts = unit(seed, rows, 6), unit(seed + 1000, rows, 6)
    chance = np.random.default_rng(seed)
    alike = chance.random((rows, rows)) < 0.2
    expected = 0.0
    for i in range(rows):
        for j in range(rows):
            if i != j and (alike[i, j] or alike[j, i]):
                continue
            sign = 1 if i == j else -1
            logit = scale * float(images[i].numpy() @ texts[j].numpy()) + bias
            expected += np.logaddexp(0, -sign * logit) / rows
    found = sigmoid_loss(images, texts, number(scale), number(bias), torch.from_numpy(alike))
    assert found.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(st.integers(1, 9), st.floats(0.5, 60), st.floats(0.5, 60), st.integers(0, 99))
def test_the_distillation_is_the_divergence_of_the_answers(
    rows: int, scale: float, teacher_scale: float, seed: int
) -> None:
    images, texts = unit(seed, rows, 6), unit(seed + 1, rows, 6)
    teacher_images, teacher_texts = unit(seed + 2, rows, 4), unit(seed + 3, rows, 4)
    expected = 0.0
    student = scale * images.numpy() @ texts.numpy().T
    teacher = teacher_scale * teacher_images.numpy() @ teacher_texts.numpy().T
    for ours, theirs in [(student, teacher), (student.T, teacher.T)]:
        for row in range(rows):
            own = ours[row] - np.logaddexp.reduce(ours[row])
            right = theirs[row] - np.logaddexp.reduce(theirs[row])
            expected += float(np.sum(np.exp(right) * (right - own))) / rows / 2
    found = similarity_distillation(
        images, texts, number(scale), teacher_images, teacher_texts, number(teacher_scale)
    )
    assert found.item() == pytest.approx(expected, rel=1e-8, abs=1e-9)


def test_a_student_that_is_its_teacher_has_nothing_to_learn() -> None:
    images, texts, scale = unit(1, 5, 8), unit(2, 5, 8), number(20.0)
    same = similarity_distillation(images, texts, scale, images, texts, scale)
    assert same.item() == pytest.approx(0, abs=1e-12)
    assert feature_distillation(images, images).item() == pytest.approx(0, abs=1e-12)
    opposite = feature_distillation(images, -images)
    assert opposite.item() == pytest.approx(2)


@pytest.mark.parametrize(
    "loss",
    [
        sigmoid_loss,
        lambda x, y, t, b: similarity_distillation(x, y, t, unit(5, 4, 3), unit(6, 4, 3), b.exp()),
        lambda x, y, t, b: t * b * feature_distillation(x, unit(7, 4, 5)) + y.sum(),
    ],
    ids=["sigmoid", "similarities", "features"],
)
def test_the_gradients_are_right(loss: Callable[..., torch.Tensor]) -> None:
    inputs = (unit(1, 4, 5).requires_grad_(), unit(2, 4, 5).requires_grad_(), number(7.0))
    bias = torch.tensor(math.log(9), dtype=FLOAT64)
    assert torch.autograd.gradcheck(lambda *given: loss(*given, bias), inputs)


def test_the_sigmoid_losss_bias_has_a_gradient_too() -> None:
    images, texts = unit(1, 4, 5), unit(2, 4, 5)
    assert torch.autograd.gradcheck(
        lambda scale, bias: sigmoid_loss(images, texts, scale, bias), (number(7.0), number(-3.0))
    )


def test_no_gradient_reaches_the_teacher() -> None:
    teacher = unit(3, 4, 5).requires_grad_()
    student = unit(1, 4, 5).requires_grad_()
    loss = feature_distillation(student, teacher) + similarity_distillation(
        student, student, number(5.0), teacher, teacher, number(5.0)
    )
    loss.backward()
    assert teacher.grad is None
    assert student.grad is not None


@given(st.integers(1, 7), st.integers(2, 12), st.integers(0, 99))
def test_the_bag_of_words_loss_is_the_mean_over_the_captions_words(
    rows: int, vocabulary: int, seed: int
) -> None:
    chance = np.random.default_rng(seed)
    logits = 5 * chance.standard_normal((rows, vocabulary))
    words = chance.random((rows, vocabulary)) < 0.4
    expected = 0.0
    for row, has in zip(logits, words, strict=True):
        own = row - np.logaddexp.reduce(row)
        expected -= float(own[has].mean()) / rows if has.any() else 0.0
    found = bag_of_words_loss(torch.from_numpy(logits), torch.from_numpy(words))
    assert found.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    scores = bag_of_words_scores(torch.from_numpy(logits), torch.from_numpy(words))
    for i, row in enumerate(logits):
        own = row - np.logaddexp.reduce(row)
        for j, has in enumerate(words):
            right = float(own[has].mean()) if has.any() else -math.inf
            assert scores[i, j].item() == pytest.approx(right, rel=1e-9)


def test_the_bag_of_words_gradients_are_right() -> None:
    logits = torch.randn(3, 5, dtype=FLOAT64, generator=torch.Generator().manual_seed(0))
    words = torch.tensor([[1, 0, 1, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]], dtype=torch.bool)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda given: bag_of_words_loss(given, words), (logits,))
