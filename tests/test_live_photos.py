"""Live Photos: a video counts with a photo only where one of the two says that they belong."""

from __future__ import annotations

import struct
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.live_photos import still_of

ONE, OTHER = "7F1A0C5E-3F0B-4B7A-9D6E-1A2B3C4D5E6F", "00000000-0000-0000-0000-000000000000"


def apple_note(identifier: str, *, order: int = 0) -> bytes:
    """An iPhone's MakerNote with some other entries before the identifier, inside other bytes."""
    text = identifier.encode() + b"\0"
    entries = [(0x0001, 9, 1, 14), (0x0011, 2, len(text), 0), (0x0014, 9, 1, 10)]
    at = 14 + 2 + 12 * len(entries) + 4
    body = struct.pack(">H", len(entries))
    for tag, kind, count, value in entries:
        body += struct.pack(">HHII", tag, kind, count, at if tag == 0x0011 else value)
    return b"\xff\xd8" + bytes(order) + b"Apple iOS\0\0\1MM" + body + bytes(4) + text + bytes(50)


XMP = b'<rdf:Description xmlns:apple="x" apple:ContentIdentifier="%s"/>'
MOVES = b'<rdf:Description GCamera:MotionPhoto="1" GCamera:MotionPhotoVersion="1"/>'


def found(video: str, stills: dict[str, bytes], **changed: object) -> str | None:
    facts = {"format_name": "MOV", "duration_s": 2.8, "identifier": None, **changed}
    return still_of(video, names=[*stills, video], read=lambda name: stills[name], **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("video", "still", "data", "changed"),
    [
        ("IMG_1.MOV", "IMG_1.HEIC", apple_note(ONE), {"identifier": ONE}),
        ("IMG_1.MOV", "IMG_1.HEIC", apple_note(ONE, order=7), {"identifier": ONE.lower()}),
        ("IMG_1.HEIC.MOV", "IMG_1.HEIC", apple_note(ONE), {"identifier": ONE}),
        ("IMG_1.MOV", "img_1.jpg", XMP % ONE.encode(), {"identifier": ONE}),
        ("IMG_1.MOV", "IMG_1.HEIC", apple_note(ONE), {"identifier": ONE, "duration_s": 9.0}),
        (unicodedata.normalize("NFD", "Bär.mov"), "Bär.jpg", apple_note(ONE), {"identifier": ONE}),
        # one of the two lost it: an edited photo, a converted video
        ("IMG_1.MOV", "IMG_1.JPG", b"edited", {"identifier": ONE}),
        ("IMG_1.MP4", "IMG_1.HEIC", apple_note(ONE), {"format_name": "MP4"}),
        ("PXL_1.mp4", "PXL_1.jpg", MOVES, {"format_name": "MP4", "duration_s": 1.5}),
        ("PXL_1.mp4", "PXL_1.jpg", MOVES.replace(b"MotionPhoto=", b"MicroVideo="), {}),
    ],
)
def test_the_moving_half_of_a_photo_is_known(
    video: str, still: str, data: bytes, changed: dict[str, object]
) -> None:
    assert found(video, {still: data}, **changed) == still


@pytest.mark.parametrize(
    ("video", "stills", "changed"),
    [
        ("cat.mp4", {"cat.jpg": b"a photo of the same cat"}, {"format_name": "MP4"}),
        ("cat.mov", {"cat.heic": b"Apple iOS\0"}, {}),
        ("IMG_1.MOV", {"IMG_1.HEIC": apple_note(OTHER)}, {"identifier": ONE}),
        ("IMG_1.MOV", {"IMG_1.HEIC": apple_note(ONE)}, {"duration_s": 60.0}),
        ("IMG_1.MOV", {"IMG_2.HEIC": apple_note(ONE), "IMG_1.AAE": b""}, {"identifier": ONE}),
        ("IMG_1.MOV", {}, {"identifier": ONE}),
        ("IMG_1.MKV", {"IMG_1.HEIC": apple_note(ONE)}, {"format_name": "MKV"}),
        ("PXL_1.mp4", {"PXL_1.jpg": MOVES.replace(b'Photo="1"', b'Photo="0"')}, {}),
        ("PXL_1.mp4", {"PXL_1.jpg": MOVES}, {"duration_s": 60.0}),
    ],
)
def test_a_video_of_its_own_is_not_taken_for_half_a_photo(
    video: str, stills: dict[str, bytes], changed: dict[str, object]
) -> None:
    assert found(video, stills, **changed) is None


def test_of_two_photos_of_that_name_the_one_with_the_identifier_has_the_video() -> None:
    stills = {"IMG_1.HEIC": apple_note(OTHER), "IMG_1.JPG": apple_note(ONE)}
    assert found("IMG_1.MOV", stills, identifier=ONE) == "IMG_1.JPG"


@given(st.binary(max_size=300), st.integers(0, 90))
def test_a_damaged_note_is_none(noise: bytes, cut: int) -> None:
    whole = apple_note(ONE)
    for data in (whole[:cut] + noise, b"Apple iOS\0\0\1MM" + noise):
        found("a.mov", {"a.jpg": data})
