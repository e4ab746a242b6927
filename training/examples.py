"""Held-out captions as queries, and what the old and the new weights find for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clipsearch.vectors import Matrix
from training.evaluation import rank_own

_TOP = 5
_BETTER, _WORSE, _SAME = 5, 2, 2  # examples of each


@dataclass(frozen=True)
class Answers:
    """What a state of the model makes of the held-out pictures (n, dim) and captions (m, dim)."""

    images: Matrix
    texts: Matrix


@dataclass(frozen=True)
class Example:
    """A query, its pictures, and the places of the first pictures found before and after."""

    query: str
    right: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    rank_before: int
    rank_after: int


def find_examples(
    texts: Sequence[str], owner: Sequence[int], before: Answers, after: Answers
) -> list[Example]:
    """Captions that find their pictures better than before, worse, and as well; one a picture.

    Better and worse are by 1 / rank, and both are shown: a report of gains alone would mislead.
    """
    old = rank_own(before.images, before.texts, owner, texts)
    new = rank_own(after.images, after.texts, owner, texts)
    gain = 1 / new - 1 / old
    right: dict[str, set[int]] = {}
    for text, place in zip(texts, owner, strict=True):
        right.setdefault(text, set()).add(place)
    used: set[int] = set()

    def pick(places: Sequence[int], count: int) -> list[Example]:
        found: list[Example] = []
        for place in places:
            if len(found) == count:
                break
            if not right[texts[place]] & used:
                used.update(right[texts[place]])
                found.append(
                    Example(
                        query=texts[place],
                        right=tuple(sorted(right[texts[place]])),
                        before=_first(before, place),
                        after=_first(after, place),
                        rank_before=int(old[place]),
                        rank_after=int(new[place]),
                    )
                )
        return found

    order = np.argsort(-gain, kind="stable")
    better = pick([int(p) for p in order if gain[p] > 0], _BETTER)
    worse = pick([int(p) for p in order[::-1] if gain[p] < 0], _WORSE)
    return [*better, *worse, *pick([int(p) for p in order if gain[p] == 0], _SAME)]


def _first(answers: Answers, place: int) -> tuple[int, ...]:
    scores = answers.images @ answers.texts[place]
    return tuple(int(n) for n in np.argsort(-scores, kind="stable")[:_TOP])
