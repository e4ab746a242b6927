"""What of a model may learn, and how fast each of its layers does."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

from timm.models import group_parameters
from torch import nn

from clipsearch.errors import TrainingError
from training.lora import add_lora

_BLOCK = re.compile(r"\.(?:resblocks|layers?|blocks|h)\.?(\d+)\.")
_TOP = ("attnpool.", "attn_pool.", "ln_post", "ln_final", "proj", "head.")
_STEM = ("embed", "conv1", "conv2", "conv3", "bn1", "bn2", "bn3", "ln_pre")
CHOICES = "all, text, images, projection, last:N, lora or lora:RANK"


def check_learn(learn: str) -> str:
    """The same text, or TrainingError if it is no way to learn."""
    kind, _, number = learn.partition(":")
    numbered = number.isdecimal() and int(number) > 0
    if learn in ("all", "text", "images", "projection", "lora") or (
        kind in ("last", "lora") and numbered
    ):
        return learn
    raise TrainingError(reason=f"--learn takes {CHOICES}, not '{learn}'")


def images_move(learn: str) -> bool:
    """Whether pictures get other vectors by it."""
    return learn != "text"


def texts_move(learn: str) -> bool:
    """Whether texts get other vectors by it."""
    return learn != "images"


def prepare_layers(model: nn.Module, learn: str) -> None:
    """Leaves only what ``learn`` names with gradients; the temperature always has them.

    ``all``; ``text``: the image tower is locked (LiT, Zhai et al. 2022); ``images``: the text tower
    is; ``projection``: what comes after the last block of each tower; ``last:N``: that and the last
    N blocks of each tower; ``lora[:RANK]``: see lora.py.
    """
    kind, _, number = check_learn(learn).partition(":")
    if kind == "lora":
        model.requires_grad_(False)
        add_lora(model, int(number or 8))
    elif kind == "text":
        visual: Any = model.visual
        visual.requires_grad_(False)
    elif kind == "images":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith("visual."))
    elif kind in ("projection", "last"):
        deepest = int(number or 0)
        above = depths(model)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(above[name] <= deepest)
    for name, parameter in model.named_parameters(recurse=False):
        if name.startswith("logit_"):
            parameter.requires_grad_(True)


def depths(model: nn.Module) -> dict[str, int]:
    """How many blocks from the top of its tower each parameter is, by name.

    0 is what comes after the last block (norm, projection) and the temperature, 1 the last block,
    and one more than there are blocks what comes before the first (embeddings, stem). timm counts
    a trunk's last norm with its last block.
    """
    found: dict[str, int] = {}
    groups: dict[str, dict[str, int]] = defaultdict(dict)  # tower -> name -> block from the bottom
    visual: Any = getattr(model, "visual", None)
    trunk = getattr(visual, "trunk", None)
    if trunk is not None and hasattr(trunk, "group_matcher"):
        layers = group_parameters(trunk, trunk.group_matcher())
        last = max(layers)
        for number, names in layers.items():
            found.update({f"visual.trunk.{name}": last - number + 1 for name in names})
    for name, _ in model.named_parameters():
        if name not in found:
            tower = "visual" if name.startswith("visual.") else "text"
            groups[tower][name] = _block(name)
    for blocks in groups.values():
        count = max(blocks.values(), default=0)
        for name, block in blocks.items():
            found[name] = 0 if block < 0 else count + 1 - block
    return found


def _block(name: str) -> int:
    """The number of its block from 1 on, 0 before the first, -1 after the last."""
    dotted = f".{name}"
    block = _BLOCK.search(dotted)
    if block:
        # open_clip numbers blocks from 0, the four stages of its ResNets from 1.
        return int(block[1]) + (0 if ".layer" in block[0] and ".layer." not in block[0] else 1)
    own = dotted.rpartition("visual.")[2].rpartition("text.")[2].removeprefix(".")
    if own.startswith(("logit_", *_TOP)) or own.endswith("_projection"):
        return -1
    return 0 if any(part in own for part in _STEM) else -1
