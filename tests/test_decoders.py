"""Decoders: a file that crashes, hangs or eats memory costs its own row and nothing else."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sqlite3
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
from clipsearch.errors import SystemLimitError
from clipsearch.library import Library
from indexer import decoders, reading
from indexer.messages import BrokenMessageError, receive, send
from indexer.pipeline import index_library
from indexer.report import IndexReport

SOUND = decoders.PROGRAM
# A decoder whose codec is broken: what it does depends on the name of the file.
BROKEN_CODEC = """
import os, signal, sys, time
from pathlib import Path
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
    if "nap" in name:
        time.sleep(1.6)
    if "signal" in name:
        number = getattr(signal, Path(name).stem.split("-")[1])
        if number != signal.SIGKILL:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
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


# --- what ended the decoder was not the file -------------------------------------------------


@pytest.mark.parametrize("name", ["SIGTERM", "SIGPIPE"])
def test_a_decoder_that_someone_ended_costs_no_file(
    index: Callable[..., IndexReport],
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    library: Library,
    name: str,
) -> None:
    add(photos, f"signal-{name}.png")
    report = index()
    assert (report.failures, report.added) == ([], 5)
    assert [name in left.reason for left in report.left] == [True]
    assert not any(record.failure for record in library.files(library.roots()[0].id))
    monkeypatch.setattr(decoders, "PROGRAM", SOUND)
    again = index()
    assert (again.added, again.failures, again.known_failures) == (1, [], 0)


@pytest.mark.parametrize("number", sorted(signal.valid_signals() - {signal.SIGPROF}))
def test_only_what_a_crash_gives_is_the_files_fault(number: signal.Signals) -> None:
    crashes = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS")
    is_crash = number in [getattr(signal, name) for name in crashes]
    died = decoders._end_by(-number)
    assert died.is_settled == is_crash
    assert died.by_the_file == (is_crash or number == signal.SIGKILL)


def test_a_file_whose_decoder_the_system_killed_is_tried_again(
    index: Callable[..., IndexReport], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(photos, "signal-SIGKILL.png")
    assert "want of memory" in index().failures[0].reason
    monkeypatch.setattr(decoders, "PROGRAM", SOUND)
    assert index().added == 1


class Disturbed(subprocess.Popen):  # type: ignore[type-arg]
    """A process that gets what a stopped service and a closed terminal send, at once."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[call-overload]
        self.disturb()

    def disturb(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            self.send_signal(number)


def test_no_signal_to_end_programs_reaches_a_decoder_at_any_time(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Disturbed] = []

    def start(*arguments: object, **options: object) -> Disturbed:
        started.append(Disturbed(*arguments, **options))
        return started[0]

    monkeypatch.setattr(decoders.subprocess, "Popen", start)
    decoder = decoders.Decoder(1_000_000)
    try:
        for number in range(3):
            request = {"do": "open", "path": str(photos / f"{number}.png"), "max_pixels": 1000000}
            assert decoder.ask(request, 60)[0]["status"] == "open"
            started[0].disturb()
        assert len(started) == 1
        assert os.getpgid(started[0].pid) != os.getpgid(0)
    finally:
        decoder.close()


def test_this_process_still_hears_signals_after_a_decoder_was_started(photos: Path) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    decoder = decoders.Decoder(1_000_000)
    decoder.ask({"do": "open", "path": str(photos / "0.png"), "max_pixels": 1_000_000}, 60)
    decoder.close()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


@pytest.mark.parametrize("how", ["sys.exit(1)", "os.kill(os.getpid(), 15)", "os.abort()"])
def test_decoders_that_cannot_be_started_end_the_run_and_settle_nothing(
    index: Callable[..., IndexReport],
    library: Library,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    monkeypatch.setattr(decoders, "PROGRAM", ("-c", f"import os, sys; {how}"))
    monkeypatch.setattr(decoders, "_START_PAUSE_S", 0)
    with pytest.raises(SystemLimitError, match="could not be started"):
        index()
    assert library.files(library.roots()[0].id) == []
    monkeypatch.setattr(decoders, "PROGRAM", SOUND)
    assert index().added == 5


def test_a_decoder_whose_start_failed_once_is_started_again(
    index: Callable[..., IndexReport], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "failed"
    program = f"""
import os
from indexer import decoder_process
try:
    os.close(os.open({str(mark)!r}, os.O_CREAT | os.O_EXCL))
except FileExistsError:
    decoder_process.main()
"""
    monkeypatch.setattr(decoders, "PROGRAM", ("-c", program))
    assert (index().added, mark.exists()) == (5, True)


@pytest.mark.parametrize(
    "reason",
    [
        "decoding it crashed the decoder (SIGTERM)",
        "decoding it crashed the decoder (SIGINT)",
        "decoding it crashed the decoder (SIGABRT)",  # it may have been in its start
        "decoding it ended the decoder (exit code 1)",
    ],
)
def test_what_older_versions_took_for_the_files_fault_is_read_again(
    index: Callable[..., IndexReport],
    library: Library,
    monkeypatch: pytest.MonkeyPatch,
    reason: str,
) -> None:
    monkeypatch.setattr(decoders, "PROGRAM", SOUND)
    assert index().added == 5
    with contextlib.closing(sqlite3.connect(library.path / "library.db")) as connection, connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("UPDATE file SET item_id = NULL, failure = ?", (reason,))
        connection.execute("DELETE FROM item")
    again = index()
    assert (again.added, again.known_failures, again.failures) == (5, 0, [])


def test_a_decoder_ends_with_the_process_that_started_it(photos: Path, tmp_path: Path) -> None:
    add(photos, "sleep.png")
    program = tmp_path / "broken.py"
    program.write_text(BROKEN_CODEC)
    asking = f"""
from indexer import decoders
decoders.PROGRAM = ({str(program)!r},)
decoder = decoders.Decoder(1000000)
request = {{"path": {str(photos / "sleep.png")!r}, "max_pixels": 1000000}}
decoder.ask({{"do": "open", **request}}, 60)
print(decoder._process.pid, flush=True)
decoder.ask({{"do": "show", "target_side": 32, **request}}, 600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", asking], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(0.2)
        parent.kill()
    deadline = time.monotonic() + 10
    while _is_alive(pid):
        assert time.monotonic() < deadline, "the decoder lives on"
        time.sleep(0.02)


def _is_alive(pid: int) -> bool:
    """False also for a process that ended and that nobody has asked about yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_machine_that_stood_still_ends_no_decoder(
    index: Callable[..., IndexReport], photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(photos, "nap.png")
    clock, began = time.monotonic, time.monotonic()
    monkeypatch.setattr(reading, "DECODE_S", 20.0)
    done = [0]

    def after_sleep() -> float:
        now = clock()
        return now + (1000 if done[-1] >= 5 and now > began else 0)

    monkeypatch.setattr(decoders.time, "monotonic", after_sleep)
    report = index(progress=lambda count, _: done.append(count))
    assert (report.added, report.failures) == (6, [])


def test_less_memory_than_a_decoder_is_meant_to_have_is_not_the_files_fault() -> None:
    asking = """
import resource, sys
from clipsearch.process_limits import limit_memory
assert limit_memory(1_000_000)
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
assert not limit_memory(1_000_000)
"""
    subprocess.run([sys.executable, "-c", asking], check=True, timeout=60)


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
