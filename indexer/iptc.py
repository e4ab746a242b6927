"""IPTC-IIM, the oldest of the three: numbered datasets, as news agencies defined them in 1991."""

from __future__ import annotations

from collections.abc import Iterator

from indexer.dates import parse_date
from indexer.fields import (
    MAX_SHORT_CHARACTERS,
    TAKEN,
    Findings,
    clean_caption,
    clean_keywords,
    decode_text,
    split_lone,
)

_MARKER = 0x1C
_MAX_DATASETS = 2_000
_UTF8 = b"\x1b%G"  # 1:90, ISO 2022: what follows is UTF-8

_OBJECT_NAME, _KEYWORDS, _DATE, _TIME, _HEADLINE, _CAPTION = 5, 25, 55, 60, 105, 120


def read_iptc(block: bytes) -> Findings:
    """Title, caption, keywords and creation date of an IIM block; damage ends the reading.

    Texts are UTF-8 where 1:90 says so or where they are valid UTF-8, else Windows-1252.
    """
    datasets: dict[int, list[bytes]] = {}
    is_utf8 = False
    for record, number, data in _datasets(block):
        if (record, number) == (1, 90):
            is_utf8 = data == _UTF8
        elif record == 2:
            datasets.setdefault(number, []).append(data)

    def texts(number: int) -> list[str]:
        return [
            data.decode("utf-8", "replace") if is_utf8 else decode_text(data)
            for data in datasets.get(number, [])
        ]

    found = Findings("iptc")
    for number in (_OBJECT_NAME, _HEADLINE):
        for text in texts(number)[:1]:
            found.put("title", clean_caption(text, MAX_SHORT_CHARACTERS))
    for text in texts(_CAPTION)[:1]:
        found.put("description", clean_caption(text))
    found.keywords = clean_keywords(split_lone(texts(_KEYWORDS)))
    found.put_date(TAKEN, _date(datasets))
    return found


def _datasets(block: bytes) -> Iterator[tuple[int, int, bytes]]:
    place = block.find(_MARKER)
    for _ in range(_MAX_DATASETS):
        if place < 0 or place + 5 > len(block) or block[place] != _MARKER:
            return
        record, number = block[place + 1], block[place + 2]
        size = int.from_bytes(block[place + 3 : place + 5], "big")
        place += 5
        if size & 0x8000:  # an extended dataset: this many bytes hold its size
            width = size & 0x7FFF
            if width > 4:
                return
            size = int.from_bytes(block[place : place + width], "big")
            place += width
        yield record, number, block[place : place + size]
        place += size


def _date(datasets: dict[int, list[bytes]]) -> str | None:
    """2:55 and 2:60. The offset is left out: programs write +0000 where they do not know it."""
    day = datasets.get(_DATE, [b""])[0].decode("latin-1").strip()
    time = datasets.get(_TIME, [b""])[0].decode("latin-1").strip()
    if len(day) == 8 and day.isdigit():
        day = f"{day[:4]}-{day[4:6]}-{day[6:]}".removesuffix("-00").removesuffix("-00")
    clock = f" {time[:2]}:{time[2:4]}:{time[4:6]}" if time[:6].isdigit() else ""
    return parse_date(day + clock, partial=True)
