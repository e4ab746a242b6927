"""What the page and its picture routes ask for, as plain values: no gradio, no HTML, no HTTP."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from clipsearch.config import Settings
from clipsearch.encoders import Encoder
from clipsearch.errors import (
    ClipsearchError,
    ImageError,
    ImageNotFoundError,
    ImageUnreadableError,
    NotInLibraryError,
    QueryError,
    UsageError,
)
from clipsearch.images import THUMBNAIL_SIDE, THUMBNAIL_SUFFIX, THUMBNAIL_TYPE
from clipsearch.library import Counts, ItemRecord, Library
from clipsearch.query import parse, print_pieces
from clipsearch.searcher import Searcher
from clipsearch.tagging.review import Doubt, Review, open_review
from indexer.picture_reading import PictureReader
from ui import details
from ui.files import BROWSER_TYPES, FileOpener, OpenedFile
from ui.models import ModelReader, Models
from ui.views import ViewCache

MAX_TOP = 10_000  # answers at once
VIEW_SIDE = 1600  # pixels: enough for a screen, a few hundred KB over a home network
_VIEW_QUALITY, _THUMBNAIL_QUALITY = 88, 80
_RECIPE = 1  # to be raised when the same content gives other bytes
_QUERY_SIDE = 512  # pixels: more than any model looks at
_SURELY_SHOWN_PIXELS = 24_000_000
_DROPPED = "The dropped picture"


@dataclass(frozen=True)
class Summary:
    """What the library holds. ``model`` is None until something was indexed."""

    items: int
    model: str | None
    library: Path


@dataclass(frozen=True)
class Found:
    """One answer: ``score`` is that of ``SearchHit``; sizes are of the upright picture.

    ``version`` stands for its bytes in addresses.
    """

    rank: int
    score: float | None
    item: int
    path: Path
    width: int
    height: int
    time_s: float | None = None  # where in the video, for a moment of one
    probability: float | None = None  # that of ``SearchHit``
    version: str = ""


@dataclass(frozen=True)
class Answer:
    """The pictures found, best first, by which model, and how long it took."""

    found: tuple[Found, ...]
    model: str
    elapsed_s: float
    understood: tuple[str, ...] = ()  # the query's parts, as clipsearch writes them
    is_cut: bool = False  # what is not relevant was kept back
    total: int = 0  # how many answers there are, of which ``found`` are the first
    notes: tuple[str, ...] = ()  # how the question was read, where it could be read otherwise


@dataclass(frozen=True)
class Picture:
    """All that is known about one item; ``paths`` holds every copy that is still there."""

    item: int
    paths: tuple[Path, ...]
    width: int
    height: int
    format: str
    size_bytes: int
    taken_at: str | None
    camera: str | None
    time_s: float | None = None  # where in the video, for a moment of one
    exposure: str | None = None
    place: str | None = None
    tags: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    model_tags: tuple[str, ...] = ()  # given by a model, not by a person
    version: str = ""  # stands for its bytes in addresses
    is_dated_by_name: bool = False  # nothing but a file's name told the day


@dataclass(frozen=True)
class EncodedPicture:
    """A picture ready to be sent. ``version`` changes when the bytes would.

    ``is_whole`` is False where it only stands for the picture that was asked for.
    """

    data: bytes
    media_type: str
    version: str
    is_whole: bool = True


@dataclass(frozen=True)
class OriginalFile:
    """The untouched file. ``media_type`` is None where browsers cannot show the format."""

    file: OpenedFile
    media_type: str | None


class Service:
    """Answers for one library, from several threads at once; new photos are noticed by itself."""

    def __init__(
        self,
        library: Library,
        *,
        settings: Settings,
        encoder: Encoder | None = None,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        self._library = library
        self._settings = settings
        self._encoder = encoder
        self._notify = notify or (lambda _: None)
        self._reader = PictureReader(settings.max_pixels)
        self._files = FileOpener(library)
        self._views = ViewCache(library.path)
        self._models = ModelReader(library)
        self._warmed: str | None = None  # the space whose model was last loaded ahead
        self._searcher = Searcher(
            library, settings=settings, encoder=encoder, opens_files=False, notify=notify
        )

    def warm_up_in_background(self) -> threading.Thread:
        """Loads index and model in a thread, so that the first question need not wait for them."""
        space = self._library.active_space()
        self._warmed = space.id if space else None
        thread = threading.Thread(target=self._warm_up, name="warm-up", daemon=True)
        thread.start()
        return thread

    def _warm_up(self) -> None:
        try:
            self._searcher.warm_up()
        except ClipsearchError as error:
            self._notify(f"The model could not be loaded yet: {error}")

    def summary(self) -> Summary:
        """Counts afresh, so that a page opened after new indexing is right."""
        space = self._library.active_space()
        return Summary(
            items=self._library.counts().items,
            model=space.address if space else None,
            library=self._library.path,
        )

    def models(self) -> Models:
        """The library's models and how a change goes; has the one that searches use loaded.

        So after a switch the model is there, or on its way, before the next question.
        """
        models = self._models.read()
        if models.in_use is not None and models.in_use.space != self._warmed:
            self.warm_up_in_background()
        return models

    def counts(self) -> Counts:
        """How much the library holds."""
        return self._library.counts()

    def search(
        self,
        words: str = "",
        *,
        picture: Path | None = None,
        item: int | None = None,
        with_answers: bool = False,
        top: int,
        everything: bool = False,
    ) -> Answer:
        """Answers a query (docs/query.md), a picture file, an item, or their sum.

        ``with_answers`` moves the question by the thumbs that were given to these words. A query
        may name items but no files. ``everything`` gives the nearest, also where nothing is
        relevant. Raises what ``Searcher.search`` raises, UsageError for a ``top`` out of bounds;
        QueryError when nothing was asked for.
        """
        if not 1 <= top <= MAX_TOP:
            raise UsageError(reason=f"top must be between 1 and {MAX_TOP:,}, not {top}")
        started = time.perf_counter()
        query = parse(words)
        given = self._library.opinions.answers(words.strip()) if with_answers else []
        given = [answer for answer in given if self._searcher.holds(answer.item)]
        answered = self._searcher.answer(
            replace(query, cutoff="none") if everything else query,
            image=None if picture is None else self._query_picture(picture),
            item=item,
            more_like=[answer.item for answer in given if answer.relevant],
            less_like=[answer.item for answer in given if not answer.relevant],
            top=top,
        )
        hits = answered.hits
        elapsed_s = time.perf_counter() - started
        records = self._library.items([hit.item for hit in hits])
        found = tuple(
            Found(
                rank=hit.rank,
                score=hit.score,
                item=hit.item,
                path=hit.path,
                width=records[hit.item].width,
                height=records[hit.item].height,
                time_s=records[hit.item].time_s,
                probability=hit.probability,
                version=_version(records[hit.item]),
            )
            for hit in hits
            if hit.item in records
        )
        has_meaning = bool(query.terms) or picture is not None or item is not None
        is_cut = has_meaning and query.cutoff == "auto" and not everything
        model = answered.space.address if answered.space is not None else ""
        pieces = tuple(print_pieces(query))
        total, notes = answered.total, answered.notes
        return Answer(found, model, elapsed_s, pieces, is_cut, total, notes)

    def judge(self, words: str, item: int, *, relevant: bool) -> None:
        """Keeps a thumb up or down for an answer to these words; the same again takes it back.

        QueryError where there are no words to answer, NotInLibraryError for an unknown item.
        """
        asked = words.strip()
        if not any(term.kind == "text" for term in parse(asked).terms):
            raise QueryError(reason="A thumb answers words: search by some first.")
        self._record(item)
        before = {answer.item: answer.relevant for answer in self._library.opinions.answers(asked)}
        said = None if before.get(item) == relevant else relevant
        self._library.opinions.answer(asked, item, relevant=said)

    def _query_picture(self, path: Path) -> Image.Image:
        """Opens an uploaded picture; its name on this machine would mean nothing to the sender."""
        try:
            return self._reader.read(path, target_side=_QUERY_SIDE)
        except ImageNotFoundError as error:
            raise ImageUnreadableError(
                path="The dropped picture",
                reason="it was kept for a while only; drop it again",
            ) from error
        except ImageError as error:
            raise type(error)(**{**error.fields, "path": _DROPPED}) from error

    def picture(self, item: int) -> Picture:
        """Everything known about one item; NotInLibraryError when there is none."""
        record = self._record(item)
        said = self._library.words_of(item)
        facts = record.metadata
        return Picture(
            item=item,
            paths=tuple(self._library.paths([item]).get(item, ())),
            version=_version(record),
            width=record.width,
            height=record.height,
            format=record.format,
            size_bytes=record.bytes,
            taken_at=record.taken_at,
            is_dated_by_name=record.is_dated_by_name,
            camera=details.camera(facts),
            time_s=record.time_s,
            exposure=details.exposure(facts),
            place=details.place(facts),
            tags=tuple(dict.fromkeys(name for name, _ in said.tags)),
            captions=tuple(dict.fromkeys(text for text, _ in said.captions)),
            model_tags=tuple(
                dict.fromkeys(
                    tag.name for tag in self._library.tags.of_items([item]) if tag.source == "model"
                )
            ),
        )

    def doubts(self, tag: str | None, limit: int) -> list[Doubt]:
        """What a review asks next: of one tag, or of all that the last used vocabulary gave.

        TaggingError where there are no such tags.
        """
        return self._review(tag).queue(tag, limit)

    def answer_doubt(self, item: int, tag: str, *, accepted: bool) -> None:
        """Keeps an answer, and moves the tag's cut-off."""
        review = self._review(tag)
        (review.accept if accepted else review.reject)(item, tag)

    def _review(self, tag: str | None) -> Review:
        """The last used vocabulary that holds a tag, read anew: other processes tag, too."""
        return open_review(
            self._library,
            tag=tag,
            settings=self._settings,
            encoder=self._encoder,
            notify=self._notify,
        )

    def versions(self, items: Sequence[int]) -> dict[int, str]:
        """What stands for the pictures of these items in addresses: it changes with the bytes."""
        records = self._library.items(items)
        return {item: _version(record) for item, record in records.items()}

    def version(self, item: int) -> str:
        """That of one item; NotInLibraryError where there is none."""
        return _version(self._record(item))

    def thumbnail(self, item: int) -> EncodedPicture:
        """The item's small picture: the one made while indexing, else made now from its file.

        NotInLibraryError for an unknown item, ImageError where no copy can be read any more.
        """
        record = self._record(item)
        data = self._kept_thumbnail(record)
        if data is None:  # thumbnails are a cache: they may be deleted at any time
            data = self._encoded(record, THUMBNAIL_SIDE, _THUMBNAIL_QUALITY)
        return EncodedPicture(data, THUMBNAIL_TYPE, _version(record))

    def view(self, item: int) -> EncodedPicture:
        """The item upright as a JPEG of at most VIEW_SIDE pixels a side, without metadata.

        Of a picture that takes more memory than a server has for it, the thumbnail.
        NotInLibraryError for an unknown item, ImageError where no copy can be read any more.
        """
        record = self._record(item)
        data = self._views.read(record.content_hash)
        if data is None:
            try:
                data = self._encoded(record, VIEW_SIDE, _VIEW_QUALITY)
            except ImageError:
                small = self._kept_thumbnail(record)
                if small is None or record.width * record.height <= _SURELY_SHOWN_PIXELS:
                    raise
                return EncodedPicture(small, THUMBNAIL_TYPE, _version(record), is_whole=False)
            self._views.keep(record.content_hash, data)
        return EncodedPicture(data, "image/jpeg", _version(record))

    def _kept_thumbnail(self, record: ItemRecord) -> bytes | None:
        folder = self._library.path / "thumbs" / record.content_hash[:2]
        try:
            return (folder / f"{record.content_hash}{THUMBNAIL_SUFFIX}").read_bytes()
        except OSError:
            return None

    def original(self, item: int) -> OriginalFile:
        """The item's file, opened. ImageNotFoundError when every copy is gone, ImageUnreadableError
        where other files lie at their places by now.
        """
        record = self._record(item)
        return OriginalFile(self._files.open(record), BROWSER_TYPES.get(record.format))

    def _record(self, item: int) -> ItemRecord:
        record = self._library.items([item]).get(item)
        if record is None:
            raise NotInLibraryError(
                what=f"Item {item}", path=self._library.path, advice="It may have been forgotten."
            )
        return record

    def _encoded(self, record: ItemRecord, side: int, quality: int) -> bytes:
        """As a JPEG of that size, from the first copy that can be read; the last copy's error.

        Of a moment of a video, the frame at its time.
        """
        how = {"side": side, "quality": quality, "target_side": side // 2}
        failure: ImageError = ImageNotFoundError(path=f"of item {record.id} any more")
        if record.time_s is not None:
            opened = self._files.open(record)
            try:
                frame = self._reader.encode_frame(opened.path, record.time_s, **how)
                if opened.is_still_there():
                    return frame
            finally:
                os.close(opened.descriptor)
            raise failure
        for path in self._library.paths([record.id]).get(record.id, ()):
            try:
                return self._reader.encode(path, content_hash=record.content_hash, **how)
            except ImageError as error:
                failure = error
        raise failure


def _version(record: ItemRecord) -> str:
    return f"{record.content_hash}.{_RECIPE}"
