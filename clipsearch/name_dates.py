"""The day that only a file's name tells: of phones, screenshots and messengers. Names alone.

A number is a date only where it stands by itself and its time, if it has one, beside it; a name
that could mean two days tells none. Folders are not asked: theirs is often the day of an import.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

_FIRST_YEAR = 1900
_AHEAD = timedelta(days=1)  # the name's clock may be in a later time zone than ours
_DAY = r"(?P<year>(?:19|20)\d\d)(?P<mark>[-_.]?)(?P<month>\d\d)(?P=mark)(?P<day>\d\d)"
# A time beside it: 123456, 12-34-56; or 12.34.56 after words of any language: "at 3.04.05 PM".
_TIME = (
    r"(?:[-_. T](?P<hour>\d\d?)(?P<sign>[-_.:\u2236h])(?P<minute>\d\d)(?P=sign)(?P<second>\d\d)"
    r"|[-_. T](?P<hour6>\d\d)(?P<minute6>\d\d)(?P<second6>\d\d)"
    r"|[ ,]\D{1,12}(?P<hour_at>\d\d?)(?P<dot>[.:\u2236])(?P<minute_at>\d\d)(?P=dot)"
    r"(?P<second_at>\d\d))"
    r"(?:\d{3})?(?!\d)(?:\s?(?P<half>[ap])\.?\s?m\b)?(?P<zulu>Z(?![^\W_]))?"
)
_DATED = re.compile(rf"(?<!\d){_DAY}(?:{_TIME}|(?!\d))", re.IGNORECASE)
# IMG20190105123456 and DJI_20190105123456: date and time as one number.
_JOINED = re.compile(
    r"(?<!\d)(?P<year>(?:19|20)\d\d)(?P<month>\d\d)(?P<day>\d\d)"
    r"(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)(?:\d{3})?(?!\d)"
)
# Telegram's export: photo_5@05-01-2019_12-34-56.
_EXPORTED = re.compile(
    r"@(?P<day>\d\d)-(?P<month>\d\d)-(?P<year>\d{4})_(?P<hour>\d\d)-(?P<minute>\d\d)-(?P<second>\d\d)(?!\d)"
)
# Milliseconds since 1970, of Facebook and WeChat.
_MILLISECONDS = re.compile(r"(?:FB_(?:IMG|VID)_|mmexport|wx_camera_)(\d{13})(?!\d)", re.IGNORECASE)
_IN_UTC = re.compile(r"PXL_", re.IGNORECASE)  # Google's camera names its files in UTC
_HASH = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|(?<![^\W_])(?=\w*[a-f])[0-9a-f]{20,}",
    re.IGNORECASE,
)


class NameDate(NamedTuple):
    """What a name tells: the clock, whether the time of day is known, and whether it is in UTC."""

    clock: datetime  # without a zone; midnight if only the day is known
    has_time: bool
    is_utc: bool = False


def date_of_name(name: str) -> NameDate | None:
    """The date in the name of a file, with or without its extension; None where it tells none."""
    stem = _HASH.sub("#", name.replace("\u202f", " ").replace("\u00a0", " "))
    if matched := _MILLISECONDS.search(stem):
        moment = datetime(1970, 1, 1) + timedelta(milliseconds=int(matched[1]))
        return _plausible(NameDate(moment.replace(microsecond=0), has_time=True, is_utc=True))
    is_utc = _IN_UTC.match(stem) is not None
    found = []
    for pattern in (_DATED, _JOINED, _EXPORTED):
        for matched in pattern.finditer(stem):
            date = _date(matched, is_utc=is_utc)
            if date is not None:
                found.append(date)
    timed = [date for date in found if date.has_time]
    days = {date.clock.date() for date in timed or found}
    return (timed or found)[0] if len(days) == 1 else None


def best_date(names: Iterable[str]) -> NameDate | None:
    """Of several names of one picture: a date with a time before one without, then the earliest."""
    dates = [date for date in map(date_of_name, names) if date is not None]
    return min(dates, key=lambda date: (not date.has_time, date.clock), default=None)


def _date(matched: re.Match[str], *, is_utc: bool) -> NameDate | None:
    said = matched.groupdict()
    try:
        day = datetime(int(said["year"]), int(said["month"]), int(said["day"]))
    except ValueError:
        return None
    clock = _time(day, said)
    if clock is not None:
        is_utc = is_utc or said.get("zulu") is not None
        return _plausible(NameDate(clock, has_time=True, is_utc=is_utc))
    beside = (
        matched.string[matched.start() - 1 : matched.start()] + matched.string[matched.end() :][:1]
    )
    if matched.re is not _DATED or any(letter.isalnum() for letter in beside):
        return None  # part of something else
    return _plausible(NameDate(day, has_time=False))


def _time(day: datetime, said: dict[str, str | None]) -> datetime | None:
    hour, minute, second = (
        next((said[name + form] for form in ("", "6", "_at") if said.get(name + form)), None)
        for name in ("hour", "minute", "second")
    )
    if hour is None or minute is None or second is None:
        return None
    hours = int(hour)
    if (half := said.get("half")) and 1 <= hours <= 12:
        hours = hours % 12 + (12 if half in "pP" else 0)
    try:
        return day.replace(hour=hours, minute=int(minute), second=int(second))
    except ValueError:
        return None


def _plausible(date: NameDate) -> NameDate | None:
    latest = datetime.now(UTC).replace(tzinfo=None) + _AHEAD
    return date if date.clock.year >= _FIRST_YEAR and date.clock <= latest else None
