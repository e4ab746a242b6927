"""Answers as one picture: a row a question, its best pictures side by side with their scores."""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from clipsearch.errors import ImageError, StorageError, UsageError
from clipsearch.hits import SearchHit
from clipsearch.images import load_image

_CELL = 180  # pixels, a picture's longest side
_GAP = 10
_LINE = 18
_MAX_COLUMNS = 6
_INK, _PALE, _PAPER = (25, 25, 30), (120, 120, 130), (255, 255, 255)
_MAX_TITLE, _MAX_NAME = 120, 26  # characters; no more fit beside each other
_FORMATS = {".jpg", ".jpeg", ".png", ".webp"}


def write_sheet(rows: Sequence[tuple[str, Sequence[SearchHit]]], path: Path) -> None:
    """Draws (title, hits) rows and saves the sheet; a long answer goes on in further lines.

    UsageError for an unknown extension, StorageError if the file cannot be written.
    """
    if path.suffix.lower() not in _FORMATS:
        raise UsageError(reason=f"A sheet is saved as {', '.join(sorted(_FORMATS))}, not {path}")
    columns = max(1, min(_MAX_COLUMNS, max((len(hits) for _, hits in rows), default=1)))
    line_height = _CELL + 2 * _LINE + _GAP
    lines = [max(1, -(-len(hits) // columns)) for _, hits in rows]
    height = sum(_LINE + _GAP + count * line_height for count in lines) + _GAP
    sheet = Image.new("RGB", (columns * (_CELL + _GAP) + _GAP, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    bold, small = ImageFont.load_default(15), ImageFont.load_default(11)
    top = _GAP
    for (title, hits), count in zip(rows, lines, strict=True):
        draw.text((_GAP, top), _on_one_line(title, _MAX_TITLE), fill=_INK, font=bold)
        top += _LINE + _GAP
        for place, hit in enumerate(hits):
            left = _GAP + (place % columns) * (_CELL + _GAP)
            upper = top + (place // columns) * line_height
            _paste(sheet, draw, hit.path, left, upper)
            name = _on_one_line(hit.path.name, _MAX_NAME)
            draw.text((left, upper + _CELL + 2), name, fill=_INK, font=small)
            score = "" if hit.score is None else f"{hit.score:.3f}"
            draw.text((left, upper + _CELL + 16), score, fill=_PALE, font=small)
        top += count * line_height
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path, quality=88)
    except OSError as error:
        raise StorageError(
            path=path, reason=error.strerror or error, advice="choose another place for the sheet"
        ) from error


def _on_one_line(text: str, most: int) -> str:
    """What can be drawn of a text, without what would begin a line or steer one."""
    drawn = "".join(c if c.isprintable() else " " for c in text[: most + 1])
    return drawn if len(drawn) <= most else drawn[: most - 1] + "…"


def _paste(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, path: Path, left: int, upper: int
) -> None:
    try:
        picture = load_image(path, target_side=_CELL)
    except ImageError:
        draw.rectangle((left, upper, left + _CELL, upper + _CELL), outline=_PALE)
        draw.text((left + 8, upper + _CELL // 2), "not there now", fill=_PALE)
        return
    picture.thumbnail((_CELL, _CELL))
    sheet.paste(picture, (left, upper + _CELL - picture.height))


def open_on_desktop(path: Path) -> None:
    """Opens a file with the desktop's viewer if a person is at one; otherwise does nothing."""
    has_screen = sys.platform in ("darwin", "win32") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    if has_screen and sys.stderr.isatty():
        webbrowser.open(path.absolute().as_uri())
