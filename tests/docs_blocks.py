"""The fenced blocks of README and docs, what each is, and a shell for those that are commands."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from unittest.mock import patch

from clipsearch import cli

REPOSITORY = Path(__file__).parents[1]
_FENCE = re.compile(
    r"^[ \t]*(?P<fence>`{3,}|~{3,})(?P<info>[^`\n]*)\n"
    r"(?P<body>.*?)^[ \t]*(?P=fence)[`~]*[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
_SHELL = ("bash", "sh", "shell", "console")
_COMMENT = re.compile(r"(^|\s)#(\s.*)?$")
_SUBSTITUTED = re.compile(r"\$\([^)]*\)")  # what another command would print there
_OPERATORS = ("|", ">", "&&", ";", "&")


@dataclass(frozen=True)
class Block:
    """One fenced block: the page, the line of its fence, its info string and its text."""

    page: str
    line: int
    kind: str  # the info string's first word; of a plain block that starts as a command, bash
    body: str

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Run:
    """What a line of a shell block did."""

    code: int
    out: bytes
    err: str


def pages() -> list[Path]:
    return [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def blocks() -> list[Block]:
    """Every block there is, by page and line."""
    return [
        block
        for path in pages()
        for block in blocks_of(path.relative_to(REPOSITORY).as_posix(), path.read_text("utf-8"))
    ]


def blocks_of(page: str, text: str) -> Iterator[Block]:
    for found in _FENCE.finditer(text):
        body = dedent(found["body"])
        info = found["info"].split()
        kind = info[0] if info else ("bash" if _looks_like_shell(body) else "")
        kind = "bash" if kind in _SHELL else kind
        yield Block(page, text.count("\n", 0, found.start()) + 1, kind, body)


def fences(text: str) -> int:
    """How many fence lines a page has: twice its blocks, if every block was found."""
    return len(re.findall(r"^[ \t]*(?:`{3,}|~{3,})", text, re.MULTILINE))


def _looks_like_shell(body: str) -> bool:
    return bool(re.match(r"(?:[A-Z_]+=\S* )*(?:clipsearch|curl)\s", _SUBSTITUTED.sub("text", body)))


def commands(body: str) -> list[str]:
    """The commands of a shell block, without comments, each on one line."""
    joined = re.sub(r"\\\n\s*", " ", body)
    joined = re.sub(r"\|[ \t]*\n\s*", "| ", joined)
    lines = (_COMMENT.sub("", line).strip() for line in joined.splitlines())
    return [line.removeprefix("$ ") for line in lines if line]


def words_of(command: str) -> list[str]:
    """Its words and operators, as a shell splits them; what is optional, in [], is taken."""
    taken = re.sub(r"\[(--[^\]]*)\]", r"\1", _SUBSTITUTED.sub("text", command))
    lexer = shlex.shlex(taken, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    lexer.commenters = ""
    return list(lexer)


def clipsearch_calls(command: str) -> list[list[str]]:
    """The arguments of every call of clipsearch in a command, whatever it is wrapped in."""
    plain = command.replace('"', " ").replace("'", " ") if "schtasks" in command else command
    words = words_of(plain)
    starts = [
        at
        for at, word in enumerate(words[:-1])
        if re.fullmatch(r"(?:.*[/\\])?clipsearch(?:\.exe)?", word) and words[at + 1] in cli.COMMANDS
    ]
    calls = []
    for start in starts:
        end = next((at for at in range(start, len(words)) if words[at] in _OPERATORS), len(words))
        calls.append(words[start + 1 : end])
    return calls


def parsed(arguments: list[str]) -> Namespace:
    """What the command line makes of arguments; AssertionError if it refuses them."""
    parser, subparsers = cli._parser()
    name = cli._command_name(arguments)
    assert name in cli.COMMANDS, f"there is no command {name}"
    command = cli._load(name)
    command.configure(subparsers[name])
    if command.arrange is not None:
        at = arguments.index(name) + 1
        rest = command.arrange(subparsers[name], arguments[at:])
        arguments = [*arguments[:at], *rest]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return parser.parse_args(arguments)
    except SystemExit as refused:
        raise AssertionError(f"{arguments}: {said.getvalue()}") from refused


def run(command: str, other: Callable[[list[str]], list[str]] = list) -> Run:
    """Runs a command: clipsearch in this process, what it is piped to by bash.

    ``other`` may rewrite the words of a program that is not clipsearch.
    """
    words = words_of(command)
    environment = {}
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        name, _, value = words.pop(0).partition("=")
        environment[name] = value
    end = next((at for at, word in enumerate(words) if word in _OPERATORS), len(words))
    first, rest = words[:end], words[end:]
    assert rest[:1] in ([], ["|"], [">"]), f"{command}: {rest[0]} is not understood here"
    arguments = [each for word in first for each in _expanded(word)]
    with patch.dict(os.environ, environment):
        if arguments[0] == "clipsearch":
            done = clipsearch(arguments[1:])
        else:
            result = subprocess.run(other(arguments), capture_output=True, timeout=60, check=False)
            done = Run(result.returncode, result.stdout, result.stderr.decode())
    if rest and done.code == 0:
        sink = "cat > " if rest[0] == ">" else ""
        piped = subprocess.run(
            ["bash", "-c", sink + shlex.join(rest[1:])],
            input=done.out,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return Run(piped.returncode, piped.stdout, done.err + piped.stderr.decode())
    return done


def clipsearch(arguments: list[str]) -> Run:
    """One command of ours, as ``cli.main`` runs it."""
    out, err = io.BytesIO(), io.StringIO()
    stdout = io.TextIOWrapper(out, encoding="utf-8", errors="surrogateescape")
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(err):
        code = cli.main(arguments)
        stdout.flush()
    return Run(code, out.getvalue(), err.getvalue())


def _expanded(word: str) -> list[str]:
    """As a shell expands ~ and * in a word, where there are such files."""
    path = Path(word).expanduser() if word.startswith("~") else Path(word)
    if "*" not in path.name or " " in word:
        return [str(path) if word.startswith("~") else word]
    return sorted(str(found) for found in path.parent.glob(path.name)) or [word]
