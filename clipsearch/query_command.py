"""The query-help command: every field of the query language."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from clipsearch import errors
from clipsearch.command import Command, add_json_argument, print_json

_INTRODUCTION = """\
Words are searched for as they are:       a dog on the beach
Not wanted, or wanted, too:               sunset -people +boats
Weighted, and several words as one:       0.5:"warm light"
Literally, whatever it looks like:        "what's this: a dog"
Any of several values:                    format:png,webp
"""


def _configure(parser: ArgumentParser) -> None:
    add_json_argument(parser)
    parser.epilog = "More, with examples: docs/query.md"


def _run(arguments: Namespace) -> int:
    from clipsearch.query.fields import FILTERS, OPTIONS, TERMS, help_text

    if arguments.json:
        for role, entries in (("term", TERMS), ("filter", FILTERS), ("option", OPTIONS)):
            for entry in entries:
                print_json(
                    {
                        "field": entry.name,
                        "aliases": entry.aliases,
                        "role": role,
                        "help": entry.help,
                        "value": entry.kind.value,
                        "example": entry.example,
                    }
                )
    else:
        print(f"{_INTRODUCTION}\n{help_text()}")
    return errors.DONE


query_help = Command(_configure, _run)
