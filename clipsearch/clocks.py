"""Which of two dates is the camera's clock, and what it showed of a time in UTC.

A date is ISO 8601. It ends in "Z" where it was stored in UTC and what the camera's clock showed is
to be found out (``split`` makes that a flag); in an offset like "+00:00" where the clock is known
to have run at that; in neither where the clock is all that is known.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from clipsearch.name_dates import date_of_name

# Offsets from UTC that are or were in use, beside the whole hours from -12 to +14.
_ODD_OFFSETS_MINUTES = (-570, -210, 210, 270, 330, 345, 390, 525, 570, 630, 765)
_OFFSETS_MINUTES = (*range(-12 * 60, 14 * 60 + 1, 60), *_ODD_OFFSETS_MINUTES)
_MAX_CLOCK_DIFFERENCE_S = 120  # between a camera's clock and that of satellites or a network
_SAME_MOMENT_S = 2  # programs round fractions of a second


def at_offset(local: datetime, minutes: int) -> str:
    """ISO 8601 of a local time ``minutes`` east of UTC."""
    return local.replace(tzinfo=timezone(timedelta(minutes=minutes))).isoformat()


def stored_in_utc(date: str | None) -> str | None:
    """A date of a kind that is stored in UTC: its "+00:00" says nothing about a clock."""
    return None if date is None else re.sub(r"\+00:00\Z", "Z", date)


def split(date: str | None) -> tuple[str | None, bool]:
    """A date as ISO 8601 with an offset, and whether it was stored in UTC."""
    if date is None or not date.endswith("Z"):
        return date, False
    return date.removesuffix("Z") + "+00:00", True


def nearest_offset(local: datetime, utc: datetime) -> int | None:
    """Minutes east of UTC at which a clock ran, from what it showed at a moment; both naive.

    None unless that is an offset in use, to within two minutes.
    """
    difference_s = (local - utc).total_seconds()
    nearest = min(_OFFSETS_MINUTES, key=lambda minutes: abs(difference_s - 60 * minutes))
    return nearest if abs(difference_s - 60 * nearest) <= _MAX_CLOCK_DIFFERENCE_S else None


def one_moment(own: str, other: str) -> str | None:
    """The camera's clock, with its offset where that is known, if two dates name one moment.

    None if they do not. A date in UTC is that of a clock at any offset in use; dates with other
    offsets are what they say.
    """
    first, second = datetime.fromisoformat(own), datetime.fromisoformat(other)
    if first.replace(tzinfo=None) == second.replace(tzinfo=None):
        if own.endswith("Z") or other.endswith("Z"):  # some programs call every clock UTC
            return other if own.endswith("Z") else own
        if first.tzinfo is None or second.tzinfo is None:
            return own if first.tzinfo is not None else other
    if first.tzinfo is not None and second.tzinfo is not None:
        if abs((first - second).total_seconds()) > _SAME_MOMENT_S:
            return None
        return other if own.endswith("Z") else own
    for local, utc in ((own, other), (other, own)):
        if utc.endswith("Z"):
            minutes = nearest_offset(
                datetime.fromisoformat(local), datetime.fromisoformat(utc).replace(tzinfo=None)
            )
            return None if minutes is None else at_offset(datetime.fromisoformat(local), minutes)
    return None


def camera_clock(
    date: str | None, name: str, latitude: float | None, longitude: float | None
) -> str | None:
    """A date as the clock of the camera showed it, never ending in "Z".

    Of a time that was stored in UTC the place tells it, else a file name with the same time at
    another offset (VID_20191231_212000). A name with the very time that is said to be UTC, at a
    place where that is no local time, shows that it was the clock's. Where nothing tells, it stays
    UTC. Any other date is returned as it is.
    """
    if date is None or not date.endswith("Z"):
        return date
    from clipsearch.places import local_time  # which is not for processes that decode

    utc = datetime.fromisoformat(date)
    at_place = None
    if latitude is not None and longitude is not None:
        at_place = local_time(utc, latitude, longitude)
    named = date_of_name(name)
    minutes = None
    if named is not None and named.has_time and not named.is_utc:
        minutes = nearest_offset(named.clock, utc.replace(tzinfo=None))
    if minutes == 0 and (at_place is None or at_place.utcoffset()):
        return utc.replace(tzinfo=None).isoformat()
    if at_place is not None:
        return at_place.isoformat()
    if minutes is not None:
        return at_offset(utc.replace(tzinfo=None) + timedelta(minutes=minutes), minutes)
    return utc.isoformat()
