"""What a command is: how it takes arguments and what it runs."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, BooleanOptionalAction, Namespace, _ActionsContainer
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipsearch.terminal import is_terminal, json_quoted, quoted, write_raw


@dataclass(frozen=True)
class Command:
    """``configure`` adds the arguments; ``run`` does the work and returns the exit code.

    ``run`` raises ClipsearchError for everything a user can cause; ``clipsearch.cli`` prints it.
    ``arrange`` reorders the arguments of a command whose words may look like options.
    """

    configure: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]
    arrange: Callable[[ArgumentParser, Sequence[str]], list[str]] | None = None


def add_library_argument(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--library",
        type=Path,
        metavar="PATH",
        help="the library's folder (default: $CLIPSEARCH_LIBRARY, "
        "else one in your user data directory)",
    )
    parser.add_argument(
        "--offline",
        action=BooleanOptionalAction,
        help="never ask the network, also not for a model's weights "
        "(default: $CLIPSEARCH_OFFLINE, else what clipsearch models offline has set)",
    )


def add_model_argument(parser: ArgumentParser, use: str) -> None:
    parser.add_argument("--model", metavar="ADDRESS", help=use)


def add_json_argument(parser: _ActionsContainer) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")


def print_json(record: dict[str, Any]) -> None:
    """Writes one object as one line of data to stdout; paths become strings.

    JSON is UTF-8, so the bytes of a path that is not are written as the escapes of surrogates.
    """
    line = json.dumps(record, ensure_ascii=False, default=str)
    try:
        line.encode()
    except UnicodeEncodeError:
        line = json.dumps(record, default=str)
    print(json_quoted(line) if is_terminal(sys.stdout) else line, flush=True)


def show(line: str) -> None:
    """Writes one line for people to stdout; a newline in a name does not break it on a terminal."""
    print(quoted(line) if is_terminal(sys.stdout) else line)


def print_path(path: Path, *, null: bool) -> None:
    """Writes a path alone to stdout, as data: as it is but for a terminal, or ended by NUL."""
    if null:
        write_raw(f"{path}\0")
    else:
        show(str(path))


def say(message: str) -> None:
    """Writes one line for people to stderr, after the empty lines that it begins with.

    Nobody is left to be told where stderr cannot be written.
    """
    line = message.lstrip("\n")
    if is_terminal(sys.stderr):
        line = quoted(line)
    with suppress(OSError):
        print("\n" * (len(message) - len(message.lstrip("\n"))) + line, file=sys.stderr, flush=True)


def clock(time_s: float) -> str:
    """A time in a video for people: ``1:05`` or ``1:02:09``."""
    minutes, seconds = divmod(int(time_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
