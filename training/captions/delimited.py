"""The lines of CSV and TSV files as rows of cells, of which a damaged one costs only itself."""

from __future__ import annotations

import codecs
import csv
import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_DELIMITERS = ",\t;|"
_MOST_LINES = 1_000  # of one row, whose quoted cells may hold line breaks
_MOST_CHARACTERS = 1_000_000
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_NEVER_CLOSED = "a quote in it is never closed: close it, or double it if it belongs to the text"


@dataclass(frozen=True)
class Line:
    """A row: the line that it begins in, from 1, and its cells; or why there are none."""

    number: int
    cells: list[str]
    text: str = ""  # as it stands in the file, its first line only
    problem: str | None = None


def encoding_of(path: Path) -> str:
    """That of a text file, by its byte order mark or by zeros; UTF-8 is assumed."""
    with path.open("rb") as file:
        head = file.read(4)
    for mark, name in _BOMS:
        if head.startswith(mark):
            return name
    if len(head) == 4 and head[1] == 0 == head[3] and head[0]:
        return "utf-16-le"
    return "utf-16-be" if len(head) == 4 and head[0] == 0 == head[2] and head[1] else "utf-8"


class DelimitedLines:
    """Reads the rows of a file one after another; ``first`` is the line of names.

    A quote that is never closed takes its own line and no other: the rows after it are read as if
    it were not there. ``is_row`` says of the cells of a line whether they look like a row of this
    table, which no line within a quoted cell does.
    """

    def __init__(self, path: Path) -> None:
        encoding = encoding_of(path)
        errors = "surrogateescape" if encoding.startswith("utf-8") else "replace"
        self._file = path.open(newline="", encoding=encoding, errors=errors)
        self._ahead: list[str] = []  # lines that were read too far, in their order
        self._number = 0
        self.is_row: Callable[[list[str]], bool] = lambda _: False
        line = self._next_line()
        if said := re.fullmatch(r"\s*\"?sep=(.)\"?\s*", line or "", re.IGNORECASE):  # of Excel
            self._delimiter = said[1]
            line = self._next_line()
        else:
            self._delimiter = max(_DELIMITERS, key=(line or "").count)
        if path.suffix.lower() == ".tsv":
            self._delimiter = "\t"
        self.first = self._line(line or "")

    def close(self) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Line]:
        while (line := self._next_line()) is not None:
            if line.strip("\r\n"):
                yield self._line(line)

    def _next_line(self) -> str | None:
        self._number += 1
        if self._ahead:
            return self._ahead.pop(0)
        return self._file.readline() or None

    def _line(self, line: str) -> Line:
        number, text = self._number, line.rstrip("\r\n")
        if problem := _undecodable(line):
            return Line(number, self._plain(text), text, problem)
        if '"' not in line:
            return Line(number, self._plain(text), text)
        if (cells := self._parsed([line])) is not None:
            return Line(number, cells, text)
        plain = self._plain(text)
        if _quotes_are_closed(text):
            # Quotes within a cell: "Hello" she said. They are part of the text.
            return Line(number, self._escaped(line) or plain, text)
        longer = self._over_lines(line)
        if longer is None:
            return Line(number, plain, text, _NEVER_CLOSED)
        problem = next(filter(None, map(_undecodable, longer)), None)
        return Line(number, longer, text, problem)

    def _over_lines(self, line: str) -> list[str] | None:
        """The cells of a row with line breaks in it; None, and no line taken, if it is not one."""
        taken, size = [line], len(line)
        cells: list[str] | None = None
        while len(taken) < _MOST_LINES and size < _MOST_CHARACTERS:
            following = self._ahead.pop(0) if self._ahead else self._file.readline()
            if not following:
                break
            taken.append(following)
            size += len(following)
            if self.is_row(self._plain(following.rstrip("\r\n"))):
                break
            if '"' in following:
                cells = self._parsed(taken)
                if cells is not None:
                    break
        if cells is None:
            self._ahead = taken[1:] + self._ahead
        else:
            self._number += len(taken) - 1
        return cells

    def _parsed(self, lines: list[str]) -> list[str] | None:
        """The cells of exactly one row by the rules; None if that is not what the lines are."""
        try:
            rows = list(
                itertools.islice(csv.reader(lines, delimiter=self._delimiter, strict=True), 2)
            )
        except csv.Error:
            return None
        return rows[0] if len(rows) == 1 else None

    def _escaped(self, line: str) -> list[str] | None:
        """The cells of a line whose quotes are escaped by backslashes, as databases write them."""
        if '\\"' not in line:
            return None
        try:
            rows = list(
                csv.reader(
                    [line],
                    delimiter=self._delimiter,
                    strict=True,
                    doublequote=False,
                    escapechar="\\",
                )
            )
        except csv.Error:
            return None
        return rows[0] if len(rows) == 1 else None

    def _plain(self, text: str) -> list[str]:
        """The cells of a line whose quotes mean nothing."""
        return text.split(self._delimiter)


def _quotes_are_closed(text: str) -> bool:
    return text.count('"') % 2 == 0


def _undecodable(text: str) -> str | None:
    if any("\udc80" <= letter <= "\udcff" or letter == "\ufffd" for letter in text):
        return "it is not sound text: save the file as CSV in UTF-8"
    return "it holds NUL bytes" if "\0" in text else None
