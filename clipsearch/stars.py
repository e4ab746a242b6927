"""Groups from pairs without chains: everything in a group is paired with its best one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Quality = Callable[[int], tuple[float, ...]]


def stars(
    pairs: NDArray[np.int64], quality: Quality, apart: set[tuple[int, int]]
) -> list[list[int]]:
    """Groups of two and more, each with its best first, then in order of quality.

    The best that is in no group yet takes all that are paired with it and in no group. A chain
    (A like B, B like C) is no reason to put A beside C, and whoever keeps only the best keeps one
    that is like every other. Two that are ``apart``, the smaller first, are never in one group.
    """
    partners: dict[int, list[int]] = {}
    for one, other in pairs.tolist():
        if (min(one, other), max(one, other)) not in apart:
            partners.setdefault(one, []).append(other)
            partners.setdefault(other, []).append(one)
    order = sorted(partners, key=quality, reverse=True)
    place = {item: number for number, item in enumerate(order)}
    strangers: dict[int, set[int]] = {}
    for one, other in apart:
        strangers.setdefault(one, set()).add(other)
        strangers.setdefault(other, set()).add(one)
    taken: set[int] = set()
    groups = []
    for best in order:
        if best in taken:
            continue
        group = [best]
        for item in sorted(set(partners[best]) - taken, key=place.__getitem__):
            if strangers.get(item, set()).isdisjoint(group):
                group.append(item)
        if len(group) > 1:
            taken.update(group)
            groups.append(group)
    return groups
