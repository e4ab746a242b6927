"""Bytes to upright sRGB pictures under a limit, and thumbnails: the only place that opens pictures.

What is inside a file decides what it is, not its name. The size is read from the header and
checked before a pixel is decoded, so a decompression bomb costs nothing. Every format's library is
imported when the first file of that format is met. Whatever such a library raises leaves here as an
``ImageError`` that names the file. docs/formats.md says what each format gives.
"""

from clipsearch.images.kinds import EXTENSIONS, RAW_EXTENSIONS, VIDEO_EXTENSIONS, sniff
from clipsearch.images.opened import DEFAULT_MAX_PIXELS
from clipsearch.images.reading import (
    MAX_FILE_BYTES,
    Header,
    Metadata,
    decode_image,
    load_image,
    read_file,
    read_header,
    read_picture,
)
from clipsearch.images.thumbnails import (
    THUMBNAIL_SIDE,
    THUMBNAIL_SUFFIX,
    THUMBNAIL_TYPE,
    make_thumbnail,
)

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "EXTENSIONS",
    "MAX_FILE_BYTES",
    "RAW_EXTENSIONS",
    "THUMBNAIL_SIDE",
    "THUMBNAIL_SUFFIX",
    "THUMBNAIL_TYPE",
    "VIDEO_EXTENSIONS",
    "Header",
    "Metadata",
    "decode_image",
    "load_image",
    "make_thumbnail",
    "read_file",
    "read_header",
    "read_picture",
    "sniff",
]
