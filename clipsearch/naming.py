"""Learned names in a question: each stands for the mean of its photos, the rest stays words.

``Rex on the beach`` is the mean of Rex's photos and the text "something on the beach", added as
unit vectors like other parts of a question. What it was compared with: docs/concepts.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from clipsearch.errors import ConceptError
from clipsearch.library import Library, SpaceRecord
from clipsearch.query import Term
from clipsearch.query.folding import as_typed, clean, folded_words, is_unspaced
from clipsearch.ranking import IMAGE, MIXED, TEXT, Part
from clipsearch.vectors import Matrix, Vector, unit_rows, unit_vector

PLACEHOLDER = "something"  # stands in the words where a name was
# Words that only say a name in another way: "a photo of Rex", "Rex's pictures", "Rex and Molly".
_ADDS_NOTHING = re.compile(
    r"(?:\b(?:a|an|the|of|and|with|in|my|our|your|his|her|their|s"
    r"|photos?|pictures?|images?)\b|\W|_)*"
)


@dataclass(frozen=True)
class Said:
    """A text with the names in it: ``rest`` is what else it says, "" for nothing."""

    rest: str
    names: tuple[str, ...]  # each once


def said(text: str, names: Sequence[str]) -> Said:
    """Finds whole names as they are spelt, capitals and all; without any, the text is the rest.

    Which of the world's apostrophes, hyphens and blanks were typed makes no difference.
    """
    typed = as_typed(text)
    spelt = {as_typed(name): name for name in reversed(names)}
    spelt |= {as_typed(name): name for name in names if name in text}  # of twins the one typed
    present = [name for name in sorted(spelt, key=len, reverse=True) if name in typed]
    if not present:
        return Said(text, ())
    pattern = re.compile("|".join(map(_whole, present)))
    found = dict.fromkeys(spelt[match[0]] for match in pattern.finditer(typed))
    if not found:
        return Said(text, ())
    others = pattern.sub(" ", typed)
    if _ADDS_NOTHING.fullmatch(others.casefold()):
        return Said("", tuple(found))
    return Said(clean(pattern.sub(PLACEHOLDER, typed)), tuple(found))


def known_as(name: str, names: Sequence[str]) -> str:
    """The one of ``names`` that differs from a name in typography at most, or the name itself."""
    if name in names:
        return name
    typed = as_typed(name)
    return next((known for known in names if as_typed(known) == typed), name)


def spelt_otherwise(text: str, names: Sequence[str]) -> list[str]:
    """The names that a text holds but for capitals, accents and punctuation: they were not found.

    ``jose`` and ``annalena`` hold José and Anna-Lena.
    """
    present = said(text, names).names
    missing = {name: folded_words(name).split() for name in names if name not in present}
    words = folded_words(text).split()
    longest = max(map(len, missing.values()), default=0) + 1
    runs = {
        "".join(words[start:end])
        for start in range(len(words))
        for end in range(start + 1, min(start + longest, len(words)) + 1)
    }
    return [name for name, parts in missing.items() if parts and "".join(parts) in runs]


def _whole(name: str) -> str:
    """A pattern of the name where no letter or digit joins it."""
    before = "" if is_unspaced(name[0]) else r"(?<!\w)"
    after = "" if is_unspaced(name[-1]) else r"(?!\w)"
    return f"{before}{re.escape(name)}{after}"


def prototype(photos: Matrix) -> Vector:
    """The mean of (n, dim) photos as unit vectors (Snell et al. 2017, section 2.3)."""
    return unit_vector(unit_rows(photos).mean(axis=0))


def text_parts(
    library: Library,
    space: SpaceRecord,
    terms: Sequence[Term],
    encode: Callable[[list[str]], Matrix],
) -> list[Part]:
    """A part for each term of text, in their order; all texts are encoded at once.

    ConceptError for a name of which the space knows no photo.
    """
    names = library.concepts.names()
    texts = [said(str(term.value), names) for term in terms]
    rests = [one.rest for one in texts if one.rest]
    encoded = iter(encode(rests) if rests else ())
    known = {name: _known(library, space, name) for name in {n for one in texts for n in one.names}}
    parts = []
    for term, one in zip(terms, texts, strict=True):
        vectors = [prototype(known[name][1]) for name in one.names]
        kind = IMAGE if not one.rest else MIXED if one.names else TEXT
        if one.rest:
            vectors.append(next(encoded))
        vector = vectors[0] if len(vectors) == 1 else unit_vector(np.sum(vectors, axis=0))
        items = {int(item) for name in one.names for item in known[name][0] if item}
        parts.append(Part(vector, term.weight, kind, frozenset(items)))
    return parts


def _known(library: Library, space: SpaceRecord, name: str) -> tuple[np.ndarray, Matrix]:
    items, photos = library.concepts.vectors(name, space.id, space.space.dim)
    if not len(photos):
        raise ConceptError(
            reason=f"'{name}' is a learned name, but the model {space.address} has not seen its "
            f"photos. Show them again: clipsearch learn {name} PHOTO... "
            f"(or, if they are where they were, clipsearch learn {name})"
        )
    return items, photos
