"""Sidecars: found by name as programs name them, read by documented rules, never an error."""

from __future__ import annotations

import json
import time
import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipsearch.uniting import MAX_CAPTIONS, SidecarSaying, unite
from indexer.fields import MAX_TEXT_CHARACTERS
from indexer.metadata import PhotoMetadata
from indexer.sidecar_names import FULL, Beside, SidecarNames, find_sidecars
from indexer.sidecars import (
    MAX_SIDECAR_BYTES,
    TAGS,
    Caption,
    Described,
    Keyword,
    describe,
    read_sidecars,
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
        ("e\u0301.jpg", ("\u00e9.jpg.suppl.json",)),
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
        ("photo.jpg", ("photo.jpg.supp.json",)),  # cut anywhere: the whole name stands before it
        ("photo.jpg", ("photo.jpg..json",)),
        ("photo.jpg", ("photo.jp.json",)),  # as paths that are too long are cut
        ("photo(3).jpg", ("photo.j(3).json",)),
        ("photo(2).jpg", ("photo.jpg(2).supplemental-metadata.json",)),
        ("photo(2).jpg", ("photo.supplemental-me(2).json",)),
        ("A&B.jpg", ("A_B.jpg.supplemental-metadata.json",)),
        ("Peanut Butter Balls.jpg", ("Peanut Butter Balls.supplemental-metadata.json",)),
        ("a.b.c.jpg", ("a.b.c.jpg.xmp", "a.b.c.xmp")),
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
        ("photo.jpg", "photo.aae"),
        ("photo_edited.jpg", "photo.jpg.json"),  # not Takeout's way to mark a copy
        ("photo-beach.jpg", "photo.jpg.json"),
        ("a.b.jpg", "a.xmp"),
    ],
)
def test_what_belongs_to_another_picture_is_not_taken(picture: str, beside: str) -> None:
    assert find_sidecars(picture, [picture, beside]) == ()


Files = dict[str, tuple[str, ...]]
X46 = "x" * 46
SMILEYS = "\U0001f600" * 23  # as long, in UTF-16


@pytest.mark.parametrize(
    "expected",
    [
        # Names that differ in case or Unicode form alone.
        {"I.JPG": ("I.JPG.xmp",), "i.jpg": ("i.jpg.xmp",)},
        {"I.JPG": ("I.JPG.xmp",), "I.jpg": ()},
        {"I.JPG": ("I.JPG.txt", "I.txt"), "i.jpg": ("i.jpg.txt", "i.txt")},
        {"\u00e9.jpg": ("\u00e9.jpg.json",), "e\u0301.jpg": ("e\u0301.jpg.json",)},
        {"\u00e9.jpg": ("\u00e9.jpg.xmp",), "e\u0301.jpg": ()},
        {"I.JPG": (), "i.jpg": (), "(nobody)": ("I.jpg.xmp", "i.JPG.xmp")},
        {"I.JPG": (), "(nobody)": ("I.jpg.xmp", "i.JPG.xmp")},
        # RAW and JPEG share what bears neither's ending; a whole name is only its file's.
        {"I.JPG": ("I.xmp",), "I.CR2": ("I.CR2.xmp", "I.xmp")},
        {"I.jpg": ("I.jpg.xmp",), "I.jpg.tif": ("I.jpg.tif.xmp",)},
        {"I_01.jpg": ("I_01.jpg.xmp",), "I.jpg": ("I.jpg.xmp", "I_02.jpg.xmp")},
        # Takeout: numbers, cut names, copies.
        {
            f"{X46}x.jpg": (f"{X46}.json",),
            f"{X46}x(1).jpg": (f"{X46}(1).json",),
            f"{X46}x(2).jpg": (),
        },
        {f"{X46}x.jpg": (), f"{X46}x(1).jpg": (f"{X46}(1).json",)},
        {f"{SMILEYS}\U0001f601.jpg": (f"{SMILEYS}.json",)},
        {"I.jpg": ("I.jpg.json",), "I(1).jpg": ("I.jpg(1).json",), "I(2).jpg": ()},
        {
            "I.jpg": ("I.jpg.supplemental-metadata.json",),
            "I(1).jpg": ("I.jpg.supplemental-metadata(1).json",),
            "I-edited.jpg": ("I.jpg.supplemental-metadata.json",),
            "I-edited(1).jpg": ("I.jpg.supplemental-metadata(1).json",),
            "I(1)-modifie\u0301.jpg": ("I.jpg.supplemental-metadata(1).json",),
        },
        {"I-edited.jpg": (), "(nobody)": ("I.jpg(1).json",)},
        {f"{X46[:44]}.jpg": (f"{X46[:44]}.j.json",), f"{X46[:44]}-ed.jpg": (f"{X46[:44]}.j.json",)},
        {"I.HEIC": ("I.HEIC.json",), "I.MP4": ("I.HEIC.json",), "I-edited.jpg": ("I.HEIC.json",)},
        {"I.HEIC": ("I.HEIC.json",), "I.MP4": ("I.MP4.json",), "I.jpg": ()},
        {"I.jpg": ("I.HEIC.json",)},
        {"I.jpg": (), "I.png": ("I.png.json",)},
        {"I&J.jpg": (), "I_J.jpg": ("I_J.jpg.json",)},
        {"I.jpg": (), "I.png": (), "(nobody)": ("I.supplemental-metadata.json",)},
    ],
)
def test_of_several_files_each_has_its_own_sidecars(expected: Files) -> None:
    beside = {name for names in expected.values() for name in names}
    folder = SidecarNames([*(name for name in expected if name != "(nobody)"), *beside])
    found = {name: folder.of(name) for name in expected if name != "(nobody)"}
    assert found == {name: names for name, names in expected.items() if name != "(nobody)"}


@given(st.lists(st.sampled_from("aAbB\u00e9\u00c9"), min_size=1, max_size=6), st.data())
@settings(max_examples=100)
def test_no_sidecar_that_bears_a_name_goes_to_its_twin(
    stems: list[str], data: st.DataObject
) -> None:
    pictures = {f"{stem}.{data.draw(st.sampled_from(('jpg', 'JPG', 'cr2')))}" for stem in stems}
    suffixes = st.sampled_from((".xmp", ".txt", ".json", ".supplemental-metadata.json"))
    sidecars = {name + data.draw(suffixes) for name in pictures if data.draw(st.booleans())}
    folder = SidecarNames([*pictures, *sidecars])
    for sidecar in sidecars:
        owner = next(name for name in pictures if sidecar.startswith(f"{name}."))
        assert [name for name in pictures if sidecar in folder.of(name)] == [owner]


TAKEOUT_LANGUAGES = (
    *("-edited", "-bearbeitet", "-modifié", "-ha editado", "-editado", "-modificato"),
    *(
        "-bewerkt",
        "-edytowane",
        "-editat",
        "-redigeret",
        "-redigerad",
        "-muokattu",
        "-d\u00fczenlendi",
    ),
    *(
        "-\u7de8\u96c6\u6e08\u307f",
        "-\u7f16\u8f91",
        "-\u5df2\u7f16\u8f91",
        "-\ud3b8\uc9d1\ub428",
        "-diedit",
    ),
    *("-редактировано", "-отредактировано", "-відредаговано", "-upravené", "-EFFECTS"),
    *("-COLLAGE", "-ANIMATION", "-MIX", "-SMILE", "-PANO", "-MOTION", "-EDITED"),
)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_an_edited_copy_has_the_json_of_its_original_in_every_language(form: str) -> None:
    for mark in TAKEOUT_LANGUAGES:
        copy = unicodedata.normalize(form, f"IMG_1{mark}.jpg")
        assert find_sidecars(copy, [copy, "IMG_1.jpg.json"]) == ("IMG_1.jpg.json",), mark
        numbered = unicodedata.normalize(form, f"IMG_1{mark}(3).jpg")
        names = [numbered, "IMG_1.jpg.supplemental-metadata(3).json"]
        assert find_sidecars(numbered, names) == (names[1],), mark


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


def takeout(**changes: Any) -> bytes:
    return json.dumps({**TAKEOUT, **changes}).encode()


def test_where_names_were_cut_to_the_same_a_title_decides() -> None:
    first, second = f"{X46}A.jpg", f"{X46}B.jpg"
    beside = {
        f"{X46}.json": takeout(title=second, description="of the second"),
        f"{X46}(1).json": takeout(title=first, description="of the first"),
    }
    folder = SidecarNames([first, second, *beside])

    def captions(name: str, contents: dict[str, bytes]) -> list[str]:
        read = read_sidecars({}, name, folder.beside(name), contents)
        return [text for one in read for text, _ in one.said.captions]

    assert captions(first, beside) == ["of the first"]
    assert captions(second, beside) == ["of the second"]
    unclear = dict.fromkeys(beside, takeout(title="t"))
    assert captions(first, unclear) == captions(second, unclear) == []
    same = dict.fromkeys(beside, takeout(title=f"{X46}Axyz.jpg", description="one of two"))
    assert captions(first, same) == ["one of two"]  # by its number
    assert captions(second, same) == []
    folder = SidecarNames([first, *beside])  # the second is elsewhere, its JSON is not
    assert captions(first, beside) == ["of the first"]
    assert captions(first, {**beside, f"{X46}(1).json": takeout(title=second)}) == []
    assert captions(first, unclear) == ["Anna at the sea"]  # by its name, as nothing speaks against


@pytest.mark.parametrize(
    ("title", "is_its"),
    [("IMG_1.HEIC", True), ("IMG_1.heif", True), ("IMG_2.HEIC", False), (None, False)],
)
def test_a_converted_picture_has_the_json_of_its_camera_file(title: str, is_its: bool) -> None:
    found = describe(PhotoMetadata(), {"IMG_1.HEIC.json": takeout(title=title)}, "IMG_1.jpg")
    assert bool(found.captions) == is_its


def test_a_name_of_takeout_counts_only_with_what_takeout_writes() -> None:
    for name in ("IMG_1.jpg.suppl.json", "IMG_1-edited.jpg"):
        beside = "IMG_1.jpg.json" if name.endswith("jpg") else name
        picture = name if name.endswith("jpg") else "IMG_1.jpg"
        other = {beside: json.dumps({"caption": "by a trainer"}).encode()}
        assert describe(PhotoMetadata(), other, picture).captions == ()
        assert describe(PhotoMetadata(), {beside: takeout()}, picture).captions


@pytest.mark.parametrize(
    ("favorited", "own", "rating"),
    [(True, None, 5), (True, 0, 5), (True, 2, 2), (True, -1, -1), (False, None, None), ("x", 0, 0)],
)
def test_a_favourite_of_takeout_has_five_stars(
    favorited: Any, own: int | None, rating: int | None
) -> None:
    beside = {"a.jpg.json": takeout(favorited=favorited, trashed=True, archived=True)}
    assert describe(PhotoMetadata(rating=own), beside).metadata.rating == rating


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


def keywords(*names: str) -> str:
    items = "".join(f"<rdf:li>{name}</rdf:li>" for name in names)
    return f"<dc:subject><rdf:Bag>{items}</rdf:Bag></dc:subject>"


def test_of_several_sidecars_the_most_specific_wins() -> None:
    beside = {
        "a.jpg.xmp": (XMP % ('xmp:Rating="5"', keywords("new"))).encode(),
        "a.xmp": (
            XMP % ('xmp:Rating="1"', keywords("old") + "<dc:title>A title</dc:title>")
        ).encode(),
    }
    for order in (beside, dict(reversed(beside.items()))):
        found = describe(EMBEDDED, order, "a.jpg")
        assert found.metadata.rating == 5
        assert found.keywords == (Keyword("new", "xmp-sidecar"),)
        assert found.metadata.title == "A title"  # which the other does not mention


@pytest.mark.parametrize(
    ("extension", "picture", "is_its"),
    [
        ("NEF", "a.jpg", False),
        ("nef", "a.NEF", True),
        ("JPG", "a.jpg", True),
        (".JPG", "a.jpeg", True),
        ("TIFF", "a.tif", True),
        ("", "a.jpg", True),
    ],
)
def test_a_sidecar_says_the_file_of_which_ending_it_is_of(
    extension: str, picture: str, is_its: bool
) -> None:
    photoshop = 'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" photoshop:SidecarForExtension'
    content = (XMP % (f'xmp:Rating="1" {photoshop}="{extension}"', "")).encode()
    assert (describe(EMBEDDED, {"a.xmp": content}, picture).metadata.rating == 1) == is_its
    assert describe(EMBEDDED, {f"{picture}.xmp": content}, picture).metadata.rating == 1


def test_a_further_version_in_darktable_adds_its_tags_if_it_names_the_picture() -> None:
    media = 'xmlns:xmpMM="http://ns.adobe.com/xap/1.0/mm/" xmpMM:DerivedFrom'
    first = (XMP % ('xmp:Rating="4"', keywords("first"))).encode()
    for original, tags in (("a.jpg", ["first", "second"]), ("a_01.jpg", ["first"])):
        second = (XMP % (f'xmp:Rating="1" {media}="{original}"', keywords("second"))).encode()
        found = describe(EMBEDDED, {"a.jpg.xmp": first, "a_01.jpg.xmp": second}, "a.jpg")
        assert [keyword.name for keyword in found.keywords] == tags
        assert found.metadata.rating == 4


@pytest.mark.parametrize(
    ("body", "tags", "captions"),
    [
        ("<dc:subject><rdf:Bag/></dc:subject>", [], ["An old caption", "An old title"]),
        ("<dc:subject/>", [], ["An old caption", "An old title"]),
        (keywords("", " "), [], ["An old caption", "An old title"]),
        (
            "<dc:description><rdf:Alt><rdf:li/></rdf:Alt></dc:description>",
            ["old"],
            ["An old title"],
        ),
        ("<dc:description></dc:description><dc:title/>", ["old"], []),
        ("", ["old"], ["An old caption", "An old title"]),
    ],
)
def test_what_a_sidecar_empties_is_gone(body: str, tags: list[str], captions: list[str]) -> None:
    found = said("a.xmp", XMP % ("", body), EMBEDDED)
    assert [keyword.name for keyword in found.keywords] == tags
    assert [caption.text for caption in found.captions] == captions


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.xmp", b"<x:xmpmeta>" + b" " * MAX_SIDECAR_BYTES, "limit of 16,777,216 bytes"),
        ("a.txt", b"x" * (MAX_SIDECAR_BYTES + 1), "limit of 16,777,216 bytes"),
        ("a.xmp", (XMP % ("", keywords("a"))).encode()[:-40], "broken XML"),
        ("a.xmp", (XMP % ("", "<a></b>")).encode(), "broken XML"),
        ("a.xmp", b"no xml", "holds no XMP"),
        ("a.xmp", (XMP % ("", "<rdf:li/>" * 50_001)).encode(), "more than 50,000 XML elements"),
        ("a.json", b'{"caption": ', "broken JSON"),
        ("a.json", b"[" * 100_000, "broken JSON"),
        ("a.txt", b"text\0\1", "no text"),
        ("a.xmp", OSError(13, "Permission denied"), "Permission denied"),
        ("a.xmp", b"", None),
        ("a.txt", b"", None),
        ("a.json", b"\n", None),
        ("a.json", b"[1, 2]", None),
        ("a.xmp", (XMP % ("", "")).encode() + b"<?xpacket end='w'?>" + b"\0" * 9, None),
    ],
)
def test_a_sidecar_that_is_not_read_whole_says_why(
    name: str, content: bytes | OSError, reason: str | None
) -> None:
    (read,) = read_sidecars({}, "a.jpg", [Beside(name, FULL)], {name: content})
    assert (read.failure is None) if reason is None else (reason in str(read.failure))
    assert read.is_settled == isinstance(content, bytes)


@pytest.mark.parametrize(
    ("content", "tags"),
    [
        ("1girl\nlong_hair\nred eyes\n", ["1girl", "long hair", "red eyes"]),
        ("1girl, solo", ["1girl", "solo"]),
        ("a sentence of some length.", ["a sentence of some length."]),
        (
            "name \\(work\\), (smile:1.2)\r\ncharacter:ann, ann\n\n",
            ["name (work)", "smile", "character:ann", "ann"],
        ),
        ("o_o\n", ["o_o"]),
        ("", []),
    ],
)
def test_a_text_is_tags_where_that_was_asked_for(content: str, tags: list[str]) -> None:
    (read,) = read_sidecars({}, "a.jpg", [Beside("a.txt", TAGS)], {"a.txt": content.encode()})
    assert read.said.keywords == tuple((tag, "txt") for tag in tags)
    assert read.said.captions == ()


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


def test_what_one_copy_says_holds_before_what_fills_a_gap_for_another() -> None:
    place = {"latitude": 1.0, "longitude": 2.0, "altitude_m": 3.0, "place": "there"}
    own = {"make": "Canon", "latitude": 9.0, "longitude": 9.0, "altitude_m": 9.0, "place": "here"}
    takeout_copy = SidecarSaying({}, {"taken_at": "2020-01-01T00:00:00", "rating": 5, **place})
    rated = SidecarSaying({"rating": 2, "taken_at": "2019-01-01T00:00:00"}, {})
    moved = SidecarSaying({"latitude": 5.0, "longitude": 6.0}, {})
    found = unite(own, [[takeout_copy], [rated], [moved]]).saying
    assert found == {
        **{"make": "Canon", "latitude": 5.0, "longitude": 6.0, "keywords": []},
        **{"rating": 2, "taken_at": "2019-01-01T00:00:00"},
    }
    assert unite(own, [[takeout_copy]]).saying["place"] == "here"
    assert unite({"make": "Canon"}, [[takeout_copy], [takeout_copy]]).saying["place"] == "there"


@given(st.permutations(["a", "b", "c", "d"]))
def test_the_words_of_copies_are_the_same_in_any_order(order: list[str]) -> None:
    said = [[SidecarSaying({"keywords": [(name, "x")]}, {}, ((name, "txt"),))] for name in order]
    found = unite({"keywords": [("old", "xmp")]}, said)
    assert {name for name, _ in found.keywords} == set("abcd")
    assert {text for text, _ in found.captions} == set("abcd")
    record = SidecarSaying({"title": None}, {"rating": 5}, (("x", "txt"),), (("y", "txt"),), True)
    assert SidecarSaying.from_record(json.loads(json.dumps(record.as_record()))) == record
