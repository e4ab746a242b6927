"""Captions in text files beside photos: ``rose.jpg`` and ``rose.txt`` or ``rose.jpg.txt``."""

from __future__ import annotations

import os
from pathlib import Path

from clipsearch.errors import CaptionFileError
from clipsearch.images import EXTENSIONS
from training.captions.images import ImageFile
from training.captions.rows import Row, Rows, SkippedRow, lines_of

_ENDINGS = (".txt", ".caption")
_MOST_BYTES = 1_000_000


def read_sidecars(folder: Path) -> Rows:
    """The photos below a folder that have a text beside them, by path; each line is a caption.

    Photos without a text are left out; a text without a photo is listed, as its name may be a
    mistake. CaptionFileError if no photo has one.
    """
    photos = 0
    for parent, names, files in os.walk(folder):
        names[:] = sorted(name for name in names if not name.startswith("."))
        files.sort()
        texts = {name for name in files if name.lower().endswith(_ENDINGS)}
        used: set[str] = set()
        for name in files:
            if Path(name).suffix.lower() not in EXTENSIONS:
                continue
            photos += 1
            bases = (name, Path(name).stem)
            beside = [base + end for base in bases for end in _ENDINGS if base + end in texts]
            if not beside:
                continue
            used.update(beside)
            picture = Path(parent, name)
            where = str(picture.relative_to(folder))
            try:
                read = [_text(Path(parent, each)) for each in beside]
            except (OSError, ValueError) as error:
                yield SkippedRow(where, name, f"its text cannot be read: {error}")
                continue
            captions = tuple(dict.fromkeys(line for text in read for line in lines_of(text)))
            yield Row(where, ImageFile(picture), captions)
        for name in sorted(texts - used):
            where = str(Path(parent, name).relative_to(folder))
            yield SkippedRow(where, name, "there is no photo beside this text")
    if not photos:
        raise CaptionFileError(
            path=folder,
            reason="this folder holds no photos",
            advice="Give one with photos and a .txt beside each, with tars, or with Parquet files.",
        )


def _text(path: Path) -> str:
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{path.name} has more than {_MOST_BYTES:,} bytes")
    return path.read_text(encoding="utf-8-sig")
