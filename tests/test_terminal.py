"""What is printed for people: no name moves a terminal's cursor, and no failure is a riddle."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clipsearch import cli, errors
from clipsearch.cli import main
from clipsearch.counting import counted
from clipsearch.images import MAX_FILE_BYTES, read_file, read_header
from clipsearch.library import Library, failure_kind
from clipsearch.system_errors import in_our_words
from clipsearch.terminal import Output, json_quoted, quoted
from indexer.report import Failure, IndexReport

EVIL = "a\x1b]0;pwned\x07\x1b[31mred\nnew\rline\x9b31m\u202eevil\u2066\x7f\udcff"
UNSAFE = {*map(chr, (*range(32), *range(0x7F, 0xA0), 0x202E, 0x2066, 0xDCFF))}


class Screen(io.StringIO):
    """A terminal that keeps what it was sent."""

    def isatty(self) -> bool:
        return True


@contextlib.contextmanager
def screens() -> Iterator[tuple[Screen, Screen]]:
    out, err = Screen(), Screen()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield out, err


Look = Callable[..., tuple[str, str]]


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> tuple[Path, Path]:
    """A library of two copies of a photo and a broken file, all of whose names are evil."""
    folder = tmp_path_factory.mktemp("evil")
    photos = folder / EVIL.rstrip("\udcff")
    photos.mkdir()
    name = photos.name + ".jpg"
    Image.effect_noise((90, 60), 80).convert("RGB").save(folder / "a.jpg")
    (photos / f"b{name}").write_bytes((folder / "a.jpg").read_bytes())
    (folder / "a.jpg").rename(photos / name)
    (photos / f"broken{name}").write_text("no picture")
    with screens() as (out, err):
        code = main(
            [
                *("index", str(photos), "--model", f"local-dir:{tiny_model_dir}"),
                *("--runtime", "torch", "--library", str(folder / "library")),
            ]
        )
    assert code == errors.SOME_FILES_SKIPPED
    assert not UNSAFE - {"\n", "\r", "\x1b"} & set(out.getvalue() + err.getvalue())
    return folder / "library", photos / name


@pytest.fixture
def look(evil: tuple[Path, Path]) -> Look:
    def run(*arguments: str) -> tuple[str, str]:
        with patch.dict(os.environ, CLIPSEARCH_LIBRARY=str(evil[0])), screens() as (out, err):
            main(list(arguments))
        return out.getvalue(), err.getvalue()

    return run


def test_no_command_sends_a_names_control_characters_to_a_terminal(
    evil: tuple[Path, Path], look: Look
) -> None:
    photo, word = str(evil[1]), "w\x1b[1mord"
    shown = ""
    for arguments in (
        ["search", "size:>1"],
        ["search", "size:>1", "--paths"],
        ["search", "--image", photo, "--all"],
        ["search", "--image", f"{photo}.gone"],
        ["search", f"nothing:{word}"],
        ["search", f"after:{word}"],
        ["similar", f"{photo}.gone"],
        ["tag", "--add", word, photo],
        ["tags"],
        ["info"],
        ["info", "--failures"],
        ["dupes"],
        ["dupes", "--paths"],
        ["albums", "save", word, f"tag:{word}"],
        ["albums"],
        ["albums", "show", word],
        ["albums", "show", f"no{word}"],
        ["learn", word, photo],
        ["learn"],
        ["learn", word],
        ["feedback"],
        ["roots"],
        ["check"],
        ["index", f"{photo}.gone"],
        ["forget", f"{photo}.gone"],
        ["backup", f"{photo}.gone/x"],
        ["tag", f"--bogus{word}"],
        [f"bogus{word}"],
        ["index", "--dry-run"],
    ):
        out, err = look(*arguments)
        assert not (UNSAFE - {"\n"}) & set(out + err), (arguments, out, err)
        shown += out
    lines = [line for line in shown.splitlines() if "pwned" in line]
    assert len(lines) > 8
    assert all(r"\nnew\rline" in line for line in lines), "a name is never two lines"


def test_what_programs_read_is_as_it_is(evil: tuple[Path, Path], look: Look) -> None:
    library, photo = evil
    beside = str(photo)
    out, _ = look("search", "size:>1", "--paths", "-0")
    assert out == f"{beside}\0"
    line, _ = look("search", "size:>1", "--json")
    assert not (UNSAFE - {"\n"}) & set(line)  # escapes of JSON, on a terminal
    assert json.loads(line)["path"] == beside
    piped = io.StringIO()
    with contextlib.redirect_stdout(piped):
        main(["search", "size:>1", "--paths", "--library", str(library)])
        main(["search", "size:>1", "--json", "--library", str(library)])
    assert piped.getvalue().startswith(f"{beside}\n{{")
    assert "\x9b31m" in piped.getvalue()


@given(st.text())
def test_quoting_leaves_nothing_unsafe_and_everything_else(text: str) -> None:
    shown = quoted(text)
    assert not UNSAFE & set(shown)
    assert shown == text or UNSAFE & set(text) or any(char > "\u2000" for char in text)
    line = json.dumps({"a": text}, ensure_ascii=False)
    assert json.loads(json_quoted(line)) == {"a": text}


def test_letters_of_every_language_stay() -> None:
    for text in ("Ünïcödé", "日本語.jpg", "עברית", "👩‍👩‍👧 fam", r"C:\photos"):
        assert quoted(text) == text
    assert quoted("\udcff\ud800\x1b") == r"\xff\ud800\x1b"


# --- what cannot be printed, and what the system refuses ---------------------------------------


class Full(io.StringIO):
    """A stream on a disk that fails, at once or when it is flushed."""

    def __init__(self, number: int, *, when: str) -> None:
        super().__init__()
        self._error, self._when = OSError(number, os.strerror(number)), when

    def write(self, text: str) -> int:
        if self._when == "write":
            raise self._error
        return super().write(text)

    def flush(self) -> None:
        if self._when == "flush":
            raise self._error


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EBADF])
@pytest.mark.parametrize("when", ["write", "flush"])
@pytest.mark.parametrize("command", [["query-help"], ["tags"], ["info", "--json"], ["--help"]])
def test_output_that_cannot_be_written_is_one_line(
    evil: tuple[Path, Path], number: int, when: str, command: list[str]
) -> None:
    err = io.StringIO()
    with (
        patch.dict(os.environ, CLIPSEARCH_LIBRARY=str(evil[0])),
        contextlib.redirect_stdout(Full(number, when=when)),
        contextlib.redirect_stderr(err),
    ):
        assert main(command) == errors.OutputError.exit_code
    assert err.getvalue().count("\n") == 1
    assert os.strerror(number) in err.getvalue()


def test_stdout_is_given_back(evil: tuple[Path, Path]) -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        main(["--version"])
        assert sys.stdout is out
        with contextlib.suppress(errors.OutputError):
            Output(Full(errno.EIO, when="write")).write("x")


def test_a_stderr_that_cannot_be_written_changes_nothing(evil: tuple[Path, Path]) -> None:
    with contextlib.redirect_stderr(Full(errno.ENOSPC, when="write")):
        assert main(["info", "--library", str(evil[0] / "none")]) == 21


def chained(cause: BaseException) -> RuntimeError:
    error = RuntimeError("something of a package")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (MemoryError(), 11, "ulimit -v"),
        (OSError(errno.EMFILE, "Too many open files"), 11, "ulimit -n"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), 11, "ulimit -v"),
        (RuntimeError("can't start new thread"), 11, "ulimit -u"),
        (ImportError("libx.so: failed to map segment from shared object"), 11, "ulimit -v"),
        (RuntimeError("Exception from core.cpp:132:\nstd::bad_alloc"), 11, "ulimit -v"),
        (RuntimeError("[CPU] node with name 'x' can't alloc"), 11, "ulimit -v"),
        (chained(MemoryError()), 11, "ulimit -v"),
        (PermissionError(errno.EACCES, "Permission denied", "/x/index"), 13, "/x/index"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "/x"), 13, "shorter"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), 13, "Free some space"),
    ],
)
def test_what_the_system_refuses_is_one_line_and_no_bug(
    call_cli: Callable[..., object],
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
    told: str,
) -> None:
    def fail(given: list[str]) -> int:
        raise error

    with patch.object(cli, "_run", fail):
        assert main(["info"]) == code
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1


def test_a_mistake_of_our_own_is_still_called_a_bug(capsys: pytest.CaptureFixture[str]) -> None:
    assert in_our_words(ValueError("x")) is None
    with patch.object(cli, "_run", lambda _: 1 // 0):
        assert main(["info"]) == errors.CRASHED
    assert "this is a bug" in capsys.readouterr().err


# --- reasons ---------------------------------------------------------------------------------


def test_a_reason_says_something_also_where_like_ones_are_counted(tmp_path: Path) -> None:
    large = tmp_path / "large.jpg"
    with large.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    report = IndexReport()
    with pytest.raises(errors.ImageUnreadableError) as caught:
        read_file(large)
    report.failures.append(Failure(large, str(caught.value).removeprefix(f"{large} ")))
    buffer = io.BytesIO()
    Image.new("1", (300, 200)).save(buffer, "PNG")
    with pytest.raises(errors.ImageTooLargeError) as refused:
        read_header(buffer.getvalue(), name="x", max_pixels=1000)
    report.failures.append(Failure(Path("x"), str(refused.value).removeprefix("x ")))
    lines = list(report.lines())
    assert "  skipped 1: over the limit of 1 GiB" in lines
    assert "  skipped 1: over the limit of 1,000 pixels" in lines


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("cannot be read as a picture: damaged or unknown (x: y)", "damaged or unknown"),
        ("is empty (0 bytes)", "it is empty"),
        ("its name is not valid UTF-8: rename it", "its name is not valid UTF-8"),
        ("cannot be read as a picture: damaged: no JPEG 2000 in it", "damaged"),
        # as earlier versions recorded them
        ("cannot be read as a picture: 2,147,483,648 bytes, over the limit of 1,073,741,824",
         "over the limit of 1,073,741,824 bytes"),
        ("has 9,000 pixels, over the limit of 1,000. If you trust it, raise the limit: x",
         "over the limit of 1,000 pixels"),
        ("cannot be read as a picture: decoding it takes 320 bytes, over the limit of 160. If you",
         "over the limit of 160 bytes"),
        ("Permission denied", "Permission denied"),
    ],
)  # fmt: skip
def test_a_kind_of_failure_reads_as_words(reason: str, kind: str) -> None:
    assert failure_kind(reason) == kind


def test_a_missing_package_is_named_also_where_failures_are_counted() -> None:
    error = errors.ImagePackageError(path="x", kind="a RAW picture (ARW)", package="rawpy")
    assert failure_kind(str(error).removeprefix("x ")).endswith("pip install rawpy")


def test_an_index_that_may_not_be_read_is_made_anew(evil: tuple[Path, Path]) -> None:
    """It is a cache. Root may read everything, so a file stands where the folder should be."""
    index = evil[0] / "index"
    before = index.rename(index.with_name("index.before")) if index.exists() else None
    index.touch()
    try:
        with Library.open(evil[0]), contextlib.redirect_stdout(io.StringIO()) as out:
            assert main(["search", "dog", "--all", "--paths", "--library", str(evil[0])]) == 0
        assert out.getvalue()
    finally:
        index.unlink()
        if before is not None:
            before.rename(index)


def test_one_thing_is_not_several() -> None:
    shown = [counted(n, "picture") for n in (0, 1, 1200)]
    assert shown == ["0 pictures", "1 picture", "1,200 pictures"]
    assert [counted(n, "copy is", "copies are") for n in (1, 2)] == ["1 copy is", "2 copies are"]
