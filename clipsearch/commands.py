"""The core's own commands: search, similar, check, forget, backup."""

from __future__ import annotations

import shlex
import textwrap
from argparse import ArgumentParser, Namespace
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from clipsearch import errors
from clipsearch.command import (
    Command,
    add_json_argument,
    add_library_argument,
    add_model_argument,
    clock,
    print_json,
    print_path,
    say,
    show,
)
from clipsearch.config import DEFAULT_TOP, Settings, resolve
from clipsearch.counting import counted
from clipsearch.errors import NotInLibraryError, UsageError
from clipsearch.model_names import MODELS
from clipsearch.query_arguments import joined, words_last
from clipsearch.sizes import shown_bytes
from clipsearch.user_paths import expand_user

if TYPE_CHECKING:
    from clipsearch.hits import Answered
    from clipsearch.library import Library


_KEPT_NAMED = 5
_NOTHING_FOUND = "Nothing found. To show the closest anyway: cutoff:none in the query, or --all"
_NOTHING_PASSES = "Nothing found: no picture passes what the query asks for."


def open_library(arguments: Namespace) -> tuple[Library, Settings]:
    from clipsearch.library import Library

    library = Library.open(resolve(vars(arguments)).library)
    return library, resolve(vars(arguments), library.settings())


def named_item(library: Library, given: str) -> int:
    """The item that a file or ``#12`` names; NotInLibraryError if the library has none."""
    item: int | None
    if given.startswith("#") and given[1:].isdecimal():
        item = int(given[1:])
        item = item if item < 2**63 and library.items([item]) else None
    else:
        item = library.item_at(Path(given)) if given else None
    if item is None:
        raise NotInLibraryError(
            what=given or "''", path=library.path, advice="Give an indexed file, or an item as #12"
        )
    return item


# --- search and similar ---------------------------------------------------------------------


def _add_result_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--top", type=int, metavar="N", help=f"how many at most (default {DEFAULT_TOP})"
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="give the nearest N, also where nothing matches (in a query: cutoff:none)",
    )
    form = parser.add_mutually_exclusive_group()
    add_json_argument(form)
    form.add_argument("--paths", action="store_true", help="print paths alone, one a line")
    parser.add_argument(
        "-0", "--null", action="store_true", help="with --paths: end each with NUL, for xargs -0"
    )
    parser.add_argument(
        "--open-sheet",
        type=Path,
        metavar="FILE",
        help="also save the answers as one picture (.jpg, .png), and open it on a desktop",
    )
    add_library_argument(parser)
    add_model_argument(parser, "search the vectors of this model (default: the library's own)")


def _configure_search(parser: ArgumentParser) -> None:
    parser.add_argument("text", nargs="*", metavar="QUERY", help="words, filters, and more: below")
    parser.add_argument("--image", type=Path, metavar="FILE", help="search by this picture")
    for flag, said in (("--more-like", "answers the query"), ("--less-like", "does not answer it")):
        parser.add_argument(
            flag,
            action="append",
            default=[],
            metavar="PICTURE",
            help=f"a file, or an item as #12, that {said}; kept as an answer (may be repeated)",
        )
    _add_result_arguments(parser)
    parser.epilog = _query_examples()


def _query_examples() -> str:
    from clipsearch.query.fields import FILTERS

    names = textwrap.fill(", ".join(f"{entry.name}:" for entry in FILTERS), 76)
    return (
        "what a query can say (all of it: clipsearch query-help, docs/query.md):\n"
        "  clipsearch search sunset over water -people '0.5:\"warm light\"'\n"
        "  clipsearch search 'image:./a.jpg +snow' after:2023-06 sort:-date limit:50\n"
        "filters, also without words; a - before one turns it round:\n"
        f"{textwrap.indent(names, '  ')}"
    )


def _run_search(arguments: Namespace) -> int:
    from clipsearch.query import parse

    text = joined(arguments.text)
    query = parse(text)
    if query.is_empty and arguments.image is None:
        raise UsageError(
            reason='Say what to search for: clipsearch search "a dog on the beach", '
            "or clipsearch search --image photo.jpg"
        )
    if arguments.all:
        query = replace(query, cutoff="none")
    library, settings = open_library(arguments)
    from clipsearch.searcher import Searcher

    with library:
        space = _space_to_search(library, arguments)
        more_like = [named_item(library, given) for given in arguments.more_like]
        less_like = [named_item(library, given) for given in arguments.less_like]
        searcher = Searcher(library, settings=settings, space_id=space, notify=say)
        answered = searcher.answer(
            query,
            image=arguments.image,
            more_like=more_like,
            less_like=less_like,
            top=_top(arguments),
        )
        hits = answered.hits
        for note in answered.notes:
            say(note)
        if text.strip():
            for items, relevant in ((more_like, True), (less_like, False)):
                for item in items:
                    library.opinions.answer(text.strip(), item, relevant=relevant)
        if not hits and library.counts().items:
            has_meaning = bool(query.terms) or arguments.image is not None
            is_judged = has_meaning and query.cutoff == "auto"
            say(_NOTHING_FOUND if is_judged else _NOTHING_PASSES)
        is_cut = query.limit is None and query.cutoff != "none"
        return _show(
            library, answered, arguments, text.strip() or str(arguments.image), tells_rest=is_cut
        )


def _configure_similar(parser: ArgumentParser) -> None:
    parser.add_argument("image", type=Path, metavar="FILE", help="a picture, indexed or not")
    _add_result_arguments(parser)


def _run_similar(arguments: Namespace) -> int:
    library, settings = open_library(arguments)
    from clipsearch.searcher import Searcher

    with library:
        space = _space_to_search(library, arguments)
        searcher = Searcher(library, settings=settings, space_id=space, notify=say)
        answered = searcher.similar(arguments.image, top=_top(arguments), everything=arguments.all)
        if not answered.hits and not arguments.all and library.counts().items:
            say(_NOTHING_FOUND)
        title = f"like {arguments.image.name}"
        return _show(library, answered, arguments, title, tells_rest=not arguments.all)


def _top(arguments: Namespace) -> int:
    return DEFAULT_TOP if arguments.top is None else int(arguments.top)


def _space_to_search(library: Library, arguments: Namespace) -> str | None:
    """The id of the space that ``--model`` names, or None for the library's active one."""
    if arguments.model is None:
        return None
    from clipsearch.encoders import resolve_address
    from clipsearch.own_models import find_space

    with suppress(NotInLibraryError):
        return find_space(library, arguments.model).id
    settings = resolve(vars(arguments), library.settings())
    address = resolve_address(arguments.model, settings=settings, notify=say)
    with suppress(NotInLibraryError):
        return find_space(library, address).id
    held = [space.address for space in library.spaces()]
    raise UsageError(
        reason=f"This library has no vectors of {address}, only of: "
        f"{', '.join(held) or 'no model yet'}. "
        f"Make them with: clipsearch index --model {arguments.model}"
    )


def _show(
    library: Library, answered: Answered, arguments: Namespace, title: str, *, tells_rest: bool
) -> int:
    """Prints hits; ``tells_rest`` says how many more there are where nobody set a limit."""
    hits = answered.hits
    printed: set[Path] = set()
    for hit in hits:
        if arguments.json:
            print_json({**asdict(hit), "notes": answered.notes})
        elif arguments.paths:
            if hit.path in printed:
                continue  # another moment of the same video
            printed.add(hit.path)
            print_path(hit.path, null=arguments.null)
        else:
            copies = f"  (and {len(hit.paths) - 1} more)" if len(hit.paths) > 1 else ""
            place = "" if hit.time_s is None else f"  at {clock(hit.time_s)}"
            score = "" if hit.score is None else f"{hit.score:.3f}  "
            show(f"{hit.rank:>4}  {score}{hit.path}{place}{copies}")
    if not hits and library.counts().items == 0:
        say("The library is empty. Add a photo folder with: clipsearch index FOLDER")
    if tells_rest and arguments.top is None and answered.total > len(hits):
        say(f"These are {len(hits)} of {answered.total:,}: --top {answered.total} gives all")
    if arguments.open_sheet is not None and hits:
        from clipsearch.sheet import open_on_desktop, write_sheet

        write_sheet([(title, hits)], arguments.open_sheet)
        say(f"Saved {arguments.open_sheet}")
        open_on_desktop(arguments.open_sheet)
    return errors.DONE


search = Command(_configure_search, _run_search, words_last)
similar = Command(_configure_similar, _run_similar)


# --- check, forget, backup ------------------------------------------------------------------


def _configure_check(parser: ArgumentParser) -> None:
    parser.add_argument("--repair", action="store_true", help="mend what can be mended")
    add_json_argument(parser)
    add_library_argument(parser)


def _run_check(arguments: Namespace) -> int:
    from clipsearch.own_models import check_models

    library, _ = open_library(arguments)
    with library:
        report = library.check(repair=arguments.repair)
        problems = [*report.problems, *check_models(library, repair=arguments.repair)]
        for problem in problems:
            if arguments.json:
                print_json(asdict(problem))
            else:
                done = " (repaired)" if problem.repaired else ""
                show(f"{problem.where}: {problem.what}{done}")
        unrepaired = [problem for problem in problems if not problem.repaired]
        if arguments.json:
            print_json({"ok": not unrepaired, "problems": len(problems)})
        elif not problems:
            show(f"{library.path} is sound")
        if not unrepaired:
            if problems:
                say("Repaired. Run clipsearch index to read and embed again what was removed.")
            return errors.DONE
        advice = "" if arguments.repair else " Mend what can be mended: clipsearch check --repair"
        say(f"{len(unrepaired)} problems.{advice}")
        return errors.LibraryCorruptError.exit_code


def _configure_forget(parser: ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a photo or a folder")
    add_json_argument(parser)
    add_library_argument(parser)
    parser.epilog = (
        "The photos themselves are never touched. What is known of a photo stays for other paths\n"
        "that have it, also for those that are missing now: name them, too. A sidecar that was\n"
        "written beside one stays: to take it back, clipsearch tag --undo before."
    )


def _run_forget(arguments: Namespace) -> int:
    library, _ = open_library(arguments)
    with library, library.writer() as writer:
        for path in arguments.paths:
            report = writer.forget(expand_user(path).absolute())
            if arguments.json:
                print_json({"path": path, **asdict(report)})
            else:
                files, pictures = counted(report.files, "file"), counted(report.items, "picture")
                show(f"{path}: forgot {files}, {pictures}")
                for kept in report.kept_for[:_KEPT_NAMED]:
                    say(
                        f"What is known of it stays for {kept}, which has it and cannot be read "
                        f"now. To remove that, too: clipsearch forget {shlex.quote(str(kept))}"
                    )
                if len(report.kept_for) > _KEPT_NAMED:
                    more = len(report.kept_for) - _KEPT_NAMED
                    files = counted(more, "more file that is", "more files that are")
                    say(f"... and for {files} missing or cannot be read")
            place = expand_user(path).absolute()
            if place.exists() and any(place.is_relative_to(r.path) for r in library.roots()):
                say(f"{path} is still in a folder of the library: clipsearch index adds it again")
    return errors.DONE


def _configure_backup(parser: ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="where to write the copy")
    add_json_argument(parser)
    add_library_argument(parser)
    parser.epilog = (
        "To restore: put the copy as library.db into an empty NAME.clipsearch folder, and the\n"
        "folder models/ beside it where the library has one; everything else is made again."
    )


def _run_backup(arguments: Namespace) -> int:
    library, _ = open_library(arguments)
    with library:
        library.backup(arguments.file)
        size = arguments.file.stat().st_size
        kept = sorted((library.path / MODELS).glob("[!.]*"))
        if arguments.json:
            print_json({"file": arguments.file, "bytes": size, "models_not_in_it": kept})
            return errors.DONE
        show(f"Wrote {arguments.file} ({size / 1e6:.1f} MB)")
        if kept:
            held = sum(file.stat().st_size for folder in kept for file in folder.iterdir())
            say(
                f"The library's own models are not in it: copy {library.path / MODELS}, too "
                f"({shown_bytes(held)}). Without them what you trained could not search any more"
            )
    return errors.DONE


check = Command(_configure_check, _run_check)
forget = Command(_configure_forget, _run_forget)
backup = Command(_configure_backup, _run_backup)
