"""The indexer's command: index."""

from __future__ import annotations

import signal
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from clipsearch import errors
from clipsearch.command import (
    Command,
    add_json_argument,
    add_library_argument,
    add_model_argument,
    print_json,
    say,
)
from clipsearch.config import Settings, resolve
from clipsearch.errors import UsageError
from clipsearch.library import Library
from indexer.pipeline import DEFAULT_BATCH_SIZE, index_library
from indexer.report import IndexReport, duration

_BAR_WIDTH = 28
_BAR_EVERY_S = 0.1
_LINE_EVERY_S = 10.0  # where stderr is no terminal, such as a log


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "paths",
        nargs="*",
        type=Path,
        metavar="PATH",
        help="a photo folder; without one, all folders of the library are looked at again",
    )
    add_library_argument(parser)
    add_model_argument(
        parser, "the model to embed with; another than before fills new vectors beside the old"
    )
    parser.add_argument(
        "--runtime", choices=["auto", "torch", "compiled"], help="what runs the model (auto)"
    )
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], help="where (auto)")
    parser.add_argument(
        "--precision", choices=["auto", "f32", "bf16"], help="of the arithmetic (auto)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="default: as many as cores")
    parser.add_argument(
        "--batch-size",
        type=int,
        default=DEFAULT_BATCH_SIZE,
        metavar="N",
        help="pictures encoded at once (default %(default)s)",
    )
    parser.add_argument(
        "--max-pixels", type=int, metavar="N", help="refuse larger pictures (default 200000000)"
    )
    add_json_argument(parser)
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")
    parser.epilog = (
        "Ctrl-C stops after saving what is done; the next run goes on from there. Exit code 100\n"
        "means that this run met files it could not read: clipsearch info --failures lists them."
    )


def _run(arguments: Namespace) -> int:
    if arguments.batch_size < 1:
        raise UsageError(reason=f"--batch-size must be at least 1, not {arguments.batch_size}")
    folders = [_checked(path) for path in arguments.paths]
    base = resolve(vars(arguments))
    if not folders and not (base.library / "library.db").exists():
        raise UsageError(
            reason=f"There is no library at {base.library} yet. "
            "Name a photo folder: clipsearch index ~/Photos"
        )
    with Library.open(base.library, create=True) as library:
        if not folders and not library.roots():
            raise UsageError(
                reason="This library has no folders yet. Name one: clipsearch index ~/Photos"
            )
        settings = resolve(vars(arguments), library.settings())
        report = _index(library, folders, settings, arguments)
    return _tell(report, arguments)


def _checked(path: Path) -> Path:
    path = path.expanduser()
    if not path.exists():
        raise UsageError(reason=f"There is no folder {path}")
    if not path.is_dir():
        raise UsageError(reason=f"{path} is a file; name the folder it is in: {path.parent}")
    return path.absolute()


def _index(
    library: Library, folders: list[Path], settings: Settings, arguments: Namespace
) -> IndexReport:
    shown = Progress()
    with _interruptible() as stop:
        try:
            return index_library(
                library,
                folders,
                settings=settings,
                verify_model=arguments.model is not None,
                batch_size=arguments.batch_size,
                progress=None if arguments.quiet else shown.show,
                notify=None if arguments.quiet else shown.say,
                should_stop=stop.is_wanted,
            )
        finally:
            shown.end()


def _tell(report: IndexReport, arguments: Namespace) -> int:
    if arguments.json:
        for failure in report.failures:
            print_json({"path": failure.path, "failure": failure.reason})
        print_json(report.as_record())
    if not arguments.quiet:
        for note in report.notes:
            say(note)
        say(report.summary())
    if report.interrupted:
        say("Interrupted; what is done is saved. Run the same command again to continue.")
        return errors.INTERRUPTED
    return errors.SOME_FILES_SKIPPED if report.failures else errors.DONE


class Progress:
    """How far it is, on stderr: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._started = time.monotonic()
        self._shown_at = self._started
        self._has_bar = False

    def show(self, done: int, total: int) -> None:
        """``done`` of ``total`` files have been read."""
        now = time.monotonic()
        every = _BAR_EVERY_S if self._is_terminal else _LINE_EVERY_S
        if done == 0:
            self._started = self._shown_at = now
        finished = done == total and self._has_bar
        if not total or (now - self._shown_at < every and not finished):
            return
        self._shown_at = now
        rate = done / max(now - self._started, 1e-6)
        left = duration((total - done) / rate) if rate else "?"
        text = f"{done:,}/{total:,} files  {rate:,.0f} images/s  {left} left"
        if self._is_terminal:
            filled = "█" * (_BAR_WIDTH * done // total)
            sys.stderr.write(f"\r{filled:░<{_BAR_WIDTH}} {text}\x1b[K")
            sys.stderr.flush()
            self._has_bar = True
        else:
            say(text)

    def say(self, message: str) -> None:
        """A line that does not disturb the bar."""
        self.end()
        say(message)

    def end(self) -> None:
        """Leaves the bar's line."""
        if self._has_bar:
            sys.stderr.write("\n")
            self._has_bar = False


class _Stop:
    def __init__(self) -> None:
        self._wanted = False

    def is_wanted(self) -> bool:
        return self._wanted

    def ask(self, _signal: int, _frame: FrameType | None) -> None:
        if self._wanted:  # a second Ctrl-C: at once; what was committed stays
            raise KeyboardInterrupt
        self._wanted = True
        say("\nStopping after the pictures in hand (Ctrl-C again: at once) ...")


@contextmanager
def _interruptible() -> Iterator[_Stop]:
    """Turns the first Ctrl-C into a wish that is granted between two batches."""
    stop = _Stop()
    before = signal.signal(signal.SIGINT, stop.ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


index = Command(_configure, _run)
