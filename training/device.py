"""Where a model is trained, and in which arithmetic."""

from __future__ import annotations

import torch

from clipsearch.config import Settings
from clipsearch.errors import DeviceError


def choose_device(settings: Settings) -> torch.device:
    """A CUDA GPU where there is one, unless it is refused. DeviceError if asked for in vain."""
    has_cuda = torch.cuda.is_available()
    if settings.device == "cuda" and not has_cuda:
        raise DeviceError(reason="--device cuda: torch sees no CUDA GPU here. Use --device cpu")
    return torch.device("cuda" if has_cuda and settings.device != "cpu" else "cpu")


def choose_precision(settings: Settings, device: torch.device) -> str:
    """bf16 on a GPU that computes with it, else f32.

    On a CPU f32 unless bf16 is asked for: few have instructions for it, and without them it is
    slower.
    """
    if settings.precision != "auto":
        return settings.precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "f32"
