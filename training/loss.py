"""The training objective: symmetric cross-entropy over in-batch similarities."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_LOGIT_SCALE = 100.0  # CLIP section 2.5: larger scales made training unstable


def contrastive_loss(
    images: Tensor, texts: Tensor, logit_scale: Tensor, alike: Tensor | None = None
) -> Tensor:
    """The mean of image-to-text and text-to-image cross-entropy (CLIP section 2.3, Figure 3).

    ``images`` and ``texts`` are (n, dim) unit rows, row i of one belonging to row i of the other;
    ``logit_scale`` is exp of the learned temperature parameter, a scalar. ``alike`` (n, n) bool
    marks pairs that belong together besides the diagonal (the same caption, the same picture):
    they are left out of the negatives. Returns a scalar.
    """
    logits = logit_scale * images @ texts.T
    if alike is not None:
        others = alike & ~torch.eye(len(alike), dtype=torch.bool, device=alike.device)
        logits = logits.masked_fill(others | others.T, float("-inf"))
    target = torch.arange(len(logits), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))
