"""The tags command: which tags there are, who gave them, and to how many pictures."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

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


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "words", nargs="*", metavar="WORD", help="only tags that hold one of these words"
    )
    parser.add_argument(
        "--by", choices=["user", "model"], help="only tags that you, or that a model gave"
    )
    parser.add_argument(
        "--answers", action="store_true", help="list the answers of reviews instead: labels"
    )
    add_json_argument(parser)
    add_library_argument(parser)
    parser.epilog = "Tags of files and sidecars count as yours. Tag with: clipsearch tag"


def _run(arguments: Namespace) -> int:
    library, _ = open_library(arguments)
    with library:
        if arguments.answers:
            answers = library.tags.answers()
            paths = library.paths([answer.item for answer in answers])
            for answer in answers:
                path = next(iter(paths.get(answer.item, ())), None)
                if arguments.json:
                    print_json({**answer._asdict(), "path": path})
                else:
                    show(f"{'yes' if answer.accepted else 'no':<4} {answer.name:<24} {path}")
            return errors.DONE
        words = [word.casefold() for word in arguments.words]
        shown = [
            tag
            for tag in library.tags.counts()
            if (not words or any(word in tag.name.casefold() for word in words))
            and (arguments.by is None or getattr(tag, arguments.by))
        ]
        for tag in shown:
            if arguments.json:
                print_json(tag._asdict())
            else:
                show(f"{tag.name:<32} {tag.user:>8,} yours {tag.model:>8,} by a model")
        if not shown and not arguments.json:
            say(
                "No picture has such a tag. See all tags: clipsearch tags. "
                "Have a model give some: clipsearch tag"
            )
    return errors.DONE


tags = Command(_configure, _run)
