"""What an answer says about how its question was read, where it could have been read otherwise."""

from __future__ import annotations

from collections.abc import Sequence

from clipsearch.naming import spelt_otherwise
from clipsearch.query import Near, Query

_SHOWN = 3  # of the other cities of a name
_MOST_WORDS = 4  # of a city's name, after its first


def question_notes(query: Query, names: Sequence[str]) -> tuple[str, ...]:
    """Sentences for the asker; ``names`` are the learned ones."""
    texts = [str(term.value) for term in query.terms if term.kind == "text"]
    spelt = dict.fromkeys(name for text in texts for name in spelt_otherwise(text, names))
    return (
        *query.notes,
        *(
            f"'{name}' is a learned name; it is meant only where its capitals, accents and "
            "hyphens stand as it was learned"
            for name in spelt
        ),
        *(
            note
            for one in query.filters
            for value in one.values
            if isinstance(value, Near) and isinstance(value.place, str)
            for note in (*_place_notes(value.place), *_longer_names(value.place, texts))
        ),
    )


def _longer_names(name: str, texts: Sequence[str]) -> list[str]:
    """Cities of several words, of which only the first stood behind the colon."""
    from clipsearch.places import is_city

    for text in texts:
        words = text.split()[:_MOST_WORDS]
        for count in range(len(words), 0, -1):
            longer = " ".join((name, *words[:count]))
            if is_city(longer):
                return [
                    f"'{' '.join(words[:count])}' was read as words to look for; for the city "
                    f'write near:"{longer}"'
                ]
    return []


def _place_notes(name: str) -> list[str]:
    """Which city a name was taken for, where several have it."""
    from clipsearch.places import find_place  # its table takes a third of a second

    found, _ = find_place(name)
    if found is None or not found.others:
        return []
    shown = "; ".join(found.others[:_SHOWN])
    rest = len(found.others) - _SHOWN
    more = f"; and {rest} more" if rest > 0 else ""
    return [
        f"near:{name} was taken as {found.label}. Others of the name: {shown}{more}. "
        f'Say which: near:"{found.others[0]}"'
    ]
