"""A question in, ranked pictures out: words, a picture, or both, against one embedding space."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clipsearch.calibrating import (
    Calibrated,
    calibrated,
    has_neutral_vectors,
    neutral_vectors,
)
from clipsearch.config import DEFAULT_TOP, Settings, resolve
from clipsearch.encoders import Encoder, load_encoder, told_unread
from clipsearch.errors import NotInLibraryError, QueryError, SpaceMismatchError, UsageError
from clipsearch.hits import Answered, SearchHit, with_files
from clipsearch.judging import Judged
from clipsearch.library import Library, SpaceRecord
from clipsearch.library.filtering import ALL_COLUMNS
from clipsearch.naming import text_parts
from clipsearch.notes import question_notes
from clipsearch.query import Filter, Like, Query, parse
from clipsearch.ranking import IMAGE, TEXT, GroupsOf, Part, Question, Scores
from clipsearch.relevance import Kind
from clipsearch.selecting import Duplicates, View, hits_of_filters, hits_of_question
from clipsearch.user_paths import expand_user
from clipsearch.vectors import Matrix, Vector

if TYPE_CHECKING:
    from PIL import Image

    from clipsearch.library.facts import Mask
    from clipsearch.same_pictures import SamePictures


class Searcher:
    """Answers many questions over one library: keeps the model and the index, notices new photos.

    ``space_id`` names the vectors to search, by default the library's active space.
    ``opens_files`` False refuses files that a query names, for questions from other people.
    ``notify`` hears the notes of ``search``, which ``answer`` gives with the hits.
    ``duplicates`` gives the groups that ``duplicate:no`` shows one picture of; without it, pictures
    that are the same are found among the hits, by the judgement of ``clipsearch dupes``.
    Thread-safe. The model is loaded at the first question, or by ``warm_up``.
    """

    def __init__(
        self,
        library: Library,
        *,
        settings: Settings | None = None,
        encoder: Encoder | None = None,
        space_id: str | None = None,
        opens_files: bool = True,
        duplicates: GroupsOf | None = None,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        self._library = library
        self._space_id = space_id
        chosen = settings or resolve(library_settings=library.settings())
        self._settings = chosen.of(library.path)
        self._encoder = encoder
        self._given_encoder = encoder is not None
        self._opens_files = opens_files
        self._same_pictures: SamePictures | None = None
        self._duplicates = Duplicates(duplicates, self._are_one)
        self._notify = notify
        self._view: View | None = None
        self._viewed: SpaceRecord | None = None  # the space that the view is of
        self._seen: str | None = None  # the library's state when it was
        self._calibrated: tuple[View, Calibrated, bool] | None = None  # True: by texts, too
        self._loading = threading.Lock()

    def warm_up(self) -> None:
        """Loads the index, what filters read, and the model, so that first questions are fast."""
        space = self._space()
        if space is not None:
            view = self._current_view(space)
            view.facts.load(ALL_COLUMNS)
            self._encoder_of(space).encode_texts(["a photo"])
            self._calibrated_for(space, view, TEXT)

    def search(
        self,
        text: str | Query | None = None,
        *,
        image: Path | Image.Image | None = None,
        item: int | None = None,
        more_like: Sequence[int] = (),
        less_like: Sequence[int] = (),
        top: int | None = DEFAULT_TOP,
    ) -> list[SearchHit]:
        """Answers a query (docs/query.md), a picture, an indexed item, or their sum.

        ``text`` is in the query language; ``clipsearch.query.words(text)`` takes any text as it is.
        Several parts are added as unit vectors, by weight. An item that is searched by is left out
        of its own answer. ``more_like`` and ``less_like`` are items that answer the question, and
        that do not: they move it (clipsearch.feedback). Filters without words give the newest
        pictures that pass, or what ``sort:`` says. ``limit:`` in the query wins over ``top``, and
        ``top`` None gives all. Only
        what is relevant is given, which may be nothing; ``cutoff:none`` in the query gives the
        nearest, relevant or not.

        Raises QueryError for a mistake in the query or when there is nothing to search for,
        NotInLibraryError for an unknown item, ImageError for an unreadable picture.
        """
        answered = self.answer(
            text, image=image, item=item, more_like=more_like, less_like=less_like, top=top
        )
        if self._notify is not None:
            for note in answered.notes:
                self._notify(note)
        return answered.hits

    def answer(
        self,
        text: str | Query | None = None,
        *,
        image: Path | Image.Image | None = None,
        item: int | None = None,
        more_like: Sequence[int] = (),
        less_like: Sequence[int] = (),
        top: int | None = DEFAULT_TOP,
    ) -> Answered:
        """As ``search``, and says which space the hits are of, and what was not read."""
        query = text if isinstance(text, Query) else parse(text or "")
        if query.is_empty and image is None and item is None:
            raise QueryError(
                reason="There is nothing to search for: give words, a picture, or both."
            )
        if top is not None and top < 1:
            raise UsageError(reason=f"top must be 1 or more, not {top}")
        space = self._space()
        if space is None:
            return Answered([], None)
        parts, notes = self._parts(space, query)
        if image is not None:
            parts.append(Part(self._image_vector(space, image), 1.0, IMAGE))
        if item is not None:
            parts.append(Part(self._item_vector(space, item), 1.0, IMAGE))
        view = self._current_view(space)
        limit = query.limit or top or len(view.facts.ids)
        passing = view.passing(query.filters, lambda one: self._similar(space, view, one))
        if not parts and (more_like or less_like):
            raise QueryError(
                reason="Pictures that answer a question need one: give words or a picture, too."
            )
        likely: dict[int, float] = {}
        if not parts:
            selected = hits_of_filters(view, passing, query, limit, self._duplicates)
        else:
            question = Question.of(parts)
            if more_like or less_like:
                question = question.refined(
                    self._item_vectors(space, more_like), self._item_vectors(space, less_like)
                )
            scores = question.scores(view.index.rows)
            left_out = _items_of(query) | ({item} if item is not None else set())
            taught = {one for part in parts if part.weight > 0 for one in part.items}
            judged = self._judged(space, question, view, scores, left_out | taught)
            cutoff = _cutoff(query, judged)
            selected = hits_of_question(
                view, passing, query, limit, self._duplicates, scores, cutoff, left_out
            )
            likely = judged.probabilities(selected.pairs) if judged is not None else {}
        hits = with_files(self._library, selected.pairs, likely)
        notes += question_notes(query, self._library.concepts.names())
        return Answered(hits, space, max(selected.total, len(hits)), tuple(dict.fromkeys(notes)))

    def similar(
        self, image_or_item: Path | int, *, top: int | None = DEFAULT_TOP, everything: bool = False
    ) -> Answered:
        """What is like an item, or like a picture file that may or may not be indexed.

        An indexed file is looked up and needs no model; it is left out of its own answer.
        ``everything`` gives the nearest, relevant or not.
        """
        query = Query(cutoff="none" if everything else "auto")
        if isinstance(image_or_item, int):
            return self.answer(query, item=image_or_item, top=top)
        path = expand_user(image_or_item).absolute()
        item = self._library.item_at(path)
        if item is not None and self.holds(item):
            return self.answer(query, item=item, top=top)
        return self.answer(query, image=path, top=top)

    def holds(self, item: int) -> bool:
        """True if the searched space has a vector of this item."""
        space = self._space()
        return space is not None and len(self._library.vectors_of(space.id, [item])[0]) > 0

    def _space(self) -> SpaceRecord | None:
        if self._seen is not None and self._seen == self._library.state:
            return self._viewed  # looking it up counts all vectors
        return self._wanted_space()

    def _wanted_space(self) -> SpaceRecord | None:
        if self._space_id is None:
            return self._library.active_space()
        return next((s for s in self._library.spaces() if s.id == self._space_id), None)

    # --- from a query to vectors ------------------------------------------------------------

    def _parts(self, space: SpaceRecord, query: Query) -> tuple[list[Part], tuple[str, ...]]:
        """The vectors of all terms, in their order, and notes on texts that are too long."""
        texts = [term for term in query.terms if term.kind == "text"]
        notes: list[str] = []

        def encode(said: list[str]) -> Matrix:
            encoder = self._encoder_of(space)
            notes.extend(told_unread(encoder, said))
            return encoder.encode_texts(said)

        made = iter(text_parts(self._library, space, texts, encode) if texts else ())
        parts = [
            next(made)
            if term.kind == "text"
            else Part(self._picture_vector(space, term.value), term.weight, IMAGE)
            for term in query.terms
        ]
        return parts, tuple(notes)

    def _picture_vector(self, space: SpaceRecord, named: str | int) -> Vector:
        if isinstance(named, int):
            return self._item_vector(space, named)
        if not self._opens_files:
            raise QueryError(
                reason="Here a query names pictures by their items, such as image:#1234; "
                "to search by a file, upload it."
            )
        return self._image_vector(space, expand_user(named))

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

    def _item_vectors(self, space: SpaceRecord, items: Sequence[int]) -> Matrix:
        rows = [self._item_vector(space, item) for item in dict.fromkeys(items)]
        return np.stack(rows) if rows else np.empty((0, space.space.dim), np.float32)

    # --- from vectors to hits ---------------------------------------------------------------

    def _are_one(self, pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
        with self._loading:
            if self._same_pictures is None:
                from clipsearch.same_pictures import SamePictures  # asked for by few questions

                self._same_pictures = SamePictures(self._library, self._settings.max_pixels)
        return self._same_pictures.are_one(pairs)

    def _similar(self, space: SpaceRecord, view: View, one: Filter) -> Mask:
        """What passes a ``similar:`` filter."""
        passes = np.zeros(len(view.facts.ids), dtype=np.bool_)
        for value in one.values:
            if isinstance(value, Like):
                passes |= view.similar(self._picture_vector(space, value.picture), value.cosines)
        return passes

    def _judged(
        self, space: SpaceRecord, question: Question, view: View, scores: Scores, own: set[int]
    ) -> Judged | None:
        """Where the relevant answers end, by all that is there but what the question is made of.

        None if the question only says what should not be there.
        """
        if not question.is_wanted:
            return None
        kind = question.kind
        calibrated = self._calibrated_for(space, view, kind)
        offsets = calibrated.offsets(kind)
        counts = np.ones(len(scores), dtype=np.bool_)
        if view.present_rows is not None:
            counts[:] = False
            counts[view.present_rows] = True
        if own:
            counts &= ~np.isin(view.index.ids, list(own))
        evidence = (scores - offsets)[counts]
        return Judged(
            calibrated.calibration.judge(question.vector, evidence, kind), offsets, view.index.ids
        )

    def _calibrated_for(self, space: SpaceRecord, view: View, kind: Kind) -> Calibrated:
        with self._loading:
            known = self._calibrated
        if known is not None and known[0] is view and (known[2] or kind == IMAGE):
            return known[1]
        # A question by pictures needs no texts: no model is loaded for them alone.
        has_texts = kind != IMAGE or has_neutral_vectors(space.space, self._settings)
        neutral = (
            neutral_vectors(space.space, self._settings, lambda: self._encoder_of(space))
            if has_texts
            else np.empty((0, space.space.dim), np.float32)
        )
        folder = self._library.path / "index" / space.id
        index = view.index
        made = calibrated(folder, index.ids, index.rows, view.present_rows, neutral)
        with self._loading:
            self._calibrated = (view, made, has_texts)
        return made

    def _current_view(self, space: SpaceRecord) -> View:
        with self._loading:
            state = self._library.state
            if self._view is not None and self._seen == state and self._viewed == space:
                return self._view
            view = View.of(self._library, space)
            # A question that began before a change of models must not bring the old space back.
            if self._library.state == state and self._wanted_space() == space:
                self._view, self._viewed, self._seen = view, space, state
            return view

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


def _cutoff(query: Query, judged: Judged | None) -> float | Scores | None:
    """The least score of a hit, of all or of each row of the index; None for no limit."""
    if isinstance(query.cutoff, float):
        return query.cutoff
    return None if query.cutoff == "none" or judged is None else judged.cutoffs


def _items_of(query: Query) -> set[int]:
    """The items that a query asks for pictures like."""
    return {t.value for t in query.terms if isinstance(t.value, int) and t.weight > 0}


def search(
    library: Library,
    text: str | Query | None = None,
    *,
    image: Path | Image.Image | None = None,
    more_like: Sequence[int] = (),
    less_like: Sequence[int] = (),
    top: int | None = DEFAULT_TOP,
    encoder: Encoder | None = None,
    settings: Settings | None = None,
    space_id: str | None = None,
    notify: Callable[[str], None] | None = None,
) -> list[SearchHit]:
    """Answers one question; for many, keep a ``Searcher``. Errors as in ``Searcher.search``."""
    searcher = Searcher(
        library, settings=settings, encoder=encoder, space_id=space_id, notify=notify
    )
    return searcher.search(text, image=image, more_like=more_like, less_like=less_like, top=top)


def similar(
    library: Library,
    image_or_item: Path | int,
    *,
    top: int | None = DEFAULT_TOP,
    everything: bool = False,
    encoder: Encoder | None = None,
    settings: Settings | None = None,
    space_id: str | None = None,
    notify: Callable[[str], None] | None = None,
) -> list[SearchHit]:
    """Finds pictures like an item or a picture file, as ``Searcher.similar`` does."""
    searcher = Searcher(
        library, settings=settings, encoder=encoder, space_id=space_id, notify=notify
    )
    return searcher.similar(image_or_item, top=top, everything=everything).hits
