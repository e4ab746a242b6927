"""A pool of decoder processes: a file that crashes or hangs one costs itself and nothing else."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from queue import LifoQueue
from types import TracebackType
from typing import Any

from clipsearch.errors import SystemLimitError
from clipsearch.process_limits import NOT_FOR_DECODERS
from clipsearch.processes import own_command, own_environment
from indexer.messages import BrokenMessageError, receive, send

# Limits of time, for what computes nothing and yet does not end: a dead network drive, a deadlock.
# What computes too much is ended earlier by the process's own limit of computing.
OPEN_S = 120.0
DECODE_S = 60.0
PROGRAM = ("-m", "indexer.decoder_process")
_STARTS = 3  # tried before a decoder counts as one that cannot be started
_START_PAUSE_S = 0.2
_WATCH_EVERY_S = 0.5
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
# A picture's memory is kept for the next one: glibc would give it back to the system each time,
# and getting it again page by page is an eighth of a decoder's work. Bytes.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}
# Windows: Ctrl-C goes to a whole group, so decoders get one of their own.
_NEW_GROUP = 0x200 if sys.platform == "win32" else 0

# What a codec that runs into damage gets from the system. Every other signal comes from people and
# programs that want the process to end, whatever file it has in hand.
_CRASHES = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS")
_TOO_MUCH_COMPUTING = "SIGPROF"
_NO_MEMORY = "SIGKILL"
_WINDOWS_CTRL_C = 0xC000013A
# How versions that took every end for the file's fault put it.
_CUT_SHORT = re.compile(r"decoding it (crashed|ended) the decoder \(.*\)")


class DecoderDiedError(Exception):
    """The process ended in the middle of a file; the message says why, for people.

    ``is_settled``: the same file would do it again, so it need not be tried until it changes.
    ``by_the_file``: False where something from outside ended it, which says nothing of the file.
    """

    def __init__(self, message: str, *, is_settled: bool, by_the_file: bool = True) -> None:
        super().__init__(message)
        self.is_settled = is_settled
        self.by_the_file = by_the_file


def was_cut_short(reason: str) -> bool:
    """True for a recorded reason that may only say that someone ended the decoder."""
    return _CUT_SHORT.fullmatch(reason) is not None


class Decoder:
    """One decoder process, started when it is first asked and again after it died."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._process: subprocess.Popen[bytes] | None = None
        self._has_started = False  # it has said so itself
        self._starting = threading.Lock()
        self._deadline: float | None = None
        self._overdue = False
        self._closed = False

    @property
    def is_closed(self) -> bool:
        """True once it was ended for good."""
        return self._closed

    def ask(self, request: dict[str, Any], timeout_s: float) -> tuple[dict[str, Any], bytes]:
        """Sends a request and returns its first answer.

        DecoderDiedError if there is none, SystemLimitError if the process cannot be started.
        """
        process = self._started(timeout_s)
        self._overdue = False
        self._deadline = time.monotonic() + timeout_s
        try:
            assert process.stdin is not None  # noqa: S101 - opened as a pipe
            send(process.stdin, request)
        except (OSError, ValueError):  # ValueError: it was closed meanwhile
            raise self._died(process) from None
        return self.answer(timeout_s)

    def answer(self, timeout_s: float) -> tuple[dict[str, Any], bytes]:
        """The next answer to the last request."""
        process = self._process
        if process is None:
            raise _stopped()
        return self._receive(process, timeout_s)

    def end_if_overdue(self, now: float) -> None:
        """Kills the process when its time is over; called by the pool's watch."""
        deadline, process = self._deadline, self._process
        if deadline is not None and process is not None and now > deadline:
            self._overdue = True
            process.kill()

    def give_time(self, seconds: float) -> None:
        """Puts off the end of its time, by as long as nobody was running."""
        if self._deadline is not None:
            self._deadline += seconds

    def close(self) -> None:
        """Ends the process for good; one that is in the middle of a file is killed."""
        with self._starting:
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

    def _started(self, timeout_s: float) -> subprocess.Popen[bytes]:
        """The process, which has said that it is ready: until then no file can be at fault."""
        failed = ""
        for attempt in range(_STARTS):
            if attempt:
                time.sleep(_START_PAUSE_S)
            process = self._running()
            if self._has_started:
                return process
            self._overdue = False
            try:
                self._receive(process, timeout_s)
            except DecoderDiedError as error:
                if self._closed:
                    raise
                failed = str(error)
            else:
                self._has_started = True
                return process
        raise SystemLimitError(
            what=f"A process that opens pictures could not be started ({failed})",
            advice="Close other programs or raise the limits of memory, processes and open "
            "files (ulimit -a), then run this again. Nothing is lost",
        )

    def _receive(
        self, process: subprocess.Popen[bytes], timeout_s: float
    ) -> tuple[dict[str, Any], bytes]:
        self._deadline = time.monotonic() + timeout_s
        try:
            assert process.stdout is not None  # noqa: S101 - opened as a pipe
            return receive(process.stdout)
        except (BrokenMessageError, ValueError):  # ValueError: it was closed meanwhile
            raise self._died(process) from None
        finally:
            self._deadline = None

    def _running(self) -> subprocess.Popen[bytes]:
        with self._starting:
            if self._closed:
                raise _stopped()
            if self._process is not None and self._process.poll() is not None:
                self._end()  # between two files, so no file did it
            if self._process is None:
                self._has_started = False
                try:
                    with _without_signals():
                        self._process = subprocess.Popen(
                            own_command(*PROGRAM, str(self._max_pixels)),
                            stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE,
                            stderr=subprocess.DEVNULL,  # codecs are talkative, say nothing of use
                            env=own_environment(**_ONE_THREAD, **_KEEP_MEMORY),
                            start_new_session=True,  # Ctrl-C and a closed terminal are not for it
                            creationflags=_NEW_GROUP,
                        )
                except OSError as error:
                    raise SystemLimitError(
                        what="A process that opens pictures could not be started "
                        f"({error.strerror or error})",
                        advice="Raise the limits of memory, processes and open files "
                        "(ulimit -a), then run this again. Nothing is lost",
                    ) from error
            return self._process

    def _died(self, process: subprocess.Popen[bytes]) -> DecoderDiedError:
        self._end()
        process.kill()  # it may have closed its stream and live on
        code = process.wait()
        if self._closed:
            return _stopped()
        if self._overdue:
            return DecoderDiedError("decoding it did not end and was stopped", is_settled=False)
        return _end_by(code)


def _stopped() -> DecoderDiedError:
    return DecoderDiedError("the run was stopped", is_settled=False, by_the_file=False)


@contextlib.contextmanager
def _without_signals() -> Iterator[None]:
    """What is started within never gets what is sent to end a group of processes.

    Blocked signals stay blocked in a new process, from its first instruction. Another thread of
    this process takes them meanwhile.
    """
    if sys.platform == "win32":
        yield
        return
    names = [getattr(signal, name) for name in NOT_FOR_DECODERS]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, names)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_by(code: int) -> DecoderDiedError:
    """What an exit code of a process in the middle of a file means."""
    if code == _WINDOWS_CTRL_C:
        code = -signal.SIGINT
    if code >= 0:
        return DecoderDiedError(
            f"decoding this file ended the decoder (exit code {code})", is_settled=True
        )
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name == _NO_MEMORY:
        # It is the system's, short of memory: it may have more next time.
        return DecoderDiedError(
            "the system ended the decoder, likely for want of memory", is_settled=False
        )
    if name == _TOO_MUCH_COMPUTING:
        return DecoderDiedError(
            "decoding it took too much computing and was stopped", is_settled=True
        )
    if name in _CRASHES:
        return DecoderDiedError(f"decoding this file crashed the decoder ({name})", is_settled=True)
    return DecoderDiedError(
        f"the decoder was ended by another program ({name})", is_settled=False, by_the_file=False
    )


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
        try:
            self._watch.start()
        except RuntimeError as error:
            raise SystemLimitError(
                what=f"A thread could not be started ({error})",
                advice="Raise the limits of memory and processes (ulimit -a)",
            ) from error

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
        looked_at = time.monotonic()
        while not self._closing.wait(_WATCH_EVERY_S):
            now = time.monotonic()
            asleep_s = now - looked_at - _WATCH_EVERY_S
            looked_at = now
            for decoder in self._decoders:
                if asleep_s > _WATCH_EVERY_S:  # Ctrl-Z, or a machine that stood still
                    decoder.give_time(asleep_s)
                decoder.end_if_overdue(now)
