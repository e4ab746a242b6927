"""Small real models of the paper's two families, with random weights, saved as local-dir."""

from __future__ import annotations

import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

from clipsearch.config import Settings, resolve
from clipsearch.encoders.local_model import read_local_model
from clipsearch.model_names import LOCAL_DIR, marked

TEXT = {"context_length": 20, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
VIT = {
    "embed_dim": 24,
    "vision_cfg": {
        "image_size": 48,
        "layers": 2,
        "width": 64,
        "head_width": 32,
        "patch_size": 16,
    },
    "text_cfg": TEXT,
}
RESNET = {  # CLIP's modified ResNet with attention pooling (section 2.4)
    "embed_dim": 24,
    "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16},
    "text_cfg": TEXT,
    "quick_gelu": True,
}


def preprocess_cfg(side: int) -> dict[str, Any]:
    return {
        "size": [side, side],
        "mode": "RGB",
        "mean": [0.48, 0.46, 0.41],
        "std": [0.27, 0.26, 0.28],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
        "fill_color": 0,
    }


def save_model(folder: Path, model_cfg: dict[str, Any], seed: int = 0) -> Path:
    """Builds the model as open_clip does and writes config and safetensors."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    model = open_clip.CLIP(**model_cfg)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    side = model_cfg["vision_cfg"]["image_size"]
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg(side)}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


@cache
def named(address: str) -> str:
    """What a library calls the model that lies in a folder now."""
    folder = Path(address.removeprefix(LOCAL_DIR))
    return marked(address, read_local_model(folder, address).space().id)


def compile_here(address: str, settings: Settings | None = None) -> None:
    """Makes the compiled runtime in this process, which has torch, instead of in a new one."""
    import torch

    from clipsearch.encoders.openclip_export import export

    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's plans for its tracer
            export(address, (settings or resolve()).compiled_dir)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
