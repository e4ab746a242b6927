"""Settings: defaults < the library's own < environment < flags, each refused by name when wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipsearch.config import Settings, resolve
from clipsearch.errors import UsageError


def test_the_nearer_source_wins() -> None:
    library = {"model": "from-library", "threads": "3"}
    environment = {"CLIPSEARCH_MODEL": "from-environment"}
    assert resolve({}, {}, {}).model == "auto"
    assert resolve({}, library, {}).model == "from-library"
    assert resolve({}, library, environment).model == "from-environment"
    assert resolve({"model": "flag"}, library, environment).model == "flag"
    assert resolve({"model": None}, library, environment).threads == 3


def test_paths_are_absolute_and_home_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somewhere")
    assert resolve({"library": "~/a.clipsearch"}, {}, {}).library == Path("/somewhere/a.clipsearch")
    assert resolve({"library": "b.clipsearch"}, {}, {}).library == Path.cwd() / "b.clipsearch"


@pytest.mark.parametrize(
    ("name", "value"),
    [("threads", "many"), ("port", -1), ("max_pixels", 0), ("runtime", "gpu"), ("device", "tpu")],
)
def test_a_wrong_value_is_named_with_its_source(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"{name} must be .*the command line"):
        resolve({name: value}, {}, {})
    with pytest.raises(UsageError, match=f"{name} must be .*the environment"):
        resolve({}, {}, {f"CLIPSEARCH_{name.upper()}": str(value)})


def test_flags_that_are_no_settings_are_ignored() -> None:
    assert isinstance(resolve({"json": True, "top": 5}, {}, {}), Settings)
