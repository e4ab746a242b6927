"""clipsearch roots: a folder that lies elsewhere keeps everything that is known of it."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from clipsearch.errors import LibraryError, NotInLibraryError
from clipsearch.library import (
    Batch,
    Description,
    FileState,
    Library,
    NewItem,
    SidecarState,
)
from indexer.changes import plan_changes
from indexer.scan import scan

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for number in range(10):
        path = folder / f"{number % 3}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * (number + 1))
    return folder


@pytest.fixture
def library_of(library_path: Path) -> Callable[..., None]:
    def add(*folders: Path) -> None:
        """Adds folders with their files as an index run would."""
        with Library.open(library_path, create=True) as library, library.writer() as writer:
            for folder in folders:
                root = writer.add_root(folder)
                found = scan(folder).files
                writer.commit(
                    Batch(
                        new_items=[NewItem(file.relpath, 1, 1, "JPEG", 1) for file in found],
                        files=[FileState(root.id, *file[:4], file.relpath) for file in found],
                    )
                )

    return add


def roots(call_cli: Run) -> list[dict[str, object]]:
    done = call_cli("roots", "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_folders_are_listed_with_what_they_hold_and_whether_they_are_there(
    call_cli: Run, photos: Path, library_of: Callable[..., None], tmp_path: Path, library_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    library_of(photos, tmp_path / "other")
    with Library.open(library_path) as library, library.writer() as writer:
        root = library.roots()[0]
        bad = FileState(root.id, "bad.jpg", 1, 1, 1, None, "it is damaged")
        writer.commit(Batch(files=[bad], missing=[library.files(root.id)[0].id]))
    shutil.rmtree(tmp_path / "other")
    first, second = roots(call_cli)
    assert first == {
        "path": str(photos),
        "pictures": 9,
        "missing": 1,
        "failures": 1,
        "reachable": True,
        "unreachable": None,
    }
    assert (second["reachable"], second["pictures"]) == (False, 0)
    told = call_cli("roots", "list")
    assert f"{photos}  9 pictures, 1 missing, 1 not readable" in told.stdout
    assert f"{tmp_path / 'other'}  0 pictures  NOT REACHABLE: No such file" in told.stdout
    assert "roots move OLD NEW" in told.stderr


def test_a_moved_folder_keeps_its_items_and_tags_and_nothing_is_read(
    call_cli: Run, photos: Path, library_of: Callable[..., None], tmp_path: Path, library_path: Path
) -> None:
    library_of(photos)
    with sqlite3.connect(library_path / "library.db") as database:
        database.execute("INSERT INTO tag (name) VALUES ('mine')")
        database.execute("INSERT INTO item_tag VALUES (1, 1, 'user', 'hand', NULL)")
    database.close()
    with Library.open(library_path) as library:
        item = library.item_at(photos / "0" / "3.jpg")
        revision = library.revision
    photos.rename(tmp_path / "elsewhere")
    done = call_cli("roots", "move", photos, tmp_path / "elsewhere", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["found"] == 10
    with Library.open(library_path) as library:
        (root,) = library.roots()
        assert root.path == tmp_path / "elsewhere"
        assert library.revision > revision, "open searchers notice"
        assert library.item_at(tmp_path / "elsewhere" / "0" / "3.jpg") == item
        plan = plan_changes(root.id, scan(root.path), library.files(root.id))
        assert (plan.read, plan.gone, plan.unchanged) == ([], [], 10)
    with sqlite3.connect(library_path / "library.db") as database:
        assert database.execute("SELECT * FROM item_tag").fetchall() == [
            (1, 1, "user", "hand", None)
        ]
    database.close()


def test_a_folder_that_holds_other_files_is_refused_with_the_numbers(
    call_cli: Run, photos: Path, library_of: Callable[..., None], tmp_path: Path
) -> None:
    library_of(photos)
    new = tmp_path / "new"
    (new / "0").mkdir(parents=True)
    shutil.copy(photos / "0" / "0.jpg", new / "0")
    (new / "0" / "3.jpg").write_bytes(b"of another size")
    done = call_cli("roots", "move", photos, new)
    assert done.returncode == LibraryError.exit_code
    assert "Of 10 files" in done.stderr
    assert f"1 of the same size lies at {new}" in done.stderr
    assert "--force" in done.stderr
    assert roots(call_cli)[0]["path"] == str(photos)
    assert call_cli("roots", "move", photos, new, "--force").returncode == 0
    assert roots(call_cli)[0]["path"] == str(new)
    done = call_cli("roots", "move", new, tmp_path / "nowhere", "--force")
    assert done.returncode == LibraryError.exit_code
    assert "No such file" in done.stderr


def test_a_move_into_or_above_another_folder_is_refused(
    photos: Path, library_of: Callable[..., None], tmp_path: Path, library_path: Path
) -> None:
    other = tmp_path / "other" / "deep"
    other.mkdir(parents=True)
    library_of(photos, other)
    with Library.open(library_path) as library, library.writer() as writer:
        for new in (other, other / "in", other.parent):
            with pytest.raises(LibraryError, match="clipsearch forget"):
                writer.move_root(photos, new)
        for unknown in (tmp_path / "unknown", photos / "0"):
            with pytest.raises(NotInLibraryError, match=str(photos)):
                writer.move_root(unknown, tmp_path / "new")
        assert writer.move_root(photos, photos / "0").path == photos / "0", "not another one"
        assert [root.path for root in library.roots()] == [photos / "0", other]


def test_an_unplugged_folder_marked_missing_by_hand_is_found_again(
    call_cli: Run, photos: Path, library_of: Callable[..., None], tmp_path: Path, library_path: Path
) -> None:
    library_of(photos)
    with Library.open(library_path) as library, library.writer() as writer:
        writer.commit(Batch(missing=[file.id for file in library.files(1)]))
    photos.rename(tmp_path / "new")
    assert call_cli("roots", "move", photos, tmp_path / "new").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["add", "x"], "clipsearch index x"),
        (["remove", "x"], "clipsearch forget x"),
        (["move", "x"], "clipsearch roots move OLD NEW"),
        (["list", "x"], "list takes no folder"),
    ],
)
def test_other_wishes_are_told_where_to_go(call_cli: Run, arguments: list[str], told: str) -> None:
    done = call_cli("roots", *arguments)
    assert done.returncode == 2
    assert told in done.stderr


def test_a_folder_that_was_indexed_again_under_its_new_name_becomes_one_with_the_old(
    call_cli: Run, photos: Path, library_of: Callable[..., None], tmp_path: Path, library_path: Path
) -> None:
    library_of(photos)
    with Library.open(library_path) as library, library.writer() as writer:
        (said,) = library.tags.items_at(photos / "0" / "3.jpg")
        (edited,) = library.tags.items_at(photos / "1" / "4.jpg")
        (unread,) = library.tags.items_at(photos / "2" / "5.jpg")
        for item, name in ((said, "mine"), (edited, "edited"), (unread, "unread")):
            writer.tags.add_by_hand([item], name)
    photos.rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "0" / "9.jpg").rename(tmp_path / "elsewhere" / "0" / "new.jpg")
    library_of(tmp_path / "elsewhere")
    with Library.open(library_path) as library, library.writer() as writer:
        new = library.roots()[1]
        rows = {file.relpath: file for file in library.files(new.id)}
        broken = FileState(new.id, "2/5.jpg", 6, 1, 1, None, "it is damaged")
        other = FileState(new.id, "1/4.jpg", 5, 1, 1, "other")
        writer.commit(Batch([NewItem("other", 1, 1, "JPEG", 5)], files=[other, broken]))
        assert rows["0/3.jpg"].item_id == said
    done = call_cli("roots", "move", photos, tmp_path / "elsewhere", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["merged"] is True
    with Library.open(library_path) as library:
        assert [root.path for root in library.roots()] == [tmp_path / "elsewhere"]
        assert len(library.files(new.id)) == 11, "each known once, also the one that is gone"
        for path, name in (("0/3.jpg", "mine"), ("1/4.jpg", "edited"), ("2/5.jpg", "unread")):
            (item,) = library.tags.items_at(tmp_path / "elsewhere" / path)
            assert name in {tag.name for tag in library.tags.of_items([item])}
        assert library.check().ok


def test_two_names_swapped_between_the_looks_keep_each_their_words_when_folders_become_one(
    call_cli: Run, photos: Path, library_of: Callable[..., None], tmp_path: Path, library_path: Path
) -> None:
    library_of(photos)
    with Library.open(library_path) as library, library.writer() as writer:
        for name in ("3", "6"):
            (item,) = library.tags.items_at(photos / "0" / f"{name}.jpg")
            writer.tags.add_by_hand([item], f"of {name}")
    photos.rename(tmp_path / "elsewhere")
    library_of(tmp_path / "elsewhere")
    with Library.open(library_path) as library, library.writer() as writer:
        new = library.roots()[1]
        swapped = [("0/3.jpg", "0/6.jpg"), ("0/6.jpg", "0/3.jpg")]
        files = [FileState(new.id, path, 1, 1, 1, content) for path, content in swapped]
        writer.commit(Batch(files=files))
    assert call_cli("roots", "move", photos, tmp_path / "elsewhere").returncode == 0
    with Library.open(library_path) as library:
        for path, name in (("3", "of 6"), ("6", "of 3")):
            items = library.tags.items_at(tmp_path / "elsewhere" / "0" / f"{path}.jpg")
            assert [tag.name for tag in library.tags.of_items(items)] == [name]


def test_sidecars_words_are_those_of_the_files_that_are_left_when_folders_become_one(
    call_cli: Run, photos: Path, library_of: Callable[..., None], tmp_path: Path, library_path: Path
) -> None:
    def beside(word: str) -> tuple[SidecarState, ...]:
        return (SidecarState("a.xmp", 1, 1, {"over": {"keywords": [[word, "xmp-sidecar"]]}}),)

    (tmp_path / "other").mkdir()
    library_of(photos, tmp_path / "other")
    photos.rename(tmp_path / "elsewhere")
    library_of(tmp_path / "elsewhere")
    with Library.open(library_path) as library, library.writer() as writer:
        old, other, new = library.roots()
        for name in ("0/3.jpg", "2/5.jpg"):  # one was edited since, one cannot be read any more
            writer.commit(
                Batch(
                    files=[
                        FileState(old.id, name, 1, 1, 1, name, None, "x", beside(f"at {name}")),
                        FileState(new.id, name, 1, 1, 1, "edited"),
                    ],
                    new_items=[NewItem("edited", 1, 1, "JPEG", 1)],
                    descriptions=[Description(name, None, {}, own={})],
                )
            )
        copy = FileState(other.id, "c.jpg", 1, 1, 1, "0/3.jpg", None, "x", beside("of a copy"))
        writer.commit(Batch(files=[copy]))
        (item,) = library.tags.items_at(tmp_path / "other" / "c.jpg")
        tags = {tag.name for tag in library.tags.of_items([item])}
        assert tags == {"at 0/3.jpg", "of a copy"}
        with library._database.writing() as connection:
            connection.exec_driver_sql(
                "UPDATE file SET item_id = NULL, failure = 'x' WHERE root_id = ? AND relpath = ?",
                (new.id, "2/5.jpg"),
            )
    assert call_cli("roots", "move", photos, tmp_path / "elsewhere").returncode == 0
    with Library.open(library_path) as library:
        tags = {tag.name for tag in library.tags.of_items([item])}
        assert tags == {"of a copy"}
        items = library.tags.items_at(tmp_path / "elsewhere" / "2" / "5.jpg")
        assert [tag.name for tag in library.tags.of_items(items)] == ["at 2/5.jpg"]
        with library.writer() as writer:
            writer.commit(Batch(files=[FileState(new.id, "2/5.jpg", 2, 2, 2, "2/5.jpg")]))
        assert [tag.name for tag in library.tags.of_items(items)] == ["at 2/5.jpg"]


def test_two_folders_with_other_contents_become_one_only_by_force(
    call_cli: Run, photos: Path, library_of: Callable[..., None], tmp_path: Path
) -> None:
    shutil.copytree(photos, tmp_path / "other")
    for path in (tmp_path / "other").rglob("*.jpg"):
        path.rename(path.with_name(f"x{path.name}"))
    library_of(photos, tmp_path / "other")
    shutil.copytree(photos, tmp_path / "other", dirs_exist_ok=True)
    done = call_cli("roots", "move", photos, tmp_path / "other")
    assert done.returncode == LibraryError.exit_code
    assert "--force" in done.stderr
    assert call_cli("roots", "move", photos, tmp_path / "other", "--force").returncode == 0
    assert len(roots(call_cli)) == 1
