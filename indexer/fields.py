"""What is known of a photo beside its pixels, and the limits that each value has to pass.

EXIF, IPTC, XMP and sidecars all end here: a value that is no text, no date or out of any camera's
range is dropped, so a damaged block costs its own values and nothing else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from clipsearch.clocks import at_offset, split
from indexer.dates import one_moment, stored_in_utc

MAX_SHORT_CHARACTERS = 200  # make, model, lens, title, a keyword with its path
MAX_TEXT_CHARACTERS = 4_000  # a description or a caption
MAX_KEYWORDS = 200

# Ranks of a date, after the guidelines of the Metadata Working Group (2.0, section 5.6): the lowest
# rank that is there is the date taken. Satellites' time is that of the last fix: near, and in UTC.
TAKEN, DIGITIZED, BY_GPS, CHANGED = range(4)

_EDITED_LAST = ("exif", "iptc", "xmp", "xmp-sidecar")  # programs that write XMP keep it current
_SPACE = re.compile(r"\s+")
# Texts that cameras and programs write into every picture.
_BOILERPLATE = re.compile(
    r"""(?ix)
    (olympus|sanyo|sony|minolta|konica\ minolta|kodak|samsung|casio|ricoh|jvc|nikon|polaroid|
     vivitar|hp|praktica|medion|maginon|traveler|rollei|concord|aiptek|genius)?
      [\ _-]*(digital\ (still\ )?camera|dsc|csc|corporation|techwin)
    | exif[_ ]jpeg([_ ](picture|420|422|t\d+))? | jpeg | dcim | dcf | default | untitled
    | none | null | undefined | unknown | img | image | photo | picture | my\ beautiful\ picture
    | applemark | gcm_tag | x-default | binary\ comment
    | date: .* | lead\ technologies.* | created\ (with|by)\ .* | processed\ (with|by)\ .*
    | (optimized|compressed)\ by\ .* | creator:\ .* | file\ written\ by\ .* | handmade\ software.*
    | (img|dsc|dscn|dscf|pict|p|pxl|mvimg|imgp|gopr)[_-]?\d[\d_\-~]*(\.\w{2,5})?
    | \S+\.(jpe?g|png|heic|heif|webp|gif|tiff?|dng|cr[23]|nef|arw|mp4|mov) | https?://\S+
    """
)


@dataclass(frozen=True)
class PhotoMetadata:
    """What a picture's own EXIF, XMP and IPTC say; what is missing or implausible is None.

    ``keyword_origins`` names for each keyword, and ``title_origin`` and ``description_origin`` for
    their texts, the block they were read from: "xmp", "iptc" or "exif".
    """

    taken_at: str | None = None  # ISO 8601 to the second, with the UTC offset where it is known
    make: str | None = None
    model: str | None = None
    lens: str | None = None
    exposure_s: float | None = None
    f_number: float | None = None
    iso: int | None = None
    focal_length_mm: float | None = None
    latitude: float | None = None  # degrees north, -90..90
    longitude: float | None = None  # degrees east, -180..180
    altitude_m: float | None = None
    rating: int | None = None  # -1 rejected, 0 without stars, 1..5
    keywords: tuple[str, ...] = ()  # a hierarchical one as "a|b|c", and "c" beside it
    title: str | None = None
    description: str | None = None
    keyword_origins: tuple[str, ...] = ()
    title_origin: str | None = None
    description_origin: str | None = None
    # The date was stored in UTC: what the camera's clock showed is open.
    is_in_utc: bool = field(default=False, compare=False)

    @property
    def date(self) -> str | None:
        """The date as ``indexer/dates.py`` compares it."""
        return stored_in_utc(self.taken_at) if self.is_in_utc else self.taken_at

    def dated(self, date: str | None) -> PhotoMetadata:
        """The same with another date, as ``indexer/dates.py`` has it."""
        taken_at, is_in_utc = split(date)
        return replace(self, taken_at=taken_at, is_in_utc=is_in_utc)

    def facts(self) -> dict[str, Any]:
        """The numbers and names that are known, ready for JSON.

        Left out are the texts and keywords, which become captions and tags, and ``taken_at``,
        which a library keeps in a column of its own.
        """
        return {name: value for name in _FACTS if (value := getattr(self, name)) is not None}


_FACTS = (
    *("make", "model", "lens", "exposure_s", "f_number", "iso", "focal_length_mm"),
    *("latitude", "longitude", "altitude_m", "rating"),
)


@dataclass
class Findings:
    """What one block says: values by PhotoMetadata's names, and dates by rank."""

    origin: str
    values: dict[str, Any] = field(default_factory=dict)
    dates: dict[int, str] = field(default_factory=dict)
    keywords: list[str] = field(default_factory=list)
    offset_minutes: int | None = None  # from UTC, where only the clock of a GPS tells it

    def put(self, name: str, value: object) -> None:
        """Keeps a value unless it is None or the name already has one: the first one wins."""
        if value is not None:
            self.values.setdefault(name, value)

    def put_date(self, rank: int, value: str | None) -> None:
        if value is not None:
            self.dates.setdefault(rank, value)


def merge(findings: Iterable[Findings]) -> PhotoMetadata:
    """Puts together what the blocks of one picture say.

    What a camera wrote is taken from the earliest block that has it; what people write (title,
    description, rating) from XMP, then IPTC, then EXIF. Keywords of all are kept, each once. A date
    without an offset takes the one that GPS time tells, or that of another block with the same
    local time.
    """
    blocks = list(findings)
    values: dict[str, Any] = {}
    for block in blocks:
        has_place = "latitude" in values
        for name, value in block.values.items():
            if name == "altitude_m" and (has_place or "latitude" not in block.values):
                continue  # a height belongs to its own position
            values.setdefault(name, value)
    written = sorted(blocks, key=lambda block: _EDITED_LAST.index(block.origin))
    for block in written:
        for name in ("title", "description", "rating"):
            if name in block.values:
                values[name] = block.values[name]
                if name != "rating":
                    values[f"{name}_origin"] = block.origin
    pairs = [(name, block.origin) for block in reversed(written) for name in block.keywords]
    names, origins = _unique(pairs)
    found = PhotoMetadata(keywords=names, keyword_origins=origins, **values)
    return found.dated(_taken_at(blocks))


def clean_text(value: object, limit: int = MAX_TEXT_CHARACTERS) -> str | None:
    """Text without control characters, its white space made single blanks, cut at ``limit``.

    None for what is no text, or has no letter and no digit. Bytes are read as UTF-8, else as
    Windows-1252, the superset of Latin-1 that programs write.
    """
    if isinstance(value, bytes):
        value = decode_text(value)
    if not isinstance(value, str):
        return None
    value = value[: 16 * limit].partition("\0")[0]
    text = _SPACE.sub(" ", "".join(c for c in value if c.isprintable() or c.isspace())).strip()
    text = text.replace("\ufffd", "")[:limit].strip()
    return text if any(character.isalnum() for character in text) else None


def decode_text(data: bytes) -> str:
    """Bytes of unknown encoding to text: by their byte-order mark, as UTF-8, or as cp1252."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def clean_name(value: object) -> str | None:
    """A make, model or lens; None for fillers like "----" or "unknown"."""
    text = clean_text(value, MAX_SHORT_CHARACTERS)
    if text is None or text.casefold() in ("unknown", "none", "null", "n/a", "undefined"):
        return None
    return text


def clean_caption(
    value: object, limit: int = MAX_TEXT_CHARACTERS, besides: Iterable[object] = ()
) -> str | None:
    """A title or description a person may have written; None for what cameras fill in.

    ``besides`` are texts, like the camera's name, that say nothing new.
    """
    text = clean_text(value, limit)
    if text is None or not any(character.isalpha() for character in text):
        return None
    if _BOILERPLATE.fullmatch(text) or text.startswith(("{", "<?xml", "[{")):
        return None
    if " " not in text and len(text) >= 16 and any(letter.isdigit() for letter in text):
        return None  # a checksum, a serial number, a file name
    folded = text.casefold()
    if any(isinstance(other, str) and folded == other.casefold() for other in besides):
        return None
    return text


def split_lone(values: Sequence[str]) -> Sequence[str]:
    """Keywords; a single one that is a list itself ("sea; sand" or "sea, sand, sun") is split."""
    if len(values) == 1:
        for separator, at_least in ((";", 1), (",", 2)):
            if values[0].count(separator) >= at_least:
                return values[0].split(separator)
    return values


def clean_keywords(values: Iterable[object]) -> list[str]:
    """Flat keywords, each once, in their order; at most MAX_KEYWORDS."""
    found: dict[str, str] = {}
    for value in values:
        text = clean_text(value, MAX_SHORT_CHARACTERS)
        if text is not None:
            found.setdefault(text.casefold(), text)
        if len(found) == MAX_KEYWORDS:
            break
    return list(found.values())


def clean_paths(values: Iterable[object], separator: str) -> list[str]:
    """Hierarchical keywords: the leaf, and "a|b|c" where there is more than one level."""
    found: list[object] = []
    for value in values:
        if isinstance(value, str):
            levels = [text for part in value.split(separator) if (text := clean_text(part))]
            found.extend(levels[-1:])
            if len(levels) > 1:
                found.append("|".join(levels))
    return clean_keywords(found)


def number(value: object, low: float, high: float) -> float | None:
    """A number within the limits, from a number, a rational or text like "1/200"; else None."""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    try:
        if isinstance(value, str):
            over, _, under = value.strip().rstrip("\0").partition("/")
            result = float(over) / float(under or 1)
        else:
            result = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return result if math.isfinite(result) and low <= result <= high else None


def exposure(value: object) -> float | None:
    """Seconds of exposure: more than none, at most a day."""
    seconds = number(value, 1e-7, 86_400)
    return None if seconds is None else float(f"{seconds:.6g}")


def f_number(value: object) -> float | None:
    found = number(value, 0.3, 512)
    return None if found is None else round(found, 2)


def iso(value: object) -> int | None:
    """Sensitivity; of several numbers the first that is one (Nikon writes 0 before it)."""
    for part in value if isinstance(value, tuple) else (value,):
        found = number(part, 1, 10_000_000)
        if found is not None and found != 65_535:  # 65535: more than 16 bits hold
            return round(found)
    return None


def focal_length(value: object) -> float | None:
    found = number(value, 0.1, 20_000)
    return None if found is None else round(found, 2)


def altitude(value: object) -> float | None:
    """Metres above the sea: from the deepest trench to where balloons fly."""
    found = number(value, -11_500, 60_000)
    return None if found is None else round(found, 2)


def rating(value: object) -> int | None:
    """Stars; programs write them as "3", "3.0" or, for rejected, -1."""
    found = number(value, -1, 5)
    return None if found is None else round(found)


def rating_of_percent(value: object) -> int | None:
    """Stars from Windows' percent: 1, 25, 50, 75 and 99 are one to five."""
    found = number(value, 0, 100)
    return None if found is None else 0 if found == 0 else 1 + round(found / 25)


def position(latitude: object, longitude: object) -> tuple[float, float] | None:
    """Degrees north and east, seven digits (a centimetre); None out of range or at 0, 0.

    Nobody photographs the point in the Gulf of Guinea that devices without a fix write.
    """
    north, east = number(latitude, -90, 90), number(longitude, -180, 180)
    if north is None or east is None or (abs(north) < 1e-6 and abs(east) < 1e-6):
        return None
    return round(north, 7), round(east, 7)


def _taken_at(blocks: list[Findings]) -> str | None:
    for rank in (TAKEN, DIGITIZED, BY_GPS, CHANGED):
        dates = [block.dates[rank] for block in blocks if rank in block.dates]
        if dates:
            break
    else:
        return None
    # Of the same day the one with a time: news agencies write day and time apart.
    day, midnight = dates[0][:10], "00:00:00"
    dates.sort(key=lambda date: date[:10] != day or date[11:19] == midnight)
    moment = datetime.fromisoformat(dates[0])
    if moment.tzinfo is None and rank == TAKEN:
        for block in blocks:
            if block.offset_minutes is not None:
                return at_offset(moment, block.offset_minutes)
    if moment.tzinfo is None or dates[0].endswith("Z"):
        for other in dates[1:]:
            told = one_moment(dates[0], other)
            if told is not None and told != dates[0]:
                return told
    return dates[0]


def _unique(pairs: Iterable[tuple[str, str]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Keywords and their origins, the first of those that differ only in case."""
    found: dict[str, tuple[str, str]] = {}
    for name, origin in pairs:
        found.setdefault(name.casefold(), (name, origin))
    kept = list(found.values())[:MAX_KEYWORDS]
    return tuple(name for name, _ in kept), tuple(origin for _, origin in kept)
