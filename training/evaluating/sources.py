"""Where datasets come from: folders by class, CSV, parquet, torchvision's names, the library."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from clipsearch.errors import DatasetError, DependencyError, ImageUnreadableError
from clipsearch.images import EXTENSIONS, decode_image, read_file
from clipsearch.library import Library
from clipsearch.library.records import PICTURE
from clipsearch.user_paths import expand_known_user, expand_user
from training.captions.delimited import DelimitedLines
from training.captions.images import ImageSource
from training.data import read_captions
from training.evaluating.dataset import Dataset, Picture
from training.evaluating.torchvision_names import is_torchvision_name, read_torchvision

_LIBRARY_FILE = "library.db"
_FORMS = (
    "a folder with one folder a class, a .csv, .parquet, NAME:FOLDER as in torchvision, or none"
)


def read_dataset(address: str, only: tuple[str, str] | None = None) -> Dataset:
    """The pictures of an address; see ``_FORMS``. ``only`` (column, value) picks rows of a table.

    DatasetError names what cannot be used, and how it should be.
    """
    if is_torchvision_name(address):
        found = read_torchvision(address)
    else:
        path = expand_user(address).absolute()
        if not path.exists():
            raise DatasetError(
                name=address, reason="there is no such file or folder", advice=f"Give {_FORMS}."
            )
        if (path / _LIBRARY_FILE).exists():
            with Library.open(path) as library:
                found = read_library(library)
        elif path.suffix.lower() == ".parquet" or (path.is_dir() and any(path.glob("*.parquet"))):
            return read_parquet(path, only)
        elif path.is_dir():
            found = read_class_folders(path)
        else:
            return read_table(path, only)
    if only is not None:
        raise DatasetError(
            name=address, reason="it has no columns", advice="Leave out --only, or give a table."
        )
    return found


def read_class_folders(folder: Path) -> Dataset:
    """Pictures by class, ``FOLDER/CLASS/…/photo.jpg``: the first folder's name is the label."""
    pictures = [
        Picture(str(file), partial(open_file, file), labels=(below.name,))
        for below in sorted(path for path in folder.iterdir() if path.is_dir())
        if not below.name.startswith(".")
        for file in sorted(below.rglob("*"))
        if file.suffix.lower() in EXTENSIONS and file.is_file()
    ]
    if len({picture.labels for picture in pictures}) < 2:
        raise DatasetError(
            name=folder,
            reason="pictures lie in fewer than two folders below it",
            advice="It must hold one folder for each class, as in: cat/1.jpg dog/2.jpg",
        )
    return Dataset(folder.name, tuple(pictures))


def read_table(path: Path, only: tuple[str, str] | None = None) -> Dataset:
    """A CSV file with the columns path,label; or a file of captions, as ``train`` takes them.

    Relative paths start at the file. A row's picture may have several labels, in rows or
    separated by ``|``.
    """
    names = _header(path) if path.suffix.lower() == ".csv" else []
    if "label" not in names:
        if only is not None:
            raise DatasetError(
                name=path,
                reason="rows can be picked only of tables with a column 'label'",
                advice="Leave out --only.",
            )
        read = read_captions(path)
        pictures = [
            Picture(one.image.name, partial(open_source, one.image), one.captions)
            for one in read.pictures
        ]
        left = (
            [f"{len(read.skipped)} rows left out, as: {read.skipped[0].reason}"]
            if read.skipped
            else []
        )
        return Dataset(path.name, tuple(pictures), tuple(left))
    if "path" not in names:
        raise DatasetError(
            name=path,
            reason=f"its first line is '{','.join(names)}'",
            advice="It must name the columns path and label, or path and caption.",
        )
    _require_column(path, names, only)
    said: dict[Path, tuple[dict[str, None], dict[str, None]]] = {}
    left_out: list[str] = []
    for row in _rows(path, names, left_out):
        if only is not None and row.get(only[0], "") != only[1]:
            continue
        if row["path"]:
            picture = path.parent / expand_known_user(row["path"])
            captions, labels = said.setdefault(picture, ({}, {}))
            labels |= dict.fromkeys(filter(None, map(str.strip, row["label"].split("|"))))
            captions |= dict.fromkeys(filter(None, [row.get("caption", "")]))
    return Dataset(
        path.name,
        tuple(
            Picture(str(file), partial(open_file, file), tuple(captions), tuple(labels))
            for file, (captions, labels) in said.items()
        ),
        (f"{len(left_out)} rows left out, as: {left_out[0]}",) if left_out else (),
    )


def _header(path: Path) -> list[str]:
    try:
        with closing(DelimitedLines(path)) as lines:
            return [name.strip().lower() for name in lines.first.cells]
    except (UnicodeError, OSError) as error:
        raise DatasetError(name=path, reason=error, advice="Save it as CSV in UTF-8.") from error


def _rows(path: Path, names: list[str], left_out: list[str]) -> Iterator[dict[str, str]]:
    """The rows by column; those that cannot be read are told in ``left_out``."""
    place = names.index("path")
    try:
        with closing(DelimitedLines(path)) as lines:
            lines.is_row = lambda cells: (
                len(cells) == len(names) and Path(cells[place]).suffix.lower() in EXTENSIONS
            )
            for line in lines:
                problem = line.problem
                if problem is None and len(line.cells) > len(names):
                    problem = "it has more cells than the first line"
                if problem is not None:
                    left_out.append(f"{path.name}:{line.number}: {problem}")
                    continue
                cells = dict.fromkeys(names, "") | dict(zip(names, line.cells, strict=False))
                yield {name: cell.strip() for name, cell in cells.items()}
    except (UnicodeError, OSError) as error:
        raise DatasetError(name=path, reason=error, advice="Save it as CSV in UTF-8.") from error


def _require_column(path: Path, names: list[str], only: tuple[str, str] | None) -> None:
    if only is not None and only[0] not in names:
        raise DatasetError(
            name=path, reason=f"it has no column '{only[0]}'", advice=f"It has: {', '.join(names)}"
        )


# --- parquet --------------------------------------------------------------------------------


def read_parquet(path: Path, only: tuple[str, str] | None = None) -> Dataset:
    """A file, or the files of a folder, with the column ``image`` and words beside it.

    ``image`` holds bytes, or a struct with ``bytes`` as Hugging Face writes it; words are in
    ``captions`` or ``caption``, ``labels`` or ``label``, texts or lists of them. Pictures stay in
    the file until they are asked for.
    """
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    pictures = [picture for file in files for picture in _parquet_pictures(file, only)]
    return Dataset(path.stem, tuple(pictures))


def _parquet_pictures(file: Path, only: tuple[str, str] | None) -> Iterator[Picture]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise DependencyError(
            reason=f"{file} needs a package: pip install 'clipsearch[evaluate]'"
        ) from error
    try:
        opened = ParquetFile(file)
        names = list(opened.schema_arrow.names)
        if "image" not in names:
            raise DatasetError(
                name=file,
                reason=f"it has no column 'image', only: {', '.join(names)}",
                advice="Pictures are read from that column, words from captions and labels.",
            )
        _require_column(file, names, only)
        wanted = {"key", "captions", "caption", "labels", "label", *([only[0]] if only else [])}
        columns = [name for name in names if name in wanted]
        classes = _class_names(opened.schema_arrow.metadata or {})
        blobs = _Blobs(opened)
        place = 0
        for group in range(opened.metadata.num_row_groups):
            rows = opened.read_row_group(group, columns=columns).to_pylist() if columns else []
            for number, row in enumerate(rows):
                if only is None or str(row[only[0]]) == only[1]:
                    name = f"{file.name} {row.get('key', place)}"
                    yield Picture(
                        name,
                        partial(blobs.open, group, number, name),
                        _texts(row.get("captions", row.get("caption")), []),
                        _texts(row.get("labels", row.get("label")), classes),
                    )
                place += 1
    except (ArrowException, OSError) as error:
        raise DatasetError(
            name=file, reason=error, advice="It must be a parquet file with a column 'image'."
        ) from error


class _Blobs:
    """The pictures of a parquet file; the row group that was asked for last stays in memory."""

    def __init__(self, opened: Any) -> None:
        self._opened = opened
        self._kept: tuple[int, Any] = (-1, None)

    def open(self, group: int, row: int, name: str, side: int) -> Image.Image:
        kept, column = self._kept  # one reading, so that threads cannot mix two groups
        if kept != group:
            column = self._opened.read_row_group(group, columns=["image"]).column("image")
            self._kept = (group, column)
        value = column[row].as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise ImageUnreadableError(path=name, reason="its column 'image' holds no bytes")
        return decode_image(data, name=name, target_side=side)


def _class_names(metadata: dict[bytes, bytes]) -> list[str]:
    """What the numbers in ``label`` stand for, as Hugging Face's datasets write it."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return [str(name) for name in features["label"]["names"]]
    except (KeyError, ValueError, TypeError):
        return []


def _texts(value: Any, classes: list[str]) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    named = (classes[v] if isinstance(v, int) and 0 <= v < len(classes) else v for v in values)
    return tuple(dict.fromkeys(str(one).strip() for one in named if one is not None and one != ""))


# --- the library ----------------------------------------------------------------------------


def read_library(library: Library) -> Dataset:
    """The photos that are there, with their captions, and the tags that people gave them.

    Tags that a model gave are left out: a model would be measured on its own guesses. Of a tag in
    levels, as ``animal|dog``, the last is the label.
    """
    ids = [int(item) for item in library.present_items()]
    items, paths = library.items(ids), library.paths(ids)
    pictures = []
    for item in ids:
        if item in paths and items[item].kind == PICTURE:
            words = library.words_of(item)
            labels = (name.replace("/", "|").split("|")[-1].strip() for name, _ in words.tags)
            pictures.append(
                Picture(
                    str(paths[item][0]),
                    partial(open_file, paths[item][0]),
                    tuple(dict.fromkeys(text.strip() for text, _ in words.captions)),
                    tuple(dict.fromkeys(filter(None, labels))),
                )
            )
    return Dataset(f"the library {library.path.name}", tuple(pictures))


def open_source(image: ImageSource, side: int) -> Image.Image:
    """A captioned picture, upright and RGB. ImageError names it."""
    return decode_image(image.read(), name=image.name, target_side=side)


def open_file(path: Path, side: int) -> Image.Image:
    """A file's picture, upright and RGB. ImageError names it."""
    return decode_image(read_file(path), name=str(path), target_side=side)
