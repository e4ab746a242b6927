"""What a person said of a photo stays with it, whatever other programs do to its file."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from videos import SIZE, write_video

from clipsearch.config import Settings, resolve
from clipsearch.disposable import disposable
from clipsearch.duplicates import IDENTICAL, DuplicateGroup, Shot
from clipsearch.encoders import Encoder, load_encoder
from clipsearch.errors import NotInLibraryError
from clipsearch.library import Batch, FileState, Library, NewItem, RootRecord
from clipsearch.library.failpoints import VARIABLE
from clipsearch.library.reachable import Place, openable, reachable_first
from clipsearch.model_names import unmarked
from clipsearch.vectors import EmbeddingSpace
from indexer.pipeline import index_library
from indexer.preview import preview
from indexer.report import IndexReport
from indexer.sidecar_writing import write_sidecars

Index = Callable[..., IndexReport]
Run = Callable[..., subprocess.CompletedProcess[str]]


def picture(seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((400, 300))


def save(path: Path, seed: int, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed).save(path, quality=90, **options)  # type: ignore[arg-type]
    return path


def rate(path: Path, stars: int) -> None:
    """Writes a rating into the file, as photo programs do: other bytes, the same picture."""
    packet = f'<x:xmpmeta xmlns:x="adobe:ns:meta/" stars="{stars}"/>'
    with Image.open(path) as image:
        image.load()
        image.save(path, quality="keep", xmp=packet.encode())


@pytest.fixture
def library(library_path: Path) -> Iterator[Library]:
    with Library.open(library_path, create=True) as opened:
        yield opened


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, name in enumerate("abc"):
        save(tmp_path / "photos" / f"{name}.jpg", number)
    return tmp_path / "photos"


class Loaded:
    """An EncoderLoader that has loaded: each library here would load the same model anew."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._encoder = load_encoder(settings.model, settings=settings)

    def load(self, address: str, space: EmbeddingSpace | None) -> Encoder:
        assert unmarked(address)[0] == self.settings.model
        assert space in (None, self._encoder.space)
        return self._encoder

    def finish(self) -> None:
        pass


@pytest.fixture(scope="module")
def loaded(tiny_model_dir: Path) -> Loaded:
    chosen = {"model": f"local-dir:{tiny_model_dir}", "runtime": "torch", "threads": 1}
    return Loaded(resolve(chosen, environment={}))


@pytest.fixture
def index(library: Library, loaded: Loaded) -> Index:
    def run(*roots: Path, **options: object) -> IndexReport:
        return index_library(
            library,
            roots,
            settings=loaded.settings,
            loader=loaded,
            **options,  # type: ignore[arg-type]
        )

    return run


def tag(library: Library, path: Path, name: str) -> None:
    with library.writer() as writer:
        writer.tags.add_by_hand(library.tags.items_at(path), name)


def tags_at(library: Library, path: Path) -> set[str]:
    """The tags by hand of a path that a search would show; none where it shows nothing."""
    items = library.tags.items_at(path)
    return {one.name for one in library.tags.of_items(items) if one.origin == "hand"}


def item(library: Library, path: Path) -> int:
    found = library.item_at(path)
    assert found is not None
    return found


# --- edited in place --------------------------------------------------------------------------


def test_everything_said_of_a_photo_follows_it_when_its_bytes_change(
    index: Index, photos: Path, library: Library
) -> None:
    index(photos)
    a, b = item(library, photos / "a.jpg"), item(library, photos / "b.jpg")
    tag(library, photos / "a.jpg", "grandma")
    with library.writer() as writer:
        writer.tags.answer(a, "cat", accepted=False)
    library.opinions.answer("granny", a, relevant=True)
    library.opinions.tell_apart(a, b)
    library.albums.save("like", f"similar:#{a}>0.5 -image:#{a}1")
    content = library.items([a])[a].content_hash
    library.concepts.keep("Oma", {content: photos / "a.jpg"}, library.spaces()[0].id, {})
    rate(photos / "a.jpg", 5)
    report = index()
    new = item(library, photos / "a.jpg")
    assert new != a
    assert (report.changed, report.carried, report.notes) == (1, 1, [])
    assert any("1 changed photo" in line for line in report.lines())
    assert tags_at(library, photos / "a.jpg") == {"grandma"}
    assert [(one.item, one.accepted) for one in library.tags.answers()] == [(new, False)]
    assert [(one.query, one.item) for one in library.opinions.answers()] == [("granny", new)]
    assert library.opinions.told_apart() == {(b, new)}
    album = library.albums.get("like")
    assert album is not None
    assert album.query == f"similar:#{new}>0.5 -image:#{a}1"
    (taught,) = library.concepts.photos("Oma", library.spaces()[0].id)
    assert taught.content_hash == library.items([new])[new].content_hash
    assert (taught.is_known, taught.path) == (True, photos / "a.jpg")
    (change,) = library.carryings.all()
    assert (change.path, change.is_same, change.state) == (photos / "a.jpg", True, "carried")
    assert library.counts().carried == 1
    assert index().carried == 0, "told once"


@pytest.mark.parametrize("place", ["inside-carrying", "after-commit"])
def test_killed_while_words_go_over_they_are_with_the_one_or_the_other(
    index: Index, photos: Path, library: Library, run_cli: Run, place: str
) -> None:
    index(photos)
    tag(library, photos / "a.jpg", "grandma")
    rate(photos / "a.jpg", 5)
    assert run_cli("index", env={VARIABLE: place}).returncode == -9
    assert tags_at(library, photos / "a.jpg") == {"grandma"}
    index()
    assert tags_at(library, photos / "a.jpg") == {"grandma"}
    assert library.counts().carried == 1
    assert library.check().ok


def test_words_of_a_video_and_of_its_moments_go_with_an_edited_one(
    index: Index, library: Library, tmp_path: Path
) -> None:
    path = tmp_path / "videos" / "a.mp4"
    path.parent.mkdir()
    scenes = [np.asarray(picture(seed).resize(SIZE)) for seed in (1, 2)]
    write_video(path, [scene for scene in scenes for _ in range(30)])
    index(path.parent)
    (video,) = library.tags.items_at(path)
    moments = library.tags.moments_of([video])[video]
    times = library.times(moments)
    tag(library, path, "birthday")
    library.opinions.answer("a cake", moments[-1], relevant=True)
    with path.open("ab") as file:
        file.write((16).to_bytes(4, "big") + b"free" + bytes(8))  # as a tool's metadata would
    report = index()
    (new,) = library.tags.items_at(path)
    assert new != video
    assert (report.carried, report.notes) == (1, [])
    assert tags_at(library, path) == {"birthday"}
    (answer,) = library.opinions.answers()
    assert answer.item in library.tags.moments_of([new])[new]
    assert library.times([answer.item])[answer.item] == times[moments[-1]]


def test_what_a_sidecar_says_later_of_a_video_holds_for_its_moments(
    index: Index, library: Library, tmp_path: Path
) -> None:
    path = tmp_path / "videos" / "a.mp4"
    path.parent.mkdir()
    write_video(path, [np.asarray(picture(1).resize(SIZE))] * 30)
    index(path.parent)
    dated = 'xmlns:exif="http://ns.adobe.com/exif/1.0/" exif:DateTimeOriginal="2001-02-03T04:05:06"'
    path.with_name("a.mp4.xmp").write_text(XMP.replace("xmlns:dc", f"{dated} xmlns:dc") % "lake")
    index()
    (video,) = library.tags.items_at(path)
    records = library.items([video, *library.tags.moments_of([video])[video]])
    assert len(records) > 1
    assert {record.taken_at for record in records.values()} == {"2001-02-03T04:05:06"}
    assert library.check().ok


def test_tags_that_a_model_or_the_file_gave_are_of_the_content(
    index: Index, photos: Path, library: Library
) -> None:
    index(photos)
    a = item(library, photos / "a.jpg")
    with library.writer() as writer:
        writer.tags.replace_items("everyday", [a], [(a, "dog", 0.9)])
    rate(photos / "a.jpg", 4)
    assert index().carried == 0
    assert library.tags.of_items([item(library, photos / "a.jpg")]) == []
    assert library.carryings.all() == []


def test_an_edited_picture_is_known_for_the_same(
    index: Index, photos: Path, library: Library
) -> None:
    edits: dict[str, Callable[[Image.Image], Image.Image]] = {
        "turned": lambda image: image.rotate(90, expand=True),
        "cropped": lambda image: image.crop((40, 30, 300, 230)),
        "grey": ImageOps.grayscale,
        "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.5),
    }
    paths = {name: save(photos / f"{name}.jpg", seed) for seed, name in enumerate(edits, 10)}
    index(photos)
    for name, path in paths.items():
        tag(library, path, name)
    for seed, (name, edit) in enumerate(edits.items(), 10):
        edit(picture(seed)).save(paths[name])
    report = index()
    assert (report.carried, report.notes) == (len(edits), [])
    for name, path in paths.items():
        assert tags_at(library, path) == {name}


def test_another_picture_under_the_name_is_told_and_can_be_taken_back_and_carried_again(
    index: Index, photos: Path, library: Library, call_cli: Run
) -> None:
    index(photos)
    tag(library, photos / "a.jpg", "grandma")
    a = item(library, photos / "a.jpg")
    save(photos / "a.jpg", 77)
    report = index()
    assert report.carried == 1
    (note,) = report.notes
    assert f"{photos / 'a.jpg'} shows another picture now: 1 tag" in note
    assert f"clipsearch carried --take-back {photos / 'a.jpg'}" in note
    assert tags_at(library, photos / "a.jpg") == {"grandma"}
    assert "ANOTHER PICTURE" in call_cli("carried").stdout
    tag(library, photos / "a.jpg", "said later")
    assert call_cli("carried", "--take-back", photos / "a.jpg").returncode == 0
    assert tags_at(library, photos / "a.jpg") == {"said later"}
    assert [one.name for one in library.tags.of_items([a])] == ["grandma"]
    (kept,) = [json.loads(line) for line in call_cli("carried", "--json").stdout.splitlines()]
    assert (kept["state"], kept["words"]) == ("kept", {"tags": 1})
    assert (
        call_cli("carried", "--take-back", photos / "a.jpg").returncode
        == NotInLibraryError.exit_code
    )
    assert call_cli("carried", "--carry", photos / "a.jpg").returncode == 0
    assert tags_at(library, photos / "a.jpg") == {"grandma", "said later"}
    assert call_cli("carried", "--take-back", photos / "a.jpg").returncode == 0
    save(photos / "a.jpg", 0)
    index()
    assert tags_at(library, photos / "a.jpg") == {"grandma"}, "the picture itself is back"


def test_a_name_that_is_used_again_long_after_its_photo_went_gets_nothing_of_it(
    index: Index, photos: Path, library: Library
) -> None:
    index(photos)
    tag(library, photos / "a.jpg", "grandma")
    (photos / "a.jpg").rename(photos.parent / "a.jpg")
    index()
    save(photos / "a.jpg", 77)
    report = index()
    assert (report.carried, report.kept) == (0, 1)
    assert "clipsearch carried --carry" in report.notes[0]
    assert tags_at(library, photos / "a.jpg") == set()
    shutil.copy(photos.parent / "a.jpg", photos / "found again.jpg")
    index()
    assert tags_at(library, photos / "found again.jpg") == {"grandma"}
    assert library.carryings.all() == []


def test_a_photo_deleted_and_written_anew_by_an_editor_keeps_its_words(
    index: Index, photos: Path, library: Library
) -> None:
    index(photos)
    tag(library, photos / "a.jpg", "grandma")
    (photos / "a.jpg").unlink()
    index()
    ImageOps.mirror(picture(0)).save(photos / "a.jpg")
    index()
    assert tags_at(library, photos / "a.jpg") == {"grandma"}


def test_a_photo_edited_and_renamed_between_two_runs_keeps_its_words(
    index: Index, photos: Path, library: Library
) -> None:
    names = {"é.JPG": "e\u0301.jpg", "n.jpg": "other name, same file.jpg"}
    for seed, before in enumerate(names, 10):
        save(photos / before, seed)
    index(photos)
    for seed, (before, after) in enumerate(names.items(), 10):
        tag(library, photos / before, before)
        (photos / before).rename(photos / after)
        with (photos / after).open("rb+") as file:
            ImageOps.mirror(picture(seed)).save(file, "JPEG")
    assert index().carried == 2
    for before, after in names.items():
        assert tags_at(library, photos / after) == {before}


def test_a_new_photo_that_got_the_inode_of_a_deleted_one_gets_nothing_else(
    index: Index, photos: Path, library: Library
) -> None:
    index(photos)
    tag(library, photos / "a.jpg", "grandma")
    (photos / "a.jpg").rename(photos / "new.jpg")
    with (photos / "new.jpg").open("rb+") as file:
        file.truncate()
        picture(77).save(file, "JPEG")
    assert index().carried == 0
    assert tags_at(library, photos / "new.jpg") == set()


def test_a_damaged_row_of_a_photo_is_mended_with_what_was_said_of_it(
    index: Index, photos: Path, library: Library
) -> None:
    index(photos)
    tag(library, photos / "a.jpg", "grandma")
    with library._database.writing() as connection:
        connection.exec_driver_sql(
            "UPDATE item SET hash = 'x', width = 5 WHERE id = ?", (item(library, photos / "a.jpg"),)
        )
    assert not library.check().ok
    assert library.check(repair=True).ok
    assert library.check().problems == []
    report = index()
    assert (report.embedded, report.carried) == (1, 1)
    assert tags_at(library, photos / "a.jpg") == {"grandma"}
    assert library.items([item(library, photos / "a.jpg")]).popitem()[1].width == 400


def test_a_dry_run_says_of_how_many_photos_words_would_go_along(
    index: Index, photos: Path, library: Library
) -> None:
    index(photos)
    tag(library, photos / "a.jpg", "grandma")
    for name in "ab":
        rate(photos / f"{name}.jpg", 5)
    found = preview(library, [])
    assert (found.read, found.with_words) == (3, 1) or (found.read, found.with_words) == (2, 1)
    assert any("what you said of up to 1 of them" in line for line in found.lines())
    assert tags_at(library, photos / "a.jpg") == {"grandma"}


# --- copies, backups, swaps -------------------------------------------------------------------


def test_of_two_copies_the_edited_and_the_other_have_the_words(
    index: Index, photos: Path, library: Library
) -> None:
    shutil.copy(photos / "a.jpg", photos / "copy.jpg")
    index(photos)
    tag(library, photos / "a.jpg", "grandma")
    rate(photos / "copy.jpg", 5)
    assert index().carried == 1
    assert tags_at(library, photos / "a.jpg") == tags_at(library, photos / "copy.jpg")
    save(photos / "copy.jpg", 77)
    index()
    assert tags_at(library, photos / "a.jpg") == {"grandma"}


def test_words_stay_with_a_backup_and_with_the_edited_picture_but_not_with_another(
    index: Index, photos: Path, library: Library
) -> None:
    backups = {"a": "0", "b": "0", "y": "z", "x": "z"}  # read before or after what it is of
    for seed, name in enumerate(backups, 10):
        save(photos / f"{name}.jpg", seed)
    index(photos)
    for name in backups:
        tag(library, photos / f"{name}.jpg", name)
    for seed, (name, first) in enumerate(backups.items(), 10):
        (photos / f"{name}.jpg").rename(photos / f"{first} {name}.jpg")
        is_edited = name in "ay"
        image = ImageOps.mirror(picture(seed)) if is_edited else picture(77 + seed)
        image.save(photos / f"{name}.jpg")
    report = index(batch_size=1)
    for name, first in backups.items():
        assert tags_at(library, photos / f"{first} {name}.jpg") == {name}
        assert tags_at(library, photos / f"{name}.jpg") == ({name} if name in "ay" else set())
    assert (report.carried, report.kept, report.notes) == (2, 0, [])


def test_it_does_not_matter_in_which_run_a_watched_backup_is_seen(
    index: Index, photos: Path, library: Library
) -> None:
    index(photos)
    for name, order in (("a", ("{}.jpg", "old {}.jpg")), ("b", ("old {}.jpg", "{}.jpg"))):
        path = photos / f"{name}.jpg"
        tag(library, path, name)
        path.rename(photos / f"old {name}.jpg")
        save(path, ord(name))
        for one in order:
            index(only=[photos / one.format(name)])
        assert tags_at(library, photos / f"old {name}.jpg") == {name}
        assert tags_at(library, path) == set()


def test_a_swap_of_two_names_carries_nothing(index: Index, photos: Path, library: Library) -> None:
    save(photos / "b.jpg", 0, comment=b"nearly the same picture")
    index(photos)
    for name in "abc":
        tag(library, photos / f"{name}.jpg", name)
    for one, other in (("a", "b"), ("b", "c")):
        (photos / f"{one}.jpg").rename(photos / "held")
        (photos / f"{other}.jpg").rename(photos / f"{one}.jpg")
        (photos / "held").rename(photos / f"{other}.jpg")
    report = index()
    assert [tags_at(library, photos / f"{name}.jpg") for name in "abc"] == [{"b"}, {"c"}, {"a"}]
    assert (report.carried, report.kept) == (0, 0)


def test_a_file_from_a_backup_has_what_was_said_meanwhile_and_not_what_was_taken_away(
    index: Index, photos: Path, library: Library, tmp_path: Path
) -> None:
    shutil.copy2(photos / "a.jpg", tmp_path / "backup.jpg")
    index(photos)
    for name in ("stays", "goes"):
        tag(library, photos / "a.jpg", name)
    rate(photos / "a.jpg", 5)
    index()
    with library.writer() as writer:
        writer.tags.remove_by_hand(library.tags.items_at(photos / "a.jpg"), "goes")
    tag(library, photos / "a.jpg", "later")
    shutil.copy2(tmp_path / "backup.jpg", photos / "restored.jpg")
    index()
    shutil.copy2(tmp_path / "backup.jpg", photos / "a.jpg")
    index()
    for name in ("restored.jpg", "a.jpg"):
        assert tags_at(library, photos / name) == {"stays", "later"}


# --- not readable for a while -----------------------------------------------------------------


def cannot_be_read(path: Path) -> Callable[[], object]:
    """Makes a photo unreadable; what is returned mends it."""
    whole = path.read_bytes()
    path.write_bytes(whole[:700])
    return lambda: path.write_bytes(whole)


def emptied(path: Path) -> Callable[[], object]:
    whole = path.read_bytes()
    path.write_bytes(b"")
    return lambda: path.write_bytes(whole)


def became_a_folder(path: Path) -> Callable[[], object]:
    path.rename(path.with_name("aside"))
    path.mkdir()
    return lambda: (path.rmdir(), path.with_name("aside").rename(path))


def became_a_link_to_nothing(path: Path) -> Callable[[], object]:
    path.rename(path.with_name("aside"))
    path.symlink_to("nowhere.jpg")
    return lambda: (path.unlink(), path.with_name("aside").rename(path))


def left_out(path: Path) -> Callable[[], object]:
    rules = path.with_name(".clipsearchignore")
    rules.write_text(f"{path.name}\n")
    return rules.unlink


def test_no_run_and_no_forget_of_another_photo_takes_what_is_known_of_one_in_trouble(
    index: Index, photos: Path, library: Library
) -> None:
    troubles = [cannot_be_read, emptied, became_a_folder, became_a_link_to_nothing, left_out]
    paths = {
        trouble: save(photos / trouble.__name__ / "b.jpg", seed)
        for seed, trouble in enumerate(troubles, 10)
    }
    index(photos)
    items = {path: item(library, path) for path in paths.values()}
    for path in items:
        tag(library, path, "grandma")
    mends = [trouble(path) for trouble, path in paths.items()]
    index()
    for trouble in (cannot_be_read, emptied):
        assert tags_at(library, paths[trouble]) == {"grandma"}, "found as before"
    assert library.counts().unread == 2
    with library.writer() as writer:
        writer.forget(photos / "a.jpg")
    for mend in mends:
        mend()
    report = index()
    assert {path: item(library, path) for path in items} == items
    assert all(tags_at(library, path) == {"grandma"} for path in items)
    assert report.embedded == 1, "of the one that was forgotten"
    assert library.failures() == []
    assert library.check().ok


def test_a_damaged_photo_mended_with_its_old_size_and_time_is_read_again(
    index: Index, photos: Path, library: Library
) -> None:
    path = photos / "b.jpg"
    os.utime(path, ns=(10**18, 10**18))
    whole = path.read_bytes()
    index(photos)
    for content in (bytes(len(whole)), whole):
        path.with_name("new").write_bytes(content)
        os.utime(path.with_name("new"), ns=(10**18, 10**18))
        path.with_name("new").replace(path)
        index()
    assert library.failures() == []


def test_a_photo_edited_while_it_could_not_be_read_has_its_words(
    index: Index, photos: Path, library: Library
) -> None:
    index(photos)
    tag(library, photos / "b.jpg", "grandma")
    cannot_be_read(photos / "b.jpg")
    index()
    ImageOps.mirror(picture(1)).save(photos / "b.jpg")
    report = index()
    assert (report.changed, report.carried) == (1, 1)
    assert tags_at(library, photos / "b.jpg") == {"grandma"}


def test_a_library_that_lost_an_item_to_a_failure_before_gets_it_back(
    index: Index, photos: Path, library: Library
) -> None:
    index(photos)
    tag(library, photos / "b.jpg", "grandma")
    mend = cannot_be_read(photos / "b.jpg")
    index()
    with library._database.writing() as connection:
        connection.exec_driver_sql("UPDATE file SET item_id = NULL WHERE failure IS NOT NULL")
    with library.writer() as writer:
        writer.forget(photos / "a.jpg")
    mend()
    assert index().embedded == 1, "of the one that was forgotten"
    assert tags_at(library, photos / "b.jpg") == {"grandma"}


def test_an_item_stays_for_a_missing_copy_and_that_is_said(
    index: Index, photos: Path, library: Library, call_cli: Run
) -> None:
    (photos / "disk").mkdir()
    shutil.copy(photos / "a.jpg", photos / "disk" / "a.jpg")
    index(photos)
    tag(library, photos / "a.jpg", "grandma")
    (photos / "disk").rename(photos.parent / "unplugged")
    index()
    told = call_cli("forget", photos / "a.jpg")
    assert str(photos / "disk" / "a.jpg") in told.stderr
    (photos / "a.jpg").unlink()
    (photos.parent / "unplugged").rename(photos / "disk")
    assert index().embedded == 0
    assert tags_at(library, photos / "disk" / "a.jpg") == {"grandma"}


def test_forgetting_a_photo_removes_it_under_its_old_names_and_as_it_was_before(
    index: Index, photos: Path, library: Library
) -> None:
    index(photos)
    tag(library, photos / "a.jpg", "grandma")
    rate(photos / "a.jpg", 5)
    index()
    (photos / "a.jpg").rename(photos / "renamed.jpg")
    assert index().moved == 1
    with library.writer() as writer:
        report = writer.forget(photos / "renamed.jpg")
    assert (report.files, report.items, report.kept_for) == (1, 1, ())
    assert library.counts().missing == 0
    assert len(list(library.path.glob("thumbs/*/*"))) == 2, "those of the other two photos"
    assert not library.tags.counts()


def test_a_copy_that_appears_as_its_original_vanishes_is_no_rename(
    index: Index, photos: Path, library: Library
) -> None:
    index(photos)
    tag(library, photos / "a.jpg", "grandma")
    shutil.copy(photos / "a.jpg", photos / "copy.jpg")
    (photos / "a.jpg").rename(photos.parent / "unplugged.jpg")
    assert index().moved == 1
    with library.writer() as writer:
        report = writer.forget(photos / "copy.jpg")
    assert (report.items, report.kept_for) == (0, (photos / "a.jpg",))
    (photos / "copy.jpg").unlink()
    (photos.parent / "unplugged.jpg").rename(photos / "a.jpg")
    index()
    assert tags_at(library, photos / "a.jpg") == {"grandma"}


# --- several paths ----------------------------------------------------------------------------


def test_of_several_paths_those_that_can_be_opened_come_first(tmp_path: Path) -> None:
    here, gone = tmp_path / "here", tmp_path / "gone"
    here.mkdir()
    for name in ("a.jpg", "z.jpg"):
        (here / name).touch()
    places = [
        Place(gone, gone / "a.jpg"),
        Place(here, here / "a.jpg", has_failed=True),
        Place(here, here / "m.jpg"),
        Place(here, here / "z.jpg"),
    ]
    found = reachable_first({1: places, 2: places[:1]})
    assert found[1] == [here / "z.jpg", gone / "a.jpg", here / "a.jpg", here / "m.jpg"]
    assert found[2] == [gone / "a.jpg"], "the only path of an item is asked no disk about"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no way to stand in for a dead drive")
def test_a_drive_that_never_answers_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    release = threading.Event()
    really = os.access

    def access(path: object, mode: int) -> bool:
        asked.append(path)
        if path == tmp_path / "dead":
            release.wait(30)
        return really(path, mode)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "access", access)
    (tmp_path / "live").mkdir()
    (tmp_path / "live" / "1.jpg").touch()
    dead = [Place(tmp_path / "dead", tmp_path / "dead" / f"{number}.jpg") for number in range(2000)]
    live = Place(tmp_path / "live", tmp_path / "live" / "1.jpg")
    started = time.monotonic()
    for _ in range(3):
        assert openable([*dead, live]) == {live.path}
    took_s = time.monotonic() - started
    release.set()
    assert asked.count(tmp_path / "dead") == 1, "asked once, and not about each of its files"
    assert took_s < 20, "less than the one answer took"


def test_a_search_names_the_copy_that_is_there(
    index: Index, photos: Path, library: Library, tmp_path: Path
) -> None:
    for name in ("DISK", "DISK1"):
        shutil.copytree(photos, tmp_path / name)
        index(tmp_path / name)
    shutil.rmtree(tmp_path / "DISK")
    ids = library.present_items().tolist()
    for paths in library.paths(ids).values():
        assert [path.parent.name for path in paths] == ["DISK1", "DISK"]


XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:subject><rdf:Bag><rdf:li>%s</rdf:li>'
    "</rdf:Bag></dc:subject></rdf:Description></rdf:RDF></x:xmpmeta>"
)


def all_tags_at(library: Library, path: Path) -> set[str]:
    return {one.name for one in library.tags.of_items(library.tags.items_at(path))}


@pytest.mark.parametrize("is_edited", [False, True])
def test_a_sidecar_removed_while_its_photo_could_not_be_read_says_nothing_any_more(
    index: Index, photos: Path, library: Library, *, is_edited: bool
) -> None:
    path, sidecar = photos / "a.jpg", photos / "a.jpg.xmp"
    sidecar.write_text(XMP % "dog")
    index(photos)
    assert all_tags_at(library, path) == {"dog"}
    sound = path.read_bytes()
    path.write_bytes(b"broken")
    sidecar.unlink()
    index()
    path.write_bytes(sound)
    if is_edited:
        rate(path, 3)
    index()
    assert all_tags_at(library, path) == set()
    sidecar.write_text(XMP % "cat")
    index()
    assert all_tags_at(library, path) == {"cat"}


def test_of_identical_files_an_edited_and_a_forgotten_one_take_their_sidecars_words_along(
    index: Index, photos: Path, library: Library
) -> None:
    one, other = photos / "a.jpg", photos / "a copy.jpg"
    shutil.copy(one, other)
    (photos / "a.jpg.xmp").write_text(XMP % "of one")
    (photos / "a copy.jpg.xmp").write_text(XMP % "of the other")
    index(photos)
    tag(library, one, "typed")
    rate(one, 5)
    index()
    assert all_tags_at(library, one) == {"of one", "typed"}
    assert all_tags_at(library, other) == {"of the other", "typed"}
    shutil.copy(other, one)
    index()
    assert all_tags_at(library, one) == {"of one", "of the other", "typed"}
    with library.writer() as writer:
        writer.forget(one)
    assert all_tags_at(library, other) == {"of the other", "typed"}


def test_a_photo_moved_onto_another_is_forgotten_under_both_names(
    index: Index, photos: Path, library: Library
) -> None:
    index(photos)
    tag(library, photos / "b.jpg", "grandma")
    (photos / "b.jpg").replace(photos / "a.jpg")
    index()
    assert tags_at(library, photos / "a.jpg") == {"grandma"}
    with library.writer() as writer:
        assert writer.forget(photos / "a.jpg").kept_for == ()
    assert not library.items([1, 2])


def test_nothing_of_a_forgotten_photo_can_be_read_in_the_database(
    index: Index, photos: Path, library: Library
) -> None:
    secret = save(photos / "clinic.jpg", 9)
    (photos / "clinic.jpg.xmp").write_text(XMP % "surgery")
    (photos / "a.jpg.xmp").write_text(XMP % "beach")
    index(photos)
    for path, name in ((secret, "grandma"), (photos / "a.jpg", "holiday")):
        tag(library, path, name)
        with library.writer() as writer:
            before = f"before {name}".encode()
            writer.tags.remember_sidecar(path.with_name(f"{path.name}.xmp"), before, "hash")
    for stars in (5, 4):
        rate(secret, stars)
        index()
    for suffix in (".jpg", ".jpg.xmp"):
        (photos / f"clinic{suffix}").rename(photos / f"visit{suffix}")
    index()
    with Library.open(library.path) as reader:  # as a server, which keeps the log alive
        assert reader.counts().files == 4
        with library.writer() as writer:
            writer.forget(photos / "visit.jpg")
        stored = b"".join(file.read_bytes() for file in library.path.glob("library.db*"))
        left = [word for word in (b"clinic", b"visit", b"grandma", b"surgery") if word in stored]
        assert left == []
        assert b"before holiday" in stored, "other photos keep what is theirs"
        assert all_tags_at(reader, photos / "a.jpg") == {"beach", "holiday"}


def test_words_are_taken_back_with_tags_that_nothing_else_has_any_more(
    index: Index, photos: Path, library: Library
) -> None:
    index(photos)
    tag(library, photos / "a.jpg", "grandma")
    save(photos / "a.jpg", 77)
    index()
    (change,) = library.carryings.all()
    with library.writer() as writer:
        writer.tags.remove_by_hand(library.tags.items_at(photos / "a.jpg"), "grandma")
        writer.forget(photos / "b.jpg")
        writer.take_back(change)
    assert [one.name for one in library.tags.of_items([change.from_item])] == ["grandma"]


def test_no_script_and_no_sidecar_takes_a_broken_file_for_the_photo_that_it_was(
    index: Index, photos: Path, library: Library
) -> None:
    broken = photos / "0.jpg"
    shutil.copy(photos / "a.jpg", broken)
    index(photos)
    tag(library, broken, "grandma")
    broken.write_bytes(bytes(100))
    os.utime(broken, (10**9, 10**9 + 0.5))
    index()
    shots = [
        Shot(item(library, path), (path,), 1.0, 400, 300, 9, None, None, None)
        for path in (broken, photos / "a.jpg")
    ]
    for best, other in (shots, reversed(shots)):
        paths, notes = disposable(library, [DuplicateGroup(IDENTICAL, best, (other,))])
        assert paths == []
        assert len(notes) == 1
    changes = {change.path.name: change for change in write_sidecars(library)}
    assert changes["a.jpg.xmp"].done == "written"
    assert changes["0.jpg"].done == "refused"
    assert "could not be read" in changes["0.jpg"].reason


def test_the_day_that_only_a_name_told_stays_with_a_photo_renamed_and_edited(
    index: Index, photos: Path, library: Library
) -> None:
    def day(path: Path) -> str | None:
        record = library.items([item(library, path)])[item(library, path)]
        assert record.is_dated_by_name == (record.taken_at is not None)
        return record.taken_at

    path = save(photos / "IMG-20190105-WA0001.jpg", 40)
    index(photos)
    path = path.rename(photos / "beach.jpg")
    index()
    rate(path, 5)
    index()
    assert day(path) == "2019-01-05T00:00:00"
    path = path.rename(photos / "dunes.jpg")
    rate(path, 3)
    index()
    assert day(path) == "2019-01-05T00:00:00"
    path = path.rename(photos / "IMG-20200105-WA0001.jpg")
    index()
    assert day(path) == "2020-01-05T00:00:00", "a name that is there counts"
    path = path.rename(photos / "beach.jpg")
    index()
    save(path, 41)
    index()
    assert day(path) is None, "it is another picture"
    assert library.check().ok


# --- an oracle ----------------------------------------------------------------------------------


@dataclass
class World:
    """Photos as a person has them, and a library that is told of them as by index runs.

    A content is (picture, version): versions of one picture are edits of it.
    """

    library: Library
    root: RootRecord
    chance: random.Random
    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    seen: dict[str, tuple[int, int]] = field(default_factory=dict)  # by the last run
    made: int = 0
    typed: dict[str, int] = field(default_factory=dict)  # what was said: of which picture

    def new_picture(self, path: str) -> None:
        self.made += 1
        self.files[path] = (self.made, 0)

    def edit(self, path: str) -> None:
        self.made += 1
        self.files[path] = (self.files[path][0], self.made)

    def act(self) -> None:
        paths = sorted(self.files)
        one, other = self.chance.choice(paths), self.chance.choice(paths)
        free = f"{self.chance.randrange(100)}.jpg"
        deed = self.chance.choice(
            ["edit", "edit", "replace", "rename", "swap", "copy", "backup", "break", "mend", "add"]
        )
        if deed == "edit":
            self.edit(one)
        elif deed == "replace":
            self.new_picture(one)
        elif deed == "add":
            self.new_picture(free)
        elif deed == "swap":
            self.files[one], self.files[other] = self.files[other], self.files[one]
        elif deed == "copy" and free not in self.files:
            self.files[free] = self.files[one]
        elif deed == "rename" and free not in self.files:
            self.files[free] = self.files.pop(one)
        elif deed == "backup" and free not in self.files:
            self.files[free] = self.files[one]
            self.edit(one)
        elif deed == "break":
            self.broken.add(one)
        elif deed == "mend":
            self.broken.clear()

    def run(self) -> None:
        """An index run that commits in any order, and any number of files at once."""
        rows = {row.relpath: row for row in self.library.files(self.root.id)}
        gone = [
            row.id
            for row in rows.values()
            if row.relpath not in self.files and not row.missing_since
        ]
        order = sorted(self.files)
        self.chance.shuffle(order)
        last = self.library.last_item()
        with self.library.writer() as writer:
            while order:
                some = [order.pop() for _ in range(min(len(order), self.chance.choice([1, 1, 9])))]
                states = [self._state(path) for path in some]
                items = [
                    NewItem(state.content_hash, 4, 3, "JPEG", 9)
                    for state in states
                    if state.content_hash is not None
                    and not self.library.item_by_hash([state.content_hash])
                ]
                writer.commit(Batch(items, files=states, leaving=frozenset(gone), last_known=last))
            writer.commit(Batch(missing=gone))
        for path, content in self.files.items():
            if path not in self.broken:
                self.seen[path] = content
        self.seen = {path: content for path, content in self.seen.items() if path in self.files}

    def _state(self, path: str) -> FileState:
        content = self.files[path]
        if path in self.broken:
            return FileState(self.root.id, path, 1, 1, 1, None, "it is damaged")
        before = self.last(path)
        is_same = None if before is None else before[0] == content[0]
        return FileState(self.root.id, path, 9, 9, 9, f"{content[0]}-{content[1]}", is_same=is_same)

    def last(self, path: str) -> tuple[int, int] | None:
        """The content that the library knows of a path, also of one that is missing."""
        for row in self.library.files(self.root.id):
            if row.relpath == path and row.item_id is not None:
                picture, version = self.library.items([row.item_id])[
                    row.item_id
                ].content_hash.split("-")
                return int(picture), int(version)
        return None

    def tags(self) -> dict[str, set[str]]:
        return {path: tags_at(self.library, self.root.path / path) for path in self.seen}

    def everywhere(self) -> set[str]:
        with self.library._database.reading() as connection:
            rows = connection.execute(
                "SELECT name FROM item_tag JOIN tag ON tag.id = tag_id WHERE origin = 'hand'"
            )
            return {row[0] for row in rows.fetchall()}

    def type_something(self) -> None:
        path = self.chance.choice(sorted(self.seen))
        name = f"said {len(self.typed)}"
        tag(self.library, self.root.path / path, name)
        self.typed[name] = self.seen[path][0]


def live(library: Library, folder: Path, seed: int, days: int) -> None:
    """Days of edits, renames, copies, troubles and forgetting, held against what must hold."""
    with library.writer() as writer:
        root = writer.add_root(folder)
    world = World(library, root, random.Random(seed))
    for name in ("a.jpg", "b.jpg", "c.jpg", "other.jpg"):
        world.new_picture(name)
    world.run()
    for _ in range(days):
        world.type_something()
        before, contents = world.tags(), dict(world.seen)
        for _ in range(world.chance.randrange(4)):
            world.act()
        world.run()
        after = world.tags()
        assert world.typed.keys() <= world.everywhere(), f"seed {seed}: something typed is gone"
        had: dict[tuple[int, int], set[str]] = {}  # what each content had
        for path, content in contents.items():
            had.setdefault(content, set()).update(before[path])
        for path, (picture, version) in world.seen.items():
            own = {name for name, of in world.typed.items() if of == picture}
            was = contents.get(path)
            elsewhere = [one for one, content in contents.items() if content == (picture, version)]
            if was == (picture, version) or (was and was[0] == picture and not elsewhere):
                lost = (before[path] & own) - after[path]
                assert not lost, f"seed {seed}: {path}, the same or edited, lost {lost}"
            said = had.get((picture, version))
            if said is not None:
                lost = (said & own) - after[path]
                assert not lost, f"seed {seed}: {path} has not {lost}, said of its content"
                strange = after[path] - said - own
                assert not strange, f"seed {seed}: {path} got {strange} of another picture"
    assert library.check().ok


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_nothing_typed_is_lost_and_edited_photos_keep_it(
    library: Library, tmp_path: Path, seed: int
) -> None:
    live(library, tmp_path, seed, days=8)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 300))
def test_whatever_happens_for_longer(library: Library, tmp_path: Path, seed: int) -> None:
    live(library, tmp_path, seed, days=25)
