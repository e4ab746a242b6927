"""What a video's metadata tags say: when, where and with what it was taken. Plain parsing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

Tags = Mapping[str, str]

_MAX_LETTERS = 200
_FIRST_YEAR = 1905  # an unset QuickTime clock says 1904 ...
_EPOCH_YEAR = 1970  # ... or, on the very first day, 1970
_POINT = re.compile(r"([+-])(\d{2,6})(\.\d+)?([+-])(\d{3,7})(\.\d+)?")


def first_tag(tags: Tags, *names: str) -> str | None:
    """The first of the tags that is there and says something, without control characters."""
    for name in names:
        text = "".join(letter for letter in tags.get(name, "") if letter.isprintable()).strip()
        if text:
            return text[:_MAX_LETTERS]
    return None


def read_date(tags: Tags) -> str | None:
    """ISO 8601, with the offset the file gives.

    Apple's own tag carries the local time with its offset. ``creation_time`` is UTC in MP4 and
    MOV, and without an offset in AVI, where cameras write local time.
    """
    for name in ("com.apple.quicktime.creationdate", "creation_time", "date"):
        text = tags.get(name, "").strip()
        try:
            date = datetime.fromisoformat(text)
        except ValueError:
            continue
        is_unset = (date.year, date.month, date.day) == (_EPOCH_YEAR, 1, 1)
        if len(text) > len("2020-08-28") and date.year >= _FIRST_YEAR and not is_unset:
            return date.replace(microsecond=0).isoformat()
    return None


def read_place(tags: Tags) -> tuple[float, float] | tuple[None, None]:
    """Latitude and longitude in degrees, from a point as ISO 6709 writes it (Annex H).

    ``+32.0929+034.8620/`` in degrees, or with minutes and seconds as ``+3205.57+03451.72/``.
    Exactly 0, 0 is what phones write that do not know.
    """
    for name in ("com.apple.quicktime.location.ISO6709", "location", "location-eng"):
        found = _POINT.match(tags.get(name, ""))
        if found:
            latitude = _degrees(found[1], found[2], found[3] or "", whole=2)
            longitude = _degrees(found[4], found[5], found[6] or "", whole=3)
            if abs(latitude) <= 90 and abs(longitude) <= 180 and (latitude or longitude):
                return latitude, longitude
    return None, None


def _degrees(sign: str, digits: str, fraction: str, *, whole: int) -> float:
    """The first ``whole`` digits are degrees, then two of minutes, then two of seconds."""
    parts = [digits[:whole]] + [digits[at : at + 2] for at in range(whole, len(digits), 2)]
    parts[-1] += fraction
    value = sum(float(part) / float(60**power) for power, part in enumerate(parts))
    return -value if sign == "-" else value
