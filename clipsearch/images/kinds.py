"""Which kind of file some bytes are, by their content; and the names such files usually have."""

from __future__ import annotations

from pathlib import PurePath

from clipsearch.images.tiff_directories import (
    COMPRESSION,
    DNG_VERSION,
    MAKE,
    PHOTOMETRIC,
    directories,
)

# fmt: off
RAW_EXTENSIONS = frozenset((
    ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".dng", ".orf", ".rw2", ".rwl",
    ".raf", ".pef", ".srw", ".3fr", ".iiq", ".erf", ".mrw",
))
EXTENSIONS = RAW_EXTENSIONS | {
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".tif",
    ".tiff", ".heic", ".heif", ".heics", ".heifs", ".hif", ".avif", ".avifs", ".jxl", ".jp2",
    ".j2k", ".j2c", ".jpc", ".jpx", ".jpf", ".psd", ".psb",
}
# fmt: on
VIDEO_EXTENSIONS = frozenset(
    [
        ".mp4",
        ".m4v",
        ".mov",
        ".qt",
        ".3gp",
        ".3g2",
        ".mkv",
        ".webm",
        ".avi",
        ".mts",
        ".m2ts",
        ".mpg",
        ".mpeg",
        ".vob",
        ".wmv",
        ".flv",
    ]
)

_STARTS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"8BPS", "PSD"),
    (b"\xff\x0a", "JXL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JXL"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
    (b"FUJIFILMCCD-RAW", "RAF"),
    (b"\0MRM", "MRW"),
    (b"IIRO", "ORF"),
    (b"IIRS", "ORF"),
    (b"MMOR", "ORF"),
    (b"IIU\0", "RW2"),
    (b"II\x1a\0\0\0HEAPCCDR", "CRW"),
    (b"\x1aE\xdf\xa3", "video"),  # Matroska and WebM
    (b"\0\0\1\xba", "video"),  # MPEG program stream
    (b"\0\0\1\xb3", "video"),  # MPEG video alone
    (b"FLV\1", "video"),
    (b"0&\xb2u\x8ef\xcf\x11", "video"),  # ASF, the container of WMV
)
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"MM*\0", b"II\0*")  # + is BigTIFF
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_AVIF_BRANDS = {b"avif", b"avis"}
_PICTURE_BRANDS = {b"mif1", b"mif2", b"msf1", b"heif"}  # of either coding: its other brands tell
_QUICKTIME_ATOMS = {b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}
_AUDIO_BRANDS = {b"M4A ", b"M4B ", b"M4P ", b"F4A ", b"F4B "}

RAW_KINDS = frozenset(("CR2", "CR3", "CRW", "NEF", "ARW", "DNG", "ORF", "RW2", "RAF", "PEF", "SRW"))
RAW_KINDS |= {"MRW", "RAW"}


def sniff(prefix: bytes) -> str:
    """Names the kind of file from its first bytes; 256 are enough, 12 nearly always.

    One of JPEG, PNG, GIF, BMP, WEBP, TIFF, HEIC, AVIF, JXL, JPEG2000, PSD, CR2, CR3, CRW, ORF, RW2,
    RAF, MRW, "video", or "" for anything else. The RAW files that are a TIFF inside (NEF, ARW, DNG,
    PEF, SRW) are TIFF here: only ``identify`` looks that deep.
    """
    for start, kind in _STARTS:
        if prefix.startswith(start):
            return kind
    if prefix.startswith(_TIFF_STARTS):
        return "CR2" if prefix[8:10] == b"CR" else "TIFF"
    if prefix[:4] == b"RIFF":
        return {b"WEBP": "WEBP", b"AVI ": "video"}.get(prefix[8:12], "")
    if prefix[4:8] == b"ftyp":
        return _container(prefix)
    if any(prefix[at::step][:2] == b"GG" for at, step in ((0, 188), (4, 192))):
        return "video"  # an MPEG transport stream, its packets plain or with a time before each
    return "video" if prefix[4:8] in _QUICKTIME_ATOMS else ""


def identify(data: bytes, name: str) -> str:
    """``sniff`` of a whole file, which also tells RAW files from other TIFFs.

    A TIFF holds a RAW picture if it says it is a DNG, or if one of its pictures is stored as a
    sensor sees it. ``name`` counts only where a camera's file shows neither: then an ending that
    belongs to RAW files decides.
    """
    kind = sniff(data[:256])
    return _raw_in_tiff(data, name) or kind if kind == "TIFF" else kind


def _container(prefix: bytes) -> str:
    """HEIC, AVIF, CR3 or video, by the brands of the ISO base media file (ISO 14496-12, 4.3)."""
    length = min(int.from_bytes(prefix[:4], "big"), len(prefix))
    major = prefix[8:12]
    others = {prefix[at : at + 4] for at in range(16, length - 3, 4)}
    if major == b"crx ":
        return "CR3"
    if major in _AVIF_BRANDS or (major in _PICTURE_BRANDS and others & _AVIF_BRANDS):
        return "AVIF"
    if major in _HEIC_BRANDS | _PICTURE_BRANDS:
        return "HEIC"
    return "" if major in _AUDIO_BRANDS else "video"


# What only a sensor's picture in a TIFF has (TIFF/EP, DNG 1.7, makers' own).
_SENSOR_PHOTOMETRICS = {32803, 34892}  # colour filter array, linear RAW
_SENSOR_COMPRESSIONS = {32767, 32769, 32770, 32772, 32867, 34713, 65000, 65535}
_KIND_OF_MAKE = {"NIKON": "NEF", "SONY": "ARW", "PENTAX": "PEF", "RICOH": "PEF", "SAMSUNG": "SRW"}
_KIND_OF_MAKE |= {"CANON": "CR2", "OLYMPUS": "ORF", "PANASONIC": "RW2", "LEICA": "RW2"}


def _raw_in_tiff(data: bytes, name: str) -> str:
    make, is_sensors = "", False
    for directory in directories(data):
        if DNG_VERSION in directory.bytes:
            return "DNG"
        if not make and MAKE in directory.bytes:
            text = directory.bytes[MAKE].split(b"\0")[0]
            make = text.decode("ascii", "replace").strip().upper()
        if (
            directory.first(PHOTOMETRIC) in _SENSOR_PHOTOMETRICS
            or directory.first(COMPRESSION) in _SENSOR_COMPRESSIONS
        ):
            is_sensors = True
    is_named_raw = PurePath(name).suffix.lower() in RAW_EXTENSIONS
    if is_sensors or (make and is_named_raw):
        return _KIND_OF_MAKE.get(make.split()[0] if make else "", "RAW")
    return ""
