"""Which texts a tokenizer of open_clip cuts, of which it says nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import open_clip
import torch

from clipsearch.encoders.unread import unread_words

_DEFAULT_LENGTH = 77
_MOST_ADDED = 8  # tokens: begin, end, language
_LEAST_SPARE = 64


def context_length_of(tokenizer: Any) -> int:
    """The tokens of a text that are read, begin and end included."""
    return int(getattr(tokenizer, "context_length", None) or _DEFAULT_LENGTH)


def unread_by(tokenizer: Callable[..., torch.Tensor], texts: Sequence[str]) -> list[str]:
    """Of each text the words that are not read, "" where all are."""
    is_cut = cutting(tokenizer)
    return [unread_words(text, is_cut) for text in texts]


def cutting(tokenizer: Callable[..., torch.Tensor]) -> Callable[[str], bool]:
    """A function that is true of texts whose last tokens are not read."""
    length = context_length_of(tokenizer)
    encode = tokenizer.encode if isinstance(tokenizer, open_clip.SimpleTokenizer) else None

    def is_cut(text: str) -> bool:
        # No token is shorter than a byte, so most texts need not be looked at.
        if len(text.encode()) + _MOST_ADDED <= length:
            return False
        if encode is not None:
            return len(encode(text)) + 2 > length
        # More room than the text can need: most of it is then what a short text is filled up with.
        room = 2 * (length + len(text.encode())) + _LEAST_SPARE
        wide = tokenizer([text], context_length=room)[0]
        filler = wide.mode().values
        read = tokenizer([text], context_length=length)[0]
        return bool((read != filler).sum() < (wide != filler).sum())

    return is_cut
