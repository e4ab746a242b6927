"""What a picture and the sidecars of all its files say together, as one description.

A saying is a flat record of plain values, as JSON holds them: ``taken_at``, the numbers and names
of the metadata, ``title`` and ``description`` with their ``..._origin``, and ``keywords`` as pairs
of a name and where it stood. Nothing here reads a file or knows a format. docs/metadata.md holds
the rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_KEYWORDS = 200
MAX_CAPTIONS = 20

Saying = dict[str, Any]
Pair = tuple[str, str]  # a text, and where it stood

_TEXTS = ("description", "title")
_PLACE = ("latitude", "longitude", "altitude_m", "place")


@dataclass(frozen=True)
class SidecarSaying:
    """What one sidecar says of its picture.

    ``over`` replaces what the picture says; a text or the keywords in it may be empty, which
    removes them. ``fill`` stands in for what is missing. ``captions`` and ``keywords`` are said
    besides. ``joins``: its keywords are added to those of the others, as a further version's are.
    """

    over: Mapping[str, Any]
    fill: Mapping[str, Any]
    captions: tuple[Pair, ...] = ()
    keywords: tuple[Pair, ...] = ()
    joins: bool = False

    def as_record(self) -> dict[str, Any]:
        """The same for JSON, without what is empty."""
        record = {
            "over": dict(self.over),
            "fill": dict(self.fill),
            "captions": list(self.captions),
            "keywords": list(self.keywords),
            "joins": self.joins,
        }
        return {name: value for name, value in record.items() if value}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> SidecarSaying:
        """What ``as_record`` was made from."""
        return cls(
            over=record.get("over", {}),
            fill=record.get("fill", {}),
            captions=_pairs(record.get("captions", ())),
            keywords=_pairs(record.get("keywords", ())),
            joins=bool(record.get("joins")),
        )


@dataclass(frozen=True)
class United:
    """All that is said of one picture; each caption and keyword once.

    The ``keywords`` are those of ``saying``, which the picture or XMP has, and all others.
    """

    saying: Saying
    keywords: tuple[Pair, ...]
    captions: tuple[Pair, ...]


def unite(own: Mapping[str, Any], files: Sequence[Sequence[SidecarSaying]]) -> United:
    """What a picture says itself, with what lies beside each of its files.

    ``files`` begin with the one that was edited last, the sidecars of each with the most specific:
    of values that only one can have, the first one said holds. Keywords and captions of all files
    are kept.
    """
    said: Saying = dict(own)
    for sidecar in reversed([one for beside in files for one in beside]):
        _lay_over(said, sidecar.over)
    keyword_lists = [found for beside in files if (found := _keywords_of(beside)) is not None]
    if not keyword_lists:
        keyword_lists = [list(_pairs(own.get("keywords", ())))]
    keywords = _once(pair for found in keyword_lists for pair in found)
    said["keywords"] = keywords
    captions, listed = list(_texts(own, files)), list(keywords)
    for sidecar in (one for beside in files for one in beside):
        captions += sidecar.captions
        listed += sidecar.keywords
        _fill_in(said, sidecar.fill)
    return United(said, tuple(_once(listed)[:MAX_KEYWORDS]), tuple(_once(captions)[:MAX_CAPTIONS]))


def _lay_over(said: Saying, over: Mapping[str, Any]) -> None:
    if over.get("latitude") is not None:
        for name in _PLACE:  # a height and a name belong to their own position
            said.pop(name, None)
    said.update((name, value) for name, value in over.items() if name != "keywords")


def _fill_in(said: Saying, fill: Mapping[str, Any]) -> None:
    has_place = said.get("latitude") is not None
    for name, value in fill.items():
        is_missing = said.get(name) is None or (name == "rating" and said[name] == 0)
        if is_missing and not (has_place and name in _PLACE):
            said[name] = value


def _keywords_of(beside: Sequence[SidecarSaying]) -> list[Pair] | None:
    """The keywords that replace the picture's, of one file; None if no sidecar has a word on it."""
    lists = [
        _pairs(one.over["keywords"]) for one in beside if "keywords" in one.over and not one.joins
    ]
    joined = [
        _pairs(one.over["keywords"]) for one in beside if "keywords" in one.over and one.joins
    ]
    if not lists and not joined:
        return None
    return [pair for found in [*lists[:1], *joined] for pair in found]


def _texts(own: Mapping[str, Any], files: Sequence[Sequence[SidecarSaying]]) -> Iterable[Pair]:
    """Descriptions and titles: the most specific of each file, or the picture's own."""
    for name in _TEXTS:
        said = [next((one.over for one in beside if name in one.over), None) for beside in files]
        for over in [one for one in said if one is not None] or [own]:
            text, origin = over.get(name), over.get(f"{name}_origin")
            if text and origin:
                yield text, origin


def _once(pairs: Iterable[Pair]) -> list[Pair]:
    """Each text once, whatever its case: the first one."""
    found: dict[str, Pair] = {}
    for text, origin in pairs:
        found.setdefault(text.casefold(), (text, origin))
    return list(found.values())


def _pairs(values: Iterable[Sequence[str]]) -> tuple[Pair, ...]:
    return tuple((text, origin) for text, origin in values)
