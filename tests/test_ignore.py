""".clipsearchignore: what git would leave out, a scan leaves out; hostile files cost nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer import ignore
from indexer.ignore import IGNORE_FILE, MAX_IGNORE_BYTES, parse
from indexer.scan import scan

DOCS = Path(__file__).parents[1] / "docs" / "indexing.md"


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def write(folder: Path, *lines: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / IGNORE_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def found(root: Path) -> list[str]:
    return [file.relpath for file in scan(root).files]


def test_patterns_of_every_kind_leave_out_what_they_name(tmp_path: Path) -> None:
    kept = ["a.jpg", "deep/top.jpg", "deep/private.jpg", "keep/b.png", "[x].jpg", "2019/raw.gif"]
    left_out = ["top.jpg", "private/a.jpg", "deep/private/a.jpg", "keep/a.png", "deep/x/y/z.jpg"]
    touch(tmp_path, *kept, *left_out, "#a.jpg", "2020/raw.gif")
    write(
        tmp_path,
        "# a comment",
        "",
        "/top.jpg",
        "private/",
        "*.png",
        "!keep/b.png",
        "deep/**/z.jpg",
        r"\#a.jpg   ",
        "202[^1-9]/raw.*",
    )
    assert found(tmp_path) == sorted(kept)


def test_nested_files_add_up_and_the_nearest_has_the_last_word(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "in/a.png", "in/b.jpg", "in/deep/a.png", "in/deep/b.jpg")
    write(tmp_path, "*.png")
    write(tmp_path / "in", "!a.png", "/b.jpg")
    write(tmp_path / "in" / "deep", "a.png")
    assert found(tmp_path) == ["in/a.png", "in/deep/b.jpg"]


def test_a_folder_that_is_left_out_is_not_entered(tmp_path: Path) -> None:
    touch(tmp_path, "out/a.jpg", "out/in/b.jpg")
    write(tmp_path, "/out", "!/out/in/b.jpg")
    write(tmp_path / "out", "!*")
    assert found(tmp_path) == []


def test_what_is_left_out_by_default_comes_back_when_it_is_named(tmp_path: Path) -> None:
    touch(tmp_path, ".picasaoriginals/a.jpg", ".picasaoriginals/._a.jpg", ".git/b.jpg", "._c.jpg")
    write(tmp_path, "!.picasaoriginals/", "!*/", "!*.jpg")
    assert found(tmp_path) == [".picasaoriginals/a.jpg"]


def test_accents_count_the_same_in_both_ways_to_write_them(tmp_path: Path) -> None:
    touch(tmp_path, "e\u0301te\u0301/a.jpg", "\u00e9t\u00e9 2/a.jpg")
    write(tmp_path, "\u00e9t\u00e9", "e\u0301te\u0301 2/*.jpg")
    assert found(tmp_path) == []


def test_files_as_windows_writes_them_are_understood(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / IGNORE_FILE).write_bytes(b"\xef\xbb\xbfa.jpg\r\n\r\n")
    assert found(tmp_path) == ["b.jpg"]


def test_lines_without_effect_are_told_and_the_others_count(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    write(tmp_path, "a[", "a.jpg", "!", "x\\", "[[:alpha:]]", "/")
    result = scan(tmp_path)
    assert [file.relpath for file in result.files] == ["b.jpg"]
    assert len(result.notes) == 4
    assert result.notes[0].startswith(f"line 1 of {tmp_path / IGNORE_FILE} has no effect: ")
    assert "2 more lines" in result.notes[-1]


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"#" * (MAX_IGNORE_BYTES + 1), "larger than"), ("a.jpg".encode("utf-16"), "not UTF-8")],
)
def test_a_folder_whose_ignore_file_is_of_no_use_is_named_and_not_entered(
    tmp_path: Path, content: bytes, told: str
) -> None:
    """Otherwise what was to stay out would come in."""
    touch(tmp_path, "in/a.jpg", "in/deep/b.jpg", "c.jpg")
    (tmp_path / "in" / IGNORE_FILE).write_bytes(content)
    result = scan(tmp_path)
    assert [file.relpath for file in result.files] == ["c.jpg"]
    (entry,) = result.unreadable
    assert entry.relpath == "in"
    assert told in entry.reason
    shutil.move(tmp_path / "in" / IGNORE_FILE, tmp_path / IGNORE_FILE)
    assert told in (scan(tmp_path).absent or "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_ignore_file_without_permission_is_of_no_use_either(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.jpg")
    write(tmp_path / "in", "*")
    (tmp_path / "in" / IGNORE_FILE).chmod(0)
    assert "Permission denied" in scan(tmp_path).unreadable[0].reason


def test_what_only_has_the_name_of_an_ignore_file_is_none(tmp_path: Path) -> None:
    touch(tmp_path, "a/a.jpg", "b/b.jpg", "c/c.jpg")
    (tmp_path / "a" / IGNORE_FILE).mkdir()
    os.mkfifo(tmp_path / "b" / IGNORE_FILE)
    (tmp_path / "c" / IGNORE_FILE).symlink_to(tmp_path / "nowhere")
    assert found(tmp_path) == ["a/a.jpg", "b/b.jpg", "c/c.jpg"]


def test_no_pattern_takes_long(tmp_path: Path) -> None:
    """Backtracking regular expressions take hours for these."""
    touch(tmp_path, *("a" * 200 + f"{number}.jpg" for number in range(50)))
    touch(tmp_path, "/".join(["a"] * 60) + "/c.jpg")
    write(tmp_path, "*a" * 60 + "*b", "/" + "**/a/" * 40 + "b", "[a-z]*" * 50 + "!")
    started = time.monotonic()
    assert len(found(tmp_path)) == 51
    assert time.monotonic() - started < 2


def test_everything_that_is_left_out_by_default_is_documented() -> None:
    documented = DOCS.read_text(encoding="utf-8").lower()
    names = {*ignore.LEFT_OUT_NAMES, *ignore.LEFT_OUT_STARTS, *ignore.LEFT_OUT_ENDINGS}
    for name in (*names, *ignore.MARKERS, *ignore.PACKAGE_ENDINGS, *ignore.PACKAGE_ORIGINALS):
        assert name.lower() in documented, name


# --- git as the oracle ----------------------------------------------------------------------

NAMES = ("a", "b", "ab", "a.jpg", "b.jpg", "x!.jpg")
FOLDERS = tuple(name for name in NAMES if "." not in name)


# What git does with these is not what its documentation says, or not said there: a double star
# that is not a whole name (a**/b leaves out ab), empty names, and an empty pattern.
UNDOCUMENTED = re.compile(r"[^/!]\*\*|\*\*[^/]|//|^!?/? *$|^!!")


def _files() -> Iterator[str]:
    for first in ("", *(f"{name}/" for name in FOLDERS)):
        for second in ("", *(f"{name}/" for name in FOLDERS)) if first else ("",):
            yield from (f"{first}{second}{name}" for name in NAMES[3:])


def test_git_leaves_out_the_same(tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    touch(tmp_path, *_files())
    git = ["git", "-C", str(tmp_path)]
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run([*git, "init", "-q"], check=True, env=environment)
    atoms = st.sampled_from(
        ["a", "b", "*", "?", "/", "**", "**/", "[ab]", "[!a]", "!", ".jpg", " "]
    )
    line = st.lists(atoms, min_size=1, max_size=5).map("".join)
    lines = st.lists(line, min_size=1, max_size=4)

    @settings(max_examples=150)
    @given(top=lines, nested=st.none() | lines)
    def check(top: list[str], nested: list[str] | None) -> None:
        for folder, patterns in ((tmp_path, top), (tmp_path / "a", nested or [])):
            write(folder, *(text for text in patterns if not UNDOCUMENTED.search(text)))
        command = [*git, "ls-files", "--others", "-z", f"--exclude-per-directory={IGNORE_FILE}"]
        listed = subprocess.run(
            command, check=True, env=environment, capture_output=True, text=True
        )
        expected = [name for name in listed.stdout.split("\0") if name.endswith(".jpg")]
        assert found(tmp_path) == sorted(expected)

    check()


@pytest.mark.parametrize("line", ["", "   ", "# a", "\r"])
def test_blank_lines_and_comments_are_nothing(line: str) -> None:
    assert parse(line) is None
