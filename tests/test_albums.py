"""Albums: what is exported follows the query, and nothing that is not ours is ever touched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from clipsearch.album_files import MANIFEST, export_album, refresh_exports
from clipsearch.cli import main
from clipsearch.config import DEFAULT_TOP, resolve
from clipsearch.errors import NotInLibraryError, QueryError, UsageError
from clipsearch.library import FileRecord, Library
from clipsearch.searcher import Searcher
from indexer.pipeline import index_library


@pytest.fixture
def library(library_copy: Library) -> Library:
    library_copy.albums.save("PNG", "format:png")
    return library_copy


@pytest.fixture
def searcher(library: Library) -> Searcher:
    return Searcher(library)


def pngs(library: Library) -> set[str]:
    (root,) = library.roots()
    files: list[FileRecord] = library.files(root.id)
    return {Path(f.relpath).name for f in files if f.relpath.endswith(".png") and f.item_id}


def links_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_symlink()}


def test_a_folder_of_links_follows_the_query(
    library: Library, searcher: Searcher, tmp_path: Path
) -> None:
    folder = tmp_path / "album"
    written = export_album(library, searcher, "PNG", folder)
    names = pngs(library)
    assert links_in(folder) == names
    assert (written.pictures, written.added, written.removed) == (len(names), len(names), 0)
    assert all((folder / name).exists() for name in names)  # no link leads nowhere
    library.albums.save("PNG", "format:png -name:cat")
    (again,) = refresh_exports(library, settings=resolve())
    assert (again.added, again.removed) == (0, 1)
    assert links_in(folder) == names - {"cat.png"}
    (unchanged,) = refresh_exports(library, settings=resolve())
    assert (unchanged.added, unchanged.removed) == (0, 0)


def test_what_is_not_ours_is_never_overwritten_or_removed(
    library: Library, searcher: Searcher, tmp_path: Path
) -> None:
    folder = tmp_path / "album"
    export_album(library, searcher, "PNG", folder)
    (folder / "mine.txt").write_text("mine")
    (folder / "cat.png").unlink()
    (folder / "cat.png").write_text("mine, too")  # in the place of a link of ours
    (folder / "coffee.png").unlink()
    (folder / "coffee.png").symlink_to("/somewhere/else")
    refresh_exports(library, settings=resolve())
    library.albums.save("PNG", "name:nothing-is-called-so")
    refresh_exports(library, settings=resolve())
    left = {path.name for path in folder.iterdir()} - {MANIFEST}
    assert left == {"mine.txt", "cat.png", "coffee.png"}
    assert (folder / "cat.png").read_text() == "mine, too"
    assert str((folder / "coffee.png").readlink()) == "/somewhere/else"
    full = tmp_path / "full"
    full.mkdir()
    (full / "a.jpg").write_text("mine")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / MANIFEST).write_text('{"links": {"../outside": "x"}}')
    (root,) = library.roots()
    for taken in (full, damaged, full / "a.jpg", root.path / "inside the photos"):
        with pytest.raises(UsageError):
            export_album(library, searcher, "PNG", taken)
    assert (full / "a.jpg").read_text() == "mine"
    assert not (root.path / "inside the photos").exists()


@pytest.mark.parametrize("place", ["album", "album.m3u8"])
def test_an_export_never_takes_the_place_of_another_album(
    library: Library, searcher: Searcher, tmp_path: Path, place: str
) -> None:
    taken = tmp_path / place
    export_album(library, searcher, "PNG", taken)
    before = read_export(taken)
    library.albums.save("Cats", "name:cat")
    (tmp_path / "link").symlink_to(taken)
    for spelling in (taken, tmp_path / "." / place, tmp_path / "link"):
        with pytest.raises(UsageError, match="holds the album 'PNG'"):
            export_album(library, searcher, "Cats", spelling)
    library.albums.leave(taken)
    with pytest.raises(UsageError, match="'PNG'"):  # what lies there says so itself
        export_album(library, searcher, "Cats", taken)
    assert read_export(taken) == before
    export_album(library, searcher, "PNG", taken)
    assert [export.album.name for export in library.albums.exports()] == ["PNG"]


@pytest.mark.parametrize("place", ["album", "album.m3u8"])
def test_an_album_of_another_library_is_another_album(
    library: Library, searcher: Searcher, tmp_path: Path, place: str
) -> None:
    taken = tmp_path / place
    export_album(library, searcher, "PNG", taken)
    before = read_export(taken)
    moved = library.path.with_name("moved.clipsearch")
    shutil.copytree(library.path, moved)
    with Library.open(moved) as other:
        with pytest.raises(UsageError, match="of another library"):
            export_album(other, Searcher(other), "PNG", taken)
        assert read_export(taken) == before
        library.close()
        shutil.rmtree(library.path)  # the copy is the library now: it was moved
        export_album(other, Searcher(other), "PNG", taken)


def read_export(place: Path) -> object:
    return links_in(place) if place.is_dir() else place.read_text()


def test_an_album_is_whole_however_long(
    library: Library, searcher: Searcher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library.albums.save("All", "type:picture")
    total = library.counts().items
    assert total > DEFAULT_TOP
    assert export_album(library, searcher, "All", tmp_path / "all").pictures == total
    command = ["albums", "show", "All", "--library", str(library.path)]
    assert main([*command, "--paths"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == total
    assert main([*command, "--top", "3"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    table = tmp_path / "all.csv"
    assert main(["export", "type:picture", "--to", str(table), *command[3:]]) == 0
    assert len(table.read_text().splitlines()) == total + 1


def test_a_path_that_an_export_cannot_hold_is_told(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (40, 30), "navy").save(photos / "a\nsea.png")
    settings = resolve({"library": tmp_path / "l", "model": "embedded"})
    with Library.open(tmp_path / "l", create=True) as library:
        index_library(library, [photos], settings=settings)
        library.albums.save("Sea", "name:sea")
        told: list[str] = []
        playlist = tmp_path / "sea.m3u8"
        written = export_album(library, Searcher(library), "Sea", playlist, told.append)
    assert (written.pictures, written.left_out) == (0, (photos / "a\nsea.png",))
    assert len(told) == 1
    assert "line break" in told[0]


def test_an_export_is_left_as_it_is_and_kept_current_no_longer(
    library: Library, searcher: Searcher, tmp_path: Path
) -> None:
    folder = tmp_path / "album"
    export_album(library, searcher, "PNG", folder)
    place = ["--library", str(library.path)]
    assert main(["albums", "leave", "PNG", "--to", str(folder), *place]) == 0
    assert library.albums.exports() == []
    assert links_in(folder) == pngs(library)
    code = main(["albums", "leave", "PNG", "--to", str(folder), *place])
    assert code == NotInLibraryError.exit_code


def test_links_that_share_a_name_are_told_apart(
    library: Library, searcher: Searcher, tmp_path: Path
) -> None:
    folder = tmp_path / "album"
    folder.mkdir()
    export_album(library, searcher, "PNG", folder)
    (folder / "cat.png").unlink()
    (folder / "cat.png").write_text("mine")
    export_album(library, searcher, "PNG", folder)
    (ours,) = (name for name in links_in(folder) if name.startswith("cat "))
    assert (folder / ours).resolve().name == "cat.png"


@pytest.mark.parametrize("ending", ["m3u8", "txt"])
def test_a_playlist_holds_the_paths_and_only_ours_is_replaced(
    library: Library, searcher: Searcher, tmp_path: Path, ending: str
) -> None:
    file = tmp_path / f"pngs.{ending}"
    export_album(library, searcher, "PNG", file)
    paths = [Path(line) for line in file.read_text().splitlines() if not line.startswith("#")]
    assert {path.name for path in paths} == pngs(library)
    library.albums.save("PNG", "name:cat format:png")
    (written,) = refresh_exports(library, settings=resolve())
    assert written.removed == len(paths) - 1
    file.write_text("a shopping list\n")
    told: list[str] = []
    assert refresh_exports(library, settings=resolve(), notify=told.append) == []
    assert "not made by clipsearch" in told[0]
    assert file.read_text() == "a shopping list\n"


def test_the_command_saves_lists_shows_exports_and_removes(
    library: Library, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> str:
        assert main(["albums", *arguments, "--library", str(library.path)]) == 0
        return capsys.readouterr().out

    run("save", "No cats", "format:png", "-name:cat")
    folder = tmp_path / "no cats"
    assert json.loads(run("export", "No cats", "--to", str(folder), "--json"))["added"] > 0
    said = [json.loads(line) for line in run("--json").splitlines()]
    assert [(album["name"], album["query"]) for album in said] == [
        ("No cats", "format:png -name:cat"),
        ("PNG", "format:png"),
    ]
    assert said[0]["exports"] == [str(folder)]
    shown = run("show", "No cats", "--paths", "-0").split("\0")
    assert {Path(path).name for path in shown if path} == pngs(library) - {"cat.png"}
    run("remove", "No cats")
    assert len(run("list").splitlines()) == 1
    assert links_in(folder)  # what was exported stays
    place = ["--library", str(library.path)]
    assert main(["albums", "show", "No cats", *place]) == NotInLibraryError.exit_code
    assert main(["albums", "save", "Bad", "camra:x", *place]) == QueryError.exit_code
    assert main(["albums", "save", "Bad", *place]) == 2
    assert main(["albums", "export", "PNG", *place]) == 2
