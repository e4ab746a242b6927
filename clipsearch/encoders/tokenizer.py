"""CLIP's byte-pair tokenizer without torch: the same ids as open_clip's, from its vocabulary file.

The method is CLIP's (Radford et al. 2021, section 2.4): lower-cased byte-pair encoding with 49,152
tokens, texts between a start and an end token, cut to the context length.
"""

from __future__ import annotations

import re
import string
import zlib
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from itertools import count, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsearch.encoders.registry import package_folder

VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
_MERGES = 49152 - 256 - 2
_FIRST_MERGED = 512  # the ids below are those of single letters, then of letters that end a word
_MERGED_BYTES = 600_000  # somewhat more than the merges that are used; the file has five times more
_SPECIAL = {"<start_of_text>": 49406, "<end_of_text>": 49407}
_CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
# Of ASCII, whose letters and digits the standard library knows: most questions need no regex.
_ASCII_WORDS = re.compile(
    "|".join(_SPECIAL) + rf"|{_CONTRACTIONS}|[a-z]+|[0-9]|[^\sa-z0-9]+", re.IGNORECASE | re.ASCII
)
# Text that ftfy and html.unescape leave as it is, so that a plain query need not import ftfy.
_PLAIN = re.compile(r"[ -%'-~]*")


@cache
def _any_words() -> Any:
    import regex

    words = rf"|{_CONTRACTIONS}|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+"
    return regex.compile("|".join(_SPECIAL) + words, regex.IGNORECASE)


class BytePairTokenizer:
    """Texts to token ids; ``clean`` is open_clip's option of the same name."""

    def __init__(self, context_length: int, clean: str = "lower") -> None:
        self.context_length = context_length
        self._clean: Callable[[str], str] = _CLEANERS[clean]
        _ranks()  # read now, so that no question waits for it

    def __call__(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """(n, context_length) ids, zero after the end token; longer texts are cut."""
        tokens = np.zeros((len(texts), self.context_length), np.int64)
        start, end = _SPECIAL.values()
        for row, text in enumerate(texts):
            ids = [start, *self.encode(text), end]
            if len(ids) > self.context_length:
                ids = [*ids[: self.context_length - 1], end]
            tokens[row, : len(ids)] = ids
        return tokens

    def is_cut(self, text: str) -> bool:
        """True if the end of a text is not among its ids."""
        # No token is shorter than a byte, so most texts need not be looked at.
        if len(text.encode()) + 2 <= self.context_length:
            return False
        return len(self.encode(text)) + 2 > self.context_length

    def encode(self, text: str) -> list[int]:
        """The ids of one text, without start and end."""
        ids: list[int] = []
        clean = self._clean(text)
        words = _ASCII_WORDS if clean.isascii() else _any_words()
        for word in words.findall(clean):
            if word in _SPECIAL:
                ids.append(_SPECIAL[word])
                continue
            letters = "".join(_BYTE_LETTERS[byte] for byte in word.encode("utf-8"))
            ids.extend(_merged(letters))
        return ids


def can_tokenize(clean: str) -> bool:
    """True if ``clean`` is an option that this tokenizer knows."""
    return clean in _CLEANERS


def _basic_clean(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text.strip()
    import html

    import ftfy

    text = ftfy.fix_text(text)
    return html.unescape(html.unescape(text)).strip()


def _whitespace_clean(text: str) -> str:
    return " ".join(text.split()).strip()


def _clean_lower(text: str) -> str:
    return _whitespace_clean(_basic_clean(text)).lower()


def _clean_whitespace(text: str) -> str:
    return _whitespace_clean(_basic_clean(text))


def _clean_canonicalize(text: str) -> str:
    """Without punctuation and in lower case, as SigLIP's texts (big_vision) are."""
    text = _basic_clean(text).replace("_", " ")
    text = text.translate(str.maketrans("", "", string.punctuation)).lower()
    return " ".join(text.split()).strip()


_CLEANERS: dict[str, Callable[[str], str]] = {
    "lower": _clean_lower,
    "whitespace": _clean_whitespace,
    "canonicalize": _clean_canonicalize,
}


def _byte_letters() -> dict[int, str]:
    """A printable letter for each byte, as the vocabulary file was written with."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in letters)
    letters.update({byte: chr(256 + place) for place, byte in enumerate(others)})
    return letters


_BYTE_LETTERS = _byte_letters()


# The ids of letters: printable bytes first, then the others.
_LETTER_IDS = {letter: number for number, letter in enumerate(_BYTE_LETTERS.values())}
_LETTER_IDS |= {f"{letter}</w>": number + 256 for letter, number in _LETTER_IDS.items()}


@cache
def _ranks() -> dict[str, int]:
    """The rank of each merge, "first second"; its token has the id _FIRST_MERGED + rank."""
    packed = (package_folder("open_clip") / VOCABULARY).read_bytes()
    unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)  # gzip's header
    text = unpacking.decompress(packed, _MERGED_BYTES)
    merges = text.split(b"\n", _MERGES + 1)[1 : _MERGES + 1]  # the first line is a title
    return dict(zip(b"\n".join(merges).decode("utf-8").split("\n"), count()))


@lru_cache(maxsize=65536)
def _merged(letters: str) -> tuple[int, ...]:
    """The ids of one word: the pair of lowest rank is merged until none is left."""
    ranks = _ranks()
    parts = [*letters[:-1], letters[-1] + "</w>"]
    made: dict[str, int] = {}
    while len(parts) > 1:
        pair = min(pairwise(parts), key=lambda pair: ranks.get(" ".join(pair), _MERGES))
        rank = ranks.get(" ".join(pair))
        if rank is None:
            break
        made["".join(pair)] = _FIRST_MERGED + rank
        joined: list[str] = []
        place = 0
        while place < len(parts):
            if place + 1 < len(parts) and (parts[place], parts[place + 1]) == pair:
                joined.append(parts[place] + parts[place + 1])
                place += 2
            else:
                joined.append(parts[place])
                place += 1
        parts = joined
    return tuple(made[part] if part in made else _LETTER_IDS[part] for part in parts)
