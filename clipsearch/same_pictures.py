"""Which near-copies among answers are one picture: the judgement of duplicates, for a few pairs."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from clipsearch.copies import Pairs, Shown, are_two_shots
from clipsearch.library import PICTURE, Library

_MOST_KNOWN = 100_000  # pairs


class SamePictures:
    """Looks at pairs of items, and remembers what it saw. Thread-safe."""

    def __init__(self, library: Library, max_pixels: int) -> None:
        self._library = library
        self._max_pixels = max_pixels
        self._known: dict[tuple[int, int], bool] = {}
        self._looking = threading.Lock()

    def are_one(self, pairs: Pairs) -> NDArray[np.bool_]:
        """For each of (n, 2) items with nearly the same vector, whether they are one picture.

        What cannot be looked at closely now is two pictures: nothing is hidden on suspicion. The
        vectors are believed of what has not even a thumbnail, and of the moments of videos.
        """
        asked = [(min(pair), max(pair)) for pair in pairs.tolist()]
        with self._looking:
            if len(self._known) > _MOST_KNOWN:
                self._known.clear()
            new = [pair for pair in dict.fromkeys(asked) if pair not in self._known]
            seen = self._seen(np.array(new, dtype=np.int64)) if new else {}
            self._known |= {pair: one for pair, (one, is_final) in seen.items() if is_final}
            return np.array(
                [self._known[pair] if pair in self._known else seen[pair][0] for pair in asked],
                dtype=bool,
            )

    def _seen(self, pairs: Pairs) -> dict[tuple[int, int], tuple[bool, bool]]:
        """By pair, whether it is one picture, and whether that will be so the next time."""
        records = self._library.items(np.unique(pairs).tolist())
        shown = Shown(self._library, records)
        closeups = shown.closeups(records)
        found: dict[tuple[int, int], tuple[bool, bool]] = {}
        looked: list[tuple[int, int]] = []
        for one, other in pairs.tolist():
            kinds = {records[one].kind, records[other].kind}
            if kinds != {PICTURE} or (one not in closeups and other not in closeups):
                found[one, other] = (True, False)
            elif are_two_shots(records[one], records[other]):
                found[one, other] = (False, True)
            else:
                looked.append((one, other))
        alike = shown.alike(np.array(looked, dtype=np.int64).reshape(-1, 2))
        looks = shown.look_closely(alike, self._max_pixels, lambda _: None)
        for pair in looked:
            found[pair] = (False, pair[0] in closeups and pair[1] in closeups)
        for (one, other), look in zip(alike.tolist(), looks, strict=True):
            found[one, other] = (look.verdict == "same", look.verdict != "unseen")
        return found
