"""Which short videos are the moving half of a photo beside them, and count with it.

An iPhone writes one identifier into both halves of a Live Photo: the photo's MakerNote (also
ExifTool's XMP), the video's QuickTime metadata. Google's motion photos say in XMP that they move;
some programs store their film as a file of its own. The same name alone says nothing: a person may
film what they have just photographed.
"""

from __future__ import annotations

import re
import struct
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePath

LIVE_PHOTO_MAX_S = 6.0  # of a film that does not say itself that it is one
MAX_STILL_BYTES = 100_000_000
_FORMATS = ("MOV", "MP4")
_SUFFIXES = (".heic", ".heif", ".jpg", ".jpeg", ".dng")
_APPLE_NOTE = b"Apple iOS\0\0\1MM"  # then a big-endian directory; places count from here
_IDENTIFIER_TAG, _ASCII = 0x0011, 2
_MAX_ENTRIES, _MAX_TEXT = 200, 64
_XMP_IDENTIFIER = re.compile(rb"\bContentIdentifier(?:>|\s*=\s*[\"'])\s*([0-9A-Za-z-]{8,64})")
_XMP_MOVES = re.compile(rb"\b(?:MotionPhoto|MicroVideo)(?:>|\s*=\s*[\"'])\s*1\b")


def still_of(
    video_name: str,
    *,
    format_name: str,
    duration_s: float,
    identifier: str | None,
    names: Iterable[str],
    read: Callable[[str], bytes],
) -> str | None:
    """The name of the photo whose moving half a video is; None for a video of its own.

    ``names`` are of the files in the video's folder; ``read`` gives the bytes of one, or of none.
    A photo of the same stem (IMG_1234.HEIC, or IMG_1234.HEIC.MOV for the video), in any case and
    Unicode form, has to have the video's identifier. Where one of the two lost its own (a video
    that was converted, an edited photo) the other's is enough.
    """
    is_short = 0 < duration_s <= LIVE_PHOTO_MAX_S
    if format_name not in _FORMATS or not (identifier or is_short):
        return None
    for name in _of_same_stem(video_name, names):
        data = read(name)
        known = _apple_identifier(data)
        if identifier and known:
            if identifier.casefold() == known.casefold():
                return name
        elif identifier or (is_short and (known or _XMP_MOVES.search(data))):
            return name
    return None


def _of_same_stem(video_name: str, names: Iterable[str]) -> Iterator[str]:
    stem = _folded(PurePath(video_name).stem)
    for name in sorted(names):
        picture = PurePath(_folded(name))
        if picture.suffix in _SUFFIXES and stem in (picture.stem, picture.name):
            yield name


def _apple_identifier(data: bytes) -> str | None:
    """What a photo says joins it with its film."""
    note = data.find(_APPLE_NOTE)
    if note >= 0:
        found = _in_note(data[note : note + (1 << 16)])
        if found:
            return found
    said = _XMP_IDENTIFIER.search(data)
    return said[1].decode("ascii") if said else None


def _in_note(note: bytes) -> str | None:
    begin = len(_APPLE_NOTE)
    if len(note) < begin + 2:
        return None
    (count,) = struct.unpack_from(">H", note, begin)
    for number in range(min(count, _MAX_ENTRIES)):
        at = begin + 2 + 12 * number
        if at + 12 > len(note):
            return None
        tag, kind, length, place = struct.unpack_from(">HHII", note, at)
        if (tag, kind) == (_IDENTIFIER_TAG, _ASCII) and 4 < length <= _MAX_TEXT:
            text = note[place : place + length].split(b"\0")[0]
            return text.decode("ascii", "replace").strip() or None
    return None


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
