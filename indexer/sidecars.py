"""What lies beside a picture: XMP sidecars, captions as trainers write them, Google Takeout's JSON.

``find_sidecars`` knows by name alone which files belong to a picture; ``describe`` says what the
picture and their contents tell together. docs/metadata.md holds the rules and why they are so.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from clipsearch.clocks import one_moment
from indexer.dates import of_utc_seconds
from indexer.fields import (
    MAX_KEYWORDS,
    TAKEN,
    PhotoMetadata,
    clean_caption,
    clean_keywords,
    decode_text,
    merge,
    overlay,
    position,
)
from indexer.fields import altitude as sane_altitude
from indexer.xmp import read_xmp

MAX_SIDECAR_BYTES = 2**20
MAX_CAPTIONS = 20

_TAKEOUT_SUFFIX = ".supplemental-metadata"
_TAKEOUT_LENGTHS = range(43, 52)  # Takeout cuts its names to 46 characters; some releases to 51
_EDITED = re.compile(r"-(edited|bearbeitet|modifié|editado|editada|modificato|bewerkt|edytowane)\Z")
_NUMBERED = re.compile(r"(.*)(\(\d+\))\Z", re.DOTALL)
_CAPTION_KEYS = ("caption", "captions", "text", "description")
_KEYWORD_KEYS = ("tags", "keywords")
_SENTENCE_END = (".", "!", "?", "。")
_SENTENCE_WORDS = frozenset(("a", "an", "the", "and", "or", "with", "is", "are", "there"))
_WEIGHT = re.compile(r":[\d.]+\)*\Z")


@dataclass(frozen=True)
class Caption:
    """A text about a picture. ``source``: xmp, iptc, exif, xmp-sidecar, txt, json or takeout."""

    text: str
    source: str


@dataclass(frozen=True)
class Keyword:
    """A tag of the user's; ``origin`` is one of Caption's sources."""

    name: str
    origin: str


@dataclass(frozen=True)
class Described:
    """What a picture and its sidecars say together; each caption and keyword once."""

    metadata: PhotoMetadata
    keywords: tuple[Keyword, ...] = ()
    captions: tuple[Caption, ...] = ()


class SidecarNames:
    """The names of the sidecars in one folder, so that each picture's are found without a search.

    Built once a folder in the time of one pass; ``of`` takes a constant number of look-ups.
    """

    def __init__(self, names_in_folder: Collection[str]) -> None:
        self._names: dict[str, str] = {}
        for name in names_in_folder:
            if name[-4:].lower() in (".xmp", ".txt") or name[-5:].lower() == ".json":
                key = _folded(name)
                self._names[key] = min(name, self._names.get(key, name))

    def of(self, picture_name: str) -> tuple[str, ...]:
        """The sidecars of a picture, most specific first; () when there are none."""
        if not self._names:
            return ()
        found = map(self._names.get, _candidates(_folded(picture_name)))
        return tuple(dict.fromkeys(sidecar for sidecar in found if sidecar is not None))


def find_sidecars(picture_name: str, names_in_folder: Collection[str]) -> tuple[str, ...]:
    """The files of a folder that describe a picture of that folder; case does not matter.

    ``photo.jpg`` has photo.jpg.xmp, photo.xmp, .txt and .json alike, and what Google Takeout makes
    of them. For more than one picture of a folder, make its SidecarNames once.
    """
    return SidecarNames(names_in_folder).of(picture_name)


def describe(embedded: PhotoMetadata, sidecars: Mapping[str, bytes]) -> Described:
    """What a picture and the contents of its sidecars, by their names, say together.

    An XMP sidecar wins wherever it says something, because it is what the user edited last; Takeout
    fills in only what is missing. Contents over MAX_SIDECAR_BYTES, and those that cannot be read,
    count as not there. Never raises.
    """
    metadata, others = embedded, []
    for name, content in sidecars.items():
        metadata, said = _with_sidecar(metadata, name, content)
        others.append(said)
    own = _Said(
        [
            Caption(text, source)
            for text, source in (
                (metadata.description, metadata.description_origin),
                (metadata.title, metadata.title_origin),
            )
            if text and source
        ],
        [
            Keyword(name, origin)
            for name, origin in zip(metadata.keywords, metadata.keyword_origins, strict=True)
        ],
    )
    captions: dict[str, Caption] = {}
    keywords: dict[str, Keyword] = {}
    for said in (own, *others):
        for caption in said.captions:
            captions.setdefault(caption.text.casefold(), caption)
        for keyword in said.keywords:
            keywords.setdefault(keyword.name.casefold(), keyword)
    return Described(
        metadata,
        tuple(keywords.values())[:MAX_KEYWORDS],
        tuple(captions.values())[:MAX_CAPTIONS],
    )


@dataclass
class _Said:
    """What one source says."""

    captions: list[Caption] = field(default_factory=list)
    keywords: list[Keyword] = field(default_factory=list)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _candidates(name: str) -> Iterator[str]:
    """The names that a picture's sidecars may have, both folded."""
    before, dot, after = name.rpartition(".")
    stem, extension = (before, dot + after) if before else (name, "")
    for suffix in (".xmp", ".txt", ".json"):
        yield name + suffix
        yield stem + suffix
    yield from _takeout_candidates(name, "")
    numbered = _NUMBERED.match(stem)  # photo(1).jpg has photo.jpg(1).json
    root, number = numbered.groups() if numbered else (stem, "")
    if number:
        yield from _takeout_candidates(root + extension, number)
    original = _EDITED.sub("", root)  # an edited copy has its original's
    if original != root:
        yield from _takeout_candidates(original + extension, number)


def _takeout_candidates(name: str, number: str) -> Iterator[str]:
    full = name + _TAKEOUT_SUFFIX
    yield f"{full}{number}.json"
    yield f"{name}{number}.json"
    for length in _TAKEOUT_LENGTHS:
        if length < len(full):
            yield f"{full[:length]}{number}.json"


def _with_sidecar(
    metadata: PhotoMetadata, name: str, content: bytes
) -> tuple[PhotoMetadata, _Said]:
    """The metadata with what a sidecar changes in it, and what it says beside that."""
    kind = name.rpartition(".")[2].lower()
    try:
        if len(content) > MAX_SIDECAR_BYTES:
            return metadata, _Said()
        if kind == "xmp":
            return _with_xmp(metadata, content), _Said()
        if kind == "txt":
            return metadata, _from_text(content)
        if kind == "json":
            return _from_json(metadata, content)
    except Exception:  # a hostile sidecar; the picture and the others count
        return metadata, _Said()
    return metadata, _Said()


def _with_xmp(metadata: PhotoMetadata, content: bytes) -> PhotoMetadata:
    """The sidecar's values over those of the picture; its keywords replace the picture's."""
    found = read_xmp(content, origin="xmp-sidecar")
    over = merge([found])
    if metadata.date is not None and over.date is not None:
        told = metadata.date
        if TAKEN in found.dates:  # else it may be a date of editing
            told = one_moment(metadata.date, over.date) or over.date
        over = over.dated(told)
    if over.keywords:
        metadata = replace(metadata, keywords=(), keyword_origins=())
    return overlay(metadata, over)


def _from_text(content: bytes) -> _Said:
    """Captions, one a line; or keywords, where a file is a list of them with commas."""
    if b"\0" in content and not content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _Said()  # no text file
    lines = _unwrapped(decode_text(content))
    tags = _tags(lines[0]) if len(lines) == 1 else None
    if tags is not None:
        return _Said(keywords=[Keyword(tag, "txt") for tag in tags])
    return _Said(_captions(lines, "txt"))


def _unwrapped(text: str) -> list[str]:
    """The lines that are not empty, those of a hard-wrapped paragraph joined."""
    lines: list[str] = []
    is_open = False  # the line before may go on: it is long and ends no sentence
    for line in map(str.strip, text.splitlines()):
        if is_open and line[:1].islower():
            lines[-1] += " " + line
        elif line:
            lines.append(line)
        is_open = len(line) >= 60 and not line.endswith(_SENTENCE_END)
    return lines


def _tags(line: str) -> list[str] | None:
    """The tags of a line like "1girl, long_hair, (smile:1.2)"; None for a sentence.

    It is a list when it has three parts or more of at most four words, on average at most two and
    a half, none of which begins as a part of a sentence does, and ends without a full stop.
    """
    parts = [part.strip() for part in line.split(",") if part.strip()]
    words = [part.split() for part in parts]
    if len(parts) < 3 or line.endswith(_SENTENCE_END):
        return None
    if max(map(len, words)) > 4 or sum(map(len, words)) > 2.5 * len(parts):
        return None
    if any(part[0].casefold() in _SENTENCE_WORDS for part in words):
        return None
    return clean_keywords(map(_plain_tag, parts))


def _plain_tag(tag: str) -> str:
    r"""A tag without the weight and escapes of prompts: "(long_hair:1.2)", "name \(work\)"."""
    if tag.startswith("(") and tag.endswith(")"):
        tag = _WEIGHT.sub("", tag.strip("()"))
    return tag.replace("\\", "").replace("_", " ")


def _captions(texts: Collection[object], source: str) -> list[Caption]:
    cleaned = (clean_caption(text) for text in list(texts)[:MAX_CAPTIONS])
    return [Caption(text, source) for text in cleaned if text]


def _from_json(metadata: PhotoMetadata, content: bytes) -> tuple[PhotoMetadata, _Said]:
    data = json.loads(decode_text(content))
    if isinstance(data, list) and len(data) == 1:
        data = data[0]
    if not isinstance(data, dict):
        return metadata, _Said()
    if "photoTakenTime" in data or ("title" in data and "geoData" in data):
        return _filled_by_takeout(metadata, data), _said_by_takeout(data)
    texts = [text for key in _CAPTION_KEYS for text in _texts(data.get(key))]
    keywords = [
        tag
        for key in _KEYWORD_KEYS
        for text in _texts(data.get(key))
        for tag in (text.split(",") if isinstance(data[key], str) else [text])
    ]
    return metadata, _Said(
        _captions(texts, "json"),
        [Keyword(name, "json") for name in clean_keywords(map(_plain_tag, keywords))],
    )


def _texts(value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str)]


def _said_by_takeout(data: Mapping[str, Any]) -> _Said:
    """Its description and its people; its title is the file's name."""
    people = data.get("people")
    names = [
        person.get("name")
        for person in (people if isinstance(people, list) else ())
        if isinstance(person, dict)
    ]
    return _Said(
        _captions([data.get("description")], "takeout"),
        [Keyword(name, "takeout") for name in clean_keywords(names)],
    )


def _filled_by_takeout(metadata: PhotoMetadata, data: Mapping[str, Any]) -> PhotoMetadata:
    """Date and place where the picture has none; 0, 0 is how Takeout says that it has no place."""
    if metadata.taken_at is None:
        metadata = metadata.dated(_takeout_time(data.get("photoTakenTime")))
    for key in ("geoData", "geoDataExif"):
        place = data.get(key)
        if metadata.latitude is None and isinstance(place, dict):
            found = position(place.get("latitude"), place.get("longitude"))
            if found is not None:
                height = place.get("altitude")
                metadata = replace(
                    metadata,
                    latitude=found[0],
                    longitude=found[1],
                    altitude_m=sane_altitude(height) if height else None,
                )
    return metadata


def _takeout_time(value: object) -> str | None:
    """Seconds since 1970 as a date in UTC."""
    return of_utc_seconds(value.get("timestamp")) if isinstance(value, dict) else None
