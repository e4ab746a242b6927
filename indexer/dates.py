"""Dates as programs write them, as ISO 8601; ``clipsearch.clocks`` says how they end."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from clipsearch.clocks import at_offset, stored_in_utc

_FIRST_YEAR, _LAST_YEAR = 1826, 2100  # the first photograph; a clock that was never set
_UNSET_CLOCKS = frozenset(("1904-01-01T00:00:00", "1970-01-01T00:00:00"))
_DATE = re.compile(
    r"""(?xi)
    (?P<year>\d{4})
    (?: (?P<mark>[:/.\-]) (?P<month>\d{1,2}) (?: (?:(?P=mark)|[:/.\-]) (?P<day>\d{1,2}) )?
      | (?P<month8>\d\d) (?P<day8>\d\d) )?
    (?!\d)
    (?: (?:\s*T\s*|\s+)
        (?: (?P<hour>\d{1,2}) [:.] (?P<minute>\d{1,2}) (?: [:.] (?P<second>\d{1,2}) )?
          | (?P<hour6>\d\d) (?P<minute6>\d\d) (?P<second6>\d\d) )
        (?!\d) (?:[.,]\d*)? )?
    \s* (?P<half>[ap]\.?\s?m\.?(?![a-z]))?
    \s* (?P<offset>Z(?![a-z]) | (?:UTC|GMT)?\s*[+\-\u2212]\d{1,2}:?\d{0,2}(?!\d) | UTC | GMT)?
    """
)
_OFFSET = re.compile(r"\s*(?:UTC|GMT)?\s*([+\-\u2212])(\d{1,2}):?(\d{2})?\s*\Z", re.IGNORECASE)
_ZERO_OFFSETS = ("z", "utc", "gmt")
_MAX_OFFSET_MINUTES = 14 * 60


def parse_date(value: object, offset: object = None, *, partial: bool = False) -> str | None:
    """A date as ISO 8601 to the second, with ``offset`` ("+01:00", "+0100", "Z") where it has none.

    Separators may be ":", "-", "/" or "."; the hour 24 is the hour after midnight of that same
    day, as phones write it; a day without time begins at midnight. With ``partial`` a year or a
    month alone, or zeros for what is not known, stand for the first day. None for what is no date
    between 1826 and 2100, or the start of an unset clock.
    """
    text = _plain(value)
    matched = _DATE.match(text)
    if matched is None:
        return None
    rest = text[matched.end() :]
    if any(character.isdigit() for character in rest):
        return None  # whatever it is, it is not the date that its beginning looks like
    year = int(matched["year"])
    month, day = _number(matched, "month"), _number(matched, "day")
    hour, minute, second = (_number(matched, name) for name in ("hour", "minute", "second"))
    if partial:
        day = day or (None if hour else 1)
        month = month or (1 if day == 1 else None)
    if month is None or day is None:
        return None
    try:
        moment = datetime(
            year, month, day, *_clock(hour or 0, minute or 0, second or 0, matched["half"])
        )
    except ValueError:
        return None
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR or moment.isoformat() in _UNSET_CLOCKS:
        return None
    minutes = None
    if hour is not None:
        minutes = parse_offset(matched["offset"])
        minutes = parse_offset(offset) if minutes is None else minutes
    return moment.isoformat() if minutes is None else at_offset(moment, minutes)


def parse_offset(value: object) -> int | None:
    """Minutes east of UTC, or None."""
    text = _plain(value)
    if text.casefold() in _ZERO_OFFSETS:
        return 0
    matched = _OFFSET.match(text)
    if matched is None:
        return None
    minutes = 60 * int(matched[2]) + int(matched[3] or 0)
    if minutes > _MAX_OFFSET_MINUTES or int(matched[3] or 0) > 59:
        return None
    return minutes if matched[1] == "+" else -minutes


def of_utc_seconds(seconds: object) -> str | None:
    """Seconds since 1970 as a date in UTC."""
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=int(seconds))  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return None
    return stored_in_utc(parse_date(moment.isoformat()))


def _plain(value: object) -> str:
    """Text up to a NUL, without control characters; "" for what is no text."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        return ""
    text = " ".join(value[:64].partition("\0")[0].split())
    return "".join(letter for letter in text if letter.isprintable())


def _number(matched: re.Match[str], name: str) -> int | None:
    """A part of a date, which stands in either of two groups."""
    compact = {"month": "8", "day": "8", "hour": "6", "minute": "6", "second": "6"}[name]
    text = matched[name] or matched[name + compact]
    return int(text) if text else None


def _clock(hour: int, minute: int, second: int, half: str | None) -> tuple[int, int, int]:
    """Hour, minute and second as a clock of 24 hours shows them. ValueError for the hour 25."""
    if half and 1 <= hour <= 12:
        hour = hour % 12 + (12 if half[0] in "pP" else 0)
    if hour > 24 or second > 60:
        raise ValueError("no time of a day")
    return hour % 24, minute, min(second, 59)
