"""What may learn: low-rank changes that reach the fused attention, blocks, projections, rates."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from models import RESNET, TEXT, VIT, save_model
from torch import nn

from clipsearch.encoders.openclip import load_openclip
from clipsearch.errors import TrainingError
from training.data import read_captions
from training.layers import check_learn, depths, prepare_layers
from training.loop import Interrupted, Recipe, train
from training.lora import add_lora, merge_lora

# open_clip's own Attention instead of torch's, by one of its options.
CUSTOM: dict[str, Any] = {
    **VIT,
    "vision_cfg": {**VIT["vision_cfg"], "block_type": "custom", "qk_norm": True},
}
TIMM: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {
        "timm_model_name": "vit_tiny_patch16_224",
        "timm_model_pretrained": False,
        "timm_pool": "token",
        "timm_proj": "linear",
        "image_size": 224,
    },
    "text_cfg": TEXT,
}


def outputs(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    side = open_clip.utils.to_2tuple(model.visual.image_size)
    with torch.no_grad():
        images = torch.randn(2, 3, *side, generator=generator)
        texts = torch.randint(1, 49000, (2, model.context_length), generator=generator)
        return model.encode_image(images), model.encode_text(texts)


def model_of(config: dict[str, Any]) -> nn.Module:
    torch.manual_seed(1)
    if "timm_model_name" in config["vision_cfg"]:
        return open_clip.CustomTextCLIP(**config).eval()
    return open_clip.CLIP(**config).eval()


@pytest.mark.parametrize("config", [VIT, CUSTOM, TIMM, RESNET], ids=["vit", "custom", "timm", "rn"])
def test_lora_reaches_every_matrix_and_merges_without_a_trace(config: dict[str, Any]) -> None:
    model = model_of(config)
    before, names = outputs(model), list(model.state_dict())
    changed = add_lora(model, 2)
    for matrix in ("in_proj_weight", "out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight"):
        where = "" if matrix.startswith("mlp") else "attn."
        assert any(name.endswith(f"resblocks.1.{where}{matrix}") for name in changed), matrix
    is_transformer = config is not RESNET
    assert is_transformer == any("visual" in n and ("in_proj" in n or "qkv" in n) for n in changed)
    for same, start in zip(outputs(model), before, strict=True):
        assert torch.allclose(same, start, atol=1e-5), "it starts at the model as it is"
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".up"):
                parameter.normal_(std=0.05, generator=torch.Generator().manual_seed(len(name)))
    unmerged = outputs(model)
    assert not torch.allclose(unmerged[1], before[1])
    assert not torch.allclose(unmerged[0], before[0])
    merge_lora(model)
    assert sorted(model.state_dict()) == sorted(names)
    for merged, expected in zip(outputs(model), unmerged, strict=True):
        # torch's attention takes another road, with other rounding, where parameters are plain.
        assert torch.allclose(merged, expected, atol=1e-5)


def test_the_query_key_and_value_matrices_change_each_by_its_own_rank() -> None:
    model: Any = model_of(VIT)
    attention = model.visual.transformer.resblocks[0].attn
    start = attention.in_proj_weight.detach().clone()
    add_lora(model, 2)
    with torch.no_grad():
        attention.parametrizations.in_proj_weight[0].up.normal_()
    merge_lora(model)
    for part in (attention.in_proj_weight.detach() - start).chunk(3):
        assert torch.linalg.matrix_rank(part, rtol=1e-4) == 2


def learning(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_only_what_was_named_learns() -> None:
    model = model_of(VIT)
    prepare_layers(model, "last:1")
    found = learning(model)
    assert {"visual.proj", "text_projection", "logit_scale", "ln_final.weight"} <= found
    assert "visual.ln_post.weight" in found
    assert any(name.startswith("visual.transformer.resblocks.1.") for name in found)
    assert not any("resblocks.0." in name or "embedding" in name for name in found)
    assert "visual.conv1.weight" not in found
    model = model_of(VIT)
    prepare_layers(model, "projection")
    assert not any("resblocks" in name for name in learning(model))
    assert "visual.proj" in learning(model)
    model = model_of(VIT)
    prepare_layers(model, "lora:3")
    assert learning(model) - {"logit_scale"}
    assert all(n.endswith((".up", ".down")) for n in learning(model) - {"logit_scale"})


@pytest.mark.parametrize("config", [VIT, TIMM, RESNET], ids=["vit", "timm", "rn"])
def test_every_parameter_has_its_depth(config: dict[str, Any]) -> None:
    model = model_of(config)
    found = depths(model)
    assert set(found) == {name for name, _ in model.named_parameters()}
    blocks = {"vit": 2, "timm": 12, "rn": 4}[
        "rn" if config is RESNET else "timm" if config is TIMM else "vit"
    ]
    images = {name: depth for name, depth in found.items() if name.startswith("visual.")}
    assert max(images.values()) == blocks + 1
    assert min(images.values()) == 0
    stem = next(name for name in images if "conv1" in name or "patch_embed" in name)
    assert images[stem] == blocks + 1


@pytest.mark.parametrize("learn", ["some", "last", "last:0", "lora:x", "lora:-1", "text:2"])
def test_another_way_to_learn_is_refused_by_name(learn: str) -> None:
    with pytest.raises(TrainingError, match="last:N"):
        check_learn(learn)


@pytest.mark.parametrize(
    "settings",
    [
        {"learn": "lora:2"},
        {"learn": "last:1", "layer_decay": 0.5},
        {"learn": "projection", "loss": "siglip"},
        {"learn": "all", "keep_close": 0.01, "chunk": 2},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_every_way_to_learn_resumes_bit_for_bit_and_leaves_the_models_own_names(
    tmp_path: Path, real_photos: Path, settings: dict[str, Any]
) -> None:
    torch.set_num_threads(1)
    for name in ("cat.png", "moon.png", "coffee.png"):
        shutil.copyfile(real_photos / name, tmp_path / name)
    file = tmp_path / "captions.csv"
    file.write_text("path,caption\ncat.png,a cat\nmoon.png,the moon\ncoffee.png,a cup\n")
    pictures = read_captions(file).pictures
    address = f"local-dir:{save_model(tmp_path / 'model', VIT)}"
    recipe = Recipe(steps=4, batch_size=3, lr=2e-3, warmup=1, save_every=2, **settings)
    straight, resumed = load_openclip(address), load_openclip(address)
    start = {name: value.clone() for name, value in straight.model.state_dict().items()}
    losses: list[float] = []
    train(straight, pictures, recipe, tmp_path / "a", tell=lambda step: losses.append(step.loss))
    asked = iter(range(9))
    stopped = load_openclip(address)
    with pytest.raises(Interrupted):
        train(stopped, pictures, recipe, tmp_path / "b", should_stop=lambda: next(asked) == 3)
    train(resumed, pictures, recipe, tmp_path / "b")
    found = straight.model.state_dict()
    assert set(found) == set(start)
    for name, value in found.items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert any(not torch.equal(value, start[name]) for name, value in found.items())
    assert losses[-1] < losses[0]
