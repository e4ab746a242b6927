"""An encoder without a model: a text is the sum of its words, and so is a picture of these words.

Words have fixed random directions, so that what fits is known, and nothing takes a second.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from clipsearch.library import Batch, FileState, Library, NewItem
from clipsearch.vectors import EmbeddingSpace, Matrix, unit_rows

_SILENT = frozenset(("a", "an", "the", "of", "photo", "in", "on", "close", "up", "itap", "and"))


class WordEncoder:
    address, runtime, precision = "words", "words", "f32"

    def __init__(self, model: str = "words", dim: int = 256) -> None:
        self.space = EmbeddingSpace(model, "weights", "preprocess", dim)

    def encode_texts(self, texts: Sequence[str]) -> Matrix:
        return unit_rows(np.stack([self._sum(text) for text in texts]))

    def _sum(self, text: str) -> np.ndarray:
        words = [word for word in re.findall(r"\w+", text.lower()) if word not in _SILENT]
        return sum((self._direction(word) for word in words), np.full(self.space.dim, 1e-3))

    def _direction(self, word: str) -> np.ndarray:
        seed = zlib.crc32(f"{self.space.model} {word}".encode())
        return np.random.default_rng(seed).standard_normal(self.space.dim) / self.space.dim**0.5


def library_of(path: Path, photos: Path, shown: dict[str, str], encoder: WordEncoder) -> Library:
    """A library with one picture for each file name, which shows the words that go with it."""
    library = Library.open(path, create=True)
    with library.writer() as writer:
        writer.add_root(photos)
        space = writer.add_space(encoder.space, address="words", runtime="w", precision="f32")
        writer.activate_space(space.id)
    add_pictures(library, shown, encoder)
    return library


def add_pictures(library: Library, shown: dict[str, str], encoder: WordEncoder) -> None:
    root = library.roots()[0]
    with library.writer() as writer:
        writer.commit(
            Batch(
                new_items=[NewItem(name, 8, 8, "JPEG", 8) for name in shown],
                vectors=(encoder.space.id, list(shown), encoder.encode_texts(list(shown.values()))),
                files=[FileState(root.id, name, 8, 1, 1, name) for name in shown],
            )
        )
