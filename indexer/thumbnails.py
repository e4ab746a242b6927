"""Thumbnails as a run makes them: where each lies, and how it is written."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image

from clipsearch.images import THUMBNAIL_SUFFIX, make_thumbnail


def thumbnail_path(folder: Path, content_hash: str) -> Path:
    """Where the thumbnail of a content lies below ``thumbs``."""
    return folder / content_hash[:2] / f"{content_hash}{THUMBNAIL_SUFFIX}"


def keep_thumbnail(image: Image.Image, destination: Path) -> None:
    """Saves a thumbnail; a full or read-only disk is met when the library is written."""
    if destination.exists():
        return
    written = destination.with_name(f"{destination.stem}.{os.getpid()}.tmp")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with open(written, "wb", opener=_private) as file:
            file.write(make_thumbnail(image))
        written.replace(destination)
    except OSError:
        return  # thumbnails are a cache: they can be made again from the photo


def _private(path: str, flags: int) -> int:
    """Opens a file that only its owner may read: it shows what a photo shows."""
    return os.open(path, flags, 0o600)
