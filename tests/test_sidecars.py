"""Sidecars: found by name as programs name them, read by documented rules, never an error."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.fields import MAX_TEXT_CHARACTERS
from indexer.metadata import PhotoMetadata
from indexer.sidecar_names import SidecarNames, find_sidecars
from indexer.sidecars import (
    MAX_CAPTIONS,
    MAX_SIDECAR_BYTES,
    Caption,
    Described,
    Keyword,
    describe,
)

XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/" '
    'xmlns:exif="http://ns.adobe.com/exif/1.0/" %s>%s</rdf:Description></rdf:RDF></x:xmpmeta>'
)
LONG = "a-name-that-is-longer-than-takeout-likes-it-to-be"  # 49 characters


@pytest.mark.parametrize(
    ("picture", "beside"),
    [
        ("photo.jpg", ("photo.jpg.xmp", "photo.xmp", "photo.jpg.txt", "photo.txt")),
        ("photo.jpg", ("photo.jpg.json", "photo.json")),
        ("photo.jpg", ("PHOTO.XMP",)),
        ("PHOTO.JPG", ("photo.jpg.Xmp",)),
        ("cafe\u0301.jpg", ("caf\u00e9.txt",)),  # NFD beside NFC
        ("photo", ("photo.txt",)),
        ("photo.jpg", ("photo.jpg.supplemental-metadata.json",)),
        ("IMG_20230101_123456789.jpg", ("IMG_20230101_123456789.jpg.supplemental-metada.json",)),
        (LONG + ".jpg", (LONG[:46] + ".json",)),
        (LONG + ".jpg", (LONG + ".j.json",)),
        ("photo(1).jpg", ("photo.jpg(1).json",)),
        ("photo(1).jpg", ("photo.jpg.supplemental-metadata(1).json",)),
        ("photo(1).jpg", ("photo(1).jpg.json",)),
        ("photo-edited.jpg", ("photo.jpg.json",)),
        ("photo-edited(2).jpg", ("photo.jpg(2).json",)),
        ("photo-bearbeitet.jpg", ("photo.jpg.supplemental-metadata.json",)),
    ],
)
def test_sidecars_are_found_as_programs_name_them(picture: str, beside: tuple[str, ...]) -> None:
    names = [picture, "other.jpg", "other.jpg.json", *beside, "notes.txt"]
    assert find_sidecars(picture, names) == beside


@pytest.mark.parametrize(
    ("picture", "beside"),
    [
        ("photo.jpg", "photo2.txt"),
        ("photo.jpg", "photo.jpg(1).json"),
        ("photo(1).jpg", "photo.jpg.json"),
        ("photo.jpg", "photo.png.xmp"),
        ("photo.jpg", "photo-edited.jpg.json"),
        ("photo.jpg", "photo.mp4"),
    ],
)
def test_what_belongs_to_another_picture_is_not_taken(picture: str, beside: str) -> None:
    assert find_sidecars(picture, [picture, beside]) == ()


def test_a_folder_of_fifty_thousand_costs_one_pass() -> None:
    names = [f"IMG_{number:05}.{kind}" for number in range(50_000) for kind in ("jpg", "jpg.json")]
    started = time.perf_counter()
    index = SidecarNames(names)
    found = [index.of(name) for name in names[::2]]
    assert time.perf_counter() - started < 10
    assert found[17] == ("IMG_00017.jpg.json",)
    assert all(len(sidecars) == 1 for sidecars in found)


def said(name: str, content: str | bytes, embedded: PhotoMetadata | None = None) -> Described:
    data = content.encode() if isinstance(content, str) else content
    return describe(embedded or PhotoMetadata(), {name: data})


@pytest.mark.parametrize(
    ("content", "captions"),
    [
        ("a dog runs on the beach", ["a dog runs on the beach"]),
        ("a dog on a beach\nthe sea in winter\n\n", ["a dog on a beach", "the sea in winter"]),
        ("a dog, a cat, and a parrot.", ["a dog, a cat, and a parrot."]),
        ("a man, a dog, a ball", ["a man, a dog, a ball"]),
        ("Lisbon, Portugal", ["Lisbon, Portugal"]),
        (
            "photo of sks dog, sitting on green grass, best quality",
            ["photo of sks dog, sitting on green grass, best quality"],
        ),
        (
            "A very long description that was wrapped by an editor at some\n"
            "column, and goes on here.\nAnother one.",
            [
                "A very long description that was wrapped by an editor at some column, and goes on"
                " here.",
                "Another one.",
            ],
        ),
        ("\ufeffein Café\r\nin Köln\r\n", ["ein Café", "in Köln"]),
        ("", []),
        ("   \n\t\n", []),
        ("DSC_0001.JPG", []),
        ("12345", []),
    ],
)
def test_a_text_is_captions_one_a_line(content: str, captions: list[str]) -> None:
    found = said("photo.txt", content)
    assert [caption.text for caption in found.captions] == captions
    assert {caption.source for caption in found.captions} <= {"txt"}
    assert found.keywords == ()


@pytest.mark.parametrize(
    ("content", "tags"),
    [
        ("1girl, solo, long_hair, red eyes", ["1girl", "solo", "long hair", "red eyes"]),
        ("dog,cat,dog,", ["dog", "cat"]),
        ("(smile:1.2), ((hat)), name \\(work\\), x", ["smile", "hat", "name (work)", "x"]),
        ("Hund, Katze, Vögel\n", ["Hund", "Katze", "Vögel"]),
    ],
)
def test_a_list_with_commas_is_keywords(content: str, tags: list[str]) -> None:
    found = said("photo.txt", content)
    assert found.keywords == tuple(Keyword(tag, "txt") for tag in tags)
    assert found.captions == ()


def test_other_encodings_are_read_and_binary_files_are_not() -> None:
    assert said("a.txt", "ein Café".encode("utf-16")).captions == (Caption("ein Café", "txt"),)
    assert said("a.txt", "ein Café".encode("latin-1")).captions == (Caption("ein Café", "txt"),)
    assert said("a.txt", b"text\0\1\2 with zeros") == Described(PhotoMetadata())


@pytest.mark.parametrize(
    ("content", "captions", "keywords"),
    [
        ({"caption": "a dog", "url": "https://x"}, ["a dog"], []),
        ({"captions": ["a dog", "a beach", 7]}, ["a dog", "a beach"], []),
        ({"text": "a dog", "tags": "dog, long_hair"}, ["a dog"], ["dog", "long hair"]),
        (
            {"description": "a dog", "keywords": ["dog", "sea, sand"]},
            ["a dog"],
            ["dog", "sea, sand"],
        ),
        ([{"caption": "a dog"}], ["a dog"], []),
        ([{"SourceFile": "a.jpg", "Description": "by exiftool"}], [], []),
        ({"caption": None, "tags": {"dog": 1}}, [], []),
        ([], [], []),
        ("a dog", [], []),
    ],
)
def test_json_of_trainers_is_read(content: Any, captions: list[str], keywords: list[str]) -> None:
    found = said("photo.json", json.dumps(content))
    assert found.captions == tuple(Caption(text, "json") for text in captions)
    assert found.keywords == tuple(Keyword(name, "json") for name in keywords)


TAKEOUT = {
    "title": "IMG_1234.jpg",
    "description": "Anna at the sea",
    "photoTakenTime": {"timestamp": "1559991452", "formatted": "8 Jun 2019, 10:57:32 UTC"},
    "geoData": {"latitude": 38.72, "longitude": -9.14, "altitude": 12.0},
    "people": [{"name": "Anna"}, {"name": ""}, "Bob"],
}


def test_takeout_fills_in_what_the_picture_does_not_say() -> None:
    found = said("IMG_1234.jpg.json", json.dumps(TAKEOUT))
    assert found.metadata == PhotoMetadata(
        taken_at="2019-06-08T10:57:32+00:00", latitude=38.72, longitude=-9.14, altitude_m=12.0
    )
    assert found.captions == (Caption("Anna at the sea", "takeout"),)
    assert found.keywords == (Keyword("Anna", "takeout"),)
    own = PhotoMetadata(taken_at="2019-06-08T12:57:32", latitude=1.0, longitude=2.0)
    assert said("IMG_1234.jpg.json", json.dumps(TAKEOUT), own).metadata == own


@pytest.mark.parametrize(
    "change",
    [
        {"geoData": {"latitude": 0.0, "longitude": 0.0, "altitude": 0.0}},
        {"geoData": {"latitude": 95, "longitude": 0.5}},
        {"geoData": None},
        {"geoData": {"latitude": "x"}},
    ],
)
def test_takeout_says_by_zeros_that_it_has_no_place(change: dict[str, Any]) -> None:
    found = said("a.jpg.json", json.dumps({**TAKEOUT, **change})).metadata
    assert (found.latitude, found.longitude, found.altitude_m) == (None, None, None)
    exif = {**change, "geoDataExif": {"latitude": 1.5, "longitude": 2.5, "altitude": 0}}
    again = said("a.jpg.json", json.dumps({**TAKEOUT, **exif})).metadata
    assert (again.latitude, again.longitude, again.altitude_m) == (1.5, 2.5, None)


@pytest.mark.parametrize(
    ("timestamp", "taken_at"),
    [
        ("-1000000000", "1938-04-24T22:13:20+00:00"),
        (1559991452, "2019-06-08T10:57:32+00:00"),
        ("99999999999999999999", None),
        ("soon", None),
        (None, None),
        ("-99999999999", None),
    ],
)
def test_takeout_time_is_utc(timestamp: Any, taken_at: str | None) -> None:
    content = json.dumps({**TAKEOUT, "photoTakenTime": {"timestamp": timestamp}})
    assert said("a.jpg.json", content).metadata.taken_at == taken_at


EMBEDDED = PhotoMetadata(
    taken_at="2020-01-02T03:04:05+01:00",
    make="Canon",
    latitude=1.0,
    longitude=2.0,
    altitude_m=3.0,
    rating=2,
    keywords=("old",),
    keyword_origins=("iptc",),
    title="An old title",
    title_origin="iptc",
    description="An old caption",
    description_origin="exif",
)


def test_an_xmp_sidecar_wins_where_it_says_something() -> None:
    attributes = 'xmp:Rating="5" exif:GPSLatitude="38,43.2N" exif:GPSLongitude="9,8.4W"'
    body = "<dc:title>A new title</dc:title><dc:subject><rdf:Bag><rdf:li>new</rdf:li></rdf:Bag>"
    found = said("photo.xmp", XMP % (attributes, body + "</dc:subject>"), EMBEDDED)
    assert found.metadata.rating == 5
    assert (found.metadata.latitude, found.metadata.altitude_m) == (38.72, None)
    assert (found.metadata.make, found.metadata.taken_at) == ("Canon", EMBEDDED.taken_at)
    assert found.keywords == (Keyword("new", "xmp-sidecar"),)
    assert found.captions == (
        Caption("An old caption", "exif"),
        Caption("A new title", "xmp-sidecar"),
    )


def test_an_xmp_sidecar_that_says_nothing_changes_nothing() -> None:
    for content in (XMP % ("", ""), "", "no xml", "<x:xmpmeta>"):
        assert said("photo.xmp", content, EMBEDDED).metadata == EMBEDDED


@pytest.mark.parametrize(
    ("attributes", "taken_at"),
    [
        ('exif:DateTimeOriginal="2021-05-06T07:08:09"', "2021-05-06T07:08:09"),
        ('exif:DateTimeOriginal="2020-01-02T03:04:05"', "2020-01-02T03:04:05+01:00"),
        ('xmp:CreateDate="2021-05-06T07:08:09"', "2020-01-02T03:04:05+01:00"),
    ],
)
def test_a_sidecar_changes_the_date_only_by_a_date_taken(attributes: str, taken_at: str) -> None:
    found = said("photo.xmp", XMP % (attributes, ""), EMBEDDED)
    assert found.metadata.taken_at == taken_at


def test_each_text_and_keyword_is_said_once_and_with_its_source() -> None:
    embedded = PhotoMetadata(
        title="Anna at the sea",
        title_origin="xmp",
        description="anna at the SEA",
        description_origin="iptc",
        keywords=("Anna", "sea"),
        keyword_origins=("xmp", "exif"),
    )
    found = describe(
        embedded,
        {
            "a.txt": b"another caption\n" * 100 + b"x" * 20_000 + b" y",
            "a.jpg.json": json.dumps(TAKEOUT).encode(),
            "a.json": json.dumps({"captions": [f"text {n}" for n in range(500)]}).encode(),
        },
    )
    assert found.captions[:2] == (
        Caption("anna at the SEA", "iptc"),
        Caption("another caption", "txt"),
    )
    assert found.keywords == (Keyword("Anna", "xmp"), Keyword("sea", "exif"))
    assert len(found.captions) == MAX_CAPTIONS
    assert all(len(caption.text) <= MAX_TEXT_CHARACTERS for caption in found.captions)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", b"word " * (MAX_SIDECAR_BYTES // 5 + 1)),
        ("a.json", b'{"caption": "x", "a": ' + b"[" * 500_000),
        ("a.json", b"[" * 1_000_000),
        ("a.json", b'{"caption": ' + b"9" * 900_000 + b"}"),
        ("a.xmp", b"<x:xmpmeta>" + b"<a>" * 300_000),
        ("a.exe", b"MZ"),
        ("", b""),
    ],
)
def test_a_hostile_sidecar_counts_as_not_there(name: str, content: bytes) -> None:
    started = time.perf_counter()
    assert describe(EMBEDDED, {name: content}).metadata == EMBEDDED
    assert not {caption.source for caption in describe(EMBEDDED, {name: content}).captions} & {
        "txt",
        "json",
    }
    assert time.perf_counter() - started < 3


@given(st.data())
@settings(max_examples=200)
def test_no_damage_makes_it_raise(data: st.DataObject) -> None:
    name, content = data.draw(
        st.sampled_from(
            (
                ("a.json", json.dumps(TAKEOUT).encode()),
                ("a.json", json.dumps({"captions": ["a dog"], "tags": "x, y"}).encode()),
                ("a.txt", b"1girl, solo, long_hair\nand more"),
                ("a.xmp", (XMP % ('xmp:Rating="5"', "<dc:title>x</dc:title>")).encode()),
            )
        )
    )
    whole = bytearray(content)
    for _ in range(data.draw(st.integers(0, 6))):
        at = data.draw(st.integers(0, len(whole)))
        whole[at : at + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=9))
    found = describe(EMBEDDED, {name: bytes(whole)})
    assert all(item.text and item.text.isprintable() for item in found.captions)
    assert all(item.name and item.name.isprintable() for item in found.keywords)


@given(
    st.dictionaries(
        st.sampled_from(sorted({*TAKEOUT, "caption", "captions", "text", "tags", "keywords"})),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=9),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(("timestamp", "latitude", "longitude", "altitude", "name")),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=9,
        ),
    )
)
def test_no_json_makes_it_raise(content: Any) -> None:
    assert isinstance(said("a.json", json.dumps(content)), Described)
