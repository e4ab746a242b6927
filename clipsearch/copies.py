"""Which pictures are one and the same, re-encoded or resized: found once, kept as a cache.

A model proposes (vectors that are near), the thumbnails decide. How near is near is taken from the
library's own vectors, because models differ: one puts two random photos at a cosine of 0.1, another
at 0.6.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from clipsearch.config import available_cores
from clipsearch.errors import ImageError
from clipsearch.images import THUMBNAIL_SUFFIX, load_image
from clipsearch.images.closeup import Closeup, Closeups, closeup, read_closeup
from clipsearch.images.kinds import RAW_KINDS
from clipsearch.library import PICTURE, ItemRecord, Library
from clipsearch.near_pairs import NearPairs, near_pairs
from clipsearch.stars import stars
from clipsearch.vectors import Ids, Matrix

_SAMPLE = 2000  # pictures, over which neighbours are as far apart in every library
_NEIGHBOUR = 5  # not the first: a picture may have some copies
_DECODED_SIDE = 320  # pixels, where the thumbnail is gone
Pairs = NDArray[np.int64]  # (n, 2)


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


class Pictures:
    """The pictures of a space whose files are there: ids, vectors, records, and close-ups."""

    def __init__(self, library: Library, space_id: str, records: dict[int, ItemRecord]) -> None:
        ids, rows = library.vectors(space_id)
        kept = np.isin(ids, np.array(sorted(records), dtype=np.int64))
        self.ids: Ids = ids[kept]
        self.rows: Matrix = rows[kept]
        self.records = records
        self._library = library
        self._closeups: dict[int, Closeup | None] = {}

    @classmethod
    def of(cls, library: Library, space_id: str) -> Pictures:
        """All of a library; moments of videos are no pictures of their own."""
        records = library.items(library.present_items().tolist())
        return cls(library, space_id, {i: r for i, r in records.items() if r.kind == PICTURE})

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

    def same(self, pairs: Pairs) -> Pairs:
        """Those pairs of ids that are one picture by their close-ups."""
        if not len(pairs):
            return pairs
        looks = self.closeups(np.unique(pairs).tolist())
        ids = np.array(sorted(looks), dtype=np.int64)
        seen = np.isin(pairs, ids).all(axis=1)
        pairs = pairs[seen]
        aspects = [self.records[i].width / max(1, self.records[i].height) for i in ids.tolist()]
        compared = Closeups([looks[i] for i in ids.tolist()], np.array(aspects))
        places = np.searchsorted(ids, pairs)
        return pairs[compared.same(places[:, 0], places[:, 1])]


def copies(pictures: Pictures, library: Library, space_id: str, near: NearPairs | None) -> Pairs:
    """All pairs of ids that are one picture; only what is new since the last time is compared.

    ``near`` are the near pairs of all pictures, where they are known already.
    """
    prints = np.array(
        [int(pictures.records[i].content_hash[:15], 16) for i in pictures.ids.tolist()],
        dtype=np.int64,
    )
    cache = _Cache(library, space_id)
    known_ids, known_prints, known_pairs = cache.compared()
    known = _rows_in(
        np.column_stack([pictures.ids, prints]), np.column_stack([known_ids, known_prints])
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
    kept = known_pairs[np.isin(known_pairs, pictures.ids[known]).all(axis=1)]
    same = np.concatenate([kept, np.sort(pictures.same(pairs), axis=1)])
    cache.save_compared(pictures.ids, prints, same)
    return same


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
        pairs = copies(pictures, library, space_id, None)
        apart = library.opinions.told_apart()
        found = stars(pairs, lambda item: version_quality(pictures.records[item]), apart)
        members = np.array(
            [(item, star[0]) for star in found for item in star], dtype=np.int64
        ).reshape(-1, 2)
        cache.save_groups(mark, members)
    best_of: dict[int, int] = dict(members.tolist())
    return np.array([best_of.get(item, item) for item in ids.tolist()], dtype=np.int64)


def version_quality(record: ItemRecord) -> tuple[float, ...]:
    """Of versions of one picture the best is the highest: rating, raw, pixels, bytes, age."""
    return (
        float(rating_of(record) or 0),
        float(record.format in RAW_KINDS),
        float(record.width * record.height),
        float(record.bytes),
        float(-record.id),
    )


def rating_of(record: ItemRecord) -> int | None:
    """Stars, -1 for rejected, None where nobody said."""
    rating = record.metadata.get("rating")
    return rating if isinstance(rating, int) else None


def _mark(library: Library) -> str:
    """Changes with the library and with what was told apart."""
    apart = repr(sorted(library.opinions.told_apart()))
    return f"{library.state}-{xxhash.xxh3_64_hexdigest(apart.encode())}"


def _rows_in(rows: Pairs, others: Pairs) -> NDArray[np.bool_]:
    """Which rows of two columns occur among ``others``."""
    known = {(one, other) for one, other in others.tolist()}
    return np.array([(one, other) in known for one, other in rows.tolist()], dtype=bool)


class _Cache:
    """Two files beside the search index. A zip's checksums say whether they are as written."""

    def __init__(self, library: Library, space_id: str) -> None:
        self._folder = library.path / "index"
        self._space_id = space_id

    def compared(self) -> tuple[Ids, NDArray[np.int64], Pairs]:
        """Ids and prints of the pictures that were compared, and which of them are the same."""
        found = self._load("compared")
        names = ("ids", "prints", "pairs")
        if found is None or any(name not in found for name in names):
            none = np.empty(0, np.int64)
            return none, none, np.empty((0, 2), np.int64)
        return found["ids"], found["prints"], found["pairs"]

    def save_compared(self, ids: Ids, prints: NDArray[np.int64], pairs: Pairs) -> None:
        self._save("compared", ids=ids, prints=prints, pairs=pairs)

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
