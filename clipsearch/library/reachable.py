"""Of several paths of a picture the one that can be opened now, without waiting for dead drives."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from clipsearch.library.paths import from_column

_ROOT_S = 10.0  # for so long the answer for a root holds
_WAIT_S = 0.5  # for all answers together; a drive that takes longer counts as out of reach


class Place(NamedTuple):
    """One path of an item. ``has_failed``: it could not be read when that was last tried."""

    root: Path
    path: Path
    has_failed: bool = False


_roots: dict[Path, tuple[float, bool]] = {}  # when it was asked, and the answer


def reachable_first(found: Mapping[int, Sequence[Place]]) -> dict[int, list[Path]]:
    """The paths of each item: those that can be opened first, each kind in order.

    A disk is asked only about items with several paths, and first whether their roots are there;
    one that does not answer soon counts as out of reach. So this never takes long.
    """
    several = [place for places in found.values() if len(places) > 1 for place in places]
    good = openable(several)
    return {
        item: [
            place.path
            for place in sorted(
                places, key=lambda place: (place.path not in good and len(places) > 1, place.path)
            )
        ]
        for item, places in found.items()
    }


def places_of_items(rows: Iterable[Sequence[Any]]) -> dict[int, list[Path]]:
    """``reachable_first`` of (item, root, relative path, has failed) as the database has them."""
    found: dict[int, list[Place]] = defaultdict(list)
    for item, root, relpath, has_failed in rows:
        folder = Path(from_column(root))
        found[item].append(Place(folder, folder / from_column(relpath), bool(has_failed)))
    return reachable_first(found)


def openable_below(roots: Sequence[Path], paths: Iterable[Path]) -> set[Path]:
    """``openable`` of paths that lie below some of the roots."""
    return openable(
        Place(root, path)
        for path in paths
        if (root := next((one for one in roots if path.is_relative_to(one)), None)) is not None
    )


def openable(places: Iterable[Place]) -> set[Path]:
    """Those of some paths that can be opened now, as far as is known after a moment."""
    of_root: dict[Path, list[Path]] = defaultdict(list)
    for place in places:
        if not place.has_failed:
            of_root[place.root].append(place.path)
    deadline = time.monotonic() + _WAIT_S
    good: set[Path] = set()
    waiting = []
    for root, paths in of_root.items():
        asked_at, is_there = _roots.get(root, (-_ROOT_S, True))
        if not is_there and time.monotonic() - asked_at < _ROOT_S:
            continue
        # A system call to a dead network drive may never return: nobody waits for this thread.
        asking = threading.Thread(target=_ask, args=(root, paths, deadline, good), daemon=True)
        asking.start()
        waiting.append((root, asking))
    for root, asking in waiting:
        asking.join(max(0.0, deadline - time.monotonic()))
        if asking.is_alive():
            _roots[root] = time.monotonic(), False
    return set(good)


def _ask(root: Path, paths: list[Path], deadline: float, good: set[Path]) -> None:
    if not os.access(root, os.R_OK | os.X_OK):
        _roots[root] = time.monotonic(), False
        return
    _roots[root] = time.monotonic(), True
    for path in dict.fromkeys(paths):
        if time.monotonic() > deadline:
            return
        if os.access(path, os.R_OK):
            good.add(path)
