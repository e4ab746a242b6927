"""A model that stays loaded from run to run, and is let go when nothing comes for a while."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

from clipsearch.config import Settings
from clipsearch.encoders import Encoder
from clipsearch.vectors import EmbeddingSpace
from indexer.model import StandardLoader

KEEP_S = 600.0


class KeptLoader:
    """An EncoderLoader that loads like StandardLoader and keeps what it loaded.

    Call ``release_if_idle`` now and then: it lets a model go that was not asked for in ``keep_s``.
    """

    def __init__(
        self,
        settings: Settings,
        notify: Callable[[str], None] | None = None,
        *,
        keep_s: float = KEEP_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._notify = notify
        self._keep_s = keep_s
        self._clock = clock
        self._inner: StandardLoader | None = None
        self._address = ""
        self._encoder: Encoder | None = None
        self._used_at = 0.0

    @property
    def is_loaded(self) -> bool:
        return self._encoder is not None

    def follow(self, settings: Settings) -> None:
        """Takes the settings of the next run; a model of other settings is let go."""
        if settings != self._settings:
            self.release()
            self._settings = settings

    def load(self, address: str, space: EmbeddingSpace | None) -> Encoder:
        """The kept model if it is the one, else a newly loaded one; as in EncoderLoader."""
        self._used_at = self._clock()
        kept = self._encoder
        if kept is not None and self._address == address and kept.space == space:
            return kept
        self.release()
        self._inner = StandardLoader(self._settings, self._notify)
        self._encoder = self._inner.load(address, space)
        self._address = address
        return self._encoder

    def finish(self) -> None:
        """Notes that until here the model was in use; what is newly loaded is finished, too."""
        self._used_at = self._clock()
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.finish()

    def release_if_idle(self) -> None:
        """Lets the model go if it was not asked for in ``keep_s``."""
        if self._encoder is not None and self._clock() - self._used_at >= self._keep_s:
            self.release()

    def release(self) -> None:
        """Lets the model go."""
        self._inner = None
        if self._encoder is not None:
            self._encoder = None
            gc.collect()  # models hold cycles; without this they stay until memory is short
