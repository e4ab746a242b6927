"""What page and programs are told of a library's models: which searches, and how a change goes."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from clipsearch.library import Library
from clipsearch.library.choices import IN_USE, NEXT, HeldModel, held_models
from clipsearch.library.fill_state import FillState, read_fill_state


@dataclass(frozen=True)
class Models:
    """The models that a library has vectors of, in the order they were added.

    ``fill`` is a change that goes on or was left undone.
    """

    held: tuple[HeldModel, ...]
    fill: FillState | None

    @property
    def in_use(self) -> HeldModel | None:
        """The one that searches use; None before the first picture."""
        return next((model for model in self.held if model.state == IN_USE), None)

    @property
    def coming(self) -> HeldModel | None:
        """The one that searches will use once it is whole."""
        return next((model for model in self.held if model.state == NEXT), None)


class ModelReader:
    """Reads the models of a library, for many who ask often; thread-safe."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._counting = threading.Lock()
        self._counted: tuple[object, tuple[HeldModel, ...]] | None = None

    def read(self) -> Models:
        """As it is now. What lacks a vector is counted only after something was written."""
        with self._counting:
            fill = read_fill_state(self._library.path)
            spaces, models = self._library.spaces(), self._library.models
            # A fill leaves the library's state as it is, but not the number of vectors.
            seen = (self._library.state, spaces, models.next(), models.previous())
            if self._counted is None or self._counted[0] != seen:
                self._counted = (seen, tuple(held_models(self._library)))
            return Models(self._counted[1], fill)
