"""clipsearch index as people run it: exit codes, what is printed where, interruption."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from models import named
from PIL import Image

from clipsearch.library import Library

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(4):
        paint(folder / f"{number}.png", number)
    return folder


@pytest.fixture
def model(tiny_model_dir: Path) -> list[str]:
    """The flags that choose the small model."""
    return ["--model", f"local-dir:{tiny_model_dir}"]


def paint(path: Path, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((80, 60)).save(path)


def test_the_first_run_tells_what_it_did_and_the_second_that_nothing_is_new(
    call_cli: Run, photos: Path, model: list[str]
) -> None:
    first = call_cli("index", photos, *model, "--json")
    assert first.returncode == 0, first.stderr
    record = json.loads(first.stdout.splitlines()[-1])
    assert record["added"] == record["embedded"] == 4
    assert record["model"] == named(model[1])
    assert "4 added" in first.stderr
    second = call_cli("index")
    assert second.returncode == 0
    assert second.stdout == "", "only --json prints on stdout"
    assert "4 unchanged" in second.stderr


def test_quiet_says_nothing(call_cli: Run, photos: Path, model: list[str]) -> None:
    done = call_cli("index", photos, *model, "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_100_means_that_this_run_met_a_new_failure(
    call_cli: Run, photos: Path, model: list[str]
) -> None:
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    (photos / "empty.png").touch()
    done = call_cli("index", photos, *model, "--json")
    assert done.returncode == 100, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    failures = {Path(line["path"]).name: line["failure"] for line in lines if "failure" in line}
    assert set(failures) == {"broken.jpg", "empty.png"}
    assert "empty" in failures["empty.png"]
    assert lines[-1]["added"] == 4
    assert "clipsearch info --failures" in done.stderr
    again = call_cli("index")
    assert again.returncode == 0, "the same failures are not new"
    listed = call_cli("info", "--failures").stdout
    assert "broken.jpg: " in listed
    assert "empty.png: " in listed
    in_json = [
        json.loads(line) for line in call_cli("info", "--failures", "--json").stdout.splitlines()
    ]
    assert {Path(line["path"]).name for line in in_json} == set(failures)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--batch-size", "0"], "--batch-size must be at least 1"),
        (["--threads", "-1"], "threads must be positive"),
        (["--max-pixels", "0"], "max_pixels must be positive"),
        (["--max-pixels", "many"], "--max-pixels"),
        (["--runtime", "abacus"], "--runtime"),
    ],
)
def test_a_wrong_flag_is_named_and_nothing_is_made(
    call_cli: Run, photos: Path, library_path: Path, flags: list[str], told: str
) -> None:
    done = call_cli("index", photos, *flags)
    assert done.returncode == 2
    assert told in done.stderr
    assert not library_path.exists()


def test_a_file_in_place_of_a_folder_is_told_what_to_name(call_cli: Run, photos: Path) -> None:
    done = call_cli("index", photos / "0.png")
    assert done.returncode == 2
    assert f"name the folder it is in: {photos}" in done.stderr


def test_a_model_that_is_not_there_leaves_the_library_as_it_was(
    call_cli: Run, photos: Path, model: list[str], tmp_path: Path, library_path: Path
) -> None:
    assert call_cli("index", photos, *model).returncode == 0
    done = call_cli("index", "--model", f"local-dir:{tmp_path / 'nowhere'}")
    assert 10 <= done.returncode < 100
    assert "nowhere" in done.stderr
    record = json.loads(call_cli("info", "--json").stdout)
    assert (record["model"], record["items"]) == (named(model[1]), 4)
    assert call_cli("models", "drop", "local-dir:nowhere").returncode == 26
    assert call_cli("index").returncode == 0
    with Library.open(library_path) as library:
        assert library.settings()["model"] == named(model[1])


def test_flags_of_the_run_are_taken(call_cli: Run, photos: Path, model: list[str]) -> None:
    flags = ["--threads", "1", "--batch-size", "2", "--device", "cpu", "--precision", "f32"]
    flags += ["--runtime", "torch"]
    assert call_cli("index", photos, *model, *flags).returncode == 0
    (space,) = json.loads(call_cli("info", "--json").stdout)["spaces"]
    assert (space["runtime"], space["precision"], space["embedded"]) == ("torch-cpu", "f32", 4)
    paint(photos / "large.png", 9)
    limited = call_cli("index", "--max-pixels", "100")
    assert limited.returncode == 100
    assert "large.png" in call_cli("info", "--failures").stdout


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_on_a_terminal_a_bar_shows_the_rate_and_the_time_left(
    photos: Path, library_path: Path, model: list[str]
) -> None:
    import pty

    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "clipsearch", "index", str(photos), *model],
        env={**os.environ, "CLIPSEARCH_LIBRARY": str(library_path)},
        stderr=follower,
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            chunk = os.read(leader, 4096)
        except OSError:  # the other side is closed
            break
        if not chunk:
            break
        shown += chunk
    os.close(leader)
    assert process.wait(timeout=120) == 0
    text = shown.decode()
    assert "4/4 files" in text
    assert "images/s" in text
    assert "left" in text
