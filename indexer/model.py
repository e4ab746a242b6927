"""Which model fills a library, and making it ready for the amount of work there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from clipsearch.calibrating import neutral_vectors
from clipsearch.config import Settings
from clipsearch.encoders import (
    Encoder,
    compile_encoder,
    is_compiled,
    load_encoder,
    resolve_address,
)
from clipsearch.library import Library, SpaceRecord
from clipsearch.vectors import EmbeddingSpace

# Making the compiled runtime takes as long as torch needs for about this many pictures.
COMPILE_ABOVE = 50


@dataclass(frozen=True)
class Target:
    """The model to fill the library with; ``space`` is None until the model has been loaded."""

    address: str
    space: SpaceRecord | None


class EncoderLoader(Protocol):
    """Makes the encoder of an address ready; called at most once a run, if there is work."""

    def load(self, address: str, space: EmbeddingSpace | None, pictures: int) -> Encoder:
        """Returns it for about so many ``pictures``; SpaceMismatchError if ``space`` is not its."""
        ...

    def finish(self) -> None:
        """Runs after the last picture, when the library is already released."""
        ...


def choose_target(
    library: Library,
    settings: Settings,
    *,
    verify: bool,
    notify: Callable[[str], None] | None = None,
) -> Target:
    """Finds the space that ``settings.model`` names, and remembers the address in the library.

    Without ``verify`` a space that the address filled before is taken at its word, which loads
    nothing. With it the model has to be loaded, because a folder of weights may have been written
    anew under the same address. Raises UnknownModelError.
    """
    address = settings.model
    if verify or not _filled_by(library, address):
        address = resolve_address(address, settings=settings, notify=notify)
    if library.settings().get("model") != address:
        library.set_setting("model", address)
    spaces = [] if verify else _filled_by(library, address)
    return Target(address, spaces[-1] if spaces else None)


def _filled_by(library: Library, address: str) -> list[SpaceRecord]:
    """The spaces of an address, the latest last."""
    return [space for space in library.spaces() if space.address == address]


class StandardLoader:
    """Uses the fastest runtime: on a CPU the compiled one, made first when it pays at once.

    For a few pictures the compiled runtime is made afterwards, so that later searches start
    without torch.
    """

    def __init__(self, settings: Settings, notify: Callable[[str], None] | None = None) -> None:
        self._settings = settings
        self._notify = notify
        self._compile_later: str | None = None
        self._loaded: Encoder | None = None

    def load(self, address: str, space: EmbeddingSpace | None, pictures: int) -> Encoder:
        compiling = self._settings.runtime == "auto" and self._settings.device != "cuda"
        compiled = space is not None and is_compiled(space, self._settings)
        tried = compiling and not compiled and pictures > COMPILE_ABOVE
        if tried:
            compile_encoder(address, settings=self._settings, notify=self._notify)
        encoder = load_encoder(address, settings=self._settings, space=space, notify=self._notify)
        if compiling and not tried and encoder.runtime == "torch-cpu":
            self._compile_later = address
        self._loaded = encoder
        return encoder

    def finish(self) -> None:
        if self._loaded is not None:
            loaded, self._loaded = self._loaded, None
            neutral_vectors(loaded.space, self._settings, lambda: loaded)  # for the first search
        if self._compile_later is not None:
            compile_encoder(self._compile_later, settings=self._settings, notify=self._notify)
            self._compile_later = None
