"""The command for saved queries and what is kept current with them: albums."""

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
    print_path,
    say,
    show,
)
from clipsearch.commands import open_library
from clipsearch.config import Settings
from clipsearch.counting import counted
from clipsearch.errors import UsageError
from clipsearch.library import Library
from clipsearch.query_arguments import joined, words_last

_SHOWN = 200  # of an album that is longer than a person reads
_ACTIONS = ("list", "save", "show", "remove", "export", "leave")


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=_ACTIONS, default="list", help="what to do")
    parser.add_argument("name", nargs="?", metavar="NAME", help="the album's name")
    parser.add_argument("text", nargs="*", metavar="QUERY", help="save: as for clipsearch search")
    parser.add_argument(
        "--to",
        type=Path,
        metavar="DIR or FILE",
        help="export: a new folder for links, or a playlist (.m3u8, .txt); leave: which one",
    )
    parser.add_argument(
        "--top",
        type=int,
        metavar="N",
        help=f"show: how many at most (default {_SHOWN}; with --paths or --json all)",
    )
    form = parser.add_mutually_exclusive_group()
    add_json_argument(form)
    form.add_argument("--paths", action="store_true", help="show: paths alone, one a line")
    parser.add_argument(
        "-0", "--null", action="store_true", help="with --paths: end each with NUL, for xargs -0"
    )
    add_library_argument(parser)
    parser.epilog = (
        'for example: clipsearch albums save Beaches "beach after:2023 -people"\n'
        "             clipsearch albums export Beaches --to ~/Beaches\n"
        "What was exported is brought up to date by clipsearch watch, and by exporting again,\n"
        "until clipsearch albums leave Beaches --to ~/Beaches"
    )


def _run(arguments: Namespace) -> int:
    action, name = arguments.action, arguments.name
    if action != "list" and not (name or "").strip():
        raise UsageError(reason=f"Name the album: clipsearch albums {action} NAME")
    if action == "save" and not joined(arguments.text).strip():
        raise UsageError(reason=f"Give its query: clipsearch albums save {name} QUERY")
    if action != "save" and arguments.text:
        raise UsageError(
            reason="Only save takes a query; put quotes around a name with blanks, and --to "
            "before a place"
        )
    if (action in ("export", "leave")) != (arguments.to is not None):
        raise UsageError(
            reason="Export an album with: clipsearch albums export NAME --to DIR, "
            "and end that with: clipsearch albums leave NAME --to DIR"
        )
    library, settings = open_library(arguments)
    with library:
        if action == "list":
            _list(library, as_json=arguments.json)
        elif action == "save":
            _save(library, name, joined(arguments.text), as_json=arguments.json)
        elif action == "remove":
            _remove(library, name, as_json=arguments.json)
        elif action == "leave":
            _leave(library, name, arguments.to, as_json=arguments.json)
        elif action == "show":
            _show(library, settings, arguments)
        else:
            _export(library, settings, arguments)
    return errors.DONE


def _list(library: Library, *, as_json: bool) -> None:
    exports = library.albums.exports()
    for album in library.albums.all():
        places = [str(e.destination) for e in exports if e.album.name == album.name]
        if as_json:
            print_json({**asdict(album), "exports": places})
        else:
            show(f"{album.name:<24} {album.query}")
            for place in places:
                show(f"{'':<24} -> {place}")


def _save(library: Library, name: str, text: str, *, as_json: bool) -> None:
    from clipsearch.query import parse

    parse(text)  # a mistake is told now, not when the album is looked at
    album = library.albums.save(name, text)
    if as_json:
        print_json(asdict(album))
    else:
        show(f"Saved {album.name}: {album.query}")


def _remove(library: Library, name: str, *, as_json: bool) -> None:
    from clipsearch.album_files import required_album

    required_album(library, name)
    library.albums.remove(name)
    if as_json:
        print_json({"removed": name})
    else:
        show(f"Removed {name}. Folders and playlists that it was exported to stay as they are.")


def _leave(library: Library, name: str, place: Path, *, as_json: bool) -> None:
    from clipsearch.album_files import leave_export

    destination = leave_export(library, name, place)
    if as_json:
        print_json({"left": destination, "album": name})
    else:
        show(f"{destination} stays as it is, and is kept current no longer.")


def _show(library: Library, settings: Settings, arguments: Namespace) -> None:
    from clipsearch.album_files import album_answer, required_album
    from clipsearch.searcher import Searcher

    album = required_album(library, arguments.name)
    searcher = Searcher(library, settings=settings, notify=say)
    is_whole = arguments.json or arguments.paths
    top = _SHOWN if arguments.top is None and not is_whole else arguments.top
    answered = album_answer(searcher, album, top)
    for note in answered.notes:
        say(note)
    printed: set[Path] = set()
    for hit in answered.hits:
        if arguments.json:
            print_json(asdict(hit))
        elif hit.path not in printed:
            printed.add(hit.path)
            if arguments.paths:
                print_path(hit.path, null=arguments.null)
            else:
                show(f"{hit.rank:>4}  {hit.path}")
    if arguments.top is None and answered.total > len(answered.hits) and not is_whole:
        shown = len(answered.hits)
        say(f"These are {shown} of {answered.total:,}: --top {answered.total} gives all")


def _export(library: Library, settings: Settings, arguments: Namespace) -> None:
    from clipsearch.album_files import export_album
    from clipsearch.searcher import Searcher

    searcher = Searcher(library, settings=settings, notify=say)
    written = export_album(library, searcher, arguments.name, arguments.to, say)
    if arguments.json:
        print_json(asdict(written))
    else:
        show(
            f"{written.destination}: {counted(written.pictures, 'picture')}, "
            f"{written.added:,} added, {written.removed:,} removed"
        )


albums = Command(_configure, _run, words_last)
