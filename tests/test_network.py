"""The network is asked for weights alone, after it was said; offline it is never asked at all."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import huggingface_hub.constants as hub
import pytest

from clipsearch import cli
from clipsearch.config import resolve
from clipsearch.encoders import (
    addresses,
    compile_encoder,
    downloads,
    known_models,
    load_encoder,
    openclip,
    resolve_address,
)
from clipsearch.encoders.downloads import download_of
from clipsearch.encoders.openclip_names import megabytes_of
from clipsearch.encoders.registry import DEFAULT, RECOMMENDED
from clipsearch.errors import ModelDownloadError, UsageError
from clipsearch.library import Library
from tests.test_pipeline import paint

Run = Callable[..., CompletedProcess[str]]
PRETRAINED = (DEFAULT, "RN50", "ViT-B-32/openai", "hf-hub:someone/something")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """What was asked of the network, which never answers; no weights are on this machine."""
    calls: list[str] = []

    def refuse(*given: Any, **_: Any) -> Any:
        calls.append(repr(given[-1] if given else ""))
        raise OSError("the network was asked")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "CLIPSEARCH_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(downloads, "_told", set())
    return calls


def offline_by(way: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Forbids the network in one of the ways; what the settings are then made of."""
    if way in ("flag", "library"):
        return {"offline": True if way == "flag" else "yes"}
    monkeypatch.setenv(way, "1")
    return {}


WAYS = ("flag", "library", "CLIPSEARCH_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


@pytest.mark.parametrize("way", WAYS)
def test_offline_nothing_opens_a_socket(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str
) -> None:
    settings = replace(
        resolve(library_settings=offline_by(way, monkeypatch)), cache_dir=tmp_path / "cache"
    )
    heard: list[str] = []
    assert resolve_address("auto", settings=settings, notify=heard.append) == "embedded"
    assert heard[0].startswith("Offline: using the small embedded model")
    for address in PRETRAINED:
        for load in (load_encoder, compile_encoder):
            with pytest.raises(ModelDownloadError, match=r"forbidden .* --model embedded"):
                load(address, settings=settings, notify=heard.append)
    assert not any("Downloading" in line for line in heard)
    known_models(include_all=True)
    assert asked == []
    assert not hub.HF_HUB_OFFLINE, "what others in this process may do is as it was"


@pytest.mark.parametrize("address", PRETRAINED)
def test_before_the_first_byte_it_is_said_what_how_much_and_how_to_forbid_it(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    heard: list[tuple[str, int]] = []
    monkeypatch.setattr(openclip, "hub_is_reachable", lambda: bool(asked.append("probe")))
    with pytest.raises(ModelDownloadError, match="there is no network"):
        load_encoder(address, notify=lambda line: heard.append((line, len(asked))))
    (told,) = [line for line, before in heard if before == 0]
    assert "Downloading the weights of" in told
    assert "the Hugging Face hub" in told
    assert str(hub.HF_HUB_CACHE) in told
    assert all(way in told for way in ("--offline", "models offline", "CLIPSEARCH_OFFLINE=1"))
    size = {DEFAULT: "about 605 MB", "RN50": "about 408 MB", "ViT-B-32/openai": "about 605 MB"}
    assert size.get(address, "only the hub knows") in told
    assert asked == ["probe"]


def test_who_does_not_listen_is_told_on_stderr(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(openclip, "hub_is_reachable", lambda: False)
    with pytest.raises(ModelDownloadError):
        load_encoder(DEFAULT)
    told = capsys.readouterr()
    assert "about 605 MB" in told.err
    assert told.out == ""


def test_auto_says_so_before_it_looks(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []

    def probe() -> bool:
        assert "Looking for and downloading the weights" in heard[0]
        assert "605 MB" in heard[0]
        return True

    monkeypatch.setattr(addresses, "hub_is_reachable", probe)
    assert resolve_address("auto", notify=heard.append) == DEFAULT
    monkeypatch.setattr(openclip, "hub_is_reachable", lambda: False)
    with pytest.raises(ModelDownloadError):
        load_encoder(DEFAULT, notify=heard.append)
    assert len(heard) == 1, "once is enough"
    monkeypatch.setattr(addresses, "hub_is_reachable", lambda: False)
    assert resolve_address("auto", notify=heard.append) == "embedded"


def test_weights_that_are_here_are_used_without_asking(
    asked: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    entry = next(entry for entry in RECOMMENDED if entry.address == DEFAULT)
    place = tmp_path / "hub" / f"models--{str(entry.hub).replace('/', '--')}"
    snapshot = place / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("abc")
    (snapshot / "open_clip_model.safetensors").write_bytes(b"not really")
    assert download_of(DEFAULT) is None
    heard: list[str] = []
    assert resolve_address("auto", notify=heard.append) == DEFAULT
    with pytest.raises(Exception, match="damaged or incomplete"):
        load_encoder(DEFAULT, notify=heard.append)
    assert (heard, asked) == ([], [])


@pytest.mark.parametrize("address", [DEFAULT, "MobileCLIP2-S2/dfndr2b"])
def test_sizes_are_those_of_the_architectures(address: str) -> None:
    told = next(entry.megabytes for entry in RECOMMENDED if entry.address == address)
    assert told == megabytes_of(address)


def test_every_command_with_a_library_can_be_kept_offline() -> None:
    for name in cli.COMMANDS:
        parser = ArgumentParser()
        cli._load(name).configure(parser)
        options = parser.format_help()
        assert ("--offline" in options) == ("--library" in options), name
        assert name == "query-help" or "--offline" in options, name


@pytest.mark.usefixtures("embedded_library")  # so that the model is compiled
def test_one_setting_forbids_it_for_good(
    asked: list[str], library_path: Path, tmp_path: Path, call_cli: Run
) -> None:
    paint(tmp_path / "photos" / "1.png", 1)
    assert json.loads(call_cli("models", "offline", "--json").stdout)["offline"] is True
    done = call_cli("index", tmp_path / "photos")  # auto
    assert done.returncode == 0, done.stderr
    assert "Offline: using the small embedded model" in done.stderr
    assert json.loads(call_cli("info", "--json").stdout)["offline"] is True
    assert "network   never" in call_cli("info").stdout
    for command in (("models", "use"), ("index", "--model"), ("search", "a dog", "--model")):
        refused = call_cli(*command, DEFAULT)
        assert refused.returncode in (ModelDownloadError.exit_code, 2), refused.stderr
    assert asked == []
    assert call_cli("models", "online").returncode == 0
    with Library.open(library_path) as library:
        assert not resolve(library_settings=library.settings()).offline


@pytest.mark.parametrize(
    ("library", "environment", "flag", "offline"),
    [
        (None, None, None, False),
        ("yes", None, None, True),
        ("yes", "0", None, False),
        ("no", "1", None, True),
        (None, "on", False, False),
        (None, None, True, True),
    ],
)
def test_the_later_source_wins(
    library: str | None, environment: str | None, flag: bool | None, offline: bool
) -> None:
    chosen = resolve(
        {"offline": flag},
        {"offline": library} if library else {},
        {"CLIPSEARCH_OFFLINE": environment} if environment else {},
    )
    assert chosen.offline is offline


def test_a_setting_that_is_neither_yes_nor_no_is_refused() -> None:
    with pytest.raises(UsageError, match=r"offline must be one of .* 'maybe' .the environment."):
        resolve(environment={"CLIPSEARCH_OFFLINE": "maybe"})


def test_reports_of_use_are_off_in_every_process_however_it_began(tmp_path: Path) -> None:
    script = """
import os, sys
before = set(sys.modules)
import {first}
assert not {{"torch", "gradio", "huggingface_hub", "numpy"}} & set(sys.modules) or {heavy}
import clipsearch
names = ("HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK", "GRADIO_ANALYTICS_ENABLED")
import huggingface_hub.constants as hub
print(*(os.environ[name] for name in names), hub.HF_HUB_DISABLE_TELEMETRY)
"""
    clean = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name}
    clean = {name: value for name, value in clean.items() if name not in ("DO_NOT_TRACK",)}
    clean["HF_HUB_DISABLE_TELEMETRY"] = "0"  # what a person forgot
    for first, heavy in (
        ("clipsearch", False),
        ("clipsearch.cli", False),
        ("huggingface_hub", True),
    ):
        done = subprocess.run(
            [sys.executable, "-c", script.format(first=first, heavy=heavy)],
            capture_output=True,
            text=True,
            env=clean,
            check=False,
            timeout=60,
        )
        assert done.stdout == "1 1 False True\n", done.stderr


WATCHED = """
import os, socket
def note(*given, **_):
    place = next((one for one in given if isinstance(one, tuple)), given[:1])
    if str(place[0]) not in ("127.0.0.1", "::1", "localhost"):
        with open(os.environ["ASKED"], "a") as file:
            file.write(f"{given}\\n")
        raise OSError("the network was asked")
    raise OSError("nothing listens")
socket.getaddrinfo = socket.create_connection = note
socket.socket.connect = socket.socket.connect_ex = note
"""


@pytest.mark.usefixtures("embedded_library")
def test_offline_no_command_and_no_process_that_it_starts_asks_the_network(
    tmp_path: Path, tiny_model_dir: Path, run_cli: Run
) -> None:
    """Indexing by decoder processes, a search and a conversion, each with its own interpreter."""
    (tmp_path / "watched").mkdir()
    (tmp_path / "watched" / "sitecustomize.py").write_text(WATCHED)
    paint(tmp_path / "photos" / "1.png", 1)
    environment = {
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "watched"), *filter(None, sys.path)]),
        "ASKED": str(tmp_path / "asked"),
        "CLIPSEARCH_OFFLINE": "1",
        "HF_HUB_OFFLINE": "",
        "HF_HUB_CACHE": str(tmp_path / "hub"),
    }
    model = ("--model", f"local-dir:{tiny_model_dir}")
    for command in (
        ("index", tmp_path / "photos", *model),
        ("search", "a dog", "--all"),
        ("models",),
    ):
        done = run_cli(*command, env=environment)
        assert done.returncode == 0, done.stderr
    asked = tmp_path / "asked"
    assert not asked.exists(), asked.read_text()
    environment["CLIPSEARCH_OFFLINE"] = "0"
    new = ("index", tmp_path / "photos", "--library", tmp_path / "new")  # by auto
    seen = run_cli(*new, env=environment)
    assert seen.stderr.index("about 605 MB") < seen.stderr.index("No network"), seen.stderr
    assert asked.exists(), "this test would see it"
