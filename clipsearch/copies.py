"""Which pictures are one and the same, re-encoded or resized: found once, kept as a cache.

A model proposes (vectors that are near), the thumbnails rule most out, a close look at the files
decides. How near is near is taken from the library's own vectors, because models differ: one puts
two random photos at a cosine of 0.1, another at 0.6.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from clipsearch.close_looks import CloseLook, look_closely
from clipsearch.config import DEFAULT_MAX_PIXELS, available_cores
from clipsearch.errors import ImageError
from clipsearch.images import THUMBNAIL_SUFFIX, load_image
from clipsearch.images.closeup import Closeup, Closeups, closeup, read_closeup
from clipsearch.images.kinds import RAW_KINDS
from clipsearch.keeping import Versions, is_of_camera, is_resaved, known_of
from clipsearch.library import PICTURE, ItemRecord, Library
from clipsearch.near_pairs import NearPairs, near_pairs
from clipsearch.stars import stars
from clipsearch.vectors import Ids, Matrix

_SAMPLE = 2000  # pictures, over which neighbours are as far apart in every library
_NEIGHBOUR = 5  # not the first: a picture may have some copies
_DECODED_SIDE = 320  # pixels, where the thumbnail is gone
_CLOCKS_S = 900.0  # clocks of one shot differ by whole quarters of an hour: zones
Pairs = NDArray[np.int64]  # (n, 2)


def _no_pairs() -> Pairs:
    return np.empty((0, 2), np.int64)


@dataclass(frozen=True)
class Copies:
    """(n, 2) pairs of items that are the same picture, and what else close looks told.

    ``unresolved``: the smaller one is too small to tell, such as the thumbnail of a page.
    ``unseen``: no file of one of them can be looked at now; ``why_unseen`` says it of the first.
    """

    same: Pairs
    unresolved: Pairs
    unseen: Pairs
    enlarged: Pairs  # an enlargement, and what it was made of
    resaved: frozenset[int] = frozenset()
    why_unseen: str = ""


@dataclass(frozen=True)
class Nearness:
    """Cosines of one model: from ``near`` on a picture may be another's copy, or of its burst.

    From ``alike`` on two pictures look alike.
    """

    near: float
    alike: float


def nearness(rows: Matrix) -> Nearness:
    """Takes the bounds from how far neighbours in a sample of the library are apart.

    The distance 1 - cosine of a typical fifth neighbour among 2,000 pictures is the unit: copies
    are looked for up to a half of it, look-alikes are within a quarter.
    """
    if len(rows) <= _NEIGHBOUR:
        return Nearness(near=0.8, alike=0.9)
    chosen = np.random.default_rng(0).permutation(len(rows))[:_SAMPLE]
    cosines = rows[chosen] @ rows[chosen].T
    np.fill_diagonal(cosines, -1.0)
    fifth = np.partition(cosines, -_NEIGHBOUR, axis=1)[:, -_NEIGHBOUR]
    distance = 1.0 - float(np.median(fifth))
    return Nearness(near=1.0 - distance / 2, alike=1.0 - distance / 4)


class Shown:
    """What pictures show, near and nearer: by their thumbnails, and by their files."""

    def __init__(self, library: Library, records: Mapping[int, ItemRecord]) -> None:
        self.records = records
        self._library = library
        self._closeups: dict[int, Closeup | None] = {}

    def closeups(self, ids: Iterable[int]) -> dict[int, Closeup]:
        """From their thumbnails, else from their files; those that cannot be read are left out."""
        wanted = list(dict.fromkeys(int(identity) for identity in ids))
        new = [identity for identity in wanted if identity not in self._closeups]
        if new:
            paths = self._library.paths(new)
            with ThreadPoolExecutor(available_cores()) as pool:
                looks = pool.map(lambda item: self._look(item, paths.get(item, [])), new)
                self._closeups.update(zip(new, looks, strict=True))
        found = ((identity, self._closeups[identity]) for identity in wanted)
        return {identity: look for identity, look in found if look is not None}

    def _look(self, item: int, paths: Sequence[Path]) -> Closeup | None:
        content = self.records[item].content_hash
        folder = self._library.path / "thumbs" / content[:2]
        look = read_closeup(folder / f"{content}{THUMBNAIL_SUFFIX}")
        for path in paths if look is None else ():
            try:
                return closeup(load_image(path, target_side=_DECODED_SIDE))
            except ImageError:
                continue
        return look

    def alike(self, pairs: Pairs) -> Pairs:
        """Those pairs of ids that may be one picture, by their close-ups."""
        if not len(pairs):
            return pairs
        looks = self.closeups(np.unique(pairs).tolist())
        ids = np.array(sorted(looks), dtype=np.int64)
        seen = np.isin(pairs, ids).all(axis=1)
        pairs = pairs[seen]
        aspects = [self.records[i].width / max(1, self.records[i].height) for i in ids.tolist()]
        compared = Closeups([looks[i] for i in ids.tolist()], np.array(aspects))
        places = np.searchsorted(ids, pairs)
        pairs = pairs[compared.same(places[:, 0], places[:, 1])]
        masters = np.array([_master(self.records[i].format) for i in ids.tolist()], dtype=np.int64)
        kinds = masters[np.searchsorted(ids, pairs)]
        kept: Pairs = pairs[kinds[:, 0] == kinds[:, 1]]
        return kept

    def look_closely(
        self, pairs: Pairs, max_pixels: int, notify: Callable[[str], None]
    ) -> list[CloseLook]:
        """A close look at each pair, at the files themselves."""
        paths = self._library.paths(np.unique(pairs).tolist())
        chosen = [(int(one), int(other)) for one, other in pairs.tolist()]
        return look_closely(chosen, self.records, paths, max_pixels=max_pixels, notify=notify)


class Pictures(Shown):
    """The pictures of a space whose files are there: ids, vectors, records, and close-ups."""

    def __init__(self, library: Library, space_id: str, records: dict[int, ItemRecord]) -> None:
        super().__init__(library, records)
        ids, rows = library.vectors(space_id)
        kept = np.isin(ids, np.array(sorted(records), dtype=np.int64))
        self.ids: Ids = ids[kept]
        self.rows: Matrix = rows[kept]

    @classmethod
    def of(cls, library: Library, space_id: str) -> Pictures:
        """All of a library; moments of videos are no pictures of their own."""
        records = library.items(library.present_items().tolist())
        return cls(library, space_id, {i: r for i, r in records.items() if r.kind == PICTURE})


def copies(
    pictures: Pictures,
    library: Library,
    space_id: str,
    near: NearPairs | None,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    notify: Callable[[str], None] = lambda _: None,
) -> Copies:
    """All pairs of ids that are one picture; only what is new since the last time is compared.

    ``near`` are the near pairs of all pictures, where they are known already. Two shots of one
    camera at different times are two pictures, whatever they show.
    """
    prints = np.array(
        [int(pictures.records[i].content_hash[:15], 16) for i in pictures.ids.tolist()],
        dtype=np.int64,
    )
    cache = _Cache(library, space_id)
    before = cache.compared()
    known = _rows_in(
        np.column_stack([pictures.ids, prints]), np.column_stack([before["ids"], before["prints"]])
    )
    if near is None:
        order = np.argsort(~known, kind="stable")
        bound = nearness(pictures.rows).near
        found = near_pairs(pictures.rows[order], bound, since=int(known.sum()))
        first, second = order[found.first], order[found.second]
    else:
        first, second = near.first, near.second
    new = ~(known[first] & known[second])
    pairs = np.column_stack([pictures.ids[first[new]], pictures.ids[second[new]]])

    def kept(name: str) -> Pairs:
        rows: Pairs = before[name]
        return rows[np.isin(rows, pictures.ids[known]).all(axis=1)]

    wanted = np.concatenate([kept("unseen"), np.sort(pictures.alike(pairs), axis=1)])
    looks = pictures.look_closely(wanted, max_pixels, notify) if len(wanted) else []
    told = np.array([look.verdict for look in looks], dtype="U10")
    enlargements = [
        (look.enlarged, one if look.enlarged == other else other)
        for look, (one, other) in zip(looks, wanted.tolist(), strict=True)
        if look.enlarged is not None
    ]
    exact = np.array([look.is_exact for look in looks], dtype=bool)
    after = {
        "same": np.concatenate([kept("same"), wanted[told == "same"]]),
        "unresolved": np.concatenate([kept("unresolved"), wanted[told == "unresolved"]]),
        "unseen": wanted[told == "unseen"],
        "enlarged": np.concatenate([kept("enlarged"), _as_pairs(enlargements)]),
        "exact": np.concatenate([kept("exact"), wanted[exact] if len(wanted) else _no_pairs()]),
    }
    cache.save_compared(pictures.ids, prints, after)
    records = pictures.records
    resaved = {
        made
        for pair in after["exact"].tolist()
        for made, of in (pair, pair[::-1])
        if is_resaved(records[made], records[of])
    }
    return Copies(
        same=_of_one_moment(after["same"], records),
        unresolved=after["unresolved"],
        unseen=after["unseen"],
        enlarged=after["enlarged"],
        resaved=frozenset(resaved),
        why_unseen=next((look.why for look in looks if look.verdict == "unseen"), ""),
    )


def versions(library: Library, pictures: Pictures, found: Copies) -> Versions:
    """What decides which of the copies to keep."""
    items = np.unique(found.same).tolist()
    known = known_of(library, pictures.records, items)
    # A soft original looks like an enlargement of its own small copy: what alone names a camera
    # came from one.
    enlarged = {
        made
        for made, of in found.enlarged.tolist()
        if {made, of} <= known.keys() and (is_of_camera(known[of]) or not is_of_camera(known[made]))
    }
    return Versions(pictures.records, known, frozenset(enlarged), found.resaved)


def _as_pairs(pairs: Sequence[tuple[int, int]]) -> Pairs:
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _of_one_moment(pairs: Pairs, records: Mapping[int, ItemRecord]) -> Pairs:
    """Without those whose cameras say two times: shots from a tripod may look the same."""
    apart = [are_two_shots(records[one], records[other]) for one, other in pairs.tolist()]
    kept: Pairs = pairs[~np.array(apart, dtype=bool)]
    return kept


def _master(kind: str) -> int:
    """What other pictures are made from is never a version of them: 1 RAW, 2 layers, 0 others."""
    return 1 if kind in RAW_KINDS else 2 if kind == "PSD" else 0


def are_two_shots(one: ItemRecord, other: ItemRecord) -> bool:
    """Whether the camera's clock says that these were taken at different times."""
    times = [_clock_s(record.taken_at) for record in (one, other)]
    if times[0] is None or times[1] is None:
        return False
    apart_s = abs(times[0] - times[1])
    return apart_s > 15 * 3600 or 1 <= apart_s % _CLOCKS_S <= _CLOCKS_S - 1


def _clock_s(taken_at: str | None) -> float | None:
    """What the clock showed, in seconds; None without a time of day."""
    if taken_at is None or "T" not in taken_at:
        return None
    try:
        shown = datetime.fromisoformat(taken_at).replace(tzinfo=UTC, microsecond=0)
    except ValueError:
        return None
    return shown.timestamp()


def copy_groups(library: Library, space_id: str, ids: Ids) -> NDArray[np.int64]:
    """For each of ``ids`` the number of its set of copies; what has none is a set of its own.

    The first call after a change of the library compares what is new, which takes a second in a
    library of 5,000 pictures, and longer the first time. Unknown ids are sets of their own.
    """
    cache = _Cache(library, space_id)
    mark = _mark(library)
    members = cache.groups(mark)
    if members is None:
        pictures = Pictures.of(library, space_id)
        compared = copies(pictures, library, space_id, None)
        apart = library.opinions.told_apart()
        found = stars(compared.same, versions(library, pictures, compared).quality, apart)
        members = np.array(
            [(item, star[0]) for star in found for item in star], dtype=np.int64
        ).reshape(-1, 2)
        cache.save_groups(mark, members)
    best_of: dict[int, int] = dict(members.tolist())
    return np.array([best_of.get(item, item) for item in ids.tolist()], dtype=np.int64)


def _mark(library: Library) -> str:
    """Changes with the library and with what was told apart."""
    apart = repr(sorted(library.opinions.told_apart()))
    return f"{_RULE}-{library.state}-{xxhash.xxh3_64_hexdigest(apart.encode())}"


def _rows_in(rows: Pairs, others: Pairs) -> NDArray[np.bool_]:
    """Which rows of two columns occur among ``others``."""
    known = {(one, other) for one, other in others.tolist()}
    return np.array([(one, other) in known for one, other in rows.tolist()], dtype=bool)


_COLUMNS = ("ids", "prints")
_PAIRS = ("same", "unresolved", "unseen", "enlarged", "exact")
_RULE = 3  # to be raised when close looks come to other verdicts: what is kept is then made anew


class _Cache:
    """Two files beside the search index. A zip's checksums say whether they are as written."""

    def __init__(self, library: Library, space_id: str) -> None:
        self._folder = library.path / "index"
        self._space_id = space_id

    def compared(self) -> dict[str, NDArray[np.int64]]:
        """Ids and prints of the pictures that were compared, and the pairs by what was found."""
        found = self._load("looked")
        if (
            found is not None
            and all(name in found for name in (*_COLUMNS, *_PAIRS))
            and int(found.get("rule", np.int64(0))) == _RULE
        ):
            return found
        none: dict[str, NDArray[np.int64]] = {name: np.empty(0, np.int64) for name in _COLUMNS}
        return none | {name: _no_pairs() for name in _PAIRS}

    def save_compared(self, ids: Ids, prints: NDArray[np.int64], pairs: dict[str, Pairs]) -> None:
        self._save("looked", rule=np.array(_RULE), ids=ids, prints=prints, **pairs)

    def groups(self, mark: str) -> NDArray[np.int64] | None:
        """(n, 2): an item that has copies, and the best of them."""
        found = self._load("copies")
        if found is None or str(found.get("mark")) != mark or "members" not in found:
            return None
        return found["members"]

    def save_groups(self, mark: str, members: NDArray[np.int64]) -> None:
        self._save("copies", mark=np.array(mark), members=members)

    def _load(self, name: str) -> dict[str, NDArray[np.int64]] | None:
        try:
            with self._path(name).open("rb") as file:
                stored = np.load(file, allow_pickle=False)
                return {key: stored[key] for key in stored.files}
        except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile):
            return None

    def _save(self, name: str, **arrays: NDArray[np.generic]) -> None:
        path = self._path(name)
        half = path.with_name(f"{path.name}.{os.getpid()}")
        with suppress(OSError):  # a cache: where it cannot be kept, it is made again
            path.parent.mkdir(parents=True, exist_ok=True)
            with half.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
            half.replace(path)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}-{self._space_id}.npz"
