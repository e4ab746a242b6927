"""LoRA for open_clip's towers: low-rank changes of frozen matrices (Hu et al. 2021, section 4.1).

W' = W + (alpha / r) B A, with A (r, in) random and B (out, r) zero at the start, so that training
starts at the model as it is; alpha = r here, so the factor is 1. open_clip keeps the query, key and
value matrices of an attention as one parameter, ``in_proj_weight`` (3 d, d), which no wrapper of
linear layers reaches. Parametrisations of torch change any parameter of any module where it is
read, so this one covers it: nn.MultiheadAttention, open_clip's own Attention, every nn.Linear
(timm's ``qkv`` too). Convolutions and embeddings stay as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from clipsearch.errors import TrainingError

_FUSED = "in_proj_weight"


class LowRank(nn.Module):
    """Adds ``parts`` stacked products of rank ``rank`` to a (parts * out, in) matrix."""

    def __init__(self, weight: Tensor, rank: int, parts: int) -> None:
        super().__init__()
        rows, columns = weight.shape
        rank = min(rank, columns, rows // parts)
        self.down = nn.Parameter(torch.randn(parts, rank, columns) / columns**0.5)
        self.up = nn.Parameter(torch.zeros(parts, rows // parts, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.up @ self.down).reshape(weight.shape)


def add_lora(model: nn.Module, rank: int) -> list[str]:
    """Gives the matrices of both towers a change that learns; returns their names, sorted.

    What is not a matrix keeps whether it learns. Random numbers are drawn in the order of the
    names, from a generator of their own. TrainingError if there is no matrix that can be reached.
    """
    modules = sorted(model.named_modules(), key=lambda named: named[0])
    found = [
        (f"{name}.{own}".removeprefix("."), module, own)
        for name, module in modules
        for own in _matrices(module)
    ]
    if not found:
        raise TrainingError(reason="--learn lora: the model has no attention and no linear layer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _, module, own in found:
            weight = getattr(module, own)
            parts = 3 if own == _FUSED else 1
            # unsafe: the check calls it once more for its shape, which is plain to see here
            parametrize.register_parametrization(
                module, own, LowRank(weight, rank, parts), unsafe=True
            )
    return [name for name, _, _ in found]


def merge_lora(model: nn.Module) -> None:
    """Writes every change into its matrix: the same outputs, and the names the model had before."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            for own in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, own, leave_parametrized=True)


def _matrices(module: nn.Module) -> list[str]:
    names = [_FUSED] if isinstance(getattr(module, _FUSED, None), nn.Parameter) else []
    return ["weight", *names] if isinstance(module, nn.Linear) else names
