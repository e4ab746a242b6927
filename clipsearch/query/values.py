"""What stands behind a colon: read and checked, one reader for each kind of field."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NoReturn

from clipsearch.query.fields import Field, Kind
from clipsearch.query.folding import as_number, clean, folded_words
from clipsearch.query.mistakes import mistake
from clipsearch.query.terms import Like, Near, Period, Query, Span, Value

DEFAULT_RADIUS_KM = 20.0
MAX_LIMIT = 10_000

_NUMBER = r"-?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"
_AMOUNT = re.compile(rf"(?:(?P<over>\d+)/(?P<under>\d+)|(?P<number>{_NUMBER}))(?P<unit>[a-z]*)")
_COMPARED = re.compile(r"(>=|<=|>|<|=)?(.*)", re.DOTALL)
_DATE = re.compile(
    r"(\d{4})(?:[-/.](\d{1,2})(?:[-/.](\d{1,2})(?:T(\d{1,2}):(\d{2})(?::(\d{2}))?)?)?)?", re.I
)
_SIMILAR = re.compile(rf"(.*?)(>=|<=|>|<)({_NUMBER})", re.DOTALL)
_DISTANCE = re.compile(r"(\d+\.?\d*|\.\d+)(km|m)")
_FARTHEST_KM = 20_050  # half way around
_MARKED = re.compile(r"[<>=]|\.\.")  # a number that is compared, or the end of a span
_UNIT = re.compile(r"\d[a-z]+$|^f/")
_GROUPED = re.compile(r"(?<=\d)['\u2019](?=\d{3}(?!\d))")  # 1'600, as the Swiss write it
_PASTED = re.compile(
    r"([+-]?\d+(?:\.\d+)?)\s*°?\s*([NS]?)[\s,;]+([+-]?\d+(?:\.\d+)?)\s*°?\s*([EW]?)"
)
_THOUSANDS = re.compile(r"[1-9]\d{0,2}(?:\.\d{3})+")
_WITH_DECIMALS = frozenset({"aperture", "exposure", "duration", "megapixels", "size"})
# Whose values nobody gives to the thousandth, so that 1.600 is as likely to be 1600.
_IN_THOUSANDS = frozenset({"iso", "width", "height", "altitude", "size", "focal"})


@dataclass(frozen=True)
class Piece:
    """A part of a value: what was in quotes, and what stands after them; its place in the text."""

    quoted: str | None
    rest: str
    start: int
    end: int

    @property
    def whole(self) -> str:
        return (self.quoted or "") + self.rest


def read_filter(text: str, entry: Field, pieces: list[Piece]) -> tuple[Value, ...]:
    """The values of a filter; QueryError with a caret under what is wrong."""
    if entry.kind is Kind.NEAR:
        return (_near(text, pieces),)
    read: Callable[[str, Field, Piece], Value] = _READERS[entry.kind]
    for piece in pieces:
        if not piece.whole.strip():
            _wrong(text, piece, f"A value is missing; lists have no blanks: {entry.name}:one,two.")
    if entry.kind is Kind.NUMBER:
        _refuse_decimal_commas(text, entry, pieces)
    values = tuple(read(text, entry, piece) for piece in pieces)
    if len(values) > 1 and entry.kind is Kind.DATE:
        _wrong(text, pieces[1], f"{entry.name}: takes one date.")
    return tuple(dict.fromkeys(values))


def number_notes(entry: Field, pieces: list[Piece], after: str) -> tuple[str, ...]:
    """How a number may have been meant that reads as a list, or whose thousands stand apart.

    ``after`` is what follows the value in the query.
    """
    given = [piece.whole.strip() for piece in pieces]
    if len(given) == 2 and all(re.fullmatch(r"\d{1,3}", part) for part in given):
        first, second = given
        meant = ""
        if first == "0" or (len(second) < 3 and entry.name in _WITH_DECIMALS):
            meant = f"{first}.{second}"
        elif len(first) < 3 and len(second) == 3:
            meant = f"{first}{second}"
        if meant:
            return (
                f"{entry.name}:{first},{second} was read as {first} or {second}; if it is one "
                f"number, write {entry.name}:{meant}",
            )
    unit = re.match(r"\s+([A-Za-z]+)(?!\S)", after)
    if unit and unit[1].casefold() in entry.units and given[-1][-1].isdigit():
        return (
            f"'{unit[1]}' was read as a word to look for; as a unit write it without a blank: "
            f"{entry.name}:{','.join(given)}{unit[1]}",
        )
    last = re.search(r"(?:^|\D)(\d{1,3})$", given[-1])
    follows = re.match(r"\s(\d{3})(?!\S)", after)
    if last and follows:
        return (
            f"'{follows[1]}' was read as a word to look for; for "
            f"{int(last[1] + follows[1]):,} write {entry.name}:{given[-1]}{follows[1]}",
        )
    return ()


def _refuse_decimal_commas(text: str, entry: Field, pieces: list[Piece]) -> None:
    """QueryError for a list like ``<=2,8`` or ``2,5MB``: it may be a list, or one number."""
    given = [as_number(piece.whole.strip().casefold()) for piece in pieces]
    marked = [_MARKED.search(part) is not None for part in given]
    units = [_UNIT.search(part) is not None for part in given]
    if len(set(marked)) == len(set(units)) == 1:
        return
    as_one = entry.example
    if len(given) == 2 and ".." not in "".join(given):
        mark = "" if re.match(r"\d{3}(?!\d)", given[1]) else "."
        as_one = f"{entry.name}:{mark.join(piece.whole.strip() for piece in pieces)}"
    whole = Piece(None, text[pieces[0].start : pieces[-1].end], pieces[0].start, pieces[-1].end)
    _wrong(
        text,
        whole,
        f"{entry.name}: here a comma means or. If this is one number, write it with a point for "
        f"its decimals and nothing between its thousands, such as {as_one}; if these are "
        "several, give each its own sign and unit.",
    )


def read_picture(text: str, entry: Field, pieces: list[Piece]) -> str | int:
    """An item's number, or the path of a file, in which commas are part of the name."""
    start, end = pieces[0].start, pieces[-1].end
    if any(piece.quoted is not None for piece in pieces):
        if len(pieces) > 1:
            _wrong(text, pieces[1], f"{entry.name}: takes one picture.")
        return _picture(text, pieces[0], pieces[0].whole)
    return _picture(text, Piece(None, text[start:end], start, end), text[start:end])


def read_option(text: str, entry: Field, pieces: list[Piece], query: Query) -> Query:
    """The query with one of its options set; of two settings the later one holds."""
    if len(pieces) > 1:
        _wrong(text, pieces[1], f"{entry.name}: takes one value, such as {entry.example}.")
    piece = pieces[0]
    given = as_number(piece.whole.strip().casefold())
    if entry.kind is Kind.COUNT:
        if not re.fullmatch(r"[0-9]{1,9}", given) or not 1 <= int(given) <= MAX_LIMIT:
            _wrong(text, piece, f"{entry.name}: is a number from 1 to {MAX_LIMIT:,}.")
        return replace(query, limit=int(given))
    if entry.kind is Kind.CUTOFF:
        if given in ("auto", "none"):
            return replace(query, cutoff=given)
        if not re.fullmatch(_NUMBER, given) or not -1 <= float(given) <= 1:
            _wrong(text, piece, "cutoff: is auto, none, or a score from -1 to 1, such as 0.27.")
        return replace(query, cutoff=float(given))
    chosen = _choice(text, entry, piece)
    if entry.name == "duplicate":
        return replace(query, distinct=chosen == "no")
    return replace(query, order=chosen)


def _wrong(text: str, piece: Piece, message: str) -> NoReturn:
    raise mistake(text, piece.start, piece.end, message)


def _text(text: str, entry: Field, piece: Piece) -> str:
    if piece.quoted is not None and piece.rest:
        _wrong(text, piece, "After the closing quote there must be a blank or a comma.")
    value = clean(piece.whole)
    if not folded_words(value):
        _wrong(text, piece, f"{entry.name}: needs a letter or a digit to look for.")
    return entry.choices.get(value.casefold(), value)


def _path(text: str, _entry: Field, piece: Piece) -> str:
    if piece.quoted is not None and piece.rest:
        _wrong(text, piece, "After the closing quote there must be a blank or a comma.")
    return piece.whole


def _folder(text: str, entry: Field, piece: Piece) -> str:
    value = _path(text, entry, piece).replace("\\", "/")
    bare = value.rstrip("/")
    if not bare and not value:
        _wrong(text, piece, f"{entry.name}: needs a folder, such as in:Holidays.")
    return bare or "/**"


def _choice(text: str, entry: Field, piece: Piece) -> str:
    chosen = entry.choices.get(piece.whole.strip().casefold())
    if chosen is None:
        names = ", ".join(dict.fromkeys(entry.choices.values()))
        _wrong(text, piece, f"{entry.name}: is one of {names}.")
    return chosen


def _number(text: str, entry: Field, piece: Piece) -> Span:
    given = as_number(piece.whole.strip().casefold())
    low, dots, high = given.partition("..")
    if dots:
        span = (_amount(text, entry, piece, low), _amount(text, entry, piece, high))
        if span[0] > span[1]:
            _wrong(text, piece, f"{high} is less than {low}: write the smaller one first.")
        return Span(*span)
    matched = _COMPARED.fullmatch(given)
    compared, amount = matched.groups() if matched else (None, given)
    number = _amount(text, entry, piece, amount)
    if compared in (">", ">="):
        return Span(low=number, open=compared == ">")
    if compared in ("<", "<="):
        return Span(high=number, open=compared == "<")
    return Span(number, number)


def _amount(text: str, entry: Field, piece: Piece, given: str) -> float:
    given = _GROUPED.sub("", given.strip())
    if entry.name == "aperture":
        given = given.removeprefix("f/")
    matched = _AMOUNT.fullmatch(given)
    if matched and matched["number"] and entry.name in _IN_THOUSANDS:
        _refuse_thousands(text, entry, piece, matched["number"])
    if matched is None or (matched["under"] is not None and not int(matched["under"])):
        _wrong(text, piece, f"{entry.name}: is {entry.kind.value}, such as {entry.example}.")
    factor = entry.units.get(matched["unit"], 1.0 if not matched["unit"] else None)
    if factor is None:
        units = f"takes {', '.join(entry.units)}" if entry.units else "has no unit"
        _wrong(text, piece, f"{entry.name}: {units}, not {matched['unit']}.")
    if matched["under"] is not None:
        number = int(matched["over"]) / int(matched["under"]) * factor
    else:
        number = float(matched["number"]) * factor
    if not math.isfinite(number):
        _wrong(text, piece, f"{entry.name}: is too large a number.")
    # Exposures are kept to six digits: 1/60 must find what a camera wrote as 10/600.
    return float(f"{number:.6g}") if entry.name == "exposure" else number


def _refuse_thousands(text: str, entry: Field, piece: Piece, number: str) -> None:
    """QueryError for ``iso:1.600``, which is 1600 in half of the world."""
    if _THOUSANDS.fullmatch(number):
        whole = number.replace(".", "")
        other = "" if number.count(".") > 1 else f", or {float(number):g} if you mean that"
        _wrong(text, piece, f"{entry.name}: write {whole} without marks{other}.")


def _date(text: str, entry: Field, piece: Piece) -> str:
    return _day(text, entry, piece, piece.whole)


def _day(text: str, entry: Field, piece: Piece, given: str) -> str:
    matched = _DATE.fullmatch(given.strip())
    if matched is None:
        _wrong(text, piece, f"{entry.name}: is {entry.kind.value}; {given[:30]!r} is none.")
    parts = [part for part in matched.groups() if part is not None]
    numbers = [int(part) for part in parts]
    try:
        datetime(*[*numbers, *(1, 1, 1)[len(numbers) :]])  # type: ignore[arg-type]
    except ValueError:
        _wrong(text, piece, f"There is no date {given[:30]}.")
    day = "-".join([f"{numbers[0]:04}", *(f"{number:02}" for number in numbers[1:3])])
    clock = ":".join(f"{number:02}" for number in numbers[3:])
    return f"{day}T{clock}" if clock else day


def _period(text: str, entry: Field, piece: Piece) -> Period:
    first, dots, last = piece.whole.replace("\u2026", "..").partition("..")
    start = _day(text, entry, piece, first)
    end = _day(text, entry, piece, last) if dots else start
    if end[: len(start)] < start[: len(end)]:
        _wrong(text, piece, f"{last} is before {first}: write the earlier one first.")
    return Period(start, end)


def _near(text: str, pieces: list[Piece]) -> Near:
    parts = [clean(piece.whole) for piece in pieces]
    radius_km = DEFAULT_RADIUS_KM
    matched = _DISTANCE.fullmatch(parts[-1].casefold())
    if matched is not None and len(parts) > 1:
        radius_km = float(matched[1]) / (1000 if matched[2] == "m" else 1)
        if not 0 < radius_km <= _FARTHEST_KM:
            _wrong(text, pieces[-1], f"A distance is more than 0, at most {_FARTHEST_KM:,} km.")
        parts.pop()
    numbers = [as_number(part) for part in parts]
    if len(parts) == 1 and (pasted := _PASTED.fullmatch(numbers[0].upper())):
        numbers = [
            f"-{number}" if side in ("S", "W") else number
            for number, side in (pasted.group(1, 2), pasted.group(3, 4))
        ]
        parts = numbers
    coordinates = [re.fullmatch(_NUMBER, number) is not None for number in numbers]
    if coordinates == [True, True]:
        latitude, longitude = map(float, numbers)
        if abs(latitude) > 90 or abs(longitude) > 180:
            _wrong(text, pieces[0], "Latitudes go from -90 to 90, longitudes from -180 to 180.")
        return Near((latitude, longitude), radius_km)
    if len(parts) == 1 and folded_words(parts[0]) and not coordinates[0]:
        return Near(parts[0], radius_km)
    wrong = Piece(None, "", pieces[0].start, pieces[-1].end)
    _wrong(
        text,
        wrong,
        "near: is a city or a position, then a distance: near:Lisbon,20km, "
        'near:"Paris, France",5km or near:38.7,-9.1,500m.',
    )


def _similar(text: str, _entry: Field, piece: Piece) -> Like:
    matched = _SIMILAR.fullmatch(piece.rest)
    if matched is None or (piece.quoted is not None and matched[1]):
        _wrong(
            text,
            piece,
            "similar: is a picture and how similar at least, such as similar:#1234>0.8.",
        )
    named = piece.quoted if piece.quoted is not None else matched[1]
    least = float(matched[3])
    if not -1 <= least <= 1:
        _wrong(text, piece, "A similarity is a cosine, from -1 to 1.")
    is_open = matched[2] in "<>"
    cosines = (
        Span(low=least, open=is_open) if matched[2][0] == ">" else Span(high=least, open=is_open)
    )
    return Like(_picture(text, piece, named), cosines)


def _picture(text: str, piece: Piece, named: str) -> str | int:
    if named.startswith("#") and piece.quoted is None:
        if not re.fullmatch(r"#[0-9]{1,15}", named):
            _wrong(text, piece, "An item is its number, such as #1234: searches print it.")
        return int(named[1:])
    if not named.strip():
        _wrong(text, piece, "A picture is #ITEM or a file, such as image:./a.jpg.")
    return named


_READERS: dict[Kind, Callable[[str, Field, Piece], Value]] = {
    Kind.DATE: _date,
    Kind.PERIOD: _period,
    Kind.NUMBER: _number,
    Kind.TEXT: _text,
    Kind.TAG: _text,
    Kind.PATH: _path,
    Kind.FOLDER: _folder,
    Kind.CHOICE: _choice,
    Kind.SIMILAR: _similar,
}
