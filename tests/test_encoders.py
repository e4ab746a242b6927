"""Encoders: two runtimes that agree, and no broken model that loads without a word."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import RESNET, VIT, compile_here, save_model
from PIL import Image

from clipsearch.config import Settings, resolve
from clipsearch.encoders import Encoder, compile_encoder, is_compiled, load_encoder
from clipsearch.encoders.compiled import plain_pictures, require_close
from clipsearch.encoders.local_model import read_local_model
from clipsearch.encoders.openclip import load_openclip
from clipsearch.errors import (
    ClipsearchError,
    DeviceError,
    ModelConfigError,
    ModelDownloadError,
    ModelError,
    SpaceMismatchError,
    WeightsCorruptError,
    WeightsFormatError,
    WeightsNotFoundError,
)

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
TEXTS = [f"{number} photos of {what}" for number in (1, 2, 3, "many") for what in (
    "a dog", "the sea at night", "old coins", "«Ünïcode» &amp; 🐈", "x " * 50,
)]  # fmt: skip


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return resolve({"cache_dir": tmp_path_factory.mktemp("cache")})


@pytest.fixture(scope="module", params=["vit", "resnet"])
def model_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = {"vit": VIT, "resnet": RESNET}[request.param]
    return save_model(tmp_path_factory.mktemp(request.param), config, seed=3)


def pixels_for(folder: Path, count: int) -> np.ndarray:
    side = json.loads((folder / CONFIG).read_text())["model_cfg"]["vision_cfg"]["image_size"]
    smooth = np.random.default_rng(1).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    pictures = [Image.fromarray(cells).resize((side, side)) for cells in smooth]
    return np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in pictures])


def compiled_here(folder: Path, settings: Settings) -> str:
    """The address of a model, whose compiled runtime is made unless a test before has made it."""
    address = f"local-dir:{folder}"
    if not is_compiled(read_local_model(folder, address).space(), settings):
        compile_here(address, settings)
    return address


def test_both_runtimes_agree(model_dir: Path, settings: Settings) -> None:
    address = f"local-dir:{model_dir}"
    torch_encoder = load_encoder(address, settings=replace(settings, runtime="torch"))
    assert torch_encoder.runtime == "torch-cpu"
    compile_here(address, settings)
    compiled = load_encoder(address, settings=settings)
    assert compiled.runtime == "openvino"
    assert (compiled.space, compiled.precision) == (torch_encoder.space, "f32")
    pixels = pixels_for(model_dir, 40)
    images = [encoder.encode_images(pixels) for encoder in (torch_encoder, compiled)]
    texts = [encoder.encode_texts(TEXTS) for encoder in (torch_encoder, compiled)]
    for ours, theirs in (images, texts):
        assert (ours * theirs).sum(axis=1).min() > 0.9999
    # Rankings are equal wherever scores differ by more than 1e-3.
    first, second = texts[0] @ images[0].T, texts[1] @ images[1].T
    for row in range(len(TEXTS)):
        ahead = first[row][:, None] - first[row][None, :] > 1e-3
        assert (second[row][:, None] - second[row][None, :])[ahead].min() > 0


def in_both_precisions(address: str, settings: Settings) -> tuple[Encoder, Encoder]:
    """The compiled model in float32 and in bfloat16; skips where the CPU has only the first."""
    try:
        reduced = load_encoder(address, settings=replace(settings, precision="bf16"))
    except DeviceError:
        pytest.skip("this CPU has no bfloat16 arithmetic")
    return load_encoder(address, settings=settings), reduced


def test_reduced_precision_stays_close(model_dir: Path, settings: Settings) -> None:
    address = compiled_here(model_dir, settings)
    full, reduced = in_both_precisions(address, settings)
    pixels = pixels_for(model_dir, 100)
    ours, theirs = full.encode_images(pixels), reduced.encode_images(pixels)
    assert (ours * theirs).sum(axis=1).min() > 0.99


@pytest.mark.usefixtures("embedded_library")
def test_reduced_precision_is_refused_where_plain_pictures_would_stray(real_photos: Path) -> None:
    """The embedded model holds plain pictures far from zero, where bfloat16 is coarse."""
    full, reduced = in_both_precisions("embedded", resolve({"runtime": "compiled"}))
    moon = full.preprocess(Image.open(real_photos / "moon.png").convert("RGB"))[None]
    with pytest.raises(DeviceError, match=r"embedded loses too much .* Use --precision f32"):
        reduced.encode_images(moon)
    assert full.encode_images(moon).shape == (1, full.space.dim)
    for query, again in zip(full.encode_texts(TEXTS), reduced.encode_texts(TEXTS), strict=True):
        assert query @ again > 0.999, "words are not affected"


def test_how_far_reduced_precision_may_stray() -> None:
    exact = np.eye(3, 8, dtype=np.float32)
    near, far = exact.copy(), exact.copy()
    near[1, 5], far[1, 5] = 0.14, 0.15  # cosines of 0.9903 and 0.9889
    require_close("mine", exact, near)
    with pytest.raises(DeviceError, match=r"mine .* falls to 0\.989 "):
        require_close("mine", exact, far)


def test_plain_pictures_are_dark_to_pale_with_little_contrast() -> None:
    pictures = plain_pictures(40, 60)
    assert (pictures.dtype, pictures.shape[1:]) == (np.uint8, (3, 40, 60))
    assert pictures.std(axis=(1, 2, 3)).max() < 15
    means = pictures.mean(axis=(1, 2, 3))
    assert means.min() < 12
    assert means.max() > 240
    assert np.array_equal(pictures, plain_pictures(40, 60))


def test_a_batch_gives_what_its_pictures_give_alone(model_dir: Path, settings: Settings) -> None:
    address = compiled_here(model_dir, settings)
    pixels = pixels_for(model_dir, 19)
    for runtime in ("torch", "compiled"):
        encoder = load_encoder(address, settings=replace(settings, runtime=runtime))
        together = encoder.encode_images(pixels)
        alone = np.concatenate([encoder.encode_images(one[None]) for one in pixels])
        np.testing.assert_allclose(together, alone, atol=1e-4)
        assert encoder.encode_images(pixels[:0]).shape == (0, 24)
        assert encoder.encode_texts([]).shape == (0, 24)


def test_vectors_are_open_clips_own(model_dir: Path, settings: Settings) -> None:
    import open_clip
    import torch

    name = f"local-dir:{model_dir}"
    model, _, transform = open_clip.create_model_and_transforms(name)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8))
    with torch.no_grad():
        theirs = model.eval().encode_image(transform(image)[None], normalize=True).numpy()
    encoder = load_encoder(name, settings=replace(settings, runtime="torch"))
    np.testing.assert_allclose(
        encoder.encode_images(encoder.preprocess(image)[None]), theirs, atol=1e-5
    )


def test_a_loaded_model_is_in_eval_mode(model_dir: Path) -> None:
    assert not load_openclip(f"local-dir:{model_dir}").model.training


def test_text_and_pictures_are_encoded_where_torch_cannot_be_imported(
    model_dir: Path, settings: Settings
) -> None:
    address = compiled_here(model_dir, settings)
    script = """
import sys
for name in ("torch", "torchvision", "timm"):
    sys.modules[name] = None  # importing it raises ImportError
import numpy as np
from PIL import Image
from clipsearch.config import resolve
from clipsearch.encoders import load_encoder
encoder = load_encoder(sys.argv[1], settings=resolve({"cache_dir": sys.argv[2]}))
texts = encoder.encode_texts(["a dog"])
assert not any("openvino" in name for name in sys.modules), "words need no runtime"
pixels = encoder.preprocess(Image.new("RGB", (50, 60), (200, 30, 30)))
print(texts.shape, encoder.encode_images(pixels[None]).shape)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, address, str(settings.cache_dir)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "(1, 24) (1, 24)\n", done.stderr


def test_a_damaged_compiled_file_is_made_again(tiny_model_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(resolve().compiled_dir, tmp_path / "compiled")
    own = resolve({"cache_dir": tmp_path})
    address = f"local-dir:{tiny_model_dir}"
    space = load_encoder(address, settings=replace(own, runtime="compiled")).space
    damaged = tmp_path / "compiled" / space.id / "text.safetensors"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    heard: list[str] = []
    encoder = load_encoder(address, settings=own, space=space, notify=heard.append)
    assert encoder.runtime == "torch-cpu"
    assert any("torch" in line for line in heard)
    assert compile_encoder(address, settings=own)
    assert load_encoder(address, settings=own).runtime == "openvino"


def test_a_moved_folder_keeps_its_space_and_other_weights_do_not(
    tmp_path: Path, settings: Settings
) -> None:
    first = save_model(tmp_path / "a", VIT, seed=1)
    before = load_encoder(f"local-dir:{first}", settings=settings).space
    moved = first.rename(tmp_path / "b")
    assert load_encoder(f"local-dir:{moved}", settings=settings).space == before
    assert not is_compiled(before, settings)
    save_model(moved, VIT, seed=2)
    with pytest.raises(SpaceMismatchError):
        load_encoder(f"local-dir:{moved}", settings=settings, space=before)


def rewrite_config(folder: Path, change: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    change(config)
    (folder / CONFIG).write_text(json.dumps(config))


def break_pickle(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "open_clip_pytorch_model.bin").write_bytes(pickle.dumps({"a": 1}))


def break_truncated(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[: len(data) // 2])


def break_int8(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    state = load_file(folder / WEIGHTS)
    state["text_projection"] = state["text_projection"].to(torch.int8)
    save_file(state, folder / WEIGHTS)


def break_missing_tensor(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / WEIGHTS)
    del state["visual.ln_post.weight"]
    save_file(state, folder / WEIGHTS)


BROKEN = {
    "no folder": (WeightsNotFoundError, lambda f: f.rename(f.with_name("gone")), CONFIG),
    "no weights": (WeightsNotFoundError, lambda f: (f / WEIGHTS).unlink(), WEIGHTS),
    "no config": (WeightsNotFoundError, lambda f: (f / CONFIG).unlink(), CONFIG),
    "truncated": (WeightsCorruptError, break_truncated, "bytes"),
    "empty": (WeightsCorruptError, lambda f: (f / WEIGHTS).write_bytes(b""), WEIGHTS),
    "noise": (WeightsCorruptError, lambda f: (f / WEIGHTS).write_bytes(b"x" * 999), WEIGHTS),
    "pickle": (WeightsFormatError, break_pickle, "safetensors"),
    "int8": (ModelConfigError, break_int8, "text_projection"),
    "tensor missing": (ModelConfigError, break_missing_tensor, "visual.ln_post.weight"),
    "no preprocess_cfg": (
        ModelConfigError,
        lambda f: rewrite_config(f, lambda c: c.pop("preprocess_cfg")),
        "preprocess_cfg",
    ),
    "no mean": (
        ModelConfigError,
        lambda f: rewrite_config(f, lambda c: c["preprocess_cfg"].pop("mean")),
        "mean",
    ),
    "image size": (
        ModelConfigError,
        lambda f: rewrite_config(f, lambda c: c["model_cfg"]["vision_cfg"].update(image_size=64)),
        "image_size",
    ),
    "context length": (
        ModelConfigError,
        lambda f: rewrite_config(f, lambda c: c["model_cfg"]["text_cfg"].update(context_length=30)),
        "positional_embedding",
    ),
    "width": (
        ModelConfigError,
        lambda f: rewrite_config(f, lambda c: c["model_cfg"].update(embed_dim=48)),
        "projection",
    ),
    "not json": (ModelConfigError, lambda f: (f / CONFIG).write_text("{"), CONFIG),
    "nonsense": (
        ModelConfigError,
        lambda f: rewrite_config(f, lambda c: c["model_cfg"]["text_cfg"].update(heads="many")),
        CONFIG,
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_model_is_refused_with_its_own_clear_error(name: str, tmp_path: Path) -> None:
    kind, damage, told = BROKEN[name]
    folder = save_model(tmp_path / "model", VIT)
    damage(folder)
    with pytest.raises(kind) as caught:
        load_openclip(f"local-dir:{folder}")
    assert type(caught.value) is kind
    assert told in str(caught.value)
    assert str(folder) in str(caught.value)
    with pytest.raises(ClipsearchError):
        load_encoder(f"local-dir:{folder}")


def test_a_pickle_named_safetensors_is_never_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    folder = save_model(tmp_path / "model", VIT)
    (folder / WEIGHTS).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(WeightsCorruptError):
        load_openclip(f"local-dir:{folder}")
    assert not (tmp_path / "ran").exists()


def test_a_pretrained_model_without_a_network_says_so_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelDownloadError, match="--model embedded"):
        load_openclip("RN50/openai")


def test_the_compiled_runtime_is_required_by_name_or_refused(
    tmp_path: Path, settings: Settings
) -> None:
    address = f"local-dir:{save_model(tmp_path / 'model', VIT, seed=9)}"
    with pytest.raises(ModelError, match="models use"):
        load_encoder(address, settings=replace(settings, runtime="compiled"))
    with pytest.raises(DeviceError):
        load_encoder(address, settings=replace(settings, runtime="compiled", device="cuda"))


def test_cuda_is_refused_by_name_where_there_is_none(tmp_path: Path, settings: Settings) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA GPU")
    address = f"local-dir:{save_model(tmp_path / 'model', VIT)}"
    with pytest.raises(DeviceError, match="CUDA"):
        load_encoder(address, settings=replace(settings, device="cuda"))


@pytest.mark.parametrize(("config", "expected"), [(VIT, True), (RESNET, False)])
def test_sparing_unused_tokens_changes_no_vector(
    tmp_path: Path, config: dict[str, Any], expected: bool
) -> None:
    import torch

    from clipsearch.encoders.openclip_pooling import spare_unused_tokens

    model: Any = load_openclip(f"local-dir:{save_model(tmp_path / 'model', config)}").model
    side = config["vision_cfg"]["image_size"]
    images = torch.rand(5, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        before = model.encode_image(images)
        assert spare_unused_tokens(model) is expected
        assert torch.allclose(model.encode_image(images), before, atol=1e-5)
