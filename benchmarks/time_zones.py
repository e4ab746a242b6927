"""How often the nearest city has another time than the zones' real borders say.

    pip install tzfpy && python benchmarks/time_zones.py

Positions are scattered around random cities of the table, normally distributed with each of the
given distances, in January and July; tzfpy knows the borders. Positions at sea are left out.
"""

from __future__ import annotations

import argparse
import math
import random
from datetime import datetime
from zoneinfo import ZoneInfo

from clipsearch.places import _cities_by_degree, time_zone

_KM_PER_DEGREE = 111.2
_MOMENTS = (datetime(2019, 1, 5, 12), datetime(2019, 7, 5, 12))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cities", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--km", type=float, nargs="+", default=[0, 10, 40])
    given = parser.parse_args()
    import tzfpy

    cities = [city for some in _cities_by_degree().values() for city in some]
    for km in given.km:
        chance = random.Random(given.seed)
        compared = wrong = 0
        for city in chance.sample(cities, given.cities):
            spread = km / _KM_PER_DEGREE
            north = max(-90.0, min(90.0, city.latitude + chance.gauss(0, spread)))
            east = city.longitude + chance.gauss(0, spread) / math.cos(math.radians(north))
            east = (east + 180) % 360 - 180
            truth = tzfpy.get_tz(east, north)
            found = time_zone(north, east)
            if truth.startswith("Etc/") or found is None:
                continue
            compared += 1
            wrong += any(
                found.utcoffset(moment) != ZoneInfo(truth).utcoffset(moment) for moment in _MOMENTS
            )
        print(f"{km:g} km: {wrong} of {compared:,} ({100 * wrong / compared:.2f} %)")


if __name__ == "__main__":
    main()
