"""AdamW as CLIP uses it, how fast it learns at each step, and the running mean of the weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from training.layers import depths


def make_optimizer(
    model: nn.Module, *, lr: float, weight_decay: float, layer_decay: float
) -> torch.optim.AdamW:
    """AdamW on what may learn; no weight decay on gains, biases and the temperature.

    Parameters deeper in their tower learn slower by ``layer_decay`` a block: each group has its
    ``share`` of the rate.
    """
    deep = depths(model) if layer_decay != 1 else {}
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((deep.get(name, 0), parameter.ndim >= 2), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": weight_decay if is_matrix else 0.0,
                "share": layer_decay**depth,
            }
            for (depth, is_matrix), parameters in sorted(groups.items(), key=lambda each: each[0])
        ],
        lr=lr,
        betas=(0.9, 0.98),
        eps=1e-6,
    )


def learning_rate(step: int, *, steps: int, warmup: int, lr: float) -> float:
    """Linear warm-up, then a half cosine to zero (CLIP section 2.5)."""
    if step < warmup:
        return lr * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return lr * 0.5 * (1 + math.cos(math.pi * done))


class Average:
    """The exponential moving average of what learns (Polyak averaging).

    After each step, mean = d mean + (1 - d) weights, with d = min(decay, (1 + step) / (10 + step)):
    early on the mean must not hold on to weights that are soon left behind. With a ``decay`` of 0
    there is none.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._learned = [(n, p) for n, p in model.named_parameters() if p.requires_grad and decay]
        self.weights: dict[str, Tensor] = {n: p.detach().clone() for n, p in self._learned}

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Takes in the weights after ``step``, counted from 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, parameter in self._learned:
            self.weights[name].lerp_(parameter, 1 - decay)

    @torch.no_grad()
    def put_into_model(self) -> None:
        for name, parameter in self._learned:
            parameter.copy_(self.weights[name])
