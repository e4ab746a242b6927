"""Clocks and UTC: offsets in use, and what the camera's clock showed where a time is in UTC."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

from clipsearch.name_dates import date_of_name

# Offsets from UTC that are or were in use, beside the whole hours from -12 to +14.
_ODD_OFFSETS_MINUTES = (-570, -210, 210, 270, 330, 345, 390, 525, 570, 630, 765)
_OFFSETS_MINUTES = (*range(-12 * 60, 14 * 60 + 1, 60), *_ODD_OFFSETS_MINUTES)
_MAX_CLOCK_DIFFERENCE_S = 120  # between a camera's clock and that of satellites or a network


def at_offset(local: datetime, minutes: int) -> str:
    """ISO 8601 of a local time ``minutes`` east of UTC."""
    return local.replace(tzinfo=timezone(timedelta(minutes=minutes))).isoformat()


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


def camera_clock(
    taken_at: str, names: Sequence[str], latitude: float | None, longitude: float | None
) -> str:
    """A time that was stored in UTC, ISO 8601, as the clock of the camera showed it.

    The place tells it, else a file name with the same time at another offset
    (VID_20191231_212000). A name with the very time that is said to be UTC, at a place where that
    is no local time, shows that it was the clock's. Where nothing tells, it stays UTC. Of several
    names the first that tells a time counts.
    """
    from clipsearch.places import local_time

    utc = datetime.fromisoformat(taken_at)
    at_place = None
    if latitude is not None and longitude is not None:
        at_place = local_time(utc, latitude, longitude)
    told = (date for name in names if (date := date_of_name(name)) is not None)
    named = next((date for date in told if date.has_time and not date.is_utc), None)
    minutes = None
    if named is not None:
        minutes = nearest_offset(named.clock, utc.replace(tzinfo=None))
    if minutes == 0 and (at_place is None or at_place.utcoffset()):
        return utc.replace(tzinfo=None).isoformat()
    if at_place is not None:
        return at_place.isoformat()
    if minutes is not None:
        return at_offset(utc.replace(tzinfo=None) + timedelta(minutes=minutes), minutes)
    return utc.isoformat()
