"""Texts as they are compared: without case, accents and punctuation, as words with blanks before.

A phrase stands in a text where its folded form is a part of the text's folded form. As every word
has a blank before it, a match begins at the beginning of a word: "50mm" is not in "150mm".
"""

from __future__ import annotations

import re
import unicodedata

_SPACE = re.compile(r"\s+")
_GAPS = re.compile(r"[\W_]+")
# Scripts that put no blanks between words: each of their characters counts as a word.
_UNSPACED = re.compile("([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff])")
_NO_TEXT = ("Cc", "Cs")  # control characters, halves of surrogate pairs
# What phones, word processors and web pages put in place of what a keyboard has.
DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d"
_APOSTROPHES = "'\u2018\u2019\u201b\u02bc\u02b9\u2032\u00b4`\uff07"
_BLANKS = "\u00a0\u2007\u2009\u202f\u3000"
_AS_TYPED = str.maketrans(
    {
        **dict.fromkeys(DASHES, "-"),
        **dict.fromkeys(_APOSTROPHES, "'"),
        **dict.fromkeys(_BLANKS, " "),
        "\u00ad": "",  # a soft hyphen, seen only where a line ends
        "\u200b": "",
        "\ufeff": "",
    }
)
_NUMBER_SIGNS = str.maketrans(
    {**dict.fromkeys(DASHES, "-"), "\u2265": ">=", "\u2264": "<=", "\u2026": ".."}
)


def clean(text: str) -> str:
    """Text as it is searched for: control characters and runs of white space are one blank."""
    if not text.isprintable():
        text = "".join(" " if unicodedata.category(c) in _NO_TEXT else c for c in text)
    return _SPACE.sub(" ", text).strip()


def as_typed(text: str) -> str:
    """Text composed (NFC), with the apostrophes, hyphens and blanks that a keyboard has."""
    return unicodedata.normalize("NFC", text).translate(_AS_TYPED)


def as_number(text: str) -> str:
    """Numbers with the signs that a keyboard has: >= in two characters, - for a minus."""
    return text.translate(_NUMBER_SIGNS)


def fold(text: str) -> str:
    """Text without case and accents: "Élan" and "elan" are the same."""
    if text.isascii():
        return text.lower()
    spread = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in spread if unicodedata.category(c) != "Mn").casefold()


def folded_words(text: str) -> str:
    """The words of a text, each with one blank before it; "" where there is none."""
    folded = fold(text)
    if not folded.isascii():
        folded = _UNSPACED.sub(r" \1", folded)
        folded = "".join(f" {c} " if unicodedata.category(c) == "So" else c for c in folded)
        words = [w for part in folded.split() for w in _words_of(part)]
    else:
        words = _GAPS.sub(" ", folded).split()
    return "".join(f" {word}" for word in words)


def is_unspaced(character: str) -> bool:
    """True for a character of a script that puts no blanks between words."""
    return _UNSPACED.fullmatch(character) is not None


def _words_of(part: str) -> list[str]:
    """An emoji is a word of its own, all else is split at what is no letter and no digit."""
    if len(part) == 1 and unicodedata.category(part) == "So":
        return [part]
    return _GAPS.sub(" ", part).split()
