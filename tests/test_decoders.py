"""Decoders: a file that crashes, hangs or eats memory costs its own row and nothing else."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clipsearch.config import Settings, resolve
from clipsearch.library import Library
from indexer import decoders, reading
from indexer.messages import BrokenMessageError, receive, send
from indexer.pipeline import index_library
from indexer.report import IndexReport

SOUND = decoders.PROGRAM
# A decoder whose codec is broken: what it does depends on the name of the file.
BROKEN_CODEC = """
import os, sys, time
import numpy as np
from indexer import decoder_process
sound = decoder_process.read_picture

def broken(data, *, name, **options):
    if "crash" in name:
        os.abort()
    if "exit" in name:
        os._exit(7)
    if "spin" in name:
        while True:
            pass
    if "sleep" in name:
        time.sleep(600)
    if "eat" in name:
        kept = [np.empty(1 << 27) for _ in range(1000)]
    if "noise" in name:
        os.write(1, b"libcodec: warning 17" * 100)
    return sound(data, name=name, **options)

decoder_process.read_picture = broken
decoder_process.main()
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        noise = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((80, 60)).save(folder / f"{number}.png")
    return folder


def add(photos: Path, name: str) -> None:
    noise = np.random.default_rng(len(name) + 99).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photos / name)


@pytest.fixture
def library(library_path: Path) -> Iterator[Library]:
    with Library.open(library_path, create=True) as opened:
        yield opened


@pytest.fixture
def index(
    library: Library,
    tiny_model_dir: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., IndexReport]:
    """Indexes the photos with the broken codec."""
    program = tmp_path / "broken.py"
    program.write_text(BROKEN_CODEC)
    monkeypatch.setattr(decoders, "PROGRAM", (str(program),))
    chosen = {"model": f"local-dir:{tiny_model_dir}", "runtime": "torch"}
    settings: Settings = resolve(chosen, environment={})

    def run(**options: object) -> IndexReport:
        return index_library(library, [photos], settings=settings, **options)  # type: ignore[arg-type]

    return run


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("crash.png", "crashed the decoder (SIGABRT)"),
        ("exit.png", "ended the decoder (exit code 7)"),
        ("eat.png", "not enough memory"),
    ],
)
def test_a_file_that_ends_its_decoder_costs_only_itself_and_is_not_tried_again(
    index: Callable[..., IndexReport], photos: Path, library: Library, name: str, reason: str
) -> None:
    add(photos, name)
    report = index()
    assert [failure.path.name for failure in report.failures] == [name]
    assert reason in report.failures[0].reason
    assert (report.added, library.counts().items) == (5, 5)
    again = index()
    assert (again.failures, again.known_failures, again.unchanged) == ([], 1, 5)


def test_a_file_that_computes_for_ever_is_ended(
    index: Callable[..., IndexReport], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "COMPUTE_S", 0.5)
    add(photos, "spin.png")
    started = time.monotonic()
    report = index()
    assert "took too much computing" in report.failures[0].reason
    assert report.added == 5
    assert time.monotonic() - started < 30


def test_a_file_that_waits_for_ever_is_ended_and_tried_again_at_the_next_run(
    index: Callable[..., IndexReport], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "DECODE_S", 1.0)
    monkeypatch.setattr(reading, "COMPUTE_S", 0.5)
    add(photos, "sleep.png")
    report = index()
    assert "did not end" in report.failures[0].reason
    assert report.added == 5
    monkeypatch.setattr(decoders, "PROGRAM", SOUND)
    assert index().added == 1


def test_what_a_codec_prints_does_not_reach_the_answers(
    index: Callable[..., IndexReport], photos: Path
) -> None:
    add(photos, "noise.png")
    assert (index().added, index().unchanged) == (6, 6)


def test_a_run_that_is_stopped_does_not_wait_for_a_file_that_hangs(
    index: Callable[..., IndexReport], photos: Path
) -> None:
    add(photos, "sleep.png")
    asked_at: list[float] = []

    def should_stop() -> bool:
        if not asked_at and done[-1] >= 5:
            asked_at.append(time.monotonic())
        return bool(asked_at)

    done = [0]
    report = index(progress=lambda count, _: done.append(count), should_stop=should_stop)
    assert report.interrupted
    assert time.monotonic() - asked_at[0] < 2
    assert report.failures == []


records = st.dictionaries(st.text(), st.integers() | st.text() | st.none(), max_size=5)


@given(record=records, attachment=st.binary(max_size=200))
def test_a_message_arrives_as_it_was_sent(record: dict[str, object], attachment: bytes) -> None:
    stream = io.BytesIO()
    send(stream, record, attachment)
    stream.seek(0)
    assert receive(stream) == (record, attachment)


@given(st.binary(max_size=100))
def test_noise_is_no_message(noise: bytes) -> None:
    try:
        record, _ = receive(io.BytesIO(noise))
    except BrokenMessageError:
        return
    assert isinstance(record, dict)


def test_no_code_of_the_present_folder_is_run(
    photos: Path, tiny_model_dir: Path, tmp_path: Path
) -> None:
    """A photo folder from someone else may hold a numpy.py, and people run us from there."""
    for name in ("numpy", "PIL", "torch", "indexer"):
        (tmp_path / f"{name}.py").write_text("import os; os._exit(99)")
    program = (
        "import os, sys; sys.path.remove(''); from clipsearch.cli import main; "
        f"os.chdir({str(tmp_path)!r}); sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["index", photos, "--library", tmp_path / "own.clipsearch"]
    arguments += ["--model", f"local-dir:{tiny_model_dir}", "--runtime", "auto", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["added"] == 5
    assert "could not be made" not in done.stderr
