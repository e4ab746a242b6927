"""The last stage: the backbone's upper stages, the head and the text tower learn together.

Five losses at once: the contrast of photos and captions as the shipped towers see them (CLIP
section 2.3) with vectors of earlier batches as further wrong answers (cross-batch memory, Wang et
al. 2020, arXiv 1912.06798); the same contrast with the teacher's mean of all captions of a photo;
what the ImageNet classifier says of the photo (see ``class_knowledge``); and the text tower's
imitation of its teacher on words that no caption holds. What is exported is the running average of
the weights.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from training.embedded.backbone import Upper
from training.embedded.class_knowledge import ClassKnowledge
from training.embedded.config import JointConfig
from training.embedded.heads import SAME_MEANING, Pairs, draw, named_divergence
from training.embedded.student import Tell, Texts, encode_trimmed, imitation_loss
from training.loss import MAX_LOGIT_SCALE, contrastive_loss


class Towers(nn.Module):
    """All that learns: upper stages, image head, text tower, and three logs of logit scales.

    The scales are of captions, of the teacher's means, and of classes.
    """

    def __init__(self, upper: Upper, head: nn.Sequential, text: Any, log_scales: Tensor) -> None:
        super().__init__()
        self.upper, self.head, self.text = upper, head, text
        self.log_scales = nn.Parameter(log_scales)

    def images(self, lower: NDArray[np.float16]) -> Tensor:
        """(n, dim) unit rows of the lower stages' outputs (n, channels, h, w)."""
        x = torch.from_numpy(np.asarray(lower, np.float32))
        x = x.contiguous(memory_format=torch.channels_last)
        return F.normalize(self.head(self.upper(x)), dim=1)

    def texts(self, tokens: Tensor) -> Tensor:
        """(n, dim) unit rows of token ids."""
        return F.normalize(encode_trimmed(self.text, tokens), dim=1)


@dataclass(frozen=True)
class Material:
    """What the stage learns from.

    ``lower`` (rows, channels, h, w) and ``pooled`` (rows, 1280): views of photos; ``teacher``
    (texts, dim): raw unit rows, to tell which captions mean the same; ``targets`` (texts and
    phrases, dim): the same mapped into the model's space, of ``texts``; the phrases of the
    classifier's classes start at ``first_phrase``.
    """

    pairs: Pairs
    lower: NDArray[np.float16]
    pooled: NDArray[np.float16]
    texts: Texts
    teacher: Tensor
    targets: Tensor
    first_phrase: int
    knowledge: ClassKnowledge


class Memory:
    """Vectors of the last batches: images, texts, and what they are of."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.images = self.texts = torch.empty(0, 0)
        self.photos = np.empty(0, np.int64)
        self.captions: list[int] = []

    def add(
        self, images: Tensor, texts: Tensor, photos: NDArray[np.int64], rows: list[int]
    ) -> None:
        """Keeps a batch and forgets the oldest beyond the size."""
        if self._size == 0:
            return
        if len(self.photos) == 0:
            self.images, self.texts = images[:0].detach(), texts[:0].detach()
        self.images = torch.cat([self.images, images.detach()])[-self._size :]
        self.texts = torch.cat([self.texts, texts.detach()])[-self._size :]
        self.photos = np.concatenate([self.photos, photos])[-self._size :]
        self.captions = [*self.captions, *rows][-self._size :]


def contrast_with_memory(
    images: Tensor, texts: Tensor, scale: Tensor, alike: Tensor, memory: Memory, known: Tensor
) -> Tensor:
    """CLIP's loss with the memory's texts and images as further wrong answers.

    ``images`` and ``texts`` (n, dim) unit rows; ``alike`` (n, n) pairs that are no wrong answers;
    ``known`` (n, m) the same for the m vectors of the memory. Equals ``contrastive_loss`` when the
    memory is empty.
    """
    if len(memory.photos) == 0:
        return contrastive_loss(images, texts, scale, alike)
    others = alike & ~torch.eye(len(alike), dtype=torch.bool)
    mask = torch.cat([others | others.T, known], dim=1)
    target = torch.arange(len(images))
    of_images = scale * images @ torch.cat([texts, memory.texts]).T
    of_texts = scale * texts @ torch.cat([images, memory.images]).T
    return 0.5 * (
        F.cross_entropy(of_images.masked_fill(mask, -1e4), target)
        + F.cross_entropy(of_texts.masked_fill(mask, -1e4), target)
    )


def train_jointly(
    towers: Towers, material: Material, config: JointConfig, kept: Path, tell: Tell, seed: int = 0
) -> None:
    """Trains for ``config.seconds`` and leaves the average weights in ``towers``.

    ``kept`` is the checkpoint: written every ``save_every_seconds``, read if it is there. Seconds
    already spent count; the memory starts empty again.
    """
    optimizer = _optimizer(towers, config)
    average = {name: value.clone() for name, value in towers.state_dict().items()}
    step, spent = 0, 0.0
    if kept.exists():
        state = torch.load(kept, map_location="cpu", weights_only=True)
        towers.load_state_dict(state["towers"])
        optimizer.load_state_dict(state["optimizer"])
        average, step, spent = state["average"], state["step"], state["spent"]
        tell(f"joint goes on from step {step}, {spent:.0f} s")
    memory = Memory(config.memory)
    started, saved, shown = time.monotonic() - spent, spent, spent
    while (elapsed := time.monotonic() - started) < config.seconds:
        share = min(1.0, (step + 1) / config.warmup)
        share *= 0.5 * (1 + math.cos(math.pi * elapsed / config.seconds))
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share
        losses = _losses(towers, material, config, memory, seed * 1_000_003 + step)
        loss = (
            losses["captions"]
            + config.teacher * losses["teacher"]
            + config.knowledge * losses["classes"]
            + config.words * losses["words"]
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(towers.parameters(), 1.0)
        optimizer.step()
        step += 1
        decay = min(config.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            towers.log_scales.clamp_(max=math.log(MAX_LOGIT_SCALE))
            for name, value in towers.state_dict().items():
                if value.is_floating_point():
                    average[name].lerp_(value, 1 - decay)
        if elapsed - shown > 30:
            shown = elapsed
            said = " ".join(f"{name} {float(value):.3f}" for name, value in losses.items())
            tell(f"joint step {step} {said} {elapsed:.0f} of {config.seconds:.0f} s")
        if elapsed - saved > config.save_every_seconds:
            saved = elapsed
            _save(kept, towers, optimizer, average, step, elapsed)
    towers.load_state_dict(average)
    towers.eval()


def _losses(
    towers: Towers, material: Material, config: JointConfig, memory: Memory, seed: int
) -> dict[str, Tensor]:
    chance, names = np.random.default_rng(seed), random.Random(seed)
    torch.manual_seed(seed)
    towers.train()
    pairs = material.pairs
    photos, views, rows = draw(pairs, config.batch, chance)
    images = towers.images(material.lower[np.sort(views)])
    order = np.argsort(np.argsort(views, kind="stable"), kind="stable")
    images = images[torch.from_numpy(order)]
    texts = towers.texts(material.texts.batch(rows))
    means = torch.stack([material.targets[pairs.captions[photo]].mean(0) for photo in photos])
    meant = material.teacher[rows]
    alike = meant @ meant.T > SAME_MEANING
    known = torch.from_numpy(photos[:, None] == memory.photos[None, :])
    if memory.captions:
        known |= meant @ material.teacher[memory.captions].T > SAME_MEANING
    scales = towers.log_scales.exp()
    pooled = torch.from_numpy(material.pooled[views].astype(np.float32))
    shares, phrases = material.knowledge.draw(pooled, names)
    named = material.targets[torch.tensor(phrases) + material.first_phrase]
    words = _words(material, config.batch, chance)
    losses = {
        "captions": contrast_with_memory(images, texts, scales[0], alike, memory, known),
        "teacher": contrastive_loss(images, F.normalize(means, dim=1), scales[1], alike),
        "classes": named_divergence(images, named, scales[2], shares),
        "words": imitation_loss(
            encode_trimmed(towers.text, material.texts.batch(words)), material.targets[words]
        ),
    }
    memory.add(images, texts, photos, rows)
    return losses


def _words(material: Material, size: int, chance: np.random.Generator) -> NDArray[np.int64]:
    """Rows of texts of like length: a fifth of them of class names, the others of all texts."""
    total, phrases = len(material.targets), len(material.targets) - material.first_phrase
    pool = chance.integers(total, size=4 * size)
    named = chance.random(4 * size) < 0.2
    pool[named] = material.first_phrase + chance.integers(phrases, size=int(named.sum()))
    pool = pool[np.argsort(material.texts.lengths[pool], kind="stable")]
    start = int(chance.integers(4)) * size
    return np.asarray(pool[start : start + size])


def _optimizer(towers: Towers, config: JointConfig) -> torch.optim.AdamW:
    """AdamW at a rate for each part; no decay on gains, biases, embeddings and scales."""
    rates = {"upper": config.rate_stages, "head": config.rate_head, "text": config.rate_text}
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in towers.named_parameters():
        decayed = parameter.ndim >= 2 and "embedding" not in name
        groups.setdefault((name.split(".")[0], decayed), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "peak": rates.get(part, config.rate_head),
                "weight_decay": config.weight_decay if decayed else 0.0,
            }
            for (part, decayed), parameters in sorted(groups.items(), key=lambda each: each[0])
        ],
        betas=(0.9, 0.98),
    )


def _save(
    kept: Path,
    towers: Towers,
    optimizer: torch.optim.Optimizer,
    average: dict[str, Tensor],
    step: int,
    spent: float,
) -> None:
    half = kept.with_suffix(".part")
    state = {
        "towers": towers.state_dict(),
        "optimizer": optimizer.state_dict(),
        "average": average,
        "step": step,
        "spent": spent,
    }
    torch.save(state, half)
    half.replace(kept)
