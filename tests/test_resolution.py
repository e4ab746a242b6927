"""Larger pictures for the last epoch: both families, exports that load here and in open_clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from models import RESNET, VIT, save_model
from torch.nn import functional as F

from clipsearch.encoders.openclip import load_openclip
from clipsearch.errors import TrainingError
from training.export import export_model
from training.resolution import at_size


@pytest.mark.parametrize("config", [VIT, RESNET], ids=["vit", "resnet"])
def test_a_larger_model_exports_and_loads_here_and_in_open_clip(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    loaded = load_openclip(f"local-dir:{save_model(tmp_path / 'small', config)}")
    larger = at_size(loaded, 96)
    assert loaded.model_cfg["vision_cfg"]["image_size"] != 96, "the old one stays as it is"
    assert (larger.preprocessing.height, larger.preprocessing.width) == (96, 96)
    export_model(
        tmp_path / "large", larger.model.state_dict(), larger.model_cfg, larger.preprocess_cfg
    )
    address = f"local-dir:{tmp_path / 'large'}"
    ours: Any = load_openclip(address)
    theirs: Any = open_clip.create_model(address, require_pretrained=True).eval()
    pictures = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    model: Any = larger.model
    with torch.no_grad():
        expected = model.encode_image(pictures)
        assert torch.equal(ours.model.encode_image(pictures), expected)
        assert torch.equal(theirs.encode_image(pictures), expected)
    assert ours.preprocessing.height == 96
    assert ours.space != loaded.space


@pytest.mark.parametrize("config", [VIT, RESNET], ids=["vit", "resnet"])
def test_positions_are_interpolated_and_what_is_no_position_stays(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    loaded = load_openclip(f"local-dir:{save_model(tmp_path / 'small', config)}")
    name = next(n for n in loaded.model.state_dict() if "visual" in n and "positional" in n)
    before = loaded.model.state_dict()[name]
    after = at_size(loaded, 128).model.state_dict()[name]
    assert torch.equal(before[0], after[0]), "the token that is no place"
    side, grid = round((len(before) - 1) ** 0.5), round((len(after) - 1) ** 0.5)
    assert grid > side
    places = before[1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    expected = F.interpolate(places, size=(grid, grid), mode="bicubic", antialias=True)
    assert torch.allclose(after[1:], expected.permute(0, 2, 3, 1).reshape(grid * grid, -1))
    same = at_size(loaded, loaded.preprocessing.height)
    assert torch.allclose(same.model.state_dict()[name], before)


def test_convolutions_take_any_size_with_the_same_weights() -> None:
    loaded = load_openclip("embedded")
    larger = at_size(loaded, loaded.preprocessing.height + 40)
    for name, value in larger.model.state_dict().items():
        assert torch.equal(value, loaded.model.state_dict()[name]), name
    assert larger.model.visual.image_size == (larger.preprocessing.height,) * 2


@pytest.mark.parametrize("config", [VIT, RESNET], ids=["vit", "resnet"])
def test_a_size_that_does_not_fit_is_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    loaded = load_openclip(f"local-dir:{save_model(tmp_path / 'small', config)}")
    with pytest.raises(TrainingError, match=r"--last-epoch-size 100.*multiple of"):
        at_size(loaded, 100)
