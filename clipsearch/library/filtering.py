"""Filters over the facts of a library: which pictures and moments pass, exactly."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clipsearch.errors import QueryError
from clipsearch.globbing import PathPattern
from clipsearch.library.facts import Facts, Mask, Names, Texts, tag_levels
from clipsearch.query import FIELDS, Filter, Near, Period, Span, mistake
from clipsearch.query.fields import Kind
from clipsearch.query.folding import fold, folded_words

_EARTH_RADIUS_KM = 6371.0
_DIGITS = 14  # of a time: year to second
_METADATA = {
    "iso": "iso",
    "aperture": "f_number",
    "exposure": "exposure_s",
    "focal": "focal_length_mm",
    "altitude": "altitude_m",
    "rating": "rating",
    "duration": "duration_s",
    "width": "width",
    "height": "height",
    "size": "bytes",
}


_COLUMNS = {  # what a filter reads of each item
    **{field: (column,) for field, column in _METADATA.items()},
    "megapixels": ("width", "height"),
    "orientation": ("width", "height"),
    "near": ("latitude", "longitude"),
    "camera": ("make", "model"),
    "lens": ("lens",),
    "place": ("place",),
    "format": ("format",),
}
ALL_COLUMNS = frozenset(column for columns in _COLUMNS.values() for column in columns)


def passing(facts: Facts, filters: Sequence[Filter], similar: Callable[[Filter], Mask]) -> Mask:
    """True for each of ``facts.ids`` that passes all filters: (n,).

    ``similar`` answers for the filters that compare vectors, which a library does not do.
    QueryError for a place whose name is not known.
    """
    facts.load({column for one in filters for column in _COLUMNS.get(one.field, ())})
    passes = np.ones(len(facts.ids), dtype=np.bool_)
    for one in filters:
        mask = similar(one) if FIELDS[one.field].kind is Kind.SIMILAR else of_rows(facts, one)
        passes &= ~mask if one.negated else mask
    return passes


def of_rows(facts: Facts, one: Filter) -> Mask:
    """True for each of ``facts.ids`` that has one of the filter's values, negated or not."""
    mask = np.zeros(len(facts), dtype=np.bool_)
    for value in one.values:
        if isinstance(value, Span):
            mask |= in_span(_numbers(facts, one.field), value)
        elif isinstance(value, Period):
            mask |= _since(facts, value.first) & _until(facts, value.last)
        elif isinstance(value, Near):
            mask |= _near(facts, value)
        elif isinstance(value, str):
            mask |= _TESTS[one.field](facts, value)
    return mask[facts.rows]


# --- numbers and times ----------------------------------------------------------------------


def _numbers(facts: Facts, name: str) -> NDArray[np.float64]:
    if name == "megapixels":
        return np.round(facts.numbers("width") * facts.numbers("height") / 1e6, 1)
    return facts.numbers(_METADATA[name])


def in_span(numbers: NDArray[np.float64], span: Span) -> Mask:
    """NaN, what is not known, is in no span."""
    passes = ~np.isnan(numbers)
    if span.low is not None:
        passes &= numbers > span.low if span.open else numbers >= span.low
    if span.high is not None:
        passes &= numbers < span.high if span.open else numbers <= span.high
    return passes


def _limit(date: str, filler: str) -> int:
    return int("".join(c for c in date if c.isdigit()).ljust(_DIGITS, filler))


def _since(facts: Facts, date: str) -> Mask:
    return facts.taken() >= _limit(date, "0")


def _before(facts: Facts, date: str) -> Mask:
    taken = facts.taken()
    return (taken > 0) & (taken < _limit(date, "0"))


def _until(facts: Facts, date: str) -> Mask:
    taken = facts.taken()
    return (taken > 0) & (taken <= _limit(date, "9"))


# --- words ----------------------------------------------------------------------------------


def _among(names: Names, matches: Callable[[str], bool]) -> Mask:
    """Rows whose name is one that matches."""
    return np.array([matches(name) for name in names.distinct], dtype=np.bool_)[names.codes]


def _named(column: str) -> Callable[[Facts, str], Mask]:
    def test(facts: Facts, value: str) -> Mask:
        phrase = folded_words(value)
        return _among(facts.names(column), lambda name: phrase in name)

    return test


def _format(facts: Facts, value: str) -> Mask:
    wanted = folded_words(value)
    return _among(facts.names("format"), lambda name: name == wanted)


def _holding(texts: Callable[[Facts], Texts]) -> Callable[[Facts, str], Mask]:
    def test(facts: Facts, value: str) -> Mask:
        return facts.mask(texts(facts).holding(folded_words(value)))

    return test


def _path(facts: Facts, value: str) -> Mask:
    return facts.mask(facts.file_paths().holding(fold(value).replace("\n", " ")))


def _tag(facts: Facts, value: str) -> Mask:
    wanted = tag_levels(value)
    tags = [tag for tag, levels in facts.tags() if _has_run(levels, wanted)]
    return facts.mask(facts.rows_tagged(tags))


def _has_run(levels: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    """True if ``wanted`` are some levels one below the other, such as a parent of the tag."""
    size = len(wanted)
    return any(levels[at : at + size] == wanted for at in range(len(levels) - size + 1))


# --- places, shapes, and what is known ------------------------------------------------------


def _folder(facts: Facts, value: str) -> Mask:
    """In a folder: the pattern fits the file, its folder, or one above it.

    A pattern with a slash counts from a root, one without fits at any depth, as in ignore files.
    """
    pattern = _at_home(value) if value.startswith("~") else value
    is_absolute = pattern.startswith("/") or re.match(r"[A-Za-z]:/", pattern) is not None
    if not is_absolute and "/" not in pattern:
        pattern = f"**/{pattern}"
    head, _, tail = fold(pattern).rpartition("/")
    inside = PathPattern(fold(pattern), and_below=True)
    beside = PathPattern(head)
    name = PathPattern(tail) if set(tail) & set(".*?") else None
    files = facts.files()
    fits = np.zeros(len(files.folders), dtype=np.bool_)
    may_hold = np.zeros(len(files.folders), dtype=np.bool_)
    for code, (root, below) in enumerate(files.folders):
        places = [fold(place) for place in _spelled(root, below, is_absolute=is_absolute)]
        fits[code] = any(inside.matches(place) for place in places)
        may_hold[code] = name is not None and any(beside.matches(place) for place in places)
    passes = fits[files.folder_codes]
    if name is not None:
        for file in np.flatnonzero(may_hold[files.folder_codes] & ~passes).tolist():
            passes[file] = name.matches(fold(files.names[file]))
    return facts.mask(files.rows[passes])


def _spelled(root: str, below: str, *, is_absolute: bool) -> tuple[str, ...]:
    """A folder as patterns may mean it: whole, or from its root with and without its name."""
    top = root.replace("\\", "/").rstrip("/")
    if is_absolute:
        return (f"{top}/{below}" if below else top,)
    name = top.rpartition("/")[2]
    return (below, f"{name}/{below}" if below else name)


def _at_home(value: str) -> str:
    """``~`` and ``~/...`` as this user's home; whose homes there are besides is not told."""
    first, slash, rest = value.partition("/")
    if first != "~":
        written = f"in:{value}"
        raise mistake(
            written,
            len("in:"),
            len(written),
            "Only ~ itself, your own home, can begin a folder; write the other out, such as "
            "in:/home/name/photos.",
        )
    return f"{Path.home()}{slash}{rest}"


def _near(facts: Facts, near: Near) -> Mask:
    """Within the radius along a great circle (haversine)."""
    if isinstance(near.place, str):
        from clipsearch.places import find_place  # its table takes a third of a second

        found, suggestions = find_place(near.place)
        if found is None:
            raise _unknown_place(near.place, suggestions)
        latitude, longitude = found.position
    else:
        latitude, longitude = near.place
    north, east = np.radians(facts.numbers("latitude")), np.radians(facts.numbers("longitude"))
    here_north, here_east = np.radians(latitude), np.radians(longitude)
    chord = (
        np.sin((north - here_north) / 2) ** 2
        + np.cos(here_north) * np.cos(north) * np.sin((east - here_east) / 2) ** 2
    )
    km = 2 * _EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.minimum(1.0, chord)))
    passes: Mask = km <= near.radius_km  # false for NaN, where there is no position
    return passes


def _unknown_place(name: str, suggestions: Sequence[str]) -> QueryError:
    meant = f" Did you mean {' or '.join(map(repr, suggestions))}?" if suggestions else ""
    written = f"near:{name}"
    return mistake(
        written,
        len("near:"),
        len(written),
        f"There is no city of 15,000 people or more called {name}.{meant} Names with blanks or "
        'commas stand in quotes: near:"New York". A position always works, such as '
        "near:38.7,-9.1,5km.",
    )


def _orientation(facts: Facts, value: str) -> Mask:
    width, height = facts.numbers("width"), facts.numbers("height")
    passes: Mask = (
        height > width
        if value == "portrait"
        else height < width
        if value == "landscape"
        else height == width
    )
    return passes


def _type(facts: Facts, value: str) -> Mask:
    return facts.is_video() if value == "video" else ~facts.is_video()


def _has(facts: Facts, value: str) -> Mask:
    if value == "gps":
        return ~np.isnan(facts.numbers("latitude") + facts.numbers("longitude"))
    if value == "rating":
        return ~np.isnan(facts.numbers("rating"))
    if value == "date":
        passes: Mask = facts.taken() > 0
        return passes
    if value == "caption":
        return facts.mask(facts.captions().rows)
    if value == "tag":
        return facts.mask(facts.rows_tagged([tag for tag, _ in facts.tags()]))
    return _among(facts.names(value), bool)


_TESTS: dict[str, Callable[[Facts, str], Mask]] = {
    "after": _since,
    "before": _before,
    "type": _type,
    "orientation": _orientation,
    "in": _folder,
    "name": _holding(Facts.file_words),
    "path": _path,
    "tag": _tag,
    "caption": _holding(Facts.captions),
    "place": _named("place"),
    "camera": _named("camera"),
    "lens": _named("lens"),
    "format": _format,
    "has": _has,
}
