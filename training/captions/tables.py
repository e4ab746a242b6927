"""Captions in tables of text: CSV, TSV and JSON lines."""

from __future__ import annotations

import json
from pathlib import Path

from clipsearch.errors import CaptionFileError
from clipsearch.images import EXTENSIONS
from training.captions.delimited import DelimitedLines, Line
from training.captions.rows import GUESSED, Columns, Row, Rows, SkippedRow


def read_delimited(path: Path, columns: Columns) -> Rows:
    """Rows of a CSV or TSV file in UTF-8 or UTF-16, with a first line of names.

    What parts the cells is seen from the first line. A row whose quote is never closed, or that is
    no sound text, is listed, and every other one is read. Of several columns with the name of that
    for captions each is read. CaptionFileError for other files.
    """
    try:
        lines = DelimitedLines(path)
    except (OSError, UnicodeError) as error:
        raise CaptionFileError(
            path=path, reason=str(error), advice="Save it as CSV in UTF-8."
        ) from error
    try:
        names = lines.first.cells
        image, caption, label = columns.find(names)
        if lines.first.problem or image is None or (caption is None and label is None):
            raise CaptionFileError(
                path=path,
                reason=lines.first.problem or f"its first line is '{lines.first.text[:200]}'",
                advice=f"It must name {GUESSED}",
            )
        if names.count(image) > 1:
            raise CaptionFileError(
                path=path,
                reason=f"its first line names {image} {names.count(image)} times",
                advice="Give each column a name of its own.",
            )
        place = names.index(image)
        folder = path.parent
        lines.is_row = lambda cells: len(cells) == len(names) and _is_picture(cells[place], folder)
        for line in lines:
            yield _row(path, line, names, columns, (image, caption))
    except (UnicodeError, OSError) as error:
        raise CaptionFileError(
            path=path, reason=str(error), advice="Save it as CSV in UTF-8."
        ) from error
    finally:
        lines.close()


def _row(
    path: Path,
    line: Line,
    names: list[str],
    columns: Columns,
    chosen: tuple[str, str | None],
) -> Row | SkippedRow:
    where = f"{path.name}:{line.number}"
    image, caption = chosen
    place = names.index(image)
    name = line.cells[place].strip()[:200] if len(line.cells) > place else ""
    if line.problem is not None:
        return SkippedRow(where, _printable(name), line.problem)
    if len(line.cells) > len(names):
        reason = "it has more cells than the first line: put quotes around captions"
        return SkippedRow(where, name, reason)
    cells = dict.fromkeys(names) | dict(zip(names, line.cells, strict=False))
    texts = [cell for key, cell in zip(names, line.cells, strict=False) if key == caption]
    if caption is None or len(texts) < 2:
        return columns.row(where, cells, path.parent)
    rows = [columns.row(where, cells | {caption: text}, path.parent) for text in texts]
    if bad := next((row for row in rows if isinstance(row, SkippedRow)), None):
        return bad
    found = [row for row in rows if isinstance(row, Row)]
    said = dict.fromkeys(text for row in found for text in row.captions)
    return Row(where, found[0].image, tuple(said))


def _is_picture(cell: str, folder: Path) -> bool:
    name = cell.strip().strip('"').replace("\\", "/")
    try:
        return Path(name).suffix.lower() in EXTENSIONS or (folder / name).is_file()
    except (OSError, ValueError):
        return False


def _printable(name: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in name)


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
