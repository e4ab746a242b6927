"""HEIC and other HEIF pictures, through pi-heif: libheif and libde265, which only decode."""

from __future__ import annotations

import io

from PIL import Image

from clipsearch.images.opened import Limit, Opened, missing_package
from clipsearch.images.upright import upright_rgb


def open_heif(data: bytes, limit: Limit) -> Opened:
    """Reads the header of the primary picture; its size is already that of the upright picture.

    Bursts, thumbnails and depth maps in the same file are left alone. Raises what pi-heif raises.
    """
    try:
        from pi_heif import HeifImageFile
    except ImportError as error:
        raise missing_package(limit, "HEIC", "pi-heif") from error
    # the class itself: registering it would change what Pillow opens in the whole process
    opened: Image.Image = HeifImageFile(io.BytesIO(data), limit.name)
    limit.check(*opened.size)

    def decode(target_side: int | None) -> Image.Image:
        opened.load()
        limit.check(*opened.size)  # libheif corrects a size that the header had wrong
        return upright_rgb(opened, target_side=target_side)  # libheif has rotated it

    return Opened("HEIC", *opened.size, decode)
