"""Captions and their pictures: read, checked, split by content, and cut into training views."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash
from PIL import Image

from clipsearch.encoders.preprocessing import Preprocessing
from clipsearch.errors import CaptionFileError, ImageError
from clipsearch.images import decode_image, read_file
from clipsearch.vectors import Pixels

_COLUMNS = ("path", "caption")
_KEPT_SIDE = 1.5  # pictures are kept in memory at this multiple of the model's input side


@dataclass(frozen=True)
class CaptionedPicture:
    """One content with all that was said of it; copies under other names are merged into it."""

    path: Path
    content_hash: str
    captions: tuple[str, ...]


@dataclass(frozen=True)
class SkippedRow:
    """A row of the caption file that cannot be used, and why."""

    line: int
    path: str
    reason: str


@dataclass(frozen=True)
class CaptionSet:
    """What a caption file holds."""

    pictures: list[CaptionedPicture]
    skipped: list[SkippedRow]


def read_captions(path: Path) -> CaptionSet:
    """Reads a CSV file with the columns ``path`` and ``caption``; relative paths start at the file.

    Rows without a caption or with an unreadable picture are listed, not fatal. CaptionFileError
    if the file is not there, has not the columns, or leaves fewer than two pictures.
    """
    if not path.is_file():
        raise CaptionFileError(path=path, reason="there is no such file", advice="Check the name.")
    captions: dict[str, list[str]] = {}
    first_path: dict[str, Path] = {}
    skipped: list[SkippedRow] = []
    hashes: dict[Path, str] = {}
    for line, name, caption in _rows(path):
        if not name or not caption:
            missing = "caption" if name else "path"
            skipped.append(SkippedRow(line, name, f"it has no {missing}"))
            continue
        picture = path.parent / Path(name).expanduser()
        try:
            if picture not in hashes:
                hashes[picture] = checked_hash(picture)
        except ImageError as error:
            skipped.append(SkippedRow(line, name, str(error)))
            continue
        content = hashes[picture]
        first_path.setdefault(content, picture)
        said = captions.setdefault(content, [])
        if caption not in said:
            said.append(caption)
    if len(captions) < 2:
        why = f"; line {skipped[0].line}: {skipped[0].reason}" if skipped else ""
        raise CaptionFileError(
            path=path,
            reason=f"{len(captions)} of its pictures can be used, at least 2 are needed{why}",
            advice="Paths are taken from the folder of the caption file.",
        )
    pictures = [
        CaptionedPicture(first_path[content], content, tuple(said))
        for content, said in captions.items()
    ]
    return CaptionSet(pictures, skipped)


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line, path, caption) of each row; a byte order mark is fine."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = [name.strip().lower() for name in reader.fieldnames or []]
            if not set(_COLUMNS) <= set(names):
                raise CaptionFileError(
                    path=path,
                    reason=f"its first line is '{','.join(reader.fieldnames or [])}'",
                    advice="It must name the columns: path,caption",
                )
            reader.fieldnames = names
            for row in reader:
                yield (
                    reader.line_num,
                    (row["path"] or "").strip(),
                    (row["caption"] or "").strip(),
                )
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise CaptionFileError(
            path=path, reason=str(error), advice="Save it as CSV in UTF-8."
        ) from error


def checked_hash(picture: Path) -> str:
    """The hash of a picture's content, as the library has it. ImageError if it is unreadable."""
    data = read_file(picture)
    decode_image(data, name=str(picture), target_side=64)
    return xxhash.xxh3_128_hexdigest(data)


def split_by_content(
    pictures: Sequence[CaptionedPicture], fraction: float, seed: int
) -> tuple[list[CaptionedPicture], list[CaptionedPicture]]:
    """Training and held-out pictures. A content is wholly on one side, decided by its hash.

    At least one picture is held out if ``fraction`` is above 0, and at least two are trained on.
    """
    ranked = sorted(
        pictures,
        key=lambda picture: xxhash.xxh3_64_intdigest(f"{seed} {picture.content_hash}".encode()),
    )
    count = min(max(1, round(len(ranked) * fraction)), len(ranked) - 2) if fraction > 0 else 0
    held_out = {picture.content_hash for picture in ranked[: max(0, count)]}
    return (
        [picture for picture in pictures if picture.content_hash not in held_out],
        [picture for picture in pictures if picture.content_hash in held_out],
    )


class Views:
    """Pictures as a model wants them: whole, or cut at random for training.

    Small sets are kept in memory at a little more than the model's input size.
    """

    def __init__(self, pictures: Sequence[CaptionedPicture], preprocessing: Preprocessing) -> None:
        self._preprocessing = preprocessing
        self._side = max(preprocessing.height, preprocessing.width)
        with ThreadPoolExecutor(2) as pool:
            self._kept = list(pool.map(self._load, pictures))

    def __len__(self) -> int:
        return len(self._kept)

    def whole(self, places: Sequence[int]) -> Pixels:
        """(n, 3, h, w): each picture as it will be indexed."""
        return np.stack([self._preprocessing.apply(self._kept[place]) for place in places])

    def cut(self, places: Sequence[int], chance: random.Random) -> Pixels:
        """(n, 3, h, w): random crops, CLIP's only augmentation (section 2.5), here of 60-100 %."""
        return np.stack([self._crop(self._kept[place], chance) for place in places])

    def _load(self, picture: CaptionedPicture) -> Image.Image:
        data = read_file(picture.path)
        side = round(self._side * _KEPT_SIDE)
        image = decode_image(data, name=str(picture.path), target_side=side)
        image.thumbnail((2 * side, 2 * side))
        return image

    def _crop(self, image: Image.Image, chance: random.Random) -> Pixels:
        share = chance.uniform(0.6, 1.0) ** 0.5
        width, height = image.width * share, image.height * share
        left = chance.uniform(0, image.width - width)
        upper = chance.uniform(0, image.height - height)
        box = (round(left), round(upper), round(left + width), round(upper + height))
        return self._preprocessing.apply(image.crop(box))
