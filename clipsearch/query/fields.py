"""The table of everything that can stand before a colon: parser, help and docs are made from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Kind(Enum):
    """How the value of a field is written; what stands here is what help and docs say."""

    DATE = "year, month, day or minute: 2023, 2023-06, 2023-06-05, 2023-06-05T14:30"
    PERIOD = "a date, or first..last"
    NUMBER = "a number, with >, >=, <, <= before it, or low..high"
    TEXT = "words; case, accents and punctuation do not matter"
    CHOICE = "one of the words"
    FOLDER = "a folder, with * and ** as wildcards"
    PATH = "a part of the path"
    TAG = "a tag, or one above it in a hierarchy"
    NEAR = "a city or LATITUDE,LONGITUDE, then a distance in km or m"
    SIMILAR = "#ITEM or a file, then > and a cosine"
    PICTURE = "#ITEM or a file"
    COUNT = "a whole number"
    CUTOFF = "auto, none, or the least score"


@dataclass(frozen=True)
class Field:
    """One field. ``units`` are factors to the unit that is stored; ``choices`` by other names."""

    name: str
    kind: Kind
    help: str
    example: str
    aliases: tuple[str, ...] = ()
    units: dict[str, float] = field(default_factory=dict)
    choices: dict[str, str] = field(default_factory=dict)


_BYTES = {"b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2.0**10, "mib": 2.0**20, "gib": 2.0**30}
_SECONDS = {"s": 1, "sec": 1, "ms": 1e-3, "min": 60, "h": 3600}
_HAS = ("gps", "caption", "tag", "date", "camera", "lens", "place", "rating")

# What a picture is ranked by.
TERMS = (
    Field(
        "image",
        Kind.PICTURE,
        "looks like this picture; with - before it, does not",
        "image:./a.jpg -image:#1234",
    ),
)
# What a picture has to be.
FILTERS = (
    Field("after", Kind.DATE, "taken in it or later", "after:2023-06", ("since",)),
    Field("before", Kind.DATE, "taken before it begins", "before:2024"),
    Field("date", Kind.PERIOD, "taken in it", "date:2019..2021", ("taken", "year")),
    Field(
        "type",
        Kind.CHOICE,
        "a picture or a video",
        "type:video",
        ("kind",),
        choices={"picture": "picture", "photo": "picture", "image": "picture"}
        | {"video": "video", "moment": "video", "film": "video"},
    ),
    Field(
        "orientation",
        Kind.CHOICE,
        "higher than wide, wider than high, or as wide as high",
        "orientation:portrait",
        choices={"portrait": "portrait", "landscape": "landscape", "square": "square"},
    ),
    Field("in", Kind.FOLDER, "lies in the folder or below it", "in:Holidays/**", ("folder",)),
    Field("name", Kind.TEXT, "the file's name or a folder's has the words", "name:wedding"),
    Field("path", Kind.PATH, "the whole path has this part, as it is", "path:/2019/raw_"),
    Field(
        "tag", Kind.TAG, "has the tag, from you or from a model", "tag:beach -tag:work", ("tags",)
    ),
    Field("caption", Kind.TEXT, "a caption or description has the words", "caption:birthday"),
    Field("place", Kind.TEXT, "the name of the place has the words", "place:Portugal"),
    Field("near", Kind.NEAR, "taken that near to it (20 km if not said)", "near:Lisbon,20km"),
    Field("camera", Kind.TEXT, "the camera's make and model have the words", 'camera:"Pixel 7"'),
    Field("lens", Kind.TEXT, "the lens's name has the words", "lens:50mm"),
    Field("rating", Kind.NUMBER, "stars, 0 to 5, or -1 for rejected", "rating:>=4", ("stars",)),
    Field("iso", Kind.NUMBER, "sensitivity", "iso:>=1600"),
    Field(
        "aperture",
        Kind.NUMBER,
        "the f-number",
        "aperture:<=2.8",
        ("f-number", "fnumber", "f"),
    ),
    Field(
        "exposure",
        Kind.NUMBER,
        "seconds of exposure",
        "exposure:>1/60",
        ("shutter",),
        units=_SECONDS,
    ),
    Field(
        "focal",
        Kind.NUMBER,
        "the focal length",
        "focal:24mm..70mm",
        ("focal-length",),
        units={"mm": 1},
    ),
    Field("altitude", Kind.NUMBER, "metres above the sea", "altitude:>2000m", units={"m": 1}),
    Field("width", Kind.NUMBER, "pixels across, upright", "width:>=3840", units={"px": 1}),
    Field("height", Kind.NUMBER, "pixels down, upright", "height:<600", units={"px": 1}),
    Field(
        "megapixels",
        Kind.NUMBER,
        "millions of pixels, to one decimal",
        "megapixels:>12",
        ("mp",),
        units={"mp": 1},
    ),
    Field("size", Kind.NUMBER, "bytes of the file", "size:>2MB", ("bytes",), units=_BYTES),
    Field("duration", Kind.NUMBER, "seconds of a video", "duration:<1min", units=_SECONDS),
    Field(
        "format",
        Kind.TEXT,
        "the file's format",
        "format:png,webp",
        choices={"jpg": "jpeg", "tif": "tiff", "heif": "heic", "jp2": "jpeg2000"},
    ),
    Field(
        "has",
        Kind.CHOICE,
        "is known of it: " + ", ".join(_HAS),
        "has:gps",
        choices={name: name for name in _HAS} | {"captions": "caption", "tags": "tag"},
    ),
    Field("similar", Kind.SIMILAR, "that similar to a picture", "similar:#1234>0.8"),
)
# How the answer is made up.
OPTIONS = (
    Field(
        "sort",
        Kind.CHOICE,
        "score, date (oldest first), -date, name, -name",
        "sort:-date",
        ("order",),
        choices={name: name for name in ("score", "date", "-date", "name", "-name")},
    ),
    Field("limit", Kind.COUNT, "at most so many answers", "limit:200", ("top",)),
    Field("cutoff", Kind.CUTOFF, "where the answers end", "cutoff:0.27"),
    Field(
        "duplicate",
        Kind.CHOICE,
        "no: of pictures that are nearly the same, only the best",
        "duplicate:no",
        ("duplicates",),
        choices={"no": "no", "yes": "yes"},
    ),
)
FIELDS = {
    name: entry for entry in (*TERMS, *FILTERS, *OPTIONS) for name in (entry.name, *entry.aliases)
}


def help_text() -> str:
    """All fields for a terminal, with how their values are written."""
    lines = []
    for title, entries in (
        ("Ranked by", TERMS),
        ("Only those (with - before it: only the others)", FILTERS),
        ("The answer", OPTIONS),
    ):
        lines.append(f"{title}:")
        lines += [f"  {entry.example:<28}{entry.help}" for entry in entries]
    lines.append("Values:")
    for kind in Kind:
        names = ", ".join(e.name for e in (*TERMS, *FILTERS, *OPTIONS) if e.kind is kind)
        lines.append(f"  {names}: {kind.value}")
    return "\n".join(lines)


def markdown_table() -> str:
    """The table of docs/query.md."""
    rows = ["| field | keeps, or does | value | example |", "|---|---|---|---|"]
    for entry in (*TERMS, *FILTERS, *OPTIONS):
        names = ", ".join(f"`{name}:`" for name in (entry.name, *entry.aliases))
        rows.append(f"| {names} | {entry.help} | {entry.kind.value} | `{entry.example}` |")
    return "\n".join(rows)
