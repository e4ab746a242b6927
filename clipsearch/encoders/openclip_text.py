"""Which text towers ``text_tower`` can compute, and the file that it reads them from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from open_clip.transformer import LayerNorm, QuickGELU, ResidualAttentionBlock, Transformer
from safetensors.torch import save_file

_ACTIVATIONS = {torch.nn.GELU: "gelu", QuickGELU: "quick_gelu"}


def save_text_tower(model: torch.nn.Module, path: Path, *, half: bool) -> bool:
    """Writes a model's text tower, as float16 with ``half``; False if it is not CLIP's plain one.

    Plain is: causal, pooled at the end token, blocks without additions of later papers. Of such a
    tower what comes after the end token can be left out; of others, not causal, it cannot.
    """
    text: Any = getattr(model, "text", model)
    facts = _facts(text)
    if facts is None:
        return False
    dtype = torch.float16 if half else torch.float32
    kept = ("token_embedding.", "positional_embedding", "transformer.", "ln_final.")
    tensors = {
        name: tensor.detach().to(dtype).contiguous()
        for name, tensor in text.state_dict().items()
        if name.startswith(kept) or name == "text_projection"
    }
    save_file(tensors, path, metadata=facts)
    return True


def _facts(text: Any) -> dict[str, str] | None:
    """What the tensors do not say, or None if the tower is not plain."""
    transformer: Any = getattr(text, "transformer", None)
    if type(transformer) is not Transformer or not transformer.batch_first:
        return None
    pool = getattr(text, "text_pool_type", None) or getattr(text, "pool_type", None)
    if pool != "argmax" or getattr(text, "cls_emb", None) is not None:
        return None
    if not _is_causal(text.attn_mask) or not isinstance(text.text_projection, torch.nn.Parameter):
        return None
    blocks = list(transformer.resblocks)
    norms = [text.ln_final, *(norm for block in blocks for norm in (block.ln_1, block.ln_2))]
    acts = {_activation(block) for block in blocks}
    epsilons = {norm.eps for norm in norms}
    if not all(type(norm) is LayerNorm for norm in norms) or len(epsilons) != 1 or len(acts) != 1:
        return None
    (epsilon,), (activation,) = epsilons, acts
    if activation is None:
        return None
    return {
        "layers": str(len(blocks)),
        "heads": str(blocks[0].attn.num_heads),
        "activation": activation,
        "epsilon": repr(epsilon),
    }


def _activation(block: Any) -> str | None:
    """The name of a block's activation; None if the block is not CLIP's, or it is another one."""
    if type(block) is not ResidualAttentionBlock or hasattr(block, "ln_1_kv"):
        return None
    scales = (block.ls_1, block.ls_2)
    if not all(isinstance(scale, torch.nn.Identity) for scale in scales):
        return None
    activation = block.mlp.gelu
    if getattr(activation, "approximate", "none") != "none":
        return None
    return _ACTIVATIONS.get(type(activation))


def _is_causal(mask: torch.Tensor | None) -> bool:
    if mask is None:
        return False
    return torch.equal(mask, torch.full_like(mask, -torch.inf).triu(1))
