"""Captions in WebDataset tars, as img2dataset writes them: read in one pass, never extracted."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from clipsearch.errors import CaptionFileError
from clipsearch.images import MAX_FILE_BYTES
from training.captions.images import ImageSlice, ImageSource, LooseImage
from training.captions.rows import (
    CAPTION_COLUMNS,
    LABEL_COLUMNS,
    Columns,
    Row,
    Rows,
    SkippedRow,
    captions_of,
    captions_of_labels,
    lines_of,
    photo_of,
)

_IMAGES = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "heic"})
_TEXTS = frozenset({"txt", "caption", "json", "cls"})
_MOST_TEXT = 1_000_000  # bytes
_MOST_HELD_BYTES = 256 * 2**20  # of pictures in a compressed tar whose texts are not met yet
_CLASS_NAMES = ("classnames.txt", "classes.txt")


def is_tar(path: Path) -> bool:
    return path.name.lower().endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"))


@dataclass
class _Sample:
    """The members of a tar that have a name up to its last dot in common."""

    key: str
    images: list[ImageSource] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    problem: str = ""

    @property
    def is_whole(self) -> bool:
        return bool(self.images and self.texts)

    @property
    def held_bytes(self) -> int:
        return sum(len(image.data) for image in self.images if isinstance(image, LooseImage))


def read_webdataset(path: Path, columns: Columns) -> Rows:
    """Samples of a tar: a picture, and ``.txt`` (a caption a line), ``.json`` or ``.cls``.

    Only regular members are read, by their bytes: what names, links and devices a tar holds cannot
    reach the disk. Of an uncompressed tar pictures are read again from where they lie. Class
    numbers (``.cls``) take their names from ``classnames.txt`` beside the tar, one a line. A tar
    that breaks off gives what it has. CaptionFileError if it cannot be opened.
    """
    names = _class_names(path.parent)
    try:
        with path.open("rb") as file:
            plain = file.read(262)[257:262] == b"ustar"
        with tarfile.open(path, "r:" if plain else "r|*") as tar:
            yield from _samples(tar, path, columns, names, plain=plain)
    except tarfile.TarError as error:
        yield SkippedRow(path.name, "", f"the tar cannot be read from here on: {error}")
    except (OSError, EOFError) as error:
        raise CaptionFileError(path=path, reason=str(error), advice="Check the file.") from error


def _samples(
    tar: tarfile.TarFile, path: Path, columns: Columns, names: list[str], *, plain: bool
) -> Rows:
    """Whole samples as they are met; at the end those whose members were named or lay apart."""
    waiting: dict[str, _Sample] = {}
    last: _Sample | None = None
    held_bytes = 0
    for member in _members(tar):
        folder, _, base = member.name.rpartition("/")
        stem, _, kind = base.rpartition(".")
        kind = kind.lower()
        is_read = member.isfile() and not member.issparse() and kind in _IMAGES | _TEXTS
        if not is_read or not stem or base.startswith("."):
            continue
        key = f"{folder}/{stem}".lstrip("/")
        if last is not None and last.key != key and (last.is_whole or last.problem):
            yield from _rows(waiting.pop(last.key), path, columns, names)
        last = waiting.setdefault(key, _Sample(key))
        before = last.held_bytes
        _add(last, tar, member, kind, path, plain=plain)
        held_bytes += last.held_bytes - before
        if held_bytes > _MOST_HELD_BYTES:  # of pictures that no text has been met for
            yield from _joined(list(waiting.values()), path, columns, names)
            waiting, last, held_bytes = {}, None, 0
    yield from _joined(list(waiting.values()), path, columns, names)


def _add(
    sample: _Sample,
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    kind: str,
    path: Path,
    *,
    plain: bool,
) -> None:
    limit = MAX_FILE_BYTES if kind in _IMAGES else _MOST_TEXT
    name = f"{path.name}: {member.name}"
    if member.size > limit:
        base = member.name.rpartition("/")[2]
        sample.problem = f"{base} has {member.size:,} bytes, over the limit of {limit:,}"
    elif kind in _IMAGES and plain:
        sample.images.append(ImageSlice(path, member.offset_data, member.size, name))
    else:
        content = tar.extractfile(member)
        data = content.read() if content is not None else b""
        if kind in _IMAGES:
            sample.images.append(LooseImage(name, data))
        else:
            sample.texts[kind] = data.decode("utf-8-sig", "replace")


def _joined(samples: list[_Sample], path: Path, columns: Columns, names: list[str]) -> Rows:
    """The rows of samples, of which those without a text take one by the name up to a dot.

    The format's own rule is that a sample has a name up to its first dot: ``0001.left.jpg`` and
    ``0001.caption.txt`` belong together. Names of which only the ends differ are told apart first.
    """
    groups: dict[str, list[_Sample]] = {}
    for sample in samples:
        folder, slash, base = sample.key.rpartition("/")
        groups.setdefault(folder + slash + base.partition(".")[0], []).append(sample)
    for key, group in groups.items():
        pictures = [sample for sample in group if sample.images]
        used: set[str] = set()
        for picture in pictures:
            if picture.texts:
                continue
            for other in group:
                is_its_own = other.key.startswith(f"{picture.key}.")
                if not other.images and (is_its_own or other.key == key or len(pictures) == 1):
                    used.add(other.key)
                    for kind, text in other.texts.items():
                        known = picture.texts.get(kind)
                        picture.texts[kind] = text if known is None else f"{known}\n{text}"
        for sample in group:
            if sample.key not in used:
                yield from _rows(sample, path, columns, names)


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """One after another; tarfile would remember them all."""
    remembered: list[tarfile.TarInfo] = vars(tar)["members"]
    while (member := tar.next()) is not None:
        yield member
        remembered.clear()


def _rows(sample: _Sample, path: Path, columns: Columns, names: list[str]) -> Rows:
    """A row for each picture of a sample."""
    where = f"{path.name}: {sample.key}"
    if sample.problem or not sample.images:
        yield SkippedRow(where, sample.key, sample.problem or "it has no picture")
        return
    said = [*lines_of(sample.texts.get("txt", "")), *lines_of(sample.texts.get("caption", ""))]
    if "json" in sample.texts:
        said.extend(_of_json(sample.texts["json"], columns))
    if not said and "cls" in sample.texts:
        name = sample.texts["cls"].strip()
        if name.isdigit() and int(name) >= len(names):
            reason = f"its class {name} has no name: put {_CLASS_NAMES[0]} beside the tar"
            yield SkippedRow(where, sample.key, reason)
            return
        said = [photo_of(names[int(name)] if name.isdigit() else name)] if name else []
    for image in sample.images:
        yield Row(where, image, tuple(dict.fromkeys(said)))


def _of_json(text: str, columns: Columns) -> tuple[str, ...]:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    if not isinstance(record, dict):
        return captions_of(record)
    named = (columns.caption,) if columns.caption else CAPTION_COLUMNS
    for name in named:
        if said := captions_of(record.get(name)):
            return said
    found = (captions_of_labels(record.get(name)) for name in LABEL_COLUMNS)
    return next((said for said in found if said), ())


def _class_names(folder: Path) -> list[str]:
    for name in _CLASS_NAMES:
        try:
            return (folder / name).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, ValueError):
            continue
    return []
