"""The text tower in numpy: what comes after a text's end is left out, and no vector changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import RESNET, TEXT, VIT, compile_here, save_model

from clipsearch.config import resolve
from clipsearch.encoders import load_encoder
from clipsearch.encoders.openclip import OpenClipModel, load_openclip
from clipsearch.encoders.openclip_text import save_text_tower
from clipsearch.encoders.text_tower import ACTIVATIONS, TextTower
from clipsearch.encoders.tokenizer import BytePairTokenizer
from clipsearch.vectors import Matrix, unit_rows

TEXTS = [
    "", " \n", "x", "a dog", "two dogs on a beach at night", "«Ünïcode» &amp; 🐈",
    "an end <end_of_text> within", "<start_of_text>", "word " * 17, "word " * 200,
]  # fmt: skip


def with_text(**changes: Any) -> dict[str, Any]:
    return {**VIT, "text_cfg": {**TEXT, **changes}}


def at_full_length(loaded: OpenClipModel, texts: list[str]) -> Matrix:
    """torch's vectors, each text filled up to the context length with zeros."""
    import torch

    model: Any = loaded.model
    with torch.inference_mode():
        vectors: Matrix = model.encode_text(loaded.tokenizer(texts), normalize=True).numpy()
    return vectors


def context_length(loaded: OpenClipModel) -> int:
    return int(loaded.model_cfg["text_cfg"]["context_length"])


@pytest.mark.parametrize("name", ["vit", "quick gelu", "wide", "embedded"])
def test_vectors_up_to_the_end_are_those_of_the_full_length(name: str, tmp_path: Path) -> None:
    configs = {
        "vit": VIT,
        "quick gelu": RESNET,
        "wide": with_text(width=128, heads=2, layers=3, context_length=77),
    }
    if name == "embedded":
        loaded = load_openclip("embedded")
    else:
        loaded = load_openclip(f"local-dir:{save_model(tmp_path / 'model', configs[name])}")
    half = name == "embedded"  # whose weights are of float16
    assert save_text_tower(loaded.model, tmp_path / "text.safetensors", half=half)
    tower = TextTower(tmp_path / "text.safetensors")
    tokens = BytePairTokenizer(context_length(loaded))(TEXTS)
    expected = at_full_length(loaded, TEXTS)
    np.testing.assert_allclose(unit_rows(tower(tokens)), expected, rtol=0, atol=1e-5)
    alone = np.concatenate([tower(row[None]) for row in tokens])
    np.testing.assert_allclose(unit_rows(alone), expected, rtol=0, atol=1e-5)


def test_many_texts_of_all_lengths_keep_their_places(tmp_path: Path) -> None:
    loaded = load_openclip(f"local-dir:{save_model(tmp_path / 'model', VIT)}")
    save_text_tower(loaded.model, tmp_path / "text.safetensors", half=False)
    texts = [f"{'many ' * (number % 30)}photos, number {number}" for number in range(300)]
    found = TextTower(tmp_path / "text.safetensors")(BytePairTokenizer(20)(texts))
    np.testing.assert_allclose(unit_rows(found), at_full_length(loaded, texts), rtol=0, atol=1e-5)


NOT_PLAIN = {
    "not causal": with_text(no_causal_mask=True),
    "pooled at the last place": with_text(pool_type="last"),
    "scaled layers": with_text(ls_init_value=0.1),
    "no projection": {**with_text(proj_type="none"), "embed_dim": TEXT["width"]},
}


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_other_towers_are_computed_by_the_runtime_at_their_full_length(
    name: str, tmp_path: Path
) -> None:
    address = f"local-dir:{save_model(tmp_path / 'model', NOT_PLAIN[name], seed=5)}"
    loaded = load_openclip(address)
    assert not save_text_tower(loaded.model, tmp_path / "text.safetensors", half=True)
    assert not (tmp_path / "text.safetensors").exists()
    settings = resolve({"cache_dir": tmp_path / "cache", "runtime": "compiled"})
    compile_here(address, settings)
    folder = settings.compiled_dir / loaded.space.id
    assert sorted(path.name for path in folder.glob("text.*")) == ["text.bin", "text.xml"]
    found = load_encoder(address, settings=settings).encode_texts(TEXTS)
    assert (found * at_full_length(loaded, TEXTS)).sum(axis=1).min() > 0.9999


def test_a_tower_that_is_not_causal_would_not_survive_cutting(tmp_path: Path) -> None:
    """What the refusal above is for: its vectors depend on what comes after the end."""
    folder = save_model(tmp_path / "model", NOT_PLAIN["not causal"], seed=5)
    model: Any = load_openclip(f"local-dir:{folder}").model
    model.attn_mask = load_openclip(f"local-dir:{save_model(tmp_path / 'b', VIT)}").model.attn_mask
    assert save_text_tower(model, tmp_path / "text.safetensors", half=False)
    tokens = BytePairTokenizer(20)(["two dogs"])
    cut = unit_rows(TextTower(tmp_path / "text.safetensors")(tokens))
    whole = at_full_length(load_openclip(f"local-dir:{folder}"), ["two dogs"])
    assert np.abs(cut - whole).max() > 1e-3


def test_weights_beyond_float16_are_kept_as_float32(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = save_model(tmp_path / "model", VIT)
    weights = folder / "open_clip_model.safetensors"
    state = load_file(weights)
    state["ln_final.weight"] *= 1e6
    save_file(state, weights)
    address = f"local-dir:{folder}"
    settings = resolve({"cache_dir": tmp_path / "cache", "runtime": "compiled"})
    compile_here(address, settings)
    encoder = load_encoder(address, settings=settings)
    expected = at_full_length(load_openclip(address), TEXTS)
    np.testing.assert_allclose(encoder.encode_texts(TEXTS), expected, rtol=0, atol=1e-5)
    with (settings.compiled_dir / encoder.space.id / "text.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    assert {entry["dtype"] for name, entry in header.items() if name != "__metadata__"} == {"F32"}


def test_activations_are_torchs() -> None:
    import torch
    from open_clip.transformer import QuickGELU

    x = np.concatenate([np.linspace(-12, 12, 4801), [-1e4, -300, 0, 300, 1e4]], dtype=np.float32)
    for name, theirs in (("gelu", torch.nn.GELU()), ("quick_gelu", QuickGELU())):
        found, expected = ACTIVATIONS[name](x), theirs(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
