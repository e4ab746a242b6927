"""What a search gives: found pictures with their files, and the space that found them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipsearch.library import Library, SpaceRecord


@dataclass(frozen=True)
class SearchHit:
    """One found picture or moment.

    ``score`` is the cosine to the question, in [-1, 1]; None where the question was of filters
    alone, which all hits pass alike.
    """

    rank: int  # 1 is the best
    score: float | None
    item: int
    path: Path
    paths: tuple[Path, ...]  # every copy, ``path`` first
    time_s: float | None = None  # of a moment of a video: where in it
    probability: float | None = None  # of being what was asked for (docs/relevance.md)


@dataclass(frozen=True)
class Answered:
    """Hits, best first, and the space whose vectors gave them all.

    A change of models may have made another space the active one since. ``space`` is None where
    the library has none yet. ``total`` is how many answers there are, of which ``hits`` are the
    first: all that is relevant, or all that passes. ``notes`` are sentences on how the question
    was read, where it could have been read otherwise or was not read whole.
    """

    hits: list[SearchHit]
    space: SpaceRecord | None
    total: int = 0
    notes: tuple[str, ...] = ()


def with_files(
    library: Library, pairs: Sequence[tuple[int, float | None]], likely: Mapping[int, float]
) -> list[SearchHit]:
    """Hits of items and their scores, best first; ``likely`` are probabilities by item."""
    identities = [identity for identity, _ in pairs]
    paths, times = library.paths(identities), library.times(identities)
    hits: list[SearchHit] = []
    for item, score in pairs:
        copies = tuple(paths.get(item, ()))
        if copies:  # the last copy may have been forgotten since the index was read
            hits.append(
                SearchHit(
                    rank=len(hits) + 1,
                    score=score,
                    item=item,
                    path=copies[0],
                    paths=copies,
                    time_s=times.get(item),
                    probability=likely.get(item),
                )
            )
    return hits
