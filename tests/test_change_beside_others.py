"""A change of models as people live through it: watch, serve and the change, a process each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image
from serving import Served, index, running_server

from clipsearch.config import resolve
from clipsearch.encoders import load_encoder
from clipsearch.errors import LibraryLockedError
from clipsearch.library import Library
from clipsearch.searcher import Searcher
from tests.models import VIT, compile_here, named, save_model

PHOTOS = 60
PATIENCE_S = 90.0
TEXT = "cutoff:none a dog"
QUESTION = "/api/search?top=1000&q=" + quote(TEXT)
Run = Callable[..., CompletedProcess[str]]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot halt a process")


def paint(path: Path, seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(noise).resize((80, 60)).save(path)
    return path.read_bytes()


def until(happened: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.02)


@contextmanager
def process(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A clipsearch command, until the block ends."""
    with subprocess.Popen(
        [sys.executable, "-m", "clipsearch", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ,
    ) as running:
        try:
            yield running
        finally:
            if running.poll() is None:
                running.kill()  # also one that was halted


class Asking:
    """Someone who searches without a pause, and notes what is answered."""

    def __init__(self, served: Served) -> None:
        self.answers: list[tuple[str, int]] = []  # the model, and how many hits
        self.failures: list[str] = []
        self._served = served
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Asking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._done.wait(0.02):  # the one processor that there may be is for the change
            try:
                reply = self._served.ask(QUESTION)
                answer = json.loads(reply.body)
            except (OSError, ValueError) as error:
                self.failures.append(repr(error))
                continue
            if reply.status == 200:
                self.answers.append((answer["model"], len(answer["hits"])))
            else:
                self.failures.append(str(answer))


class Rest:
    """What a program sees of the library over REST."""

    def __init__(self, served: Served) -> None:
        self._served = served

    def models(self) -> dict[str, Any]:
        reply = self._served.ask("/api/models")
        assert reply.status == 200, reply.body
        told: dict[str, Any] = json.loads(reply.body)
        return told

    def state(self, address: str) -> str:
        states = {one["address"]: one["state"] for one in self.models()["models"]}
        return str(states.get(named(address), ""))

    def scores(self) -> list[float]:
        return [hit["score"] for hit in json.loads(self._served.ask(QUESTION).body)["hits"]]

    def best(self, photo: bytes) -> tuple[str, str]:
        """The model that answered, and the name of the photo that comes first."""
        body = (
            b'--X\r\nContent-Disposition: form-data; name="picture"; filename="a.png"\r\n'
            b"Content-Type: image/png\r\n\r\n" + photo + b"\r\n--X--\r\n"
        )
        kind = {"Content-Type": "multipart/form-data; boundary=X"}
        path = "/api/search?top=1&q=" + quote("cutoff:none")
        reply = self._served.ask(path, kind, method="POST", body=body)
        assert reply.status == 200, reply.body
        answer = json.loads(reply.body)
        return answer["model"], Path(answer["hits"][0]["path"]).name


def scores_by(address: str, library: Library) -> Any:
    """What the searches of a server that has only ever known this model would give."""
    settings = resolve({}, library.settings())
    searcher = Searcher(library, encoder=load_encoder(address, settings=settings))
    return pytest.approx([hit.score for hit in searcher.search(TEXT, top=1000)], abs=1e-4)


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Another model than ``tiny_model_dir``, compiled already like it."""
    address = f"local-dir:{save_model(tmp_path_factory.mktemp('models') / 'new', VIT, seed=3)}"
    compile_here(address)
    return address


def halt_while_filling(
    change: subprocess.Popen[str], library: Library, rest: Rest, to: str
) -> None:
    """Stops the change's process once it fills, where nobody else has to wait for it."""
    until(lambda: change.poll() is not None or rest.state(to) == "next", "the fill begins")
    while True:
        change.send_signal(signal.SIGSTOP)
        try:
            with library.writer():
                return
        except LibraryLockedError:  # halted within a commit
            change.send_signal(signal.SIGCONT)


def test_watch_and_serve_go_through_a_change_and_back_and_nothing_is_lost(
    tmp_path: Path, library_path: Path, tiny_model_dir: Path, new: str, run_cli: Run
) -> None:
    old, photos = f"local-dir:{tiny_model_dir}", tmp_path / "photos"
    for number in range(PHOTOS):
        paint(photos / f"{number}.png", number)
    index(library_path, photos, old)
    here = ("--library", library_path)
    with (
        Library.open(library_path) as library,
        process("watch", *here, "--quiet-time", "0.2", "--json") as watch,
        running_server(library_path) as served,
    ):
        assert watch.stdout is not None
        assert any('"watching"' in line for line in watch.stdout)
        rest = Rest(served)
        assert rest.state(old) == "in use"
        with Asking(served) as asking:
            until(lambda: asking.answers, "the first answer")
            flags = (*here, "--batch-size", "1", "--threads", "1", "--json")
            with process("models", "use", new, *flags) as change:
                halt_while_filling(change, library, rest, new)
                told = rest.models()
                assert (told["fill"]["state"], told["fill"]["address"]) == ("running", named(new))
                assert [one["whole"] for one in told["models"]] == [True, False]
                during = paint(photos / "during.png", 1001)
                until(lambda: rest.best(during)[1] == "during.png", "the old model finds it")
                assert rest.state(old) == "in use"
                change.send_signal(signal.SIGCONT)
                said, _ = change.communicate(timeout=PATIENCE_S)
                assert change.returncode == 0, said
            assert rest.best(during) == (named(new), "during.png")
            assert rest.scores() == scores_by(new, library)
            assert rest.models()["fill"] is None
            after = paint(photos / "after.png", 1002)
            until(
                lambda: rest.best(after) == (named(new), "after.png"), "watch fills the new space"
            )

            back = run_cli("models", "back", "--threads", "1")
            assert back.returncode == 0, back.stderr
            assert [rest.state(one) for one in (old, new)] == ["in use", "before"]
            assert rest.best(after) == (named(old), "after.png")
            assert rest.scores() == scores_by(old, library)
            later = paint(photos / "later.png", 1003)
            until(
                lambda: rest.best(later) == (named(old), "later.png"), "watch fills the old space"
            )
            seen = len(asking.answers)
            until(lambda: len(asking.answers) > seen + 1, "whoever asks has asked since")
        watch.terminate()
        heard, _ = watch.communicate(timeout=PATIENCE_S)
        assert watch.returncode == 0
        assert '"failure"' not in heard

        assert asking.failures == []
        assert [model for model, _ in groupby(model for model, _ in asking.answers)] == [
            named(old),
            named(new),
            named(old),
        ]
        counts = [count for _, count in asking.answers]
        assert counts == sorted(counts), "no photo was missing, not even for a moment"
        assert (counts[0], counts[-1]) == (PHOTOS, PHOTOS + 3)
        assert library.counts().embedded == PHOTOS + 3
        assert library.check().problems == []
