"""The command carried: what a person said of photos that were changed since, and where it is."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path

from clipsearch import errors
from clipsearch.command import Command, add_json_argument, add_library_argument, print_json, say
from clipsearch.commands import open_library
from clipsearch.errors import NotInLibraryError
from clipsearch.library import CARRIED, KEPT, Carried, Library, words_said
from clipsearch.library.paths import spellings


def _configure(parser: ArgumentParser) -> None:
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--take-back",
        type=Path,
        metavar="PHOTO",
        help="the photo is another one now: take from it what was said of the one before",
    )
    action.add_argument(
        "--carry",
        type=Path,
        metavar="PHOTO",
        help="give the photo what was said of the one that was there before, and is kept",
    )
    add_json_argument(parser)
    add_library_argument(parser)
    parser.epilog = (
        "When another program writes a photo anew (a rating, a crop, face tags), your tags,\n"
        "captions, thumbs and answers go with it. Where the picture itself became another one,\n"
        "this says so; nothing is lost either way, and both can be undone."
    )


def _run(arguments: Namespace) -> int:
    library, _ = open_library(arguments)
    with library:
        if arguments.take_back is not None:
            return _take_back(library, arguments.take_back, as_json=arguments.json)
        if arguments.carry is not None:
            return _carry(library, arguments.carry, as_json=arguments.json)
        found = library.carryings.all()
        for change in found:
            if arguments.json:
                print_json(asdict(change))
            else:
                print(f"{change.path}  {_where(change)}")
        if not found:
            say("No photo that you said something of was changed since.")
    return errors.DONE


def _where(change: Carried) -> str:
    words = words_said(change.words)
    if change.state == KEPT:
        return f"{words} kept with the picture before"
    if change.is_same is False:
        return f"{words} carried over, to ANOTHER PICTURE"
    return f"{words} carried over"


def _take_back(library: Library, photo: Path, *, as_json: bool) -> int:
    """Of several changes the one that made it another picture, else the last."""
    with library.writer() as writer:
        changes = _changes_of(library, photo, CARRIED)
        change = max(changes, key=lambda one: (one.is_same is False, one.id))
        writer.take_back(change)
    _tell(change, KEPT, as_json=as_json)
    return errors.DONE


def _carry(library: Library, photo: Path, *, as_json: bool) -> int:
    with library.writer() as writer:
        change = _changes_of(library, photo, KEPT)[-1]
        writer.carry_on(change)
    _tell(change, CARRIED, as_json=as_json)
    return errors.DONE


def _changes_of(library: Library, photo: Path, state: str) -> list[Carried]:
    wanted = set(spellings(photo))
    changes = [one for one in library.carryings.all() if one.path in wanted and one.state == state]
    if not changes:
        what = "carried over to" if state == CARRIED else "kept for"
        raise NotInLibraryError(
            what=f"Anything that was {what} {photo}",
            path=library.path,
            advice="List them: clipsearch carried",
        )
    return changes


def _tell(change: Carried, state: str, *, as_json: bool) -> None:
    if as_json:
        print_json({**asdict(change), "state": state})
        return
    words = words_said(change.words)
    if state == KEPT:
        print(f"{change.path}: {words} kept with the picture before; back when that is back")
    else:
        print(f"{change.path}: {words} carried over")


carried = Command(_configure, _run)
