"""Samples of 16 bits as 8, also where a camera or a microscope filled only 10 or 12 of them.

Such files rarely say how many bits they use. The largest value does: 4095 at most is 12 bits. Then
a picture that is really dark would come out brighter than it is; so what a file does say counts
first, and a picture is never stretched beyond the next usual number of bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

USUAL_WHITES = (255, 1023, 4095, 16383, 65535)  # of 8, 10, 12, 14 and 16 bits
FULL_WHITE = 65535
_STEP_OF_EIGHT_BITS = 257  # 8 bits widened to 16: 255 becomes 65535
_FEW_BITS = 64  # an upper byte below this: 14 bits or fewer
_OTHER_BYTE = {"16B": "16L", "16L": "16B", "16N": "16B" if np.little_endian else "16L"}


def to_eight_bits(samples: NDArray[Any], white: int | None = None) -> NDArray[np.uint8]:
    """Scales unsigned 16-bit samples; ``white`` is what the file says white is, if it does."""
    white = white or white_of(samples)
    table = np.rint(np.arange(FULL_WHITE + 1) * (255.0 / white)).clip(0, 255).astype(np.uint8)
    return np.asarray(table[samples], dtype=np.uint8)


def white_of(samples: NDArray[Any]) -> int:
    """The largest value that as many bits hold as the largest sample needs.

    All bits where every sample is one of 8 bits, widened: such a picture is as dark as it looks.
    """
    high = int(samples.max(initial=0))
    white = next(white for white in USUAL_WHITES if high <= white)
    may_be_widened = high >= _STEP_OF_EIGHT_BITS and white < FULL_WHITE
    if may_be_widened and not (samples % _STEP_OF_EIGHT_BITS).any():
        return FULL_WHITE
    return white


def lower_bytes(opened: ImageFile.ImageFile) -> bool:
    """Has Pillow decode the lower bytes of colours of 16 bits, not the upper; False if it cannot.

    Pillow keeps 8 bits of these, whichever it is told to.
    """
    tiles = []
    for tile in opened.tile:
        rest = tile.args[1:] if isinstance(tile.args, tuple) else None
        rawmode = tile.args[0] if isinstance(tile.args, tuple) else tile.args
        if rawmode == "LA;16B":
            other = "RGBA"  # both bytes of grey, then both of transparency
        else:
            colours, _, form = str(rawmode).partition(";")
            if form not in _OTHER_BYTE or not colours.startswith(("RGB", "LA")):
                return False
            other = f"{colours};{_OTHER_BYTE[form]}"
        tiles.append(tile._replace(args=other if rest is None else (other, *rest)))
    opened.tile = tiles
    return bool(tiles)


def with_few_bits(upper: Image.Image, reopen: Callable[[], ImageFile.ImageFile]) -> Image.Image:
    """Colours of 16 bits, of which Pillow kept the upper byte, scaled by the bits in use.

    ``reopen`` opens the same picture once more; it is asked only where few bits may be in use.
    """
    high = np.asarray(upper)
    colours = slice(0, 3)
    if upper.mode not in ("RGB", "RGBA") or int(high[..., colours].max(initial=0)) >= _FEW_BITS:
        return upper
    again = reopen()
    is_grey = bool(again.tile) and again.tile[0].args == "LA;16B"
    if not lower_bytes(again):
        return upper
    again.load()
    low = np.asarray(again)
    if is_grey:
        low = low[..., [1, 1, 1, 3]]
    samples = (high.astype(np.uint16) << 8) | low
    white = white_of(samples[..., colours])
    if white == FULL_WHITE:
        return upper
    scaled = to_eight_bits(samples, white)
    if upper.mode == "RGBA" and int(samples[..., 3].max(initial=0)) > white:
        scaled[..., 3] = high[..., 3]  # transparency that uses all bits
    found = Image.fromarray(scaled)
    found.info = dict(upper.info)
    return found
