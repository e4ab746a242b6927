"""The scan: what counts as a picture file, in any folder people have, without opening one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

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
