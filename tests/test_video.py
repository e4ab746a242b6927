"""Videos: scenes are found at their times, upright, and no file can do worse than fail by name."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from videos import (
    FLV1,
    H264,
    H264_NO_KEYS,
    H265_10,
    MJPEG,
    MPEG2,
    MPEG4,
    RATE,
    SIZE,
    VP8,
    VP9,
    WMV2,
    Codec,
    Pixels,
    still,
    write_sound,
    write_video,
)

from clipsearch.errors import (
    ImageEmptyError,
    ImageError,
    ImageNotFoundError,
    ImageTooLargeError,
    ImageUnreadableError,
)
from clipsearch.hashing import hash_content, hash_file
from indexer.scenes import MomentChooser, are_alike, difference, is_blank
from indexer.video import (
    Moment,
    VideoFacts,
    read_facts,
    read_frame,
    read_moments,
)

REPOSITORY = Path(__file__).parents[1]
DATA = Path(os.environ.get("CLIPSEARCH_DATA", REPOSITORY.parent / "shared" / "data"))
MAX_PIXELS = 50_000_000
SCENES_S = (4.0, 3.0, 5.0, 2.5)
CUTS_S = (0.0, 4.0, 7.0, 12.0)
TOLERANCE_S = 1.0  # a key frame this soon after a cut stands for it


@pytest.fixture(scope="module")
def stills(real_photos: Path) -> list[Pixels]:
    """Frames of photos that look nothing like each other."""
    chosen: list[Pixels] = []
    for photo in sorted(real_photos.glob("*.*")):
        if photo.suffix.lower() in (".jpg", ".jpeg", ".png"):
            frame = still(photo)
            small = look(frame)
            if all(difference(small, look(other)) > 0.25 for other in chosen):
                chosen.append(frame)
    assert len(chosen) >= 6
    return chosen


def look(frame: Pixels) -> Pixels:
    return np.asarray(Image.fromarray(frame).resize((32, 18), Image.Resampling.BOX))


def scenes(stills: list[Pixels], lengths_s: tuple[float, ...] = SCENES_S) -> list[Pixels]:
    """A clip of the first photos, each held as long as said and moving a little."""
    frames = []
    for photo, length_s in zip(stills, lengths_s, strict=False):
        frames += [np.roll(photo, number, axis=1) for number in range(round(length_s * RATE))]
    return frames


def moments(path: Path, **options: object) -> list[Moment]:
    given = {"max_pixels": MAX_PIXELS, "target_side": 224, **options}
    return list(read_moments(path, **given))  # type: ignore[arg-type]


def facts(path: Path) -> VideoFacts:
    return read_facts(path, max_pixels=MAX_PIXELS)


def nearest(image: Image.Image, stills: list[Pixels]) -> int:
    """Which of the photos a picture shows."""
    small = look(np.asarray(image.resize(SIZE)))
    return int(np.argmin([difference(small, look(photo)) for photo in stills]))


@pytest.mark.parametrize(
    ("name", "codec", "told"),
    [
        ("a.mp4", H264, ("MP4", "h264")),
        ("a.m4v", MPEG4, ("MP4", "mpeg4")),
        ("ten-bit.mp4", H265_10, ("MP4", "hevc")),
        ("a.mov", MPEG4, ("MOV", "mpeg4")),
        ("a.3gp", MPEG4, ("3GP", "mpeg4")),
        ("a.mkv", H264, ("MKV", "h264")),
        ("a.webm", VP9, ("WEBM", "vp9")),
        ("b.webm", VP8, ("WEBM", "vp8")),
        ("a.avi", MPEG4, ("AVI", "mpeg4")),
        ("b.avi", MJPEG, ("AVI", "mjpeg")),
        ("a.mts", H264, ("MPEG-TS", "h264")),
        ("a.mpg", MPEG2, ("MPEG-PS", "mpeg2video")),
        ("a.wmv", WMV2, ("WMV", "wmv2")),
        ("a.flv", FLV1, ("FLV", "flv1")),
        ("no-key-frames.mp4", H264_NO_KEYS, ("MP4", "h264")),
        ("no-key-frames.mkv", H264_NO_KEYS, ("MKV", "h264")),
    ],
)
def test_scenes_are_found_at_their_times_in_every_format(
    stills: list[Pixels], tmp_path: Path, name: str, codec: Codec, told: tuple[str, str]
) -> None:
    path = write_video(tmp_path / name, scenes(stills), codec)
    said = facts(path)
    assert (said.format, said.codec) == told
    assert (said.width, said.height) == SIZE
    assert said.duration_s == pytest.approx(sum(SCENES_S), abs=0.3)
    assert said.frame_rate == pytest.approx(RATE, rel=0.01)
    found = moments(path)
    for number, cut_s in enumerate(CUTS_S):
        of_scene = [one for one in found if nearest(one.image, stills) == number]
        assert of_scene, f"scene {number} is missing"
        assert of_scene[0].time_s == pytest.approx(cut_s, abs=TOLERANCE_S)
    assert len(found) <= 2 * len(CUTS_S)
    times_s = [one.time_s for one in found]
    assert times_s == sorted(set(times_s))


@pytest.mark.parametrize("codec", [H264, H264_NO_KEYS, MJPEG], ids=["usual", "no keys", "all keys"])
def test_a_clip_in_which_nothing_happens_is_one_moment(
    stills: list[Pixels], tmp_path: Path, codec: Codec
) -> None:
    random = np.random.default_rng(1)
    noise = random.integers(-6, 7, (7, *stills[0].shape), dtype=np.int16)
    frames = [
        np.clip(stills[0] + noise[number % 7], 0, 255).astype(np.uint8) for number in range(350)
    ]
    assert [one.time_s for one in moments(write_video(tmp_path / "a.mkv", frames, codec))] == [0.0]


@pytest.mark.parametrize("codec", [H264, H264_NO_KEYS], ids=["usual", "no keys"])
def test_a_slow_change_without_a_cut_gives_a_moment_every_few_seconds(
    stills: list[Pixels], tmp_path: Path, codec: Codec
) -> None:
    wide = np.hstack([stills[0], stills[1], stills[2]])
    frames = [np.ascontiguousarray(wide[:, at : at + SIZE[0]]) for at in range(0, 640, 2)]
    path = write_video(tmp_path / "pan.mkv", frames, codec)
    times_s = [one.time_s for one in moments(path, every_s=6.0)]
    assert times_s[0] == 0.0
    assert max(np.diff([*times_s, len(frames) / RATE])) <= 1.5 * 6.0 + TOLERANCE_S
    assert len(times_s) <= 12


def test_a_long_video_is_thinned_evenly(stills: list[Pixels], tmp_path: Path) -> None:
    lengths_s = (1.5,) * 40
    path = write_video(tmp_path / "a.mp4", scenes([*stills[:5]] * 8, lengths_s))
    found = moments(path, max_moments=8)
    assert 6 <= len(found) <= 8
    quarters = {int(one.time_s // 15) for one in found}
    assert quarters == {0, 1, 2, 3}


def test_black_is_passed_over_for_a_neighbour(stills: list[Pixels], tmp_path: Path) -> None:
    black = np.zeros_like(stills[0])
    frames = [black] * 12 + [stills[0]] * 30 + [black] * 15 + [stills[1]] * 30
    found = moments(write_video(tmp_path / "a.mp4", frames, H264_NO_KEYS))
    assert [nearest(one.image, stills) for one in found] == [0, 1]
    assert found[0].time_s == pytest.approx(1.2, abs=TOLERANCE_S)


def test_a_video_of_nothing_but_black_is_one_moment(tmp_path: Path) -> None:
    black = np.zeros((180, 320, 3), np.uint8)
    assert len(moments(write_video(tmp_path / "a.mp4", [black] * 40))) == 1


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("is_mirrored", [False, True])
def test_turned_and_mirrored_videos_are_upright(
    stills: list[Pixels], tmp_path: Path, name: str, rotation: int, is_mirrored: bool
) -> None:
    upright = Image.fromarray(stills[0])
    lying = upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if is_mirrored else upright
    lying = lying.rotate(-rotation, expand=True)  # the file says: turn it counter-clockwise
    frames = [np.asarray(lying)] * 3
    path = write_video(tmp_path / name, frames, rotation=rotation, is_mirrored=is_mirrored)
    said, found = facts(path), moments(path)[0].image
    assert (said.width, said.height) == found.size == SIZE
    wrong = np.abs(np.asarray(found, dtype=np.int16) - stills[0]).mean()
    assert wrong < 12


def test_pictures_are_rgb_and_reduced_to_what_is_needed(real_photos: Path, tmp_path: Path) -> None:
    frame = still(sorted(real_photos.glob("*.jpg"))[0], (1920, 1080))
    path = write_video(tmp_path / "a.mp4", [frame] * 3)
    for side, size in ((224, (640, 360)), (448, (896, 504)), (2000, (1920, 1080))):
        image = moments(path, target_side=side)[0].image
        assert (image.mode, image.size) == ("RGB", size)
        assert not image.info


def test_pixels_that_are_not_square_are_shown_as_players_do(
    stills: list[Pixels], tmp_path: Path
) -> None:
    path = write_video(tmp_path / "a.mp4", [stills[0]] * 3, MPEG4, pixel_ratio=Fraction(4, 3))
    said = facts(path)
    assert (said.width, said.height) == (427, 180)
    assert moments(path)[0].image.size == (427, 180)


def test_hdr_is_brought_to_the_range_of_a_screen(tmp_path: Path) -> None:
    """Page white in HDR10 (203 nits) is signal 0.58: grey without tone mapping."""
    frame = np.full((180, 320, 3), 20, np.uint8)
    frame[:, 160:] = round(0.58 * 255)
    colours = {"color_trc": 16, "color_primaries": 9, "colorspace": 9}
    hdr = moments(write_video(tmp_path / "a.mp4", [frame] * 3, H265_10, colours=colours))[0].image
    sdr = moments(write_video(tmp_path / "b.mp4", [frame] * 3, H265_10))[0].image
    assert sdr.size == hdr.size
    right, left = (sdr.width * 3 // 4, 90), (sdr.width // 4, 90)
    assert sum(hdr.getpixel(right)) > sum(sdr.getpixel(right)) + 60
    assert sum(hdr.getpixel(left)) < 3 * 40


def test_interlaced_video_shows_no_comb(tmp_path: Path) -> None:
    """Two fields of different times: a bar that moved between them."""
    frame = np.full((480, 640, 3), 230, np.uint8)
    frame[0::2, 100:200] = 10
    frame[1::2, 400:500] = 10
    codec = ("mpeg2video", "yuv420p", {"flags": "+ildct+ilme", "qscale": "2", "top": "1"})
    image = np.asarray(moments(write_video(tmp_path / "a.mpg", [frame] * 3, codec))[0].image)
    column = image[100:300, 150, 0].astype(int)
    assert np.abs(np.diff(column)).max() < 60


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    import av

    path = tmp_path / "a.mov"
    pixels = np.zeros((96, 128, 4), np.uint8)
    pixels[:, :64] = (200, 30, 30, 255)
    with av.open(str(path), "w") as container:
        track = container.add_stream("qtrle", rate=RATE)
        track.width, track.height, track.pix_fmt = 128, 96, "argb"
        frame = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format="argb")
        container.mux(track.encode(frame))
        container.mux(track.encode())
    image = moments(path)[0].image
    assert image.getpixel((100, 50)) == (255, 255, 255)
    assert image.getpixel((20, 50)) == pytest.approx((200, 30, 30), abs=3)


def test_times_follow_a_changing_frame_rate(stills: list[Pixels], tmp_path: Path) -> None:
    times_s = [0.0, 0.04, 0.5, 2.0, 2.1, 6.0, 6.5, 9.0, 9.02, 9.5]
    frames = [stills[0]] * 3 + [stills[1]] * 2 + [stills[2]] * 5
    path = write_video(tmp_path / "a.mkv", frames, MJPEG, times_s=times_s)
    assert [one.time_s for one in moments(path)] == pytest.approx([0.0, 2.0, 6.0], abs=0.01)


@pytest.mark.parametrize(
    ("name", "codec", "first_s"),
    [("a.webm", VP8, 5.0), ("a.mkv", H264, 5.0), ("a.mts", H264, 0.0), ("a.mpg", MPEG2, 0.0)],
)
def test_times_are_those_of_the_player_where_a_file_starts_late(
    stills: list[Pixels], tmp_path: Path, name: str, codec: Codec, first_s: float
) -> None:
    """Chromium shows WebM and MP4 times as they stand; what it cannot play starts at 0."""
    frames = scenes(stills, (3.0, 2.0))
    found = moments(write_video(tmp_path / name, frames, codec, start_s=5.0))
    assert found[0].time_s == pytest.approx(first_s, abs=0.15)
    assert any(one.time_s == pytest.approx(first_s + 3.0, abs=TOLERANCE_S) for one in found)


def test_a_live_recording_without_a_duration_is_measured(
    stills: list[Pixels], tmp_path: Path
) -> None:
    path = tmp_path / "live.webm"
    write_video(path, scenes(stills), VP8, container_options={"live": "1"})
    assert facts(path).duration_s == pytest.approx(sum(SCENES_S), abs=0.3)
    assert len(moments(path, max_moments=4)) == 4


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", H264_NO_KEYS), ("a.webm", VP8), ("a.avi", MJPEG), ("a.mts", H264), ("a.mpg", MPEG2)],
)
def test_a_moment_can_be_read_again_by_its_time(
    stills: list[Pixels], tmp_path: Path, name: str, codec: Codec
) -> None:
    path = write_video(tmp_path / name, scenes(stills), codec)
    for first in moments(path):
        again = read_frame(path, first.time_s, max_pixels=MAX_PIXELS, target_side=224)
        one, other = (np.asarray(image, dtype=np.int16) for image in (first.image, again))
        assert np.abs(one - other).mean() < 2
    late = read_frame(path, 1000.0, max_pixels=MAX_PIXELS, target_side=224)
    assert nearest(late, stills) == len(CUTS_S) - 1


# --- what is said beside the pixels ---------------------------------------------------------


def test_an_iphone_says_when_where_and_with_what(stills: list[Pixels], tmp_path: Path) -> None:
    told = {
        "com.apple.quicktime.creationdate": "2024-05-07T18:03:11+0200",
        "creation_time": "2024-05-07T16:03:12Z",
        "com.apple.quicktime.make": "Apple",
        "com.apple.quicktime.model": "iPhone 15 Pro",
        "com.apple.quicktime.location.ISO6709": "+48.1371+011.5754+519.0/",
        "com.apple.quicktime.content.identifier": "7F1A-22",
    }
    options = {"movflags": "use_metadata_tags"}
    path = write_video(
        tmp_path / "IMG_1.MOV", [stills[0]] * 9, metadata=told, container_options=options
    )
    said = facts(path)
    assert said.taken_at == "2024-05-07T18:03:11+02:00"
    assert (said.make, said.model) == ("Apple", "iPhone 15 Pro")
    assert (said.latitude, said.longitude) == pytest.approx((48.1371, 11.5754))
    assert said.content_identifier == "7F1A-22"


def test_an_android_says_its_time_in_utc_and_its_place(
    stills: list[Pixels], tmp_path: Path
) -> None:
    told = {"creation_time": "2024-05-07T16:03:12Z", "location": "-33.8568+151.2153/"}
    said = facts(write_video(tmp_path / "VID.mp4", [stills[0]] * 9, metadata=told))
    assert said.taken_at == "2024-05-07T16:03:12+00:00"
    assert (said.latitude, said.longitude) == pytest.approx((-33.8568, 151.2153))


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("+4808.2275+01134.5230/", (48.137125, 11.575383)),
        ("+480813.65+0113431.4/", (48.137125, 11.575389)),
        ("+00.0000+000.0000/", (None, None)),
        ("+95.0+011.0/", (None, None)),
        ("+4875.00+01134.5230/", (None, None)),
        ("+480875+0113431/", (None, None)),
        ("+4808.2275/", (None, None)),
        ("Munich", (None, None)),
        ("", (None, None)),
    ],
)
def test_places_are_read_in_every_form_of_the_standard(
    written: str, read: tuple[float | None, float | None]
) -> None:
    from indexer.video_tags import read_place

    assert read_place({"location": written}) == pytest.approx(read, abs=1e-5)


@pytest.mark.parametrize(
    "written", ["1904-01-01T00:00:00Z", "1970-01-01T00:00:00.000000Z", "2020", "yesterday", ""]
)
def test_a_clock_that_was_never_set_is_no_date(written: str) -> None:
    from indexer.video_tags import read_date

    assert read_date({"creation_time": written}) is None


def test_the_hash_is_that_of_any_other_content(tmp_path: Path) -> None:
    data = np.random.default_rng(3).bytes(3_000_001)
    (tmp_path / "a.mp4").write_bytes(data)
    assert hash_file(tmp_path / "a.mp4") == hash_content(data)


# --- what is not a video, or only half of one -----------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mkv", H264, {}),
        ("a.webm", VP8, {}),
        ("a.avi", MPEG4, {}),
        ("a.mts", H264, {}),
        ("a.mp4", H264, {"movflags": "faststart"}),
        ("b.mp4", H264, {"movflags": "frag_keyframe+empty_moov"}),
    ],
)
def test_a_truncated_video_gives_its_moments_up_to_the_damage(
    stills: list[Pixels], tmp_path: Path, name: str, codec: Codec, options: dict[str, str]
) -> None:
    whole = write_video(tmp_path / name, scenes(stills), codec, container_options=options)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    assert facts(whole).width == SIZE[0]
    found = moments(whole)
    assert nearest(found[0].image, stills) == 0
    assert len(found) >= 2


def test_a_video_whose_index_was_cut_off_is_refused_by_name(
    stills: list[Pixels], tmp_path: Path
) -> None:
    path = write_video(tmp_path / "a.mp4", scenes(stills))
    path.write_bytes(path.read_bytes()[:-3000])
    for read in (facts, moments):
        with pytest.raises(ImageUnreadableError, match=r"a\.mp4"):
            read(path)


def test_sound_only_is_refused_with_and_without_a_cover(
    stills: list[Pixels], tmp_path: Path
) -> None:
    for path in (
        write_sound(tmp_path / "a.mp4"),
        write_sound(tmp_path / "b.mp4", cover=stills[0]),
    ):
        with pytest.raises(ImageUnreadableError, match="sound only"):
            facts(path)
        with pytest.raises(ImageUnreadableError, match="sound only"):
            moments(path)


def test_sound_beside_the_video_changes_nothing(stills: list[Pixels], tmp_path: Path) -> None:
    silent = write_video(tmp_path / "a.mp4", scenes(stills))
    loud = write_video(tmp_path / "b.mp4", scenes(stills), sound_s=10.0)
    assert [one.time_s for one in moments(loud)] == [one.time_s for one in moments(silent)]


def test_too_many_pixels_are_refused_from_the_header(stills: list[Pixels], tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [stills[0]] * 3)
    for read in (read_facts, moments):
        with pytest.raises(ImageTooLargeError, match="57,600 pixels"):
            read(path, max_pixels=57_599)
    assert read_facts(path, max_pixels=57_600).width == 320


def test_files_that_are_no_videos_are_refused_by_name(stills: list[Pixels], tmp_path: Path) -> None:
    picture = tmp_path / "picture.mp4"
    Image.fromarray(stills[0]).save(picture, "JPEG")
    text = tmp_path / "text.mkv"
    text.write_text("not a video\n" * 500)
    zeros = tmp_path / "zeros.avi"
    zeros.write_bytes(bytes(100_000))
    for path in (picture, text, zeros, tmp_path):
        for read in (facts, moments):
            with pytest.raises(ImageUnreadableError) as caught:
                read(path)
            assert str(path) in str(caught.value)
    (tmp_path / "empty.mp4").touch()
    for read in (facts, moments):
        with pytest.raises(ImageEmptyError):
            read(tmp_path / "empty.mp4")
        with pytest.raises(ImageNotFoundError):
            read(tmp_path / "missing.mp4")


def test_a_playlist_cannot_make_it_open_another_file(stills: list[Pixels], tmp_path: Path) -> None:
    other = write_video(tmp_path / "private.mp4", [stills[0]] * 9)
    lists = {
        "hls.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:{other}\n#EXT-X-ENDLIST\n",
        "concat.mp4": f"ffconcat version 1.0\nfile '{other}'\n",
        "dash.mp4": f"<?xml version='1.0'?><MPD><BaseURL>{other}</BaseURL></MPD>",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(ImageUnreadableError):
            moments(tmp_path / name)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", H264), ("a.mkv", VP8), ("a.avi", MPEG4)])
def test_mutated_videos_never_raise_anything_else(
    stills: list[Pixels], tmp_path: Path, name: str, codec: Codec
) -> None:
    small = [np.ascontiguousarray(photo[::3, ::3][:48, :96]) for photo in stills[:3]]
    data = write_video(tmp_path / name, scenes(small, (1.0, 1.0, 1.0)), codec).read_bytes()
    path = tmp_path / f"mutated-{name}"

    @settings(max_examples=40, derandomize=True)
    @given(
        changes=st.lists(
            st.tuples(st.integers(0, len(data) - 1), st.integers(0, 255)), max_size=20
        ),
        kept=st.floats(0.05, 1.0),
    )
    def check(changes: list[tuple[int, int]], kept: float) -> None:
        mutated = bytearray(data)
        for at, value in changes:
            mutated[at] = value
        path.write_bytes(mutated[: int(len(data) * kept)])
        for read in (facts, moments):
            try:
                read(path)
            except ImageError as error:
                assert str(path) in str(error)

    check()


def test_progress_is_told_while_nothing_is_found(stills: list[Pixels], tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [stills[0]] * 400, H264_NO_KEYS)
    told: list[None] = []
    assert len(moments(path, on_progress=lambda: told.append(None))) == 1
    assert len(told) >= 200


def test_a_reader_that_stops_early_leaves_no_open_file(
    stills: list[Pixels], tmp_path: Path
) -> None:
    path = write_video(tmp_path / "a.mp4", scenes(stills))
    reading = read_moments(path, max_pixels=MAX_PIXELS, target_side=224)
    next(reading)
    reading.close()
    open_files = Path("/proc/self/fd")
    if open_files.exists():
        assert str(path) not in {os.path.realpath(link) for link in open_files.iterdir()}


def test_importing_it_is_cheap() -> None:
    program = (
        "import sys, indexer.video;"
        "assert not {'av', 'torch', 'faiss', 'openvino'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_av_the_message_names_the_extra(stills: list[Pixels], tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [stills[0]] * 3)
    program = (
        "import sys; sys.modules['av'] = None\n"
        "from pathlib import Path\nfrom indexer.video import read_facts\n"
        "read_facts(Path(sys.argv[1]), max_pixels=10**8)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=False
    )
    assert "ImagePackageError" in done.stderr
    assert "pip install 'clipsearch[video]'" in done.stderr


# --- choosing -------------------------------------------------------------------------------

LOOKS = st.integers(0, 5)


@settings(max_examples=60)
@given(seen=st.lists(LOOKS, max_size=120), limit=st.integers(1, 20))
def test_no_more_moments_than_allowed_and_none_twice_in_a_row(seen: list[int], limit: int) -> None:
    random = np.random.default_rng(5)
    pictures = random.integers(0, 256, (5, 18, 32, 3)).astype(np.uint8)
    blank = np.zeros((18, 32, 3), np.uint8)
    chooser = MomentChooser(every_s=10, max_moments=limit, duration_s=float(len(seen)))
    chosen: list[int] = []
    for at, number in enumerate(seen):
        picture = blank if number == 5 else pictures[number]
        if chooser.choose(picture, float(at), at / len(seen)):
            chosen.append(number)
    assert len(chosen) == chooser.chosen <= limit
    assert 5 not in chosen
    assert all(one != other for one, other in pairwise(chosen))
    assert bool(chosen) == bool(set(seen) - {5})


@given(st.binary(min_size=18 * 32 * 3, max_size=18 * 32 * 3))
@settings(max_examples=30)
def test_a_look_does_not_differ_from_itself(data: bytes) -> None:
    picture = np.frombuffer(data, np.uint8).reshape(18, 32, 3)
    inverse = 255 - picture
    assert difference(picture, picture) == 0
    assert are_alike(picture, picture)
    assert 0 <= difference(picture, inverse) <= 1
    assert difference(picture, inverse) == difference(inverse, picture)
    assert is_blank(np.full((18, 32, 3), 200, np.uint8))


# --- real files -----------------------------------------------------------------------------

REAL = {  # from the manifest's PhotoPrism examples: size, seconds, format, moments at most
    "blue-go-video.mp4": (270, 480, 2.4, "MP4", 2),
    "christmas.mp4": (640, 416, 0.8, "MP4", 1),
    "earth.mov": (480, 270, 30.5, "MOV", 4),
}


@pytest.mark.parametrize("name", REAL)
def test_real_videos_are_read(name: str) -> None:
    path = DATA / "messy" / "photoprism-examples" / name
    if not path.exists():
        pytest.skip("the folder of real files is not here")
    width, height, seconds, kind, most = REAL[name]
    said, found = facts(path), moments(path)
    assert (said.width, said.height, said.format) == (width, height, kind)
    assert said.duration_s == pytest.approx(seconds, abs=0.1)
    assert 1 <= len(found) <= most
    assert found[0].image.size == (width, height)


def test_the_pictures_among_the_real_files_are_no_videos() -> None:
    folder = DATA / "messy" / "photoprism-examples"
    if not folder.exists():
        pytest.skip("the folder of real files is not here")
    for path in sorted(folder.iterdir()):
        if path.name not in REAL and path.is_file():
            with pytest.raises(ImageError):
                facts(path)
