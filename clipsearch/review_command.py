"""The review command: asks about tags, or takes answers from a script."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
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
from clipsearch.errors import UsageError
from clipsearch.terminal import quoted

if TYPE_CHECKING:
    from clipsearch.tagging.review import Doubt, Review

_KEYS = "y yes, n no, s skip, u undo, q quit"


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument("tag", nargs="?", metavar="TAG", help="ask about this tag only")
    parser.add_argument(
        "--vocabulary",
        metavar="NAME",
        help="the vocabulary that gave the tags (default: the last used; with a TAG, the last "
        "used that has it)",
    )
    parser.add_argument(
        "--limit", type=int, default=50, metavar="N", help="how many (default %(default)s)"
    )
    does = parser.add_mutually_exclusive_group()
    for name, what in (("accept", "fits"), ("reject", "does not fit"), ("undo", "is undecided")):
        does.add_argument(
            f"--{name}", nargs=2, metavar=("ITEM", "TAG"), help=f"say that a tag {what}"
        )
    add_json_argument(parser)
    add_library_argument(parser)
    parser.epilog = (
        "In a terminal it asks, nearest to a tag's cut-off first; elsewhere, and with --json, it\n"
        "prints the questions. Answers are kept, and move the tag's cut-off for all photos at\n"
        "once. An accepted tag is yours, a rejected one never comes back."
    )


def _run(arguments: Namespace) -> int:
    if not 1 <= arguments.limit <= 10_000:
        raise UsageError(reason=f"--limit must be between 1 and 10,000, not {arguments.limit}")
    library, settings = open_library(arguments)
    from clipsearch.tagging.review import open_review

    answers = ((name, getattr(arguments, name)) for name in ("accept", "reject", "undo"))
    name, given = next((pair for pair in answers if pair[1] is not None), ("", None))
    tag = arguments.tag if given is None else given[1]
    with library:
        review = open_review(library, arguments.vocabulary, tag, settings=settings, notify=say)
        if given is not None:
            return _answer(review, name, given, as_json=arguments.json)
        queue = review.queue(arguments.tag, arguments.limit)
        if not queue and not arguments.json:
            say("Nothing to ask.")
        elif arguments.json or not sys.stdin.isatty():
            for doubt in queue:
                _print(doubt, as_json=arguments.json)
        else:
            _ask(review, queue)
    return errors.DONE


def _print(doubt: Doubt, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(doubt))
    else:
        given = "given" if doubt.given else "not given"
        show(f"{doubt.item:>8}  {doubt.tag:<24} {doubt.probability:4.0%}  {given:<9}  {doubt.path}")


def _answer(review: Review, name: str, given: list[str], *, as_json: bool) -> int:
    item, tag = given
    if not item.isdecimal():
        raise UsageError(reason=f"ITEM is a number as a search or a review prints it, not {item!r}")
    cutoff = getattr(review, name)(int(item), tag)
    record = {"item": int(item), "tag": review.concept(tag), "answer": name, "cutoff": cutoff}
    if as_json:
        print_json(record)
    else:
        say(f"'{record['tag']}' now holds from a score of {cutoff:.3f} on")
    return errors.DONE


def _ask(review: Review, queue: list[Doubt]) -> None:
    """Asks one by one; what was answered is kept at once."""
    say(f"Does the tag of '{review.vocabulary}' fit the picture? {_KEYS}")
    answered: list[int] = []  # places in the queue
    at = 0
    while at < len(queue):
        doubt = review.current(queue[at])
        try:
            show(str(doubt.path))
            said = input(f"  {quoted(doubt.tag)} ({doubt.probability:.0%})? ").strip().lower()
        except EOFError:
            break
        if said in ("y", "yes", "n", "no"):
            (review.accept if said[0] == "y" else review.reject)(doubt.item, doubt.tag)
            answered.append(at)
            at += 1
        elif said in ("s", "skip", ""):
            at += 1
        elif said in ("u", "undo") and answered:
            at = answered.pop()
            review.undo(queue[at].item, queue[at].tag)
        elif said in ("q", "quit"):
            break
        else:
            say("There is no answer to undo" if said in ("u", "undo") else _KEYS)
    say(f"{counted(len(answered), 'answer')} kept")


review = Command(_configure, _run)
