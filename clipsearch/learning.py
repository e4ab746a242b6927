"""Teaching a name by photos: reads them, keeps what they are, and says what to beware of."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipsearch.config import Settings, resolve
from clipsearch.counting import counted
from clipsearch.encoders import Encoder, load_encoder
from clipsearch.errors import (
    ConceptError,
    ImageError,
    ImageUnreadableError,
    NotInLibraryError,
    QueryError,
    SpaceMismatchError,
)
from clipsearch.hashing import hash_content
from clipsearch.images import EXTENSIONS, decode_image, read_file
from clipsearch.library import PICTURE, ConceptPhoto, Library, SpaceRecord
from clipsearch.naming import known_as
from clipsearch.query import Filter, Query, Term, parse
from clipsearch.query.folding import clean, fold
from clipsearch.user_paths import expand_user
from clipsearch.vectors import Pixels, Vector

FEW, MANY = 5, 20  # photos: from so many on a name is learned well, and more add little
LONGEST_NAME = 60  # characters
_BATCH = 16


@dataclass(frozen=True)
class Skipped:
    """A photo that could not be used, and why."""

    photo: Path | int
    reason: str


@dataclass(frozen=True)
class LearnReport:
    """What a name was taught. ``photos`` are all of it now, ``added`` those that are new to it."""

    name: str
    photos: int
    added: int
    encoded: int  # the others had vectors already
    skipped: tuple[Skipped, ...] = ()
    warnings: tuple[str, ...] = ()


def learn(
    library: Library,
    name: str,
    photos: Sequence[Path | int] = (),
    *,
    replace: bool = False,
    encoder: Encoder | None = None,
    settings: Settings | None = None,
    notify: Callable[[str], None] | None = None,
) -> LearnReport:
    """Teaches a name by photos: files, folders of files, or items of the library.

    They are added to what the name has; with ``replace`` they take its place. Nothing of the
    library is embedded again: photos it holds are looked up, others are encoded now. Photos of the
    name that the library's present model has not seen are read again where they were. What
    cannot be read is skipped and named.

    Raises ConceptError for a name that a query could not say, for a library without a model, and
    where no photo at all can be used; then nothing changes.
    """
    name = known_as(_checked(name), library.concepts.names())
    space = library.active_space()
    if space is None:
        raise ConceptError(
            reason="The library has no model yet. Add photos first: clipsearch index FOLDER"
        )
    settings = (settings or resolve(library_settings=library.settings())).of(library.path)
    before = [] if replace else library.concepts.photos(name, space.id)
    if not before and not photos:
        raise ConceptError(
            reason=f"Nothing has taught '{name}' yet. Show it: clipsearch learn {name} PHOTO..."
        )
    reading = _Reading(library, space, settings, encoder, notify)
    for photo in photos:
        for one in _files(photo):
            reading.take(one)
    for old in before:
        if not old.is_known and old.content_hash not in reading.paths:
            reading.take(_where(library, old), content_hash=old.content_hash)
    reading.finish()
    known = {old.content_hash for old in before}
    if not reading.paths and not known:
        first = reading.skipped[0].reason if reading.skipped else "there are no pictures there"
        raise ConceptError(reason=f"No photo of '{name}' could be used: {first}")
    library.concepts.keep(name, reading.paths, space.id, reading.vectors, replace=replace)
    count = len(known | set(reading.paths))
    return LearnReport(
        name=name,
        photos=count,
        added=len(set(reading.paths) - known),
        encoded=len(reading.vectors),
        skipped=tuple(reading.skipped),
        warnings=_warnings(library, name, count),
    )


def items_with_tag(library: Library, tag: str, *, settings: Settings | None = None) -> list[int]:
    """The pictures that have a tag, the newest first; NotInLibraryError if none has."""
    from clipsearch.searcher import Searcher

    query = Query(filters=(Filter("tag", (tag,)), Filter("type", ("picture",))))
    hits = Searcher(library, settings=settings).search(query, top=None)
    if not hits:
        raise NotInLibraryError(
            what=f"A picture with the tag '{tag}'",
            path=library.path,
            advice="See which tags there are: clipsearch tags",
        )
    return [hit.item for hit in hits]


def _where(library: Library, photo: ConceptPhoto) -> Path:
    """Where a photo lies now, if the library knows; else where it was when it taught its name."""
    item = library.item_by_hash([photo.content_hash]).get(photo.content_hash)
    paths = [] if item is None else library.paths([item]).get(item, [])
    return paths[0] if paths else photo.path


class _Reading:
    """Photos as they are read: contents and where they are, and vectors of those without one."""

    def __init__(
        self,
        library: Library,
        space: SpaceRecord,
        settings: Settings,
        encoder: Encoder | None,
        notify: Callable[[str], None] | None,
    ) -> None:
        self.paths: dict[str, Path] = {}
        self.vectors: dict[str, Vector] = {}
        self.skipped: list[Skipped] = []
        self._library = library
        self._space = space
        self._settings = settings
        self._encoder = encoder
        self._notify = notify
        self._waiting: dict[str, Pixels] = {}

    def take(self, photo: Path | int, content_hash: str | None = None) -> None:
        """Reads one photo; with ``content_hash`` only if it still is that content."""
        try:
            if isinstance(photo, int):
                self._take_item(photo)
            else:
                self._take_file(expand_user(photo).absolute(), content_hash)
        except (ImageError, NotInLibraryError) as error:
            self.skipped.append(Skipped(photo, str(error)))

    def finish(self) -> None:
        """Makes the vectors that are still to be made."""
        if not self._waiting:
            return
        hashes = list(self._waiting)
        rows = self._loaded().encode_images(np.stack([self._waiting[name] for name in hashes]))
        self.vectors.update(zip(hashes, rows, strict=True))
        self._waiting.clear()

    def _take_item(self, item: int) -> None:
        record = self._library.items([item]).get(item)
        paths = self._library.paths([item]).get(item, ())
        if record is None or not paths:
            advice = "Items are the numbers that a search prints."
            raise NotInLibraryError(what=f"Item {item}", path=self._library.path, advice=advice)
        if self._has_vector(record.content_hash):
            self.paths[record.content_hash] = paths[0]
        elif record.kind == PICTURE:
            self._take_file(paths[0], record.content_hash)
        else:
            reason = "it is a moment of a video that this model has not seen"
            raise ImageUnreadableError(path=paths[0], reason=reason)

    def _take_file(self, path: Path, expected: str | None) -> None:
        data = read_file(path)
        content_hash = hash_content(data)
        if expected not in (None, content_hash):
            raise ImageUnreadableError(path=path, reason="another picture is there now")
        if not (content_hash in self._waiting or self._has_vector(content_hash)):
            image = decode_image(data, name=str(path), max_pixels=self._settings.max_pixels)
            self._waiting[content_hash] = self._loaded().preprocess(image)
        self.paths[content_hash] = path
        if len(self._waiting) >= _BATCH:
            self.finish()

    def _has_vector(self, content_hash: str) -> bool:
        return content_hash in self.vectors or bool(
            self._library.concepts.with_vector([content_hash], self._space.id)
        )

    def _loaded(self) -> Encoder:
        if self._encoder is None:
            self._encoder = load_encoder(
                self._space.address,
                settings=self._settings,
                space=self._space.space,
                notify=self._notify,
            )
        if self._encoder.space != self._space.space:
            raise SpaceMismatchError(
                expected=self._space.address,
                found=self._encoder.address,
                address=self._encoder.address,
            )
        return self._encoder


def _files(photo: Path | int) -> list[Path | int]:
    """The photo itself, or of a folder the pictures that lie right in it."""
    if isinstance(photo, int) or not photo.is_dir():
        return [photo]
    return sorted(one for one in photo.iterdir() if one.suffix.lower() in EXTENSIONS)


def _checked(name: str) -> str:
    """The name as it is kept; ConceptError for one that is no plain words of a query."""
    name = clean(unicodedata.normalize("NFC", name))
    if not any(character.isalnum() for character in name) or len(name) > LONGEST_NAME:
        raise ConceptError(
            reason=f"A name has letters, and at most {LONGEST_NAME} characters, not '{name[:80]}'"
        )
    try:
        is_plain = parse(name) == Query(terms=(Term("text", name),))
    except QueryError:
        is_plain = False
    if not is_plain:
        raise ConceptError(
            reason=f"'{name}' means something else in a query. Choose a name of plain words: "
            "no sign before it, no colon, no quotes"
        )
    return name


def _warnings(library: Library, name: str, count: int) -> tuple[str, ...]:
    found = []
    if count < FEW:
        taught = counted(count, "photo teaches", "photos teach")
        found.append(f"{taught} little: {FEW} to {MANY}, each elsewhere, find more")
    ordinary = _ordinary_words()
    if fold(name) in ordinary:
        if name == name.lower():
            found.append(
                f"'{name}' is an ordinary word, and every query with it means the learned name "
                f"now. With a capital letter the word would stay free: clipsearch learn "
                f"{name.capitalize()} PHOTO..."
            )
        else:
            found.append(
                f"'{name}' is an ordinary word, too: spelt like this it is the learned name, "
                f"'{name.lower()}' stays the word"
            )
    others = [one for one in library.concepts.names() if one != name and fold(one) == fold(name)]
    if others:
        found.append(f"'{others[0]}' is a learned name, too; they are told apart by capitals alone")
    return tuple(found)


def _ordinary_words() -> set[str]:
    from clipsearch.relevance import neutral_texts
    from clipsearch.tagging.vocabulary import everyday

    texts = [*neutral_texts(), *(said for one in everyday().concepts for said in one.wordings)]
    return {fold(word) for text in texts for word in (text, *text.split())}
