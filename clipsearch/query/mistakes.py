"""A mistake in a query, shown: what is wrong, the place in the text, and a caret under it."""

from __future__ import annotations

import unicodedata

from clipsearch.errors import QueryError

_SHOWN = 68  # characters of a long query that are shown around the place


def mistake(text: str, start: int, end: int, message: str) -> QueryError:
    """The error for ``text[start:end]``; its fields hold the lines and the place, too."""
    end = max(end, start + 1)
    first = 0 if end <= _SHOWN else max(0, start - _SHOWN // 2)
    shown = text[first : first + _SHOWN]
    before = "…" if first else ""
    after = "…" if first + len(shown) < len(text) else ""
    line = before + "".join(map(_visible, shown)) + after
    lead = len(before) + sum(map(_columns, shown[: start - first]))
    width = max(1, sum(map(_columns, shown[start - first : end - first])))
    marked = f"{' ' * lead}{'^' * width}"
    return QueryError(
        reason=f"{message}\n    {line}\n    {marked}",
        message=message,
        line=line,
        marked=marked,
        start=start,
        end=min(end, len(text)),
    )


def _visible(character: str) -> str:
    return " " if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") else character


def _columns(character: str) -> int:
    """How many columns a terminal gives a character."""
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
