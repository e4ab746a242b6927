"""Camera RAW files through LibRaw: the embedded preview where it is large enough, else developed.

A preview is what the camera itself made of the picture, and reading it takes milliseconds where
developing takes half a second.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageFile

from clipsearch.images.opened import Limit, Opened, missing_package
from clipsearch.images.pillow_formats import decode_jpeg, open_jpeg
from clipsearch.images.upright import upright_rgb, upright_size

if TYPE_CHECKING:
    import rawpy

PREVIEW_SIDE = 1000  # shorter side in pixels: large enough for every model and for a screen
_LAST_RESORT_SIDE = 120  # a preview to take where the RAW picture itself cannot be developed
_MOST_PIXELS_PER_BYTE = 16  # no camera's compression comes near it
# LibRaw's flip -> EXIF orientation (dcraw's tiff_head): 3 upside down, 5 and 6 a quarter turn
_ORIENTATION_OF_FLIP = {0: 1, 1: 2, 2: 4, 3: 3, 4: 5, 5: 8, 6: 6, 7: 7}


def open_raw(kind: str, data: bytes, limit: Limit) -> Opened:
    """Reads the header, checks the sensor's size. Raises what rawpy raises."""
    try:
        import rawpy
    except ImportError as error:
        raise missing_package(limit, f"a RAW picture ({kind})", "rawpy") from error
    raw = rawpy.imread(io.BytesIO(data))
    sizes = raw.sizes
    limit.check(max(sizes.raw_width, sizes.width), max(sizes.raw_height, sizes.height))
    orientation = _ORIENTATION_OF_FLIP.get(sizes.flip, 1)
    width, height = sizes.crop_width or sizes.width, sizes.crop_height or sizes.height

    def decode(target_side: int | None) -> Image.Image:
        with raw:
            return _decoded(raw, limit, target_side, len(data))

    return Opened(kind, *upright_size(width, height, orientation), decode)


def _decoded(
    raw: rawpy.RawPy, limit: Limit, target_side: int | None, size_bytes: int
) -> Image.Image:
    import rawpy

    enough = min(PREVIEW_SIDE, 2 * target_side) if target_side else PREVIEW_SIDE
    sensor_side = min(raw.sizes.width, raw.sizes.height)
    preview = _preview(raw, limit)
    if preview is not None and preview.side >= min(enough, sensor_side // 2):
        return preview.decode(target_side)
    try:
        if size_bytes * _MOST_PIXELS_PER_BYTE < raw.sizes.raw_width * raw.sizes.raw_height:
            # LibRaw would develop what is not there as noise
            raise rawpy.LibRawDataError("the sensor's data are missing from the file")
        return _developed(raw, half_size=sensor_side // 2 >= enough)
    except (rawpy.LibRawError, rawpy.NotSupportedError):
        # a compression that LibRaw does not know, or damage: the preview may be whole
        if preview is None or preview.side < _LAST_RESORT_SIDE:
            raise
        return preview.decode(target_side)


def _developed(raw: rawpy.RawPy, *, half_size: bool) -> Image.Image:
    """Upright sRGB with the camera's white balance; at half size each 2 x 2 block is one pixel."""
    import rawpy

    samples = raw.postprocess(
        half_size=half_size,
        use_camera_wb=True,
        output_bps=8,
        output_color=rawpy.ColorSpace.sRGB,
        demosaic_algorithm=rawpy.DemosaicAlgorithm.LINEAR,
    )
    return upright_rgb(_from_samples(samples))


@dataclass(frozen=True)
class _Preview:
    """The largest picture that the camera stored beside the sensor's, not decoded yet."""

    image: Image.Image
    orientation: int

    @property
    def side(self) -> int:
        """Its shorter side in pixels."""
        return min(self.image.size)

    def decode(self, target_side: int | None) -> Image.Image:
        if isinstance(self.image, ImageFile.ImageFile):
            return decode_jpeg(self.image, self.orientation, target_side)
        return upright_rgb(self.image, self.orientation, target_side)


def _preview(raw: rawpy.RawPy, limit: Limit) -> _Preview | None:
    """None where there is none, or none that can be read.

    Its own EXIF says how it lies, where it has one; else the RAW file does. Where that asks for a
    quarter turn of a preview that is high although the sensor is wide, the camera has turned it.
    """
    image: Image.Image
    try:
        thumbnail = raw.extract_thumb()
        if isinstance(thumbnail.data, bytes):
            image, orientation = open_jpeg(thumbnail.data, limit)
        else:
            image, orientation = _from_samples(thumbnail.data), None
    except Exception:  # LibRaw's errors, and whatever a damaged JPEG makes Pillow raise
        return None
    if orientation is None:
        orientation = _ORIENTATION_OF_FLIP.get(raw.sizes.flip, 1)
    is_turned = (image.width > image.height) != (raw.sizes.width > raw.sizes.height)
    return _Preview(image, 1 if orientation >= 5 and is_turned else orientation)


def _from_samples(samples: Any) -> Image.Image:
    array = np.ascontiguousarray(samples, dtype=np.uint8)
    if array.ndim == 3 and array.shape[2] != 3:
        array = np.ascontiguousarray(array[:, :, 0])
    return Image.fromarray(array)
