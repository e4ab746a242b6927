"""The library: what was committed is there, whole, for every reader, and for ever."""

from __future__ import annotations

import lzma
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clipsearch.errors import (
    LibraryCorruptError,
    LibraryLockedError,
    LibraryNotFoundError,
    LibraryVersionError,
    NotInLibraryError,
    StorageError,
    VectorError,
)
from clipsearch.library import Batch, FileState, Library, LibraryWriter, NewItem, RootRecord
from clipsearch.library.schema import VERSION
from clipsearch.vectors import EmbeddingSpace, unit_rows

SPACE = EmbeddingSpace("model", "weights", "preprocess", 8)
GOLDEN = Path(__file__).parent / "data" / "library-v1.db.xz"


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "test.clipsearch", create=True) as opened:
        yield opened


def vectors(count: int, seed: int = 0) -> np.ndarray:
    return unit_rows(np.random.default_rng(seed).standard_normal((count, 8)))


def item(name: str) -> NewItem:
    return NewItem(name, 40, 30, "JPEG", 1234, "2024-05-01T12:00:00+02:00", {"make": "Canon"})


def state(
    root: RootRecord, relpath: str, content: str | None, failure: str | None = None
) -> FileState:
    return FileState(root.id, relpath, 1234, 5_000, 77, content, failure)


def add(writer: LibraryWriter, root: RootRecord, names: dict[str, str]) -> None:
    """Adds files (relpath -> content) with items and vectors."""
    space = writer.add_space(SPACE, address="tiny", runtime="torch-cpu", precision="f32")
    writer.activate_space(space.id)
    contents = sorted(set(names.values()))
    writer.commit(
        Batch(
            new_items=[item(content) for content in contents],
            vectors=(space.id, contents, vectors(len(contents))),
            files=[state(root, relpath, content) for relpath, content in names.items()],
        )
    )


def test_what_was_committed_is_there_when_opened_again(library: Library, tmp_path: Path) -> None:
    with library.writer() as writer:
        root = writer.add_root(tmp_path)
        add(writer, root, {"a.jpg": "aa", "b/c.jpg": "bb", "copy of a.jpg": "aa"})
    library.set_setting("model", "tiny")
    library.close()
    with Library.open(library.path) as again:
        counts = again.counts()
        assert (counts.items, counts.files, counts.embedded, counts.failures) == (2, 3, 2, 0)
        assert again.settings() == {"model": "tiny"}
        ids = again.item_by_hash(["aa", "bb", "zz"])
        assert set(ids) == {"aa", "bb"}
        assert again.paths([ids["aa"]])[ids["aa"]] == [
            tmp_path / "a.jpg",
            tmp_path / "copy of a.jpg",
        ]
        assert again.item_at(tmp_path / "b" / "c.jpg") == ids["bb"]
        assert again.item_at(tmp_path / "nothing.jpg") is None
        record = again.items([ids["aa"]])[ids["aa"]]
        assert (record.width, record.taken_at) == (40, "2024-05-01T12:00:00+02:00")
        assert record.metadata == {"make": "Canon"}
        space = again.active_space()
        assert space is not None
        assert (space.space, space.address, space.embedded) == (SPACE, "tiny", 2)
        found_ids, found = again.vectors(space.id)
        assert found_ids.tolist() == sorted(ids.values())
        np.testing.assert_allclose(found, vectors(2), atol=2e-3)
        assert again.vectors_of(space.id, [ids["bb"], 999])[0].tolist() == [ids["bb"]]
        assert again.embedded_ids(space.id) == set(ids.values())
        assert again.present_items().tolist() == sorted(ids.values())
        assert again.check().ok


def test_a_batch_is_written_whole_or_not_at_all(library: Library, tmp_path: Path) -> None:
    with library.writer() as writer:
        root = writer.add_root(tmp_path)
        add(writer, root, {"a.jpg": "aa"})
        revision = library.revision
        space = library.active_space()
        assert space is not None
        for bad in (
            (space.id, ["bb"], np.full((1, 8), np.nan, np.float32)),
            (space.id, ["bb"], np.zeros((1, 8), np.float32)),
            (space.id, ["bb"], vectors(2)),
            (space.id, ["unknown"], vectors(1)),
            ("no such space", ["bb"], vectors(1)),
            (space.id, ["bb"], vectors(1)[:, :4]),
        ):
            with pytest.raises(VectorError):
                writer.commit(Batch([item("bb")], bad, [state(root, "b.jpg", "bb")]))
        assert library.revision == revision
        assert library.counts().files == 1
        assert library.item_by_hash(["bb"]) == {}


def test_missing_failed_and_returned_files_are_told_apart(library: Library, tmp_path: Path) -> None:
    with library.writer() as writer:
        root = writer.add_root(tmp_path)
        add(writer, root, {"a.jpg": "aa", "b.jpg": "bb"})
        gone = [file.id for file in library.files(root.id) if file.relpath == "a.jpg"]
        writer.commit(Batch(missing=gone, files=[state(root, "bad.jpg", None, "it is damaged")]))
        counts = library.counts()
        assert (counts.files, counts.missing, counts.failures) == (1, 1, 1)
        assert [failure.reason for failure in library.failures()] == ["it is damaged"]
        assert len(library.present_items()) == 1
        assert library.embedded_ids(SPACE.id) == {1, 2}, "the vector waits for the file's return"
        writer.commit(Batch(files=[state(root, "a.jpg", "aa"), state(root, "bad.jpg", "bb")]))
        counts = library.counts()
        assert (counts.files, counts.missing, counts.failures) == (3, 0, 0)


def test_a_root_above_others_takes_over_their_files_with_their_items(
    library: Library, tmp_path: Path
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    with library.writer() as writer:
        inner = writer.add_root(tmp_path / "a" / "b")
        add(writer, inner, {"x.jpg": "aa"})
        before = library.item_at(tmp_path / "a" / "b" / "x.jpg")
        assert writer.add_root(tmp_path / "a" / "b" / ".") == inner
        outer = writer.add_root(tmp_path / "a")
        assert [root.path for root in library.roots()] == [tmp_path / "a"]
        assert library.item_at(tmp_path / "a" / "b" / "x.jpg") == before
        assert [file.relpath for file in library.files(outer.id)] == ["b/x.jpg"]
        assert writer.add_root(tmp_path / "a" / "b") == outer


def test_names_that_are_not_valid_text_come_back_as_they_were(
    library: Library, tmp_path: Path
) -> None:
    odd = os.fsdecode(b"caf\xe9 \xff.jpg")
    with library.writer() as writer:
        root = writer.add_root(tmp_path)
        add(writer, root, {odd: "aa", "line\nbreak '\" %.jpg": "bb", "e\u0301.jpg": "cc"})
        assert library.item_at(tmp_path / odd) is not None
        names = {file.relpath for file in library.files(root.id)}
        assert names == {odd, "line\nbreak '\" %.jpg", "e\u0301.jpg"}
        assert writer.forget(tmp_path / odd).files == 1


def test_a_path_is_found_in_either_way_to_write_its_accents(
    library: Library, tmp_path: Path
) -> None:
    composed, decomposed = "\u00e9t\u00e9", "e\u0301te\u0301"
    (tmp_path / composed).mkdir()
    with library.writer() as writer:
        root = writer.add_root(tmp_path / composed)
        add(writer, root, {f"{decomposed}/{decomposed}.jpg": "aa"})
        item = library.item_at(tmp_path / composed / decomposed / f"{decomposed}.jpg")
        assert item is not None
        for one, other in ((composed, composed), (decomposed, decomposed), (composed, decomposed)):
            assert library.item_at(tmp_path / one / other / f"{other}.jpg") == item
        assert writer.forget(tmp_path / decomposed).files == 1


def test_forget_removes_rows_items_and_thumbnails_but_no_photo(
    library: Library, tmp_path: Path
) -> None:
    photo = tmp_path / "photos" / "a.jpg"
    photo.parent.mkdir()
    photo.write_bytes(b"a photo")
    thumb = library.path / "thumbs" / "aa" / "aa.jpg"
    view = library.path / "views" / "aa" / "aa.jpg"
    for picture in (thumb, view):
        picture.parent.mkdir(parents=True)
        picture.touch()
    names = {"a.jpg": "aa", "d/b.jpg": "bb", "d/copy.jpg": "aa", "dx.jpg": "cc"}
    with library.writer() as writer:
        root = writer.add_root(photo.parent)
        add(writer, root, names)
        report = writer.forget(photo.parent / "d")
        assert (report.files, report.items) == (2, 1)
        assert thumb.exists(), "another file still holds that picture"
        report = writer.forget(photo)
        assert (report.files, report.items) == (1, 1)
        assert not thumb.exists()
        assert not view.exists()
        assert photo.read_bytes() == b"a photo"
        for unknown in (photo, tmp_path / "elsewhere"):
            with pytest.raises(NotInLibraryError):
                writer.forget(unknown)
        assert writer.forget(photo.parent).files == 1
        assert library.roots() == []
        assert library.counts().embedded == 0
    assert library.check().ok


def test_one_writer_at_a_time_and_a_dead_one_holds_nothing(library: Library) -> None:
    script = (
        "import sys, time; from pathlib import Path; from clipsearch.library import Library\n"
        "with Library.open(Path(sys.argv[1])) as library, library.writer():\n"
        "    print('locked', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(library.path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(LibraryLockedError, match=f"process {holder.pid}"), library.writer():
            pass
        assert library.counts().items == 0, "readers go on"
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    with library.writer():
        pass


def test_readers_see_only_whole_batches_while_a_writer_writes(
    library: Library, tmp_path: Path
) -> None:
    seen: list[str] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            counts = library.counts()
            if counts.files % 10 or counts.embedded != counts.items:
                seen.append(f"{counts}")
            space = library.active_space()
            if space is not None and len(library.vectors(space.id)[0]) % 10:
                seen.append("vectors of half a batch")

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    with library.writer() as writer:
        root = writer.add_root(tmp_path)
        for batch in range(15):
            add(writer, root, {f"{batch}-{i}.jpg": f"{batch}-{i}" for i in range(10)})
    stop.set()
    for reader in readers:
        reader.join()
    assert seen == []
    assert library.counts().files == 150


def test_a_backup_made_while_it_is_written_is_a_sound_library(
    library: Library, tmp_path: Path
) -> None:
    copies = []
    with library.writer() as writer:
        root = writer.add_root(tmp_path)
        for batch in range(6):
            add(writer, root, {f"{batch}-{i}.jpg": f"{batch}-{i}" for i in range(10)})
            copies.append(tmp_path / f"backup-{batch}.db")
            library.backup(copies[-1])
            assert copies[-1].stat().st_mode & 0o777 == 0o600
    with pytest.raises(StorageError, match="already"):
        library.backup(copies[0])
    with pytest.raises(StorageError):
        library.backup(tmp_path / "no" / "such" / "folder.db")
    for batch, copy in enumerate(copies):
        folder = tmp_path / f"restored-{batch}.clipsearch"
        folder.mkdir()
        copy.rename(folder / "library.db")
        with Library.open(folder) as restored:
            assert restored.counts().files == 10 * (batch + 1)
            assert restored.check().ok


def test_a_full_disk_loses_nothing_that_was_committed(tmp_path: Path) -> None:
    script = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_library import add
from clipsearch.errors import StorageError
from clipsearch.library import Library
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with Library.open(Path(sys.argv[1]), create=True) as library, library.writer() as writer:
    root = writer.add_root(Path(sys.argv[1]).parent)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
    done = 0
    try:
        for batch in range(1000):
            add(writer, root, {f"{batch}-{i}.jpg": f"{batch}-{i}" for i in range(50)})
            done += 50
    except StorageError as error:
        print(done, error)
"""
    path = tmp_path / "full.clipsearch"
    command = [sys.executable, "-c", script, str(path), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "Nothing that was committed is lost" in done.stdout, done.stdout + done.stderr
    with Library.open(path) as library:
        assert library.counts().files == int(done.stdout.split()[0])
        assert library.counts().embedded == library.counts().files
        assert library.check().ok
        with library.writer() as writer:
            add(writer, library.roots()[0], {"after.jpg": "after"})
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 600_000


def test_what_is_no_library_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(LibraryNotFoundError, match="clipsearch index FOLDER"):
        Library.open(tmp_path / "none.clipsearch")
    for number, content in enumerate((b"x" * 5000, b"SQLite format 3\0" + b"\1" * 5000)):
        folder = tmp_path / f"{number}.clipsearch"
        folder.mkdir()
        (folder / "library.db").write_bytes(content)
        with pytest.raises(LibraryCorruptError, match=str(folder)):
            Library.open(folder)
    newer = tmp_path / "newer.clipsearch"
    Library.open(newer, create=True).close()
    with sqlite3.connect(newer / "library.db") as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    with pytest.raises(LibraryVersionError, match="Upgrade"):
        Library.open(newer)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="--library"):
        Library.open(tmp_path / "file" / "x.clipsearch", create=True)


def test_a_library_of_the_first_schema_version_opens_for_ever(tmp_path: Path) -> None:
    folder = tmp_path / "old.clipsearch"
    folder.mkdir()
    (folder / "library.db").write_bytes(lzma.decompress(GOLDEN.read_bytes()))
    with Library.open(folder) as library:
        counts = library.counts()
        assert (counts.items, counts.files, counts.missing, counts.failures) == (3, 3, 1, 1)
        assert library.settings()["model"] == "embedded"
        space = library.active_space()
        assert space is not None
        assert (space.space.dim, space.embedded, space.runtime) == (8, 4, "torch-cpu")
        ids, found = library.vectors(space.id)
        np.testing.assert_allclose(found, vectors(4), atol=2e-3)
        assert library.items([int(ids[0])])[int(ids[0])].metadata == {"make": "Canon"}
        assert [failure.reason for failure in library.failures()] == ["it is damaged"]
        assert library.check().ok
        with library.writer() as writer:
            add(writer, library.roots()[0], {"new.jpg": "new"})
        assert library.counts().files == 4


def test_opening_a_library_is_quick(library: Library) -> None:
    """Not a benchmark: only that nothing reads the whole database to open it."""
    started = time.monotonic()
    for _ in range(20):
        Library.open(library.path).close()
    assert time.monotonic() - started < 5
