"""Which items a query gives: those that pass its filters, above the cut-off, in its order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clipsearch.index import VectorIndex, best_first, open_index
from clipsearch.library import Library, SpaceRecord
from clipsearch.library.facts import Facts, Mask
from clipsearch.library.filtering import in_span, passing
from clipsearch.query import Filter, Query, Span
from clipsearch.ranking import (
    GroupsOf,
    Places,
    Scores,
    first_of_groups,
    without_near_copies,
)
from clipsearch.vectors import Matrix, Vector

Pairs = list[tuple[int, float | None]]  # items and their scores


@dataclass(frozen=True)
class Selected:
    """The answers that are wanted, best first, and how many there are in all.

    Where near copies are shown once, ``total`` may count those of pictures that are not given.
    """

    pairs: Pairs
    total: int


@dataclass(frozen=True)
class Duplicates:
    """What ``duplicate:no`` takes for one picture: groups of items, or what a look at them says.

    ``are_one`` is asked of (n, 2) items that are near-copies by their vectors.
    """

    groups: GroupsOf | None
    are_one: Callable[[NDArray[np.int64]], NDArray[np.bool_]]


@dataclass(frozen=True)
class View:
    """A library at one moment: its vectors, its facts, and which belongs to which.

    ``row_of`` (n,) is the index row of each of ``facts.ids``, -1 where it has no vector.
    ``present_rows`` are the rows of what is there; None if that is all of them.
    """

    index: VectorIndex
    facts: Facts
    row_of: Places
    present_rows: Places | None

    @classmethod
    def of(cls, library: Library, space: SpaceRecord) -> View:
        index, facts = open_index(library, space), library.facts()
        ids = index.ids
        if len(ids) == len(facts.ids) and np.array_equal(ids, facts.ids):
            return cls(index, facts, np.arange(len(ids)), None)
        row_of = np.full(len(facts.ids), -1, dtype=np.int64)
        if len(ids):
            rows = np.minimum(np.searchsorted(ids, facts.ids), len(ids) - 1)
            row_of = np.where(ids[rows] == facts.ids, rows, -1)
        return cls(index, facts, row_of, row_of[row_of >= 0])

    def passing(self, filters: Sequence[Filter], similar: Callable[[Filter], Mask]) -> Mask:
        """True for each of ``facts.ids`` that passes all filters."""
        return passing(self.facts, filters, similar)

    def similar(self, vector: Vector, cosines: Span) -> Mask:
        """True for each of ``facts.ids`` whose cosine to a vector lies in a span."""
        products = np.full(len(self.index) + 1, np.nan)  # the last one is for what has no vector
        products[:-1] = self.index.rows @ vector
        return in_span(products[self.row_of], cosines)

    def vectors(self, places: Places) -> Matrix:
        """The vectors of some of ``facts.ids``, zeros where there is none."""
        rows = self.row_of[places]
        found = np.zeros((len(places), self.index.rows.shape[1]), dtype=np.float32)
        found[rows >= 0] = self.index.rows[rows[rows >= 0]]
        return found

    def shapes(self, places: Places) -> NDArray[np.float64]:
        """Width by height of some of ``facts.ids``; NaN where it is not known."""
        rows = self.facts.rows[places]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios: NDArray[np.float64] = (
                self.facts.numbers("width")[rows] / self.facts.numbers("height")[rows]
            )
        return ratios


def hits_of_question(
    view: View,
    passes: Mask,
    query: Query,
    limit: int,
    duplicates: Duplicates,
    scores: Scores,
    cutoff: float | Scores | None,
    left_out: Collection[int | None],
) -> Selected:
    """The best items with their scores, (n,) of all rows of the index.

    ``cutoff`` is the least score of a hit, one for all or (n,) of each row.
    Another order than by score is one of the hits above the cut-off; without a cut-off, of the
    ``limit`` best, because everything else would be a hit, too.
    """
    places = np.flatnonzero(passes & (view.row_of >= 0))
    of_places = scores[view.row_of[places]]
    if cutoff is not None:
        least = cutoff if isinstance(cutoff, float) else cutoff[view.row_of[places]]
        kept = of_places >= least
        places, of_places = places[kept], of_places[kept]
    unwanted = [item for item in left_out if item is not None]
    if unwanted:
        kept = ~np.isin(view.facts.ids[places], unwanted)
        places, of_places = places[kept], of_places[kept]
    total = len(places)
    is_ordered = query.order in ("", "score")
    needs_all = query.distinct or (cutoff is not None and not is_ordered)
    best = best_first(of_places, None if needs_all else limit)
    places, of_places = places[best], of_places[best]
    if not is_ordered and cutoff is not None:
        order = _ordered(view.facts, places, query.order)
        places, of_places = places[order], of_places[order]
    chosen = _distinct(view, places, limit, duplicates) if query.distinct else slice(limit)
    places, of_places = places[chosen], of_places[chosen]
    if not is_ordered and cutoff is None:
        order = _ordered(view.facts, places, query.order)
        places, of_places = places[order], of_places[order]
    pairs: Pairs = list(zip(view.facts.ids[places].tolist(), of_places.tolist(), strict=True))
    return Selected(pairs, total)


def hits_of_filters(
    view: View, passes: Mask, query: Query, limit: int, duplicates: Duplicates
) -> Selected:
    """What passes, the newest first if the query says nothing else; of a video its first moment."""
    places = np.flatnonzero(passes)
    places = places[first_of_groups(view.facts.rows[places], len(places))]
    order = query.order if query.order not in ("", "score") else "-date"
    places = places[_ordered(view.facts, places, order)]
    chosen = _distinct(view, places, limit, duplicates) if query.distinct else slice(limit)
    pairs: Pairs = [(item, None) for item in view.facts.ids[places[chosen]].tolist()]
    return Selected(pairs, len(places))


def _distinct(view: View, places: Places, limit: int, duplicates: Duplicates) -> Places:
    if duplicates.groups is not None:
        return first_of_groups(duplicates.groups(view.facts.ids[places]), limit)
    return without_near_copies(
        lambda some: view.vectors(places[some]),
        view.shapes(places),
        limit,
        lambda some: duplicates.are_one(view.facts.ids[places[some]]),
    )


def _ordered(facts: Facts, places: Places, order: str) -> Places:
    """The order of places by date or by name; equal ones stay, what has no date comes last."""
    rows = facts.rows[places]
    if order.endswith("name"):
        names = facts.file_names()
        by_name = sorted(
            range(len(rows)), key=lambda at: names[rows[at]], reverse=order.startswith("-")
        )
        return np.array(by_name, dtype=np.int64)
    taken = facts.taken()[rows]
    if order.startswith("-"):
        return np.argsort(-taken, kind="stable")
    return np.argsort(np.where(taken > 0, taken, np.iinfo(np.int64).max), kind="stable")
