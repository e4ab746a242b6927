"""The command that teaches names by photos, lists and forgets them: learn."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path

from clipsearch import errors
from clipsearch.command import (
    Command,
    add_json_argument,
    add_library_argument,
    print_json,
    say,
    show,
)
from clipsearch.commands import named_item, open_library
from clipsearch.config import Settings
from clipsearch.counting import counted
from clipsearch.errors import NotInLibraryError, UsageError
from clipsearch.library import Library
from clipsearch.query_arguments import words_last

_SHOWN_SKIPPED = 20


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="what the photos show, as it is said in a query"
    )
    parser.add_argument(
        "photos",
        nargs="*",
        metavar="PHOTO",
        help="5 to 20 photos of it: files, folders of files, or items as #12; indexed or not",
    )
    parser.add_argument(
        "--from-tag", metavar="TAG", help="learn from the pictures that have this tag, too"
    )
    parser.add_argument(
        "--replace", action="store_true", help="forget the photos that taught the name before"
    )
    parser.add_argument("--forget", action="store_true", help="forget the name and its photos")
    add_json_argument(parser)
    add_library_argument(parser)
    parser.epilog = (
        'for example: clipsearch learn Rex ~/rex/*.jpg, then clipsearch search "Rex on the beach"\n'
        "Without NAME: lists what was learned. NAME alone: lists its photos, and reads those\n"
        "again that a new model of the library has not seen. More: docs/concepts.md"
    )


def _run(arguments: Namespace) -> int:
    name = arguments.name
    if name is None:
        if arguments.from_tag or arguments.replace or arguments.forget:
            raise UsageError(reason="Say which name: clipsearch learn NAME")
    elif arguments.forget and (arguments.photos or arguments.from_tag or arguments.replace):
        raise UsageError(reason=f"Forget it, or teach it: clipsearch learn {name} --forget")
    library, settings = open_library(arguments)
    with library:
        if name is None:
            return _list(library, as_json=arguments.json)
        if arguments.forget:
            return _forget(library, name, as_json=arguments.json)
        return _learn(library, settings, arguments)


def _list(library: Library, *, as_json: bool) -> int:
    space = library.active_space()
    concepts = library.concepts.all(space.id if space else "")
    for concept in concepts:
        if as_json:
            print_json(asdict(concept))
        else:
            unknown = concept.photos - concept.known
            note = f" ({unknown} not seen by the library's model)" if unknown else ""
            show(f"{concept.name:<24} {counted(concept.photos, 'photo'):>11}{note}")
    if not concepts:
        say("No names were learned yet: clipsearch learn NAME PHOTO...")
    return errors.DONE


def _forget(library: Library, name: str, *, as_json: bool) -> int:
    from clipsearch.naming import known_as

    name = known_as(name, library.concepts.names())
    if not library.concepts.remove(name):
        known = ", ".join(library.concepts.names()) or "none yet"
        raise NotInLibraryError(
            what=f"The name '{name}'", path=library.path, advice=f"Learned names: {known}."
        )
    if as_json:
        print_json({"forgotten": name})
    else:
        show(f"Forgot {name}. The photos themselves are as they were.")
    return errors.DONE


def _learn(library: Library, settings: Settings, arguments: Namespace) -> int:
    from clipsearch.learning import items_with_tag, learn

    photos: list[Path | int] = [
        named_item(library, given) if given.startswith("#") else Path(given)
        for given in arguments.photos
    ]
    if arguments.from_tag:
        photos += items_with_tag(library, arguments.from_tag, settings=settings)
    report = learn(
        library,
        arguments.name,
        photos,
        replace=arguments.replace,
        settings=settings,
        notify=say,
    )
    space = library.active_space()
    kept = library.concepts.photos(report.name, space.id if space else "")
    if arguments.json:
        print_json({**asdict(report), "paths": [photo.path for photo in kept]})
    else:
        show(f"{report.name}: {counted(report.photos, 'photo')}, {report.added} of them new")
        for photo in () if photos else kept:
            show(f"  {photo.path}{'' if photo.is_known else '  (not seen by this model)'}")
    for skipped in report.skipped[:_SHOWN_SKIPPED]:
        say(f"skipped: {skipped.reason}")
    if len(report.skipped) > _SHOWN_SKIPPED:
        say(f"skipped: {len(report.skipped) - _SHOWN_SKIPPED} more (all of them: --json)")
    for warning in report.warnings:
        say(f"{report.name}: {warning}")
    return errors.SOME_FILES_SKIPPED if report.skipped else errors.DONE


learn = Command(_configure, _run, words_last)
