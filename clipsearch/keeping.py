"""Which of several copies to keep, and why: what is known of them, and which came first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from clipsearch.library import ItemRecord, Library

_CAMERA = ("make", "model", "lens", "exposure_s", "f_number", "iso", "focal_length_mm")
_LOSSLESS = ("PNG", "BMP", "TIFF", "GIF")
_HAND, _BY_CAMERA = "hand", "the camera"
_MUCH_LARGER = 1.1  # times the pixels


@dataclass(frozen=True)
class Known:
    """What is known of one picture: facts by name, each once, and what a person said of it here."""

    facts: frozenset[str]
    said: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Versions:
    """Tells versions of one picture apart by what keeping one of them would lose.

    ``enlarged`` are items that are enlargements of another version; ``resaved`` those that hold,
    without loss, what another version had lost already, such as a PNG made from a JPEG.
    """

    records: Mapping[int, ItemRecord]
    known: Mapping[int, Known]
    enlarged: frozenset[int] = frozenset()
    resaved: frozenset[int] = frozenset()
    _nothing: Known = field(default=Known(frozenset()), repr=False)

    def known_of(self, item: int) -> Known:
        return self.known.get(item, self._nothing)

    def quality(self, item: int) -> tuple[float, ...]:
        """Of versions of one picture the best is the highest.

        No enlargement, rating, what a person said, what the file says, pixels, first-hand, bytes,
        age.
        """
        record = self.records[item]
        known = self.known_of(item)
        return (
            float(item not in self.enlarged),
            float(rating_of(record) or 0),
            float(len(known.said)),
            float(len(known.facts)),
            float(record.width * record.height),
            float(item not in self.resaved),
            float(record.bytes),
            float(-record.id),
        )

    def only_of(self, item: int, best: int) -> tuple[str, ...]:
        """What a version has and the best one has not, in words; empty if it can go."""
        mine, other = self.known_of(item), self.known_of(best)
        only = sorted(mine.said - other.said) + sorted(mine.facts - other.facts)
        if item not in self.enlarged and self._is_larger(item, best):
            only.append("more pixels")
        elif item in self.enlarged and not is_of_camera(other):
            # A soft original has no sharpness to lose either, and nothing else tells them apart.
            only.append("more pixels, unless it is an enlargement")
        if (rating_of(self.records[item]) or 0) > (rating_of(self.records[best]) or 0):
            only.append("a higher rating")
        return tuple(only)

    def why(self, best: int, others: Iterable[int]) -> str:
        """Why the best is the best, in words."""
        rest = list(others)
        facts = self.known_of(best).facts | self.known_of(best).said
        own = sorted(facts - set().union(*[self._all(item) for item in rest]))
        reasons = [f"it alone has {', '.join(own)}"] if own else []
        rating = rating_of(self.records[best]) or 0
        if any(rating > (rating_of(self.records[item]) or 0) for item in rest):
            reasons.append("it is rated higher")
        if not own and any(len(self._all(item)) < len(facts) for item in rest):
            reasons.append("it has more metadata")
        if self.enlarged.intersection(rest):
            reasons.append("it is the original of an enlargement")
        if any(self._is_larger(best, item) for item in rest):
            reasons.append("it has more pixels")
        if self.resaved.intersection(rest):
            reasons.append("it was saved again as another")
        if not reasons:
            bytes_of = self.records[best].bytes
            larger = any(bytes_of > self.records[item].bytes for item in rest)
            reasons.append("it is the larger file" if larger else "it was indexed first")
        return "; ".join(reasons)

    def _all(self, item: int) -> frozenset[str]:
        known = self.known_of(item)
        return known.facts | known.said

    def _is_larger(self, item: int, other: int) -> bool:
        pixels, others = (self.records[i].width * self.records[i].height for i in (item, other))
        return pixels > _MUCH_LARGER * others


def known_of(
    library: Library, records: Mapping[int, ItemRecord], items: Iterable[int]
) -> dict[int, Known]:
    """What is known of some items, from their files, their sidecars, and by a person here."""
    answered = {answer.item for answer in library.opinions.answers()}
    found = {}
    for item in items:
        record = records[item]
        facts = {"the date"} if record.taken_at and not record.is_dated_by_name else set()
        facts |= {_BY_CAMERA} if any(record.metadata.get(name) for name in _CAMERA) else set()
        facts |= {"the place"} if record.metadata.get("latitude") is not None else set()
        facts |= {"a rating"} if rating_of(record) is not None else set()
        said = {"answers"} if item in answered else set()
        words = library.words_of(item)
        for name, origin in words.tags:
            (said if origin == _HAND else facts).add(f"the keyword {name}")
        for text, origin in words.captions:
            (said if origin == _HAND else facts).add(f"the caption {_short(text)}")
        found[item] = Known(frozenset(facts), frozenset(said))
    return found


def is_of_camera(known: Known) -> bool:
    """Whether the file names the camera that it comes from."""
    return _BY_CAMERA in known.facts


def rating_of(record: ItemRecord) -> int | None:
    """Stars, -1 for rejected, None where nobody said."""
    rating = record.metadata.get("rating")
    return rating if isinstance(rating, int) else None


def is_resaved(record: ItemRecord, other: ItemRecord) -> bool:
    """Of two that show exactly the same, whether the first was made from the second.

    Nothing that was compressed with loss comes out exactly as it went in.
    """
    return record.format in _LOSSLESS and other.format not in _LOSSLESS


def _short(text: str) -> str:
    words = " ".join(text.split())
    return f"“{words if len(words) <= 40 else words[:39] + '…'}”"
