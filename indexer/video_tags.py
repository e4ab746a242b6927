"""What a video's metadata tags say: when, where and with what it was taken. Plain parsing."""

from __future__ import annotations

import re
from collections.abc import Mapping

from clipsearch.clocks import one_moment, stored_in_utc
from indexer.dates import parse_date

Tags = Mapping[str, str]

_MAX_LETTERS = 200
_FIRST_YEAR = "1905"  # an unset QuickTime clock says 1904 ...
_EPOCH_DAY = "1970-01-01"  # ... or, on the very first day, 1970
_POINT = re.compile(r"([+-])(\d{2,6})(\.\d+)?([+-])(\d{3,7})(\.\d+)?")


def first_tag(tags: Tags, *names: str) -> str | None:
    """The first of the tags that is there and says something, without control characters."""
    for name in names:
        text = "".join(letter for letter in tags.get(name, "") if letter.isprintable()).strip()
        if text:
            return text[:_MAX_LETTERS]
    return None


def read_date(tags: Tags) -> str | None:
    """ISO 8601 as ``clipsearch.clocks`` says, of the first tag that tells it.

    Apple's own tag carries the local time with its offset. ``creation_time`` is UTC in MP4 and
    MOV, and without an offset in AVI, where cameras write local time.
    """
    dates = []
    for name in ("com.apple.quicktime.creationdate", "creation_time", "date"):
        text = tags.get(name, "").strip()
        date = stored_in_utc(parse_date(text)) if len(text) > len("2020-08-28") else None
        is_unset = date is not None and (date < _FIRST_YEAR or date.startswith(_EPOCH_DAY))
        if date is not None and not is_unset:
            dates.append(date)
    told = [one_moment(dates[0], other) for other in dates[1:]]
    return next((date for date in told if date is not None), next(iter(dates), None))


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
            if latitude is None or longitude is None:
                continue
            if abs(latitude) <= 90 and abs(longitude) <= 180 and (latitude or longitude):
                return latitude, longitude
    return None, None


def _degrees(sign: str, digits: str, fraction: str, *, whole: int) -> float | None:
    """The first ``whole`` digits are degrees, then two of minutes, then two of seconds.

    None for 60 minutes or more, and for digits that are none of these.
    """
    parts = [digits[:whole]] + [digits[at : at + 2] for at in range(whole, len(digits), 2)]
    parts[-1] += fraction
    if len(parts) > len("DMS") or any(len(part.partition(".")[0]) < 2 for part in parts):
        return None
    if any(float(part) >= 60 for part in parts[1:]):
        return None
    value = sum(float(part) / float(60**power) for power, part in enumerate(parts))
    return -value if sign == "-" else value
