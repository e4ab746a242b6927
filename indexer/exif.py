"""EXIF: the directories of a TIFF block, read by Pillow under a limit, and what their tags mean.

A block is a whole TIFF file too, so this reads TIFF, DNG and most camera RAW files as they are.
Tags and their units are those of Exif 2.32 (CIPA DC-008), XP* and Rating those of Windows.
"""

from __future__ import annotations

import io
import math
import struct
import threading
import warnings
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from PIL import ExifTags, TiffImagePlugin

from clipsearch.clocks import nearest_offset, stored_in_utc
from indexer import fields
from indexer.dates import parse_date
from indexer.fields import Findings

_MAX_READ_BYTES = 6 * 2**20  # all tags of a directory; each may point at the same megabyte
_TIFF = {  # the first four bytes of a block -> those that Pillow takes for a TIFF file's
    **{magic: magic for magic in (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0")},
    **dict.fromkeys((b"IIRO", b"IIRS", b"IIU\0"), b"II*\0"),  # Olympus, Panasonic
    b"MMOR": b"MM\0*",
}
_MAX_FILLED_BYTES = 64 * 2**10
_XMP, _IPTC, _RESOURCES = 0x02BC, 0x83BB, 0x8649
_XP_TITLE, _XP_COMMENT, _XP_KEYWORDS, _XP_SUBJECT = 0x9C9B, 0x9C9C, 0x9C9E, 0x9C9F
_PANASONIC_ISO = 0x0017  # in RW2, whose main directory has tags of its own
_RATING, _RATING_PERCENT = 0x4746, 0x4749

_QUIET = threading.Lock()

_MAX_SUN_DIFFERENCE_H = 3.5  # between a zone's time and the sun's, at its worst in western China


@dataclass(frozen=True)
class ExifBlock:
    """A TIFF block; Canon's CR3 keeps its Exif and its GPS directory in blocks of their own."""

    main: bytes
    details: bytes = b""
    place: bytes = b""


@dataclass(frozen=True)
class Nested:
    """Blocks of the other kinds that a TIFF file holds as tags."""

    xmp: bytes = b""
    iptc: bytes = b""
    resources: bytes = b""  # Photoshop's, in which IPTC may lie


def is_tiff(data: bytes) -> bool:
    """True for what begins like a TIFF file or one of the RAW formats made from it."""
    return data[:4] in _TIFF


def read_exif(block: ExifBlock) -> tuple[Findings, Nested]:
    """What the tags say; of damaged directories, what can be read."""
    with _QUIET, warnings.catch_warnings():  # which two threads at once would leave changed
        warnings.simplefilter("ignore")  # Pillow warns of each damaged tag
        return _read(block)


def _read(block: ExifBlock) -> tuple[Findings, Nested]:
    main = _directory(block.main)
    details = _directory(block.details) or _sub_directory(block.main, main, ExifTags.IFD.Exif)
    place = _directory(block.place) or _sub_directory(block.main, main, ExifTags.IFD.GPSInfo)
    tags = Directory(details, main)  # TIFF/EP and DNG put details into the main directory
    is_little = block.main.startswith(b"II")
    found = Findings("exif")
    found.put("make", fields.clean_name(tags.get(ExifTags.Base.Make)))
    found.put("model", fields.clean_name(tags.get(ExifTags.Base.Model)))
    _read_exposure(found, tags)
    _read_dates(found, tags)
    _read_texts(found, tags, is_little=is_little)
    _read_place(found, Directory(place))
    return found, _nested(Directory(main), is_little=is_little)


class _LimitedFile(io.BytesIO):
    """A block from which no more is read than a limit, whatever its tags claim.

    A short tag past its end reads as zeros: Pillow gives up a directory at the first tag that
    points outside, which in a truncated block would cost the good tags after it.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = _MAX_READ_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0 or size > self._left:
            raise OSError("more than a block of EXIF may hold")
        self._left -= size
        data = super().read(size)
        return data.ljust(size, b"\0") if size <= _MAX_FILLED_BYTES else data


class Directory:
    """The tags of one directory or more; a tag is decoded when it is asked for.

    None stands for a tag that is missing or damaged. Text is decoded anew: Pillow reads as Latin-1
    what today is UTF-8.
    """

    def __init__(self, *parts: TiffImagePlugin.ImageFileDirectory_v2 | None) -> None:
        self._parts = [part for part in parts if part is not None]

    def get(self, tag: int) -> Any:
        for part in self._parts:
            value = _value(part, tag) if tag in part else None
            if value is not None:
                return value
        return None


def _value(directory: TiffImagePlugin.ImageFileDirectory_v2, tag: int) -> Any:
    try:
        value = directory[tag]
    except Exception:  # the next tag may be good
        return None
    if isinstance(value, tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        return fields.decode_text(value.encode("latin-1", "replace"))
    return value


def _directory(
    data: bytes, offset: int | None = None
) -> TiffImagePlugin.ImageFileDirectory_v2 | None:
    """A directory of a block, its first without ``offset``; None where there is none."""
    head = _TIFF.get(data[:4])
    if head is None or len(data) < 8:
        return None
    try:
        # With the group, Pillow does not cut lists to the length it expects of a plain TIFF tag.
        directory = TiffImagePlugin.ImageFileDirectory_v2(head + data[4:8], group=ExifTags.IFD.Exif)
        file = _LimitedFile(data)
        start = directory.next if offset is None else offset
        if not 0 < start < len(data):
            return None
        file.seek(start)
        directory.load(file)
    except Exception:  # damaged blocks make Pillow raise nearly anything
        return None
    return directory if len(directory) else None


def _sub_directory(
    data: bytes, main: TiffImagePlugin.ImageFileDirectory_v2 | None, tag: int
) -> TiffImagePlugin.ImageFileDirectory_v2 | None:
    offset = Directory(main).get(tag)
    return _directory(data, offset) if isinstance(offset, int) else None


def _nested(main: Directory, *, is_little: bool) -> Nested:
    def raw(tag: int) -> bytes:
        value = main.get(tag)
        if isinstance(value, tuple):  # some programs write IPTC as 32-bit numbers
            order = "<" if is_little else ">"
            try:
                return struct.pack(f"{order}{len(value)}L", *value)
            except (struct.error, TypeError):
                return b""
        return value if isinstance(value, bytes) else b""

    return Nested(xmp=raw(_XMP), iptc=raw(_IPTC), resources=raw(_RESOURCES))


def _read_exposure(found: Findings, tags: Directory) -> None:
    found.put("lens", _lens(tags))
    found.put("exposure_s", fields.exposure(tags.get(ExifTags.Base.ExposureTime)))
    speed = fields.number(tags.get(ExifTags.Base.ShutterSpeedValue), -20, 30)  # APEX
    if speed is not None:
        found.put("exposure_s", fields.exposure(2**-speed))
    found.put("f_number", fields.f_number(tags.get(ExifTags.Base.FNumber)))
    aperture = fields.number(tags.get(ExifTags.Base.ApertureValue), 0.01, 18)  # APEX
    if aperture is not None:
        found.put("f_number", fields.f_number(2 ** (aperture / 2)))
    for tag in (
        ExifTags.Base.ISOSpeedRatings,
        ExifTags.Base.RecommendedExposureIndex,
        ExifTags.Base.StandardOutputSensitivity,
        ExifTags.Base.ISOSpeed,
        _PANASONIC_ISO,
    ):
        found.put("iso", fields.iso(tags.get(tag)))
    found.put("focal_length_mm", fields.focal_length(tags.get(ExifTags.Base.FocalLength)))
    found.put("rating", fields.rating(tags.get(_RATING)))
    found.put("rating", fields.rating_of_percent(tags.get(_RATING_PERCENT)))


def _lens(tags: Directory) -> str | None:
    name = fields.clean_name(tags.get(ExifTags.Base.LensModel))
    if name is not None and any(letter.isalpha() for letter in name):
        return name
    specification = tags.get(ExifTags.Base.LensSpecification)
    if not isinstance(specification, tuple) or len(specification) != 4:
        return None
    short, long = (fields.focal_length(value) for value in specification[:2])
    wide, tele = (fields.f_number(value) for value in specification[2:])
    if short is None or long is None or long < short:
        return None
    lengths = f"{short:g}mm" if short == long else f"{short:g}-{long:g}mm"
    if wide is None:
        return lengths
    stops = f"{wide:g}" if tele in (None, wide) else f"{wide:g}-{tele:g}"
    return f"{lengths} f/{stops}"


def _read_dates(found: Findings, tags: Directory) -> None:
    base = ExifTags.Base
    taken, offset = tags.get(base.DateTimeOriginal), tags.get(base.OffsetTimeOriginal)
    if taken == tags.get(base.DateTime) and offset is None:
        offset = tags.get(base.OffsetTime)  # some phones write this one alone
    found.put_date(fields.TAKEN, parse_date(taken, offset))
    found.put_date(
        fields.DIGITIZED,
        parse_date(tags.get(base.DateTimeDigitized), tags.get(base.OffsetTimeDigitized)),
    )
    if "make" in found.values or "model" in found.values:  # else a program's, not a camera's clock
        found.put_date(
            fields.CHANGED, parse_date(tags.get(base.DateTime), tags.get(base.OffsetTime))
        )


def _read_texts(found: Findings, tags: Directory, *, is_little: bool) -> None:
    camera = (found.values.get("make"), found.values.get("model"))
    short = fields.MAX_SHORT_CHARACTERS
    title = fields.clean_caption(_windows_text(tags.get(_XP_TITLE)), short, besides=camera)
    found.put("title", title)
    for text in (
        tags.get(ExifTags.Base.ImageDescription),
        _comment(tags.get(ExifTags.Base.UserComment), is_little=is_little),
        _windows_text(tags.get(_XP_COMMENT)),
        _windows_text(tags.get(_XP_SUBJECT)),
    ):
        found.put("description", fields.clean_caption(text, besides=camera))
    keywords = _windows_text(tags.get(_XP_KEYWORDS))
    found.keywords = fields.clean_keywords(keywords.split(";") if keywords else ())


def _windows_text(value: object) -> str | None:
    """XP* tags: bytes of UTF-16, little-endian whatever the block is."""
    return value.decode("utf-16-le", "replace") if isinstance(value, bytes) else None


def _comment(value: object, *, is_little: bool) -> str | None:
    """UserComment: eight bytes name the character set, the text follows."""
    if not isinstance(value, bytes):
        return value if isinstance(value, str) else None
    if len(value) <= 8:
        return None
    name, text = value[:8], value[8:]
    if name.startswith(b"UNICODE"):
        encoding = "utf-16-le" if is_little else "utf-16-be"
        if text.startswith((b"\xff\xfe", b"\xfe\xff")):
            encoding = "utf-16"
        elif len(text) > 1 and (text[0] == 0) != (encoding == "utf-16-be") and 0 in text[:2]:
            encoding = "utf-16-be" if is_little else "utf-16-le"  # against the standard, and common
        return text.decode(encoding, "replace")
    if name.startswith(b"JIS"):
        return text.decode("iso2022_jp", "replace")
    if name.startswith((b"ASCII", b"\0\0\0\0")):
        return fields.decode_text(text.strip(b"\0"))
    return fields.decode_text(value)


def _read_place(found: Findings, place: Directory) -> None:
    gps = ExifTags.GPS
    utc = _gps_time(place)
    if utc is not None:
        found.put_date(fields.BY_GPS, stored_in_utc(parse_date(utc.isoformat(), "Z")))
    position = fields.position(
        _degrees(place.get(gps.GPSLatitude), place.get(gps.GPSLatitudeRef), "NS"),
        _degrees(place.get(gps.GPSLongitude), place.get(gps.GPSLongitudeRef), "EW"),
    )
    if position is None:
        return
    found.put("latitude", position[0])
    found.put("longitude", position[1])
    height = fields.number(place.get(gps.GPSAltitude), -1e6, 1e6)
    if height is not None:
        below = place.get(gps.GPSAltitudeRef) in (b"\1", 1, "1", b"\3", 3)
        found.put("altitude_m", fields.altitude(-height if below else height))
    found.offset_minutes = _offset_of_gps_time(found.dates.get(fields.TAKEN), utc, position[1])


def _degrees(value: object, reference: object, letters: str) -> float | None:
    """Degrees, minutes and seconds to degrees; south and west are negative.

    Without its reference a value could be on either half of the earth, so it counts as missing.
    """
    if isinstance(reference, bytes):
        reference = reference.decode("latin-1")
    value = value if isinstance(value, tuple) else (value,)
    if not isinstance(reference, str) or len(value) > 3:
        return None
    side = reference.strip("\0 ").upper()[:1]
    if not side or side not in letters:
        return None
    total = 0.0
    for part, unit in zip(value, (1, 60, 3600), strict=False):
        if unit > 1 and _is_nothing(part):
            continue
        amount = fields.number(part, 0, 180 if unit == 1 else 60)
        if amount is None:
            return None
        total += amount / unit
    return -total if side == letters[1] else total


def _is_nothing(part: object) -> bool:
    """True for 0/0, with which cameras say that they give no minutes or seconds.

    Anything else over 0 is damage, and whatever was there before it is lost.
    """
    return getattr(part, "denominator", 1) == 0 and getattr(part, "numerator", 1) == 0


def _gps_time(place: Directory) -> datetime | None:
    """UTC as the satellites tell it, without its zone."""
    day = parse_date(place.get(ExifTags.GPS.GPSDateStamp))
    time = place.get(ExifTags.GPS.GPSTimeStamp)
    if day is None or not isinstance(time, tuple) or len(time) != 3:
        return None
    hours = fields.number(time[0], 0, 24)
    minutes, seconds = (fields.number(part, 0, 60) for part in time[1:])
    if hours is None or minutes is None or seconds is None:
        return None
    return datetime.fromisoformat(day).replace(hour=0, minute=0, second=0, tzinfo=None) + timedelta(
        hours=hours, minutes=minutes, seconds=seconds
    )


def _offset_of_gps_time(taken: str | None, utc: datetime | None, longitude: float) -> int | None:
    """Minutes east of UTC at which the camera's clock ran, by the satellites' time.

    Only an offset that is in use, to within two minutes, and that fits the longitude: the last fix
    may be old, and the clock may still be on the time of home.
    """
    if taken is None or utc is None:
        return None
    local = datetime.fromisoformat(taken)
    minutes = nearest_offset(local, utc) if local.tzinfo is None else None
    if minutes is None:
        return None
    from_sun_h = math.remainder(minutes / 60 - longitude / 15, 24)
    return minutes if abs(from_sun_h) <= _MAX_SUN_DIFFERENCE_H else None
