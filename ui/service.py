"""What the page and its picture routes ask for, as plain values: no gradio, no HTML, no HTTP."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
)
from clipsearch.images import THUMBNAIL_SUFFIX, THUMBNAIL_TYPE, make_thumbnail
from clipsearch.library import Counts, ItemRecord, Library, camera_name
from clipsearch.query import parse, print_pieces
from clipsearch.searcher import Searcher
from clipsearch.tagging.review import Doubt, Review
from clipsearch.tagging.vocabulary import BUILT_IN
from indexer.picture_reading import PictureReader
from ui.models import ModelReader, Models

VIEW_SIDE = 1600  # pixels: enough for a screen, a few hundred KB over a home network
_VIEW_QUALITY = 88
_DROPPED = "The dropped picture"
# What every browser shows by itself; the rest is offered as a download.
_BROWSER_TYPES = {
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "AVIF": "image/avif",
    # Browsers play what they can of these; a film that they cannot is still a download.
    "MP4": "video/mp4",
    "MOV": "video/mp4",  # the same boxes; few browsers know video/quicktime
    "3GP": "video/mp4",
    "WEBM": "video/webm",
    "MKV": "video/x-matroska",
}


@dataclass(frozen=True)
class Summary:
    """What the library holds. ``model`` is None until something was indexed."""

    items: int
    model: str | None
    library: Path


@dataclass(frozen=True)
class Found:
    """One answer: ``score`` is that of ``SearchHit``; sizes are of the upright picture."""

    rank: int
    score: float | None
    item: int
    path: Path
    width: int
    height: int
    time_s: float | None = None  # where in the video, for a moment of one
    probability: float | None = None  # that of ``SearchHit``


@dataclass(frozen=True)
class Answer:
    """The pictures found, best first, by which model, and how long it took."""

    found: tuple[Found, ...]
    model: str
    elapsed_s: float
    understood: tuple[str, ...] = ()  # the query's parts, as clipsearch writes them
    is_cut: bool = False  # what is not relevant was kept back


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


@dataclass(frozen=True)
class EncodedPicture:
    """A picture ready to be sent. ``tag`` changes when the bytes would."""

    data: bytes
    media_type: str
    tag: str


@dataclass(frozen=True)
class OriginalFile:
    """The untouched file. ``media_type`` is None where browsers cannot show the format."""

    path: Path
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
        relevant. Raises what ``Searcher.search`` raises; QueryError when nothing was asked for.
        """
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
            )
            for hit in hits
            if hit.item in records
        )
        has_meaning = bool(query.terms) or picture is not None or item is not None
        is_cut = has_meaning and query.cutoff == "auto" and not everything
        model = answered.space.address if answered.space is not None else ""
        return Answer(found, model, elapsed_s, tuple(print_pieces(query)), is_cut)

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
            return self._reader.read(path)
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
            width=record.width,
            height=record.height,
            format=record.format,
            size_bytes=record.bytes,
            taken_at=record.taken_at,
            camera=camera_name(_text(facts, "make"), _text(facts, "model")),
            time_s=record.time_s,
            exposure=_exposure(facts),
            place=_place(facts),
            tags=tuple(dict.fromkeys(name for name, _ in said.tags)),
            captions=tuple(dict.fromkeys(text for text, _ in said.captions)),
            model_tags=tuple(
                dict.fromkeys(
                    tag.name for tag in self._library.tags.of_items([item]) if tag.source == "model"
                )
            ),
        )

    def doubts(self, tag: str | None, limit: int) -> list[Doubt]:
        """What a review asks next: of one tag, or of all that the built-in vocabulary gave.

        TaggingError where there are no such tags.
        """
        return self._review(tag).queue(tag, limit)

    def answer_doubt(self, item: int, tag: str, *, accepted: bool) -> None:
        """Keeps an answer, and moves the tag's cut-off."""
        review = self._review(tag)
        (review.accept if accepted else review.reject)(item, tag)

    def _review(self, tag: str | None) -> Review:
        """The vocabulary that holds a tag, read anew: other processes tag, too."""
        known = self._library.tags.vocabularies()
        names = sorted(known, key=lambda name: name != BUILT_IN) or [BUILT_IN]
        for name in names:
            review = Review(
                self._library,
                name,
                settings=self._settings,
                encoder=self._encoder,
                notify=self._notify,
            )
            if tag is None or review.holds(tag):
                return review
        return review

    def thumbnail(self, item: int) -> EncodedPicture:
        """The item's small picture: the one made while indexing, else made now from its file.

        NotInLibraryError for an unknown item, ImageError where no copy can be read any more.
        """
        record = self._record(item)
        cached = self._library.path / "thumbs" / record.content_hash[:2]
        try:
            data = (cached / f"{record.content_hash}{THUMBNAIL_SUFFIX}").read_bytes()
        except OSError:  # thumbnails are a cache: they may be deleted at any time
            data = make_thumbnail(self._decoded(item, VIEW_SIDE // 4))
        return EncodedPicture(data, THUMBNAIL_TYPE, record.content_hash)

    def view(self, item: int) -> EncodedPicture:
        """The item upright as a JPEG of at most VIEW_SIDE pixels a side, without metadata.

        NotInLibraryError for an unknown item, ImageError where no copy can be read any more.
        """
        record = self._record(item)
        image = self._decoded(item, VIEW_SIDE // 2)
        image.thumbnail((VIEW_SIDE, VIEW_SIDE), Image.Resampling.LANCZOS, reducing_gap=2.0)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=_VIEW_QUALITY)
        return EncodedPicture(buffer.getvalue(), "image/jpeg", f"{record.content_hash}-view")

    def original(self, item: int) -> OriginalFile:
        """Where the item's file lies now; ImageNotFoundError when every copy is gone."""
        record = self._record(item)
        for path in self._library.paths([item]).get(item, ()):
            if path.is_file() and os.access(path, os.R_OK):
                return OriginalFile(path, _BROWSER_TYPES.get(record.format))
        raise ImageNotFoundError(path=f"of item {item} any more")

    def _record(self, item: int) -> ItemRecord:
        record = self._library.items([item]).get(item)
        if record is None:
            raise NotInLibraryError(
                what=f"Item {item}", path=self._library.path, advice="It may have been forgotten."
            )
        return record

    def _decoded(self, item: int, target_side: int) -> Image.Image:
        """The first copy that can be read; the last copy's error when none can.

        Of a moment of a video, the frame at its time.
        """
        time_s = self._record(item).time_s
        failure: ImageError = ImageNotFoundError(path=f"of item {item} any more")
        for path in self._library.paths([item]).get(item, ()):
            try:
                if time_s is not None:
                    return self._reader.read_frame(path, time_s, target_side=target_side)
                return self._reader.read(path, target_side=target_side)
            except ImageError as error:
                failure = error
        raise failure


def _text(facts: Mapping[str, Any], name: str) -> str | None:
    value = facts.get(name)
    return value if isinstance(value, str) else None


def _number(facts: Mapping[str, Any], name: str) -> float | None:
    value = facts.get(name)
    return float(value) if isinstance(value, (int, float)) else None


def _exposure(facts: Mapping[str, Any]) -> str | None:
    """``50 mm, f/1.8, 1/125 s, ISO 400`` and the lens, as far as they are known."""
    parts = []
    if (focal := _number(facts, "focal_length_mm")) is not None:
        parts.append(f"{focal:g} mm")
    if (aperture := _number(facts, "f_number")) is not None:
        parts.append(f"f/{aperture:g}")
    seconds = _number(facts, "exposure_s")
    if seconds is not None and seconds > 0:
        parts.append(f"1/{1 / seconds:.0f} s" if seconds < 0.5 else f"{seconds:g} s")
    if (iso := _number(facts, "iso")) is not None:
        parts.append(f"ISO {iso:.0f}")
    if (lens := _text(facts, "lens")) is not None:
        parts.append(lens)
    return ", ".join(parts) or None


def _place(facts: Mapping[str, Any]) -> str | None:
    """The place's name and its coordinates, as far as they are known."""
    name = _text(facts, "place")
    latitude, longitude = _number(facts, "latitude"), _number(facts, "longitude")
    if latitude is None or longitude is None:
        return name
    coordinates = f"{latitude:.4f}, {longitude:.4f}"
    return f"{name} ({coordinates})" if name else coordinates
