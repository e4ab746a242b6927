"""The indexer's command: index."""

from __future__ import annotations

import signal
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
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
    show,
)
from clipsearch.config import SIDECAR_TEXTS, Settings, resolve
from clipsearch.errors import UsageError
from clipsearch.library import Library
from clipsearch.user_paths import expand_user
from indexer.pipeline import DEFAULT_BATCH_SIZE, index_library
from indexer.preview import preview
from indexer.priority import lower_priority, on_battery
from indexer.progress import Progress
from indexer.report import IndexReport

_BATTERY_CHECK_S = 15.0
_PAUSE_S = 0.5


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
    add_encoding_arguments(parser)
    parser.add_argument(
        "--max-pixels", type=int, metavar="N", help="refuse larger pictures (default 200000000)"
    )
    parser.add_argument(
        "--sidecar-text",
        choices=SIDECAR_TEXTS,
        help="what a .txt beside a picture holds: captions, one a line (default), tags, one a "
        "line or with commas, or nothing of interest; the library remembers it",
    )
    parser.add_argument(
        "--gentle",
        action="store_true",
        help="let other programs go first, and pause while the machine runs on its battery",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="look at names, sizes and times only, say what a run would do, and change nothing",
    )
    add_json_argument(parser)
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")
    parser.epilog = (
        "Ctrl-C stops after saving what is done; the next run goes on from there. Exit code 100\n"
        "means that this run met files it could not read: clipsearch info --failures lists them.\n"
        "With --json, each line is one event: progress, failure, and at the end the summary."
    )


def add_encoding_arguments(parser: ArgumentParser) -> None:
    """How the model is run."""
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


def _run(arguments: Namespace) -> int:
    if arguments.batch_size < 1:
        raise UsageError(reason=f"--batch-size must be at least 1, not {arguments.batch_size}")
    folders = [_checked(path) for path in arguments.paths]
    base = resolve(vars(arguments))
    exists = (base.library / "library.db").exists()
    if not folders and not exists:
        raise UsageError(
            reason=f"There is no library at {base.library} yet. "
            "Name a photo folder: clipsearch index ~/Photos"
        )
    if arguments.dry_run and not exists:
        return _preview(None, folders, arguments)
    with Library.open(base.library, create=True) as library:
        if not folders and not library.roots():
            raise UsageError(
                reason="This library has no folders yet. Name one: clipsearch index ~/Photos"
            )
        if arguments.dry_run:
            return _preview(library, folders, arguments)
        settings = resolve(vars(arguments), library.settings())
        report = _index(library, folders, settings, arguments)
    return _tell(report, arguments)


def _checked(path: Path) -> Path:
    path = expand_user(path)
    if not path.exists():
        raise UsageError(reason=f"There is no folder {path}")
    if not path.is_dir():
        raise UsageError(reason=f"{path} is a file; name the folder it is in: {path.parent}")
    return path.absolute()


def _preview(library: Library | None, folders: list[Path], arguments: Namespace) -> int:
    known = library.settings() if library is not None else {}
    text = resolve(vars(arguments), known).sidecar_text
    found = preview(library, folders, sidecar_text=text)
    if arguments.json:
        print_json({"event": "preview", **found.as_record()})
    else:
        for line in found.lines():
            show(line)
    return errors.DONE


def _index(
    library: Library, folders: list[Path], settings: Settings, arguments: Namespace
) -> IndexReport:
    shown = Progress(quiet=arguments.quiet, as_json=arguments.json)
    with interruptible() as stop:
        should_stop = stop.is_wanted
        if arguments.gentle:
            lower_priority()
            should_stop = _pausing_on_battery(stop.is_wanted, shown.say)
        try:
            return index_library(
                library,
                folders,
                settings=settings,
                verify_model=arguments.model is not None,
                model_of=lambda: resolve(vars(arguments), library.settings()).model,
                batch_size=arguments.batch_size,
                progress=shown.show,
                on_failure=shown.fail,
                notify=shown.say,
                should_stop=should_stop,
            )
        finally:
            shown.end()


def _pausing_on_battery(
    is_stop_wanted: Callable[[], bool],
    notify: Callable[[str], None],
    is_on_battery: Callable[[], bool | None] = on_battery,
) -> Callable[[], bool]:
    """``is_stop_wanted``, but while the machine is on its battery it answers only to stop."""
    checked_at = -_BATTERY_CHECK_S

    def should_stop() -> bool:
        nonlocal checked_at
        if time.monotonic() - checked_at < _BATTERY_CHECK_S:
            return is_stop_wanted()
        if is_on_battery():
            notify("On battery: paused until the machine is plugged in (Ctrl-C stops)")
            while is_on_battery() and not is_stop_wanted():
                time.sleep(_PAUSE_S)
            if not is_stop_wanted():
                notify("Plugged in: going on")
        checked_at = time.monotonic()
        return is_stop_wanted()

    return should_stop


def _tell(report: IndexReport, arguments: Namespace) -> int:
    if arguments.json:
        print_json({"event": "summary", **report.as_record()})
    if not arguments.quiet:
        for note in report.notes:
            say(note)
        for line in report.lines():
            say(line)
    if report.interrupted:
        say("Interrupted; what is done is saved. Run the same command again to continue.")
        return errors.INTERRUPTED
    return errors.SOME_FILES_SKIPPED if report.failures else errors.DONE


class Stop:
    """A wish to stop, made by Ctrl-C or SIGTERM."""

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
def interruptible(*signals: signal.Signals) -> Iterator[Stop]:
    """Turns the first Ctrl-C, or other signal, into a wish that is granted between two batches."""
    stop = Stop()
    before = {one: signal.signal(one, stop.ask) for one in (signal.SIGINT, *signals)}
    try:
        yield stop
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


index = Command(_configure, _run)
