"""Large batches in bounded memory: gradient caching (Gao et al. 2021, section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Encode = Callable[[], Tensor]  # (rows of one chunk, dim); called twice, must give the same


def backward_in_chunks(
    sides: Sequence[Sequence[Encode]], loss: Callable[[Sequence[Tensor]], Tensor]
) -> Tensor:
    """Adds the gradients of ``loss`` over the whole batch to the parameters; returns the loss.

    ``sides`` are, for pictures and for texts, the chunks of the batch as functions that encode one.
    First all are encoded without a graph, and the loss gives the gradient of every vector; then
    each chunk is encoded again, with its graph, and takes its share of those through the tower. The
    result is that of the naive batch, to float rounding, with the graph of one chunk in memory.
    What ``loss`` itself learns (the temperature) gets its gradient in the first pass.
    """
    with torch.no_grad():
        encoded = [[encode() for encode in side] for side in sides]
    whole = [torch.cat(side).requires_grad_() for side in encoded]
    total = loss(whole)
    total.backward()
    for side, rows, parts in zip(sides, whole, encoded, strict=True):
        if rows.grad is None:
            continue
        for encode, gradient in zip(side, rows.grad.split([len(p) for p in parts]), strict=True):
            vectors = encode()
            if vectors.requires_grad:  # not of a locked tower
                vectors.backward(gradient)
    return total.detach()
