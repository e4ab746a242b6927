"""CLIP's byte-pair tokenizer without torch: the same ids as open_clip's, from its vocabulary file.

The method is CLIP's (Radford et al. 2021, section 2.4): lower-cased byte-pair encoding with 49,152
tokens, texts between a start and an end token, cut to the context length.
"""

from __future__ import annotations

import gzip
import html
import string
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import count, pairwise

import numpy as np
import regex
from numpy.typing import NDArray

from clipsearch.encoders.registry import package_folder

VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
_MERGES = 49152 - 256 - 2
_SPECIAL = ("<start_of_text>", "<end_of_text>")
_PATTERN = regex.compile(
    "|".join(_SPECIAL) + r"""|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+""",
    regex.IGNORECASE,
)
# Text that ftfy and html.unescape leave as it is, so that a plain query need not import ftfy.
_PLAIN = regex.compile(r"[ -%'-~]*")


class BytePairTokenizer:
    """Texts to token ids; ``clean`` is open_clip's option of the same name."""

    def __init__(self, context_length: int, clean: str = "lower") -> None:
        self.context_length = context_length
        self._clean: Callable[[str], str] = _CLEANERS[clean]
        self._ids, self._ranks = _vocabulary()

    def __call__(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """(n, context_length) ids, zero after the end token; longer texts are cut."""
        tokens = np.zeros((len(texts), self.context_length), np.int64)
        start, end = self._ids[_SPECIAL[0]], self._ids[_SPECIAL[1]]
        for row, text in enumerate(texts):
            ids = [start, *self.encode(text), end]
            if len(ids) > self.context_length:
                ids = [*ids[: self.context_length - 1], end]
            tokens[row, : len(ids)] = ids
        return tokens

    def encode(self, text: str) -> list[int]:
        """The ids of one text, without start and end."""
        ids: list[int] = []
        for word in _PATTERN.findall(self._clean(text)):
            if word in _SPECIAL:
                ids.append(self._ids[word])
                continue
            letters = "".join(_BYTE_LETTERS[byte] for byte in word.encode("utf-8"))
            ids.extend(self._ids[part] for part in _merged(letters))
        return ids


def can_tokenize(clean: str) -> bool:
    """True if ``clean`` is an option that this tokenizer knows."""
    return clean in _CLEANERS


def _basic_clean(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text.strip()
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


@lru_cache(maxsize=1)
def _vocabulary() -> tuple[dict[str, int], dict[str, int]]:
    """The id of each token, and the rank of each merge, "first second"."""
    path = package_folder("open_clip") / VOCABULARY
    lines = gzip.decompress(path.read_bytes()).split(b"\n", _MERGES + 1)[1 : _MERGES + 1]
    text = b"\n".join(lines).decode("utf-8")
    merges = text.split("\n")
    # The file lists printable bytes first, then the others, in the order of their letters.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    order = [*printable, *(byte for byte in range(256) if byte not in set(printable))]
    letters = [_BYTE_LETTERS[byte] for byte in order]
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    tokens += text.replace(" ", "").split("\n")
    tokens += _SPECIAL
    return dict(zip(tokens, count())), dict(zip(merges, count()))


@lru_cache(maxsize=65536)
def _merged(letters: str) -> tuple[str, ...]:
    """The tokens of one word: the pair of lowest rank is merged until none is left."""
    _, ranks = _vocabulary()
    parts = [*letters[:-1], letters[-1] + "</w>"]
    while len(parts) > 1:
        pair = min(pairwise(parts), key=lambda pair: ranks.get(" ".join(pair), _MERGES))
        if " ".join(pair) not in ranks:
            break
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
    return tuple(parts)
