"""The one frame that stands for an animated picture, and how many there are."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFile

from clipsearch.images.opened import Limit

MAX_FRAMES = 60  # decoded at most to reach the frame: most formats only store what changed
_MAX_PIXELS = 60_000_000  # of all those frames together: about a second
_BLANK_LEVELS = 8  # of 255: a frame with less between its darkest and lightest is one flat colour
_PATIENCE = 8  # blank frames skipped after the middle before the first frame is taken
_SAMPLE_SIDE = 32


def load_representative(opened: ImageFile.ImageFile, frames: int, limit: Limit) -> Image.Image:
    """Decodes the middle frame, or the next one that is not blank; else the first.

    The first frame of an animation is often empty or a title, the middle rarely is. Frames are
    decoded in order up to the one that is taken: at most 60, and at most 60 million pixels. A frame
    that is damaged or out of reach falls back to the first, which raises if it is damaged too.
    """
    reachable = min(MAX_FRAMES, _MAX_PIXELS // max(1, opened.width * opened.height))
    middle = min(frames // 2, reachable - 1)
    for number in range(max(middle, 0), min(middle + _PATIENCE, frames, reachable)):
        try:
            frame = _load(opened, number, limit)
            if not _is_blank(frame):
                return frame
        except Exception:  # damaged files make Pillow raise nearly anything
            break
    return _load(opened, 0, limit)


def count_gif_frames(data: bytes) -> int:
    """Counts the pictures of a GIF without decoding them, up to 1,000.

    Pillow would count all of them: minutes for a hostile file of millions of one pixel.
    """
    frames, place, end = 0, 13 + _table_bytes(data[10:11]), len(data)
    while place < end and frames < 1000:
        kind = data[place]
        if kind == 0x2C:  # an image: ten bytes, its own colours, the code size
            frames += 1
            place += 11 + _table_bytes(data[place + 9 : place + 10])
        elif kind == 0x21:  # an extension: its label, then blocks
            place += 2
        else:
            break
        while place < end and data[place]:
            place += 1 + data[place]
        place += 1
    return max(1, frames)


def _table_bytes(flags: bytes) -> int:
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0


def _load(opened: ImageFile.ImageFile, number: int, limit: Limit) -> Image.Image:
    opened.seek(number)
    limit.check(*opened.size)  # a GIF's frame may be larger than the GIF says it is
    opened.load()
    return opened


def _is_blank(frame: Image.Image) -> bool:
    small = frame.convert("RGBA").resize((_SAMPLE_SIDE, _SAMPLE_SIDE), Image.Resampling.BOX)
    paper = Image.new("RGBA", small.size, "white")
    paper.alpha_composite(small)
    levels = np.asarray(paper.convert("RGB"), dtype=np.int16)
    return int((levels.max(axis=(0, 1)) - levels.min(axis=(0, 1))).max()) < _BLANK_LEVELS
