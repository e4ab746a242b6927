"""The command that keeps a library current as files change: watch."""

from __future__ import annotations

import signal
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from clipsearch import errors
from clipsearch.command import Command, add_json_argument, add_library_argument, print_json, say
from clipsearch.config import Settings, resolve
from clipsearch.errors import UsageError
from clipsearch.library import Library
from indexer.priority import lower_priority


def _configure(parser: ArgumentParser) -> None:
    add_library_argument(parser)
    parser.add_argument(
        "--poll",
        type=float,
        metavar="SECONDS",
        help="look at all folders this often instead of waiting for events; network drives, where "
        "events do not arrive, are looked at every 5 minutes anyway",
    )
    parser.add_argument(
        "--quiet-time",
        type=float,
        default=2.0,
        metavar="SECONDS",
        help="how long a file must not have changed before it is read (default 2)",
    )
    parser.add_argument(
        "--rescan-every",
        type=float,
        default=6.0,
        metavar="HOURS",
        help="also look at everything again, in case an event was lost (default 6)",
    )
    parser.add_argument(
        "--gentle",
        action="store_true",
        help="let other programs go first, and pause while on battery",
    )
    parser.add_argument(
        "--runtime", choices=["auto", "torch", "compiled"], help="what runs the model (auto)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="default: as many as cores")
    add_json_argument(parser)
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")
    parser.epilog = (
        "Ends cleanly on Ctrl-C (exit code 130) and on SIGTERM (exit code 0); what is done is\n"
        "saved. Folders that clipsearch index adds meanwhile are watched, too."
    )


def _run(arguments: Namespace) -> int:
    _check(arguments)
    path = resolve(vars(arguments)).library
    Library.open(path).close()  # no library is an error; all later trouble is waited out
    with _stoppable() as stop:
        if arguments.gentle:
            lower_priority()  # before the model and the events start their threads
        from indexer.watched_roots import Notice
        from indexer.watching import Watcher, WatchOptions

        def settings_of(library: Library) -> Settings:
            return resolve(vars(arguments), library.settings())

        def tell(notice: Notice) -> None:
            if arguments.json:
                print_json({"event": notice.event, **notice.facts})
            if notice.line and (not arguments.quiet or notice.event in ("error", "limit")):
                say(notice.line)

        watcher = Watcher(
            path,
            settings_of=settings_of,
            tell=tell,
            options=WatchOptions(
                quiet_s=arguments.quiet_time,
                poll_s=arguments.poll,
                rescan_s=arguments.rescan_every * 3600.0,
                gentle=arguments.gentle,
            ),
            should_stop=stop.is_wanted,
        )
        watcher.run()
    return stop.exit_code


def _check(arguments: Namespace) -> None:
    limits: dict[str, tuple[Any, float]] = {
        "--poll": (arguments.poll, 1.0),
        "--quiet-time": (arguments.quiet_time, 0.1),
        "--rescan-every": (arguments.rescan_every, 0.01),
    }
    for flag, (value, least) in limits.items():
        if value is not None and not value >= least:  # also refuses nan
            raise UsageError(reason=f"{flag} must be at least {least:g}, not {value:g}")


class _Stop:
    exit_code = errors.DONE

    def __init__(self) -> None:
        self._wanted = False

    def is_wanted(self) -> bool:
        return self._wanted

    def ask(self, number: int, _frame: FrameType | None) -> None:
        if self._wanted:  # asked twice: at once; what was committed stays
            raise KeyboardInterrupt
        self._wanted = True
        if number == signal.SIGINT:
            self.exit_code = errors.INTERRUPTED


@contextmanager
def _stoppable() -> Iterator[_Stop]:
    """Turns the first Ctrl-C or SIGTERM into a wish that is granted after the batch in hand."""
    stop = _Stop()
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


watch = Command(_configure, _run)
