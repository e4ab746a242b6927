"""Pictures and texts through a model's two towers, for training (with gradients) and judging."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from open_clip.transformer import TextTransformer
from torch import Tensor
from torch.nn import functional as F

from clipsearch.encoders.openclip import OpenClipModel
from clipsearch.encoders.preprocessing import Preprocessing
from clipsearch.vectors import Matrix, Pixels
from training.views import Views

_AT_ONCE = 32


def image_vectors(loaded: OpenClipModel, pixels: Pixels, encode: Any = None) -> Tensor:
    """(n, 3, h, w) uint8 to (n, dim) unit rows; ``encode`` is the model's own or compiled."""
    model: Any = loaded.model
    given = normalised(pixels, loaded.preprocessing).to(loaded.device)
    return _unit((encode or model.encode_image)(given, normalize=False))


def text_vectors(loaded: OpenClipModel, texts: Sequence[str]) -> Tensor:
    """(n, dim) unit rows.

    Where no token sees a later one and the vector is taken at the end mark, what comes after the
    longest text of the batch cannot matter and is not computed.
    """
    model: Any = loaded.model
    tokens = loaded.tokenizer(list(texts)).to(loaded.device)
    tower: Any = getattr(model, "text", None)
    if not _may_be_cut(tower):
        return _unit(model.encode_text(tokens, normalize=False))
    longest = int(tokens.argmax(dim=1).max()) + 1
    mask = tower.attn_mask
    tower.attn_mask = mask[:longest, :longest]
    try:
        return _unit(model.encode_text(tokens[:, :longest], normalize=False))
    finally:
        tower.attn_mask = mask


def _unit(vectors: Tensor) -> Tensor:
    """Rows of length 1, in float32 also where autocast computed them in less."""
    return F.normalize(vectors.float(), dim=-1)


def _may_be_cut(tower: Any) -> bool:
    return (
        isinstance(tower, TextTransformer)
        and tower.pool_type == "argmax"
        and tower.attn_mask is not None
        and getattr(tower, "cls_emb", None) is None
    )


def normalised(pixels: Pixels, preprocessing: Preprocessing) -> Tensor:
    """(n, 3, h, w) uint8 to float32 with the model's mean and standard deviation."""
    mean = torch.tensor(preprocessing.mean).reshape(1, 3, 1, 1)
    std = torch.tensor(preprocessing.std).reshape(1, 3, 1, 1)
    return (torch.from_numpy(pixels).float() / 255 - mean) / std


def encode_pictures(loaded: OpenClipModel, views: Views) -> Matrix:
    """(n, dim) float32 unit rows of pictures as they will be indexed, in evaluation mode."""
    loaded.model.eval()
    with torch.no_grad():
        rows = [
            image_vectors(loaded, views.whole(part)).cpu().numpy() for part in _parts(len(views))
        ]
    return np.concatenate(rows)


def encode_texts(loaded: OpenClipModel, texts: Sequence[str]) -> Matrix:
    """(n, dim) float32 unit rows, in evaluation mode."""
    loaded.model.eval()
    rows = np.empty((len(texts), loaded.space.dim), np.float32)
    # Texts of a length together, so that few are longer than they need be.
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    with torch.no_grad():
        for part in _parts(len(texts)):
            places = [order[place] for place in part]
            vectors = text_vectors(loaded, [texts[place] for place in places])
            rows[places] = vectors.cpu().numpy()
    return rows


def _parts(count: int) -> list[range]:
    return [range(start, min(start + _AT_ONCE, count)) for start in range(0, count, _AT_ONCE)]
