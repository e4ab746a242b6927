"""The training loop: one readable pass from captions to weights.

After CLIP (Radford et al. 2021), sections 2.3-2.5 and Figure 3: symmetric cross-entropy over the
similarities within a batch, a learned temperature clipped at 100, AdamW with decoupled weight
decay on everything but gains and biases, a cosine schedule, random crops.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor, nn

from clipsearch.encoders.openclip import OpenClipModel
from training.checkpoint import load_checkpoint, save_checkpoint
from training.data import CaptionedPicture
from training.general_texts import general_texts
from training.grad_cache import backward_in_chunks
from training.layers import depths, images_move, prepare_layers
from training.lora import merge_lora
from training.loss import MAX_LOGIT_SCALE, contrastive_loss, feature_distillation, sigmoid_loss
from training.towers import encode_pictures, encode_texts, image_vectors, text_vectors
from training.views import Cut, Views

_ENCODED_AT_ONCE = 32
_FIXED_CUTS = 4  # of each picture, for a locked image tower
_GENERAL_TEXTS = 256  # to keep close to the old model on
_KEPT_AT_ONCE = 16


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights a run ends with, besides the model and the captions."""

    learn: str  # see layers.prepare_layers
    steps: int
    batch_size: int  # pictures
    lr: float
    warmup: int  # steps
    weight_decay: float = 0.05
    seed: int = 0
    save_every: int = 100  # steps
    loss: str = "clip"  # clip | siglip
    keep_close: float = 0.0  # weight of the distance to what the old model said
    layer_decay: float = 1.0  # of the learning rate, for every block down from the top
    chunk: int = 0  # pictures encoded with a graph at once; 0: the whole batch
    cut: Cut = field(default_factory=Cut)  # of training pictures

    def signature(self, model: OpenClipModel, pictures: Sequence[CaptionedPicture]) -> str:
        """Tells runs apart that must not continue each other."""
        data = repr([(picture.content_hash, picture.captions) for picture in pictures])
        return json.dumps(
            {
                "settings": asdict(self),
                "weights": model.weights_sha256,
                "captions or pictures": xxhash.xxh3_128_hexdigest(data.encode()),
            }
        )


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
    signature = recipe.signature(loaded, pictures)
    side = _ImageSide(loaded, pictures, recipe)
    old = _Old(loaded, side.views, recipe)
    prepare_layers(model, recipe.learn)
    few = range(min(recipe.batch_size, len(pictures), _ENCODED_AT_ONCE))

    def similarities() -> Tensor:
        texts = text_vectors(loaded, [pictures[place].captions[0] for place in few])
        return side.vectors(few, "first") @ texts.T

    with _with_bias(loaded, recipe, similarities):
        optimizer = _optimizer(model, recipe)
        first = load_checkpoint(folder, model, optimizer, signature)
        _set_training(model)
        for step in range(first, recipe.steps):
            if should_stop is not None and should_stop():
                save_checkpoint(folder, model, optimizer, step, signature)
                raise Interrupted
            rate = _learning_rate(step, recipe)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["share"]
            optimizer.zero_grad(set_to_none=True)
            loss = _backward(loaded, pictures, side, old, recipe, step)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            with torch.no_grad():
                model.logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))
            if tell is not None:
                scale = float(model.logit_scale.detach().exp())
                tell(Step(step + 1, recipe.steps, float(loss), scale, rate))
            if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
                save_checkpoint(folder, model, optimizer, step + 1, signature)
    merge_lora(model)
    model.eval().requires_grad_(True)


class _ImageSide:
    """Unit vectors of random cuts; computed once, for a few cuts each, if the tower is locked."""

    def __init__(
        self, loaded: OpenClipModel, pictures: Sequence[CaptionedPicture], recipe: Recipe
    ) -> None:
        self._loaded = loaded
        self.views = Views(pictures, loaded.preprocessing, recipe.cut)
        self._fixed: list[Tensor] = []  # per cut: (pictures, dim)
        if not images_move(recipe.learn):
            chance = random.Random(recipe.seed)
            with torch.no_grad():
                self._fixed = [self._all_cut(len(pictures), chance) for _ in range(_FIXED_CUTS)]

    def vectors(self, places: Sequence[int], seed: str) -> Tensor:
        """(n, dim) unit rows, with gradients unless the tower is locked; the same for a seed."""
        chance = random.Random(seed)
        if self._fixed:
            return torch.stack([chance.choice(self._fixed)[place] for place in places])
        return image_vectors(self._loaded, self.views.cut(places, chance))

    def _all_cut(self, count: int, chance: random.Random) -> Tensor:
        starts = range(0, count, _ENCODED_AT_ONCE)
        batches = (range(start, min(start + _ENCODED_AT_ONCE, count)) for start in starts)
        return torch.cat(
            [image_vectors(self._loaded, self.views.cut(places, chance)) for places in batches]
        )


class _Old:
    """What the model said before it learned, to be kept close to (``Recipe.keep_close``)."""

    def __init__(self, loaded: OpenClipModel, views: Views, recipe: Recipe) -> None:
        self.texts = general_texts(_GENERAL_TEXTS, "learn") if recipe.keep_close else []
        self._images: Tensor | None = None
        if recipe.keep_close:
            self._of_texts = torch.from_numpy(encode_texts(loaded, self.texts))
            if images_move(recipe.learn):
                self._images = torch.from_numpy(encode_pictures(loaded, views))

    def distance(self, loaded: OpenClipModel, chance: random.Random) -> Tensor:
        """How far some general texts have moved."""
        rows = chance.sample(range(len(self.texts)), _KEPT_AT_ONCE)
        now = text_vectors(loaded, [self.texts[row] for row in rows])
        return feature_distillation(now, self._of_texts[rows])

    def picture_distance(self, images: Tensor, places: Sequence[int]) -> Tensor:
        """How far the pictures of a batch have moved; 0 where they cannot."""
        if self._images is None:
            return torch.zeros(())
        return feature_distillation(images, self._images[list(places)])


def _backward(
    loaded: OpenClipModel,
    pictures: Sequence[CaptionedPicture],
    side: _ImageSide,
    old: _Old,
    recipe: Recipe,
    step: int,
) -> Tensor:
    """The gradients and the loss of one batch.

    They depend on nothing but the weights, the recipe and the step: each chunk of pictures is cut,
    and each forward pass drops out, by a seed of its own.
    """
    chance = random.Random(recipe.seed * 1_000_003 + step)
    places = chance.sample(range(len(pictures)), min(recipe.batch_size, len(pictures)))
    captions = [chance.choice(pictures[place].captions) for place in places]
    # Pictures with the same caption are not each other's wrong answers.
    number = {caption: place for place, caption in enumerate(captions)}
    numbers = torch.tensor([number[caption] for caption in captions])
    alike = numbers[:, None] == numbers[None, :]

    def images_of(start: int, stop: int) -> Tensor:
        torch.manual_seed(step * 1_000_003 + start)
        return side.vectors(places[start:stop], f"{recipe.seed} {step} {start}")

    def texts_of(start: int, stop: int) -> Tensor:
        torch.manual_seed(step * 1_000_003 + start + 1)
        return text_vectors(loaded, captions[start:stop])

    def loss_of(vectors: Sequence[Tensor]) -> Tensor:
        images, texts = vectors
        loss = _objective(loaded, recipe, images, texts, alike)
        return loss + recipe.keep_close * old.picture_distance(images, places)

    size = recipe.chunk or len(places)
    chunks = [(start, min(start + size, len(places))) for start in range(0, len(places), size)]
    if len(chunks) > 1:
        loss = backward_in_chunks(
            [[partial(images_of, *c) for c in chunks], [partial(texts_of, *c) for c in chunks]],
            loss_of,
        )
    else:
        loss = loss_of([images_of(*chunks[0]), texts_of(*chunks[0])])
        loss.backward()
    if recipe.keep_close:
        kept = recipe.keep_close * old.distance(loaded, chance)
        kept.backward()
        loss = loss.detach() + kept.detach()
    return loss.detach()


def _objective(
    loaded: OpenClipModel, recipe: Recipe, images: Tensor, texts: Tensor, alike: Tensor
) -> Tensor:
    model: Any = loaded.model
    scale = model.logit_scale.exp()
    if recipe.loss == "siglip":
        return sigmoid_loss(images, texts, scale, model.logit_bias, alike)
    return contrastive_loss(images, texts, scale, alike)


@contextmanager
def _with_bias(
    loaded: OpenClipModel, recipe: Recipe, first: Callable[[], Tensor]
) -> Iterator[None]:
    """Lends a model without SigLIP's bias one while it trains with that loss.

    The bias moves all similarities alike, so no search can tell whether it is there, and the model
    keeps its form. It starts where a pair of another picture and caption has the odds of its share.
    """
    model: Any = loaded.model
    lent = recipe.loss == "siglip" and getattr(model, "logit_bias", None) is None
    if lent:
        with torch.no_grad():
            similar = first()
            start = -math.log(max(1, len(similar) - 1)) - model.logit_scale.exp() * similar.mean()
        model.logit_bias = nn.Parameter(start.reshape(()))
    try:
        yield
    finally:
        if lent:
            del model.logit_bias
            model.logit_bias = None


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW on what may learn; no weight decay on gains, biases and the temperature.

    Parameters deeper in their tower learn slower by ``layer_decay`` a block.
    """
    deep = depths(model) if recipe.layer_decay != 1 else {}
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((deep.get(name, 0), parameter.ndim >= 2), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": recipe.weight_decay if is_matrix else 0.0,
                "share": recipe.layer_decay**depth,
            }
            for (depth, is_matrix), parameters in sorted(groups.items(), key=lambda each: each[0])
        ],
        lr=recipe.lr,
        betas=(0.9, 0.98),
        eps=1e-6,
    )


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
