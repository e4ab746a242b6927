"""The tag command: by a vocabulary, by hand, and out to sidecars."""

from __future__ import annotations

import signal
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from clipsearch import errors
from clipsearch.command import (
    Command,
    add_json_argument,
    add_library_argument,
    print_json,
    say,
    show,
)
from clipsearch.commands import open_library
from clipsearch.counting import counted
from clipsearch.errors import NotInLibraryError, UsageError
from clipsearch.library import Library
from clipsearch.terminal import redraw
from clipsearch.user_paths import expand_user
from indexer.fields import clean_keywords

if TYPE_CHECKING:
    from indexer.sidecar_writing import SidecarChange

_DEFAULT_TOP_TAGS = 5  # clipsearch.tagging has it, too, but --help shall not import it
_LINE_EVERY_S = 10.0
_BAR_EVERY_S = 0.1
_EVENT_EVERY_S = 1.0
_STAGES = {
    "words": "encoding the vocabulary",
    "cut-offs": "finding cut-offs",
    "pictures": "tagging",
    "files": "sidecars",
}


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "paths",
        nargs="*",
        type=Path,
        metavar="PATH",
        help="with --add, --remove, --write-xmp: photos, or folders with all below them",
    )
    parser.add_argument(
        "--vocabulary",
        type=Path,
        metavar="FILE",
        help="your own words, one a line, or a hierarchy (default: about 2,700 everyday concepts)",
    )
    parser.add_argument(
        "--templates",
        metavar="DOMAIN|FILE",
        help="put all words into these sentences, such as satellite, sketch, imagenet, or the "
        "lines of a file (default: as the vocabulary says)",
    )
    parser.add_argument(
        "--top-tags",
        type=int,
        default=_DEFAULT_TOP_TAGS,
        metavar="N",
        help="at most N a photo, without those they imply (default %(default)s)",
    )
    parser.add_argument("--again", action="store_true", help="all photos, not only new ones")
    does = parser.add_mutually_exclusive_group()
    does.add_argument("--add", metavar="TAG", help="give PATHs a tag by hand")
    does.add_argument("--remove", metavar="TAG", help="take a tag from PATHs")
    does.add_argument(
        "--clear", action="store_true", help="remove all tags that the vocabulary gave"
    )
    does.add_argument(
        "--write-xmp",
        action="store_true",
        help="write tags to sidecars beside the photos (of PATHs, or all); photos stay as they are",
    )
    does.add_argument(
        "--undo", action="store_true", help="put every written sidecar back as it was before"
    )
    parser.add_argument(
        "--sidecar-name",
        choices=["full", "stem"],
        default="full",
        help="of new sidecars: photo.jpg.xmp (full, the default: digiKam, darktable) or photo.xmp "
        "(stem: Lightroom, for RAW); one that is there is extended, whatever its name",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done, and change nothing"
    )
    add_json_argument(parser)
    parser.add_argument("--quiet", action="store_true", help="say nothing but errors")
    add_library_argument(parser)
    parser.epilog = (
        "Without --add and the like, tags by the vocabulary: what is new, or everything if the\n"
        "vocabulary, the templates or the model have changed. Ctrl-C stops after saving what is\n"
        "done. Tags that you gave or rejected are never touched: clipsearch review. With --json,\n"
        "each line is one event: progress, a sidecar, and at the end the summary."
    )


def _run(arguments: Namespace) -> int:
    by_path = arguments.add or arguments.remove or arguments.write_xmp
    if arguments.paths and not by_path:
        raise UsageError(
            reason="Paths go with --add TAG, --remove TAG or --write-xmp; the vocabulary is for "
            "all photos, and a word list is named by --vocabulary FILE"
        )
    library, settings = open_library(arguments)
    shown = _Progress(quiet=arguments.quiet, as_json=arguments.json)
    with library:
        if arguments.add or arguments.remove:
            return _by_hand(library, arguments)
        if arguments.write_xmp:
            return _write_out(library, arguments, shown)
        if arguments.undo:
            return _undo(library, arguments)
        from clipsearch.tagging import read_vocabulary, tag

        words = arguments.vocabulary
        vocabulary = None if words is None else read_vocabulary(expand_user(words))
        if arguments.clear:
            return _clear(library, "everyday" if vocabulary is None else vocabulary.name, arguments)
        try:
            with _interruptible() as is_stop_wanted:
                report = tag(
                    library,
                    words if vocabulary is None else vocabulary,
                    templates=arguments.templates,
                    top_tags=arguments.top_tags,
                    again=arguments.again,
                    dry_run=arguments.dry_run,
                    settings=settings,
                    progress=shown.show,
                    notify=shown.say,
                    should_stop=is_stop_wanted,
                )
        finally:
            shown.end()
    if arguments.json:
        print_json({"event": "summary", **asdict(report)})
    elif not arguments.quiet:
        would = "would get" if report.dry_run else "got"
        say(
            f"{counted(report.items, 'picture')} {would} {counted(report.tags, 'tag')} "
            f"of {report.concepts:,} in '{report.vocabulary}', {report.untagged:,} of them "
            f"none, in {report.seconds:.1f} s"
        )
        if report.known:
            say(f"{report.known:,} were tagged before (all again: --again)")
        if report.most:
            often = [f"{name} {count:,}" for name, count in report.most.items()]
            say(f"most often: {', '.join(often[:10])}")
            say("See all: clipsearch tags. Say where it is wrong: clipsearch review")
    return errors.INTERRUPTED if report.interrupted else errors.DONE


def _items(library: Library, paths: Iterable[Path]) -> list[int]:
    found: list[int] = []
    for path in paths:
        items = library.tags.items_at(path)
        if not items:
            raise NotInLibraryError(
                what=path, path=library.path, advice="Add it: clipsearch index FOLDER"
            )
        found += items
    return sorted(set(found))


def _by_hand(library: Library, arguments: Namespace) -> int:
    given = arguments.add or arguments.remove
    names = clean_keywords([given])
    if not names or not arguments.paths:
        raise UsageError(reason="Name a tag and photos: clipsearch tag --add beach photo.jpg")
    items = _items(library, arguments.paths)
    count = len(items)
    if not arguments.dry_run:
        with library.writer() as writer:
            change = writer.tags.add_by_hand if arguments.add else writer.tags.remove_by_hand
            count = change(items, names[0])
    done = "added" if arguments.add else "removed"
    if arguments.json:
        record = {"tag": names[0], "items": len(items), done: count}
        print_json({**record, "dry_run": bool(arguments.dry_run)})
    elif not arguments.quiet:
        would = "would be " if arguments.dry_run else ""
        say(f"'{names[0]}' {would}{done}: {count:,} of {counted(len(items), 'picture')}")
    left = [] if arguments.add else library.tags.of_items(items)
    if any(tag.name == names[0] for tag in left) and not arguments.dry_run:
        say("Some still have it from their file or sidecar; change it there, and index again.")
    return errors.DONE


def _clear(library: Library, name: str, arguments: Namespace) -> int:
    count = len(library.tags.given_by_model(name))
    if not arguments.dry_run:
        with library.writer() as writer:
            count = writer.tags.clear(name)
    if arguments.json:
        print_json({"vocabulary": name, "removed": count, "dry_run": bool(arguments.dry_run)})
    elif not arguments.quiet:
        say(
            f"{'Would remove' if arguments.dry_run else 'Removed'} {counted(count, 'tag')} of "
            f"'{name}'"
        )
    return errors.DONE


def _write_out(library: Library, arguments: Namespace, shown: _Progress) -> int:
    from indexer.sidecar_writing import write_sidecars

    items = _items(library, arguments.paths) if arguments.paths else None
    try:
        return _tell(
            write_sidecars(
                library,
                items,
                naming=arguments.sidecar_name,
                dry_run=arguments.dry_run,
                progress=lambda done, total: shown.show("files", done, total),
            ),
            arguments,
        )
    finally:
        shown.end()


def _undo(library: Library, arguments: Namespace) -> int:
    from indexer.sidecar_writing import undo_sidecars

    return _tell(undo_sidecars(library, dry_run=arguments.dry_run), arguments)


def _tell(changes: Iterable[SidecarChange], arguments: Namespace) -> int:
    counts = {"written": 0, "restored": 0, "removed": 0, "refused": 0}
    for change in changes:
        counts[change.done] += 1
        if arguments.json:
            print_json({"event": "sidecar", **asdict(change)})
        elif change.done == "refused":
            say(f"{change.path}: left as it is: {change.reason}")
        elif arguments.dry_run:
            show(f"{change.path}: would be {change.done}")
    if arguments.json:
        print_json({"event": "summary", **counts, "dry_run": bool(arguments.dry_run)})
    elif not arguments.quiet:
        told = [f"{count:,} {what}" for what, count in counts.items() if count]
        would = "would be: " if arguments.dry_run else ""
        say(f"Sidecars {would}{', '.join(told) or 'unchanged'}")
        if counts["written"] and not arguments.dry_run:
            say("Put all of them back as they were: clipsearch tag --undo")
    return errors.SOME_FILES_SKIPPED if counts["refused"] else errors.DONE


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C into a wish that is granted between two blocks."""
    asked: list[int] = []

    def ask(number: int, _frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        say("\nStopping after the pictures in hand (Ctrl-C again: at once) ...")

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)


class _Progress:
    """How far it is, on a line that is drawn anew; in a log, a line now and then."""

    def __init__(self, *, quiet: bool, as_json: bool) -> None:
        self._quiet = quiet
        self._as_json = as_json
        self._is_terminal = sys.stderr.isatty()
        self._drawn_at = self._told_at = time.monotonic()
        self._has_line = False

    def show(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if self._as_json and now - self._told_at >= _EVENT_EVERY_S:
            self._told_at = now
            print_json({"event": "progress", "stage": stage, "done": done, "total": total})
        every = _BAR_EVERY_S if self._is_terminal else _LINE_EVERY_S
        if self._quiet or now - self._drawn_at < every:
            return
        self._drawn_at = now
        text = f"{_STAGES[stage]}: {done:,}/{total:,}"
        if self._is_terminal:
            redraw(text)
            self._has_line = True
        else:
            say(text)

    def say(self, message: str) -> None:
        if not self._quiet:
            self.end()
            say(message)

    def end(self) -> None:
        if self._has_line:
            say("")
            self._has_line = False


tag = Command(_configure, _run)
