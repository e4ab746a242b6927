"""SIGKILL at any moment: what was committed stays, is sound, and is never embedded again.

``make test`` kills at every named failpoint and at 8 random moments, ``make soak`` at 30 more.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import clipsearch
from clipsearch.config import resolve
from clipsearch.library import Library
from clipsearch.library.failpoints import NAMES, VARIABLE
from tests.models import VIT, compile_here, named, save_model

PHOTOS = 140
MANY_PHOTOS = 700  # enough for Ctrl-C to come in time
KILLED = -9
# The command, committing more often than it does for people: as many commits of fewer photos.
PROGRAM = """
import sys
from indexer import filling
filling.COMMIT_AFTER_FILES = 32
sys.argv[0] = "clipsearch"
from clipsearch.cli import run
run()
"""


@dataclass(frozen=True)
class Setting:
    """Photos, a model that is compiled already, and the seconds that a whole run takes."""

    photos: Path
    model: str
    cache: Path
    seconds: float = 0
    count: int = PHOTOS

    def start(
        self, library: Path, *arguments: object, failpoint: str = ""
    ) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "CLIPSEARCH_LIBRARY": str(library),
            "CLIPSEARCH_CACHE_DIR": str(self.cache),
            VARIABLE: failpoint,
        }
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def run(self, library: Path, *arguments: object, failpoint: str = "") -> tuple[int, str, str]:
        process = self.start(library, *arguments, failpoint=failpoint)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    @property
    def index(self) -> tuple[object, ...]:
        return ("index", self.photos, "--model", self.model, "--runtime", "compiled", "--json")


def make_photos(folder: Path, count: int) -> None:
    chance = np.random.default_rng(1)
    folder.mkdir()
    for number in range(count):
        noise = chance.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number:03d}.png")


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Setting:
    folder = tmp_path_factory.mktemp("crash")
    make_photos(folder / "photos", PHOTOS)
    started = time.monotonic()
    fresh = Setting(folder / "photos", f"local-dir:{tiny_model_dir}", resolve().cache_dir)
    code, _, err = fresh.run(folder / "whole.clipsearch", *fresh.index)
    assert code == 0, err
    return replace(fresh, seconds=time.monotonic() - started)


def committed(path: Path) -> set[str]:
    """The contents that have a vector, in a library that passes its check."""
    if not (path / "library.db").exists():
        return set()
    with Library.open(path, create=True) as library:  # a kill may have come before its tables
        assert library.check().problems == []
        space = library.active_space()
        ids = library.embedded_ids(space.id) if space else set()
        return {item.content_hash for item in library.items(sorted(ids)).values()}


def prove_recovery(setting: Setting, library: Path) -> int:
    """After a kill: sound, completed by the next run, nothing embedded twice, and searchable."""
    before = committed(library)
    code, out, err = setting.run(library, *setting.index)
    assert code == 0, err
    report = json.loads(out.splitlines()[-1])
    after = committed(library)
    assert before <= after, "something committed is gone"
    assert len(after) == setting.count
    assert report["embedded"] == setting.count - len(before), "something was embedded twice"
    with Library.open(library) as opened:
        assert len(clipsearch.similar(opened, setting.photos / "005.png", top=3)) == 3
    return len(before)


@pytest.mark.parametrize(
    "place",
    [
        "before-commit:1",
        "before-commit:3",
        "inside-commit:2",
        "inside-carrying:2",
        "after-commit:1",
    ],
)
def test_killed_at_a_commit(setting: Setting, tmp_path: Path, place: str) -> None:
    library = tmp_path / "killed.clipsearch"
    code, _, err = setting.run(library, *setting.index, failpoint=place)
    assert code == KILLED, err
    done = prove_recovery(setting, library)
    assert done > 0 or place == "before-commit:1"


@pytest.mark.parametrize("place", ["cache-half-written", "cache-before-manifest"])
def test_killed_while_the_search_cache_is_written(
    setting: Setting, tmp_path: Path, place: str
) -> None:
    library = tmp_path / "killed.clipsearch"
    assert setting.run(library, *setting.index)[0] == 0
    question = ("similar", setting.photos / "005.png", "--json")
    code, _, err = setting.run(library, *question, failpoint=place)
    assert code == KILLED, err
    code, out, err = setting.run(library, *question)
    assert code == 0, err
    assert setting.run(library, *question)[1] == out
    left = sorted(path.suffix for path in (library / "index").glob("*/*"))
    # vectors, manifest, ids, and what is relevant: nothing half-written stays
    assert left == [".faiss", ".json", ".npy", ".npz"]
    prove_recovery(setting, library)


def test_killed_at_the_switch_of_models(setting: Setting, tmp_path: Path) -> None:
    library = tmp_path / "killed.clipsearch"
    assert setting.run(library, *setting.index)[0] == 0
    other = f"local-dir:{save_model(tmp_path / 'other', VIT, seed=3)}"
    compile_here(other)
    index = ("index", "--model", other, "--runtime", "compiled", "--json")
    assert setting.run(library, *index, failpoint="before-switch")[0] == KILLED
    assert json.loads(setting.run(library, "info", "--json")[1])["model"] == named(setting.model)
    code, out, err = setting.run(library, *index)
    assert code == 0, err
    assert json.loads(out.splitlines()[-1])["embedded"] == 0
    assert json.loads(setting.run(library, "info", "--json")[1])["model"] == named(other)
    assert setting.run(library, "check")[0] == 0
    assert len(committed(library)) == PHOTOS


@pytest.mark.parametrize("place", ["inside-switch", "inside-drop", "after-drop"])
def test_killed_while_the_model_is_changed_or_dropped(
    setting: Setting, tmp_path: Path, place: str
) -> None:
    library = tmp_path / "killed.clipsearch"
    shutil.copytree(setting.photos.parent / "whole.clipsearch", library)
    other = f"local-dir:{save_model(tmp_path / 'other', VIT, seed=3)}"
    compile_here(other)
    use = ("models", "use", other, "--runtime", "compiled")
    if place == "inside-switch":
        assert setting.run(library, *use, failpoint=place)[0] == KILLED
        assert json.loads(setting.run(library, "info", "--json")[1])["model"] == named(
            setting.model
        )
    code, out, err = setting.run(library, *use, "--json")
    assert code == 0, err
    made = json.loads(out.splitlines()[-1])["embedded"]
    assert made == (0 if place == "inside-switch" else PHOTOS)
    if place != "inside-switch":
        drop = ("models", "drop", setting.model)
        assert setting.run(library, *drop, failpoint=place)[0] == KILLED
        if place == "inside-drop":
            assert setting.run(library, *drop)[0] == 0
    assert len(committed(library)) == PHOTOS
    with Library.open(library) as opened:
        held = {space.origin: space.embedded for space in opened.spaces()}
    old = {setting.model: PHOTOS} if place == "inside-switch" else {}
    assert held == {other: PHOTOS, **old}


def test_every_failpoint_is_killed_at() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in NAMES if f'"{name}' not in source] == []


def kill_at_random(setting: Setting, folder: Path, seed: int, kills: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    survived: list[int] = []
    for number in range(kills):
        library = folder / f"{number}.clipsearch"
        process = setting.start(library, *setting.index)
        delay = chance.uniform(0, setting.seconds)
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
        try:
            survived.append(prove_recovery(setting, library))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, kill {number} after {delay:.3f} s") from error
    print(f"pictures committed before each kill: {survived}")


def test_killed_at_8_random_moments(setting: Setting, tmp_path: Path) -> None:
    kill_at_random(setting, tmp_path, random.SystemRandom().randrange(10**6), 8)


@pytest.mark.soak
def test_killed_at_30_random_moments(setting: Setting, tmp_path: Path) -> None:
    kill_at_random(setting, tmp_path, random.SystemRandom().randrange(10**6), 30)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for another process")
@pytest.mark.parametrize("signals", [1, 2])
def test_ctrl_c_saves_what_is_done_and_the_next_run_does_the_rest(
    setting: Setting, tmp_path: Path, signals: int
) -> None:
    make_photos(tmp_path / "photos", MANY_PHOTOS)
    setting = replace(setting, photos=tmp_path / "photos", count=MANY_PHOTOS)
    library = tmp_path / "stopped.clipsearch"
    process = setting.start(library, *setting.index, "--batch-size", 2)
    deadline = time.monotonic() + 60
    while len(list(library.glob("thumbs/*/*"))) < 50:
        assert time.monotonic() < deadline, "it never began"
        time.sleep(0.02)
    for _ in range(signals):
        process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    done = prove_recovery(setting, library)
    assert done < MANY_PHOTOS
    if signals == 1:  # a second one ends it at once, also before the first commit
        assert done > 0
        assert "Run the same command again to continue" in err
