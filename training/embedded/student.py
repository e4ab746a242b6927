"""The text tower: a small student of the sentence teacher, with open_clip's own architecture.

``distil`` makes it imitate the teacher, mapped into the model's space, on words far beyond the
captions.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from training.checkpoint import load_checkpoint, save_checkpoint
from training.embedded.backbone import architecture
from training.embedded.config import DistilConfig, ImagesConfig, TextConfig
from training.embedded.progress import CHECKPOINT_SECONDS, Tell

EMBED_DIM = 384
CONTEXT = 40
TELL_SECONDS = 30
_POOL = 8  # batches drawn together and sorted by length, so that little is padding


def model_config(images: ImagesConfig, text: TextConfig) -> dict[str, Any]:
    """open_clip's ``model_cfg`` of the whole model."""
    return {
        "embed_dim": EMBED_DIM,
        "vision_cfg": {
            "timm_model_name": architecture(images.backbone),
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "mlp",
            "image_size": images.side,
        },
        "text_cfg": {
            "context_length": CONTEXT,
            "vocab_size": 49408,
            "width": text.width,
            "heads": text.width // 64,
            "layers": text.layers,
        },
    }


def preprocess_config(images: ImagesConfig) -> dict[str, Any]:
    """open_clip's ``preprocess_cfg``."""
    return {
        "size": [images.side, images.side],
        "mode": "RGB",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "resize_mode": "squash",
        "fill_color": 0,
    }


def new_model(
    images: ImagesConfig, text: TextConfig, teacher_of_tokens: Tensor | None = None
) -> Any:
    """The whole model of ``model_config``, its token embeddings started from the teacher, if given.

    ``teacher_of_tokens`` (49408, 384): the teacher's vector of each token's string. Its first
    principal components, scaled to open_clip's initial spread, start the embedding, so that rare
    words are near their likes before training.
    """
    torch.manual_seed(0)
    model = open_clip.CustomTextCLIP(**model_config(images, text))
    if teacher_of_tokens is not None:
        tokens = teacher_of_tokens.numpy()
        centred = tokens - tokens.mean(0)
        _, _, axes = np.linalg.svd(centred[:: max(1, len(centred) // 8192)], full_matrices=False)
        start = centred @ axes[: model.text.width].T
        start *= 0.02 / start.std()
        with torch.no_grad():
            model.text.token_embedding.weight.copy_(torch.from_numpy(start))
    return model


def adopt_text_tower(
    text: Any, state: dict[str, Tensor], texts: Texts, targets: Tensor, sample: int = 8192
) -> None:
    """Starts the tower from an earlier one whose vectors lay in another space.

    The tower's last step is linear, so least squares over ``sample`` texts turns its vectors into
    the new space at once; what is left to learn is little.
    """
    text.load_state_dict(state)
    rows = np.random.default_rng(0).choice(len(targets), sample, replace=False)
    found = embed_all(text, texts, rows=rows, normalized=False)
    turn = torch.linalg.lstsq(found, targets[torch.from_numpy(rows)]).solution
    with torch.no_grad():
        text.text_projection.copy_(text.text_projection @ turn)


def token_strings() -> list[str]:
    """What each BPE token says, by id; the teacher embeds these to start the student."""
    tokenizer = open_clip.SimpleTokenizer()
    return [tokenizer.decode([number]).strip() or "." for number in range(tokenizer.vocab_size)]


class Texts:
    """Tokenized texts, served in batches of like length and trimmed to the longest in each.

    The causal mask makes trimming exact: nothing before the end-of-text token sees the padding.
    """

    def __init__(self, texts: list[str]) -> None:
        tokenizer = open_clip.SimpleTokenizer(context_length=CONTEXT)
        self.tokens = tokenizer(texts).to(torch.int32)
        self.lengths = (self.tokens != 0).sum(1).numpy()

    def batch(self, rows: NDArray[np.int64] | list[int]) -> Tensor:
        """(n, longest) int64 token ids."""
        longest = int(self.lengths[rows].max())
        chosen: Tensor = self.tokens[torch.as_tensor(np.asarray(rows)), :longest].long()
        return chosen


def embed_all(
    text: Any,
    texts: Texts,
    *,
    rows: NDArray[np.int64] | None = None,
    normalized: bool = True,
    batch: int = 500,
) -> Tensor:
    """(n, 384) rows of the tower for all texts, or those at ``rows``, in their order."""
    wanted = np.arange(len(texts.lengths)) if rows is None else rows
    order = np.argsort(texts.lengths[wanted], kind="stable")
    found = torch.empty(len(order), EMBED_DIM)
    with torch.no_grad():
        for start in range(0, len(order), batch):
            places = order[start : start + batch]
            made = encode_trimmed(text, texts.batch(wanted[places]))
            found[torch.from_numpy(places)] = F.normalize(made) if normalized else made
    return found


def encode_trimmed(text: Any, tokens: Tensor) -> Tensor:
    """open_clip's text tower on token ids shorter than its context length."""
    length = tokens.shape[1]
    x = text.token_embedding(tokens) + text.positional_embedding[:length]
    x = text.transformer(x, attn_mask=text.attn_mask[:length, :length])
    x = text.ln_final(x)
    ends = tokens.argmax(dim=-1)  # end-of-text has the highest id
    pooled: Tensor = x[torch.arange(len(x)), ends] @ text.text_projection
    return pooled


def text_optimizer(text: nn.Module, rate: float) -> torch.optim.AdamW:
    """AdamW without weight decay on embeddings, gains and biases."""
    decayed = [p for n, p in text.named_parameters() if p.ndim >= 2 and "embedding" not in n]
    others = [p for n, p in text.named_parameters() if p.ndim < 2 or "embedding" in n]
    return torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}],
        lr=rate,
        betas=(0.9, 0.98),
    )


def imitation_loss(made: Tensor, wanted: Tensor) -> Tensor:
    """How far (n, dim) vectors are from the unit rows wanted of them.

    Four times one minus the cosine, plus a fifth of a contrast within the batch, which keeps apart
    what the cosine alone would let run together.
    """
    made = F.normalize(made, dim=1)
    near = made @ wanted.T * 20
    duplicate = wanted @ wanted.T > 0.999
    duplicate.fill_diagonal_(False)
    apart = F.cross_entropy(near.masked_fill(duplicate, -1e4), torch.arange(len(made)))
    return (1 - (made * wanted).sum(1).mean()) * 4 + apart * 0.2


def distil(
    text: nn.Module,
    texts: Texts,
    targets: Tensor,
    often: list[NDArray[np.int64]],
    config: DistilConfig,
    tell: Tell,
    *,
    checkpoint: Path | None = None,
    seed: int = 0,
) -> None:
    """Trains the tower to give ``targets`` (n, 384), unit rows.

    Of all batches 40 % come from the first rows of ``often``, 10 % from the second, the others from
    all texts. The folder ``checkpoint`` lets the same call go on where it was interrupted and give
    the same weights; it is gone at the end.
    """
    optimizer = text_optimizer(text, config.rate)
    every = np.arange(len(targets))
    recipe = json.dumps({"settings": asdict(config), "seed": seed})
    first = 0 if checkpoint is None else load_checkpoint(checkpoint, text, optimizer, recipe, {})
    started = saved = shown = time.monotonic()
    for step in range(first, config.steps, _POOL):
        chance = np.random.default_rng([seed, step])
        source = (*often, every)[chance.choice(3, p=(0.4, 0.1, 0.5))]
        drawn = source[chance.integers(len(source), size=_POOL * config.batch)]
        drawn = drawn[np.argsort(texts.lengths[drawn], kind="stable")].reshape(_POOL, -1)
        for place, rows in enumerate(chance.permutation(drawn)):
            done = min(1.0, (step + place) / config.steps)
            warm = min(1.0, (step + place + 1) / 100)
            for group in optimizer.param_groups:
                group["lr"] = config.rate * warm * 0.5 * (1 + math.cos(math.pi * done))
            loss = imitation_loss(encode_trimmed(text, texts.batch(rows)), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(text.parameters(), 1.0)
            optimizer.step()
        now = time.monotonic()
        if now - shown > TELL_SECONDS:
            shown = now
            tell(
                f"distil {step + _POOL}/{config.steps} loss {loss.item():.3f} {now - started:.0f} s"
            )
        if checkpoint is not None and now - saved > CHECKPOINT_SECONDS:
            saved = now
            save_checkpoint(checkpoint, text, optimizer, step + _POOL, recipe, {})
    if checkpoint is not None:
        shutil.rmtree(checkpoint, ignore_errors=True)
