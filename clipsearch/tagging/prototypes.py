"""Prototypes: one vector for each concept, from all its wordings in all its templates.

Kept in the cache folder by the space and the sentences, so that a vocabulary is encoded once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from clipsearch.encoders import Encoder, counted_unread
from clipsearch.errors import VectorError
from clipsearch.vectors import EmbeddingSpace, Matrix, require_unit_rows, unit_rows

_BATCH = 256
_FORMAT = 2  # 2: with a note on sentences that are cut
Progress = Callable[[int, int], None]  # done, of how many


class Prototypes:
    """Makes vectors of sentences, or finds those that were made before.

    ``encoder`` is asked for only when something has to be encoded.
    """

    def __init__(
        self,
        space: EmbeddingSpace,
        encoder: Callable[[], Encoder],
        cache_dir: Path,
        progress: Progress | None = None,
    ) -> None:
        self._space = space
        self._encoder = encoder
        self._folder = cache_dir / "prototypes"
        self._progress = progress or (lambda *_: None)
        self.notes: list[str] = []  # on sentences that the model does not read to their end

    def of(self, concepts: Sequence[Sequence[Sequence[str]]]) -> Matrix:
        """(t, dim) unit rows: for each concept its wordings, each a list of sentences.

        Sentences are averaged as unit vectors, then the wordings (Radford et al. 2021, 3.1.4:
        ensembling in embedding space), so that a synonym counts as much as the name.
        """
        file = self._folder / f"{self._key(concepts)}.npy"
        known = self._read(file, len(concepts))
        if known is not None:
            self._recall_note(file)
            return known
        made, note = self._encoded(concepts)
        if note is not None:
            self.notes.append(note)
        self._write(file, made, note)
        return unit_rows(made.astype(np.float16))  # as it will be read

    def _encoded(self, concepts: Sequence[Sequence[Sequence[str]]]) -> tuple[Matrix, str | None]:
        sentences = list(dict.fromkeys(s for words in concepts for each in words for s in each))
        encoder = self._encoder()
        vectors = np.empty((len(sentences), self._space.dim), np.float32)
        for start in range(0, len(sentences), _BATCH):
            self._progress(start, len(sentences))
            part = sentences[start : start + _BATCH]
            vectors[start : start + len(part)] = encoder.encode_texts(part)
        self._progress(len(sentences), len(sentences))
        row = {sentence: number for number, sentence in enumerate(sentences)}
        made = np.empty((len(concepts), self._space.dim), np.float32)
        for number, words in enumerate(concepts):
            means = np.stack([vectors[[row[s] for s in each]].mean(axis=0) for each in words])
            made[number] = unit_rows(means).mean(axis=0)
        return unit_rows(made), counted_unread(encoder, sentences, "sentences of the vocabulary")

    def _key(self, concepts: Sequence[Sequence[Sequence[str]]]) -> str:
        told = json.dumps([_FORMAT, self._space.id, concepts], ensure_ascii=False)
        return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def _read(self, file: Path, count: int) -> Matrix | None:
        """What a file holds, or None if it is not there or not sound: a cache is never trusted."""
        try:
            matrix = np.load(file, allow_pickle=False)
            rows = unit_rows(require_unit_rows(matrix, self._space.dim))
        except (OSError, ValueError, EOFError, VectorError):
            return None
        return rows if len(rows) == count else None

    def _recall_note(self, file: Path) -> None:
        with suppress(OSError, ValueError):
            self.notes.append(file.with_suffix(".txt").read_text(encoding="utf-8"))

    def _write(self, file: Path, matrix: Matrix, note: str | None) -> None:
        half = file.with_name(f"{file.name}.{os.getpid()}.part")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if note is not None:  # before what makes it count
                file.with_suffix(".txt").write_text(note, encoding="utf-8")
            with half.open("wb") as stream:
                np.save(stream, matrix.astype(np.float16), allow_pickle=False)
                stream.flush()
                os.fsync(stream.fileno())
            half.replace(file)
        except OSError:
            half.unlink(missing_ok=True)  # without a cache it is only slower
