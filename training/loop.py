"""The training loop: one readable pass from captions to weights.

After CLIP (Radford et al. 2021), sections 2.3-2.5 and Figure 3: symmetric cross-entropy over the
similarities within a batch, a learned temperature clipped at 100, AdamW with decoupled weight
decay on everything but gains and biases, a cosine schedule, random crops.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clipsearch.encoders.openclip import OpenClipModel
from clipsearch.encoders.preprocessing import Preprocessing
from clipsearch.vectors import Pixels
from training.checkpoint import load_checkpoint, save_checkpoint
from training.data import CaptionedPicture, Views
from training.loss import MAX_LOGIT_SCALE, contrastive_loss

_ENCODED_AT_ONCE = 32
_FIXED_CUTS = 4  # of each picture, for a locked image tower


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights a run ends with, besides the model and the captions."""

    learn: str  # all | text: with text the image tower is locked (LiT, Zhai et al. 2022)
    steps: int
    batch_size: int  # pictures
    lr: float
    warmup: int  # steps
    weight_decay: float = 0.05
    seed: int = 0
    save_every: int = 100  # steps

    def signature(self, model: OpenClipModel, pictures: Sequence[CaptionedPicture]) -> str:
        """Tells runs apart that must not continue each other."""
        data = sorted((picture.content_hash, picture.captions) for picture in pictures)
        return repr((asdict(self), model.weights_sha256, data))


@dataclass(frozen=True)
class Step:
    """What one step did. ``logit_scale`` is exp of the temperature parameter."""

    step: int
    steps: int
    loss: float
    logit_scale: float
    lr: float


class Interrupted(Exception):  # noqa: N818 - it is a wish of the user's, not an error
    """Training was asked to stop; the checkpoint is written."""


def train(
    loaded: OpenClipModel,
    pictures: Sequence[CaptionedPicture],
    recipe: Recipe,
    folder: Path,
    *,
    tell: Callable[[Step], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> None:
    """Trains ``loaded.model`` in place, from the checkpoint in ``folder`` on if there is one.

    The same inputs give the same weights whether or not the run was interrupted, bit for bit on
    the same CPU with the same number of threads. Raises CheckpointError, and Interrupted after
    saving when ``should_stop`` becomes true.
    """
    model: Any = loaded.model
    optimizer = _optimizer(model, recipe)
    signature = recipe.signature(loaded, pictures)
    first = load_checkpoint(folder, model, optimizer, signature)
    _set_training(model)
    side = _ImageSide(loaded, pictures, recipe)
    for step in range(first, recipe.steps):
        if should_stop is not None and should_stop():
            save_checkpoint(folder, model, optimizer, step, signature)
            raise Interrupted
        rate = _learning_rate(step, recipe)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = _loss(loaded, pictures, side, recipe, step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))
        if tell is not None:
            scale = float(model.logit_scale.detach().exp())
            tell(Step(step + 1, recipe.steps, float(loss.detach()), scale, rate))
        if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
            save_checkpoint(folder, model, optimizer, step + 1, signature)
    model.eval().requires_grad_(True)


class _ImageSide:
    """Unit vectors of random cuts; computed once, for a few cuts each, if the tower is locked."""

    def __init__(
        self, loaded: OpenClipModel, pictures: Sequence[CaptionedPicture], recipe: Recipe
    ) -> None:
        self._loaded = loaded
        self._views = Views(pictures, loaded.preprocessing)
        self._fixed: list[Tensor] = []  # per cut: (pictures, dim)
        if recipe.learn == "text":
            chance = random.Random(recipe.seed)
            with torch.no_grad():
                self._fixed = [self._all_cut(len(pictures), chance) for _ in range(_FIXED_CUTS)]

    def vectors(self, places: Sequence[int], chance: random.Random) -> Tensor:
        """(n, dim) unit rows, with gradients unless the tower is locked."""
        if self._fixed:
            return torch.stack([chance.choice(self._fixed)[place] for place in places])
        return self._encoded(places, chance)

    def _all_cut(self, count: int, chance: random.Random) -> Tensor:
        starts = range(0, count, _ENCODED_AT_ONCE)
        batches = (range(start, min(start + _ENCODED_AT_ONCE, count)) for start in starts)
        return torch.cat([self._encoded(places, chance) for places in batches])

    def _encoded(self, places: Sequence[int], chance: random.Random) -> Tensor:
        pixels = normalised(self._views.cut(places, chance), self._loaded.preprocessing)
        model: Any = self._loaded.model
        vectors: Tensor = model.encode_image(pixels, normalize=True)
        return vectors


def _loss(
    loaded: OpenClipModel,
    pictures: Sequence[CaptionedPicture],
    side: _ImageSide,
    recipe: Recipe,
    step: int,
) -> Tensor:
    """The loss of one batch, which depends on nothing but the weights, the seed and the step."""
    chance = random.Random(recipe.seed * 1_000_003 + step)
    torch.manual_seed(chance.getrandbits(48))
    places = chance.sample(range(len(pictures)), min(recipe.batch_size, len(pictures)))
    captions = [chance.choice(pictures[place].captions) for place in places]
    model: Any = loaded.model
    images = side.vectors(places, chance)
    texts = model.encode_text(loaded.tokenizer(captions), normalize=True)
    # Pictures with the same caption are not each other's wrong answers.
    alike = torch.tensor([[a == b for b in captions] for a in captions])
    return contrastive_loss(images, texts, model.logit_scale.exp(), alike)


def normalised(pixels: Pixels, preprocessing: Preprocessing) -> Tensor:
    """(n, 3, h, w) uint8 to float32 with the model's mean and standard deviation."""
    mean = torch.tensor(preprocessing.mean).reshape(1, 3, 1, 1)
    std = torch.tensor(preprocessing.std).reshape(1, 3, 1, 1)
    return (torch.from_numpy(pixels).float() / 255 - mean) / std


def encode(
    loaded: OpenClipModel, pictures: Sequence[CaptionedPicture], texts: Sequence[str]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Unit vectors of pictures, as they will be indexed, and of texts; float32."""
    model: Any = loaded.model.eval()
    views = Views(pictures, loaded.preprocessing)
    images, sentences = [], []
    with torch.no_grad():
        for start in range(0, len(pictures), _ENCODED_AT_ONCE):
            places = range(start, min(start + _ENCODED_AT_ONCE, len(pictures)))
            pixels = normalised(views.whole(places), loaded.preprocessing)
            images.append(model.encode_image(pixels, normalize=True).numpy())
        for start in range(0, len(texts), _ENCODED_AT_ONCE):
            tokens = loaded.tokenizer(list(texts[start : start + _ENCODED_AT_ONCE]))
            sentences.append(model.encode_text(tokens, normalize=True).numpy())
    return np.concatenate(images), np.concatenate(sentences)


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW on what may learn; no weight decay on gains, biases and the temperature."""
    if recipe.learn == "text":
        visual: Any = model.visual
        visual.requires_grad_(False)
    learning = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in learning if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in learning if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.98), eps=1e-6)


def _set_training(model: nn.Module) -> None:
    """Train mode, but for batch norms: their statistics are of far more pictures than a user's."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def _learning_rate(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then a half cosine to zero."""
    if step < recipe.warmup:
        return recipe.lr * (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * done))
