"""What sidecars say: XMP, captions and tags as trainers write them, Google Takeout's JSON.

``sidecar_names`` knows which files belong to a picture; ``read_sidecars`` reads their contents, and
``describe`` says what the picture and they tell together. docs/metadata.md holds the rules.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from clipsearch.uniting import Saying, SidecarSaying, unite
from indexer import takeout
from indexer.dates import of_utc_seconds, one_moment
from indexer.fields import (
    TAKEN,
    PhotoMetadata,
    clean_keywords,
    decode_text,
    merge,
    position,
)
from indexer.fields import altitude as sane_altitude
from indexer.sidecar_names import (
    CONVERTED,
    CUT,
    ENDINGS,
    FULL,
    SHARED,
    SOUGHT,
    STEM,
    TITLED,
    VERSION,
    Beside,
    SidecarNames,
    split,
)
from indexer.sidecar_texts import captions, plain_tag, read_text
from indexer.xmp import read_xmp
from indexer.xmp_sidecar import SidecarPacket, read_packet

MAX_SIDECAR_BYTES = 2**24
TAGS = "tags"  # the role of a .txt that lists tags, where that was asked for

_FAVOURITE_STARS = 5
_ALIKE = {"jpeg": "jpg", "tiff": "tif", "heif": "heic"}
_CAPTION_KEYS = ("caption", "captions", "text", "description")
_KEYWORD_KEYS = ("tags", "keywords")


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
class ReadSidecar:
    """One sidecar as it was read. ``failure`` says why it was not, or not as a whole.

    Unless ``is_settled`` it may be readable at another time, though the file stays the same.
    """

    name: str
    said: SidecarSaying
    failure: str | None = None
    is_settled: bool = True


@dataclass(frozen=True)
class Described:
    """What a picture and its sidecars say together; each caption and keyword once."""

    metadata: PhotoMetadata
    keywords: tuple[Keyword, ...] = ()
    captions: tuple[Caption, ...] = ()


def describe(
    embedded: PhotoMetadata, sidecars: Mapping[str, bytes], picture_name: str | None = None
) -> Described:
    """What a picture and the contents of its sidecars, by their names, say together.

    An XMP sidecar wins wherever it says something, because it is what the user edited last; Takeout
    fills in only what is missing. What cannot be read counts as not there. Without a
    ``picture_name`` the sidecars are taken to be its own, the most specific first. Never raises.
    """
    beside: Iterable[Beside] = (Beside(name, FULL) for name in sidecars)
    if picture_name is not None:
        beside = SidecarNames([picture_name, *sidecars]).beside(picture_name)
    own = saying_of(embedded)
    read = read_sidecars(own, picture_name or "", beside, sidecars)
    united = unite(own, [[one.said for one in read]])
    return Described(
        _metadata_of(united.saying),
        tuple(Keyword(name, origin) for name, origin in united.keywords),
        tuple(Caption(text, source) for text, source in united.captions),
    )


def saying_of(metadata: PhotoMetadata) -> Saying:
    """Metadata as a flat record of what is known; its date as ``indexer.dates`` compares it."""
    pairs = zip(metadata.keywords, metadata.keyword_origins, strict=True)
    found: Saying = {
        item.name: value
        for item in fields(PhotoMetadata)
        if (value := getattr(metadata, item.name)) is not None and not isinstance(value, tuple)
    }
    found.pop("is_in_utc")
    if metadata.date is not None:
        found["taken_at"] = metadata.date
    return {**found, "keywords": list(pairs)} if metadata.keywords else found


def _metadata_of(said: Saying) -> PhotoMetadata:
    pairs = said.get("keywords", ())
    return PhotoMetadata(
        **{name: value for name, value in said.items() if name not in ("keywords", "taken_at")},
        keywords=tuple(name for name, _ in pairs),
        keyword_origins=tuple(origin for _, origin in pairs),
    ).dated(said.get("taken_at"))


def read_sidecars(
    own: Mapping[str, Any],
    picture_name: str,
    beside: Iterable[Beside],
    contents: Mapping[str, bytes | OSError],
) -> list[ReadSidecar]:
    """What each sidecar says; those that turn out to be another picture's are left out.

    ``own`` is what the picture says itself, as ``saying_of`` gives it. ``contents`` are by name the
    bytes of the sidecars, or why they could not be read. Never raises.
    """
    found: list[ReadSidecar] = []
    sought: list[ReadSidecar] = []
    for name, role in beside:
        content = contents[name]
        if not isinstance(content, OSError) and len(content) > MAX_SIDECAR_BYTES:
            content = too_large(len(content))
        if isinstance(content, OSError):
            is_settled = content.errno == errno.EFBIG
            what = "is too large" if is_settled else "cannot be read"
            reason = f"the sidecar {what}: {content.strerror or content}"
            found.append(ReadSidecar(name, _NOTHING, reason, is_settled=is_settled))
            continue
        try:
            read = _read(own, picture_name, Beside(name, role), content)
        except Exception as error:  # a hostile sidecar; the picture and the others count
            reason = f"the sidecar cannot be read: {type(error).__name__}"
            read = ReadSidecar(name, _NOTHING, reason)
        if read is not None:
            (sought if role == SOUGHT else found).append(read)
    if len(sought) == 1 and not any(one.name.endswith(".json") for one in found):
        found += sought
    return found


_NOTHING = SidecarSaying({}, {})


def too_large(size: int) -> OSError:
    """What stands for the content of a sidecar of so many bytes."""
    limit = f"the limit of {MAX_SIDECAR_BYTES:,} bytes"
    return OSError(errno.EFBIG, f"it has {size:,}, more than {limit}; make it smaller")


def _read(
    own: Mapping[str, Any], picture: str, sidecar: Beside, content: bytes
) -> ReadSidecar | None:
    """What one sidecar says; None if its content is of another picture."""
    name, role = sidecar
    kind = name.rpartition(".")[2].lower()
    if kind == "xmp":
        packet = read_packet(content)
        if not _is_meant(packet, picture, role):
            return None
        return ReadSidecar(name, _from_xmp(own, content, packet, role), packet.damage)
    if kind == "txt":
        said = read_text(content, is_tags=role == TAGS)
        failure = "the sidecar is no text: it holds NUL bytes" if said is None else None
        return ReadSidecar(name, said or _NOTHING, failure)
    if kind != "json" or not content.strip():
        return ReadSidecar(name, _NOTHING)
    try:
        data = json.loads(decode_text(content))
    except (ValueError, RecursionError) as error:
        return ReadSidecar(name, _NOTHING, f"the sidecar is broken JSON: {error}")
    if isinstance(data, list) and len(data) == 1:
        data = data[0]
    is_takeout = _is_takeout(data)
    if not _may_speak(data, picture, sidecar, is_takeout=is_takeout):
        return None
    if is_takeout:
        return ReadSidecar(name, _from_takeout(own, data))
    return ReadSidecar(name, _from_json(data) if isinstance(data, dict) else _NOTHING)


def speaks_of(content: bytes, picture_name: str) -> bool:
    """False for the XMP of ``photo.xmp`` that names a file of another ending as its own."""
    return _is_meant(read_packet(content), picture_name, STEM)


def _is_meant(packet: SidecarPacket, picture: str, role: str) -> bool:
    """False for XMP that says itself that it is another file's."""
    if role == VERSION:
        return (packet.derived_from or "").casefold() == picture.casefold()
    if role != STEM or packet.for_extension is None:
        return True
    wanted, ending = packet.for_extension.lower(), split(picture)[1].lower().lstrip(".")
    return _ALIKE.get(wanted, wanted) == _ALIKE.get(ending, ending)


def _is_takeout(data: object) -> bool:
    return isinstance(data, dict) and (
        "photoTakenTime" in data or ("title" in data and "geoData" in data)
    )


def _may_speak(data: Any, picture: str, sidecar: Beside, *, is_takeout: bool) -> bool:
    """False for JSON that a name alone does not prove to be this picture's."""
    name, role = sidecar
    if not is_takeout:
        return role in (FULL, STEM, SHARED)
    title = data.get("title")
    if role == CONVERTED and isinstance(title, str):
        title = split(title)[0]  # the camera's file had another ending
    fits = takeout.title_fits(title, picture, ENDINGS)
    if role == CUT:  # a title that the name was not made from proves nothing
        return fits or not takeout.begins(title, name)
    return fits or role not in (TITLED, SOUGHT, CONVERTED, SHARED)


def _from_xmp(
    own: Mapping[str, Any], content: bytes, packet: SidecarPacket, role: str
) -> SidecarSaying:
    """The sidecar's values over those of the picture; its keywords replace the picture's."""
    found = read_xmp(content, origin="xmp-sidecar")
    over = merge([found])
    fill: Saying = {}
    own_date, date = own.get("taken_at"), over.date
    if TAKEN not in found.dates:  # a date of editing
        fill = {"taken_at": date} if date is not None else {}
        over = over.dated(None)
    elif own_date is not None and date is not None:
        told = one_moment(own_date, date) or date
        over = over.dated(None if told == own_date else told)
    said = saying_of(over)
    for name in packet.emptied:
        if name == "keywords":
            said.setdefault(name, [])
        elif name not in said:
            said[name] = said[f"{name}_origin"] = None
    return SidecarSaying(said, fill, joins=role == VERSION)


def _from_json(data: Mapping[str, Any]) -> SidecarSaying:
    texts = [text for key in _CAPTION_KEYS for text in _texts(data.get(key))]
    keywords = [
        tag
        for key in _KEYWORD_KEYS
        for text in _texts(data.get(key))
        for tag in (text.split(",") if isinstance(data[key], str) else [text])
    ]
    tags = tuple((name, "json") for name in clean_keywords(map(plain_tag, keywords)))
    return SidecarSaying({}, {}, captions(texts, "json"), tags)


def _texts(value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str)]


def _from_takeout(own: Mapping[str, Any], data: Mapping[str, Any]) -> SidecarSaying:
    """Its description, its people, and what the picture lacks; its title is the file's name."""
    people = data.get("people")
    names = [
        person.get("name")
        for person in (people if isinstance(people, list) else ())
        if isinstance(person, dict)
    ]
    lacking = PhotoMetadata(latitude=own.get("latitude")).dated(own.get("taken_at"))
    filled = saying_of(_filled_by_takeout(lacking, data))
    fill = {name: value for name, value in filled.items() if own.get(name) is None}
    if data.get("favorited") is True:
        fill["rating"] = _FAVOURITE_STARS
    return SidecarSaying(
        {},
        fill,
        captions([data.get("description")], "takeout"),
        tuple((name, "takeout") for name in clean_keywords(names)),
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
