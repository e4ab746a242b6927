"""Whether a changed file still shows the picture that it showed before: turned, cropped, retouched.

Thumbnails decide. What they leave open the model's vectors decide, where the library has enough of
them to say how far apart its pictures are.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

from clipsearch.copies import nearness
from clipsearch.library import Library
from clipsearch.vectors import Vector
from indexer.thumbnails import thumbnail_path

_SIDE = 12  # of the grey squares that are compared whole, in all eight ways to turn and mirror
_LONG_SIDE = 24  # of the picture in which a part is looked for
_PARTS = tuple(step / 25 for step in range(13, 26))  # shares of its long side that a part may have
# Where edited photos and pairs of different ones part: benchmarks/likeness.py.
_LEAST_WHOLE, _LEAST_PART = 0.75, 0.8
_NOTHING = 0.2  # grey levels of deviation that mean nothing
_DRAFT_SIDE = 96
_SAMPLE = 200  # pictures, for how far apart those of this library are
_ENOUGH = 20  # of them
_MOMENTS = 3  # of a video that are compared

Grey = NDArray[np.float32]


class Likeness:
    """Compares old contents of paths with new ones, for one run."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._thumbnails = library.path / "thumbs"
        self._bounds: dict[str, float] = {}

    def is_same(
        self,
        old: int,
        content_hash: str,
        moments: Mapping[float, str],
        vectors: Mapping[str, Vector],
    ) -> bool | None:
        """Whether an item and a new content show one picture; None if nothing can be compared.

        ``moments`` are those of a new video, by time; ``vectors`` those made in this run.
        """
        record = self._library.items([old]).get(old)
        if record is None:
            return None
        before, after = [record.content_hash], [content_hash]
        if times := self._moments(old):
            moments = moments or self._moments(
                self._library.item_by_hash([content_hash]).get(content_hash)
            )
            if not moments:
                return False
            chosen = sorted(times)[:: max(1, len(times) // _MOMENTS)]
            before = [times[time_s] for time_s in chosen]
            after = [moments[min(moments, key=lambda at: abs(at - time_s))] for time_s in chosen]
        found = [self._pair(*pair, vectors) for pair in zip(before, after, strict=True)]
        answers = [one for one in found if one is not None]
        return sum(answers) * 2 >= len(answers) if answers else None

    def _pair(self, old: str, new: str, vectors: Mapping[str, Vector]) -> bool | None:
        one, other = self._thumbnail(old), self._thumbnail(new)
        if one is None or other is None:
            return self._by_vectors(old, new, vectors)
        if shows_same(one, other):
            return True
        return self._by_vectors(old, new, vectors) or False

    def _thumbnail(self, content_hash: str) -> Image.Image | None:
        try:
            with Image.open(thumbnail_path(self._thumbnails, content_hash)) as image:
                image.draft("L", (_DRAFT_SIDE, _DRAFT_SIDE))
                return image.convert("L")
        except (OSError, ValueError, SyntaxError):  # it is a cache: gone, or damaged
            return None

    def _by_vectors(self, old: str, new: str, vectors: Mapping[str, Vector]) -> bool | None:
        """True or nothing: a model that finds two pictures far apart may be wrong."""
        ids = self._library.item_by_hash([old, new])
        for space in self._library.spaces():
            rows = [
                vectors[name] if name in vectors else self._vector(space.id, ids.get(name))
                for name in (old, new)
            ]
            if rows[0] is None or rows[1] is None or len(rows[0]) != len(rows[1]):
                continue
            if float(rows[0] @ rows[1]) >= self._bound(space.id):
                return True
        return None

    def _vector(self, space_id: str, item: int | None) -> Vector | None:
        if item is None:
            return None
        ids, rows = self._library.vectors_of(space_id, [item])
        return rows[0] if len(ids) else None

    def _bound(self, space_id: str) -> float:
        if space_id not in self._bounds:
            present = self._library.present_items()
            chosen = np.random.default_rng(0).permutation(present)[:_SAMPLE]
            rows = self._library.vectors_of(space_id, chosen.tolist())[1]
            enough = len(rows) >= _ENOUGH
            self._bounds[space_id] = nearness(rows).alike if enough else np.inf
        return self._bounds[space_id]

    def _moments(self, video: int | None) -> dict[float, str]:
        if video is None:
            return {}
        ids = self._library.tags.moments_of([video]).get(video, [])
        found = self._library.items(ids).values()
        return {record.time_s or 0.0: record.content_hash for record in found}


def shows_same(one: Image.Image, other: Image.Image) -> bool:
    """Whether two grey pictures are one: turned, mirrored, toned, or one a part of the other."""
    first = _standard(np.asarray(one.resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float32))
    second = _standard(np.asarray(other.resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float32))
    for mirrored in (second, second[:, ::-1]):
        for turns in range(4):
            if float((first * np.rot90(mirrored, turns)).mean()) >= _LEAST_WHOLE:
                return True
    return _is_part(other, one) or _is_part(one, other)


def _is_part(part: Image.Image, whole: Image.Image) -> bool:
    scale = _LONG_SIDE / max(whole.size)
    width, height = (max(1, round(side * scale)) for side in whole.size)
    field = np.asarray(whole.resize((width, height), Image.Resampling.BOX), np.float32)
    for share in _PARTS:
        scale = share * _LONG_SIDE / max(part.size)
        across, down = (max(1, round(side * scale)) for side in part.size)
        if across > width or down > height or min(across, down) < 5:
            continue
        sought = _standard(
            np.asarray(part.resize((across, down), Image.Resampling.BOX), np.float32)
        )
        windows = sliding_window_view(field, (down, across))
        products = np.einsum("ijkl,kl->ij", windows, sought, optimize=True) / sought.size
        spread = windows.std(axis=(2, 3)) + 1.0
        if float((products / spread).max()) >= _LEAST_PART:
            return True
    return False


def _standard(grey: Grey) -> Grey:
    """With a mean of 0 and a deviation of 1; of an even surface, zeros."""
    return np.asarray((grey - grey.mean()) / (grey.std() + _NOTHING), dtype=np.float32)
