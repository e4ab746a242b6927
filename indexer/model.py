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
    may_use_compiled,
    resolve_address,
)
from clipsearch.encoders.model_store import read_model
from clipsearch.library import Library, SpaceRecord
from clipsearch.model_names import LOCAL_DIR
from clipsearch.own_models import known_model
from clipsearch.vectors import EmbeddingSpace


@dataclass(frozen=True)
class Target:
    """The model to fill the library with; ``space`` is None until the model has been loaded."""

    address: str
    space: SpaceRecord | None


class EncoderLoader(Protocol):
    """Makes the encoder of an address ready."""

    def load(self, address: str, space: EmbeddingSpace | None) -> Encoder:
        """Called at most once a run, if there is work; SpaceMismatchError if not of ``space``."""
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
    space = known_model(library, address, notify)
    if space is None and not verify:
        space = _filled_by(library, address)
    if space is None:
        address = resolve_address(address, settings=settings, notify=notify)
        space = None if verify else _filled_by(library, address)
        if space is None and address.startswith(LOCAL_DIR):
            read_model(address, settings)  # before it is remembered
    address = address if space is None else space.address
    if library.settings().get("model") != address:
        library.set_setting("model", address)
    return Target(address, space)


def _filled_by(library: Library, address: str) -> SpaceRecord | None:
    """The space of an address: the one that searches use, else the latest."""
    found = [space for space in library.spaces() if address in (space.address, space.origin)]
    return max(reversed(found), key=lambda space: space.active, default=None)


class StandardLoader:
    """Uses the fastest runtime: on a CPU the compiled one, which is made first if need be.

    Also for a few pictures: searches need it anyway, and making it takes hardly longer than
    starting torch here.
    """

    def __init__(self, settings: Settings, notify: Callable[[str], None] | None = None) -> None:
        self._settings = settings
        self._notify = notify
        self._loaded: Encoder | None = None

    def load(self, address: str, space: EmbeddingSpace | None) -> Encoder:
        if self._settings.runtime == "auto" and may_use_compiled(self._settings):
            self._compile(address, space)
        encoder = load_encoder(address, settings=self._settings, space=space, notify=self._notify)
        self._loaded = encoder
        return encoder

    def _compile(self, address: str, space: EmbeddingSpace | None) -> None:
        # A known space is looked up by its name; by its address all weights would be read.
        if space is None or not is_compiled(space, self._settings):
            compile_encoder(address, settings=self._settings, space=space, notify=self._notify)

    def finish(self) -> None:
        if self._loaded is not None:
            loaded, self._loaded = self._loaded, None
            neutral_vectors(loaded.space, self._settings, lambda: loaded)  # for the first search
