"""The text tower: a small student of the sentence teacher, with open_clip's own architecture.

``distil`` makes it imitate the teacher, mapped into the model's space, on words far beyond the
captions.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from training.embedded.backbone import architecture
from training.embedded.config import ImagesConfig

EMBED_DIM = 384
CONTEXT = 40
Tell = Callable[[str], None]


def model_config(images: ImagesConfig) -> dict[str, Any]:
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
            "width": 256,
            "heads": 4,
            "layers": 4,
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


def new_model(images: ImagesConfig, teacher_of_tokens: NDArray[np.float32]) -> Any:
    """The whole model of ``model_config``, its token embeddings started from the teacher.

    ``teacher_of_tokens`` (49408, 384): the teacher's vector of each token's string. Its first 256
    principal components, scaled to open_clip's initial spread, start the embedding, so that rare
    words are near their likes before training.
    """
    torch.manual_seed(0)
    model = open_clip.CustomTextCLIP(**model_config(images))
    centred = teacher_of_tokens - teacher_of_tokens.mean(0)
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
    *,
    seconds: float,
    peak_rate: float,
    tell: Tell,
    batch: int = 512,
    seed: int = 0,
) -> None:
    """Trains the tower for a fixed time to give ``targets`` (n, 384), unit rows.

    Of all batches 40 % come from the first rows of
    ``often``, 10 % from the second, the others from all texts.
    """
    chance = random.Random(seed)
    optimizer = text_optimizer(text, peak_rate)
    started = time.monotonic()
    every = np.arange(len(targets))
    step, shown = 0, 0.0
    while (elapsed := time.monotonic() - started) < seconds:
        done = elapsed / seconds
        rate = peak_rate * min(1.0, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * done))
        for group in optimizer.param_groups:
            group["lr"] = rate
        (source,) = chance.choices((*often, every), (0.4, 0.1, 0.5))
        drawn = np.asarray(chance.choices(range(len(source)), k=batch * 8))
        pool = source[drawn]
        pool = pool[np.argsort(texts.lengths[pool], kind="stable")].reshape(8, batch)
        for rows in pool[np.asarray(chance.sample(range(8), 8))]:
            loss = imitation_loss(encode_trimmed(text, texts.batch(rows)), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(text.parameters(), 1.0)
            optimizer.step()
            step += 1
        if elapsed - shown > 30:
            shown = elapsed
            tell(f"distil step {step} loss {loss.item():.3f} {elapsed:.0f} s")
