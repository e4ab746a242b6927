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
from clipsearch.errors import TrainingError
from training.blockwise import contrastive_in_blocks, sigmoid_in_blocks
from training.checkpoint import load_checkpoint, save_checkpoint
from training.data import CaptionedPicture
from training.device import check_compiler
from training.grad_cache import backward_in_chunks
from training.layers import images_move, prepare_layers, texts_move
from training.lora import merge_lora
from training.loss import MAX_LOGIT_SCALE
from training.optimizer import Average, learning_rate, make_optimizer
from training.sides import ENCODED_AT_ONCE, ImageSide, TextSide
from training.teaching import KEPT_AT_ONCE, OldSelf, Teacher
from training.team import ALONE, Team
from training.towers import text_vectors
from training.views import Cut


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
    ema: float = 0.0  # decay of the running mean of the weights; 0: the last weights
    precision: str = "f32"  # of the towers: f32 | bf16; weights and loss are float32
    compiled: bool = False  # the image tower, by torch.compile
    checkpoint_blocks: bool = False  # compute blocks again instead of keeping what they said
    teacher: str = ""  # sha256 of its weights
    teach: str = "both"  # both | images | texts, see teaching.Teacher
    teacher_weight: float = 1.0
    side: int = 0  # of the pictures, in pixels; 0: the model's own

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
    teacher: OpenClipModel | None = None,
    team: Team = ALONE,
    tell: Callable[[Step], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> None:
    """Trains ``loaded.model`` in place, from the checkpoint in ``folder`` on if there is one.

    The same inputs give the same weights whether or not the run was interrupted, bit for bit on
    the same CPU with the same number of threads and processes. All processes of a ``team`` call
    this with the same inputs and end with the same weights; the first writes. Raises
    CheckpointError, TrainingError, and Interrupted after saving when ``should_stop`` becomes true.
    """
    model: Any = loaded.model
    if min(recipe.batch_size, len(pictures)) < team.size:
        raise TrainingError(
            reason=f"{team.size} processes need batches of as many pictures at least: "
            "give a larger --batch-size or more pictures"
        )
    signature = recipe.signature(loaded, pictures)
    batches = Batches(loaded, pictures, recipe, teacher, team)
    prepare_layers(model, recipe.learn)
    if recipe.checkpoint_blocks:
        model.set_grad_checkpointing(True)
    with _with_bias(loaded, recipe, batches.first_similarities):
        optimizer = make_optimizer(
            model, lr=recipe.lr, weight_decay=recipe.weight_decay, layer_decay=recipe.layer_decay
        )
        average = Average(model, recipe.ema)
        first = load_checkpoint(folder, model, optimizer, signature, average.weights)

        def save(step: int) -> None:
            if team.leads:
                save_checkpoint(folder, model, optimizer, step, signature, average.weights)

        _set_training(model)
        for step in range(first, recipe.steps):
            if should_stop is not None and team.any(should_stop()):
                save(step)
                raise Interrupted
            rate = learning_rate(step, steps=recipe.steps, warmup=recipe.warmup, lr=recipe.lr)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["share"]
            optimizer.zero_grad(set_to_none=True)
            loss = batches.backward(step)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            with torch.no_grad():
                model.logit_scale.clamp_(max=math.log(MAX_LOGIT_SCALE))
            average.follow(step)
            if tell is not None:
                scale = float(model.logit_scale.detach().exp())
                tell(Step(step + 1, recipe.steps, float(loss), scale, rate))
            if (step + 1) % recipe.save_every == 0 or step + 1 == recipe.steps:
                save(step + 1)
        average.put_into_model()
    if recipe.checkpoint_blocks:
        model.set_grad_checkpointing(False)
    merge_lora(model)
    model.eval().requires_grad_(True)


class Batches:
    """What is learned in each step: a batch, its loss, and this model's gradients."""

    def __init__(
        self,
        loaded: OpenClipModel,
        pictures: Sequence[CaptionedPicture],
        recipe: Recipe,
        teacher: OpenClipModel | None,
        team: Team,
    ) -> None:
        self._loaded, self._pictures, self._recipe, self._team = loaded, pictures, recipe, team
        moves, speaks = images_move(recipe.learn), texts_move(recipe.learn)
        if recipe.compiled:
            if not moves:
                raise TrainingError(
                    reason="--compile compiles the image tower, which --learn text locks: leave "
                    "one of them out, or --learn all"
                )
            check_compiler()
        with self._precision():
            self._images = ImageSide(
                loaded,
                pictures,
                locked=not moves,
                seed=recipe.seed,
                cut=recipe.cut,
                compiled=recipe.compiled,
            )
            self._texts = TextSide(loaded, pictures, locked=not speaks)
        self._old = OldSelf(
            loaded, self._images.views, wanted=bool(recipe.keep_close), images_move=moves
        )
        self._teacher = Teacher(teacher, pictures, recipe.teach, team) if teacher else None

    def first_similarities(self) -> Tensor:
        """Of a few pictures and captions, before anything is learned."""
        few = range(min(self._recipe.batch_size, len(self._pictures), ENCODED_AT_ONCE))
        texts = self._texts.vectors([self._pictures[place].captions[0] for place in few])
        return self._images.vectors(few, "first") @ texts.T

    def backward(self, step: int) -> Tensor:
        """The gradients and the loss of the whole batch, in every process of the team.

        They depend on nothing but the weights, the recipe and the step: each picture is cut by a
        seed of its own, each chunk drops out by one.
        """
        recipe, team = self._recipe, self._team
        chance = random.Random(recipe.seed * 1_000_003 + step)
        count = min(recipe.batch_size, len(self._pictures))
        places = chance.sample(range(len(self._pictures)), count)
        captions = [chance.choice(self._pictures[place].captions) for place in places]
        # Pictures with the same caption are not each other's wrong answers.
        number = {caption: place for place, caption in enumerate(captions)}
        own = slice(*team.share(count))
        groups = torch.tensor([number[c] for c in captions[own]], device=self._loaded.device)

        def images_of(start: int, stop: int) -> Tensor:
            torch.manual_seed(step * 1_000_003 + start)
            with self._precision():
                return self._images.vectors(places[start:stop], f"{recipe.seed} {step}")

        def texts_of(start: int, stop: int) -> Tensor:
            torch.manual_seed(step * 1_000_003 + start + 1)
            with self._precision():
                return self._texts.vectors(captions[start:stop])

        def loss_of(vectors: Sequence[Tensor]) -> Tensor:
            images, texts = vectors
            return self._loss(images, texts, places[own], captions[own], groups, count)

        size = recipe.chunk or count
        starts = range(own.start, own.stop, size)
        chunks = [(start, min(start + size, own.stop)) for start in starts]
        if len(chunks) > 1:
            loss = backward_in_chunks(
                [[partial(images_of, *c) for c in chunks], [partial(texts_of, *c) for c in chunks]],
                loss_of,
            )
        else:
            loss = loss_of([images_of(*chunks[0]), texts_of(*chunks[0])])
            loss.backward()
        if recipe.keep_close:
            loss = loss.detach() + self._keep_close(chance)
        team.sum_gradients(self._loaded.model)
        return team.sum(loss.detach().clone())

    def _loss(
        self,
        images: Tensor,
        texts: Tensor,
        places: Sequence[int],
        captions: Sequence[str],
        groups: Tensor,
        count: int,
    ) -> Tensor:
        """This process's share of the loss, of the rows it encoded."""
        model: Any = self._loaded.model
        recipe, team = self._recipe, self._team
        scale = model.logit_scale.exp()
        if recipe.loss == "siglip":
            loss = sigmoid_in_blocks(images, texts, scale, model.logit_bias, groups, team=team)
        else:
            loss = contrastive_in_blocks(images, texts, scale, groups, team=team)
        if self._teacher is not None:
            apart = self._teacher.divergence(images, texts, scale, places, captions, team)
            loss = loss + recipe.teacher_weight * apart
        if recipe.keep_close:
            moved = self._old.picture_distance(images, places) * (len(places) / count)
            loss = loss + recipe.keep_close * moved
        return loss

    def _keep_close(self, chance: random.Random) -> Tensor:
        """The gradients and this process's share of how far some general texts have moved."""
        rows = chance.sample(range(len(self._old.texts)), KEPT_AT_ONCE)
        own = rows[slice(*self._team.share(len(rows)))]
        if not own:
            return torch.zeros((), device=self._loaded.device)
        with self._precision():
            now = text_vectors(self._loaded, [self._old.texts[row] for row in own])
        kept = self._recipe.keep_close * self._old.distance(now, own) * (len(own) / len(rows))
        kept.backward()
        return kept.detach()

    def _precision(self) -> torch.autocast:
        """The towers' arithmetic; what they give is float32 whatever it is."""
        is_half = self._recipe.precision == "bf16"
        return torch.autocast(self._loaded.device.type, torch.bfloat16, enabled=is_half)


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


def _set_training(model: nn.Module) -> None:
    """Train mode, but for batch norms: their statistics are of far more pictures than a user's."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
