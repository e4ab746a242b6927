"""What a run finds to do: nothing twice, nothing for a drive mounted anew, nothing lost."""

from __future__ import annotations

import os
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clipsearch.config import Settings, resolve
from clipsearch.library import Batch, FileRecord, FileState, Library, NewItem
from indexer.changes import (
    NOT_READ_MTIME_NS,
    Plan,
    plan_changes,
    same_contents,
    settled_mtime_ns,
)
from indexer.pipeline import index_library
from indexer.report import IndexReport
from indexer.scan import FoundFile, Scan, scan

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND + 123_456_789
Index = Callable[..., IndexReport]


def record(number: int, relpath: str, **fields: object) -> FileRecord:
    known = {
        "root_id": 1,
        "size": 10,
        "mtime_ns": 5,
        "inode": 100 + number,
        "item_id": number,
        "missing_since": None,
        "failure": None,
    }
    return FileRecord(id=number, relpath=relpath, **{**known, **fields})  # type: ignore[arg-type]


def seen(*relpaths: str, root: Path = Path("/photos"), **fields: object) -> Scan:
    """A scan that met these files as ``record`` has them with the numbers 1, 2, 3 ..."""
    files = [FoundFile(path, 10, 5, 101 + number) for number, path in enumerate(relpaths)]
    return Scan(root, files, [], **fields)  # type: ignore[arg-type]


def gone(plan: Plan) -> list[str]:
    return [row.relpath for row in plan.gone]


# --- times ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written_before_ns", "whole_seconds", "settled"),
    [
        (5_000_000, False, False),
        (19_999_999, False, False),
        (20_000_000, False, True),
        (-5_000_000, False, False),  # a server's clock is a little ahead
        (-3600 * SECOND, False, True),  # dated in the future: not read again for ever
        (3600 * SECOND, False, True),
        (SECOND, True, False),
        (2 * SECOND, True, True),
        (-365 * 86400 * SECOND, True, True),
    ],
)
def test_a_file_written_just_before_it_was_read_is_read_once_more(
    written_before_ns: int, whole_seconds: bool, settled: bool
) -> None:
    read_at = NOW // SECOND * SECOND if whole_seconds else NOW
    mtime = read_at - written_before_ns
    expected = mtime if settled else NOT_READ_MTIME_NS
    assert settled_mtime_ns(mtime, read_at) == expected


@given(
    read_at=st.integers(NOW, NOW + 4 * SECOND),
    later=st.integers(0, 10 * SECOND),
    tick=st.sampled_from([1, 1000, 4_000_000, 10_000_000, SECOND, 2 * SECOND]),
    ago=st.integers(0, 10 * SECOND),
)
def test_no_later_write_can_hide_behind_a_settled_time(
    read_at: int, later: int, tick: int, ago: int
) -> None:
    """A write after the read that gives the same time means that the time was not settled."""
    before = (read_at - ago) // tick * tick
    after = (read_at + later) // tick * tick
    if before == after:
        assert settled_mtime_ns(before, read_at) == NOT_READ_MTIME_NS


def test_an_unsettled_file_is_read_by_the_next_run(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x" * 10)
    found = scan(tmp_path)
    row = record(1, "a.jpg", mtime_ns=NOT_READ_MTIME_NS, inode=found.files[0].inode)
    assert plan_changes(1, found, [row]).read == found.files
    os.utime(tmp_path / "a.jpg", ns=(0, 0))  # the year 1970 is a time like any other
    found = scan(tmp_path)
    assert plan_changes(1, found, [row]).read == found.files
    row = record(1, "a.jpg", mtime_ns=0, inode=found.files[0].inode)
    assert plan_changes(1, found, [row]).unchanged == 1


# --- inodes ---------------------------------------------------------------------------------


def numbered(count: int) -> list[str]:
    return [f"{number:04}.jpg" for number in range(count)]


def renumbered(count: int, of: int) -> tuple[Scan, list[FileRecord]]:
    """A scan of ``of`` files, the first ``count`` of which have a new inode and nothing else."""
    rows = [record(n + 1, name, inode=9000 + n) for n, name in enumerate(numbered(of))]
    rows[count:] = [record(n + 1, name) for n, name in enumerate(numbered(of))][count:]
    return seen(*numbered(of)), rows


def test_many_new_inodes_are_compared_by_a_sample_and_then_noted() -> None:
    asked: list[str] = []

    def yes(pairs: list[tuple[FoundFile, FileRecord]]) -> bool:
        asked.extend(file.relpath for file, _ in pairs)
        return True

    found, rows = renumbered(900, of=1000)
    plan = plan_changes(1, found, rows, same_contents=yes)  # type: ignore[arg-type]
    assert (plan.read, plan.unchanged) == ([], 1000)
    assert plan.inodes == {number + 1: 101 + number for number in range(900)}
    assert len(asked) == len(set(asked)) == 20
    assert (asked[0], asked[-1] > "0800.jpg") == ("0000.jpg", True), "spread evenly"


def test_many_new_inodes_are_read_when_the_sample_differs_or_nobody_compares() -> None:
    found, rows = renumbered(900, of=1000)
    for ask in (None, lambda _pairs: False):
        plan = plan_changes(1, found, rows, same_contents=ask)
        assert [file.relpath for file in plan.read] == numbered(900)
        assert (plan.unchanged, plan.inodes) == (100, {})


def test_a_few_replaced_files_are_always_read() -> None:
    def unasked(_pairs: object) -> bool:
        raise AssertionError("few files are not worth a sample")

    for count in (1, 39):
        found, rows = renumbered(count, of=1000)
        plan = plan_changes(1, found, rows, same_contents=unasked)
        assert [file.relpath for file in plan.read] == numbered(count)


def test_a_system_without_inodes_has_nothing_to_compare() -> None:
    rows = [record(1, "a.jpg")]
    for inode in (0, 101):
        found = Scan(Path("/photos"), [FoundFile("a.jpg", 10, 5, inode)], [])
        assert plan_changes(1, found, rows).unchanged == 1
    assert plan_changes(1, seen("a.jpg"), [record(1, "a.jpg", inode=0)]).unchanged == 1


@pytest.fixture
def library(library_path: Path) -> Iterator[Library]:
    with Library.open(library_path, create=True) as opened:
        yield opened


def hash_file(path: Path) -> str:
    return xxhash.xxh3_128_hexdigest(path.read_bytes())


def test_a_folder_copied_whole_is_taken_as_it_was_and_an_edited_one_is_not(
    library: Library, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in numbered(60):
        (photos / name).write_bytes(name.encode())
        os.utime(photos / name, ns=(10**18, 10**18))
    hashes = [hash_file(photos / name) for name in numbered(60)]
    with library.writer() as writer:
        root = writer.add_root(photos)
        states = [
            FileState(root.id, file.relpath, file.size, file.mtime_ns, file.inode, content)
            for file, content in zip(scan(photos).files, hashes, strict=True)
        ]
        items = [NewItem(content, 1, 1, "JPEG", 8) for content in hashes]
        writer.commit(Batch(items, None, states))
        photos.rename(tmp_path / "old")
        shutil.copytree(tmp_path / "old", photos)  # keeps times
        ask = same_contents(library, photos, hash_file)
        plan = plan_changes(root.id, scan(photos), library.files(root.id), same_contents=ask)
        assert (plan.read, len(plan.inodes)) == ([], 60)
        writer.commit(Batch(inodes=plan.inodes))
        plan = plan_changes(root.id, scan(photos), library.files(root.id))
        assert (plan.read, plan.unchanged) == ([], 60)
        for name in numbered(60):  # a tool that keeps time and size, as exiftool -P can
            (tmp_path / name).write_bytes(name.encode()[::-1])
            os.utime(tmp_path / name, ns=(10**18, 10**18))
            (tmp_path / name).replace(photos / name)
        plan = plan_changes(root.id, scan(photos), library.files(root.id), same_contents=ask)
        assert len(plan.read) == 60
        shutil.rmtree(photos)
        pairs = list(zip(scan(tmp_path / "old").files, library.files(root.id), strict=True))
        assert not ask(pairs), "what cannot be read vouches for nothing"


# --- what is gone ---------------------------------------------------------------------------

ROWS = [
    record(n, path) for n, path in enumerate(["a/1.jpg", "a/in/2.jpg", "a-b/3.jpg", "4.jpg"], 1)
]


def test_after_looking_at_some_paths_nothing_else_is_judged() -> None:
    top = frozenset(("a", "a-b", "4.jpg"))
    plan = plan_changes(1, seen(only=("a",), top=top), ROWS)
    assert gone(plan) == ["a/1.jpg", "a/in/2.jpg"]
    assert set(plan.previous) == {"a/1.jpg", "a/in/2.jpg"}
    plan = plan_changes(1, seen(only=("a/in", "4.jpg"), top=top), ROWS)
    assert gone(plan) == ["a/in/2.jpg", "4.jpg"]
    plan = plan_changes(1, seen(only=("a/in/deeper", "a/i"), top=top), ROWS)
    assert (gone(plan), plan.previous, plan.unchanged) == ([], {}, 0)
    plan = plan_changes(1, seen(only=("a",), skipped=("a/in",), top=top), ROWS)
    assert gone(plan) == ["a/1.jpg"], "what lies below a link is for a whole scan"
    assert gone(plan_changes(1, seen(only=()), ROWS)) == []


def test_a_folder_that_vanished_is_gone_but_a_root_never_is(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for row in ROWS:
        path = root / row.relpath
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    shutil.rmtree(root / "a")
    assert gone(plan_changes(1, scan(root, only=["a"]), ROWS)) == ["a/1.jpg", "a/in/2.jpg"]
    root.rename(tmp_path / "unplugged")
    plan = plan_changes(1, scan(root, only=["a"]), ROWS)
    assert (gone(plan), plan.unchanged) == ([], 2)
    root.mkdir()  # an empty mount point; some systems keep a file in it
    for name in ("", ".keep"):
        if name:
            (root / name).touch()
        for only in (["a"], None):
            plan = plan_changes(1, scan(root, only=only), ROWS)
            assert gone(plan) == []
            assert "clipsearch forget" in plan.notes[0]


def test_an_emptied_folder_is_missing_and_its_name_is_told_in_case_a_disk_belongs_there(
    tmp_path: Path,
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "few").mkdir()
    (tmp_path / "kept.jpg").touch()
    rows = [record(n, f"disk/{n // 10}/{n}.jpg") for n in range(1, 31)]
    rows += [record(99, "few/1.jpg"), record(100, "kept.jpg")]
    plan = plan_changes(1, scan(tmp_path), rows)
    assert len(plan.gone) == 31
    (note,) = plan.notes
    assert str(tmp_path / "disk") in note
    assert "30 pictures" in note


def test_notes_of_the_scan_reach_the_plan() -> None:
    assert plan_changes(1, seen(notes=("line 1 has no effect",)), []).notes == [
        "line 1 has no effect"
    ]


# --- through the whole indexer --------------------------------------------------------------


def paint(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((80, 60)).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(4):
        paint(tmp_path / "photos" / f"{number}.png", number)
    return tmp_path / "photos"


@pytest.fixture
def index(library: Library, tiny_model_dir: Path, library_path: Path) -> Index:
    chosen = {"model": f"local-dir:{tiny_model_dir}", "runtime": "torch", "library": library_path}
    settings: Settings = resolve(chosen, environment={})

    def run(*roots: Path, **options: object) -> IndexReport:
        return index_library(library, roots, settings=settings, **options)  # type: ignore[arg-type]

    return run


def test_a_name_in_another_case_or_normal_form_keeps_its_item(
    index: Index, photos: Path, library: Library
) -> None:
    accented = paint(photos / unicodedata.normalize("NFC", "Été") / "à.png", 9)
    index(photos)
    items = {path: library.item_at(path) for path in (photos / "0.png", accented)}
    (photos / "0.png").rename(photos / "0.PNG")
    decomposed = Path(unicodedata.normalize("NFD", str(accented)))
    decomposed.parent.mkdir()
    accented.rename(decomposed)
    accented.parent.rmdir()
    report = index()
    assert (report.moved, report.embedded, report.gone) == (2, 0, 0)
    assert library.item_at(photos / "0.PNG") == items[photos / "0.png"]
    assert library.item_at(photos / "0.png") is None
    for spelling in (accented, decomposed, accented.parent / decomposed.name):
        assert library.item_at(spelling) == items[accented]


def test_a_folder_renamed_moved_copied_and_restored_costs_no_embedding(
    index: Index, photos: Path, library: Library, tmp_path: Path
) -> None:
    for number in range(5, 9):
        paint(photos / "trip" / f"{number}.png", number)
    index(photos)
    item = library.item_at(photos / "trip" / "5.png")
    (photos / "trip").rename(photos / "Trip 2019")
    assert index().moved == 4
    shutil.copytree(photos / "Trip 2019", photos / "copy")
    assert index().copied == 4
    shutil.move(photos / "Trip 2019", tmp_path / "elsewhere")
    shutil.rmtree(photos / "copy")
    report = index()
    assert (report.gone, library.counts().items) == (8, 4)
    shutil.copytree(tmp_path / "elsewhere", photos / "trip")
    report = index()
    assert report.embedded == 0
    assert library.item_at(photos / "trip" / "5.png") == item
    assert library.counts().items == 8


def test_a_library_restored_from_a_backup_is_not_read_again(
    index: Index, photos: Path, library: Library, tmp_path: Path
) -> None:
    for number in range(4, 45):
        os.utime(paint(photos / f"{number}.png", number), ns=(10**18, 10**18))
    index(photos)
    index()  # what was written right before it was read
    photos.rename(tmp_path / "old")
    shutil.copytree(tmp_path / "old", photos)
    for _ in range(2):
        to_read: list[int] = []
        report = index(progress=lambda _done, total, seen=to_read: seen.append(total))
        assert (report.unchanged, set(to_read)) == (45, {0})
    now = {file.relpath: file.inode for file in scan(photos).files}
    assert {row.relpath: row.inode for row in library.files(1)} == now


def test_a_picture_that_is_left_out_later_waits_as_missing_with_its_vector(
    index: Index, photos: Path, library: Library
) -> None:
    index(photos)
    item = library.item_at(photos / "0.png")
    (photos / ".clipsearchignore").write_text("0.png\n")
    assert index().gone == 1
    assert library.item_at(photos / "0.png") is None
    assert library.counts().missing == 1
    (photos / ".clipsearchignore").unlink()
    assert index().embedded == 0
    assert library.item_at(photos / "0.png") == item


@pytest.mark.parametrize("everything", [False, True])
def test_pictures_whose_folder_gets_a_marker_go_out_of_searches_and_that_is_told(
    index: Index, photos: Path, library: Library, everything: bool
) -> None:
    for number in range(4) if everything else (0,):
        (photos / "private").mkdir(exist_ok=True)
        (photos / f"{number}.png").rename(photos / "private" / f"{number}.png")
    index(photos)
    hidden = 4 if everything else 1
    (photos / "private" / ".nomedia").touch()
    report = index()
    assert (report.gone, library.counts().items) == (hidden, 4 - hidden)
    assert f"left out for the .nomedia in it: {hidden}" in report.notes[0]
    assert index().notes == []
    (photos / ".clipsearchignore").write_text("!private/\n")
    report = index()
    assert (report.embedded, library.counts().items) == (0, 4)


def test_leaving_out_everything_by_an_ignore_file_is_no_unplugged_disk(
    index: Index, photos: Path, library: Library
) -> None:
    index(photos)
    (photos / ".clipsearchignore").write_text("*.png\n")
    assert index().gone == 4
    assert library.counts().items == 0


def test_the_first_look_says_which_folders_a_marker_leaves_out(index: Index, photos: Path) -> None:
    paint(photos / "private" / "9.png", 9)
    (photos / "private" / ".nomedia").touch()
    report = index(photos)
    assert report.added == 4
    assert str(photos / "private") in report.notes[0]
    assert ".clipsearchignore" in report.notes[0]
    assert index().notes == []


def test_thumbnails_that_were_indexed_as_photos_go_out_of_searches(
    index: Index, photos: Path, library: Library
) -> None:
    thumbnail = paint(photos / "search" / "thumbs" / "aa" / "9.png", 9)
    index(photos)
    assert library.item_at(thumbnail) is not None
    with Library.open(photos / "search", create=True) as other, other.writer():
        pass
    report = index()
    assert report.gone == 1
    assert "belongs to a clipsearch library: 1 " in report.notes[0]
    assert library.item_at(thumbnail) is None


def test_pictures_stay_while_an_ignore_file_cannot_be_used(
    index: Index, photos: Path, library: Library
) -> None:
    paint(photos / "in" / "9.png", 9)
    index(photos)
    (photos / "in" / ".clipsearchignore").write_bytes(b"\0")
    report = index()
    assert (report.gone, report.failures[0].path) == (0, photos / "in")
    assert library.item_at(photos / "in" / "9.png") is not None
    shutil.move(photos / "in" / ".clipsearchignore", photos / ".clipsearchignore")
    report = index()
    assert report.gone == 0
    assert "not UTF-8" in report.notes[0]
    (photos / ".clipsearchignore").unlink()
    assert index().gone == 0
    assert library.counts().items == 5
