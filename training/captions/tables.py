"""Captions in tables of text: CSV, TSV and JSON lines."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from clipsearch.errors import CaptionFileError
from training.captions.rows import GUESSED, Columns, Rows, SkippedRow

_DELIMITERS = ",\t;"


def read_delimited(path: Path, columns: Columns) -> Rows:
    """Rows of a CSV or TSV file in UTF-8, with a first line of names; a byte order mark is fine.

    What parts the cells is seen from the first line. CaptionFileError for other files.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            first = file.readline()
            file.seek(0)
            delimiter = max(_DELIMITERS, key=first.count)
            if path.suffix.lower() == ".tsv":
                delimiter = "\t"
            reader = csv.DictReader(file, delimiter=delimiter)
            image, caption, label = columns.find(reader.fieldnames or [])
            if image is None or (caption is None and label is None):
                raise CaptionFileError(
                    path=path,
                    reason=f"its first line is '{first.strip()[:200]}'",
                    advice=f"It must name {GUESSED}",
                )
            for row in reader:
                where = f"{path.name}:{reader.line_num}"
                if None in row:
                    reason = "it has more cells than the first line: put quotes around captions"
                    yield SkippedRow(where, str(row[image]), reason)
                else:
                    yield columns.row(where, row, path.parent)
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise CaptionFileError(
            path=path, reason=str(error), advice="Save it as CSV in UTF-8."
        ) from error


def read_json_lines(path: Path, columns: Columns) -> Rows:
    """One JSON object a line, its names as columns; captions may be lists."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                where = f"{path.name}:{number}"
                if not line.strip():
                    continue
                try:
                    record = json.loads(line.decode("utf-8-sig"))
                except (ValueError, RecursionError) as error:
                    yield SkippedRow(where, "", f"it is not JSON in UTF-8: {error}")
                    continue
                if isinstance(record, dict):
                    yield columns.row(where, record, path.parent)
                else:
                    yield SkippedRow(where, "", "it is not a JSON object")
    except OSError as error:
        raise CaptionFileError(path=path, reason=str(error), advice="Check the file.") from error
