"""Large batches: a block at a time gives the losses and gradients of the naive full batch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from training.blockwise import (
    contrastive_in_blocks,
    distillation_in_blocks,
    sigmoid_in_blocks,
)
from training.loss import contrastive_loss, sigmoid_loss, similarity_distillation

FLOAT64 = torch.float64


def unit(seed: int, rows: int, dim: int, dtype: torch.dtype = FLOAT64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(rows, dim, generator=generator, dtype=dtype)
    return torch.nn.functional.normalize(vectors, dim=1).requires_grad_()


def number(value: float, dtype: torch.dtype = FLOAT64) -> Tensor:
    return torch.tensor(value, dtype=dtype, requires_grad=True)


def found(loss: Callable[..., Tensor], *inputs: Tensor) -> list[Tensor]:
    value = 3 * loss(*inputs)  # whatever comes after it multiplies its gradients
    return [value.detach(), *torch.autograd.grad(value, inputs)]


def same(naive: Callable[..., Tensor], blocked: Callable[..., Tensor], *inputs: Tensor) -> None:
    tolerance = 1e-10 if inputs[0].dtype == FLOAT64 else 2e-5
    for expected, got in zip(found(naive, *inputs), found(blocked, *inputs), strict=True):
        assert torch.allclose(expected, got, rtol=tolerance, atol=tolerance)


SIZES = given(st.integers(1, 9), st.integers(1, 90), st.floats(0.5, 100), st.integers(0, 99))
# Of nine captions, some are the same.
GROUPS = torch.tensor([4, 4, 0, 1, 4, 2, 0, 3, 7])


@SIZES
@settings(max_examples=30)
def test_contrastive_blocks_are_the_naive_loss(n: int, block: int, scale: float, seed: int) -> None:
    inputs = unit(seed, n, 6), unit(seed + 100, n, 6), number(scale)
    groups = GROUPS[:n]
    alike = groups[:, None] == groups
    same(
        lambda *given: contrastive_loss(*given, alike),
        lambda *given: contrastive_in_blocks(*given, groups, block=block),
        *inputs,
    )
    same(contrastive_loss, lambda *given: contrastive_in_blocks(*given, block=block), *inputs)


@SIZES
@settings(max_examples=30)
def test_sigmoid_blocks_are_the_naive_loss(n: int, block: int, scale: float, seed: int) -> None:
    inputs = unit(seed, n, 6), unit(seed + 100, n, 6), number(scale), number(-scale / 9)
    groups = GROUPS[:n]
    alike = groups[:, None] == groups
    same(
        lambda *given: sigmoid_loss(*given, alike),
        lambda *given: sigmoid_in_blocks(*given, groups, block=block),
        *inputs,
    )
    same(sigmoid_loss, lambda *given: sigmoid_in_blocks(*given, block=block), *inputs)


@SIZES
@settings(max_examples=30)
def test_distilled_blocks_are_the_naive_loss(n: int, block: int, scale: float, seed: int) -> None:
    teacher = unit(seed + 2, n, 4), unit(seed + 3, n, 4), number(scale / 2)
    same(
        lambda *given: similarity_distillation(*given, *teacher),
        lambda *given: distillation_in_blocks(*given, *teacher, block=block),
        unit(seed, n, 6),
        unit(seed + 1, n, 6),
        number(scale),
    )


def test_a_tower_is_compared_with_itself_without_its_diagonal() -> None:
    rows, teacher = unit(1, 5, 6), unit(2, 5, 4)

    def naive(own: Tensor, scale: Tensor) -> Tensor:
        off = ~torch.eye(5, dtype=torch.bool)
        student = (scale * own @ own.T)[off].reshape(5, 4).log_softmax(1)
        right = (9 * teacher @ teacher.T)[off].reshape(5, 4).log_softmax(1)
        return (right.exp() * (right - student)).sum(1).mean()  # both directions are the same

    def blocked(own: Tensor, scale: Tensor) -> Tensor:
        nine = number(9.0)
        given = (own, own, scale, teacher, teacher, nine)
        return distillation_in_blocks(*given, others_only=True, block=12)

    same(naive, blocked, rows, number(7.0))


@pytest.mark.parametrize(
    "loss",
    [
        lambda x, y, t, b: contrastive_in_blocks(x, y, t + 0 * b, GROUPS[:5], block=10),
        lambda x, y, t, b: sigmoid_in_blocks(x, y, t, b, GROUPS[:5], block=10),
        lambda x, y, t, b: distillation_in_blocks(
            x, y, t + 0 * b, unit(8, 5, 3), unit(9, 5, 3), number(4.0), block=10
        ),
    ],
    ids=["contrastive", "sigmoid", "distillation"],
)
def test_the_gradients_are_right(loss: Callable[..., Tensor]) -> None:
    inputs = (unit(1, 5, 4), unit(2, 5, 4), number(7.0), number(-2.0))
    assert torch.autograd.gradcheck(loss, inputs)


def test_float32_agrees_at_the_highest_temperature() -> None:
    inputs = [unit(1, 300, 32, torch.float32), unit(2, 300, 32, torch.float32)]
    inputs.append(number(100.0, torch.float32))
    same(contrastive_loss, lambda *given: contrastive_in_blocks(*given, block=7000), *inputs)


def test_no_matrix_of_all_pairs_is_ever_held(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = [0]

    class Watching(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            made = func(*args, **(kwargs or {}))
            if isinstance(made, Tensor):
                largest[0] = max(largest[0], made.numel())
            return made

    images, texts = unit(1, 256, 8), unit(2, 256, 8)
    groups = torch.arange(256) // 2
    with Watching():
        contrastive_in_blocks(images, texts, number(5.0), groups, block=4096).backward()
        sigmoid_in_blocks(images, texts, number(5.0), number(-1.0), groups, block=4096).backward()
        distillation_in_blocks(
            images, texts, number(5.0), images, texts, number(9.0), block=4096
        ).backward()
    assert largest[0] == 4096
