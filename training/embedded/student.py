"""The text student and the image head: aligned to each other, on frozen image features.

``fit_head`` fits the image head and a linear map of the teacher's sentence vectors into one space
(symmetric cross-entropy, CLIP section 2.3); ``distil`` makes the small text tower imitate the
mapped teacher on words far beyond the captions; then ``fit_head`` fits the head once more, to what
the text tower really says.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from training.embedded.class_knowledge import ClassKnowledge
from training.embedded.corpus import SENTENCE_SOURCES
from training.embedded.image_features import ARCHITECTURE, SIDE, WIDTH
from training.loss import contrastive_loss

EMBED_DIM = 384
CONTEXT = 40
MODEL_CFG = {
    "embed_dim": EMBED_DIM,
    "vision_cfg": {
        "timm_model_name": ARCHITECTURE,
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "mlp",
        "image_size": SIDE,
    },
    "text_cfg": {
        "context_length": CONTEXT,
        "vocab_size": 49408,
        "width": 256,
        "heads": 4,
        "layers": 4,
    },
}
PREPROCESS_CFG = {
    "size": [SIDE, SIDE],
    "mode": "RGB",
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bicubic",
    "resize_mode": "squash",
    "fill_color": 0,
}
_KNOWLEDGE_WEIGHT = 2.0  # of the classifier's knowledge against the captions
_SAME_MEANING = 0.93  # teacher cosine above which two captions are not each other's negatives
Tell = Callable[[str], None]


@dataclass
class Pairs:
    """Photos' features with the rows of their captions in the teacher's table."""

    features: NDArray[np.float16]  # (photos, views, WIDTH)
    captions: list[list[int]]  # per photo: rows of the text table
    weights: NDArray[np.float64]  # (photos,) how often each photo is drawn, sums to 1


def pair_weights(sources: list[str]) -> NDArray[np.float64]:
    """Photos with sentences are drawn six times as often as those with lists of labels."""
    weights = np.array([6.0 if source in SENTENCE_SOURCES else 1.0 for source in sources])
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


def _draw(pairs: Pairs, size: int, chance: np.random.Generator) -> tuple[Tensor, list[int]]:
    chosen = chance.choice(len(pairs.captions), size, replace=False, p=pairs.weights)
    views = chance.integers(pairs.features.shape[1], size=size)
    features = torch.from_numpy(pairs.features[chosen, views].astype(np.float32))
    rows = [pairs.captions[photo][chance.integers(len(pairs.captions[photo]))] for photo in chosen]
    return features, rows


def _cosine_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def fit_head(
    pairs: Pairs,
    sentences: Tensor,
    teacher: Tensor,
    knowledge: ClassKnowledge,
    classes: Tensor,
    *,
    start: nn.Sequential | None = None,
    maps_text: bool,
    steps: int,
    peak_rate: float,
    tell: Tell,
    seed: int = 0,
) -> tuple[nn.Sequential, nn.Linear, float]:
    """Fits the image head to texts, and with ``maps_text`` a linear map of the texts as well.

    ``sentences`` (texts, 384) are unit rows of the captions and ``classes`` (phrases, 384) those
    of the knowledge's texts; ``teacher`` says which captions mean the same. Loss: the symmetric
    cross-entropy of CLIP's Figure 3, plus the divergence from what the classifier says of the same
    photos, so that the names of things no caption mentions take their place. Returns the head, the
    map (the identity if it was not learned), and the log of the logit scale.
    """
    torch.manual_seed(seed)
    chance, names = np.random.default_rng(seed), random.Random(seed)
    head = new_image_head(0.2)
    if start is not None:
        head.load_state_dict(start.state_dict())
    text_map = nn.Linear(EMBED_DIM, EMBED_DIM, bias=False).requires_grad_(maps_text)
    with torch.no_grad():
        nn.init.eye_(text_map.weight)
    scales = nn.Parameter(torch.full((2,), math.log(1 / 0.07)))  # of captions, of classes
    learned = [*head.parameters(), *(text_map.parameters() if maps_text else ())]
    groups: list[dict[str, Any]] = [
        {"params": learned},
        {"params": [scales], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=peak_rate, weight_decay=0.1)
    started = time.monotonic()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = _cosine_rate(step, steps, peak_rate, 100)
        features, rows = _draw(pairs, 1024, chance)
        images = F.normalize(head(features), dim=1)
        texts = F.normalize(text_map(sentences[rows]), dim=1)
        alike = teacher[rows] @ teacher[rows].T > _SAME_MEANING
        contrast = contrastive_loss(images, texts, scales[0].exp(), alike)
        shares, phrases = knowledge.draw(features, names)
        named = F.normalize(text_map(classes[phrases]), dim=1)
        guesses = F.log_softmax(images @ named.T * scales[1].exp(), dim=1)
        divergence = F.kl_div(guesses, shares, reduction="batchmean")
        loss = contrast + _KNOWLEDGE_WEIGHT * divergence
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            scales.clamp_(max=math.log(100))
        if step % 100 == 99:
            tell(
                f"head {step + 1}/{steps} contrast {contrast.item():.3f} divergence "
                f"{divergence.item():.3f} {time.monotonic() - started:.0f} s"
            )
    return head.eval(), text_map, float(scales[0].detach())


def new_text_tower(teacher_of_tokens: NDArray[np.float32]) -> open_clip.CLIP:
    """The whole model of ``MODEL_CFG``, its token embeddings started from the teacher.

    ``teacher_of_tokens`` (49408, 384): the teacher's vector of each token's string. Its first 256
    principal components, scaled to open_clip's initial spread, start the embedding, so that rare
    words are near their likes before training.
    """
    torch.manual_seed(0)
    model = open_clip.CustomTextCLIP(**MODEL_CFG)
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

    Loss: one minus the cosine, plus a contrastive term within the batch, which keeps apart what
    the cosine alone would let run together. Of all batches 40 % come from the first rows of
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
            made = F.normalize(encode_trimmed(text, texts.batch(rows)), dim=1)
            wanted = targets[rows]
            cosine = (made * wanted).sum(1).mean()
            near = made @ wanted.T * 20
            duplicate = wanted @ wanted.T > 0.999
            duplicate.fill_diagonal_(False)
            near = near.masked_fill(duplicate, -1e4)
            apart = F.cross_entropy(near, torch.arange(len(rows)))
            loss = (1 - cosine) * 4 + apart * 0.2
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(text.parameters(), 1.0)
            optimizer.step()
            step += 1
        if elapsed - shown > 30:
            shown = elapsed
            tell(
                f"distil step {step} cosine {cosine.item():.4f} loss {loss.item():.3f} "
                f"{elapsed:.0f} s"
            )
