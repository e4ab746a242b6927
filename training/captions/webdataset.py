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
_CLASS_NAMES = ("classnames.txt", "classes.txt")


def is_tar(path: Path) -> bool:
    return path.name.lower().endswith((".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"))


@dataclass
class _Sample:
    """The members of a tar that have a name up to its first dot in common, one after another."""

    key: str
    image: ImageSource | None = None
    texts: dict[str, str] = field(default_factory=dict)
    problem: str = ""


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
    sample = _Sample("")
    for member in _members(tar):
        folder, _, base = member.name.rpartition("/")
        stem, _, kind = base.partition(".")
        key, kind = f"{folder}/{stem}".lstrip("/"), kind.lower()
        if not member.isfile() or member.issparse() or kind not in _IMAGES | _TEXTS:
            continue
        if key != sample.key:
            yield from _row(sample, path, columns, names)
            sample = _Sample(key)
        limit = MAX_FILE_BYTES if kind in _IMAGES else _MOST_TEXT
        if member.size > limit:
            sample.problem = f"{base} has {member.size:,} bytes, over the limit of {limit:,}"
        elif kind in _IMAGES and plain:
            name = f"{path.name}: {member.name}"
            sample.image = ImageSlice(path, member.offset_data, member.size, name)
        else:
            content = tar.extractfile(member)
            data = content.read() if content is not None else b""
            if kind in _IMAGES:
                sample.image = LooseImage(f"{path.name}: {member.name}", data)
            else:
                sample.texts[kind] = data.decode("utf-8-sig", "replace")
    yield from _row(sample, path, columns, names)


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """One after another; tarfile would remember them all."""
    remembered: list[tarfile.TarInfo] = vars(tar)["members"]
    while (member := tar.next()) is not None:
        yield member
        remembered.clear()


def _row(sample: _Sample, path: Path, columns: Columns, names: list[str]) -> Rows:
    where = f"{path.name}: {sample.key}"
    if not sample.key:
        return
    if sample.problem or sample.image is None:
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
    yield Row(where, sample.image, tuple(dict.fromkeys(said)))


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
