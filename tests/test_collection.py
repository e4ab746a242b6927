"""What a collection holds beside plain photos: videos, Live Photos, sidecars, words."""

from __future__ import annotations

import io
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import clipsearch
from clipsearch.config import Settings, resolve
from clipsearch.library import MOMENT, VIDEO, Library
from indexer.pipeline import index_library
from indexer.report import IndexReport
from tests.models import VIT, named, save_model

Index = Callable[..., IndexReport]
SCENE_S = 3.0
NAMES = ("astronaut.png", "coffee.png", "rocket.jpg")


def film(path: Path, stills: list[Image.Image], metadata: dict[str, str] | None = None) -> Path:
    """A video that shows each still for SCENE_S seconds."""
    options = {"movflags": "use_metadata_tags"} if metadata else {}
    with av.open(str(path), "w", container_options=options) as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for still in stills:
            frame = av.VideoFrame.from_image(still.convert("RGB").resize((320, 240)))
            for _ in range(round(SCENE_S * 10)):
                container.mux(stream.encode(frame.reformat()))
        container.mux(stream.encode())
    return path


def settle(folder: Path) -> None:
    """Dates everything a minute back: a file that was just written is read twice, on purpose."""
    then = time.time() - 60
    for path in folder.rglob("*"):
        os.utime(path, (then, then))


@pytest.fixture(scope="module")
def stills(real_photos: Path) -> list[Image.Image]:
    return [Image.open(real_photos / name).convert("RGB") for name in NAMES]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    return folder


@pytest.fixture
def settings(tiny_model_dir: Path, library_path: Path) -> Settings:
    chosen = {"model": f"local-dir:{tiny_model_dir}", "runtime": "torch", "library": library_path}
    return resolve(chosen, environment={})


@pytest.fixture
def library(library_path: Path) -> Iterator[Library]:
    with Library.open(library_path, create=True) as opened:
        yield opened


@pytest.fixture
def index(library: Library, settings: Settings, photos: Path) -> Index:
    def run(**options: object) -> IndexReport:
        return index_library(library, [photos], **{"settings": settings, **options})  # type: ignore[arg-type]

    return run


def paint(path: Path, seed: int) -> Path:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((80, 60)).save(path)
    return path


def test_each_scene_of_a_video_is_found_with_its_time(
    index: Index, photos: Path, library: Library, settings: Settings, stills: list[Image.Image]
) -> None:
    film(photos / "film.mp4", stills)
    paint(photos / "still.png", 1)
    settle(photos)
    assert index().added == 2
    counts = library.counts()
    assert (counts.videos, counts.files, counts.items) == (1, 2, 4)
    hits = clipsearch.search(library, "anything cutoff:none", settings=settings)
    moments = sorted(hit.time_s for hit in hits if hit.time_s is not None)
    assert moments == pytest.approx([0, SCENE_S, 2 * SCENE_S], abs=0.3)
    assert {hit.path.name for hit in hits} == {"film.mp4", "still.png"}
    records = library.items([hit.item for hit in hits]).values()
    parents = {record.parent_id for record in records if record.kind == MOMENT}
    (parent,) = parents
    assert parent is not None
    assert library.items([parent])[parent].kind == VIDEO
    assert library.check().problems == []
    again = index()
    assert (again.unchanged, again.embedded) == (2, 0)


def test_a_renamed_video_costs_nothing_and_a_forgotten_one_leaves_nothing(
    index: Index, photos: Path, library: Library, stills: list[Image.Image]
) -> None:
    film(photos / "film.mp4", stills[:2])
    paint(photos / "still.png", 1)
    settle(photos)
    index()
    (photos / "film.mp4").rename(photos / "renamed.mp4")
    report = index()
    assert (report.moved, report.embedded) == (1, 0)
    with library.writer() as writer:
        writer.forget(photos / "renamed.mp4")
    assert library.counts().items == 1
    space = library.active_space()
    assert space is not None
    assert len(library.embedded_ids(space.id)) == 1
    assert len(list((library.path / "thumbs").glob("*/*"))) == 1


def test_another_model_gets_the_same_moments(
    index: Index,
    photos: Path,
    library: Library,
    settings: Settings,
    stills: list[Image.Image],
    tmp_path: Path,
) -> None:
    film(photos / "film.mp4", stills)
    settle(photos)
    index()
    other = f"local-dir:{save_model(tmp_path / 'other', VIT, seed=5)}"
    report = index(settings=Settings(**{**vars(settings), "model": other}))
    assert report.embedded == 3
    active = library.active_space()
    assert active is not None
    assert (active.address, active.embedded) == (named(other), 3)


def test_a_live_photo_counts_once(
    index: Index, photos: Path, library: Library, stills: list[Image.Image]
) -> None:
    paint(photos / "IMG_1.jpg", 1)
    film(photos / "IMG_1.mov", stills[:1], {"com.apple.quicktime.content.identifier": "7F1A"})
    film(photos / "IMG_2.mov", stills[1:2])
    settle(photos)
    assert index().added == 3
    assert library.counts().items == 2
    assert index().unchanged == 3


def test_a_short_video_beside_a_photo_of_its_name_is_found_by_itself(
    index: Index, photos: Path, library: Library, stills: list[Image.Image]
) -> None:
    paint(photos / "cat.jpg", 1)
    film(photos / "cat.mp4", stills[:1])
    settle(photos)
    report = index()
    assert (report.added, report.live_photos, library.counts().videos) == (2, 0, 1)
    assert library.counts().items == 2


def test_a_video_that_an_older_version_hid_for_its_name_is_looked_at_again(
    index: Index, photos: Path, library: Library, stills: list[Image.Image]
) -> None:
    paint(photos / "IMG_1.jpg", 1)
    film(photos / "IMG_1.mov", stills[:1], {"com.apple.quicktime.content.identifier": "7F1A"})
    paint(photos / "cat.jpg", 2)
    film(photos / "cat.mp4", stills[1:2])
    settle(photos)
    report = index()
    assert (report.live_photos, library.statistics().live_photos) == (1, 1)
    assert any("1 video is the moving half" in line for line in report.lines())
    with closing(sqlite3.connect(library.path / "library.db")) as connection, connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("DELETE FROM item WHERE kind = 'moment'")
        connection.execute(
            """UPDATE item SET metadata = json_remove(json_set(metadata, '$.live_photo',
            json('true')), '$.live_photo_of') WHERE kind = 'video'"""
        )
    assert index().changed == 2
    assert len(library.present_items()) == 3  # two photos and the moment of the cat
    assert index().unchanged == 4


def test_a_broken_video_is_one_failure_and_is_not_tried_again(
    index: Index, photos: Path, stills: list[Image.Image]
) -> None:
    whole = film(photos / "film.mp4", stills[:1]).read_bytes()
    (photos / "film.mp4").write_bytes(whole[:200] + bytes(2000))
    (photos / "noise.mkv").write_bytes(b"no film at all" * 100)
    settle(photos)
    assert len(index().failures) == 2
    again = index()
    assert (again.failures, again.known_failures) == ([], 2)


XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"
 xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/">
<rdf:Description rdf:about="" xmp:Rating="4"><dc:subject><rdf:Bag>{0}</rdf:Bag></dc:subject>
</rdf:Description></rdf:RDF></x:xmpmeta>"""


def xmp(*keywords: str) -> str:
    return XMP.format("".join(f"<rdf:li>{keyword}</rdf:li>" for keyword in keywords))


def test_sidecars_become_tags_and_captions_and_follow_their_changes(
    index: Index, photos: Path, library: Library
) -> None:
    paint(photos / "a.jpg", 1)
    (photos / "a.xmp").write_text(xmp("harbour", "Rex"))
    (photos / "a.txt").write_text("Rex looks at the boats.")
    settle(photos)
    index()
    item = library.item_at(photos / "a.jpg")
    assert item is not None
    said = library.words_of(item)
    assert {name for name, _ in said.tags} == {"harbour", "Rex"}
    assert [text for text, _ in said.captions] == ["Rex looks at the boats."]
    assert library.items([item])[item].metadata["rating"] == 4
    (photos / "a.xmp").write_text(xmp("harbour", "Bella"))
    (photos / "a.txt").unlink()
    report = index()
    assert (report.embedded, report.unchanged) == (0, 1)
    said = library.words_of(item)
    assert {name for name, _ in said.tags} == {"harbour", "Bella"}
    assert said.captions == ()
    assert library.check().problems == []
    (photos / "a.xmp").unlink()
    index()
    assert library.words_of(item).tags == ()


def test_only_the_words_change_when_only_a_sidecar_did(
    index: Index, photos: Path, library: Library
) -> None:
    paint(photos / "a.jpg", 1)
    paint(photos / "b.jpg", 2)
    settle(photos)
    index()
    (photos / "b.jpg.json").write_text(json.dumps({"caption": "two boats", "tags": ["sea"]}))
    report = index(only=[photos / "b.jpg.json"])
    assert (report.embedded, report.unchanged) == (0, 2)
    item = library.item_at(photos / "b.jpg")
    assert item is not None
    assert [text for text, _ in library.words_of(item).captions] == ["two boats"]
    assert [name for name, _ in library.words_of(item).tags] == ["sea"]


def words(library: Library, path: Path) -> tuple[set[str], set[str]]:
    """Tags and captions of a file's picture."""
    (item,) = library.tags.items_at(path)
    said = library.words_of(item)
    return {name for name, _ in said.tags}, {text for text, _ in said.captions}


def facts(library: Library, path: Path) -> dict[str, object]:
    (item,) = library.tags.items_at(path)
    record = library.items([item])[item]
    return {**record.metadata, "taken_at": record.taken_at}


def rated(stars: int, *keywords: str) -> str:
    return xmp(*keywords).replace('Rating="4"', f'Rating="{stars}"')


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_identical_files_unite_what_lies_beside_them(
    order: tuple[str, str], index: Index, photos: Path, library: Library
) -> None:
    for folder in ("a", "b", "c"):
        (photos / folder).mkdir()
        paint(photos / folder / "x.jpg", 1)
    (photos / "a/x.jpg.xmp").write_text(rated(1, "holiday"))
    (photos / "b/x.xmp").write_text(rated(5, "family"))
    (photos / "b/x.txt").write_text("Anna at the sea.")
    settle(photos)
    older = time.time() - 600
    os.utime(photos / "a/x.jpg.xmp", (older, older))
    for folder in order:  # whichever is read first
        index(only=[photos / folder])
    index()
    assert words(library, photos / "c/x.jpg") == ({"holiday", "family"}, {"Anna at the sea."})
    assert facts(library, photos / "a/x.jpg")["rating"] == 5  # edited last
    os.utime(photos / "a/x.jpg.xmp")
    index()
    assert facts(library, photos / "a/x.jpg")["rating"] == 1
    # What goes takes its own words along, and no others.
    (photos / "b/x.xmp").write_text("")
    index()
    assert words(library, photos / "a/x.jpg") == ({"holiday"}, {"Anna at the sea."})
    with library.writer() as writer:
        writer.forget(photos / "b")
    assert words(library, photos / "a/x.jpg") == ({"holiday"}, set())
    shutil.rmtree(photos / "a")
    shutil.rmtree(photos / "b")
    index()
    assert words(library, photos / "c/x.jpg") == (set(), set())
    (photos / "c/x.json").write_text(json.dumps({"tags": ["late"]}))
    (photos / "c").rename(photos / "moved")
    index()
    assert words(library, photos / "moved/x.jpg") == ({"late"}, set())
    assert library.check().problems == []


def test_a_copy_beside_which_nothing_lies_takes_nothing_away(
    index: Index, photos: Path, library: Library
) -> None:
    paint(photos / "a.jpg", 1)
    (photos / "a.xmp").write_text(xmp("kept"))
    settle(photos)
    index()
    (item,) = library.tags.items_at(photos / "a.jpg")
    with library.writer() as writer:
        writer.tags.add_by_hand([item], "mine")
    shutil.copy(photos / "a.jpg", photos / "b.jpg")
    index()
    assert words(library, photos / "b.jpg")[0] == {"kept", "mine"}
    (photos / "a.jpg").unlink()  # its sidecar stays behind, beside no picture
    index()
    assert words(library, photos / "b.jpg")[0] == {"mine"}


def test_an_emptied_sidecar_takes_the_words_of_the_picture_away(
    index: Index, photos: Path, library: Library
) -> None:
    exif = Image.Exif()
    exif[0x010E] = "An old caption"
    Image.new("RGB", (40, 30), "teal").save(photos / "a.jpg", exif=exif)
    settle(photos)
    index()
    assert words(library, photos / "a.jpg")[1] == {"An old caption"}
    described = "<rdf:Bag/></dc:subject><dc:description/>"
    emptied = XMP.format("").replace("<rdf:Bag></rdf:Bag></dc:subject>", described)
    (photos / "a.xmp").write_text(emptied)
    index()
    assert words(library, photos / "a.jpg") == (set(), set())
    (photos / "a.xmp").unlink()
    index()
    assert words(library, photos / "a.jpg")[1] == {"An old caption"}


def test_a_sidecar_that_cannot_be_read_is_named_and_keeps_its_words(
    index: Index, photos: Path, library: Library, tmp_path: Path
) -> None:
    for name in ("large", "broken", "link", "RAW"):
        paint(photos / f"{name}.png", len(name))
        (photos / f"{name}.xmp").write_text(xmp(name))
    paint(photos / "RAW.jpg", 9)
    (tmp_path / "away").mkdir()
    (photos / "link.xmp").rename(tmp_path / "away/link.xmp")
    (photos / "link.xmp").symlink_to(tmp_path / "away/link.xmp")
    settle(photos)
    assert index().failures == []
    (photos / "large.xmp").write_text(xmp("much").replace("<x:", f"<!--{'m' * 2**24}--><x:"))
    (photos / "broken.xmp").write_text(xmp("half")[:-60])
    (photos / "RAW.xmp").write_text("nothing of this kind")
    (tmp_path / "away").rename(tmp_path / "elsewhere")
    report = index()
    told = {failure.path.name: failure.reason for failure in report.failures}
    assert "16,777,216" in told.pop("large.xmp")
    assert "broken XML" in told.pop("broken.xmp")
    assert "No such file" in told.pop("link.xmp")
    assert "holds no XMP" in told.pop("RAW.xmp")  # once, though two pictures share it
    assert not told
    assert {failure.path.name for failure in library.failures()} == {
        *("large.xmp", "broken.xmp", "link.xmp", "RAW.xmp")
    }
    assert library.counts().failures == sum(library.statistics().failures.values()) == 4
    for name in ("large", "broken", "link", "RAW"):
        assert words(library, photos / f"{name}.png")[0] == {name}
    again = index()  # what may be readable again is tried, and told of once only
    assert (again.failures, again.known_failures, again.embedded) == ([], 1, 0)
    (tmp_path / "elsewhere").rename(tmp_path / "away")
    (tmp_path / "away/link.xmp").write_text(xmp("new"))
    (photos / "broken.xmp").write_text(xmp("whole"))
    (photos / "large.xmp").unlink()
    index()
    assert words(library, photos / "link.png")[0] == {"new"}
    assert words(library, photos / "broken.png")[0] == {"whole"}
    assert words(library, photos / "large.png")[0] == set()
    assert [failure.path.name for failure in library.failures()] == ["RAW.xmp"]
    assert library.check().problems == []


def test_what_an_earlier_version_made_of_sidecars_is_read_again_once(
    index: Index, photos: Path, library: Library
) -> None:
    paint(photos / "a.jpg", 1)
    paint(photos / "b.jpg", 2)
    (photos / "a.jpg.xmp").write_text(xmp("specific"))
    (photos / "a.xmp").write_text(xmp("general"))
    settle(photos)
    index()
    with sqlite3.connect(library.path / "library.db") as connection:  # as it was kept then
        connection.execute("DELETE FROM own_words")
        connection.execute("DELETE FROM sidecar")
        connection.execute("UPDATE tag SET name = 'general'")
        connection.execute("UPDATE file SET sidecars = '1:2:a.xmp' WHERE sidecars <> ''")
    report = index()
    assert (report.embedded, report.unchanged) == (0, 2)
    assert words(library, photos / "a.jpg")[0] == {"specific"}
    with sqlite3.connect(library.path / "library.db") as connection:
        changed = "SELECT sum(changed_at <> '-') FROM file"
        connection.execute("UPDATE file SET changed_at = '-'")
        connection.commit()
        index()
        assert connection.execute(changed).fetchone() == (0,)  # nothing was read


def test_names_as_screenshots_have_them_are_no_trouble(
    index: Index, photos: Path, library: Library
) -> None:
    for number, name in enumerate(("9.41\u202fAM", "a:b", "soft\u00adhyphen", "e\u0301", " x ")):
        paint(photos / f"{name}.png", number)
        (photos / f"{name}.png.xmp").write_text(xmp(f"tag {number}"))
    settle(photos)
    index()
    for number, name in enumerate(("9.41\u202fAM", "a:b", "soft\u00adhyphen", "e\u0301", " x ")):
        assert words(library, photos / f"{name}.png")[0] == {f"tag {number}"}


def test_what_is_no_file_is_no_sidecar(index: Index, photos: Path, library: Library) -> None:
    paint(photos / "a.jpg", 1)
    os.mkfifo(photos / "a.jpg.xmp")
    (photos / "a.jpg.txt").mkdir()
    (photos / "a.xmp").write_text(xmp("read"))
    settle(photos)
    assert index().failures == []
    assert words(library, photos / "a.jpg")[0] == {"read"}


def test_texts_beside_pictures_are_read_as_was_asked_until_asked_otherwise(
    index: Index, photos: Path, library: Library, settings: Settings
) -> None:
    paint(photos / "a.jpg", 1)
    (photos / "a.txt").write_text("1girl\nlong_hair\n")
    settle(photos)
    index()
    assert words(library, photos / "a.jpg") == (set(), {"1girl", "long_hair"})
    report = index(settings=replace(settings, sidecar_text="tags"))
    assert (report.embedded, report.unchanged) == (0, 1)
    assert words(library, photos / "a.jpg") == ({"1girl", "long hair"}, set())
    assert library.settings()["sidecar_text"] == "tags"
    known = resolve({"model": settings.model}, library.settings(), environment={})
    assert index(settings=replace(known, library=settings.library)).unchanged == 1
    assert words(library, photos / "a.jpg") == ({"1girl", "long hair"}, set())
    index(settings=replace(settings, sidecar_text="off"))
    assert words(library, photos / "a.jpg") == (set(), set())


def test_the_words_beside_a_video_follow_their_changes_too(
    index: Index, photos: Path, library: Library, stills: list[Image.Image]
) -> None:
    film(photos / "film.mp4", stills[:1])
    (photos / "film.mp4.xmp").write_text(xmp("first"))
    settle(photos)
    index()
    before = facts(library, photos / "film.mp4")
    assert words(library, photos / "film.mp4")[0] == {"first"}
    (photos / "film.mp4.xmp").write_text(xmp("second"))
    report = index()
    assert (report.embedded, report.unchanged) == (0, 1)
    assert words(library, photos / "film.mp4")[0] == {"second"}
    assert facts(library, photos / "film.mp4") == before


def test_a_look_at_one_place_leaves_the_others_as_they_are(
    index: Index, photos: Path, library: Library
) -> None:
    for name in ("here", "there"):
        (photos / name).mkdir()
        paint(photos / name / "a.jpg", len(name))
    settle(photos)
    index()
    paint(photos / "here" / "b.jpg", 50)
    shutil.rmtree(photos / "there")
    report = index(only=[photos / "here"])
    assert (report.added, report.gone) == (1, 0)
    assert library.counts().items == 3
    assert index(only=[photos / "there"]).gone == 1


def test_a_place_is_named(index: Index, photos: Path, library: Library) -> None:
    exif = Image.Exif()
    gps = exif.get_ifd(0x8825)
    gps[1], gps[2], gps[3], gps[4] = "N", (38.0, 43.0, 20.0), "W", (9.0, 8.0, 20.0)
    Image.new("RGB", (40, 30), "teal").save(photos / "a.jpg", exif=exif)
    settle(photos)
    index()
    item = library.item_at(photos / "a.jpg")
    assert item is not None
    assert "Lisbon" in library.items([item])[item].metadata["place"]


def test_a_file_written_in_the_same_instant_is_read_again(
    index: Index, photos: Path, library: Library
) -> None:
    paint(photos / "a.jpg", 1)
    index()
    before = library.item_at(photos / "a.jpg")
    status = (photos / "a.jpg").stat()
    other = paint(photos / "b.jpg", 2).read_bytes()
    (photos / "b.jpg").unlink()
    size = status.st_size
    (photos / "a.jpg").write_bytes((other + bytes(size))[:size] if len(other) <= size else other)
    os.utime(photos / "a.jpg", ns=(status.st_atime_ns, status.st_mtime_ns))
    index()
    assert library.item_at(photos / "a.jpg") != before


def test_a_moment_is_shown_also_when_its_thumbnail_is_gone(
    index: Index, photos: Path, library: Library, settings: Settings, stills: list[Image.Image]
) -> None:
    from ui.service import Service

    film(photos / "film.mp4", stills)
    settle(photos)
    index()
    shutil.rmtree(library.path / "thumbs")
    service = Service(library, settings=settings)
    hits = sorted(
        clipsearch.search(library, "x cutoff:none", settings=settings),
        key=lambda hit: hit.time_s or 0,
    )
    for hit, still in zip(hits, stills, strict=True):
        for shown in (service.thumbnail(hit.item), service.view(hit.item)):
            found = Image.open(io.BytesIO(shown.data)).convert("RGB").resize((8, 6))
            wanted = still.resize((8, 6))
            apart = np.abs(np.asarray(found, float) - np.asarray(wanted, float)).mean()
            assert apart < 20, (hit.time_s, apart)
    assert service.original(hits[0].item).media_type == "video/mp4"
