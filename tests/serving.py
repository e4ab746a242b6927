"""Starts the real server on a free port, for the tests of the server and of the page."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

START_TIMEOUT_S = 90
STOP_TIMEOUT_S = 30


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Served:
    """A running server: where it is, what it said, and plain requests to it."""

    process: subprocess.Popen[str]
    url: str = ""
    lines: list[str] = field(default_factory=list)
    patience_s: float = 30.0

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def ask(
        self,
        path: str,
        headers: dict[str, str] | None = None,
        *,
        method: str = "GET",
        body: bytes | None = None,
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.patience_s)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, found, answer.read())
        finally:
            connection.close()

    def stop(self, by: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(by)
        return self.process.wait(STOP_TIMEOUT_S)


def index(library: Path, folder: Path, model: str) -> None:
    """Fills a library through the command line."""
    command = [sys.executable, "-m", "clipsearch", "index", str(folder)]
    done = subprocess.run(
        [*command, "--library", str(library), "--model", model],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@contextmanager
def running_server(
    library: Path, *flags: str, environment: dict[str, str] | None = None
) -> Iterator[Served]:
    """``clipsearch serve`` as a process of its own, until the block ends."""
    command = [sys.executable, "-m", "clipsearch", "serve", "--library", str(library)]
    process = subprocess.Popen(
        [*command, "--port", "0", *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    served = Served(process)
    ready = threading.Event()

    def listen() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            served.lines.append(line)
            if found := re.search(r"Serving .* at (http://\S+)", line):
                served.url = found.group(1)
                ready.set()
        ready.set()

    reader = threading.Thread(target=listen, daemon=True)
    reader.start()
    try:
        ready.wait(START_TIMEOUT_S)
        assert served.url, "".join(served.lines)
        yield served
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(STOP_TIMEOUT_S)
        reader.join(STOP_TIMEOUT_S)
        assert process.stderr is not None
        process.stderr.close()
