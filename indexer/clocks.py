"""What the camera's clock showed, where its file has the time in UTC."""

from __future__ import annotations

from datetime import datetime, timedelta

from clipsearch.name_dates import date_of_name
from clipsearch.places import local_time
from indexer.dates import at_offset, nearest_offset


def camera_clock(taken_at: str, name: str, latitude: float | None, longitude: float | None) -> str:
    """A time that was stored in UTC, ISO 8601, as the clock of the camera showed it.

    The place tells it, else a file name with the same time at another offset
    (VID_20191231_212000). A name with the very time that is said to be UTC, at a place where that
    is no local time, shows that it was the clock's. Where nothing tells, it stays UTC.
    """
    utc = datetime.fromisoformat(taken_at)
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
