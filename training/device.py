"""Where a model is trained, in which arithmetic, and whether its towers can be compiled."""

from __future__ import annotations

import torch

from clipsearch.config import Settings
from clipsearch.errors import DeviceError, TrainingError


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


def check_compiler() -> None:
    """TrainingError where torch.compile cannot work: it writes C++ (or Triton) and compiles it."""
    try:
        torch.compile(_one_more)(torch.zeros(8))
    except Exception as error:  # torch has a kind for each thing that can be missing
        reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise TrainingError(
            reason=f"--compile needs a C++ compiler that torch can use, such as g++: {reason}. "
            "Install one, or leave --compile out"
        ) from error


def _one_more(values: torch.Tensor) -> torch.Tensor:
    return values + 1
