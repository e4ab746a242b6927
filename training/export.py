"""A trained model as a folder that loads as ``local-dir:``, here and in plain open_clip."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from clipsearch.encoders.local_model import CONFIG, WEIGHTS
from clipsearch.errors import StorageError


def export_model(
    folder: Path,
    state: dict[str, torch.Tensor],
    model_cfg: dict[str, Any],
    preprocess_cfg: dict[str, Any],
    *,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Writes configuration and safetensors weights; replaces an earlier export only when complete.

    Floating point tensors are stored as ``dtype``. StorageError if it cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        made.chmod(0o755)
        tensors = {
            name: (value.to(dtype) if value.is_floating_point() else value).contiguous().clone()
            for name, value in state.items()
        }
        save_file(tensors, made / WEIGHTS)
        (made / WEIGHTS).chmod(0o644)
        config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}
        (made / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            for name in (CONFIG, WEIGHTS):
                (made / name).replace(folder / name)
            shutil.rmtree(made)
        else:
            made.replace(folder)
    except OSError as error:
        raise StorageError(
            path=folder, reason=error.strerror or error, advice="choose another place: --out FOLDER"
        ) from error
