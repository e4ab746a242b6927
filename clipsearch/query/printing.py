"""Query to text: ``parse`` of what is printed gives the same query again."""

from __future__ import annotations

import re

from clipsearch.query.fields import FIELDS, Kind
from clipsearch.query.parsing import CLOSING, parse
from clipsearch.query.terms import AUTO, Filter, Like, Near, Period, Query, Span, Term, Value

_BARE = re.compile(r"[\w./#*?~@+-]+")


def print_query(query: Query) -> str:
    """The query as a person would write it."""
    return " ".join(print_pieces(query))


def print_pieces(query: Query) -> list[str]:
    """The words, each filter and each option by itself."""
    pieces = []
    has_plain_words = False
    for term in query.terms:
        is_plain = term.kind == "text" and term.weight == 1 and not has_plain_words
        has_plain_words |= is_plain
        pieces.append(_plain(str(term.value)) if is_plain else _term(term))
    pieces += [print_filter(one) for one in query.filters]
    if query.order:
        pieces.append(f"sort:{query.order}")
    if query.limit is not None:
        pieces.append(f"limit:{query.limit}")
    if query.cutoff != AUTO:
        pieces.append(f"cutoff:{query.cutoff}")
    if query.distinct:
        pieces.append("duplicate:no")
    return pieces


def print_filter(one: Filter) -> str:
    """One filter."""
    values = ",".join(_numbers(one.field, one.values) or _values(one.field, one.values))
    return f"{'-' if one.negated else ''}{one.field}:{values}"


def _values(name: str, values: tuple[Value, ...]) -> list[str]:
    return [_value(name, value) for value in values]


def _numbers(name: str, values: tuple[Value, ...]) -> list[str]:
    """A list of numbers, all with a sign and all with a unit if any has one; else nothing."""
    spans = [value for value in values if isinstance(value, Span)]
    if len(spans) < 2 or len(spans) < len(values):
        return []
    written = _values(name, values)
    if any(span.low != span.high for span in spans):
        written = [
            f"={text}" if span.low == span.high else text
            for span, text in zip(spans, written, strict=True)
        ]
    has_unit = [text[-1].isalpha() for text in written]
    if "mb" in FIELDS[name].units and any(has_unit) and not all(has_unit):
        written = [
            text if unit else f"{text}B" for text, unit in zip(written, has_unit, strict=True)
        ]
    return written


def _plain(text: str) -> str:
    """Words as they are where they would be understood as nothing else, else in quotes."""
    found = None
    if ":" not in text and not CLOSING.keys() & set(text):  # an opened quote ends anywhere
        found = parse(text)
    return text if found == Query(terms=(Term("text", text),)) else quoted(text)


def _term(term: Term) -> str:
    weight = abs(term.weight)
    sign = "-" if term.weight < 0 else "" if weight != 1 or term.kind == "image" else "+"
    factor = "" if weight == 1 else f"{_number(weight)}:"
    value = f"image:{_picture(term.value)}" if term.kind == "image" else _words(str(term.value))
    return f"{sign}{factor}{value}"


def _words(text: str) -> str:
    return text if text.isalpha() else quoted(text)


def quoted(text: str) -> str:
    """A text in quotes, with what would end them marked."""
    marked = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{marked}"'


def _picture(named: str | int) -> str:
    if isinstance(named, int):
        return f"#{named}"
    return named if _BARE.fullmatch(named) and not named.startswith("#") else quoted(named)


def _value(name: str, value: Value) -> str:
    if isinstance(value, Span):
        return _span(value, FIELDS[name].units)
    if isinstance(value, Period):
        return value.first if value.first == value.last else f"{value.first}..{value.last}"
    if isinstance(value, Near):
        place = (
            quoted(value.place)
            if isinstance(value.place, str)
            else ",".join(map(_number, value.place))
        )
        return f"{place},{_number(value.radius_km)}km"
    if isinstance(value, Like):
        return f"{_picture(value.picture)}{_span(value.cosines, {})}"
    if FIELDS[name].kind in (Kind.DATE, Kind.CHOICE):
        return value
    return value if _BARE.fullmatch(value) else quoted(value)


def _span(span: Span, units: dict[str, float]) -> str:
    if span.low is not None and span.high is not None:
        low, high = _amount(span.low, units), _amount(span.high, units)
        return low if span.low == span.high else f"{low}..{high}"
    equal = "" if span.open else "="
    if span.low is not None:
        return f">{equal}{_amount(span.low, units)}"
    return f"<{equal}{_amount(span.high or 0.0, units)}"


def _amount(number: float, units: dict[str, float]) -> str:
    """In the largest decimal unit of bytes that gives a whole number; others have one unit."""
    if "mb" in units and number >= 1000:
        for unit in ("GB", "MB", "kB"):
            if number % units[unit.lower()] == 0:
                return f"{_number(number / units[unit.lower()])}{unit}"
    return _number(number)


def _number(number: float) -> str:
    return repr(int(number)) if number == int(number) and abs(number) < 1e15 else repr(number)
