"""Settings, and the one place where they are decided: defaults < library < environment < flags."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import platformdirs

from clipsearch.errors import UsageError
from clipsearch.user_paths import expand_user

ENVIRONMENT_PREFIX = "CLIPSEARCH_"
DEFAULT_MODEL = "auto"
DEFAULT_MAX_PIXELS = 200_000_000
DEFAULT_TOP = 20  # answers
DEFAULT_SIDECAR_TEXT = "caption"
SIDECAR_TEXTS = (DEFAULT_SIDECAR_TEXT, "tags", "off")  # what a .txt beside a picture holds


@dataclass(frozen=True)
class Settings:
    """Everything that can be set. Paths are absolute, ``~`` expanded."""

    library: Path
    cache_dir: Path
    model: str = DEFAULT_MODEL
    runtime: str = "auto"  # auto | torch | compiled
    device: str = "auto"  # auto | cpu | cuda
    precision: str = "auto"  # auto | f32 | bf16
    threads: int = 0  # 0: as many as the machine has cores
    max_pixels: int = DEFAULT_MAX_PIXELS
    sidecar_text: str = DEFAULT_SIDECAR_TEXT  # caption | tags | off
    offline: bool = False  # never ask the network, also not for weights
    host: str = "127.0.0.1"
    port: int = 7860
    token: str = ""

    def of(self, library: Path) -> Settings:
        """The same for a library that was opened by its path, whose own models are then used."""
        return replace(self, library=library)

    @property
    def compiled_dir(self) -> Path:
        """Where the compiled models lie, each in a folder named by its space."""
        return self.cache_dir / "compiled"

    @property
    def thread_count(self) -> int:
        """``threads``, or the number of cores this process may use."""
        return self.threads or available_cores()


_CHOICES = {
    "runtime": ("auto", "torch", "compiled"),
    "device": ("auto", "cpu", "cuda"),
    "precision": ("auto", "f32", "bf16"),
    "sidecar_text": SIDECAR_TEXTS,
}


_SWITCHES = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


def resolve(
    flags: Mapping[str, Any] | None = None,
    library_settings: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Merges the sources, the later winning: defaults, the library's own, CLIPSEARCH_*, flags.

    Flags that are None or that no setting is named after are ignored, so a parsed command line can
    be passed whole. UsageError names a value that cannot be used and where it came from.
    """
    environment = os.environ if environment is None else environment
    settings = Settings(
        library=Path(platformdirs.user_data_dir("clipsearch", appauthor=False))
        / "default.clipsearch",
        cache_dir=Path(platformdirs.user_cache_dir("clipsearch", appauthor=False)),
    )
    from_environment = {
        field.name: environment[ENVIRONMENT_PREFIX + field.name.upper()]
        for field in fields(Settings)
        if environment.get(ENVIRONMENT_PREFIX + field.name.upper())
    }
    for source, values in (
        ("the library's settings", library_settings or {}),
        ("the environment", from_environment),
        ("the command line", flags or {}),
    ):
        known = {
            field.name: _converted(field.name, values[field.name], source)
            for field in fields(Settings)
            if values.get(field.name) is not None
        }
        settings = replace(settings, **known)
    return settings


def _converted(name: str, value: Any, source: str) -> Any:
    if name in ("library", "cache_dir"):
        return expand_user(value).absolute()
    if name in ("threads", "max_pixels", "port"):
        try:
            number = int(value)
        except ValueError:
            raise UsageError(
                reason=f"{name} must be a whole number, not {value!r} ({source})"
            ) from None
        if number < 0 or (name == "max_pixels" and number == 0):
            raise UsageError(reason=f"{name} must be positive, not {number} ({source})")
        return number
    if name == "offline":
        if str(value).lower() not in _SWITCHES:
            choices = ", ".join(_SWITCHES)
            raise UsageError(reason=f"{name} must be one of {choices}, not {value!r} ({source})")
        return _SWITCHES[str(value).lower()]
    if name in _CHOICES and value not in _CHOICES[name]:
        choices = ", ".join(_CHOICES[name])
        raise UsageError(reason=f"{name} must be one of {choices}, not {value!r} ({source})")
    return str(value)


def available_cores() -> int:
    """The cores this process may use, not those of the whole machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
