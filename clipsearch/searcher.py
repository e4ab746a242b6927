"""A question in, ranked pictures out: words, a picture, or both, against one embedding space."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clipsearch.config import DEFAULT_TOP, Settings, resolve
from clipsearch.encoders import Encoder, load_encoder
from clipsearch.errors import NotInLibraryError, QueryError, SpaceMismatchError, UsageError
from clipsearch.index import VectorIndex, open_index
from clipsearch.library import Library, SpaceRecord
from clipsearch.vectors import Vector, unit_rows, unit_vector

if TYPE_CHECKING:
    from PIL import Image

MAX_TOP = 10_000


@dataclass(frozen=True)
class SearchHit:
    """One found picture or moment. ``score`` is the cosine to the question, in [-1, 1]."""

    rank: int  # 1 is the best
    score: float
    item: int
    path: Path
    paths: tuple[Path, ...]  # every copy, ``path`` first
    time_s: float | None = None  # of a moment of a video: where in it


class Searcher:
    """Answers many questions over one library: keeps the model and the index, notices new photos.

    ``space_id`` names the vectors to search, by default the library's active space.
    Thread-safe. The model is loaded at the first question, or by ``warm_up``.
    """

    def __init__(
        self,
        library: Library,
        *,
        settings: Settings | None = None,
        encoder: Encoder | None = None,
        space_id: str | None = None,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        self._library = library
        self._space_id = space_id
        self._settings = settings or resolve(library_settings=library.settings())
        self._encoder = encoder
        self._given_encoder = encoder is not None
        self._notify = notify
        self._index: VectorIndex | None = None
        self._indexed: tuple[str, int] | None = None  # space id and revision the index is of
        self._present: frozenset[int] = frozenset()
        self._loading = threading.Lock()

    def warm_up(self) -> None:
        """Loads the index and the model, so that the first question is fast."""
        space = self._space()
        if space is not None:
            self._current_index(space)
            self._encoder_of(space).encode_texts(["a photo"])

    def search(
        self,
        text: str | None = None,
        *,
        image: Path | Image.Image | None = None,
        item: int | None = None,
        top: int = DEFAULT_TOP,
    ) -> list[SearchHit]:
        """Finds the ``top`` pictures nearest to words, a picture, an indexed item, or their sum.

        Several parts are added as unit vectors, each with weight 1. An item that is searched by is
        left out of its own answer. Raises QueryError when there is nothing to search for,
        NotInLibraryError for an unknown item, ImageError for an unreadable picture.
        """
        words = (text or "").strip()
        if not words and image is None and item is None:
            raise QueryError(
                reason="There is nothing to search for: give words, a picture, or both."
            )
        if not 1 <= top <= MAX_TOP:
            raise UsageError(reason=f"top must be between 1 and {MAX_TOP:,}, not {top}")
        space = self._space()
        if space is None:
            return []
        parts: list[Vector] = []
        if words:
            parts.append(self._encoder_of(space).encode_texts([words])[0])
        if image is not None:
            parts.append(self._image_vector(space, image))
        if item is not None:
            parts.append(self._item_vector(space, item))
        return self._nearest(space, _combined(parts), top, leave_out=item)

    def holds(self, item: int) -> bool:
        """True if the searched space has a vector of this item."""
        space = self._space()
        return space is not None and len(self._library.vectors_of(space.id, [item])[0]) > 0

    def _space(self) -> SpaceRecord | None:
        if self._space_id is None:
            return self._library.active_space()
        return next((s for s in self._library.spaces() if s.id == self._space_id), None)

    def _image_vector(self, space: SpaceRecord, image: Path | Image.Image) -> Vector:
        encoder = self._encoder_of(space)
        if isinstance(image, Path):
            from clipsearch.images import load_image  # words alone need no Pillow

            image = load_image(image, max_pixels=self._settings.max_pixels)
        picture = image
        vector: Vector = encoder.encode_images(encoder.preprocess(picture.convert("RGB"))[None])[0]
        return vector

    def _item_vector(self, space: SpaceRecord, item: int) -> Vector:
        ids, vectors = self._library.vectors_of(space.id, [item])
        if len(ids) == 0:
            raise NotInLibraryError(
                what=f"Item {item}",
                path=self._library.path,
                advice="Items are the numbers that a search prints.",
            )
        vector: Vector = vectors[0]
        return vector

    def _nearest(
        self, space: SpaceRecord, query: Vector, top: int, leave_out: int | None
    ) -> list[SearchHit]:
        index = self._current_index(space)
        wanted = top + (leave_out is not None)
        # Pictures whose files are gone keep their vectors (the folder may come back), so look
        # further until enough of those that are still there have been found.
        among = np.array(sorted(self._present), dtype=np.int64)
        if len(among) == len(index):
            found = index.search(query, min(wanted, len(index))) if len(index) else None
        else:
            found = index.search(query, min(wanted, len(among)), among) if len(among) else None
        if found is None:
            return []
        pairs = [
            (int(identity), float(score))
            for identity, score in zip(found.ids, found.scores, strict=True)
            if int(identity) != leave_out
        ][:top]
        identities = [identity for identity, _ in pairs]
        return _ranked(pairs, self._library.paths(identities), self._library.times(identities))

    def _current_index(self, space: SpaceRecord) -> VectorIndex:
        with self._loading:
            state = (space.id, self._library.revision)
            if self._index is None or self._indexed != state:
                self._index = open_index(self._library, space)
                self._present = frozenset(
                    int(identity) for identity in self._library.present_items()
                )
                self._indexed = state
            return self._index

    def _encoder_of(self, space: SpaceRecord) -> Encoder:
        with self._loading:
            if self._encoder is None or (
                not self._given_encoder and self._encoder.space != space.space
            ):
                self._encoder = load_encoder(
                    space.address, settings=self._settings, space=space.space, notify=self._notify
                )
            if self._encoder.space != space.space:
                raise SpaceMismatchError(
                    expected=space.address,
                    found=self._encoder.address,
                    address=self._encoder.address,
                )
            return self._encoder


def search(
    library: Library,
    text: str | None = None,
    *,
    image: Path | Image.Image | None = None,
    top: int = DEFAULT_TOP,
    encoder: Encoder | None = None,
    settings: Settings | None = None,
    space_id: str | None = None,
    notify: Callable[[str], None] | None = None,
) -> list[SearchHit]:
    """Answers one question; for many, keep a ``Searcher``. Errors as in ``Searcher.search``."""
    searcher = Searcher(
        library, settings=settings, encoder=encoder, space_id=space_id, notify=notify
    )
    return searcher.search(text, image=image, top=top)


def similar(
    library: Library,
    image_or_item: Path | int,
    *,
    top: int = DEFAULT_TOP,
    encoder: Encoder | None = None,
    settings: Settings | None = None,
    space_id: str | None = None,
    notify: Callable[[str], None] | None = None,
) -> list[SearchHit]:
    """Finds pictures like an item, or like a picture file that may or may not be indexed.

    An indexed file is looked up and needs no model; it is left out of its own answer.
    """
    searcher = Searcher(
        library, settings=settings, encoder=encoder, space_id=space_id, notify=notify
    )
    if isinstance(image_or_item, int):
        return searcher.search(item=image_or_item, top=top)
    path = image_or_item.expanduser().absolute()
    item = library.item_at(path)
    if item is not None and searcher.holds(item):
        return searcher.search(item=item, top=top)
    return searcher.search(image=path, top=top)


def _combined(parts: Sequence[Vector]) -> Vector:
    """The unit vector along the sum of unit vectors (query arithmetic in the joint space)."""
    return unit_vector(np.sum(unit_rows(np.stack(list(parts))), axis=0))


def _ranked(
    pairs: list[tuple[int, float]], paths: dict[int, list[Path]], times: dict[int, float]
) -> list[SearchHit]:
    hits: list[SearchHit] = []
    for item, score in pairs:
        copies = tuple(paths.get(item, ()))
        if copies:  # the last copy may have been forgotten since the index was read
            hits.append(
                SearchHit(
                    rank=len(hits) + 1,
                    score=score,
                    item=item,
                    path=copies[0],
                    paths=copies,
                    time_s=times.get(item),
                )
            )
    return hits
