"""The command that writes hits and vectors to a file for other programs: export."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
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
from clipsearch.commands import open_library
from clipsearch.counting import counted
from clipsearch.errors import UsageError
from clipsearch.query_arguments import joined, words_last


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument("text", nargs="*", metavar="QUERY", help="as for clipsearch search")
    parser.add_argument("--all", action="store_true", help="everything instead of a query's hits")
    parser.add_argument(
        "--to",
        type=Path,
        required=True,
        metavar="FILE",
        help="its ending says the form: .csv, .jsonl, .parquet (the extra 'parquet'), .faiss",
    )
    parser.add_argument(
        "--vectors", action="store_true", help="also write the vectors (.faiss has them anyway)"
    )
    parser.add_argument(
        "--top", type=int, metavar="N", help="at most so many hits (default: all of them)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    add_json_argument(parser)
    add_library_argument(parser)


def _run(arguments: Namespace) -> int:
    text = joined(arguments.text)
    if bool(text.strip()) == arguments.all:
        raise UsageError(reason="Give either a query or --all: clipsearch export --all --to a.csv")
    library, settings = open_library(arguments)
    from clipsearch.export import everything, export

    with library:
        if arguments.all:
            hits = everything(library)
        else:
            from clipsearch.searcher import Searcher

            searcher = Searcher(library, settings=settings, notify=say)
            answered = searcher.answer(text, top=arguments.top)
            for note in answered.notes:
                say(note)
            hits = answered.hits
        count = export(
            library,
            hits,
            arguments.to,
            vectors=arguments.vectors,
            overwrite=arguments.overwrite,
        )
    if arguments.json:
        print_json({"file": arguments.to, "written": count})
    else:
        show(f"Wrote {arguments.to}: {counted(count, 'picture')}")
    return errors.DONE


export = Command(_configure, _run, words_last)
