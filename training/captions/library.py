"""Captions out of a library: only what people and their files said, never what a model guessed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from clipsearch.errors import QueryError
from clipsearch.library import PICTURE, Library
from clipsearch.query import parse
from training.captions.images import ImageFile
from training.captions.rows import Row, Rows, captions_of, photo_of

_MOST_TOGETHER = 4  # tags that are also named in one caption
_AT_ONCE = 500
# What cameras write into the description of every photo.
_CAMERAS_OWN = ("olympus digital camera", "sony dsc", "dcim", "digital camera", "untitled")


def read_library(path: Path) -> Rows:
    """The photos of a library that something was said of, by item; no moments of videos.

    Captions are taken as they are. A tag that a person or a file gave, or a review confirmed,
    becomes "a photo of TAG" (of a hierarchy the last part); two to four of them are also one
    caption together. A query whose answer got a thumb up is a caption, if it holds nothing but
    words. Tags that a model gave count for nothing unless a person accepted them, and no tag counts
    that one declined.
    """
    with Library.open(path) as library:
        said_yes: dict[int, list[str]] = {}
        for answer in library.opinions.answers():
            if answer.relevant and (query := _plain_words(answer.query)):
                said_yes.setdefault(answer.item, []).append(query)
        declined: dict[int, set[str]] = {}
        accepted: dict[int, list[str]] = {}
        for item, name, yes, _ in library.tags.answers():
            if yes:
                accepted.setdefault(item, []).append(name)
            else:
                declined.setdefault(item, set()).add(name.casefold())
        ids = library.present_items().tolist()
        for start in range(0, len(ids), _AT_ONCE):
            some = ids[start : start + _AT_ONCE]
            items, paths = library.items(some), library.paths(some)
            for item in some:
                if item not in paths or items[item].kind != PICTURE:
                    continue
                words = library.words_of(item)
                refused = declined.get(item, set())
                tags = [*(name for name, _ in words.tags), *accepted.get(item, ())]
                captions = dict.fromkeys(
                    [
                        *_written(text for text, _ in words.captions),
                        *of_tags(tag for tag in tags if tag.casefold() not in refused),
                        *said_yes.get(item, ()),
                    ]
                )
                if captions:
                    where = str(paths[item][0])
                    yield Row(where, ImageFile(paths[item][0]), tuple(captions))


def of_tags(tags: Iterable[str]) -> list[str]:
    """Captions for the tags of one picture; of ``Places|France`` it says France."""
    last = [tag.replace("/", "|").rpartition("|")[2].strip() for tag in tags]
    names = list({name.casefold(): name for name in reversed(last) if name}.values())[::-1]
    captions = [photo_of(name) for name in names]
    if 2 <= len(names) <= _MOST_TOGETHER:
        captions.append(photo_of(f"{', '.join(names[:-1])} and {names[-1]}"))
    return captions


def _written(texts: Iterable[str]) -> Iterable[str]:
    for text in texts:
        for caption in captions_of(text):
            if caption.casefold() not in _CAMERAS_OWN:
                yield caption


def _plain_words(query: str) -> str:
    """A query that is one text and nothing else, as a caption; of all others nothing."""
    try:
        parsed = parse(query)
    except QueryError:
        return ""
    if len(parsed.terms) != 1 or parsed.filters:
        return ""
    term = parsed.terms[0]
    return str(term.value) if term.kind == "text" and term.weight > 0 else ""
