"""What brings pictures and texts into one space, fitted to what the frozen models say of them.

Symmetric cross-entropy (CLIP section 2.3) of the captioned photos, and what the ImageNet classifier
says of them (distillation of logits). The head learns alone, or together with the last stage of
the backbone, which starts from its published weights.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from training.checkpoint import load_checkpoint, save_checkpoint
from training.embedded.backbone import WIDTH, Tail
from training.embedded.class_knowledge import ClassKnowledge
from training.embedded.config import FitConfig
from training.embedded.corpus import SENTENCE_SOURCES
from training.embedded.image_features import has_bfloat16
from training.embedded.progress import CHECKPOINT_SECONDS, Tell
from training.embedded.student import EMBED_DIM
from training.loss import MAX_LOGIT_SCALE, contrastive_loss

_SAME_MEANING = 0.93  # teacher cosine above which two captions are not each other's negatives


class Pairs:
    """Photos with their rows in the tables of views and of texts.

    ``views`` are each photo's rows in the table of views, ``captions`` its rows in that of texts,
    ``weights`` (photos,) how often each is drawn, sums to 1.
    """

    def __init__(
        self,
        views: list[NDArray[np.int64]],
        captions: list[list[int]],
        weights: NDArray[np.float64],
    ) -> None:
        self.captions, self._weights = captions, weights
        self._views, self._view_counts = _ragged(views)
        self._rows, self._row_counts = _ragged(captions)

    def draw(
        self, size: int, chance: np.random.Generator, captions: int = 1
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Of ``size`` different photos, each one's row of a view, and (size, captions) of texts."""
        photos = chance.choice(len(self._weights), size, replace=False, p=self._weights)
        views = (chance.random(size) * self._view_counts[photos]).astype(np.int64)
        counts = self._row_counts[photos, None]
        rows = (chance.random((size, captions)) * counts).astype(np.int64)
        return self._views[photos, views], self._rows[photos[:, None], rows]


def _ragged(lists: list[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(n, longest) with zeros after each row's end, and (n,) the rows' lengths."""
    lengths = np.array([len(entry) for entry in lists])
    table = np.zeros((len(lists), lengths.max()), np.int64)
    table[np.arange(lengths.max()) < lengths[:, None]] = np.concatenate(lists)
    return table, lengths


def pair_weights(sources: list[str], sentences: float) -> NDArray[np.float64]:
    """Photos with sentences are drawn ``sentences`` times as often as those with labels."""
    weights = np.array([sentences if source in SENTENCE_SOURCES else 1.0 for source in sources])
    return np.asarray(weights / weights.sum())


class Joint(nn.Module):
    """What brings pictures and texts into one space.

    ``head`` (1280 to 384) of the pictures is the one that open_clip's timm tower has with
    ``timm_proj: mlp``, plus training ``dropout``; ``text_map`` (384 to 384) is of the teacher's
    space; ``log_scales`` (2,) are the logs of the logit scales of captions and of classes.
    ``tail`` is the end of the backbone where it learns.
    """

    def __init__(self, dropout: float = 0.0, tail: Tail | None = None) -> None:
        super().__init__()
        self.tail = tail
        self.head = nn.Sequential(
            nn.Linear(WIDTH, 2 * EMBED_DIM),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * EMBED_DIM, EMBED_DIM, bias=False),
        )
        self.text_map = nn.Linear(EMBED_DIM, EMBED_DIM, bias=False)
        nn.init.eye_(self.text_map.weight)
        self.log_scales = nn.Parameter(torch.full((2,), math.log(1 / 0.07)))

    def images(self, features: Tensor) -> Tensor:
        """(n, 384) unit rows of (n, 1280) pooled features."""
        return F.normalize(self.head(features), dim=1)

    def texts(self, sentences: Tensor) -> Tensor:
        """(n, 384) unit rows of (n, 384) sentence vectors of the teacher."""
        return F.normalize(self.text_map(sentences), dim=1)


@dataclass(frozen=True)
class Lessons:
    """What is learned from: photos with captions, and the classifier's knowledge of them.

    ``maps`` (views, channels, height, width) are what the frozen part of the backbone made of each
    view and ``pooled`` (views, 1280) what all of it, as published, made of them; ``teacher``
    (texts, 384) are unit rows that say which captions mean the same.
    """

    pairs: Pairs
    maps: NDArray[np.float16]
    pooled: NDArray[np.float16]
    teacher: Tensor
    knowledge: ClassKnowledge | None


def fit(
    lessons: Lessons,
    sentences: Tensor,
    classes: Tensor,
    config: FitConfig,
    tell: Tell,
    *,
    start: Joint | None = None,
    tail: Tail | None = None,
    checkpoint: Path | None = None,
    seed: int = 0,
) -> Joint:
    """Fits the head to texts, and without a ``start`` the map of the texts as well.

    ``sentences`` (texts, 384) are unit rows of the captions, ``classes`` (phrases, 384) those of
    the knowledge's texts. With a ``start`` its head goes on, its map is left alone, and the texts
    are taken as they are. A ``tail`` of the backbone learns as well, at ``config.tail_rate``. What
    comes out are averages of the weights over the steps, and the ``start``'s own map.

    The folder ``checkpoint`` lets the same call go on where it was interrupted and give the same
    weights; it is gone at the end.
    """
    torch.manual_seed(seed)
    joint = Joint(config.dropout, tail)
    if start is not None:
        joint.head.load_state_dict(start.head.state_dict())
        joint.log_scales.data.copy_(start.log_scales)
        joint.text_map.requires_grad_(False)  # the identity: the texts are in the space already
    if tail is not None:
        tail.eval()  # what its batch norms have counted is of a million photos
    optimizer, peaks = _optimizer(joint, config)
    average = {name: value.clone() for name, value in joint.state_dict().items()}
    recipe = json.dumps({"settings": asdict(config), "seed": seed})
    first = 0
    if checkpoint is not None:
        first = load_checkpoint(checkpoint, joint, optimizer, recipe, average)
    started = saved = time.monotonic()
    for step in range(first, config.steps):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = _cosine_rate(step, config.steps, peak, max(1, config.steps // 12))
        torch.manual_seed(seed * 1_000_003 + step)  # of dropout
        contrast, divergence, pull = _losses(
            joint, lessons, sentences, classes, config, np.random.default_rng([seed, step])
        )
        loss = contrast + config.knowledge * divergence + config.map_pull * pull
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            joint.log_scales.clamp_(max=math.log(MAX_LOGIT_SCALE))
            for name, value in joint.state_dict().items():
                if value.is_floating_point():  # batch norms count their batches
                    average[name].lerp_(value, 1 - config.average)
        if step % 50 == 49:
            tell(
                f"fit {step + 1}/{config.steps} contrast {contrast.item():.3f} divergence "
                f"{divergence.item():.3f} {time.monotonic() - started:.0f} s"
            )
        if checkpoint is not None and time.monotonic() - saved > CHECKPOINT_SECONDS:
            saved = time.monotonic()
            save_checkpoint(checkpoint, joint, optimizer, step + 1, recipe, average)
    joint.load_state_dict(average)
    if start is not None:
        joint.text_map.load_state_dict(start.text_map.state_dict())
    if checkpoint is not None:
        shutil.rmtree(checkpoint, ignore_errors=True)
    return joint.eval()


def _optimizer(joint: Joint, config: FitConfig) -> tuple[torch.optim.AdamW, list[float]]:
    """AdamW, and the highest rate of each of its groups.

    No decay of the scales, nor of the tail's convolutions, which are to stay near where they start;
    its batch norms do not learn.
    """
    head = [*joint.head.parameters(), *joint.text_map.parameters()]
    groups: list[dict[str, Any]] = [
        {"params": [value for value in head if value.requires_grad], "weight_decay": 0.1},
        {"params": [joint.log_scales], "weight_decay": 0.0},
    ]
    peaks = [config.rate, config.rate]
    if joint.tail is not None:
        kinds = [module for module in joint.tail.modules() if isinstance(module, nn.Conv2d)]
        weights = [module.weight for module in kinds]
        groups.append({"params": weights, "weight_decay": 0.0})
        peaks.append(config.tail_rate)
    return torch.optim.AdamW(groups, lr=config.rate), peaks


def _losses(
    joint: Joint,
    lessons: Lessons,
    sentences: Tensor,
    classes: Tensor,
    config: FitConfig,
    chance: np.random.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """Of one batch: contrast, divergence from the classifier, and the map's from the identity."""
    views, rows = lessons.pairs.draw(config.batch, chance, config.captions)
    pooled = torch.from_numpy(lessons.pooled[views].astype(np.float32))
    features = pooled
    if joint.tail is not None:
        maps = torch.from_numpy(lessons.maps[views].astype(np.float32))
        with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):
            features = joint.tail(maps)
    images = joint.images(F.dropout(features.float(), config.dropout_of_features))
    meant = F.normalize(lessons.teacher[rows].mean(dim=1), dim=1)
    alike = meant @ meant.T > _SAME_MEANING
    scales = joint.log_scales.exp()
    contrast = contrastive_loss(images, joint.texts(sentences[rows].mean(dim=1)), scales[0], alike)
    divergence = torch.zeros(())
    if config.knowledge and lessons.knowledge is not None:
        names = random.Random(int(chance.integers(2**62)))
        shares, phrases = lessons.knowledge.draw(pooled, names)
        divergence = _named_divergence(images, joint.texts(classes[phrases]), scales[1], shares)
    weight = joint.text_map.weight
    pull = (weight - torch.eye(len(weight))).square().sum()
    return contrast, divergence, pull


def _cosine_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up, then half a cosine to zero."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _named_divergence(images: Tensor, names: Tensor, scale: Tensor, shares: Tensor) -> Tensor:
    """KL of the classifier's ``shares`` (n, names) from softmax(scale images names')."""
    guesses = F.log_softmax(scale * images @ names.T, dim=1)
    return F.kl_div(guesses, shares, reduction="batchmean")
