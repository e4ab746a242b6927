"""Addresses: what is recommended exists, what is mistyped is corrected, and auto never hangs."""

from __future__ import annotations

import time

import open_clip
import pytest

from clipsearch.encoders import known_models, resolve_address
from clipsearch.encoders.addresses import hub_is_reachable
from clipsearch.encoders.registry import DEFAULT, EMBEDDED, OPENAI_MODELS, RECOMMENDED
from clipsearch.errors import UnknownModelError


def test_every_recommended_model_exists_in_open_clip_with_the_weights_we_look_for() -> None:
    for entry in RECOMMENDED:
        if entry.address == EMBEDDED:
            continue
        name, tag = entry.address.split("/")
        config = open_clip.get_pretrained_cfg(name, tag)
        assert config, entry.address
        assert config.get("hf_hub", "").rstrip("/") == entry.hub
        assert open_clip.get_model_config(name)["embed_dim"] == entry.dim


@pytest.mark.parametrize("name", OPENAI_MODELS)
def test_openais_models_are_known_by_their_bare_names(name: str) -> None:
    assert resolve_address(name) == f"{name}/openai"
    assert open_clip.get_pretrained_cfg(name, "openai")


def test_every_tag_of_open_clip_is_an_address() -> None:
    listed = {entry.address for entry in known_models(include_all=True)}
    for name, tag in open_clip.list_pretrained():
        assert f"{name}/{tag}" in listed
    assert resolve_address("ViT-B-16/laion2b_s34b_b88k") == "ViT-B-16/laion2b_s34b_b88k"


@pytest.mark.parametrize(
    ("typed", "suggested"),
    [
        ("ViT-B-23/openai", "ViT-B-32/openai"),
        ("ViT-B-32/opnai", "ViT-B-32/openai"),
        ("ViT-L-14-335", "ViT-L-14-336"),
        ("hf-hub:only-a-name", "organisation/name"),
        ("", "clipsearch models"),
    ],
)
def test_an_unknown_name_gets_a_suggestion(typed: str, suggested: str) -> None:
    with pytest.raises(UnknownModelError, match=suggested):
        resolve_address(typed)


def test_auto_falls_back_within_five_seconds_and_says_how_to_upgrade(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # An address that swallows packets (TEST-NET-1, RFC 5737): the slowest kind of no network.
    monkeypatch.setenv("HF_ENDPOINT", "https://192.0.2.1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    heard: list[str] = []
    started = time.monotonic()
    assert resolve_address("auto", notify=heard.append) == "embedded"
    assert time.monotonic() - started < 5
    assert "No network" in heard[-1]
    assert DEFAULT in heard[-1]


def test_offline_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    started = time.monotonic()
    assert not hub_is_reachable()
    assert time.monotonic() - started < 0.1


def test_a_local_folder_becomes_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert resolve_address("local-dir:~/model") == "local-dir:/home/someone/model"
