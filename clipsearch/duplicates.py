"""Duplicates in tiers: identical files, versions of a picture, bursts, look-alikes.

Each tier is looked for among what the tiers before it left: of a set of versions only the best can
be part of a burst. Nothing is ever deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipsearch.config import DEFAULT_MAX_PIXELS
from clipsearch.copies import (
    Copies,
    Pairs,
    Pictures,
    copies,
    copy_groups,
    nearness,
    versions,
)
from clipsearch.counting import counted
from clipsearch.errors import NotInLibraryError, UsageError
from clipsearch.keeping import Versions, rating_of
from clipsearch.library import ItemRecord, Library
from clipsearch.library.reachable import openable_below
from clipsearch.near_pairs import NearPairs, near_pairs
from clipsearch.stars import stars

IDENTICAL, SAME, BURST, ALIKE = "identical", "same", "burst", "alike"
TIERS = (IDENTICAL, SAME, BURST, ALIKE)
DEFAULT_BURST_S = 10.0

__all__ = ["TIERS", "DuplicateGroup", "Shot", "copy_groups", "find_duplicates", "tell_apart"]


@dataclass(frozen=True)
class Shot:
    """A picture in a group. ``cosine`` is that to the group's best, 1 for the best itself.

    ``only_here``: what it has and the best has not, in words; what has something is no copy that a
    script may delete.
    """

    item: int
    paths: tuple[Path, ...]
    cosine: float
    width: int
    height: int
    bytes: int
    rating: int | None
    taken_at: str | None
    sharpness: float | None  # in bursts and look-alikes: compares shots of one scene
    only_here: tuple[str, ...] = ()


@dataclass(frozen=True)
class DuplicateGroup:
    """The shot that is proposed to be kept, and the others.

    In the tier of identical files the best is a file, and the one other shot holds its copies; a
    second one those with sidecars of their own.
    """

    tier: str
    best: Shot
    others: tuple[Shot, ...]
    why: str = ""  # the best is the best, in words


def find_duplicates(
    library: Library,
    *,
    tiers: Sequence[str] = TIERS,
    burst_s: float = DEFAULT_BURST_S,
    alike: float | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    notify: Callable[[str], None] = lambda _: None,
) -> list[DuplicateGroup]:
    """Groups of the given tiers, in the order of ``TIERS``, the largest groups first.

    A burst is near pictures that were taken at most ``burst_s`` seconds from the best of them.
    ``alike`` is the least cosine of look-alikes; by default it follows from the library's own
    vectors. UsageError for values that cannot be used.
    """
    if unknown := set(tiers) - set(TIERS):
        raise UsageError(reason=f"No tier is called {unknown.pop()}; there are {', '.join(TIERS)}")
    if burst_s < 0 or not np.isfinite(burst_s):
        raise UsageError(reason=f"The seconds of a burst must not be negative, got {burst_s}")
    if alike is not None and not 0 < alike <= 1:
        raise UsageError(reason=f"The cosine of look-alikes must be above 0, at most 1: {alike}")
    groups: list[DuplicateGroup] = []
    if IDENTICAL in tiers:
        groups += _identical(library)
    space = library.active_space()
    if space is not None and set(tiers) - {IDENTICAL}:
        search = _Tiers(library, space.id, burst_s, alike, max_pixels, notify)
        groups += [group for group in search.groups() if group.tier in tiers]
    return groups


def tell_apart(library: Library, one: int, other: int) -> None:
    """Remembers that two items are not duplicates; UsageError if they are the same item.

    NotInLibraryError if one is unknown.
    """
    known = library.items([one, other])
    for item in (one, other):
        if item not in known:
            raise NotInLibraryError(
                what=f"Item {item}", path=library.path, advice="List them: clipsearch dupes"
            )
    if one == other:
        raise UsageError(reason="These are identical files: the very same bytes are one item")
    library.opinions.tell_apart(one, other)


def _identical(library: Library) -> list[DuplicateGroup]:
    paths = library.paths(library.present_items().tolist())
    copied = {item: found for item, found in paths.items() if len(found) > 1}
    good = _openable(library, copied)
    records = library.items(list(copied))
    with_sidecars = _with_sidecars(library) if copied else frozenset()
    groups: dict[int, DuplicateGroup] = {}
    for item, found in copied.items():
        record = records[item]
        content = record.parent_id or item  # the moments of a video have its files

        def order(path: Path) -> tuple[bool, bool, int, int, str]:
            # What cannot be opened now is nothing to keep.
            return (path not in good, path not in with_sidecars, *_original_first(path))

        best, *others = _different(sorted(found, key=order))
        if content in groups or not others:
            continue
        of_video = library.items([content])[content] if record.parent_id else record
        plain = [path for path in others if path not in with_sidecars]
        beside = [path for path in others if path in with_sidecars]
        shots = [
            Shot(
                item=item,
                paths=tuple(some),
                cosine=1.0,
                width=of_video.width,
                height=of_video.height,
                bytes=of_video.bytes,
                rating=rating_of(of_video),
                taken_at=of_video.taken_at,
                sharpness=None,
                only_here=only_here,
            )
            for some, only_here in (([best], ()), (plain, ()), (beside, ("a sidecar of its own",)))
            if some
        ]
        why = "it has a sidecar" if best in with_sidecars else "it has the shortest path"
        groups[content] = DuplicateGroup(IDENTICAL, shots[0], tuple(shots[1:]), why)

    def size(group: DuplicateGroup) -> tuple[int, int]:
        return -sum(len(shot.paths) for shot in group.others), group.best.item

    return sorted(groups.values(), key=size)


def _with_sidecars(library: Library) -> frozenset[Path]:
    return frozenset(
        root.path / file.relpath
        for root in library.roots()
        for file in library.files(root.id)
        if file.sidecars
    )


def _different(paths: list[Path]) -> list[Path]:
    """Without what is another one by a link: whoever deletes a copy must not lose the original.

    Also a folder that was indexed by two ways, such as a second mount, has every file only once.
    """
    different: dict[object, Path] = {}
    for path in paths:
        try:
            status = path.stat()
            key: object = (status.st_dev, status.st_ino) if status.st_ino else path.resolve()
        except OSError:
            key = path.resolve()
        different.setdefault(key, path)
    return list(different.values())


def _openable(library: Library, paths: dict[int, list[Path]]) -> set[Path]:
    several = [path for found in paths.values() if len(found) > 1 for path in found]
    return openable_below([root.path for root in library.roots()], several)


def _ordered(paths: Sequence[Path], good: Collection[Path]) -> list[Path]:
    """By ``_original_first``, but what cannot be opened now is nothing to keep and comes last."""
    return sorted(paths, key=lambda path: (path not in good, _original_first(path)))


def _original_first(path: Path) -> tuple[int, int, str]:
    """The shortest path: programs name copies by adding to a name, people by adding folders."""
    return len(path.parts), len(path.name), str(path)


class _Tiers:
    """The tiers that are found by vectors, all from one pass over the near pairs."""

    def __init__(
        self,
        library: Library,
        space_id: str,
        burst_s: float,
        alike: float | None,
        max_pixels: int,
        notify: Callable[[str], None],
    ) -> None:
        self._library = library
        self._space_id = space_id
        self._burst_s = burst_s
        self._max_pixels = max_pixels
        self._notify = notify
        self._versions = Versions({}, {})
        self._pictures = Pictures.of(library, space_id)
        bounds = nearness(self._pictures.rows)
        self._near = bounds.near
        self._alike = bounds.alike if alike is None else alike
        self._apart = library.opinions.told_apart()
        self._paths = library.paths(self._pictures.ids.tolist())
        self._good = _openable(library, self._paths)

    def groups(self) -> list[DuplicateGroup]:
        pictures = self._pictures
        near = near_pairs(pictures.rows, min(self._near, self._alike))
        if near.threshold > min(self._near, self._alike):
            self._notify(
                f"More pairs are near each other than can be kept: only those with a cosine of "
                f"{near.threshold:.3f} and more were looked at"
            )
        near_ones = counted(len(near.first), "pair is near", "pairs are near")
        self._notify(f"{near_ones}, of {counted(len(pictures.ids), 'picture')}")
        found_copies = copies(
            pictures,
            self._library,
            self._space_id,
            near,
            max_pixels=self._max_pixels,
            notify=self._notify,
        )
        self._say_what_is_uncertain(found_copies)
        self._versions = versions(self._library, pictures, found_copies)
        looks_alike = self._ids(near, near.cosines >= self._alike)
        uncertain = np.concatenate([found_copies.unresolved, found_copies.unseen])
        gone: set[int] = set()
        found: list[DuplicateGroup] = []
        for tier, pairs in (
            (SAME, found_copies.same),
            (BURST, self._close_in_time(near)),
            (ALIKE, np.concatenate([looks_alike, uncertain])),
        ):
            left = pairs[~np.isin(pairs, np.array(sorted(gone), dtype=np.int64)).any(axis=1)]
            if tier != SAME:
                pictures.closeups(np.unique(left).tolist())
            quality = self._versions.quality if tier == SAME else self._shot_quality
            grouped = [self._group(tier, star) for star in stars(left, quality, self._apart)]
            found += sorted(grouped, key=lambda group: (-len(group.others), group.best.item))
            gone |= {shot.item for group in grouped for shot in group.others}
        return found

    def _say_what_is_uncertain(self, found: Copies) -> None:
        if len(found.unseen):
            self._notify(
                f"{counted(len(found.unseen), 'pair')} could not be looked at closely, so "
                "listed as "
                f"look-alikes, not as the same: {found.why_unseen}. Run dupes again when it can be "
                "read"
            )
        if len(found.unresolved):
            self._notify(
                f"{counted(len(found.unresolved), 'pair is', 'pairs are')} listed as "
                "look-alikes, not as "
                "the same: in one of the two the text of the other cannot be read"
            )

    def _ids(self, near: NearPairs, chosen: NDArray[np.bool_]) -> Pairs:
        ids = self._pictures.ids
        return np.column_stack([ids[near.first[chosen]], ids[near.second[chosen]]])

    def _close_in_time(self, near: NearPairs) -> Pairs:
        records = self._pictures.records
        taken = np.array([_seconds(records[i]) for i in self._pictures.ids.tolist()])
        with np.errstate(invalid="ignore"):
            apart_s = np.abs(taken[near.first] - taken[near.second])
            return self._ids(near, (apart_s <= self._burst_s) & (near.cosines >= self._near))

    def _shot_quality(self, item: int) -> tuple[float, ...]:
        """Of shots of one scene the best: rating, then sharpness, then pixels, bytes and age."""
        record = self._pictures.records[item]
        sharpness = self._sharpness(item) or 0.0
        pixels = record.width * record.height
        return (rating_of(record) or 0, sharpness, pixels, record.bytes, -item)

    def _sharpness(self, item: int) -> float | None:
        look = self._pictures.closeups([item]).get(item)
        return None if look is None else round(look.sharpness, 1)

    def _group(self, tier: str, star: list[int]) -> DuplicateGroup:
        rows, ids = self._pictures.rows, self._pictures.ids
        places = np.searchsorted(ids, np.array(star, dtype=np.int64))
        cosines = rows[places] @ rows[places[0]]
        shots = [
            self._shot(
                item,
                float(cosine),
                with_sharpness=tier != SAME,
                only_here=self._versions.only_of(item, star[0]) if tier == SAME else (),
            )
            for item, cosine in zip(star, cosines, strict=True)
        ]
        why = self._versions.why(star[0], star[1:]) if tier == SAME else _why_shot(shots)
        return DuplicateGroup(tier, shots[0], tuple(shots[1:]), why)

    def _shot(
        self, item: int, cosine: float, *, with_sharpness: bool, only_here: tuple[str, ...]
    ) -> Shot:
        record = self._pictures.records[item]
        return Shot(
            item=item,
            paths=tuple(_ordered(self._paths.get(item, []), self._good)),
            cosine=min(1.0, cosine),
            width=record.width,
            height=record.height,
            bytes=record.bytes,
            rating=rating_of(record),
            taken_at=record.taken_at,
            sharpness=self._sharpness(item) if with_sharpness else None,
            only_here=only_here,
        )


def _why_shot(shots: Sequence[Shot]) -> str:
    best, *others = shots
    if any((best.rating or 0) > (shot.rating or 0) for shot in others):
        return "it is rated higher"
    if any((best.sharpness or 0) > (shot.sharpness or 0) for shot in others):
        return "it is the sharpest"
    return "it has the most pixels, or the most bytes"


def _seconds(record: ItemRecord) -> float:
    """Since 1970; a time without an offset counts as UTC, so that those of one camera compare.

    NaN where no time is known, nor more than the day that a name told.
    """
    taken_at = record.taken_at or ""
    try:
        moment = datetime.fromisoformat(taken_at)
    except ValueError:
        return float("nan")
    if record.is_dated_by_name and taken_at.endswith("T00:00:00"):
        return float("nan")
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
