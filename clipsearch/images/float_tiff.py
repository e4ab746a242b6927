"""TIFFs of floating-point colours, which Pillow does not read: HDR merges, renderings, science.

After TIFF 6.0 and Adobe's "TIFF Technical Note 3" (2005), which adds the predictor for floats.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from clipsearch.images.opened import Limit, Opened, unreadable
from clipsearch.images.upright import from_float_colours, upright_rgb, upright_size

_NONE, _DEFLATE, _OLD_DEFLATE = 1, 8, 32946
_NO_PREDICTOR, _FLOAT_PREDICTOR = 1, 3
_FLOAT_SAMPLES, _CHUNKY = 3, 1


@dataclass(frozen=True)
class _Layout:
    """How the samples lie in the file; strips are tiles as wide as the picture."""

    width: int
    height: int
    samples: int
    sample_bytes: int
    order: str
    compression: int
    predictor: int
    tile_width: int
    tile_height: int
    places: tuple[int, ...]
    lengths: tuple[int, ...]


def open_float_tiff(data: bytes, limit: Limit) -> Opened:
    """Reads the header. ImageUnreadableError for every TIFF that is not one of float colours."""
    file = io.BytesIO(data)
    tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
    file.seek(tags.next)
    tags.load(file)
    bits, formats = set(tags.get(258, (1,))), set(tags.get(339, (1,)))
    samples, compression = int(tags.get(277, 1)), int(tags.get(259, 1))
    predictor = int(tags.get(317, _NO_PREDICTOR))
    if (
        samples < 3
        or formats != {_FLOAT_SAMPLES}
        or not (len(bits) == 1 and bits <= {16, 32, 64})
        or compression not in (_NONE, _DEFLATE, _OLD_DEFLATE)
        or predictor not in (_NO_PREDICTOR, _FLOAT_PREDICTOR)
        or tags.get(284, _CHUNKY) != _CHUNKY
    ):
        what = f"{samples} samples of {min(bits)} bits, compression {compression}"
        raise unreadable(limit, f"a kind of TIFF that is not supported ({what})")
    width, height, sample_bytes = int(tags[256]), int(tags[257]), min(bits) // 8
    is_tiled = 322 in tags
    layout = _Layout(
        width=width,
        height=height,
        samples=samples,
        sample_bytes=sample_bytes,
        order="<" if data[:2] == b"II" else ">",
        compression=compression,
        predictor=predictor,
        tile_width=int(tags[322]) if is_tiled else width,
        tile_height=int(tags[323]) if is_tiled else min(int(tags.get(278, height)), height),
        places=tuple(tags[324 if is_tiled else 273]),
        lengths=tuple(tags[325 if is_tiled else 279]),
    )
    for size in ((width, height), (layout.tile_width, layout.tile_height)):
        limit.check(*size, samples * sample_bytes)
    orientation = int(tags.get(274, 1))

    def decode(target_side: int | None) -> Image.Image:
        colours = from_float_colours(_colours(data, layout))
        return upright_rgb(colours, orientation, target_side)

    return Opened("TIFF", *upright_size(width, height, orientation), decode)


def _colours(data: bytes, layout: _Layout) -> NDArray[np.float32]:
    """(height, width, 3): the first three samples of each pixel."""
    across = -(-layout.width // layout.tile_width)
    found = np.zeros((layout.height, layout.width, 3), dtype=np.float32)
    for number, (place, length) in enumerate(zip(layout.places, layout.lengths, strict=True)):
        top = number // across * layout.tile_height
        left = number % across * layout.tile_width
        rows = layout.tile_height
        if layout.tile_width == layout.width:  # the last strip may be shorter
            rows = min(rows, layout.height - top)
        tile = _tile(data[place : place + length], layout, rows)[:, :, :3]
        room = found[top : top + rows, left : left + layout.tile_width]
        room[:] = tile[: room.shape[0], : room.shape[1]]
    return found


def _tile(packed: bytes, layout: _Layout, rows: int) -> NDArray[np.float32]:
    row_bytes = layout.tile_width * layout.samples * layout.sample_bytes
    if layout.compression != _NONE:
        packed = zlib.decompressobj().decompress(packed, rows * row_bytes)
    samples = np.frombuffer(packed, np.uint8, rows * row_bytes).reshape(rows, row_bytes)
    order = layout.order
    if layout.predictor == _FLOAT_PREDICTOR:
        # each byte is the difference to the one before of its sample; highest bytes come first
        steps = samples.reshape(rows, -1, layout.samples)
        sums = np.cumsum(steps, axis=1, dtype=np.uint8).reshape(rows, layout.sample_bytes, -1)
        samples, order = np.ascontiguousarray(sums.transpose(0, 2, 1)), ">"
    floats = np.frombuffer(samples.tobytes(), f"{order}f{layout.sample_bytes}")
    shape = (rows, layout.tile_width, layout.samples)
    return floats.reshape(shape).astype(np.float32)
