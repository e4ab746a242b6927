"""The objectives of large batches: exact, a block of rows at a time, shared between processes.

The naive forms in loss.py hold several n x n matrices: 4 GiB each for the paper's batch of 32,768.
Here similarities exist for a few rows at a time. The gradients are known in closed form, so one
pass finds the normalisers and another the gradients, and autograd has nothing to keep.

Each process of a ``team`` gives its own m rows and computes those m rows of the n x n similarities,
so none is computed twice. It returns its share of the loss: the shares add up to the loss of
the whole batch, and its gradients are those of the whole loss with respect to what it gave (of the
scalars, its share). All shares must be led back with the same factor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from training.team import ALONE, Team

BLOCK = 2**23  # similarities at once: 32 MiB of float32
_NEVER = -1e9  # a similarity that no softmax sees, finite so that 0 x it is 0


def contrastive_in_blocks(
    images: Tensor,
    texts: Tensor,
    logit_scale: Tensor,
    groups: Tensor | None = None,
    *,
    team: Team = ALONE,
    block: int = BLOCK,
) -> Tensor:
    """``loss.contrastive_loss`` (CLIP section 2.3, Figure 3) without an n x n matrix.

    1/2n sum over i of [lse_j z_ij - z_ii] + [lse_j z_ji - z_ii], z = t x_i . y_j. With P and Q the
    softmax of z over rows and over columns, dL/dz = (P + Q - 2 I) / 2n. ``images`` and ``texts``
    are (m, dim) unit rows; pairs off the diagonal with equal ``groups`` (m,) int64 are left out.
    """
    with torch.no_grad():
        shard = _Shard.of(images, texts, groups, team, block)
        whole, scale = 2 * shard.total, logit_scale.detach()
        row, column = _normalisers(shard, scale, team)
        own = scale * (shard.images * shard.own_texts).sum(dim=1)
        value = (row + column[shard.start : shard.start + len(row)] - 2 * own).sum() / whole
        found = _Gradients.empty(shard)
        for rows in shard.blocks():
            z = shard.similarities(rows, scale)
            slope = (z - row[rows, None]).exp_()
            slope += z.sub_(column).exp_()
            slope[shard.diagonal(rows)] -= 2
            found.add(shard, rows, slope.mul_(1 / whole), scale)
    return _known(value, (images, texts, logit_scale), found.of(shard, team)[:3])


def sigmoid_in_blocks(
    images: Tensor,
    texts: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    groups: Tensor | None = None,
    *,
    team: Team = ALONE,
    block: int = BLOCK,
) -> Tensor:
    """``loss.sigmoid_loss`` (SigLIP, Zhai et al. 2023, section 3.2) without an n x n matrix.

    -1/n sum over i, j of log sigmoid(s_ij z_ij), z = t x_i . y_j + b, s = 1 on the diagonal, else
    -1; dL/dz = -s sigmoid(-s z) / n. Shapes and ``groups`` as in ``contrastive_in_blocks``.
    """
    with torch.no_grad():
        shard = _Shard.of(images, texts, groups, team, block)
        scale, bias = logit_scale.detach(), logit_bias.detach()
        value = scale.new_zeros(())
        found = _Gradients.empty(shard)
        for rows in shard.blocks():
            z = shard.similarities(rows, scale).add_(bias)
            own = shard.diagonal(rows)
            z[own] *= -1
            value = value - F.logsigmoid(-z).sum() / shard.total
            slope = z.sigmoid_()
            slope[own] *= -1
            found.add(shard, rows, slope.mul_(1 / shard.total), scale)
    given = (images, texts, logit_scale, logit_bias)
    return _known(value, given, found.of(shard, team))


def distillation_in_blocks(
    images: Tensor,
    texts: Tensor,
    logit_scale: Tensor,
    teacher_images: Tensor,
    teacher_texts: Tensor,
    teacher_scale: Tensor,
    *,
    others_only: bool = False,
    team: Team = ALONE,
    block: int = BLOCK,
) -> Tensor:
    """``loss.similarity_distillation`` (CLIP-KD, section 3.2) without an n x n matrix.

    With P, Q the student's softmax over rows and columns and P', Q' the teacher's, the loss is
    1/2n sum of P' (log P' - log P) + Q' (log Q' - log Q) and dL/dz = (P + Q - P' - Q') / 2n.
    ``others_only`` leaves out the diagonal: for rows of one tower compared with themselves, whose
    likeness to itself is 1 and would drown the rest. No gradient flows to the teacher.
    """
    with torch.no_grad():
        shard = _Shard.of(images, texts, None, team, block, others_only)
        taught = _Shard.of(teacher_images, teacher_texts, None, team, block, others_only)
        whole, scale, warmth = 2 * shard.total, logit_scale.detach(), teacher_scale.detach()
        row, column = _normalisers(shard, scale, team)
        right_row, right_column = _normalisers(taught, warmth, team)
        local = slice(shard.start, shard.start + len(row))
        value = (row - right_row + (column - right_column)[local]).sum() / whole
        found = _Gradients.empty(shard)
        for rows in shard.blocks():
            z = shard.similarities(rows, scale)
            right = taught.similarities(rows, warmth)
            answers = (right - right_row[rows, None]).exp_()
            answers += (right - right_column).exp_()
            value = value + (answers * right.sub_(z)).sum() / whole
            slope = (z - row[rows, None]).exp_()
            slope += z.sub_(column).exp_()
            found.add(shard, rows, slope.sub_(answers).mul_(1 / whole), scale)
    return _known(value, (images, texts, logit_scale), found.of(shard, team)[:3])


@dataclass(frozen=True)
class _Shard:
    """This process's m rows of the n x n similarities; its images against the texts of all."""

    images: Tensor  # (m, dim)
    own_texts: Tensor  # (m, dim)
    texts: Tensor  # (n, dim)
    groups: Tensor | None  # (n,)
    start: int  # where its rows begin among the n
    total: int  # n
    at_once: int  # rows of a block
    others_only: bool

    @classmethod
    def of(
        cls,
        images: Tensor,
        texts: Tensor,
        groups: Tensor | None,
        team: Team,
        block: int,
        others_only: bool = False,
    ) -> _Shard:
        start, total = team.place(len(images))
        return cls(
            images=images.detach(),
            own_texts=texts.detach(),
            texts=team.gather(texts, start, total),
            groups=None if groups is None else team.gather(groups, start, total),
            start=start,
            total=total,
            at_once=max(1, block // total),
            others_only=others_only,
        )

    def blocks(self) -> Iterator[slice]:
        for first in range(0, len(self.images), self.at_once):
            yield slice(first, min(first + self.at_once, len(self.images)))

    def diagonal(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Where a block's own pairs lie in it."""
        places = torch.arange(rows.start, rows.stop, device=self.images.device)
        return places - rows.start, places + self.start

    def similarities(self, rows: slice, scale: Tensor) -> Tensor:
        """(rows, n), scaled; pairs that are left out are as unlike as can be."""
        z = self.images[rows] @ self.texts.T
        z *= scale
        if self.others_only:
            z[self.diagonal(rows)] = _NEVER
        if self.groups is not None:
            own = self.groups[self.start + rows.start : self.start + rows.stop]
            alike = own[:, None] == self.groups
            alike[self.diagonal(rows)] = False
            z.masked_fill_(alike, _NEVER)
        return z


def _normalisers(shard: _Shard, scale: Tensor, team: Team) -> tuple[Tensor, Tensor]:
    """The log-sum-exp of the rows of this process, (m,), and of the columns of all, (n,)."""
    row = shard.images.new_empty(len(shard.images))
    column = shard.images.new_full((shard.total,), -torch.inf)
    for rows in shard.blocks():
        z = shard.similarities(rows, scale)
        row[rows] = z.logsumexp(dim=1)
        column = torch.logaddexp(column, z.logsumexp(dim=0))
    return row, team.log_sum_exp(column)


@dataclass
class _Gradients:
    """What the blocks add up to: the gradients of the vectors, the scale and the bias."""

    images: Tensor  # (m, dim)
    texts: Tensor  # (n, dim), of this process's rows alone
    scale: Tensor
    bias: Tensor

    @classmethod
    def empty(cls, shard: _Shard) -> _Gradients:
        zero = shard.images.new_zeros(())
        return cls(torch.empty_like(shard.images), torch.zeros_like(shard.texts), zero, zero)

    def add(self, shard: _Shard, rows: slice, slope: Tensor, scale: Tensor) -> None:
        """``slope`` (rows, n) is the loss's derivative with respect to the scaled similarities."""
        images = shard.images[rows]
        pull = slope @ shard.texts
        self.images[rows] = scale * pull
        self.texts.addmm_(slope.T, scale * images)
        self.scale = self.scale + (images * pull).sum()
        self.bias = self.bias + slope.sum()

    def of(self, shard: _Shard, team: Team) -> tuple[Tensor, ...]:
        """For the rows that this process gave; every process adds to the texts of all."""
        texts = team.sum(self.texts)[shard.start : shard.start + len(self.images)]
        return self.images, texts, self.scale, self.bias


class _Known(torch.autograd.Function):
    """A scalar whose gradients are known already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *given: Tensor) -> Tensor:
        ctx.save_for_backward(*given[len(given) // 2 :])
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        gradients = [factor * gradient for gradient in ctx.saved_tensors]
        return None, *gradients, *(None for _ in gradients)


def _known(value: Tensor, given: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    found: Tensor = _Known.apply(value, *given, *gradients)
    return found
