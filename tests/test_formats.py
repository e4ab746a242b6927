"""Still-picture formats: upright, in sRGB, under their limit; damage raises only ImageError."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import time
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms

from clipsearch import errors
from clipsearch.images import (
    EXTENSIONS,
    VIDEO_EXTENSIONS,
    decode_image,
    read_header,
    read_picture,
    sniff,
)

REPOSITORY = Path(__file__).parents[1]
MESSY = Path(os.environ.get("CLIPSEARCH_DATA", REPOSITORY.parent / "shared" / "data")) / "messy"
RED, GREEN, BLUE = (220, 20, 20), (20, 220, 20), (20, 20, 220)


def two_coloured(width: int = 64, height: int = 48) -> Image.Image:
    """Red on the left, blue on the right, a green corner at the top left."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    image.paste(GREEN, (0, 0, width // 4, height // 4))
    return image


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def difference(left: Image.Image, right: Image.Image) -> float:
    assert left.size == right.size
    return float(np.abs(np.asarray(left, float) - np.asarray(right, float)).mean())


# --- files that Pillow cannot write ---


def box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def heic(image: Image.Image, *, quarter_turns: int = 0, profile: bytes = b"") -> bytes:
    """A HEIC of one HEVC picture (ISO 23008-12), with an irot and a colour profile if asked."""
    av = pytest.importorskip("av", reason="PyAV encodes the HEVC of this test")
    encoder = av.CodecContext.create("libx265", "w")
    encoder.width, encoder.height, encoder.pix_fmt = *image.size, "yuv420p"
    encoder.time_base = Fraction(1, 1)
    encoder.options = {"x265-params": "keyint=1:log-level=none", "crf": "10"}
    packets = [*encoder.encode(av.VideoFrame.from_image(image)), *encoder.encode(None)]
    stream = b"".join(bytes(packet) for packet in packets)
    units = [unit.rstrip(b"\0") for unit in stream.split(b"\0\0\1")[1:]]
    sets = {kind: [u for u in units if u[0] >> 1 & 63 == kind] for kind in (32, 33, 34)}
    pictures = [unit for unit in units if (unit[0] >> 1 & 63) < 32]
    profile_tier_level = sets[33][0].replace(b"\0\0\3", b"\0\0")[3:15]
    arrays = b"".join(
        bytes([0x80 | kind]) + struct.pack(">H", len(held))
        + b"".join(struct.pack(">H", len(unit)) + unit for unit in held)
        for kind, held in sets.items()
    )  # fmt: skip
    configuration = b"\1" + profile_tier_level + b"\xf0\0\xfc\xfd\xf8\xf8\0\0\x0f\3" + arrays
    properties = [
        box(b"hvcC", configuration),
        box(b"ispe", struct.pack(">III", 0, *image.size)),
    ]
    if profile:
        properties.append(box(b"colr", b"prof" + profile))
    if quarter_turns:
        properties.append(box(b"irot", bytes([quarter_turns])))
    held = b"".join(struct.pack(">I", len(unit)) + unit for unit in pictures)
    numbers = bytes(range(1, len(properties) + 1))
    start = box(b"ftyp", b"heic\0\0\0\0mif1heic")

    def meta(offset: int) -> bytes:
        return box(
            b"meta", bytes(4),
            box(b"hdlr", bytes(8), b"pict", bytes(13)),
            box(b"pitm", bytes(4), b"\0\1"),
            box(b"iinf", bytes(4), b"\0\1", box(b"infe", b"\2\0\0\0\0\1\0\0hvc1\0")),
            box(b"iprp", box(b"ipco", *properties),
                box(b"ipma", bytes(4), struct.pack(">IHB", 1, 1, len(numbers)), numbers)),
            box(b"iloc", bytes(4), b"\x44\0\0\1\0\1\0\0\0\1",
                struct.pack(">II", offset, len(held))),
        )  # fmt: skip

    offset = len(start) + len(meta(0)) + 8
    return start + meta(offset) + box(b"mdat", held)


def psd(image: Image.Image, *, bits: int = 8, packed: bool = False, version: int = 1) -> bytes:
    """A PSD without layers: header, no resources, and the merged picture."""
    mode, planes = {"L": 1, "RGB": 3, "CMYK": 4}[image.mode], image.split()
    header = struct.pack(
        ">4sH6xHIIHH", b"8BPS", version, len(planes), image.height, image.width, bits, mode
    )
    rows = []
    for plane in planes:
        samples = np.asarray(plane)
        samples = 255 - samples if image.mode == "CMYK" else samples
        wide = samples.astype(">u2") * 257 if bits == 16 else samples
        if bits == 32:
            wide = ((samples / 255) ** 2.2).astype(">f4")
        rows += [row.tobytes() for row in wide]
    body = b"\0\0" + b"".join(rows)
    if packed:  # runs of 128 bytes at most, as they are
        coded = [
            b"".join(bytes([len(row[i : i + 128]) - 1]) + row[i : i + 128]
                     for i in range(0, len(row), 128)) for row in rows
        ]  # fmt: skip
        count = ">I" if version == 2 else ">H"
        body = b"\0\1" + b"".join(struct.pack(count, len(row)) for row in coded) + b"".join(coded)
    return header + bytes(16 if version == 2 else 12) + body


SHORT, LONG, RATIONAL = 3, 4, 10
Entry = tuple[int, int, int, bytes]  # tag, type, count, value


def shorts(tag: int, *values: int) -> Entry:
    return tag, SHORT, len(values), struct.pack(f"<{len(values)}H", *values)


def longs(tag: int, *values: int) -> Entry:
    return tag, LONG, len(values), struct.pack(f"<{len(values)}I", *values)


def text(tag: int, value: str) -> Entry:
    return tag, 2, len(value) + 1, value.encode() + b"\0"


def directory(entries: list[Entry], at: int) -> bytes:
    """A TIFF image file directory that lies at ``at``, its long values behind it."""
    place, body, tail = at + 2 + 12 * len(entries) + 4, b"", b""
    for tag, kind, count, value in sorted(entries):
        body += struct.pack("<HHI", tag, kind, count)
        if len(value) <= 4:
            body += value.ljust(4, b"\0")
        else:
            body += struct.pack("<I", place + len(tail))
            tail += value + b"\0" * (len(value) % 2)
    return struct.pack("<H", len(entries)) + body + bytes(4) + tail


def dng(width: int, height: int, *, orientation: int = 1, preview: bytes = b"") -> bytes:
    """A DNG 1.1: an uncompressed sensor picture, left red and right blue, and a JPEG preview."""
    mosaic = np.full((height, width), 300, dtype="<u2")
    mosaic[0::2, 0 : width // 2 : 2] = 12000  # RGGB: red
    mosaic[1::2, width // 2 + 1 :: 2] = 12000  # blue
    pixels = mosaic.tobytes()
    matrix = b"".join(struct.pack("<ii", int(10000 * x), 10000) for x in (
        3.2405, -1.5371, -0.4985, -0.9693, 1.8760, 0.0416, 0.0556, -0.2040, 1.0572,
    ))  # fmt: skip
    camera = [
        text(271, "Clipsearch"), text(272, "Test"), shorts(274, orientation),
        (50706, 1, 4, b"\1\1\0\0"), text(50708, "Clipsearch Test"),
        (50721, RATIONAL, 9, matrix), (50728, 5, 3, struct.pack("<6I", 1, 1, 1, 1, 1, 1)),
        shorts(50778, 21),
    ]  # fmt: skip
    sensor = [
        longs(254, 0), longs(256, width), longs(257, height), shorts(258, 16), shorts(259, 1),
        shorts(262, 32803), longs(273, 8), shorts(277, 1), longs(278, height),
        longs(279, len(pixels)), shorts(33421, 2, 2), (33422, 1, 4, b"\0\1\1\2"),
        shorts(50717, 16383),
    ]  # fmt: skip
    body = pixels
    if preview:
        with Image.open(io.BytesIO(preview)) as picture:
            size = picture.size
        sub_at = 8 + len(body)
        body += directory(sensor, sub_at)
        preview_at = 8 + len(body)
        body += preview + b"\0" * (len(preview) % 2)
        sensor = [
            longs(254, 1), longs(256, size[0]), longs(257, size[1]), shorts(258, 8, 8, 8),
            shorts(259, 7), shorts(262, 6), longs(273, preview_at), shorts(277, 3),
            longs(278, size[1]), longs(279, len(preview)), longs(330, sub_at),
        ]  # fmt: skip
    first_at = 8 + len(body)
    return struct.pack("<2sHI", b"II", 42, first_at) + body + directory(camera + sensor, first_at)


def tiff(width: int, height: int, layout: list[Entry] | None = None) -> bytes:
    """A grey TIFF of zeros; one strip unless ``layout`` says otherwise. 4,096 pixels are there."""
    entries = [longs(256, width), longs(257, height), shorts(258, 8), shorts(259, 1),
               shorts(262, 1), shorts(277, 1)]  # fmt: skip
    entries += layout or [longs(273, 8), longs(278, height), longs(279, 64 * 64)]
    at = 8 + 64 * 64
    return struct.pack("<2sHI", b"II", 42, at) + bytes(64 * 64) + directory(entries, at)


def jxl(image: Image.Image, **options: object) -> bytes:
    pytest.importorskip("pillow_jxl", reason="the extra clipsearch[jxl] is not installed")
    return encoded(image, "JXL", lossless=True, **options)


# --- every format ---


def test_heic_is_read_upright_and_only_once() -> None:
    for turns, expected in ((0, two_coloured()), (1, two_coloured().rotate(90, expand=True))):
        image, metadata = read_picture(heic(two_coloured(), quarter_turns=turns), name="x")
        assert difference(image, expected) < 8
        assert (metadata.format, metadata.width, metadata.height) == ("HEIC", *expected.size)


@pytest.mark.parametrize("form", ["AVIF", "JPEG2000"])
def test_avif_and_jpeg_2000_are_read(form: str) -> None:
    data = encoded(two_coloured(), form)
    image, metadata = read_picture(data, name="x")
    assert difference(image, two_coloured()) < 8
    assert (metadata.format, metadata.width, metadata.height) == (form, 64, 48)


@pytest.mark.parametrize("orientation", [3, 5, 6, 8])
def test_avif_is_turned_once(orientation: int) -> None:
    stored = two_coloured()
    for step in {
        3: [Image.Transpose.ROTATE_180],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        8: [Image.Transpose.ROTATE_270],
    }[orientation]:
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image, metadata = read_picture(encoded(stored, "AVIF", exif=exif), name="x")
    assert difference(image, two_coloured()) < 8
    assert (metadata.width, metadata.height) == (64, 48)


@pytest.mark.parametrize("size", [(1024, 768), (1021, 767), (333, 1999)])
def test_a_large_jpeg_2000_is_decoded_smaller_but_never_too_small(size: tuple[int, int]) -> None:
    image, metadata = read_picture(encoded(two_coloured(*size), "JPEG2000"), name="x",
                                   target_side=40)  # fmt: skip
    assert (metadata.width, metadata.height) == size
    assert min(image.size) >= 80
    assert size[0] % 2 or image.size < size
    assert difference(image, two_coloured(*size).resize(image.size)) < 8


def test_jpeg_xl_is_read_upright_and_only_once() -> None:
    image, metadata = read_picture(jxl(two_coloured()), name="x")
    assert difference(image, two_coloured()) < 1
    assert (metadata.format, metadata.width, metadata.height) == ("JXL", 64, 48)
    with_alpha = Image.new("RGBA", (16, 8), (0, 0, 0, 0))
    assert decode_image(jxl(with_alpha), name="x").getpixel((3, 3)) == (255, 255, 255)


def test_a_jpeg_packed_as_jpeg_xl_keeps_its_orientation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    photo = tmp_path / "photo.jpg"
    two_coloured().transpose(Image.Transpose.ROTATE_90).save(photo, quality=95, exif=exif)
    with Image.open(photo) as opened:
        pytest.importorskip("pillow_jxl", reason="the extra clipsearch[jxl] is not installed")
        buffer = io.BytesIO()
        opened.save(buffer, "JXL", lossless_jpeg=True)
    image, metadata = read_picture(buffer.getvalue(), name="x")
    assert difference(image, two_coloured()) < 8
    assert (metadata.width, metadata.height) == (64, 48)


def test_without_the_jpeg_xl_plugin_the_error_names_the_extra() -> None:
    script = (
        "import sys; sys.modules['pillow_jxl'] = None\n"
        "from clipsearch.errors import ImageError\n"
        "from clipsearch.images import decode_image\n"
        "try: decode_image(bytes.fromhex('ff0a4110501414'), name='a.jxl')\n"
        "except ImageError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert "a.jxl" in done.stdout
    assert "pip install 'clipsearch[jxl]'" in done.stdout


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("packed", "version"), [(False, 1), (True, 1), (True, 2)])
def test_the_merged_picture_of_a_psd_is_read(
    mode: str, bits: int, packed: bool, version: int
) -> None:
    source = two_coloured(150, 40).convert(mode)
    data = psd(source, bits=bits, packed=packed, version=version)
    image, metadata = read_picture(data, name="x")
    assert difference(image, source.convert("RGB")) < 2
    assert (metadata.format, metadata.width, metadata.height) == ("PSD", 150, 40)


def test_a_psd_of_floats_is_read() -> None:
    image = decode_image(psd(two_coloured(), bits=32), name="x")
    assert difference(image, two_coloured()) < 2


def test_a_psd_without_a_merged_picture_says_how_to_save_it() -> None:
    data = psd(two_coloured())
    version_info = b"8BIM" + struct.pack(">HHI", 1057, 0, 6) + b"\0\0\0\1\0\0"
    data = data[:30] + struct.pack(">I", len(version_info)) + version_info + data[34:]
    with pytest.raises(errors.ImageUnreadableError, match="Maximize Compatibility"):
        decode_image(data, name="x")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib"},
        {"rowsperstrip": 7},
        {"tile": (32, 16), "compression": "zlib"},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_a_tiff_of_float_colours_is_read(kind: str, options: dict[str, object], order: str) -> None:
    tifffile = pytest.importorskip("tifffile", reason="tifffile writes the float TIFF of this test")
    buffer = io.BytesIO()
    samples = (np.asarray(two_coloured()) / 255).astype(kind)
    tifffile.imwrite(buffer, samples, photometric="rgb", byteorder=order, **options)
    image, metadata = read_picture(buffer.getvalue(), name="x")
    assert difference(image, two_coloured()) < 1
    assert (metadata.format, metadata.width, metadata.height) == ("TIFF", 64, 48)


def test_a_tiff_of_float_colours_with_a_predictor_is_read() -> None:
    samples = (np.asarray(two_coloured()) / 255).astype(">f4")
    planes = samples.reshape(48, 64 * 3).view(np.uint8).reshape(48, 64 * 3, 4).transpose(0, 2, 1)
    steps = planes.reshape(48, -1, 3).copy()  # Adobe's TIFF Technical Note 3
    steps[:, 1:] -= planes.reshape(48, -1, 3)[:, :-1]
    pixels = zlib.compress(steps.tobytes())
    at = 8 + len(pixels) + len(pixels) % 2
    entries = [
        longs(256, 64), longs(257, 48), shorts(258, 32, 32, 32), shorts(259, 8), shorts(262, 2),
        longs(273, 8), shorts(277, 3), longs(278, 48), longs(279, len(pixels)), shorts(317, 3),
        shorts(339, 3, 3, 3),
    ]  # fmt: skip
    data = struct.pack("<2sHI", b"II", 42, at) + pixels.ljust(at - 8, b"\0")
    assert difference(decode_image(data + directory(entries, at), name="x"), two_coloured()) < 1


# --- camera RAW ---


def test_a_raw_file_is_told_from_a_tiff_by_its_content() -> None:
    data = dng(320, 240)
    assert sniff(data[:64]) == "TIFF"
    assert read_header(data, name="no ending").format == "DNG"
    tiff = encoded(two_coloured(), "TIFF")
    assert read_header(tiff, name="wrong.nef").format == "TIFF"  # no camera wrote it


def test_a_raw_file_is_developed_where_there_is_no_preview() -> None:
    image, metadata = read_picture(dng(640, 480), name="x.dng", target_side=60)
    assert (metadata.width, metadata.height) == (640, 480)
    assert image.size == (320, 240)  # half size is enough for 60 pixels
    left, right = image.getpixel((60, 120)), image.getpixel((260, 120))
    assert left[0] > left[2] + 60
    assert right[2] > right[0] + 60
    assert decode_image(dng(640, 480), name="x.dng").size == (640, 480)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_raw_file_is_upright_developed_or_previewed(orientation: int) -> None:
    upright = {1: (640, 480), 3: (640, 480), 6: (480, 640), 8: (480, 640)}[orientation]
    red_at = {1: (40, 240), 3: (600, 240), 6: (240, 40), 8: (240, 600)}[orientation]
    preview = Image.new("RGB", (640, 480), BLUE)
    preview.paste(RED, (0, 0, 320, 480))
    for jpeg in (b"", encoded(preview, "JPEG")):
        data = dng(640, 480, orientation=orientation, preview=jpeg)
        image, metadata = read_picture(data, name="x.dng")
        assert (metadata.width, metadata.height) == image.size == upright
        red, _, blue = image.getpixel(red_at)
        assert red > blue + 60


def test_a_preview_that_is_large_enough_is_taken_and_a_small_one_is_not() -> None:
    green = encoded(Image.new("RGB", (600, 450), GREEN), "JPEG")
    data = dng(1600, 1200, preview=green)
    taken = decode_image(data, name="x.dng", target_side=200)
    assert taken.getpixel((10, 10))[1] > 150
    developed = decode_image(data, name="x.dng", target_side=300)
    assert developed.getpixel((10, 10))[1] < 150


def test_a_preview_stands_in_for_a_damaged_sensor_picture() -> None:
    green = encoded(Image.new("RGB", (200, 150), GREEN), "JPEG")
    data = bytearray(dng(1600, 1200, preview=green))
    place = data.index(struct.pack("<HHIHH", 259, SHORT, 1, 1, 0))
    data[place + 8 : place + 10] = struct.pack("<H", 34892)  # a compression LibRaw does not have
    image = decode_image(bytes(data), name="x.dng", target_side=200)
    assert image.getpixel((10, 10))[1] > 150


def test_a_raw_file_without_its_sensor_picture_is_not_developed_into_noise() -> None:
    data = dng(1600, 1200)
    cut = data.index(struct.pack("<H", 300)) + 4096
    ends = struct.unpack("<I", data[4:8])[0]
    moved = bytearray(data[:cut] + data[ends:])
    struct.pack_into("<I", moved, 4, cut)
    for place in (struct.pack("<HHI", 50721, RATIONAL, 9), struct.pack("<HHI", 50728, 5, 3)):
        at = moved.index(place) + 8  # values that lie behind the directory have moved with it
        struct.pack_into("<I", moved, at, struct.unpack_from("<I", moved, at)[0] - (ends - cut))
    with pytest.raises(errors.ImageUnreadableError, match="sensor"):
        decode_image(bytes(moved), name="x.dng")


# --- animations ---


def animation(form: str, frames: list[Image.Image]) -> bytes:
    return encoded(frames[0], form, save_all=True, append_images=frames[1:], duration=50)


def numbered(count: int, blank: range = range(0)) -> list[Image.Image]:
    """Frame k has a white bar k + 1 pixels wide; blank ones have none, but a tone of their own."""
    frames = []
    for number in range(count):
        frame = Image.new("RGB", (80, 40), (10 + 2 * number, 10, 60))
        if number not in blank:
            frame.paste((250, 250, 250), (0, 0, number + 1, 40))
        frames.append(frame)
    return frames


def bar(image: Image.Image) -> int:
    return int((np.asarray(image.convert("L"))[20] > 128).sum())


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "AVIF"])
def test_an_animation_is_shown_by_its_middle(form: str) -> None:
    image, metadata = read_picture(animation(form, numbered(20)), name="x")
    assert metadata.frames == 20
    assert abs(bar(image) - 11) <= 1


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_blank_frames_are_skipped(form: str) -> None:
    few_blank = decode_image(animation(form, numbered(20, range(9, 13))), name="x")
    assert bar(few_blank) == 14
    all_blank = decode_image(animation(form, numbered(20, range(1, 20))), name="x")
    assert bar(all_blank) == 1


def test_a_long_animation_costs_a_bounded_number_of_frames() -> None:
    data = animation("GIF", [Image.new("L", (8, 8), 40 + n % 2 * 40) for n in range(700)])
    more = data[:-1] + data[data.index(b"!\xf9") : -1] * 3 + b";"
    started = time.perf_counter()
    _, metadata = read_picture(more, name="x")
    assert metadata.frames == 1000  # counted no further
    assert time.perf_counter() - started < 2


def test_a_damaged_animation_falls_back_to_its_first_frame() -> None:
    data = animation("PNG", numbered(9))
    third = [place for place in range(len(data)) if data[place : place + 4] == b"fcTL"][2]
    assert bar(decode_image(data[: third + 20], name="x")) == 1


# --- colour ---


def profile(name: str) -> bytes:
    """The ICC profile of sRGB, Display P3 or a grey gamma of 1.0, made by hand where need be."""
    if name == "sRGB":
        return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    fixed = lambda *numbers: struct.pack(f">{len(numbers)}i", *(round(65536 * n) for n in numbers))  # noqa: E731
    tags = {b"wtpt": b"XYZ \0\0\0\0" + fixed(0.9642, 1, 0.8249)}
    if name == "P3":  # SMPTE EG 432-1, adapted to D50
        curve = b"para\0\0\0\0\0\3\0\0" + fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
        for tag, xyz in (
            (b"rXYZ", (0.51512, 0.24120, -0.00105)),
            (b"gXYZ", (0.29198, 0.69225, 0.04189)),
            (b"bXYZ", (0.15710, 0.06657, 0.78407)),
        ):
            tags[tag] = b"XYZ \0\0\0\0" + fixed(*xyz)
        tags |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    else:
        tags[b"kTRC"] = b"curv\0\0\0\0\0\0\0\0"
    table, body, place = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for tag, value in tags.items():
        padded = value + b"\0" * (-len(value) % 4)
        table += tag + struct.pack(">II", place + len(body), len(value))
        body += padded
    space = b"RGB " if name == "P3" else b"GRAY"
    header = struct.pack(
        ">I4sI4s4s4s12s4s", 0, bytes(4), 0x02400000, b"mntr", space, b"XYZ ", bytes(12), b"acsp"
    )
    header = header.ljust(68, b"\0") + fixed(0.9642, 1, 0.8249)
    whole = header.ljust(128, b"\0") + table + body
    return struct.pack(">I", len(whole)) + whole[4:]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_display_p3_becomes_srgb(form: str) -> None:
    source = Image.new("RGB", (32, 32), (200, 80, 60))
    options = {} if form in ("PNG", "TIFF") else {"quality": 100}
    data = encoded(source, form, icc_profile=profile("P3"), **options)
    found = decode_image(data, name="x").getpixel((16, 16))
    expected = (215, 73, 53)  # by the matrices of the two standards
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= 6
    assert found[0] > 208


def test_display_p3_in_a_heic_becomes_srgb() -> None:
    source = Image.new("RGB", (64, 64), (200, 80, 60))
    plain = decode_image(heic(source), name="x").getpixel((16, 16))
    wide = decode_image(heic(source, profile=profile("P3")), name="x").getpixel((16, 16))
    assert wide[0] > plain[0] + 8
    assert wide[1] < plain[1] - 3


def test_srgb_and_damaged_and_foreign_profiles_change_nothing() -> None:
    source = two_coloured()
    plain = np.asarray(source)
    for held in (profile("sRGB"), b"not a profile", profile("P3")[:200], profile("grey")):
        found = decode_image(encoded(source, "PNG", icc_profile=held), name="x")
        np.testing.assert_array_equal(np.asarray(found), plain)


def test_a_grey_profile_is_converted() -> None:
    source = Image.new("L", (8, 8), 55)
    linear = decode_image(encoded(source, "PNG", icc_profile=profile("grey")), name="x")
    assert linear.getpixel((0, 0))[0] > 110  # linear 0.216 is sRGB 0.5


def test_transparency_and_profile_go_together() -> None:
    source = Image.new("RGBA", (8, 8), (200, 80, 60, 255))
    source.paste((0, 0, 0, 0), (0, 0, 4, 8))
    image = decode_image(encoded(source, "PNG", icc_profile=profile("P3")), name="x")
    assert image.getpixel((1, 1)) == (255, 255, 255)
    assert image.getpixel((6, 6))[0] > 208


# --- limits ---


def huge(kind: str) -> bytes:
    """A small file whose header claims 60,000 x 60,000 pixels, or the most the format can say."""
    data: bytearray
    small = Image.new("RGB", (16, 16))
    if kind == "PSD":
        data = bytearray(psd(small))
        data[14:22] = struct.pack(">II", 60_000, 60_000)
    elif kind == "HEIC":
        data = bytearray(heic(two_coloured()))
        at = data.index(b"ispe") + 8
        data[at : at + 8] = struct.pack(">II", 60_000, 60_000)
    elif kind == "AVIF":
        data = bytearray(encoded(small, "AVIF"))
        at = data.index(b"ispe") + 8
        data[at : at + 8] = struct.pack(">II", 60_000, 60_000)
    elif kind == "JPEG2000":
        data = bytearray(encoded(small, "JPEG2000"))
        at = data.index(b"ihdr") + 4
        data[at : at + 8] = struct.pack(">II", 60_000, 60_000)
    elif kind == "DNG":
        data = bytearray(dng(64, 48))
        for tag, value in ((256, 64), (257, 48)):
            at = data.index(struct.pack("<HHII", tag, LONG, 1, value)) + 8
            data[at : at + 4] = struct.pack("<I", 60_000)
    elif kind == "WEBP":
        data = bytearray(encoded(small, "WEBP", lossless=True))
        bits = int.from_bytes(data[21:25], "little") | 0x0FFFFFFF
        data[21:25] = bits.to_bytes(4, "little")
    elif kind == "TIFF":
        data = bytearray(tiff(60_000, 60_000))
    else:  # JXL: sizes of 30 bits, then nothing
        bits = 0 | 3 << 1 | 59_999 << 3 | 0 << 33 | 3 << 36 | 59_999 << 38
        data = bytearray(b"\xff\x0a" + bits.to_bytes(10, "little"))
    return bytes(data)


@pytest.mark.parametrize("kind", ["PSD", "HEIC", "AVIF", "JPEG2000", "JXL", "DNG", "WEBP", "TIFF"])
def test_the_pixel_limit_is_checked_before_decoding(kind: str) -> None:
    data = huge(kind)
    for read in (read_header, read_picture):
        started = time.perf_counter()
        with pytest.raises(errors.ImageError, match="x ") as raised:
            read(data, name="x")
        assert time.perf_counter() - started < 1
        if kind not in ("HEIC", "AVIF", "DNG"):  # these three libraries refuse it by themselves
            assert isinstance(raised.value, errors.ImageTooLargeError)


def test_the_limit_of_each_format_is_exact() -> None:
    files = {
        "HEIC": heic(two_coloured()),
        "AVIF": encoded(two_coloured(), "AVIF"),
        "JPEG2000": encoded(two_coloured(), "JPEG2000"),
        "PSD": psd(two_coloured()),
        "WEBP": encoded(two_coloured(), "WEBP"),
        "DNG": dng(64, 48),
    }
    for kind, data in files.items():
        header = read_header(data, name=kind, max_pixels=64 * 48)
        assert (header.width, header.height, header.format) == (64, 48, kind)
        with pytest.raises(errors.ImageTooLargeError):
            read_header(data, name=kind, max_pixels=64 * 48 - 1)


def test_jpeg_xl_has_fewer_pixels_for_the_memory_it_takes() -> None:
    data = jxl(two_coloured())
    assert read_header(data, name="x", max_pixels=2 * 64 * 48).format == "JXL"
    with pytest.raises(errors.ImageUnreadableError, match=r"bytes.*--max-pixels 6144"):
        read_header(data, name="x", max_pixels=64 * 48)


@pytest.mark.parametrize("chunk", [b"zTXt", b"iCCP"])
def test_a_bomb_in_a_png_chunk_costs_nothing(chunk: bytes) -> None:
    bomb = zlib.compress(bytes(50_000_000), 9)
    content = b"x\0\0" + bomb
    part = struct.pack(">I", len(content)) + chunk + content
    part += struct.pack(">I", zlib.crc32(chunk + content))
    png = encoded(two_coloured(), "PNG")
    started = time.perf_counter()
    try:
        image = decode_image(png[:33] + part + png[33:], name="x")
    except errors.ImageUnreadableError as error:
        assert "x cannot be read" in str(error)
    else:
        assert difference(image, two_coloured()) < 1
    assert time.perf_counter() - started < 1


def test_a_tile_larger_than_the_limit_is_refused() -> None:
    for side in (64, 60_000):
        tiles = [longs(322, side), longs(323, side), longs(324, 8), longs(325, 64 * 64)]
        data = tiff(64, 48, tiles)
        if side == 64:
            assert decode_image(data, name="x").size == (64, 48)
        else:
            with pytest.raises(errors.ImageTooLargeError, match="3,600,000,000"):
                decode_image(data, name="x")


# --- damage ---


def seeds() -> dict[str, bytes]:
    noise = Image.fromarray(np.random.default_rng(3).integers(0, 256, (40, 56, 3), dtype=np.uint8))
    found = {form: encoded(noise, form) for form in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")}
    found |= {form: encoded(noise, form) for form in ("AVIF", "JPEG2000")}
    found |= {"animated " + f: animation(f, numbered(6)) for f in ("GIF", "WEBP", "PNG", "AVIF")}
    found |= {"PSD": psd(noise), "packed PSD": psd(noise, packed=True)}
    found |= {"DNG": dng(96, 64, preview=encoded(noise, "JPEG")), "bare DNG": dng(96, 64)}
    found["P3"] = encoded(noise, "JPEG", icc_profile=profile("P3"))
    for name, make in (("HEIC", lambda: heic(two_coloured())), ("JXL", lambda: jxl(noise))):
        try:
            found[name] = make()
        except pytest.skip.Exception:
            continue
    return found


@pytest.fixture(scope="module")
def whole_files() -> dict[str, bytes]:
    return seeds()


@given(data=st.data())
@settings(max_examples=400)
def test_damaged_files_raise_only_our_errors(
    whole_files: dict[str, bytes], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(whole_files)))
    damaged = bytearray(whole_files[name])
    for _ in range(data.draw(st.integers(0, 4))):
        # most of what matters lies at the front
        end = data.draw(st.sampled_from([32, 200, len(damaged)]))
        place = data.draw(st.integers(0, min(end, len(damaged)) - 1))
        damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    if data.draw(st.booleans()):
        del damaged[data.draw(st.integers(1, len(damaged))) :]
    try:
        image = decode_image(bytes(damaged), name="x", max_pixels=2_000_000, target_side=16)
    except errors.ImageError as error:
        assert str(error).startswith("x ")
    else:
        assert image.mode == "RGB"
        assert min(image.size) >= 1


# --- what is not a still picture; start-up; the messy folder ---


def test_kinds_are_told_by_their_first_bytes() -> None:
    for start, kind in (
        (b"\xff\xd8\xff\xe1", "JPEG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "CR3"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "video"),
        (b"\0\0\0\x14ftypqt  \0\0\2\0qt  ", "video"),
        (b"\0\0\0\x08wide\0\0\0\0mdat", "video"),
        (b"\x1aE\xdf\xa3", "video"),
        (b"RIFF\x10\0\0\0AVI LIST", "video"),
        (b"\0\0\1\xbaD", "video"),
        (b"G@\0" + bytes(185) + b"G", "video"),
        (bytes(4) + b"G@\0" + bytes(189) + b"G", "video"),
        (b"0&\xb2u\x8ef\xcf\x11\xa6\xd9", "video"),
        (b"RIFF\x10\0\0\0WAVEfmt ", ""),
        (b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42", ""),
        (b"II*\0\x10\0\0\0CR\2\0", "CR2"),
        (b"FUJIFILMCCD-RAW 0201", "RAF"),
        (b"IIU\0\x18\0\0\0", "RW2"),
        (b"IIRO\x08\0\0\0", "ORF"),
        (b"Good morning, " * 20, ""),
        (b"", ""),
    ):
        assert sniff(start) == kind, start
    assert not EXTENSIONS & VIDEO_EXTENSIONS
    with pytest.raises(errors.ImageUnreadableError, match="a video"):
        decode_image(b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", name="x.jpg")


def test_no_format_is_imported_before_it_is_met() -> None:
    script = (
        "import sys; import clipsearch.images\n"
        "print([name for name in sys.modules if name in ('pi_heif', 'rawpy', 'pillow_jxl', 'av',"
        " 'PIL.AvifImagePlugin', 'PIL.Jpeg2KImagePlugin', 'PIL.ImageCms', 'PIL.TiffImagePlugin')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert done.stdout.strip() == "[]"


REAL = {  # file: format, upright size, as other programs show it
    "exif-samples-heic/IMG_5195.HEIC": ("HEIC", 2566, 3313),
    "photoprism-examples/iphone_15_pro.heic": ("HEIC", 3024, 4032),
    "exif-samples-heic/samplefilehub.heif": ("HEIC", 640, 426),
    "kim/photo_74.avif": ("AVIF", 5472, 3648),
    "libavif/abc_color_irot_alpha_irot.avif": ("AVIF", 256, 512),
    "kim/photo_80.jxl": ("JXL", 3000, 1688),
    "exifr/47102787.jp2": ("JPEG2000", 800, 800),
    "photoprism-examples/canon_eos_6d.dng": ("DNG", 1224, 816),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files_are_read(name: str) -> None:
    path = MESSY / name
    if not path.exists():
        pytest.skip("the messy folder is not here")
    if path.suffix == ".jxl":
        pytest.importorskip("pillow_jxl", reason="the extra clipsearch[jxl] is not installed")
    data = path.read_bytes()
    image, metadata = read_picture(data, name=name, target_side=112)
    assert (metadata.format, metadata.width, metadata.height) == REAL[name]
    header = read_header(data, name=name)
    assert (header.format, header.width, header.height) == REAL[name]
    assert min(image.size) >= 224
    assert (image.width < image.height) == (metadata.width < metadata.height)
    assert np.asarray(image).std() > 10


def test_the_three_bombs_of_the_messy_folder_are_refused() -> None:
    names = [f"image-rs/Bad_{name}.bmp" for name in ("reallybig", "height", "width")]
    if not (MESSY / names[0]).exists():
        pytest.skip("the messy folder is not here")
    for name in names:
        with pytest.raises(errors.ImageTooLargeError):
            read_header((MESSY / name).read_bytes(), name=name)


# --- which picture of a TIFF, and samples of 16 bits of which few are used -------------------

FULL, HALF = (1600, 1200), (800, 600)


def pages(*written: tuple[tuple[int, int], dict[str, object]], **options: object) -> bytes:
    """A TIFF of several directories; green is the largest, the others are blue."""
    tifffile = pytest.importorskip("tifffile", reason="tifffile writes the TIFFs of this test")
    buffer = io.BytesIO()
    largest = max(size for size, _ in written)
    with tifffile.TiffWriter(buffer, **options) as writer:
        for size, fields in written:
            colour = GREEN if size == largest else BLUE
            pixels = np.asarray(Image.new("RGB", size, colour))
            writer.write(pixels, photometric="rgb", **fields)
    return buffer.getvalue()


REDUCED: dict[str, object] = {"subfiletype": 1}
OLD_REDUCED = {"subfiletype": 0, "extratags": [(255, 3, 1, 2, True)]}
LAYOUTS = {
    "the reduced copy first": [((96, 72), REDUCED), (FULL, {})],
    "two reduced copies first": [((96, 72), REDUCED), (HALF, REDUCED), (FULL, {})],
    "in a subdirectory": [((288, 216), {**REDUCED, "subifds": 1}), (FULL, {})],
    "in the second of two": [((288, 216), {**REDUCED, "subifds": 2}), (HALF, REDUCED), (FULL, {})],
    "a pyramid": [(FULL, {"subifds": 2}), (HALF, REDUCED), ((400, 300), REDUCED)],
    "a depth map first": [(HALF, {"subfiletype": 8}), (FULL, {})],
    "nothing but reduced copies": [((96, 72), REDUCED), (FULL, REDUCED)],
    "a thumbnail that does not say so": [((160, 120), {}), (FULL, {})],
    "compressed": [((96, 72), REDUCED), (FULL, {"compression": "zlib"})],
    "tiled": [((96, 72), REDUCED), (FULL, {"tile": (256, 256)})],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", [{}, {"byteorder": ">"}, {"bigtiff": True}], ids=str)
def test_of_a_tiff_the_full_picture_is_shown(layout: str, form: dict[str, object]) -> None:
    data = pages(*LAYOUTS[layout], **form)
    image, metadata = read_picture(data, name="x")
    assert (metadata.width, metadata.height) == image.size == FULL
    assert image.getpixel((50, 50)) == GREEN
    header = read_header(data, name="x")
    assert (header.width, header.height) == FULL


@pytest.mark.parametrize(
    "written",
    [
        [((300, 400), {}), ((1000, 600), {})],  # another shape: another picture
        [((300, 400), {"subfiletype": 2}), ((600, 800), {"subfiletype": 2})],  # a page
        [((600, 800), {}), ((1200, 1600), {})],  # larger than thumbnails are
        [((300, 400), {}), ((320, 420), {})],
    ],
)
def test_of_a_document_the_first_page_is_shown(written: list[tuple[tuple[int, int], dict]]) -> None:  # type: ignore[type-arg]
    assert read_picture(pages(*written), name="x")[0].size == written[0][0]


def test_a_subdirectory_lies_as_the_first_directory_says() -> None:
    turned = {**REDUCED, "subifds": 1, "extratags": [(274, 3, 1, 6, True)]}
    image, metadata = read_picture(pages(((96, 72), turned), (FULL, {})), name="x")
    assert (metadata.width, metadata.height) == image.size == (1200, 1600)


def test_the_limit_holds_for_the_picture_that_is_shown() -> None:
    data = pages(((96, 72), REDUCED), (FULL, {}))
    with pytest.raises(errors.ImageTooLargeError):
        read_header(data, name="x", max_pixels=100_000)


def test_a_smaller_copy_stands_for_a_picture_of_an_unknown_kind() -> None:
    data = pages(((96, 72), REDUCED), (FULL, {"planarconfig": "contig"}))
    unknown = bytearray(data)
    at = unknown.rindex(struct.pack("<HHII", 258, 3, 3, 0)[:8])
    place = struct.unpack_from("<I", unknown, at + 8)[0]
    unknown[place : place + 6] = struct.pack("<3H", 5, 5, 5)
    image, metadata = read_picture(bytes(unknown), name="x")
    assert (metadata.width, metadata.height) == FULL
    assert image.size == (96, 72)


def gradient(bits: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
    """(48, 64) samples from 0 to the largest of so many bits, none of them 8 bits widened."""
    row = np.linspace(0, (1 << bits) - 1, 64).astype(np.uint16)
    return np.broadcast_to(row, (48, 64)).copy()


def deep(samples: np.ndarray, form: str, **options: object) -> bytes:  # type: ignore[type-arg]
    """Samples of 16 bits of one, three or four channels as a file."""
    if form == "PNG":
        height, width = samples.shape[:2]
        kind = {1: 0, 2: 4, 3: 2, 4: 6}[samples.shape[2] if samples.ndim == 3 else 1]
        rows = samples.astype(">u2").reshape(height, -1)
        body = b"".join(b"\0" + row.tobytes() for row in rows)
        head = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
        chunks = [(b"IHDR", head), *options.get("chunks", []), (b"IDAT", zlib.compress(body))]  # type: ignore[misc]
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(said)) + name + said + struct.pack(">I", zlib.crc32(name + said))
            for name, said in [*chunks, (b"IEND", b"")]
        )
    if form == "JPEG2000":
        return encoded(Image.fromarray(samples), form, irreversible=False)
    tifffile = pytest.importorskip("tifffile", reason="tifffile writes the TIFFs of this test")
    buffer = io.BytesIO()
    photometric = options.pop("photometric", "rgb" if samples.ndim == 3 else "minisblack")
    if samples.ndim == 3 and samples.shape[2] == 4:
        options["extrasamples"] = ["unassalpha"]
    tifffile.imwrite(buffer, samples, photometric=photometric, **options)
    return buffer.getvalue()


def brightest(data: bytes, **options: object) -> int:
    return int(np.asarray(decode_image(data, name="x", **options)).max())  # type: ignore[arg-type]


FORMS = [
    ("PNG", {}),
    ("TIFF", {"byteorder": "<"}),
    ("TIFF", {"byteorder": ">"}),
    ("TIFF", {"byteorder": "<", "compression": "zlib"}),
    ("TIFF", {"byteorder": ">", "compression": "zlib"}),
]


@pytest.mark.parametrize(("form", "options"), [*FORMS, ("JPEG2000", {})])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_few_bits_in_samples_of_sixteen_are_as_bright_as_they_were_meant(
    form: str, options: dict[str, object], bits: int, channels: int
) -> None:
    if form == "JPEG2000" and channels > 1:
        return  # Pillow keeps 8 bits of its colours
    samples = gradient(bits)
    if channels > 1:
        samples = np.stack([samples] * channels, axis=2)
        samples[..., 3:] = (1 << bits) - 1
    image = decode_image(deep(samples, form, **options), name="x", target_side=16)
    found = np.asarray(image)[24, :, 1].astype(int)
    assert np.abs(found - np.linspace(0, 255, 64)).max() <= 2
    assert image.mode == "RGB"


def test_grey_with_transparency_of_few_bits_is_as_bright_as_it_was_meant() -> None:
    samples = np.stack([gradient(12), np.full((48, 64), 65535, np.uint16)], axis=2)
    found = np.asarray(decode_image(deep(samples, "PNG"), name="x"))[24, :, 1].astype(int)
    assert np.abs(found - np.linspace(0, 255, 64)).max() <= 2


@pytest.mark.parametrize("channels", [1, 3])
def test_a_dark_picture_that_says_what_white_is_stays_dark(channels: int) -> None:
    dark = gradient(12) if channels == 1 else np.stack([gradient(12)] * channels, axis=2)
    kind = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = (b"iCCP", b"sRGB\0\0" + zlib.compress(kind))
    significant = (b"sBIT", bytes([16] * channels))
    for chunk in (significant, profile) if channels == 3 else (significant,):
        assert brightest(deep(dark, "PNG", chunks=[chunk])) <= 16
    if channels == 3:
        assert brightest(deep(dark, "TIFF", iccprofile=kind)) <= 16


@pytest.mark.parametrize("channels", [1, 3])
def test_a_dark_picture_of_eight_bits_widened_stays_dark(channels: int) -> None:
    dark = (gradient(12) // 256) * 257  # 0 to 15 of 255
    dark = dark if channels == 1 else np.stack([dark] * channels, axis=2)
    for form, options in FORMS:
        assert brightest(deep(dark, form, **options)) == 15


def test_noise_in_the_dark_stays_dark() -> None:
    """A lens cap: it is stretched to 8 bits at most."""
    assert brightest(deep(np.random.default_rng(1).poisson(3, (48, 64)).astype("u2"), "PNG")) < 20


def test_a_bright_picture_is_not_stretched() -> None:
    assert 87 <= brightest(deep(np.full((48, 64, 3), 22500, np.uint16), "TIFF")) <= 88


def test_an_x_ray_whose_zero_is_white_is_no_negative() -> None:
    samples = gradient(12)
    for order in "<>":
        data = deep(samples, "TIFF", byteorder=order, photometric="miniswhite")
        found = np.asarray(decode_image(data, name="x"))[24, :, 0].astype(int)
        assert np.abs(found - np.linspace(255, 0, 64)).max() <= 2
