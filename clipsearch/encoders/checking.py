"""What encoders are given, before anything computes with it: a bad call must break no later one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from clipsearch.errors import VectorError
from clipsearch.vectors import Pixels


def checked_pixels(batch: Any, height: int, width: int) -> Pixels:
    """(n, 3, height, width) uint8 that lie in one piece; VectorError says what else it was."""
    try:
        pixels = np.asarray(batch)
    except (ValueError, TypeError) as error:  # pictures of several sizes, or no numbers at all
        raise VectorError(reason=f"encode_images cannot take it as an array: {error}") from error
    if pixels.ndim == 1 and not len(pixels):
        return np.empty((0, 3, height, width), np.uint8)
    wanted = f"(n, 3, {height}, {width}) uint8"
    found = f"{pixels.shape} {pixels.dtype}"
    if pixels.shape[1:] != (3, height, width) or pixels.ndim != 4:
        advice = "pictures go through Encoder.preprocess first"
        if pixels.ndim == 3:
            advice = "one picture is a batch of one: picture[None]"
        elif pixels.ndim == 4 and pixels.shape[-1] == 3:
            advice = "colours come first: batch.transpose(0, 3, 1, 2)"
        raise VectorError(reason=f"encode_images takes {wanted}, not {found}: {advice}")
    if pixels.dtype != np.uint8:
        raise VectorError(
            reason=f"encode_images takes {wanted}, not {found}: levels from 0 to 255, which it "
            "normalises itself"
        )
    return np.ascontiguousarray(pixels)


def checked_texts(texts: Any) -> list[str]:
    """The texts as a list; VectorError for what is no text, or one text alone.

    What cannot be UTF-8, half of a surrogate pair, becomes a question mark.
    """
    if isinstance(texts, (str, bytes)) or not isinstance(texts, Iterable):
        raise VectorError(reason=f"encode_texts takes a list of texts, not {_shown(texts)}")
    found = list(texts)
    for place, text in enumerate(found):
        if not isinstance(text, str):
            raise VectorError(reason=f"encode_texts: text {place} is {_shown(text)}, not a str")
    return [text.encode("utf-8", "replace").decode() for text in found]


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {value!r:.60}"
