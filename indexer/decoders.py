"""A pool of decoder processes: a file that crashes or hangs one costs itself and nothing else."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from queue import LifoQueue
from types import TracebackType
from typing import Any

from clipsearch.processes import own_command, own_environment
from indexer.messages import BrokenMessageError, receive, send

# Limits of time, for what computes nothing and yet does not end: a dead network drive, a deadlock.
# What computes too much is ended earlier by the process's own limit of computing.
OPEN_S = 120.0
DECODE_S = 60.0
PROGRAM = ("-m", "indexer.decoder_process")
_WATCH_EVERY_S = 0.5
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
# A picture's memory is kept for the next one: glibc would give it back to the system each time,
# and getting it again page by page is an eighth of a decoder's work. Bytes.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}


class DecoderDiedError(Exception):
    """The process ended in the middle of a file; the message says why, for people.

    ``is_settled``: the same file would do it again, so it need not be tried until it changes.
    """

    def __init__(self, message: str, *, is_settled: bool) -> None:
        super().__init__(message)
        self.is_settled = is_settled


class Decoder:
    """One decoder process, started when it is first asked and again after it died."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._process: subprocess.Popen[bytes] | None = None
        self._deadline: float | None = None
        self._overdue = False
        self._closed = False

    def ask(self, request: dict[str, Any], timeout_s: float) -> tuple[dict[str, Any], bytes]:
        """Sends a request and returns its first answer; DecoderDiedError if there is none."""
        process = self._running()
        self._overdue = False
        self._deadline = time.monotonic() + timeout_s
        try:
            assert process.stdin is not None  # noqa: S101 - opened as a pipe
            send(process.stdin, request)
        except OSError:
            raise self._died(process) from None
        return self.answer(timeout_s)

    def answer(self, timeout_s: float) -> tuple[dict[str, Any], bytes]:
        """The next answer to the last request."""
        process = self._running()
        self._deadline = time.monotonic() + timeout_s
        try:
            assert process.stdout is not None  # noqa: S101 - opened as a pipe
            return receive(process.stdout)
        except BrokenMessageError:
            raise self._died(process) from None
        finally:
            self._deadline = None

    def end_if_overdue(self, now: float) -> None:
        """Kills the process when its time is over; called by the pool's watch."""
        deadline, process = self._deadline, self._process
        if deadline is not None and process is not None and now > deadline:
            self._overdue = True
            process.kill()

    def close(self) -> None:
        """Ends the process for good; one that is in the middle of a file is killed."""
        self._closed = True
        self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        busy = self._deadline is not None
        if busy:
            process.kill()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._closed:
            raise DecoderDiedError("the run was stopped", is_settled=False)
        if self._process is None:
            self._process = subprocess.Popen(
                own_command(*PROGRAM, str(self._max_pixels)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # codecs are talkative, and say nothing of use
                env=own_environment(**_ONE_THREAD, **_KEEP_MEMORY),
            )
        return self._process

    def _died(self, process: subprocess.Popen[bytes]) -> DecoderDiedError:
        self._end()
        process.kill()  # it may have closed its stream and live on
        code = process.wait()
        if self._closed:
            return DecoderDiedError("the run was stopped", is_settled=False)
        if self._overdue:
            return DecoderDiedError("decoding it did not end and was stopped", is_settled=False)
        # A SIGKILL that is not ours is the system's, short of memory: it may have more next time.
        return DecoderDiedError(_cause(code), is_settled=code != -_SIGKILL)


_SIGKILL = 9


def _cause(code: int) -> str:
    if code == -_SIGKILL:
        return "the system ended the decoder, likely for want of memory"
    if hasattr(signal, "SIGPROF") and code == -signal.SIGPROF:
        return "decoding it took too much computing and was stopped"
    if code >= 0:
        return f"decoding it ended the decoder (exit code {code})"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"decoding it crashed the decoder ({name})"


class DecoderPool:
    """As many decoders as threads will borrow at once; a context manager."""

    def __init__(self, size: int, max_pixels: int) -> None:
        self._decoders = [Decoder(max_pixels) for _ in range(size)]
        self._free: LifoQueue[Decoder] = LifoQueue()  # a running one before one to be started
        for decoder in self._decoders:
            self._free.put(decoder)
        self._closing = threading.Event()
        self._watch = threading.Thread(target=self._end_overdue, name="decoder-watch", daemon=True)

    def __enter__(self) -> DecoderPool:
        self.start()
        return self

    def start(self) -> None:
        """Begins to watch over the time that files take; decoders start when they are asked."""
        self._watch.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._watch.join()

    def stop(self) -> None:
        """Ends all decoders, also in the middle of a file."""
        self._closing.set()
        for decoder in self._decoders:
            decoder.close()

    @contextlib.contextmanager
    def borrow(self) -> Iterator[Decoder]:
        """A decoder for one file at a time."""
        decoder = self._free.get()
        try:
            yield decoder
        finally:
            self._free.put(decoder)

    def _end_overdue(self) -> None:
        while not self._closing.wait(_WATCH_EVERY_S):
            now = time.monotonic()
            for decoder in self._decoders:
                decoder.end_if_overdue(now)
