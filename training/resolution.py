"""The same model for larger pictures (CLIP section 2.5: one more epoch at 336 pixels).

Convolutions take any size; what a tower learned for each place of its grid is interpolated: the
position embeddings of ViTs and of the attention pooling of CLIP's ResNets. Why it must be trained
once more after that: Touvron et al. 2019, section 3 (FixRes).
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import open_clip
import torch
from open_clip.model import resize_pos_embed
from timm.layers.pos_embed import resample_abs_pos_embed

from clipsearch.encoders.openclip import OpenClipModel
from clipsearch.errors import TrainingError

_POOLED = "visual.attnpool.positional_embedding"
_RESNET_STRIDE = 32  # it halves its pictures five times


def at_size(loaded: OpenClipModel, side: int) -> OpenClipModel:
    """A new model with the same weights for square pictures of ``side`` pixels.

    ``model_cfg`` and ``preprocess_cfg`` say so, so an export of it loads anywhere. TrainingError if
    ``side`` is no multiple of the model's patch, or the model knows but one size.
    """
    visual: Any = loaded.model.visual
    _check(visual, side)
    config = deepcopy(loaded.model_cfg)
    config["vision_cfg"]["image_size"] = side
    parts = {name: part for name, part in config.items() if name != "custom_text"}
    state = dict(loaded.model.state_dict())
    try:
        model: Any = type(loaded.model)(**parts)
        resize_pos_embed(state, model)
        if _POOLED in state:
            grid = side // _RESNET_STRIDE
            state[_POOLED] = resample_abs_pos_embed(state[_POOLED][None], [grid, grid])[0]
        model.load_state_dict(state, strict=True)
        with torch.no_grad():
            model.eval().visual(torch.zeros(1, 3, side, side))
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise _refusal(side, f"this model cannot be built for it: {error}") from error
    return replace(
        loaded,
        model=model.float().eval().to(loaded.device),
        model_cfg=config,
        preprocess_cfg={**loaded.preprocess_cfg, "size": [side, side]},
    )


def _check(visual: Any, side: int) -> None:
    if hasattr(visual, "trunk"):
        if hasattr(visual.trunk, "patch_embed"):
            raise _refusal(side, "open_clip's configurations cannot name a size for timm's ViTs")
        return
    patch = getattr(visual, "patch_size", _RESNET_STRIDE)
    height, width = open_clip.utils.to_2tuple(patch)
    if side % height or side % width:
        raise _refusal(side, f"this model's pictures must be a multiple of {height} pixels")


def _refusal(side: int, reason: str) -> TrainingError:
    return TrainingError(reason=f"--last-epoch-size {side}: {reason}")
