"""The scan: what counts as a picture file, in any folder people have, without opening one."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from clipsearch.library import Library, mark_as_cache
from indexer.ignore import IGNORE_FILE, WISHES
from indexer.scan import scan


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def found(root: Path) -> list[str]:
    return [file.relpath for file in scan(root).files]


def test_pictures_are_found_by_ending_in_the_order_of_their_paths(tmp_path: Path) -> None:
    names = ["b.JPG", "a/c.jpeg", "a/b/d.Png", "e.webp", "f.gif", "g.bmp", "h.tif", "i.TIFF"]
    touch(*(tmp_path / name for name in names), tmp_path / "notes.txt", tmp_path / "jpg")
    assert found(tmp_path) == sorted(names)


def test_hidden_and_junk_are_left_out(tmp_path: Path) -> None:
    junk = [
        ".hidden.jpg",
        "._photo.jpg",
        ".git/a.jpg",
        "@eaDir/a.jpg/SYNOPHOTO.jpg",
        "__MACOSX/a.jpg",
        "$RECYCLE.BIN/a.jpg",
        "Previews.lrdata/a.jpg",
        "my.clipsearch/thumbs/a.webp",
    ]
    touch(*(tmp_path / name for name in junk), tmp_path / "kept.jpg")
    assert found(tmp_path) == ["kept.jpg"]


def test_a_hidden_root_is_scanned_because_it_was_named(tmp_path: Path) -> None:
    touch(tmp_path / ".photos" / "a.jpg")
    assert found(tmp_path / ".photos") == ["a.jpg"]


def test_links_are_followed_once_and_never_in_circles(tmp_path: Path) -> None:
    root = tmp_path / "root"
    touch(root / "real" / "a.jpg", tmp_path / "outside" / "b.jpg")
    (root / "loop").symlink_to(root)
    (root / "up").symlink_to(tmp_path)
    (root / "again").symlink_to(root / "real")
    (root / "far").symlink_to(tmp_path / "outside")
    (root / "far2").symlink_to(tmp_path / "outside")
    (root / "one.jpg").symlink_to(tmp_path / "outside" / "b.jpg")
    (root / "dead.jpg").symlink_to(tmp_path / "nothing.jpg")
    (root / "folder.jpg").symlink_to(tmp_path / "outside")
    names = found(root)
    assert "real/a.jpg" in names
    assert "one.jpg" in names
    assert sum(name.endswith("/b.jpg") for name in names) == 1
    assert not any(name.startswith(("loop/", "up/", "again/", "dead")) for name in names)


def test_what_is_no_regular_file_is_no_picture(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.png").mkdir()
    touch(tmp_path / "folder.png" / "inside.jpg")
    assert found(tmp_path) == ["folder.png/inside.jpg"]


def test_a_missing_root_is_told_from_an_empty_one(tmp_path: Path) -> None:
    assert scan(tmp_path / "none").absent
    assert scan(tmp_path).absent is None
    touch(tmp_path / "file.jpg")
    assert scan(tmp_path / "file.jpg").absent


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "locked" / "a.jpg", tmp_path / "b.jpg")
    (tmp_path / "locked").chmod(0)
    try:
        result = scan(tmp_path)
    finally:
        (tmp_path / "locked").chmod(0o700)
    assert [entry.relpath for entry in result.unreadable] == ["locked"]
    assert [file.relpath for file in result.files] == ["b.jpg"]


def test_a_process_that_may_open_no_more_files_does_not_take_folders_for_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "a" / "a.jpg")
    listed = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("/a"):
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        scan(tmp_path)


def test_a_name_that_is_no_text_is_named_and_passed_over(tmp_path: Path) -> None:
    touch(tmp_path / "ok.jpg")
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.jpg"))).write_bytes(b"x")
    result = scan(tmp_path)
    assert [file.relpath for file in result.files] == ["ok.jpg"]
    (entry,) = result.unreadable
    assert "rename" in entry.reason
    entry.relpath.encode("utf-8")


def test_odd_names_are_ordinary(tmp_path: Path) -> None:
    names = ["new\nline.jpg", "q'uo\"te.jpg", "日本 語.jpg", "%41;--.jpg", " lead.jpg", "é.jpg"]
    touch(*(tmp_path / name for name in names))
    assert found(tmp_path) == sorted(names)


def only(root: Path, *paths: str) -> list[str]:
    return [file.relpath for file in scan(root, only=paths).files]


def test_the_caches_of_other_programs_are_left_out(tmp_path: Path) -> None:
    caches = [
        ".@__thumb/a.jpg",
        ".thumbnails/a.png",
        ".picasaoriginals/a.jpg",
        ".Trash-1000/files/a.jpg",
        ".trashed-1700000000-a.jpg",
        "@Recycle/a.jpg",
        "#snapshot/today/a.jpg",
        "Catalog.lrcat-data/a.jpg",
        "appdata_ocx1y2z3/preview/a.jpg",
        "files_trashbin/files/a.jpg",
        "thumbs/a.jpg",
        "encoded-video/a.jpg",
        "storage/cache/thumbnails/a.jpg",
        "made/a.jpg",
    ]
    touch(*(tmp_path / name for name in caches))
    markers = ["thumbs/.immich", "encoded-video/.immich", "upload/.immich", "storage/.ppstorage"]
    touch(*(tmp_path / name for name in (*markers, "made/CACHEDIR.TAG")))
    pictures = ["upload/a.jpg", "my thumbs/a.jpg", "old/thumbs/a.jpg", "storage room/a.jpg"]
    touch(*(tmp_path / name for name in pictures))
    assert found(tmp_path) == sorted(pictures)


@pytest.mark.parametrize("marker", WISHES)
def test_a_folder_whose_marker_asks_for_it_is_left_out_with_all_below(
    tmp_path: Path, marker: str
) -> None:
    touch(tmp_path / "private" / marker, tmp_path / "kept" / "b.jpg")
    touch(*(tmp_path / "private" / name for name in ("a.jpg", "a.mp4", "deep/er/c.jpg")))
    looked = scan(tmp_path)
    assert [file.relpath for file in looked.files] == ["kept/b.jpg"]
    assert looked.left_out == {"private": marker}
    assert only(tmp_path, "private/a.jpg", "private/deep", "kept/b.jpg") == ["kept/b.jpg"]
    assert only(tmp_path, f"private/{marker}") == []
    assert found(tmp_path / "private") == ["a.jpg", "a.mp4", "deep/er/c.jpg"]  # it was named


def test_a_folder_of_that_name_is_a_marker_and_searchs_own_are_none(tmp_path: Path) -> None:
    touch(tmp_path / "a" / ".nomedia" / "x", tmp_path / "a" / "a.jpg")
    for name in (".metadata_never_index", ".trackerignore"):
        touch(tmp_path / "b" / name, tmp_path / "b" / "b.jpg")
    assert found(tmp_path) == ["b/b.jpg"]


def test_what_a_marker_leaves_out_comes_back_when_it_is_named(tmp_path: Path) -> None:
    for folder in ("in", "out", "made"):
        touch(tmp_path / folder / "a.jpg", tmp_path / folder / "deep" / "b.jpg")
    touch(tmp_path / "in" / ".nomedia", tmp_path / "out" / ".nomedia")
    touch(tmp_path / "made" / "CACHEDIR.TAG", tmp_path / "in" / "deep" / ".noimage")
    (tmp_path / IGNORE_FILE).write_text("!in/\n!made/\n!*/\n")
    assert found(tmp_path) == ["in/a.jpg", "made/a.jpg", "made/deep/b.jpg"]


def test_a_library_is_known_by_what_it_holds(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    touch(root / "a.jpg", *(root / name / "thumbs" / "ab" / "x.jpg" for name in ("old", "copy")))
    with Library.open(root / "old", create=True) as library, library.writer():
        pass
    Library.open(root / "new", create=True).close()  # nothing was written yet
    touch(root / "new" / "thumbs" / "ab" / "x.jpg", root / "new" / "index" / "y.jpg")
    shutil.copytree(root / "old", root / "old.bak")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    shutil.copytree(root / "old", tmp_path / "elsewhere")
    mark_as_cache(root / "copy" / "thumbs")  # the database was not copied
    assert found(root) == ["a.jpg"]
    assert only(root, "old/thumbs/ab/x.jpg", "new/thumbs", "a.jpg") == ["a.jpg"]
    (root / IGNORE_FILE).write_text("!old/\n!old/thumbs/\n")
    assert found(root) == ["a.jpg"]


def test_photos_beside_a_database_stay_photos(tmp_path: Path) -> None:
    """A backup among photos, another program's library.db, a library made in a photo folder."""
    with Library.open(tmp_path / "in place", create=True) as library, library.writer():
        library.backup(tmp_path / "library.db")
    touch(tmp_path / "in place" / "a.jpg", tmp_path / "in place" / "thumbs" / "aa" / "t.jpg")
    touch(tmp_path / "thumbs" / "b.jpg", tmp_path / "other" / "library.db")
    touch(tmp_path / "other" / "thumbs" / "c.jpg", tmp_path / "other" / "README.txt")
    assert found(tmp_path) == ["in place/a.jpg", "other/thumbs/c.jpg", "thumbs/b.jpg"]
    assert found(tmp_path / "in place") == ["a.jpg"]


def test_of_apples_libraries_only_the_originals_count(tmp_path: Path) -> None:
    library = tmp_path / "My Photos.photoslibrary"
    touch(
        library / "originals" / "A" / "a.jpg",
        library / "resources" / "derivatives" / "a.jpg",
        library / "cover.jpg",
        tmp_path / "old.photolibrary" / "Masters" / "2009" / "b.jpg",
        tmp_path / "old.photolibrary" / "Thumbnails" / "b.jpg",
    )
    expected = ["My Photos.photoslibrary/originals/A/a.jpg", "old.photolibrary/Masters/2009/b.jpg"]
    assert found(tmp_path) == expected
    assert found(library) == ["originals/A/a.jpg"], "also when it is the root"
    assert only(tmp_path, "My Photos.photoslibrary/resources", "old.photolibrary") == expected[1:]


def test_only_the_named_paths_are_looked_at(tmp_path: Path) -> None:
    names = ["a/1.jpg", "a/2.jpg", "a/deep/3.jpg", "a-b/4.jpg", "b/5.jpg", "b/in/6.jpg", "7.jpg"]
    touch(*(tmp_path / name for name in names))
    assert only(tmp_path, "a") == ["a/1.jpg", "a/2.jpg", "a/deep/3.jpg"]
    assert only(tmp_path, "a/2.jpg", "b/in/", "./7.jpg") == ["7.jpg", "a/2.jpg", "b/in/6.jpg"]
    assert only(tmp_path, "a/deep", "a", "a/1.jpg", "a-b") == sorted(names[:4])
    assert only(tmp_path, "nothing", "a/nothing.jpg", "a/1.jpg/x", "../b") == []
    assert only(tmp_path) == []
    assert only(tmp_path, "b", "") == sorted(names), "the root is everything"
    assert scan(tmp_path, only=["a/deep", "a"]).only == ("a",)
    assert scan(tmp_path / "none", only=["a"]).absent


def test_looking_again_leaves_out_what_the_whole_scan_leaves_out(tmp_path: Path) -> None:
    touch(
        tmp_path / ".hidden" / "in" / "a.jpg",
        tmp_path / "@eaDir" / "a.jpg",
        tmp_path / "private" / "in" / "a.jpg",
        tmp_path / "b" / "a.png",
        tmp_path / "b" / "a.jpg",
    )
    (tmp_path / ".clipsearchignore").write_text("private/\n*.png\n")
    assert only(tmp_path, ".hidden/in", "@eaDir/a.jpg", "private/in", "b/a.png", "b/a.jpg") == [
        "b/a.jpg"
    ]
    (tmp_path / "b" / ".clipsearchignore").write_text("!a.png\n")
    assert only(tmp_path, "b/.clipsearchignore") == ["b/a.jpg", "b/a.png"], "stands for its folder"


def test_looking_again_follows_no_link_to_a_folder(tmp_path: Path) -> None:
    """Whether a link counts depends on what else leads to its folder: only a whole scan knows."""
    root = tmp_path / "root"
    touch(root / "real" / "a.jpg", tmp_path / "far" / "in" / "b.jpg", tmp_path / "c.jpg")
    (root / "link").symlink_to(tmp_path / "far")
    (root / "real" / "c.jpg").symlink_to(tmp_path / "c.jpg")
    assert found(root) == ["link/in/b.jpg", "real/a.jpg", "real/c.jpg"]
    result = scan(root, only=["link/in", "real"])
    assert [file.relpath for file in result.files] == ["real/a.jpg", "real/c.jpg"]
    assert result.skipped == ("link",)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_looking_again_names_a_folder_without_permission_on_the_way(tmp_path: Path) -> None:
    touch(tmp_path / "locked" / "in" / "a.jpg")
    (tmp_path / "locked").chmod(0)
    try:
        result = scan(tmp_path, only=["locked/in/a.jpg"])
    finally:
        (tmp_path / "locked").chmod(0o700)
    assert [entry.relpath for entry in result.unreadable] == ["locked"]


def test_a_burst_of_ten_thousand_paths_is_looked_at_in_one_go(tmp_path: Path) -> None:
    names = [f"{number % 3}/{number}.jpg" for number in range(10_000)]
    for number in range(3):
        (tmp_path / str(number)).mkdir()
    for name in names[::10]:
        (tmp_path / name).touch()
    assert only(tmp_path, *names) == sorted(names[::10])
