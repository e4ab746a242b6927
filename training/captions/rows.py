"""What every reader of captions yields, and how columns and cells become a picture and words."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from clipsearch.user_paths import expand_known_user
from training.captions.images import ImageFile, ImageSource, LooseImage

# Guessed in this order, whatever their case; open_clip's own defaults (filepath, title) are among
# them, and those of img2dataset and of Hugging Face's datasets.
IMAGE_COLUMNS = (
    *("path", "image", "filepath", "file_path", "image_path", "file_name", "filename", "file"),
    *("img", "photo", "picture", "jpg", "png", "webp", "image_name"),
)
CAPTION_COLUMNS = (
    *("caption", "captions", "text", "texts", "title", "sentence", "sentences", "description"),
    *("txt", "raw", "comment", "comments"),
)
LABEL_COLUMNS = ("label", "labels", "class", "classes", "category", "categories")
GUESSED = (
    f"a column for the picture ({', '.join(IMAGE_COLUMNS[:4])} ...) and one for the words "
    f"({', '.join(CAPTION_COLUMNS[:4])} ...), such as path,caption; or say which they are: "
    "--image-column NAME --caption-column NAME"
)


@dataclass(frozen=True)
class Row:
    """A picture and what was said of it; without captions it will be listed as unusable."""

    where: str
    image: ImageSource
    captions: tuple[str, ...]


@dataclass(frozen=True)
class SkippedRow:
    """A row that cannot be used, and why. ``where`` is a file and a line, or a member of it."""

    where: str
    name: str
    reason: str


Rows = Iterator[Row | SkippedRow]


@dataclass(frozen=True)
class Columns:
    """The names that a person gave; None leaves them to guessing."""

    image: str | None = None
    caption: str | None = None

    def find(self, names: Sequence[str]) -> tuple[str | None, str | None, str | None]:
        """The columns of pictures, captions and labels among ``names``; None where there is none.

        A name that was given must be there; guesses ignore case and blanks around.
        """
        return (
            _find(names, self.image, IMAGE_COLUMNS),
            _find(names, self.caption, CAPTION_COLUMNS),
            _find(names, None, LABEL_COLUMNS),
        )

    def row(self, where: str, record: Mapping[str, Any], folder: Path) -> Row | SkippedRow:
        """A record with named cells as a row; relative paths start at ``folder``."""
        image, caption, label = self.find(list(record))
        if image is None or (caption is None and label is None):
            return SkippedRow(
                where, "", f"it has the columns {', '.join(record)}; needed: {GUESSED}"
            )
        try:
            said = captions_of_cell(record[caption]) if caption else ()
        except BrokenListError as error:
            return SkippedRow(where, _name_of(record[image]), str(error))
        if not said and label:
            said = captions_of_labels(record[label])
        found = image_of(where, record[image], folder)
        return found if isinstance(found, SkippedRow) else Row(where, found, said)


def _find(names: Sequence[str], given: str | None, guesses: Sequence[str]) -> str | None:
    if given in names:
        return given
    folded = {name.strip().casefold(): name for name in reversed(names)}
    if given is not None:
        return folded.get(given.strip().casefold())
    return next((folded[guess] for guess in guesses if guess in folded), None)


def image_of(where: str, cell: Any, folder: Path) -> ImageSource | SkippedRow:
    """A cell that holds a path, bytes, or Hugging Face's {bytes, path}.

    A path with the separators of Windows, or encoded as in an address, is taken as it is meant
    where there is no file of that very name.
    """
    name = ""
    if isinstance(cell, Mapping):
        name, data = cell.get("path") or "", cell.get("bytes")
        cell = data if data else name
    if isinstance(cell, bytes):
        return LooseImage(f"{where} ({name})" if name else where, cell)
    if not isinstance(cell, str) or not cell.strip():
        return SkippedRow(where, name, "it has no picture")
    path = cell.strip()
    if "\0" in path:
        return SkippedRow(where, path.replace("\0", ""), "the name of its picture holds a NUL byte")
    if path.casefold().startswith("file://"):
        path = unquote(re.sub(r"^file://(?:localhost)?(?=/)", "", path, flags=re.IGNORECASE))
    if re.match(r"[a-z][a-z0-9+.-]+://", path, re.IGNORECASE):
        reason = "its picture is on the network, and nothing is downloaded: save it, name the file"
        return SkippedRow(where, path, reason)
    try:
        return ImageFile(_meant(path, folder))
    except (OSError, RuntimeError, ValueError) as error:
        return SkippedRow(where, path, f"its picture has a name that cannot be opened: {error}")


def _meant(path: str, folder: Path) -> Path:
    found = folder / expand_known_user(path)
    if ("\\" in path or "%" in path) and not found.exists():
        spellings = (path.replace("\\", "/"), unquote(path), unquote(path.replace("\\", "/")))
        others = [folder / expand_known_user(spelling) for spelling in spellings]
        return next((other for other in others if other.exists()), found)
    return found


def _name_of(cell: Any) -> str:
    """What the picture of a row is called, for the list of rows that cannot be used."""
    if isinstance(cell, Mapping):
        cell = cell.get("path")
    return cell.strip() if isinstance(cell, str) else ""


def captions_of(cell: Any) -> tuple[str, ...]:
    """The captions of a cell: a text, or a list of texts (or of {raw: text}); blanks are folded."""
    if isinstance(cell, str):
        text = " ".join(cell.split())
        return (text,) if text else ()
    if isinstance(cell, Mapping):
        return captions_of(cell.get("raw") or cell.get("text") or cell.get("caption"))
    if isinstance(cell, list | tuple):
        return tuple(dict.fromkeys(text for each in cell for text in captions_of(each)))
    return ()


class BrokenListError(Exception):
    """A cell begins as a list of captions and cannot be read as one; the message says so."""


# As Python and numpy print lists of texts: ['a', "b"], and ['a' "b"] without commas.
_QUOTED = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_PRINTED_LIST = re.compile(
    rf"[\[(]\s*{_QUOTED}(?:(?:\s*,\s*|\s+){_QUOTED})*\s*,?\s*[\])]", re.DOTALL
)
_QUOTED_TEXT = re.compile(_QUOTED, re.DOTALL)
_LIKE_A_LIST = re.compile(r"""\[\s*["'{]|\{\s*["'](?:raw|text|caption)["']""")


def captions_of_cell(cell: Any) -> tuple[str, ...]:
    """As ``captions_of``; a text may be a list of captions that was printed.

    In JSON, or as Python and numpy print it. BrokenListError for one that cannot be read.
    """
    if not isinstance(cell, str):
        return captions_of(cell)
    text = cell.strip()
    if text[:1] not in ("[", "(", "{"):
        return captions_of(cell)
    if text == "[]":
        return ()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, list | dict) and (said := captions_of(found)):
        return said
    if _PRINTED_LIST.fullmatch(text):
        return captions_of([_unquoted(item) for item in _QUOTED_TEXT.findall(text)])
    if _LIKE_A_LIST.match(text):
        raise BrokenListError("its caption begins as a list and cannot be read as one")
    return captions_of(cell)


def _unquoted(literal: str) -> str:
    try:
        return str(ast.literal_eval(literal.replace("\n", " ")))
    except (ValueError, SyntaxError):
        return literal[1:-1]


def lines_of(text: str) -> tuple[str, ...]:
    """The captions of a text file: one a line."""
    return captions_of(text.splitlines())


def captions_of_labels(cell: Any) -> tuple[str, ...]:
    """Names of things as captions, for where nobody wrote a sentence; numbers name nothing."""
    names = [name for name in captions_of(cell) if not name.isdigit()]
    return tuple(photo_of(name) for name in names)


def photo_of(name: str) -> str:
    """The one template for bare names, those of people and of things alike."""
    return f"a photo of {name.replace('_', ' ').strip()}"
