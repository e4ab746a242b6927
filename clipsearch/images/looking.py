"""A process that looks closely at pairs of pictures, and may die of one.

    python -m clipsearch.images.looking MAX_PIXELS

It reads a request a line on stdin, JSON, and writes an answer a line for each pair. What it opens
was indexed once, but files change, and a codec that meets a hostile one must not end the program.
"""

from __future__ import annotations

import json
import os
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from PIL import Image

from clipsearch.errors import ImageError
from clipsearch.hashing import hash_content
from clipsearch.images.reading import read_file, read_header, read_picture
from clipsearch.images.structure import (
    Box,
    compare,
    differs_in_colour,
    is_enlarged,
    shows_nothing,
)
from clipsearch.images.undecoded import count_pages, transparency
from clipsearch.process_limits import (
    end_with_parent,
    ignore_signals,
    limit_computing,
    limit_memory,
)

_MOST_PIXELS = 3_200_000  # that are compared; larger pictures are reduced to it
_DRAFT_PIXELS = 2_800_000  # a JPEG is decoded at a fraction of its size that leaves at least this
_GLANCE_SIDE = 256  # pixels; most pairs of other pages differ at this size already
_KEPT_BYTES = 48 << 20  # of decoded pictures
_COMPUTE_S, _PIXELS_PER_S = 20.0, 5_000_000


@dataclass(frozen=True)
class _Seen:
    """One picture, decoded: as it is compared, at a glance, and what else its file says."""

    grey: Image.Image
    colours: tuple[Image.Image, Image.Image]  # half as wide: Cb and Cr
    glance: Image.Image
    size: tuple[int, int]  # of the original
    path: str
    opacity: Image.Image | None
    is_blank: bool
    holds_more: str  # what else is in the file, "" for a plain picture


class _UnseenError(Exception):
    """Why a picture cannot be looked at now."""


class Eyes:
    """Looks at pairs; keeps what it decoded last.

    ``limit`` hears before each file how many seconds computing on it may take.
    """

    def __init__(self, max_pixels: int, limit: Callable[[float], None] = lambda _: None) -> None:
        self._max_pixels = max_pixels
        self._limit = limit
        self._kept: OrderedDict[str, _Seen | _UnseenError] = OrderedDict()
        self._kept_bytes = 0

    def look(self, one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
        """What can be said of two pictures, each given by its hash and its paths.

        ``verdict``: same, other, unresolved, unseen. ``enlarged``: 0 or 1 for which of them is an
        enlargement of the other, else null. ``exact``: whether every grey level is the same.
        """
        try:
            first, second = self._seen(one), self._seen(other)
        except _UnseenError as reason:
            return {"verdict": "unseen", "why": str(reason)}
        if first.is_blank or second.is_blank:
            return {"verdict": "other", "why": "one colour: a blank page looks like any other"}
        if first.holds_more or second.holds_more:
            more = first.holds_more or second.holds_more
            return {"verdict": "other", "why": f"one holds more than a picture: {more}"}
        if not _are_as_opaque(first, second):
            return {"verdict": "other", "why": "their transparency differs"}
        if compare(first.glance, second.glance).is_plainly_other:
            return {"verdict": "other", "why": ""}
        found = compare(first.grey, second.grey)
        is_exact = found.is_exact and _are_equal(first.colours, second.colours)
        if found.verdict != "other" and not is_exact:
            halved = found.box and tuple(edge / 2 for edge in found.box)
            for one_colour, other_colour in zip(first.colours, second.colours, strict=True):
                if differs_in_colour(one_colour, other_colour, cast("Box | None", halved)):
                    return {"verdict": "other", "why": ""}
        answer: dict[str, Any] = {"verdict": found.verdict, "why": "", "exact": is_exact}
        if found.verdict == "same":
            answer["enlarged"] = self._enlarged(first, second)
        return answer

    def _enlarged(self, first: _Seen, second: _Seen) -> int | None:
        pair = (first, second)
        larger = 0 if first.size[0] > second.size[0] else 1
        large, small = pair[larger], pair[1 - larger]
        grey, beside = large.grey, small.grey
        if large.grey.width < large.size[0] or small.grey.width < small.size[0]:
            if large.size[0] < 1.15 * small.size[0]:
                return None
            if large.grey.width < 1.5 * small.size[0]:
                grey, beside = (self._whole(seen) for seen in (large, small))
        return larger if is_enlarged(grey, beside) else None

    def _whole(self, seen: _Seen) -> Image.Image:
        """The middle of a picture that was reduced for comparing, in its full size."""
        data = read_file(Path(seen.path))
        self._limit(_COMPUTE_S + seen.size[0] * seen.size[1] / _PIXELS_PER_S)
        image, _ = read_picture(data, name=seen.path, max_pixels=self._max_pixels)
        left, top = round(0.3 * image.width), round(0.3 * image.height)
        right, bottom = round(0.7 * image.width), round(0.7 * image.height)
        return image.convert("L").crop((left, top, right, bottom))

    def _seen(self, given: dict[str, Any]) -> _Seen:
        name = given["hash"]
        found = self._kept.pop(name, None)
        if found is None:
            found = self._opened(given["paths"], name)
            self._kept_bytes += _bytes(found)
        self._kept[name] = found
        while self._kept_bytes > _KEPT_BYTES and len(self._kept) > 2:
            self._kept_bytes -= _bytes(self._kept.popitem(last=False)[1])
        if isinstance(found, _UnseenError):
            raise found
        return found

    def _opened(self, paths: list[str], content_hash: str) -> _Seen | _UnseenError:
        reason = "no file of it is there"
        for path in paths:
            try:
                data = read_file(Path(path))
                if hash_content(data) != content_hash:
                    reason = f"{path} has changed since it was indexed"
                    continue
                return self._decoded(data, path)
            except ImageError as error:
                reason = str(error)
            except MemoryError:
                reason = f"{path} takes more memory than it may"
        return _UnseenError(reason)

    def _decoded(self, data: bytes, path: str) -> _Seen:
        self._limit(_COMPUTE_S)
        header = read_header(data, name=path, max_pixels=self._max_pixels)
        pixels = header.width * header.height
        self._limit(_COMPUTE_S + pixels / _PIXELS_PER_S)
        target_side = None
        if pixels > _MOST_PIXELS:
            shorter = min(header.width, header.height) * (_DRAFT_PIXELS / pixels) ** 0.5
            target_side = max(1, int(shorter / 2))
        image, facts = read_picture(
            data, name=path, max_pixels=self._max_pixels, target_side=target_side
        )
        image = _at_most(image, (_MOST_PIXELS / (image.width * image.height)) ** 0.5)
        grey, *colours = image.convert("YCbCr").split()
        glance = _at_most(grey, _GLANCE_SIDE / max(grey.size))
        pages = count_pages(data)
        more = f"{facts.frames} frames" if facts.frames > 1 else ""
        return _Seen(
            grey=grey,
            colours=(colours[0].reduce(2), colours[1].reduce(2)),
            glance=glance,
            size=(facts.width, facts.height),
            path=path,
            opacity=transparency(data, glance.size),
            is_blank=shows_nothing(grey),
            holds_more=more or (f"{pages} pages" if pages > 1 else ""),
        )


def _are_equal(one: tuple[Image.Image, ...], other: tuple[Image.Image, ...]) -> bool:
    return all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


def _are_as_opaque(first: _Seen, second: _Seen) -> bool:
    if first.opacity is None or second.opacity is None:
        return first.opacity is second.opacity
    one, other = first.opacity, second.opacity.resize(first.opacity.size, Image.Resampling.BOX)
    return compare(one, other).verdict == "same"


def _at_most(image: Image.Image, scale: float) -> Image.Image:
    if scale >= 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _bytes(seen: _Seen | _UnseenError) -> int:
    return (
        1000
        if isinstance(seen, _UnseenError)
        else seen.grey.width * seen.grey.height * 3 // 2 + 100_000
    )


def serve(requests: IO[str], say: Callable[[str], None], max_pixels: int) -> None:
    """Answers until the other side closes the stream: a line for each of ``others``."""
    eyes = Eyes(max_pixels, limit_computing)
    for line in requests:
        request = json.loads(line)
        for other in request["others"]:
            try:
                answer = eyes.look(request["one"], other)
            except (ImageError, MemoryError) as error:
                answer = {"verdict": "unseen", "why": str(error) or "not enough memory"}
            limit_computing(0)
            say(json.dumps(answer))


def main() -> None:
    ignore_signals()  # Ctrl-C is for the process that asks, which then ends this one
    end_with_parent(sys.stdin.fileno())
    max_pixels = int(sys.argv[1])
    limit_memory(max_pixels)
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # codecs print to stdout: the answers are on a descriptor they do not know

    def say(line: str) -> None:
        answers.write(line + "\n")
        answers.flush()

    serve(sys.stdin, say, max_pixels)


if __name__ == "__main__":
    main()
