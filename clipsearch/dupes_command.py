"""The command that groups duplicates in tiers and proposes which to keep: dupes."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from clipsearch import errors
from clipsearch.command import (
    Command,
    add_json_argument,
    add_library_argument,
    print_json,
    print_path,
    say,
    show,
)
from clipsearch.commands import named_item, open_library

if TYPE_CHECKING:
    from clipsearch.duplicates import DuplicateGroup, Shot
    from clipsearch.library import Library

_TIERS = ("identical", "same", "burst", "alike")
_CERTAIN = ("identical", "same")  # what a script is given unless it asks for more
_NAMES = {
    "identical": "identical files",
    "same": "the same picture, re-encoded or resized",
    "burst": "a burst",
    "alike": "look-alikes",
}


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--tier",
        action="append",
        choices=_TIERS,
        metavar="TIER",
        help=f"only this tier ({', '.join(_TIERS)}); may be repeated. "
        f"Default: all, with --paths {' and '.join(_CERTAIN)}",
    )
    parser.add_argument(
        "--within",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="how close in time the shots of a burst are (default %(default)g)",
    )
    parser.add_argument(
        "--similar",
        type=float,
        metavar="COSINE",
        help="how similar look-alikes are, from 0 to 1 (default: from the library's own vectors)",
    )
    parser.add_argument(
        "--not",
        nargs=2,
        dest="told_apart",
        metavar=("A", "B"),
        help="remember that two pictures (files, or items as #12) are no duplicates",
    )
    form = parser.add_mutually_exclusive_group()
    add_json_argument(form)
    form.add_argument(
        "--paths",
        action="store_true",
        help="print the paths of all but the best, one a line; not of copies that have what the "
        "best lacks, nor where the best is not there now",
    )
    parser.add_argument(
        "-0", "--null", action="store_true", help="with --paths: end each with NUL, for xargs -0"
    )
    add_library_argument(parser)
    parser.epilog = "Nothing is deleted or moved, by this command or any other."


def _run(arguments: Namespace) -> int:
    library, settings = open_library(arguments)
    from clipsearch.duplicates import find_duplicates, tell_apart

    with library:
        if arguments.told_apart is not None:
            one, other = (named_item(library, given) for given in arguments.told_apart)
            tell_apart(library, one, other)
            if arguments.json:
                print_json({"not_duplicates": [one, other]})
            else:
                say("Remembered: these are no duplicates")
            return errors.DONE
        tiers = arguments.tier or (_CERTAIN if arguments.paths else _TIERS)
        groups = find_duplicates(
            library,
            tiers=tiers,
            burst_s=arguments.within,
            alike=arguments.similar,
            max_pixels=settings.max_pixels,
            notify=say,
        )
        if arguments.paths:
            _print_paths(library, groups, null=arguments.null)
        for group in () if arguments.paths else groups:
            if arguments.json:
                print_json(asdict(group))
            else:
                _print(group)
        if not groups:
            say("No duplicates were found")
    return errors.DONE


def _print_paths(library: Library, groups: list[DuplicateGroup], *, null: bool) -> None:
    from clipsearch.disposable import disposable

    paths, notes = disposable(library, groups)
    for path in paths:
        if "\n" in str(path) and not null:  # two lines, and each the name of another file
            notes.append(f"Not among the paths: {str(path)!r}, whose name has a line break: use -0")
        else:
            print_path(path, null=null)
    for note in notes:
        say(note)


def _print(group: DuplicateGroup) -> None:
    show(f"{_NAMES[group.tier]}, {1 + sum(len(shot.paths) for shot in group.others)}")
    _print_shot("best", group.best, group.best.paths[:1])
    if group.why:
        show(f"        because {group.why}")
    for shot in group.others:
        _print_shot("", shot, shot.paths)
        if shot.only_here:
            show(f"        it alone has {', '.join(shot.only_here)}")


def _print_shot(mark: str, shot: Shot, paths: tuple[Path, ...]) -> None:
    for path in paths:
        stars = "" if shot.rating is None else f"  rating {shot.rating}"
        size = f"{shot.width}x{shot.height}"
        show(f"  {mark:<4}  {shot.cosine:.3f}  #{shot.item:<7} {size:>11}{stars}  {path}")


dupes = Command(_configure, _run)
