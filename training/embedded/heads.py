"""The image head and the map of the teacher's space, fitted to features that do not change.

Symmetric cross-entropy (CLIP section 2.3) of the captioned photos, and what the ImageNet classifier
says of them (distillation of logits).
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from training.embedded.backbone import WIDTH
from training.embedded.class_knowledge import ClassKnowledge
from training.embedded.config import FitConfig
from training.embedded.corpus import SENTENCE_SOURCES
from training.embedded.student import EMBED_DIM, Tell
from training.loss import MAX_LOGIT_SCALE, contrastive_loss

_SAME_MEANING = 0.93  # teacher cosine above which two captions are not each other's negatives


@dataclass
class Pairs:
    """Photos with their rows in the tables of views and of texts."""

    views: list[NDArray[np.int64]]  # per photo: its rows in the table of views
    captions: list[list[int]]  # per photo: rows of the text table
    weights: NDArray[np.float64]  # (photos,) how often each photo is drawn, sums to 1


def pair_weights(sources: list[str], sentences: float) -> NDArray[np.float64]:
    """Photos with sentences are drawn ``sentences`` times as often as those with labels."""
    weights = np.array([sentences if source in SENTENCE_SOURCES else 1.0 for source in sources])
    return np.asarray(weights / weights.sum())


def new_image_head(dropout: float) -> nn.Sequential:
    """The head that open_clip's timm tower has with ``timm_proj: mlp``, plus training dropout.

    The last layer keeps its bias in training only if open_clip has one; it has none.
    """
    return nn.Sequential(
        nn.Linear(WIDTH, 2 * EMBED_DIM),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(2 * EMBED_DIM, EMBED_DIM, bias=False),
    )


def _draw(
    pairs: Pairs, size: int, chance: np.random.Generator
) -> tuple[NDArray[np.int64], list[int]]:
    """For each of ``size`` photos, the row of one of its views and of one of its captions."""
    chosen = chance.choice(len(pairs.captions), size, replace=False, p=pairs.weights)
    views = np.array([chance.choice(pairs.views[photo]) for photo in chosen])
    rows = [int(chance.choice(pairs.captions[photo])) for photo in chosen]
    return views, rows


def _cosine_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up, then half a cosine to zero."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


@dataclass(frozen=True)
class Fitted:
    """A head, the map of the teacher's space, and the logs of two logit scales.

    The scales are of captions and of classes.
    """

    head: nn.Sequential
    text_map: nn.Linear
    log_scales: Tensor


def fit_head(
    pairs: Pairs,
    features: NDArray[np.float16],
    sentences: Tensor,
    teacher: Tensor,
    knowledge: ClassKnowledge,
    classes: Tensor,
    config: FitConfig,
    tell: Tell,
    *,
    start: Fitted | None = None,
    seed: int = 0,
) -> Fitted:
    """Fits the head to texts, and without a ``start`` a linear map of the texts as well.

    ``features`` (rows, 1280) are pooled features of all views; ``sentences`` (texts, 384) unit rows
    of the captions and ``classes`` (phrases, 384) those of the knowledge's texts; ``teacher`` says
    which captions mean the same. With a ``start`` its head goes on, its map is left alone, and
    the texts are taken as they are.
    """
    torch.manual_seed(seed)
    chance, names = np.random.default_rng(seed), random.Random(seed)
    head = new_image_head(config.dropout)
    text_map = nn.Linear(EMBED_DIM, EMBED_DIM, bias=False)
    with torch.no_grad():
        nn.init.eye_(text_map.weight)
    scales = nn.Parameter(torch.full((2,), math.log(1 / 0.07)))  # logs: of captions, of classes
    if start is not None:
        head.load_state_dict(start.head.state_dict())
        scales.data.copy_(start.log_scales)
        text_map.requires_grad_(False)
    learned = [*head.parameters(), *(text_map.parameters() if start is None else ())]
    groups: list[dict[str, Any]] = [
        {"params": learned},
        {"params": [scales], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.rate, weight_decay=0.1)
    average = {name: value.clone() for name, value in head.state_dict().items()}
    started = time.monotonic()
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = _cosine_rate(step, config.steps, config.rate, config.steps // 12)
        views, rows = _draw(pairs, config.batch, chance)
        seen = torch.from_numpy(features[views].astype(np.float32))
        images = F.normalize(head(F.dropout(seen, config.dropout_of_features)), dim=1)
        texts = F.normalize(text_map(sentences[rows]), dim=1)
        alike = teacher[rows] @ teacher[rows].T > _SAME_MEANING
        contrast = contrastive_loss(images, texts, scales[0].exp(), alike)
        shares, phrases = knowledge.draw(seen, names)
        named = F.normalize(text_map(classes[phrases]), dim=1)
        divergence = _named_divergence(images, named, scales[1].exp(), shares)
        loss = contrast + config.knowledge * divergence
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            scales.clamp_(max=math.log(MAX_LOGIT_SCALE))
            for name, value in head.state_dict().items():
                average[name].lerp_(value, 1 - config.average)
        if step % 100 == 99:
            tell(
                f"head {step + 1}/{config.steps} contrast {contrast.item():.3f} divergence "
                f"{divergence.item():.3f} {time.monotonic() - started:.0f} s"
            )
    head.load_state_dict(average)
    final = text_map if start is None else start.text_map
    return Fitted(head.eval(), final, scales.detach())


def _named_divergence(images: Tensor, names: Tensor, scale: Tensor, shares: Tensor) -> Tensor:
    """KL of the classifier's ``shares`` (n, names) from softmax(scale images names')."""
    guesses = F.log_softmax(scale * images @ names.T, dim=1)
    return F.kl_div(guesses, shares, reduction="batchmean")
