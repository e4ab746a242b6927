"""clipsearch watch: what changes is found, half-written files are waited for, nothing grows."""

from __future__ import annotations

import ctypes
import errno
import gc
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_collection import settle

from clipsearch.album_files import export_album
from clipsearch.config import Settings, resolve
from clipsearch.library import Library
from clipsearch.searcher import Searcher
from indexer import dirty, watched_roots
from indexer.decoders import Decoder
from indexer.dirty import DirtyPlaces, Work
from indexer.kept_model import KeptLoader
from indexer.mounts import silent_mount
from indexer.pipeline import index_library
from indexer.priority import on_battery
from indexer.watched_roots import Notice
from indexer.watching import Backoff, Watcher, WatchOptions
from tests.models import VIT, save_model

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
QUIET_S = 0.2
PATIENCE_S = 120.0


class Clock:
    """A clock that a test moves: on its own or, with ``running``, beside the real one."""

    def __init__(self, *, running: bool = False) -> None:
        self.now = 100.0
        self._running = running

    def __call__(self) -> float:
        return self.now + (time.monotonic() if self._running else 0.0)


def paint(path: Path, seed: int) -> Path:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).resize((40, 30)).save(path)
    return path


# --- what is due, and when ----------------------------------------------------------------------


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def places(clock: Clock) -> DirtyPlaces:
    return DirtyPlaces(quiet_s=2.0, max_wait_s=30.0, clock=clock)


def test_a_place_is_handed_over_once_it_is_quiet(places: DirtyPlaces, clock: Clock) -> None:
    assert places.due() is None
    places.touch_file("/photos/a.jpg")
    clock.now += 1.9
    assert places.due() is None
    places.touch_file("/photos/b.jpg")
    clock.now += 1.9
    assert places.due() is None, "something new came"
    clock.now += 0.2
    assert places.due() == Work(files=(Path("/photos/a.jpg"), Path("/photos/b.jpg")))
    assert places.due() is None
    assert len(places) == 0


def test_under_constant_change_what_is_settled_gets_in(places: DirtyPlaces, clock: Clock) -> None:
    handed = []
    for second in range(100):
        places.touch_file(f"/photos/{second}.jpg")
        clock.now += 1.0
        work = places.due()
        if work is not None:
            handed.append(len(work.files))
    assert len(handed) == 3, "about every 30 s"
    assert sum(handed) >= 85


def test_a_file_is_held_until_size_and_time_stay_and_holds_up_no_other(
    places: DirtyPlaces, clock: Clock, tmp_path: Path
) -> None:
    growing, done = tmp_path / "growing.jpg", tmp_path / "done.jpg"
    done.write_bytes(b"whole")
    for length in range(1, 11):  # 10 s of pieces, with an event each
        growing.write_bytes(b"x" * length)
        places.touch_file(str(growing))
        if length == 1:
            places.touch_file(str(done))
        clock.now += 1.0
        work = places.due()
        if work is not None:
            assert work.files == (done,)
    growing.write_bytes(b"y" * 20)  # a change without an event, as on a network drive
    clock.now += 5.0
    assert places.due() is None, "it does not look as it did"
    clock.now += 2.1
    assert places.due() == Work(files=(growing,))


def test_a_new_folder_waits_for_the_files_that_are_written_in_it(
    places: DirtyPlaces, clock: Clock, tmp_path: Path
) -> None:
    file = tmp_path / "new" / "deep" / "a.jpg"
    file.parent.mkdir(parents=True)
    places.touch_folder(str(tmp_path / "new"))
    for length in range(1, 6):
        file.write_bytes(b"x" * length)
        places.touch_file(str(file))
        clock.now += 1.5
        assert places.due() is None
    clock.now += 1.0
    assert places.due() == Work(folders=(tmp_path / "new",)), "which means the file, too"


def test_a_file_that_never_settles_is_looked_at_all_the_same(
    places: DirtyPlaces, clock: Clock
) -> None:
    handed = 0
    for _ in range(int(1.5 * dirty.MAX_HOLD_S)):
        places.touch_file("/photos/webcam.jpg")
        clock.now += 1.0
        handed += places.due() is not None
    assert handed == 1


def test_a_burst_is_remembered_as_folders_and_then_as_everything(
    places: DirtyPlaces, clock: Clock
) -> None:
    for number in range(3 * dirty.MAX_FILES):
        places.touch_file(f"/photos/{number % 7}/{number}.jpg")
        assert len(places) <= dirty.MAX_FILES + 7
    clock.now += 3
    work = places.due()
    assert work is not None
    assert set(work.folders) == {Path(f"/photos/{number}") for number in range(7)}
    for number in range(2 * dirty.MAX_FILES):
        places.touch_file(f"/photos/{number}/a.jpg")
        assert len(places) <= dirty.MAX_FILES + dirty.MAX_FOLDERS
    clock.now += 3
    assert places.due() == Work(everything=True)


def test_many_files_of_a_folder_are_handed_over_as_the_folder(
    places: DirtyPlaces, clock: Clock
) -> None:
    for number in range(dirty.FOLDER_ABOVE + 1):
        places.touch_file(f"/photos/many/{number}.jpg")
    places.touch_file("/photos/few/0.jpg")
    clock.now += 3
    expected = Work(folders=(Path("/photos/many"),), files=(Path("/photos/few/0.jpg"),))
    assert places.due() == expected


def test_a_crowded_folder_gets_in_under_constant_change(places: DirtyPlaces, clock: Clock) -> None:
    for number in range(dirty.MAX_FILES + 1):
        places.touch_file(f"/photos/many/{number}.jpg")
    waited = 0
    while places.due() is None:
        places.touch_file(f"/photos/many/{waited}.jpg")
        clock.now += 1.0
        waited += 1
        assert waited < 40


def test_what_changed_while_it_was_read_is_due_again_ever_later(
    places: DirtyPlaces, clock: Clock
) -> None:
    file = Path("/photos/a.jpg")
    places.touch_file(str(file))
    waits = []
    clock.now += 3
    for _ in range(dirty.MAX_ATTEMPTS):
        work = places.due()
        assert work == Work(files=(file,))
        places.finish(work, left=[file])
        started = clock.now
        while places.due() is None:
            clock.now += 1.0
        places.put_back(work)
        waits.append(clock.now - started)
        clock.now += 3
    assert waits == sorted(waits)
    assert waits[0] < 5
    assert waits[-1] >= 300
    work = places.due()
    assert work is not None
    places.finish(work, left=[file])
    clock.now += 1000
    assert places.due() is None, "now the rescan has to find it"


def test_what_could_not_be_looked_at_is_remembered(places: DirtyPlaces, clock: Clock) -> None:
    for work in (
        Work(everything=True),
        Work(files=(Path("/photos/a.jpg"),), folders=(Path("/photos/new"),)),
    ):
        places.put_back(work)
        clock.now += 3
        assert places.due() == work
    places.finish(Work(everything=True), left=[Path(f"/p/{n}") for n in range(30_000)])
    assert len(places) <= 1
    clock.now += 301
    assert places.due() == Work(everything=True)


SIGNS = st.lists(
    st.tuples(
        st.sampled_from(["file", "folder", "seen", "wait", "due"]),
        st.sampled_from(["a", "a/b", "a/b/c", "d", "d/e"]),
    ),
    max_size=40,
)


@settings(max_examples=80)
@given(signs=SIGNS)
def test_no_sign_of_change_is_ever_lost(signs: list[tuple[str, str]]) -> None:
    clock = Clock()
    places = DirtyPlaces(quiet_s=2.0, max_wait_s=30.0, clock=clock)
    owed: set[str] = set()

    def take() -> None:
        work = places.due()
        if work is not None:
            assert work.places
            got = [str(place) for place in work.places]
            owed.difference_update(
                path for path in list(owed) if any(f"{path}/".startswith(f"{g}/") for g in got)
            )

    for what, name in signs:
        path = f"/photos/{name}"
        if what == "wait":
            clock.now += 1.0
        elif what == "due":
            take()
        else:
            owed.add(path)
            call = {
                "file": places.touch_file,
                "folder": places.touch_folder,
                "seen": places.see_file,
            }
            call[what](path)
    for _ in range(3):
        clock.now += 31
        take()
    assert not owed
    assert len(places) == 0


def test_waits_double_up_to_the_longest_and_begin_anew() -> None:
    backoff = Backoff(1.0, 5.0)
    assert [backoff.next_s() for _ in range(5)] == [1, 2, 4, 5, 5]
    backoff.reset()
    assert backoff.next_s() == 1


# --- where events arrive, and being gentle -------------------------------------------------------

MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
nas:/photos /mnt/nas nfs4 rw 0 0
//nas/my\\040photos /mnt/my\\040photos cifs rw 0 0
me@host: /home/me/far fuse.sshfs rw 0 0
/dev/sdb1 /media/stick fuseblk rw 0 0
C:\\134 /mnt/c 9p rw 0 0
tmpfs /mnt/nas/local tmpfs rw 0 0
"""


@pytest.mark.parametrize(
    ("folder", "found"),
    [
        ("/home/me/Photos", None),
        ("/mnt/nas", "nfs4 at /mnt/nas"),
        ("/mnt/nas/2019", "nfs4 at /mnt/nas"),
        ("/mnt/nas/local/a", None),
        ("/mnt/my photos", "cifs at /mnt/my photos"),
        ("/home/me/far/away", "fuse.sshfs at /home/me/far"),
        ("/home/me", "fuse.sshfs at /home/me/far"),
        ("/media/stick/DCIM", None),
        ("/mnt/c/Users", "9p at /mnt/c"),
        ("/mnt/nassau", None),
    ],
)
def test_network_drives_are_known_by_their_mounts(folder: str, found: str | None) -> None:
    assert silent_mount(Path(folder), MOUNTS) == found


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="Linux's folder of supplies")
@pytest.mark.parametrize(
    ("supplies", "expected"),
    [
        ({}, None),
        ({"AC": {"type": "Mains", "online": "1"}}, False),
        ({"BAT0": {"type": "Battery", "status": "Discharging"}}, True),
        ({"BAT0": {"type": "Battery", "status": "Charging"}}, False),
        (
            {
                "AC": {"type": "Mains", "online": "0"},
                "BAT0": {"type": "Battery", "status": "Discharging"},
                "BAT1": {"type": "Battery", "status": "Full"},
            },
            True,
        ),
        (
            {
                "AC": {"type": "Mains", "online": "1"},
                "BAT0": {"type": "Battery", "status": "Discharging"},
            },
            False,
        ),
        ({"mouse": {"type": "Battery", "status": "Discharging", "scope": "Device"}}, None),
    ],
)
def test_the_battery_is_known_by_the_power_supplies(
    tmp_path: Path, supplies: dict[str, dict[str, str]], expected: bool | None
) -> None:
    for name, values in supplies.items():
        (tmp_path / name).mkdir()
        for key, value in values.items():
            (tmp_path / name / key).write_text(value + "\n")
    assert on_battery(tmp_path) is expected
    assert on_battery(tmp_path / "nowhere") is None


@pytest.mark.skipif(sys.platform == "win32", reason="nice is POSIX's")
def test_low_priority_holds_for_the_process_and_is_taken_once() -> None:
    script = (
        "import os; from indexer.priority import lower_priority; before = os.nice(0);"
        "lower_priority(); lower_priority(); print(before, os.nice(0))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    before, after = map(int, done.stdout.split())
    assert after == max(before, 10)


# --- a real library, a real observer, a real model ----------------------------------------------


class Watching:
    """A watcher that a test steps, and what it told."""

    def __init__(
        self, library: Path, chosen: Settings, options: WatchOptions, clock: Clock
    ) -> None:
        self.told: list[Notice] = []
        self.clock = clock
        self.tried = 0  # runs, also those that failed

        def settings_of(opened: Library) -> Settings:
            self.tried += 1
            kept = {name: opened.settings().get(name) for name in ("model", "sidecar_text")}
            flags = {**vars(chosen), **kept}
            return resolve(flags, environment={})

        self.watcher = Watcher(
            library,
            settings_of=settings_of,
            tell=self.told.append,
            options=options,
            clock=clock,
        )
        self.watcher.start()

    def until(self, happened: Callable[[], object]) -> None:
        """Steps until something is so."""
        deadline = time.monotonic() + PATIENCE_S
        while not happened():
            assert time.monotonic() < deadline, [notice.line for notice in self.told]
            self.watcher.step()
            time.sleep(0.02)

    def until_idle(self) -> None:
        self.until(lambda: not len(self.watcher.dirty))

    def heard(self, event: str) -> list[Notice]:
        return [notice for notice in self.told if notice.event == event]

    def total(self, what: str) -> int:
        return sum(notice.facts[what] for notice in self.heard("run"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(3):
        paint(tmp_path / "photos" / f"{number}.png", number)
    settle(tmp_path / "photos")
    return tmp_path / "photos"


@pytest.fixture
def chosen(tiny_model_dir: Path, library_path: Path) -> Settings:
    flags = {
        "model": f"local-dir:{tiny_model_dir}",
        "runtime": "torch",
        "library": library_path,
        "threads": 1,
    }
    return resolve(flags, environment={})


@pytest.fixture
def library(library_path: Path, photos: Path, chosen: Settings) -> Iterator[Library]:
    with Library.open(library_path, create=True) as opened:
        index_library(opened, [photos], settings=chosen)
        yield opened


@pytest.fixture
def watch(library: Library, chosen: Settings) -> Iterator[Callable[..., Watching]]:
    """Starts a watcher on the library of three photos, and lets it have its first look."""
    started: list[Watching] = []

    def start(**options: Any) -> Watching:
        given = WatchOptions(**{"quiet_s": QUIET_S, **options})
        watching = Watching(library.path, chosen, given, Clock(running=True))
        started.append(watching)
        watching.until(lambda: watching.heard("run"))
        watching.until_idle()
        return watching

    yield start
    for watching in started:
        watching.watcher.close()


def names(library: Library) -> list[str]:
    items = [int(item) for item in library.present_items()]
    return sorted(path.name for paths in library.paths(items).values() for path in paths)


def test_what_is_added_renamed_and_deleted_is_followed(
    watch: Callable[..., Watching], library: Library, photos: Path
) -> None:
    watching = watch()
    paint(photos / "new" / "3.png", 3)
    watching.until(lambda: "3.png" in names(library))
    assert watching.total("embedded") == 1
    item = library.item_at(photos / "0.png")
    (photos / "0.png").rename(photos / "new" / "renamed.png")
    watching.until(lambda: "renamed.png" in names(library))
    assert library.item_at(photos / "new" / "renamed.png") == item
    (photos / "1.png").unlink()
    watching.until(lambda: "1.png" not in names(library))
    (photos / "new").rename(photos / "moved")
    watching.until(lambda: library.item_at(photos / "moved" / "renamed.png") == item)
    paint(photos / "moved" / "4.png", 4)  # a moved folder is still watched
    watching.until(lambda: "4.png" in names(library))
    shutil.rmtree(photos / "moved")
    watching.until(lambda: names(library) == ["2.png"])
    assert watching.total("embedded") == 2, "a rename costs none"


def test_an_exported_album_is_kept_current(
    watch: Callable[..., Watching], library: Library, photos: Path, tmp_path: Path
) -> None:
    library.albums.save("All", "format:png")
    folder = tmp_path / "album"
    export_album(library, Searcher(library), "All", folder)
    watching = watch()
    paint(photos / "new.png", 9)
    watching.until(lambda: watching.heard("album"))
    assert (folder / "new.png").resolve() == photos / "new.png"
    (photos / "new.png").unlink()
    watching.until(lambda: len(watching.heard("album")) == 2)
    assert not (folder / "new.png").is_symlink()


def test_hidden_files_other_files_and_the_librarys_own_are_no_change(
    library: Library, chosen: Settings, photos: Path
) -> None:
    inside = Library.open(photos / "own", create=True)
    with inside:
        index_library(inside, [photos], settings=chosen)
        watching = Watching(inside.path, chosen, WatchOptions(quiet_s=QUIET_S), Clock(running=True))
        watching.until(lambda: watching.heard("run"))
        watching.until_idle()
        (photos / "own" / "thumbs" / "x.webp").write_bytes(b"x")
        paint(photos / ".cache" / "a.png", 5)
        (photos / ".a.png.part").write_bytes(b"x")
        (photos / "notes.log").write_bytes(b"x")
        time.sleep(3 * QUIET_S)
        assert len(watching.watcher.dirty) == 0
        watching.watcher.close()


@pytest.mark.parametrize("files", [1_000, pytest.param(10_000, marks=pytest.mark.soak)])
def test_a_burst_ends_complete(
    watch: Callable[..., Watching], library: Library, photos: Path, files: int
) -> None:
    watching = watch()
    picture = bytearray(paint(photos.parent / "one.bmp", 9).read_bytes())
    for number in range(files):
        folder = photos / str(number % 10)
        folder.mkdir(exist_ok=True)
        picture[-4:] = number.to_bytes(4, "little")  # the last pixel: no two are alike
        (folder / f"{number}.bmp").write_bytes(picture)
        if number % 200 == 0:
            watching.watcher.step()
    watching.until_idle()
    assert library.counts().files == files + 3
    assert library.counts().items == files + 3
    assert watching.total("new_failures") == 0


def test_a_file_written_in_pieces_is_indexed_once_and_whole(
    watch: Callable[..., Watching],
    library: Library,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[str] = []
    original = Decoder.ask

    def noted(
        decoder: Decoder, request: dict[str, Any], timeout_s: float
    ) -> tuple[dict[str, Any], bytes]:
        if request["do"] == "open":
            opened.append(Path(request["path"]).name)
        return original(decoder, request, timeout_s)

    monkeypatch.setattr(Decoder, "ask", noted)
    watching = watch(quiet_s=1.0)
    whole = paint(photos.parent / "whole.png", 11).read_bytes()
    enough = threading.Event()

    def write_slowly() -> None:
        with (photos / "slow.png").open("wb", buffering=0) as file:
            written = 0
            while not enough.wait(0.05):
                file.write(whole[written : written + 1])
                written += 1
            file.write(whole[written:])

    writer = threading.Thread(target=write_slowly)
    writer.start()
    try:
        paint(photos / "quick.png", 12)
        watching.until(lambda: "quick.png" in names(library))
        assert opened == ["quick.png"], "it holds up no other"
    finally:
        enough.set()
        writer.join()
    watching.until(lambda: "slow.png" in names(library))
    watching.until_idle()
    assert opened == ["quick.png", "slow.png"]
    assert watching.total("new_failures") == 0


def test_polling_finds_changes_and_waits_for_half_written_files_too(
    watch: Callable[..., Watching], library: Library, photos: Path
) -> None:
    watching = watch(poll_s=0.1, quiet_s=0.5)
    (notice,) = watching.heard("polling")
    assert (notice.facts["folder"], notice.facts["reason"]) == (photos, "as asked")
    whole = paint(photos.parent / "whole.png", 11).read_bytes()
    with (photos / "slow.png").open("wb", buffering=0) as file:
        for start in range(0, len(whole), len(whole) // 10):
            file.write(whole[start : start + len(whole) // 10])
            watching.watcher.step()
            time.sleep(0.1)
    (photos / "0.png").rename(photos / "renamed.png")
    (photos / "1.png").unlink()
    watching.until(lambda: names(library) == ["2.png", "renamed.png", "slow.png"])
    assert watching.total("embedded") == 1
    assert watching.total("new_failures") == 0


@on_linux
def test_lost_events_are_answered_with_a_scan(
    watch: Callable[..., Watching],
    library: Library,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from watchdog.observers.inotify_c import InotifyConstants, InotifyFD

    original = InotifyFD._read_event_buffer
    reading = threading.Event()
    lost = threading.Event()

    def overflowing(inotify: InotifyFD, size: int) -> bytes:
        """What the kernel gives when its queue was full: the events are gone, this is left."""
        reading.set()
        read = original(inotify, size)
        if not read or lost.is_set():
            return read
        lost.set()
        return struct.pack("iIII", -1, InotifyConstants.IN_Q_OVERFLOW, 0, 0)

    watching = watch()
    monkeypatch.setattr(InotifyFD, "_read_event_buffer", overflowing)
    # The reader still waits in the original, until there is something to read.
    (photos / ".hidden").touch()
    assert reading.wait(PATIENCE_S)
    (photos / "deep").mkdir()
    paint(photos / "deep" / "3.png", 3)
    watching.until(lambda: watching.heard("overflow"))
    monkeypatch.undo()
    watching.until(lambda: "3.png" in names(library))
    assert len(watching.heard("overflow")) == 1
    paint(photos / "deep" / "4.png", 4)  # a folder whose own event was lost is watched
    watching.until(lambda: "4.png" in names(library))


def failing_add_watch(name: str, code: int) -> Callable[[int, bytes, int], int]:
    """The system's inotify_add_watch, but with an error for folders of this name."""
    from watchdog.observers import inotify_c

    original = inotify_c.inotify_add_watch

    def add_watch(descriptor: int, path: bytes, mask: int) -> int:
        if Path(os.fsdecode(path)).name == name:
            ctypes.set_errno(code)
            return -1
        return original(descriptor, path, mask)

    return add_watch


@on_linux
@pytest.mark.parametrize("when", ["at the start", "while watching"])
def test_a_reached_limit_is_told_with_its_remedy_and_the_folder_is_polled(
    watch: Callable[..., Watching],
    library: Library,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
) -> None:
    from watchdog.observers import inotify_c

    add_watch = failing_add_watch("deep", errno.ENOSPC)
    monkeypatch.setattr(inotify_c, "inotify_add_watch", add_watch)
    monkeypatch.setattr(watched_roots, "POLL_S", 0.1)
    if when == "at the start":
        (photos / "deep").mkdir()
        watching = watch()
    else:
        watching = watch()
        (photos / "deep").mkdir()
        watching.until(lambda: watching.heard("limit"))
    paint(photos / "deep" / "3.png", 3)
    watching.until(lambda: "3.png" in names(library))
    (notice,) = watching.heard("limit")
    assert "\n" not in notice.line
    assert str(photos) in notice.line
    assert "sudo sysctl fs.inotify.max_user_watches=" in notice.line
    monkeypatch.undo()  # the limit is raised: noticed by the next rescan
    watching.clock.now += 7 * 3600
    watching.until(lambda: len(watching.heard("watching")) == 2)
    paint(photos / "deep" / "4.png", 4)
    watching.until(lambda: "4.png" in names(library))


@on_linux
def test_without_a_free_inotify_instance_folders_are_polled(
    watch: Callable[..., Watching],
    library: Library,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from watchdog.observers import inotify_c

    def no_instance() -> int:
        ctypes.set_errno(errno.EMFILE)
        return -1

    monkeypatch.setattr(inotify_c, "inotify_init", no_instance)
    monkeypatch.setattr(watched_roots, "POLL_S", 0.1)
    watching = watch()
    (notice,) = watching.heard("limit")
    assert "sudo sysctl fs.inotify.max_user_instances=" in notice.line
    paint(photos / "3.png", 3)
    watching.until(lambda: "3.png" in names(library))


def test_a_folder_that_is_unplugged_and_comes_back_is_watched_again(
    watch: Callable[..., Watching], library: Library, photos: Path
) -> None:
    watching = watch()
    photos.rename(photos.with_name("unplugged"))
    watching.clock.now += 6
    watching.until(lambda: watching.heard("gone"))
    watching.until_idle()
    assert names(library) == ["0.png", "1.png", "2.png"]
    paint(photos.with_name("unplugged") / "3.png", 3)
    shutil.copytree(photos.with_name("unplugged"), photos)  # another disk, the same place
    watching.clock.now += 6
    watching.until(lambda: "3.png" in names(library))
    paint(photos / "4.png", 4)
    watching.until(lambda: "4.png" in names(library))
    assert len(watching.heard("gone")) == len(watching.heard("back")) == 1


def test_a_folder_added_by_another_process_is_watched(
    watch: Callable[..., Watching], library: Library, chosen: Settings, tmp_path: Path
) -> None:
    watching = watch()
    other = paint(tmp_path / "other" / "3.png", 3).parent
    index_library(library, [other], settings=chosen)
    watching.clock.now += 6
    watching.until(lambda: other in watching.watcher.roots.paths)
    paint(other / "4.png", 4)
    watching.until(lambda: "4.png" in names(library))
    with library.writer() as writer:
        writer.forget(other)
    watching.clock.now += 6
    watching.until(lambda: other not in watching.watcher.roots.paths)


def test_a_sidecar_and_an_ignore_file_are_followed(
    watch: Callable[..., Watching], library: Library, photos: Path
) -> None:
    watching = watch()
    (photos / "1.txt").write_text("a red bicycle")
    watching.until(lambda: watching.heard("run")[-1].facts["everything"] is False)
    watching.until_idle()
    (photos / ".clipsearchignore").write_text("0.png\n")
    watching.until(lambda: names(library) == ["1.png", "2.png"])
    (photos / ".clipsearchignore").unlink()
    watching.until(lambda: names(library) == ["0.png", "1.png", "2.png"])
    (photos / "private").mkdir()
    (photos / "0.png").rename(photos / "private" / "0.png")
    watching.until(lambda: library.item_at(photos / "private" / "0.png") is not None)
    (photos / "private" / ".nomedia").touch()
    watching.until(lambda: names(library) == ["1.png", "2.png"])


def test_what_texts_beside_pictures_hold_is_read_as_another_process_chose(
    watch: Callable[..., Watching], library: Library, photos: Path
) -> None:
    watching = watch()
    (photos / "1.txt").write_text("red_bicycle\nstreet\n")
    (item,) = library.tags.items_at(photos / "1.png")
    watching.until(lambda: len(library.words_of(item).captions) == 2)
    watching.until_idle()
    library.set_setting("sidecar_text", "tags")
    watching.clock.now += 6
    watching.until(lambda: len(library.words_of(item).tags) == 2)
    assert library.words_of(item).captions == ()


def test_a_model_chosen_by_another_process_is_filled(
    watch: Callable[..., Watching], library: Library, tmp_path: Path
) -> None:
    watching = watch()
    other = f"local-dir:{save_model(tmp_path / 'other-model', VIT, seed=5)}"
    library.set_setting("model", other)
    watching.clock.now += 6

    def is_active() -> bool:
        active = library.active_space()
        return active is not None and active.origin == other

    watching.until(is_active)
    watching.until_idle()
    runs = len(watching.heard("run"))
    for _ in range(3):
        watching.clock.now += 6
        watching.watcher.step()
    assert len(watching.heard("run")) == runs


def test_a_locked_library_is_waited_for_and_told_once(
    watch: Callable[..., Watching], library: Library, photos: Path
) -> None:
    watching = watch()
    with library.writer():
        paint(photos / "3.png", 3)
        for _ in range(4):
            watching.until(lambda: len(watching.watcher.dirty))
            watching.clock.now += 40
            time.sleep(0.1)
            watching.watcher.step()
        assert len(watching.heard("waiting")) == 1
    watching.clock.now += 40
    watching.until(lambda: "3.png" in names(library))
    assert len(watching.heard("recovered")) == 1


def test_trouble_is_told_once_tried_again_ever_later_and_survived(
    watch: Callable[..., Watching], library: Library, photos: Path, tmp_path: Path
) -> None:
    watching = watch()
    model = save_model(tmp_path / "other-model", VIT, seed=5)
    model.rename(tmp_path / "away")
    library.set_setting("model", f"local-dir:{model}")
    watching.clock.now += 6
    watching.until(lambda: watching.heard("error"))
    tried, before = watching.tried, time.monotonic()
    while time.monotonic() < before + 4 * QUIET_S:
        watching.watcher.step()
    assert watching.tried == tried, "no busy loop"
    paint(photos / "3.png", 3)
    for _ in range(10):
        watching.clock.now += 700
        watching.watcher.step()
    (error,) = watching.heard("error")
    assert "other-model" in error.line
    (tmp_path / "away").rename(model)
    watching.clock.now += 700
    watching.until(lambda: "3.png" in names(library))
    assert len(watching.heard("recovered")) == 1


def test_a_replaced_library_is_opened_again(
    watch: Callable[..., Watching], library: Library, photos: Path, tmp_path: Path
) -> None:
    watching = watch()
    library.backup(tmp_path / "copy.db")
    for file in library.path.glob("library.db*"):
        file.unlink()
    (tmp_path / "copy.db").rename(library.path / "library.db")
    paint(photos / "3.png", 3)
    watching.until_idle()
    watching.until(lambda: watching.total("embedded"))
    watching.until_idle()
    with Library.open(library.path) as restored:
        assert "3.png" in names(restored)


def test_the_model_stays_loaded_between_runs_and_is_let_go_when_idle(
    library: Library, chosen: Settings, photos: Path
) -> None:
    clock = Clock()
    loader = KeptLoader(chosen, keep_s=600, clock=clock)
    index_library(library, settings=chosen, loader=loader)
    assert not loader.is_loaded, "nothing was new"
    encoders = set()
    for number in range(3, 6):
        paint(photos / f"{number}.png", number)
        assert index_library(library, settings=chosen, loader=loader).embedded == 1
        encoders.add(id(loader._encoder))
        clock.now += 590
        loader.release_if_idle()
    assert len(encoders) == 1
    clock.now += 20
    loader.release_if_idle()
    assert not loader.is_loaded
    paint(photos / "6.png", 6)
    assert index_library(library, settings=chosen, loader=loader).embedded == 1


def traced_bytes() -> int:
    """What is allocated, but for Python's own table of interned names.

    The names of many tests fill it. When pathlib adds the one that is too many, it doubles, at once
    and by megabytes, whatever runs then.
    """
    traces = tracemalloc.take_snapshot().traces
    interning = [t.size for t in traces if t.traceback[-1].filename.endswith("/pathlib.py")]
    table = max(interning, default=0)
    return sum(trace.size for trace in traces) - (table if table > 1_000_000 else 0)


@on_linux
def test_days_of_watching_do_not_grow(
    watch: Callable[..., Watching], library: Library, photos: Path
) -> None:
    watching = watch()
    watching.watcher._tell = watching.watcher.roots._tell = lambda _notice: None
    picture = paint(photos / "a.png", 7)

    def cycle(number: int) -> None:
        """A file comes, is written again, goes; now and then what came is really indexed."""
        picture.rename(photos / f"{number}-renamed.png")
        (photos / f"{number}-renamed.png").rename(picture)
        (photos / f"{number}.jpg").write_bytes(b"x")
        (photos / f"{number}.jpg").unlink()
        (photos / f"folder{number}").mkdir()
        (photos / f"folder{number}").rmdir()
        if number % 60 == 0:
            watching.until(lambda: len(watching.watcher.dirty))
            watching.until_idle()
        else:
            watching.watcher.step()
        watching.clock.now += 6

    for number in range(60):
        cycle(number)
    gc.collect()
    tracemalloc.start()
    try:
        before = traced_bytes()
        for number in range(60, 360):
            cycle(number)
            assert len(watching.watcher.dirty) < 100
        watching.until_idle()
        gc.collect()
        grown = traced_bytes() - before
    finally:
        tracemalloc.stop()
    print(f"grown by {grown:,} bytes")
    assert grown < 300_000
    observer = watching.watcher.roots._events._observer
    assert observer is not None
    watching.until(lambda: observer.event_queue.qsize() < 100)  # the last ones may be under way
    assert len(observer._inotify._watch_for_wd) == 1, "gone folders are not watched"
    assert names(library) == ["0.png", "1.png", "2.png", "a.png"]


# --- as people run it ----------------------------------------------------------------------------


@on_linux
@pytest.mark.soak
def test_a_burst_that_overflows_the_kernels_queue_ends_complete(
    library: Library, photos: Path, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    with told.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "clipsearch", "watch", "--json", "--runtime", "torch"],
            env={**os.environ, "CLIPSEARCH_LIBRARY": str(library.path)},
            stdout=output,
        )

    def wait_for(happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 300
        while not happened():
            assert time.monotonic() < deadline, told.read_text()
            assert process.poll() is None
            time.sleep(0.2)

    try:
        wait_for(lambda: '"run"' in told.read_text())
        process.send_signal(signal.SIGSTOP)
        picture = bytearray(paint(tmp_path / "one.bmp", 9).read_bytes())
        for number in range(10_000):  # four events each; the queue holds 16,384
            picture[-4:] = number.to_bytes(4, "little")
            (photos / f"{number}.bmp").write_bytes(picture)
        process.send_signal(signal.SIGCONT)
        wait_for(lambda: library.counts().items == 10_003)
        process.terminate()
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()
    events = [json.loads(line)["event"] for line in told.read_text().splitlines()]
    assert events.count("overflow") == 1
    assert "failure" not in events


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals for other processes")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"]
)
def test_a_signal_ends_the_command_cleanly(
    library: Library, photos: Path, number: int, code: int
) -> None:
    flags = ["--json", "--runtime", "torch", "--threads", "1", "--gentle", "--quiet-time", "0.2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "clipsearch", "watch", *flags],
        env={**os.environ, "CLIPSEARCH_LIBRARY": str(library.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    assert ready == {"event": "watching", "folders": [str(photos)]}
    first = json.loads(process.stdout.readline())
    assert (first["event"], first["everything"], first["unchanged"]) == ("run", True, 3)
    (photos / "0.png").rename(photos / "renamed.png")
    second = json.loads(process.stdout.readline())
    assert (second["event"], second["moved"], second["embedded"]) == ("run", 1, 0)
    process.send_signal(number)
    started = time.monotonic()
    rest, told = process.communicate(timeout=60)
    assert process.returncode == code, told
    assert time.monotonic() - started < 10, "2 s, and some for a busy machine"
    assert told.startswith("Watching 1 folder\n")
    assert "Traceback" not in told
    assert rest == ""
    assert library.check().problems == []


def test_a_wrong_flag_and_a_library_that_is_not_there_are_named(
    run_cli: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    done = run_cli("watch", "--poll", "0")
    assert (done.returncode, "--poll must be at least 1, not 0" in done.stderr) == (2, True)
    done = run_cli("watch")
    assert (done.returncode, "There is no library" in done.stderr) == (21, True)
