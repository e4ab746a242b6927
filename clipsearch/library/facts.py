"""What filters look at: columns over everything that can be found, read when first asked for.

A column has a row for each picture and each video that is there; a moment of a video has its
video's row. So filters are few operations over whole arrays, and exact whatever they leave.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from clipsearch.library.paths import from_column
from clipsearch.library.statistics import camera_name
from clipsearch.query.folding import fold, folded_words
from clipsearch.vectors import Ids

Mask = NDArray[np.bool_]
Numbers = NDArray[np.float64]  # NaN where it is not known
Reading = Callable[[], AbstractContextManager[sqlite3.Connection]]
T = TypeVar("T")

# Ids as one long text: a row of Python's for each would take several times as long.
_OWNERS = """SELECT group_concat(item_id) FROM file
    WHERE item_id IS NOT NULL AND missing_since IS NULL"""
_MOMENTS = "SELECT id, parent_id FROM item WHERE parent_id IS NOT NULL ORDER BY id"
_VIDEOS = "SELECT id FROM item WHERE kind = 'video'"
_OF_EACH = "FROM item WHERE kind <> 'moment'"
_TEXTS = ("make", "model", "lens", "place", "format")
_COLUMNS = ("width", "height", "bytes", "format")  # of the table; others stand in the metadata


@dataclass(frozen=True)
class Texts:
    """Texts of rows, several a row or none: ``joined`` is all of them, divided by line ends."""

    rows: NDArray[np.int64]  # of each text
    joined: str
    starts: NDArray[np.int64]  # of each text in ``joined``

    @classmethod
    def of(cls, rows: Sequence[int], texts: Sequence[str]) -> Texts:
        lengths = np.array([0, *(len(text) + 1 for text in texts)], dtype=np.int64)
        return cls(np.array(rows, dtype=np.int64), "\n".join(texts), np.cumsum(lengths)[:-1])

    def holding(self, part: str) -> NDArray[np.int64]:
        """The rows that have a text with this part."""
        found: list[int] = []
        at = self.joined.find(part)
        while at >= 0:
            found.append(at)
            at = self.joined.find(part, at + 1)
        return self.rows[np.searchsorted(self.starts, found, side="right") - 1]


@dataclass(frozen=True)
class Names:
    """Texts of which few differ, one a row, "" for none: ``codes`` are places in ``distinct``."""

    codes: NDArray[np.int64]
    distinct: list[str]


@dataclass(frozen=True)
class Files:
    """The files that are there. A folder is one of a root, as (root's path, path below it)."""

    rows: NDArray[np.int64]
    folder_codes: NDArray[np.int64]
    folders: list[tuple[str, str]]
    names: list[str]


class Facts:
    """The columns of one state of a library; thread-safe.

    ``ids`` (n,) are what can be found, ascending: pictures and moments with a file that is there.
    ``rows`` (n,) are their rows in the columns, and ``owners`` (m,) the items that rows are of.
    """

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._kept: dict[Any, Any] = {}
        self._loading = threading.RLock()
        owners = np.unique(_ids(self.read(_OWNERS)))
        videos = np.array(self.read(_VIDEOS), dtype=np.int64).reshape(-1)
        moments = np.array(self.read(_MOMENTS), dtype=np.int64).reshape(-1, 2)
        moments = moments[np.isin(moments[:, 1], owners)]
        pictures = np.setdiff1d(owners, videos, assume_unique=True)
        found = np.concatenate([pictures, moments[:, 0]])
        order = np.argsort(found, kind="stable")
        self.ids: Ids = found[order]
        self.owners = owners
        self.rows = np.searchsorted(owners, np.concatenate([pictures, moments[:, 1]])[order])
        self._videos = self.mask(self.rows_of(videos))

    def __len__(self) -> int:
        return len(self.owners)

    def read(self, statement: str, values: Sequence[Any] = ()) -> Sequence[Any]:
        with self._reading() as connection:
            return connection.execute(statement, values).fetchall()

    def kept(self, key: Any, make: Callable[[], T]) -> T:
        """What ``make`` gives, made once for each key."""
        with self._loading:
            if key not in self._kept:
                self._kept[key] = make()
            value: T = self._kept[key]
            return value

    def rows_of(self, items: Sequence[int] | Ids) -> NDArray[np.int64]:
        """The rows of items that are not moments, -1 for what is not there."""
        wanted = np.asarray(items, dtype=np.int64)
        if not len(self.owners):
            return np.full(len(wanted), -1, dtype=np.int64)
        places = np.minimum(np.searchsorted(self.owners, wanted), len(self.owners) - 1)
        return np.where(self.owners[places] == wanted, places, -1)

    def mask(self, rows: NDArray[np.int64]) -> Mask:
        """True for these rows; -1 stands for none."""
        found = np.zeros(len(self.owners) + 1, dtype=np.bool_)
        found[rows] = True
        return found[:-1]

    # --- columns ----------------------------------------------------------------------------

    def numbers(self, name: str) -> Numbers:
        """A number of each row, by its name in the metadata or as a column of items."""
        numbers: Numbers = self._column(name)
        return numbers

    def taken(self) -> NDArray[np.int64]:
        """When each was taken, by its own clock, as digits: 20230605143000; 0 if not known."""
        return self.kept("taken", self._taken)

    def is_video(self) -> Mask:
        return self._videos

    def names(self, name: str) -> Names:
        """The camera, lens, place or format of each row, folded for comparing."""
        return self.kept(("names", name), lambda: self._names(name))

    def captions(self) -> Texts:
        return self.kept("captions", self._captions)

    def tags(self) -> list[tuple[int, tuple[str, ...]]]:
        """Every tag with its levels, the highest first, folded for comparing."""
        return self.kept("tags", self._tags)

    def rows_tagged(self, tags: Sequence[int]) -> NDArray[np.int64]:
        """The rows with any of these tags."""
        found = [self.kept(("tag", tag), partial(self._rows_tagged, tag)) for tag in tags]
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def files(self) -> Files:
        return self.kept("files", self._files)

    def file_words(self) -> Texts:
        """The words of file names, of their folders and of the root."""
        return self.kept("file words", lambda: self._file_texts(folded_words, with_root=False))

    def file_paths(self) -> Texts:
        """Whole paths, without case and accents."""
        return self.kept("file paths", lambda: self._file_texts(fold, with_root=True))

    def file_names(self) -> list[str]:
        """A name to sort each row by: of several copies the first."""
        return self.kept("file names", self._file_names)

    # --- reading them -----------------------------------------------------------------------

    def load(self, columns: Collection[str]) -> None:
        """Reads several columns at once, which takes little longer than one of them."""
        with self._loading:
            wanted = [column for column in columns if ("column", column) not in self._kept]
            if not wanted:
                return
            said = ", ".join(
                name if name in _COLUMNS else f"json_extract(metadata, '$.{name}')"
                for name in wanted
            )
            found = self.read(f"SELECT id, {said} {_OF_EACH}")
            ids, *values = zip(*found, strict=True) if found else ((), *[()] * len(wanted))
            rows = self.rows_of(ids)
            for column, of_rows in zip(wanted, values, strict=True):
                self._kept["column", column] = (
                    self._names_of(rows, of_rows)
                    if column in _TEXTS
                    else self._numbers_of(rows, of_rows)
                )

    def _column(self, name: str) -> Any:
        self.load([name])
        return self._kept["column", name]

    def _numbers_of(self, rows: NDArray[np.int64], found: Sequence[Any]) -> Numbers:
        values = np.full(len(self.owners) + 1, np.nan)
        values[rows] = [value if isinstance(value, (int, float)) else np.nan for value in found]
        return values[:-1]

    def _names_of(self, rows: NDArray[np.int64], found: Sequence[Any]) -> Names:
        distinct: dict[str, int] = {"": 0}
        codes = np.zeros(len(self.owners) + 1, dtype=np.int64)
        codes[rows] = [
            distinct.setdefault(value if isinstance(value, str) else "", len(distinct))
            for value in found
        ]
        return Names(codes[:-1], list(distinct))

    def _names(self, name: str) -> Names:
        if name != "camera":
            column: Names = self._column(name)
            return Names(column.codes, [folded_words(text) for text in column.distinct])
        self.load(["make", "model"])
        make, model = self._column("make"), self._column("model")
        size = len(model.distinct)
        pairs, codes = np.unique(make.codes * size + model.codes, return_inverse=True)
        cameras = [
            camera_name(make.distinct[pair // size], model.distinct[pair % size]) or ""
            for pair in pairs.tolist()
        ]
        return Names(codes, [folded_words(camera) for camera in cameras])

    def _taken(self) -> NDArray[np.int64]:
        statement = f"""SELECT id, cast(replace(replace(replace(
            substr(taken_at, 1, 19), '-', ''), ':', ''), 'T', '') AS INTEGER)
            {_OF_EACH} AND length(taken_at) >= 19"""
        table = np.array(self.read(statement), dtype=np.int64).reshape(-1, 2)
        values = np.zeros(len(self.owners) + 1, dtype=np.int64)
        values[self.rows_of(table[:, 0])] = table[:, 1]
        return values[:-1]

    def _captions(self) -> Texts:
        found = self.read("SELECT item_id, text FROM caption ORDER BY id")
        rows = self.rows_of([row[0] for row in found]).tolist()
        kept = [(row, text) for row, (_, text) in zip(rows, found, strict=True) if row >= 0]
        return Texts.of([row for row, _ in kept], [folded_words(text) for _, text in kept])

    def _tags(self) -> list[tuple[int, tuple[str, ...]]]:
        return [(row[0], tag_levels(row[1])) for row in self.read("SELECT id, name FROM tag")]

    def _rows_tagged(self, tag: int) -> NDArray[np.int64]:
        items = _ids(
            self.read("SELECT group_concat(item_id) FROM item_tag WHERE tag_id = ?", (tag,))
        )
        rows = self.rows_of(np.unique(items))
        return rows[rows >= 0]

    def _files(self) -> Files:
        roots = {row[0]: from_column(row[1]) for row in self.read("SELECT id, path FROM root")}
        found = self.read(
            """SELECT item_id, root_id, relpath FROM file
            WHERE item_id IS NOT NULL AND missing_since IS NULL ORDER BY root_id, relpath"""
        )
        codes: dict[tuple[int, str], int] = {}
        names, of_files = [], []
        for _, root, relpath in found:
            folder, _, name = from_column(relpath).rpartition("/")
            names.append(name)
            of_files.append(codes.setdefault((root, folder), len(codes)))
        return Files(
            self.rows_of([row[0] for row in found]),
            np.array(of_files, dtype=np.int64),
            [(roots[root], folder) for root, folder in codes],
            names,
        )

    def _file_texts(self, form: Callable[[str], str], *, with_root: bool) -> Texts:
        files = self.files()
        folders = [
            form(f"{root.rstrip('/')}/{below}/" if below else f"{root.rstrip('/')}/")
            if with_root
            else form(f"{root.rstrip('/').rpartition('/')[2]}/{below}")
            for root, below in files.folders
        ]
        texts = [
            # A line end may stand in a name, but divides what is joined.
            (folders[folder] + form(name)).replace("\n", " ")
            for folder, name in zip(files.folder_codes.tolist(), files.names, strict=True)
        ]
        return Texts.of(files.rows.tolist(), texts)

    def _file_names(self) -> list[str]:
        files = self.files()
        names = [""] * (len(self.owners) + 1)
        for row, name in zip(files.rows.tolist(), files.names, strict=True):
            folded = fold(name)
            if not names[row] or folded < names[row]:
                names[row] = folded
        return names[:-1]


def tag_levels(name: str) -> tuple[str, ...]:
    """``animal|dog`` or ``animal/dog`` as its levels, folded; of what has no word, nothing."""
    levels = (folded_words(level) for level in name.replace("/", "|").split("|"))
    return tuple(level for level in levels if level)


def _ids(found: Sequence[Any]) -> NDArray[np.int64]:
    """What ``group_concat`` put together."""
    text = found[0][0]
    return np.fromstring(str(text), dtype=np.int64, sep=",") if text else np.empty(0, np.int64)
