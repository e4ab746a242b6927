"""What a picture says about itself: EXIF, XMP and IPTC of every format, as one PhotoMetadata.

The only door to them. It runs in the process that decodes pictures and imports neither numpy nor
a decoder; defusedxml is imported when the first XMP packet is met.

    blocks.py   containers: where in a file the three are
    exif.py     TIFF directories, through Pillow
    xmp.py      RDF packets, through defusedxml
    iptc.py     IPTC-IIM datasets
    fields.py   the limits that each value passes, and which block is believed
"""

from __future__ import annotations

from collections.abc import Callable

from indexer.blocks import find_blocks
from indexer.exif import ExifBlock, Nested, read_exif
from indexer.fields import Findings, PhotoMetadata, merge
from indexer.iptc import read_iptc
from indexer.xmp import read_xmp

__all__ = ["PhotoMetadata", "read_metadata"]

_MAX_BLOCKS = 8  # of one kind; the first are the main picture's


def read_metadata(data: bytes) -> PhotoMetadata:
    """Reads the metadata embedded in a picture file's bytes.

    JPEG, PNG, WebP, GIF, TIFF, HEIC, AVIF, JPEG XL, JPEG 2000, PSD, and camera RAW: CR2, CR3, NEF,
    ARW, DNG, ORF, RW2, RAF and others made from TIFF. Never raises: of a damaged file, what could
    be read; of bytes that are no picture, an empty PhotoMetadata.
    """
    try:
        blocks = find_blocks(data)
    except Exception:  # a damaged container; its walk is bounded, so this ends
        return PhotoMetadata()
    exif = [found for found in map(_exif, blocks.exif[:_MAX_BLOCKS]) if found is not None]
    for _, nested in exif:
        blocks.add_xmp(nested.xmp)
        blocks.add_iptc(nested.iptc)
        blocks.add_resources(nested.resources)
    # A file with several pictures has the main one's EXIF first.
    main = [found for found, _ in exif if found.values or found.dates][:1]
    return merge([*main, *_each(read_xmp, blocks.xmp), *_each(read_iptc, blocks.iptc)])


def _exif(block: ExifBlock) -> tuple[Findings, Nested] | None:
    try:
        return read_exif(block)
    except Exception:  # damaged in a way that the reader does not know; other blocks count
        return None


def _each(read: Callable[[bytes], Findings], blocks: list[bytes]) -> list[Findings]:
    def tried(block: bytes) -> Findings | None:
        try:
            return read(block)
        except Exception:  # as above
            return None

    return [found for found in map(tried, blocks[:_MAX_BLOCKS]) if found is not None]
