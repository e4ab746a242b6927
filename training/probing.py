"""Where the general pictures and texts are from that a fine-tuned model must not forget."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from clipsearch.errors import CaptionFileError, ImageError, LibraryNotFoundError
from clipsearch.library import Library
from clipsearch.library.records import PICTURE
from training.captions.images import ImageFile
from training.data import CaptionedPicture, checked_hash, read_captions
from training.forgetting import Probe
from training.general_texts import general_texts

# Fewer photos of a library than this say too little; more than this take long and say no more.
_LEAST_PICTURES, _MOST_PICTURES = 100, 300
_TEXTS = 200


def find_probe(
    file: Path | None,
    library: Path | None,
    learnt: Sequence[CaptionedPicture],
    seed: int,
    *,
    spill_in: Path | None = None,
) -> Probe:
    """The best probe that is at hand: a caption file, else the library's other photos, else texts.

    What is in ``learnt`` is left out. Raises CaptionFileError for ``file``; a library that is not
    there or too small is none.
    """
    known = {picture.content_hash for picture in learnt}
    if file is not None:
        found = [p for p in read_captions(file, spill_in).pictures if p.content_hash not in known]
        if len(found) < 2:
            raise CaptionFileError(
                path=file,
                reason="its pictures are also learnt, so they say nothing of what is forgotten",
                advice="Give others with --probe, or leave it out.",
            )
        return captioned_probe(found, f"the captions of {file.name}")
    pictures = _library_pictures(library, known, seed) if library is not None else []
    if len(pictures) >= _LEAST_PICTURES:
        return Probe(
            source="library",
            pictures=tuple(pictures),
            texts=tuple(general_texts(_TEXTS, "probe")),
            owner=None,
            trust=f"{len(pictures)} other photos of the library and {_TEXTS} general texts; the "
            "old model's answers count as right. Real captions fell up to twice as far in our "
            "measurements: --probe FILE is better",
        )
    return Probe(
        source="texts",
        pictures=(),
        texts=tuple(general_texts(_TEXTS, "probe")),
        owner=None,
        trust=f"{_TEXTS} general texts alone, for want of other photos: a rough guess. Index more "
        "photos, or give captioned ones with --probe FILE",
    )


def captioned_probe(pictures: Sequence[CaptionedPicture], name: str) -> Probe:
    """General pictures with captions of their own: the most that can be had."""
    few = "" if len(pictures) >= _LEAST_PICTURES else "; few, so a caption more or less decides"
    return Probe(
        source="file",
        pictures=tuple(pictures),
        texts=tuple(caption for picture in pictures for caption in picture.captions),
        owner=tuple(n for n, picture in enumerate(pictures) for _ in picture.captions),
        trust=f"{len(pictures)} pictures with captions, {name}{few}",
    )


def _library_pictures(library: Path, known: set[str], seed: int) -> list[CaptionedPicture]:
    """Some of its photos that are there, without their captions."""
    try:
        with Library.open(library) as opened:
            ids = [int(item) for item in opened.present_items()]
            random.Random(seed).shuffle(ids)
            ids = ids[: 2 * _MOST_PICTURES]
            items, paths = opened.items(ids), opened.paths(ids)
    except LibraryNotFoundError:
        return []
    chosen: list[CaptionedPicture] = []
    for item in ids:
        if len(chosen) == _MOST_PICTURES:
            break
        content = items[item].content_hash
        if item in paths and items[item].kind == PICTURE and content not in known:
            with suppress(ImageError):  # gone or damaged since it was indexed
                if checked_hash(paths[item][0]) == content:
                    chosen.append(CaptionedPicture(ImageFile(paths[item][0]), content, ()))
    return chosen
