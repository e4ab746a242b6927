"""What a query is: frozen values, which compare equal when they ask for the same."""

from __future__ import annotations

from dataclasses import dataclass, field

from clipsearch.query.folding import clean

SMALLEST_WEIGHT, LARGEST_WEIGHT = 0.001, 10.0
ORDERS = ("score", "date", "-date", "name", "-name")
AUTO, NONE = "auto", "none"


@dataclass(frozen=True)
class Term:
    """Something a picture is compared with. ``weight`` below 0 means that it should not be there.

    ``value`` is a text, which ``words`` cleans; of a picture an item's number or a file's path.
    """

    kind: str  # "text" or "image"
    value: str | int
    weight: float = 1.0


@dataclass(frozen=True)
class Span:
    """Numbers from ``low`` to ``high``; None is no limit. ``open`` leaves the one limit out."""

    low: float | None = None
    high: float | None = None
    open: bool = False

    def __post_init__(self) -> None:
        if (self.low is None and self.high is None) or (
            self.open and None not in (self.low, self.high)
        ):
            raise ValueError(f"no span is written like this: {self!r}")


@dataclass(frozen=True)
class Period:
    """Times from the beginning of ``first`` to the end of ``last``: "2023", "2023-06-05T14:30"."""

    first: str
    last: str


@dataclass(frozen=True)
class Near:
    """What lies around a place, by its name or by degrees north and east."""

    place: str | tuple[float, float]
    radius_km: float


@dataclass(frozen=True)
class Like:
    """Pictures whose cosine to a picture (an item's number or a file) lies in a span."""

    picture: str | int
    cosines: Span


Value = str | Span | Period | Near | Like


@dataclass(frozen=True)
class Filter:
    """What a picture has to be: any of ``values``; with ``negated`` none of them."""

    field: str
    values: tuple[Value, ...]
    negated: bool = False


@dataclass(frozen=True)
class Query:
    """A question: what to rank by, what to leave out, in which order, how many, how far down.

    ``cutoff`` is "auto", "none", or the least score. ``distinct`` shows only the best of pictures
    that are nearly the same. An empty ``order`` means by score, or without terms the newest first.
    ``notes`` say how what was written could also have been meant; two queries that differ in them
    alone are equal.
    """

    terms: tuple[Term, ...] = ()
    filters: tuple[Filter, ...] = ()
    order: str = ""
    limit: int | None = None
    cutoff: float | str = AUTO
    distinct: bool = False
    notes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def is_empty(self) -> bool:
        """True if it asks for nothing: no words, no picture, no filter."""
        return not self.terms and not self.filters

    def __str__(self) -> str:
        from clipsearch.query.printing import print_query

        return print_query(self)


def words(text: str) -> Query:
    """A query for exactly this text, whatever it holds: nothing in it is taken as language."""
    cleaned = clean(text)
    return Query(terms=(Term("text", cleaned),) if cleaned else ())
