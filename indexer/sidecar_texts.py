"""The texts beside pictures: captions, and tags as trainers of models and boorus write them."""

from __future__ import annotations

import re
from collections.abc import Collection

from clipsearch.uniting import MAX_CAPTIONS, Pair, SidecarSaying
from indexer.fields import clean_caption, clean_keywords, decode_text

_SENTENCE_END = (".", "!", "?", "。")
_SENTENCE_WORDS = frozenset(("a", "an", "the", "and", "or", "with", "is", "are", "there"))
_WEIGHT = re.compile(r":[\d.]+\)*\Z")
_FACE_CHARACTERS = 3  # "o_o" is a face, not two words


def read_text(content: bytes, *, is_tags: bool) -> SidecarSaying | None:
    """Captions, one a line; or keywords, where a file is a list of them with commas.

    With ``is_tags`` every line is a keyword, or several with commas. None for what is no text.
    """
    if b"\0" in content and not content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return None
    text = decode_text(content)
    tags: list[str] | None
    if is_tags:
        parts = (part for line in text.splitlines() for part in line.split(","))
        tags = clean_keywords(plain_tag(part.strip()) for part in parts)
    else:
        lines = _unwrapped(text)
        tags = _tags(lines[0]) if len(lines) == 1 else None
    if tags is not None:
        return SidecarSaying({}, {}, keywords=tuple((tag, "txt") for tag in tags))
    return SidecarSaying({}, {}, captions=captions(lines, "txt"))


def _unwrapped(text: str) -> list[str]:
    """The lines that are not empty, those of a hard-wrapped paragraph joined."""
    lines: list[str] = []
    is_open = False  # the line before may go on: it is long and ends no sentence
    for line in map(str.strip, text.splitlines()):
        if is_open and line[:1].islower():
            lines[-1] += " " + line
        elif line:
            lines.append(line)
        is_open = len(line) >= 60 and not line.endswith(_SENTENCE_END)
    return lines


def _tags(line: str) -> list[str] | None:
    """The tags of a line like "1girl, long_hair, (smile:1.2)"; None for a sentence.

    It is a list when it has three parts or more of at most four words, on average at most two and
    a half, none of which begins as a part of a sentence does, and ends without a full stop.
    """
    parts = [part.strip() for part in line.split(",") if part.strip()]
    words = [part.split() for part in parts]
    if len(parts) < 3 or line.endswith(_SENTENCE_END):
        return None
    if max(map(len, words)) > 4 or sum(map(len, words)) > 2.5 * len(parts):
        return None
    if any(part[0].casefold() in _SENTENCE_WORDS for part in words):
        return None
    return clean_keywords(map(plain_tag, parts))


def plain_tag(tag: str) -> str:
    r"""A tag without the weight and escapes of prompts: "(long_hair:1.2)", "name \(work\)"."""
    if tag.startswith("(") and tag.endswith(")"):
        tag = _WEIGHT.sub("", tag.strip("()"))
    tag = tag.replace("\\", "")
    return tag if len(tag) <= _FACE_CHARACTERS else tag.replace("_", " ")


def captions(texts: Collection[object], source: str) -> tuple[Pair, ...]:
    cleaned = (clean_caption(text) for text in list(texts)[:MAX_CAPTIONS])
    return tuple((text, source) for text in cleaned if text)
