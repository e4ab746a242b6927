"""The command that lists thumbs up and down, and gives them to training: feedback."""

from __future__ import annotations

import csv
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
from clipsearch.commands import open_library
from clipsearch.counting import counted
from clipsearch.errors import StorageError
from clipsearch.library import Library

_FORMULAS = ("=", "+", "-", "@")  # how a cell begins that spreadsheets compute


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--captions",
        type=Path,
        metavar="FILE",
        help="write pictures with a thumb up, captioned by the words of their query, as a CSV "
        "file for clipsearch train",
    )
    add_json_argument(parser)
    add_library_argument(parser)
    parser.epilog = "Give thumbs on the page, or with clipsearch search --more-like, --less-like."


def _run(arguments: Namespace) -> int:
    library, _ = open_library(arguments)
    with library:
        if arguments.captions is not None:
            count = _write_captions(library, arguments.captions)
            if arguments.json:
                print_json({"file": arguments.captions, "written": count})
            else:
                show(f"Wrote {arguments.captions}: {counted(count, 'caption')}")
            return errors.DONE
        answers = library.opinions.answers()
        paths = library.paths([answer.item for answer in answers])
        for answer in answers:
            path = next(iter(paths.get(answer.item, ())), None)
            if arguments.json:
                print_json({**asdict(answer), "path": path})
            else:
                show(f"{'+' if answer.relevant else '-'}  {answer.query:<30} {path or ''}")
        if not answers:
            say("No thumbs were given yet")
    return errors.DONE


def _write_captions(library: Library, file: Path) -> int:
    """Rows of path and caption; queries without words say nothing about a picture.

    Words that a spreadsheet would take for a formula have a blank before them, which ``train``
    leaves out again: whoever may search the served library may have written them.
    """
    from clipsearch.query import parse

    answers = [answer for answer in library.opinions.answers() if answer.relevant]
    paths = library.paths([answer.item for answer in answers])
    rows = []
    for answer in answers:
        terms = parse(answer.query).terms
        words = " ".join(str(t.value) for t in terms if t.kind == "text" and t.weight > 0)
        if words and answer.item in paths:
            is_formula = words.startswith(_FORMULAS)
            rows.append((str(paths[answer.item][0]), f" {words}" if is_formula else words))
    try:
        with file.open("x", encoding="utf-8", errors="surrogateescape", newline="") as opened:
            writer = csv.writer(opened)
            writer.writerow(("path", "caption"))
            writer.writerows(rows)
    except OSError as error:
        raise StorageError(
            path=file, reason=error.strerror or error, advice="choose another name"
        ) from error
    return len(rows)


feedback = Command(_configure, _run)
