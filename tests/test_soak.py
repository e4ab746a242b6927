"""The long proofs, in ``make soak``: 200 kills, a full disk, two indexers, readers, a wrong clock.

After each of them the library passes its check, nothing that was committed is gone, the next run
finishes the job, and nothing is embedded twice.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import clipsearch
from clipsearch import errors
from clipsearch.config import resolve
from clipsearch.encoders import compile_encoder
from clipsearch.library import Library
from tests.models import VIT, save_model

pytestmark = pytest.mark.soak
PHOTOS = 500  # several commits
KILLS = {"index": 110, "switch": 30, "search": 30, "watch": 30}

# Runs the command with a clock that is a year behind.
CLOCK_BACK = """
import sys, time
behind_ns = 365 * 86400 * 10**9
now_ns, now = time.time_ns, time.time
time.time_ns = lambda: now_ns() - behind_ns
time.time = lambda: now() - behind_ns / 1e9
from clipsearch.cli import main
sys.exit(main(sys.argv[1:]))
"""


@dataclass(frozen=True)
class Setting:
    """Photos, two models that are compiled already, and a library that is complete."""

    photos: Path
    model: str
    other: str
    cache: Path
    whole: Path
    seconds: float  # that a whole run takes

    def start(self, library: Path, *arguments: object, code: str = "") -> subprocess.Popen[str]:
        program = ["-c", code] if code else ["-m", "clipsearch"]
        environment = {
            **os.environ,
            "CLIPSEARCH_LIBRARY": str(library),
            "CLIPSEARCH_CACHE_DIR": str(self.cache),
        }
        return subprocess.Popen(
            [sys.executable, *program, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def run(self, library: Path, *arguments: object, code: str = "") -> tuple[int, str, str]:
        process = self.start(library, *arguments, code=code)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    def index(self, photos: Path | None = None, model: str = "") -> tuple[object, ...]:
        chosen = ("--model", model or self.model, "--runtime", "compiled", "--json")
        return ("index", photos or self.photos, *chosen)


def paint(folder: Path, numbers: range) -> Path:
    folder.mkdir(exist_ok=True)
    for number in numbers:
        noise = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number:04d}.png")
    return folder


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    folder = tmp_path_factory.mktemp("soak")
    photos = paint(folder / "photos", range(PHOTOS))
    models = [f"local-dir:{save_model(folder / f'model{seed}', VIT, seed=seed)}" for seed in (0, 3)]
    for model in models:
        assert compile_encoder(
            model, settings=resolve({"cache_dir": folder / "cache"}, environment={})
        )
    fresh = Setting(photos, models[0], models[1], folder / "cache", folder / "whole.clipsearch", 0)
    started = time.monotonic()
    code, _, err = fresh.run(fresh.whole, *fresh.index())
    assert code == 0, err
    return replace(fresh, seconds=time.monotonic() - started)


def committed(path: Path) -> dict[str, set[str]]:
    """By model, the contents that have a vector, in a library that passes its check."""
    if not (path / "library.db").exists():
        return {}
    with Library.open(path, create=True) as library:
        assert library.check().problems == []
        found = {}
        for space in library.spaces():
            items = library.items(sorted(library.embedded_ids(space.id))).values()
            found[space.origin] = {item.content_hash for item in items}
        return found


def prove_recovery(setting: Setting, library: Path, photos: Path, model: str) -> int:
    """Sound after a kill, completed by the next run, nothing lost or embedded twice."""
    before = committed(library)
    code, out, err = setting.run(library, *setting.index(photos, model))
    assert code == 0, err
    report = json.loads(out.splitlines()[-1])
    after = committed(library)
    for address, contents in before.items():
        assert contents <= after[address], "something committed is gone"
    pictures = len(list(photos.iterdir()))
    done = len(before.get(model, ()))
    assert len(after[model]) == pictures
    assert report["embedded"] == pictures - done, "something was embedded twice"
    with Library.open(library) as opened:
        active = opened.active_space()
        assert active is not None
        assert active.origin == model
        settings = resolve({"cache_dir": setting.cache}, opened.settings(), environment={})
        photo = photos / "0005.png"
        hits = clipsearch.similar(opened, photo, top=3, settings=settings, everything=True)
        assert len(hits) == 3
    return done


def kill_after(process: subprocess.Popen[str], delay_s: float) -> None:
    try:
        process.wait(delay_s)
    except subprocess.TimeoutExpired:
        process.kill()
    process.communicate()


@pytest.mark.parametrize("what", list(KILLS))
def test_killed_at_random_moments(setting: Setting, tmp_path: Path, what: str) -> None:
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    done: list[int] = []
    for number in range(KILLS[what]):
        library = tmp_path / f"{number}.clipsearch"
        model, photos, seconds = setting.model, setting.photos, setting.seconds
        command: tuple[object, ...] = setting.index()
        if what != "index":
            shutil.copytree(setting.whole, library)
        if what == "switch":
            model = setting.other
            command = setting.index(model=model)
        elif what == "search":
            shutil.rmtree(library / "index", ignore_errors=True)
            command, seconds = ("similar", photos / "0005.png"), seconds / 2
        elif what == "watch":
            photos = tmp_path / f"photos{number}"
            shutil.copytree(setting.photos, photos)
            assert setting.run(library, "roots", "move", setting.photos, photos)[0] == 0
            paint(photos, range(PHOTOS, PHOTOS + 100))
            command = ("watch", "--runtime", "compiled", "--quiet-time", "0.2")
        process = setting.start(library, *command)
        delay_s = chance.uniform(0, seconds)
        kill_after(process, delay_s)
        try:
            done.append(prove_recovery(setting, library, photos, model))
        except AssertionError as error:
            message = f"seed {seed}, kill {number} of {what} after {delay_s:.3f} s"
            raise AssertionError(message) from error
        shutil.rmtree(library)
        if photos != setting.photos:
            shutil.rmtree(photos)
    print(f"{what}: pictures committed before each of {len(done)} kills: {done}")


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own, of so many bytes."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_up_in_the_middle_of_a_batch(setting: Setting, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1500k") as disk:
        library = disk / "full.clipsearch"
        code, _, err = setting.run(library, *setting.index())
        assert code == errors.StorageError.exit_code, err
        assert "Nothing that was committed is lost" in err
        assert "Traceback" not in err
        saved = tmp_path / "saved.clipsearch"
        shutil.rmtree(library / "thumbs", ignore_errors=True)  # a cache: what people free first
        shutil.copytree(library, saved)
    prove_recovery(setting, saved, setting.photos, setting.model)


def test_two_indexers_at_once(setting: Setting, tmp_path: Path) -> None:
    library = tmp_path / "two.clipsearch"
    first = setting.start(library, *setting.index())
    while not (library / "writer.lock").exists():
        assert first.poll() is None
        time.sleep(0.01)
    codes = [setting.run(library, *setting.index())[0] for _ in range(3)]
    _, err = first.communicate(timeout=120)
    assert first.returncode == 0, err
    assert set(codes) <= {0, errors.LibraryLockedError.exit_code}
    assert errors.LibraryLockedError.exit_code in codes
    assert prove_recovery(setting, library, setting.photos, setting.model) == PHOTOS


def test_readers_search_all_the_while(setting: Setting, tmp_path: Path) -> None:
    library = tmp_path / "read.clipsearch"
    shutil.copytree(setting.whole, library)
    other = paint(tmp_path / "more", range(PHOTOS, PHOTOS + 300))
    stop, trouble, answers = threading.Event(), [], []

    def read() -> None:
        with Library.open(library) as opened:
            settings = resolve({"cache_dir": setting.cache}, opened.settings(), environment={})
            searcher = clipsearch.Searcher(opened, settings=settings)
            while not stop.is_set():
                try:
                    answers.append(len(searcher.search("cutoff:none", item=5, top=10)))
                except Exception as error:
                    trouble.append(error)
                    return

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for _ in range(3):  # killed twice, then let through
        process = setting.start(library, *setting.index(other))
        try:
            process.wait(setting.seconds / 3)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.communicate()
    code, _, err = setting.run(library, *setting.index(other))
    stop.set()
    for reader in readers:
        reader.join()
    assert code == 0, err
    assert trouble == []
    assert len(answers) > 10
    assert set(answers) == {10}
    assert len(committed(library)[setting.model]) == PHOTOS + 300


def test_a_clock_that_jumps_back(setting: Setting, tmp_path: Path) -> None:
    photos = paint(tmp_path / "photos", range(40))
    library = tmp_path / "clock.clipsearch"
    assert setting.run(library, *setting.index(photos))[0] == 0
    paint(photos, range(40, 60))
    code, out, err = setting.run(library, *setting.index(photos), code=CLOCK_BACK)
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["embedded"] == 20
    paint(photos, range(60, 70))
    code, out, err = setting.run(library, *setting.index(photos))
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["embedded"] == 10
    assert len(committed(library)[setting.model]) == 70
