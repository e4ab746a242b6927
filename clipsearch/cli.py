"""The command line: finds the command, loads only its module, turns errors into exit codes."""

from __future__ import annotations

import argparse
import gc
import io
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any, NoReturn

from clipsearch import __version__, errors
from clipsearch.command import Command, say
from clipsearch.system_errors import in_our_words, refuse_too_little_memory
from clipsearch.terminal import Output, abandon, is_terminal, quoted
from clipsearch.user_paths import expand_user

# name: (where it is, one line of help). The upper packages are named here only as strings.
COMMANDS = {
    "index": ("indexer.commands:index", "add a photo folder to the library, or rescan all folders"),
    "watch": ("indexer.watch_command:watch", "keep the library current as files change"),
    "search": ("clipsearch.commands:search", "find pictures by words, by a picture, or by both"),
    "similar": ("clipsearch.commands:similar", "find pictures like a given one"),
    "tag": ("indexer.tag_command:tag", "tag pictures by a vocabulary or by hand, write sidecars"),
    "tags": ("clipsearch.tags_command:tags", "list the tags there are, with counts"),
    "review": ("clipsearch.review_command:review", "say which tags fit, and so teach the cut-offs"),
    "query-help": (
        "clipsearch.query_command:query_help",
        "what a query can say: words, NOT, weights, filters, order",
    ),
    "dupes": ("clipsearch.dupes_command:dupes", "group duplicates, and say which to keep"),
    "albums": ("clipsearch.albums_command:albums", "saved queries, as folders of links, playlists"),
    "feedback": ("clipsearch.feedback_command:feedback", "thumbs given, also as training pairs"),
    "learn": ("clipsearch.learn_command:learn", "teach a name by a few photos, for use in queries"),
    "export": ("clipsearch.export_command:export", "write hits and vectors for other programs"),
    "map": ("clipsearch.map_command:show_map", "lay the library out by meaning, as an HTML file"),
    "serve": ("ui.commands:serve", "open the search page on http://127.0.0.1:7860"),
    "train": ("training.commands:train", "fine-tune a model on your own captions"),
    "evaluate": ("training.evaluate_command:evaluate", "measure models on captions and labels"),
    "info": ("clipsearch.info_command:info", "what the library holds, its model, its failures"),
    "models": ("indexer.models_command:models", "list models, change the library's, free space"),
    "roots": (
        "clipsearch.roots_command:roots",
        "list the library's folders, or follow a moved one",
    ),
    "carried": (
        "clipsearch.carried_command:carried",
        "what you said of photos that were changed since, and where it went",
    ),
    "check": ("clipsearch.commands:check", "verify the library, and repair it"),
    "forget": ("clipsearch.commands:forget", "remove photos or a folder from the library"),
    "backup": ("clipsearch.commands:backup", "copy the library's database, even while it is used"),
}

_ANSWERS_ONCE = ("search", "similar")

_EXIT_CODES = """\
exit codes:
  0 done   2 wrong usage   10-99 one per kind of error   100 done, but some files were skipped
  130 interrupted   1 a bug in clipsearch
"""


def run() -> NoReturn:
    """The command line as a process: ``main``, then the end.

    A search takes part of a second, a fifth of it for collecting garbage among imported modules
    and taking Python apart at the end. It leaves no garbage worth that, and nothing to be closed.
    """
    if _command_name(sys.argv[1:]) not in _ANSWERS_ONCE:
        sys.exit(main())
    gc.disable()
    code = main()
    with suppress(BrokenPipeError):
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
    os._exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; never raises for what a user can cause."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    _speak_utf8()
    stdout = sys.stdout
    if stdout is not None:
        sys.stdout = Output(stdout)
    try:
        return _ended(given, stdout)
    finally:
        sys.stdout = stdout


def _ended(given: list[str], stdout: IO[str] | None) -> int:
    """Runs one command to its end, its output written, and returns the exit code."""
    try:
        code = _exit_code(given)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output (head, less) has had enough: not an error.
        if stdout is not None:
            abandon(stdout)
        return errors.DONE
    except errors.OutputError as error:
        if stdout is not None:
            abandon(stdout)
        say(f"clipsearch: {error}")
        return error.exit_code
    return code


def _exit_code(given: list[str]) -> int:
    try:
        return _run(given)
    except (BrokenPipeError, errors.OutputError):
        raise
    except SystemExit as leaving:  # argparse's way of ending --help, --version and wrong usage
        return leaving.code if isinstance(leaving.code, int) else errors.USAGE
    except errors.ClipsearchError as error:
        say(f"clipsearch: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        say("\nclipsearch: interrupted")
        return errors.INTERRUPTED
    except Exception as error:
        known = in_our_words(error)
        if known is not None:
            say(f"clipsearch: {known}")
            return known.exit_code
        for line in traceback.format_exc().splitlines():
            say(line)
        say(f"clipsearch {__version__}: this is a bug, please report it with the lines above")
        return errors.CRASHED


def _speak_utf8() -> None:
    """Paths are printed as the bytes they are, also where the locale knows only ASCII."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="surrogateescape")


def _run(given: list[str]) -> int:
    parser, commands = _parser()
    name = _command_name(given)
    command: Command | None = None
    if name in COMMANDS:
        refuse_too_little_memory()
        command = _load(name)
        command.configure(commands[name])
        if command.arrange is not None:
            at = given.index(name) + 1
            given = [*given[:at], *command.arrange(commands[name], given[at:])]
    parsed = parser.parse_args(given)
    if command is None:
        parser.print_help()
        return errors.USAGE
    _expand_paths(parsed)
    return command.run(parsed)


def _expand_paths(parsed: argparse.Namespace) -> None:
    """Does for paths what a shell did not, as in ``--library=~/photos``."""
    for name, value in vars(parsed).items():
        if isinstance(value, Path):
            setattr(parsed, name, expand_user(value))
        elif isinstance(value, list):
            expanded = [expand_user(one) if isinstance(one, Path) else one for one in value]
            setattr(parsed, name, expanded)


def _command_name(given: Sequence[str]) -> str | None:
    return next((word for word in given if not word.startswith("-")), None)


class _Parser(argparse.ArgumentParser):
    """Repeats what was typed in its errors, so these are made safe for a terminal."""

    def _print_message(self, message: str, file: Any = None) -> None:
        file = file or sys.stderr
        super()._print_message(quoted(message, keep="\n") if is_terminal(file) else message, file)


def _parser() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    parser = _Parser(
        prog="clipsearch",
        description="Search your own photos by describing them. Everything stays on this machine.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"clipsearch {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    commands = {
        name: subparsers.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for name, (_, summary) in COMMANDS.items()
    }
    return parser, commands


def _load(name: str) -> Command:
    module, attribute = COMMANDS[name][0].split(":")
    command = getattr(import_module(module), attribute)
    assert isinstance(command, Command)  # noqa: S101 - a typo in the table above, not user input
    return command
