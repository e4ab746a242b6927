"""Which words of a text a model does not read: it takes a number of tokens and leaves the rest."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from clipsearch.encoders.protocol import Encoder

_WORD = re.compile(r"\S+")
_LONGEST_WORD = 40  # characters; longer ones are of a script without spaces, and are cut within
_SHOWN, _BEGINNING = 600, 40  # characters


@runtime_checkable
class Limited(Protocol):
    """An encoder that reads so many tokens of a text, begin and end included."""

    @property
    def context_length(self) -> int: ...

    def unread(self, texts: Sequence[str]) -> list[str]:
        """Of each text the words that are not read, "" where all are."""
        ...


def unread_words(text: str, is_cut: Callable[[str], bool]) -> str:
    """The end of a text that is not read; the first of its words may be read in part."""
    if not is_cut(text):
        return ""
    words = list(_WORD.finditer(text))
    ends = [word.end() for word in words]
    at = min(bisect_left(ends, True, key=lambda end: is_cut(text[:end])), len(words) - 1)
    begin, end = words[at].span() if words else (0, len(text))
    if end - begin > _LONGEST_WORD:
        places = range(begin + 1, end + 1)
        begin += bisect_left(places, True, key=lambda place: is_cut(text[:place]))
    return text[begin:].rstrip()


def told_unread(encoder: Encoder, texts: Sequence[str]) -> tuple[str, ...]:
    """A note for people on each text that the encoder does not read to its end."""
    if not isinstance(encoder, Limited):
        return ()
    notes = [
        f"'{_beginning(text)}' is longer than the model reads ({encoder.context_length} tokens). "
        f"Not read: {_shortened(unread)}"
        for text, unread in zip(texts, encoder.unread(texts), strict=True)
        if unread
    ]
    return tuple(dict.fromkeys(notes))


def counted_unread(encoder: Encoder, texts: Sequence[str], what: str) -> str | None:
    """One note on all texts that are not read to their end, such as captions; None if all are."""
    if not isinstance(encoder, Limited):
        return None
    return summed_unread(texts, encoder.unread(texts), encoder.context_length, what)


def summed_unread(
    texts: Sequence[str],
    unread: Sequence[str],
    context_length: int,
    what: str,
    reader: str = "the model",
) -> str | None:
    """As ``counted_unread``, of what is known of each text already."""
    cut = [(text, rest) for text, rest in zip(texts, unread, strict=True) if rest]
    if not cut:
        return None
    text, rest = cut[0]
    return (
        f"{len(cut):,} of {len(texts):,} {what} {'is' if len(cut) == 1 else 'are'} longer than "
        f"{reader} reads "
        f"({context_length} tokens); of '{_beginning(text)}' it does not read: {_shortened(rest)}"
    )


def _beginning(text: str) -> str:
    return text if len(text) <= _BEGINNING else f"{text[:_BEGINNING].rstrip()}…"


def _shortened(text: str) -> str:
    if len(text) <= _SHOWN:
        return text
    half = _SHOWN // 2
    return f"{text[:half].rstrip()} … {text[-half:].lstrip()} ({len(text.split()):,} words)"
