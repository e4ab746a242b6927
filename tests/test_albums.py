"""Albums: what is exported follows the query, and nothing that is not ours is ever touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clipsearch.album_files import MANIFEST, export_album, refresh_exports
from clipsearch.cli import main
from clipsearch.config import resolve
from clipsearch.errors import NotInLibraryError, QueryError, UsageError
from clipsearch.library import FileRecord, Library
from clipsearch.searcher import Searcher


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
