"""Captions and their pictures: from any form, checked, merged by content, and split."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import xxhash

from clipsearch.config import available_cores
from clipsearch.errors import CaptionFileError, ImageError
from clipsearch.images import decode_image, read_file
from clipsearch.images.closeup import Closeup, Closeups, closeup
from clipsearch.near_pairs import near_pairs
from clipsearch.vectors import unit_rows
from training.captions.images import ImageSource, LooseImage, Spill
from training.captions.library import read_library
from training.captions.parquet import read_parquet
from training.captions.rows import Columns, Row, Rows, SkippedRow
from training.captions.sidecars import read_sidecars
from training.captions.tables import read_delimited, read_json_lines
from training.captions.webdataset import is_tar, read_webdataset

_LOOKED_AT = 160  # pixels, as large as closeup needs
_AT_ONCE = 32  # rows
# Above, comparing all pictures with all takes minutes.
MOST_COMPARED = 50_000
_COARSE = 8  # side of the picture that near copies are looked for with
_COARSELY_ALIKE = 0.9  # cosine; closeup decides
_ALIKE_SHARE = 0.9  # of the pictures that have the same captions
_READERS: dict[str, Callable[[Path, Columns], Rows]] = {
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".parquet": read_parquet,
}
FORMS = "a .csv, .tsv, .jsonl, .parquet or .tar, or a folder"


@dataclass(frozen=True)
class CaptionedPicture:
    """One content with all that was said of it; copies under other names are merged into it.

    ``group`` is the same for pictures that are one and the same, re-encoded or resized.
    """

    image: ImageSource
    content_hash: str
    captions: tuple[str, ...]
    group: str = ""


_ADVICE_LIBRARY = (
    "Of a library only what a person said counts: captions, tags given by hand or accepted in "
    "clipsearch review, and thumbs up for plain queries."
)


@dataclass(frozen=True)
class CaptionSource:
    """What a person names: files and folders of captions, a library, or both."""

    paths: tuple[Path, ...] = ()
    library: Path | None = None
    columns: Columns = field(default_factory=Columns)

    @property
    def name(self) -> str:
        names = [str(path) for path in self.paths]
        return ", ".join([*names, f"the library {self.library}"] if self.library else names)

    @property
    def forms(self) -> str:
        """The kinds of its sources, without their names."""
        kinds = [_form(path) for path in self.paths]
        return ", ".join(dict.fromkeys([*kinds, "a library"] if self.library else kinds))


@dataclass(frozen=True)
class CaptionSet:
    """What the sources hold. ``near_copies``: pictures that are versions of another one."""

    pictures: list[CaptionedPicture]
    skipped: list[SkippedRow]
    near_copies: int = 0


def _form(path: Path) -> str:
    if path.is_dir():
        return "a folder"
    return "a WebDataset tar" if is_tar(path) else f"a {path.suffix[1:].upper()} file"


def read_captions(given: Path | CaptionSource, spill_in: Path | None = None) -> CaptionSet:
    """Reads captions in any form, looks at every picture once, and merges what has one content.

    The form follows from the name, see ``FORMS``; relative paths start at the file. Rows without a
    caption or with an unreadable picture are listed, not fatal. Pictures that cannot be read again
    one by one (Parquet, compressed tars) are kept in a nameless file in ``spill_in`` meanwhile.
    CaptionFileError if a source is not there, has not the columns, or all leave fewer than two
    pictures; DependencyError, LibraryError, StorageError.
    """
    source = CaptionSource((given,)) if isinstance(given, Path) else given
    found = _Found(spill_in)
    rows = itertools.chain.from_iterable(_readers(source))
    with ThreadPoolExecutor(available_cores()) as pool:
        while some := list(itertools.islice(rows, _AT_ONCE)):
            images = {
                row.image: None
                for row in some
                if isinstance(row, Row) and row.captions and row.image not in found.looks
            }
            found.looks.update(zip(images, pool.map(_look, images), strict=True))
            found.add(some)
    if len(found.captions) < 2:
        raise CaptionFileError(path=source.name, **found.too_few(source))
    return found.as_set()


def _readers(source: CaptionSource) -> Iterator[Rows]:
    for path in source.paths:
        yield from _of_path(path, source.columns)
    if source.library is not None:
        yield read_library(source.library)


def _of_path(path: Path, columns: Columns) -> Iterator[Rows]:
    if path.is_dir():
        tables = [path / name for name in ("metadata.jsonl", "metadata.csv", "metadata.parquet")]
        inside = sorted(path.iterdir())
        shards = [each for each in inside if is_tar(each)]
        shards = shards or [each for each in inside if each.suffix.lower() == ".parquet"]
        shards = [table for table in tables if table.is_file()][:1] or shards
        for shard in shards:
            yield from _of_path(shard, columns)
        if not shards:
            yield read_sidecars(path)
    elif not path.is_file():
        raise CaptionFileError(path=path, reason="there is no such file", advice="Check the name.")
    elif is_tar(path):
        yield read_webdataset(path, columns)
    elif path.suffix.lower() in _READERS:
        yield _READERS[path.suffix.lower()](path, columns)
    else:
        raise CaptionFileError(
            path=path, reason="its name does not say what it is", advice=f"Give {FORMS}."
        )


@dataclass(frozen=True)
class _Look:
    """What one reading of a picture told."""

    content_hash: str
    closeup: Closeup
    aspect: float


class _Found:
    """Captions and pictures by content, in the order in which they were met."""

    def __init__(self, spill_in: Path | None) -> None:
        self.looks: dict[ImageSource, _Look | ImageError] = {}
        self.captions: dict[str, list[str]] = {}
        self.skipped: list[SkippedRow] = []
        self._images: dict[str, ImageSource] = {}
        self._contents: dict[str, _Look] = {}
        self._spill_in = spill_in
        self._spill: Spill | None = None

    def add(self, rows: Sequence[Row | SkippedRow]) -> None:
        for row in rows:
            if isinstance(row, SkippedRow):
                self.skipped.append(row)
                continue
            own_name = Path(row.image.name).name.casefold()
            captions = [text for text in row.captions if text.casefold() != own_name]
            if row.captions and not captions:
                reason = "its caption is only the name of its file"
                self.skipped.append(SkippedRow(row.where, row.image.name, reason))
                continue
            if not row.captions:
                self.skipped.append(SkippedRow(row.where, row.image.name, "it has no caption"))
                continue
            look = self.looks[row.image]
            if isinstance(row.image, LooseImage):
                del self.looks[row.image]  # its bytes are not to stay in memory
            if isinstance(look, ImageError):
                self.skipped.append(SkippedRow(row.where, row.image.name, str(look)))
                continue
            content = look.content_hash
            if content not in self._images:
                self._images[content] = self._kept(row.image)
                self._contents[content] = look
            said = self.captions.setdefault(content, [])
            said.extend(caption for caption in captions if caption not in said)

    def _kept(self, image: ImageSource) -> ImageSource:
        if not isinstance(image, LooseImage):
            return image
        if self._spill is None:
            self._spill = Spill(self._spill_in)
        return self._spill.keep(image)

    def too_few(self, source: CaptionSource) -> dict[str, str]:
        first = self.skipped[0] if self.skipped else None
        why = f"; {first.where}: {first.reason}" if first else ""
        return {
            "reason": f"{len(self.captions)} of its pictures can be used, at least 2 are needed"
            + why,
            "advice": _ADVICE_LIBRARY
            if source.library
            else "Relative paths are taken from the folder of the caption file.",
        }

    def as_set(self) -> CaptionSet:
        groups = _groups(self._contents)
        pictures = [
            CaptionedPicture(self._images[content], content, tuple(said), groups[content])
            for content, said in self.captions.items()
        ]
        return CaptionSet(pictures, self.skipped, len(groups) - len(set(groups.values())))


def _look(image: ImageSource) -> _Look | ImageError:
    try:
        data = image.read()
        picture = decode_image(data, name=image.name, target_side=_LOOKED_AT)
    except ImageError as error:
        return error
    aspect = picture.width / picture.height
    return _Look(xxhash.xxh3_128_hexdigest(data), closeup(picture), aspect)


def _groups(contents: dict[str, _Look]) -> dict[str, str]:
    """For each content that of its group: one picture, re-encoded or resized, is one group.

    A coarse look proposes pairs, as the model's vectors do in a library; the close-up decides.
    """
    names = list(contents)
    leader = {name: name for name in names}
    if len(names) > MOST_COMPARED:
        return leader
    looks = [look.closeup for look in contents.values()]
    coarse = np.stack([look.grey for look in looks]).astype(np.float32)
    side = coarse.shape[1] // _COARSE
    coarse = coarse.reshape(-1, _COARSE, side, _COARSE, side).mean(axis=(2, 4)).reshape(-1, 64)
    coarse -= coarse.mean(axis=1, keepdims=True)
    coarse[np.abs(coarse).max(axis=1) == 0] = 1.0  # one colour: alike among themselves
    near = near_pairs(unit_rows(coarse), _COARSELY_ALIKE)
    aspects = np.array([look.aspect for look in contents.values()])
    same = Closeups(looks, aspects).same(near.first, near.second)

    def of(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    for first, second in zip(near.first[same].tolist(), near.second[same].tolist(), strict=True):
        one, other = sorted((of(names[first]), of(names[second])))
        leader[other] = one
    return {name: of(name) for name in names}


def require_distinct(pictures: Sequence[CaptionedPicture], source: str) -> None:
    """CaptionFileError where captions tell (nearly) no picture from another.

    That is where nine of ten pictures or more have the same captions, whatever their case and
    punctuation: training on them would end without having learnt anything, and at 100 %.
    """
    alike = Counter(frozenset(map(_folded, picture.captions)) for picture in pictures)
    if not alike:
        return
    said, count = alike.most_common(1)[0]
    if count < _ALIKE_SHARE * len(pictures):
        return
    example = next(
        picture.captions[0]
        for picture in pictures
        if frozenset(map(_folded, picture.captions)) == said
    )
    share = "all" if count == len(pictures) else f"{count:,} of the"
    raise CaptionFileError(
        path=source,
        reason=f"{share} {len(pictures):,} pictures share one caption, '{example[:100]}', "
        "so there is nothing to tell them apart by",
        advice="Say of each picture what is in it and not in the others, or add pictures of "
        "other things with captions of their own.",
    )


def _folded(caption: str) -> str:
    """A caption less its case, punctuation and blanks."""
    return "".join(letter for letter in caption.casefold() if letter.isalnum()) or caption


def checked_hash(picture: Path) -> str:
    """The hash of a picture's content, as the library has it. ImageError if it is unreadable."""
    data = read_file(picture)
    decode_image(data, name=str(picture), target_side=64)
    return xxhash.xxh3_128_hexdigest(data)


def split_by_content(
    pictures: Sequence[CaptionedPicture], fraction: float, seed: int
) -> tuple[list[CaptionedPicture], list[CaptionedPicture]]:
    """Training and held-out pictures. A group is wholly on one side, decided by its hash.

    At least one picture is held out if ``fraction`` is above 0, and at least two are trained on;
    where groups make that impossible, nothing is held out.
    """
    groups: dict[str, int] = {}
    for picture in pictures:
        name = picture.group or picture.content_hash
        groups[name] = groups.get(name, 0) + 1
    ranked = sorted(groups, key=lambda name: xxhash.xxh3_64_intdigest(f"{seed} {name}".encode()))
    most = len(pictures) - 2
    wanted = min(max(1, round(len(pictures) * fraction)), most) if fraction > 0 else 0
    held_out: set[str] = set()
    count = 0
    for name in ranked:
        if count >= wanted:
            break
        if count + groups[name] <= min(most, wanted + wanted // 4 + 1):
            held_out.add(name)
            count += groups[name]
    sides: tuple[list[CaptionedPicture], list[CaptionedPicture]] = ([], [])
    for picture in pictures:
        sides[(picture.group or picture.content_hash) in held_out].append(picture)
    return sides
