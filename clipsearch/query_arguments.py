"""The query language on a command line: words that begin with a minus, and what a shell unquotes.

``clipsearch search sunset -people camera:"Pixel 7"`` reaches us as ``sunset``, ``-people`` and
``camera:Pixel 7``. None of them is an option, and the last one lost its quotes to the shell.
"""

from __future__ import annotations

import re
from argparse import ArgumentParser
from collections.abc import Sequence

from clipsearch.query.fields import FIELDS
from clipsearch.query.folding import DASHES

_LEAD = re.compile(
    rf"([{DASHES}+]?(?:(?:\d+(?:\.\d+)?|\.\d+):)?(?:([A-Za-z][A-Za-z-]*):)?)(.*)", re.DOTALL
)
_LANGUAGE = re.compile(rf'["“„]|(?:^|\s)[{DASHES}+]\S|(?:^|\s)[A-Za-z-]+:\S')


def words_last(parser: ArgumentParser, given: Sequence[str]) -> list[str]:
    """The arguments with all options first, then ``--`` and what is no option, in its order.

    An option is what the parser knows, and whatever else begins with two dashes: that is refused
    as a misspelt option. A single dash before a word is the language's NOT.
    """
    options: list[str] = []
    words: list[str] = []
    waiting = list(given)
    while waiting:
        argument = waiting.pop(0)
        if argument == "--":
            words += waiting
            break
        known = _takes_value(parser, argument)
        if known is None and not argument.startswith("--"):
            words.append(argument)
            continue
        options.append(argument)
        if known and waiting and "=" not in argument:
            options.append(waiting.pop(0))
    return [*options, "--", *words]


def _takes_value(parser: ArgumentParser, argument: str) -> bool | None:
    """Whether an option is followed by a value; None for what is no option."""
    name = argument.split("=", 1)[0]
    actions = parser._option_string_actions  # argparse has no public way to ask
    if name.startswith("--") and name not in actions:
        fitting = [known for known in actions if known.startswith(name)]
        name = fitting[0] if len(fitting) == 1 else name
    action = actions.get(name)
    return None if action is None else action.nargs != 0


def joined(arguments: Sequence[str]) -> str:
    """The query that arguments make up.

    One argument is the query as it stands. Of several, each that has blanks was in quotes: behind
    a field, a sign or a weight it is put in quotes again, unless it is language itself.
    """
    if len(arguments) < 2:
        return " ".join(arguments)
    return " ".join(map(_requoted, arguments))


def _requoted(argument: str) -> str:
    matched = _LEAD.fullmatch(argument)
    if matched is None or not re.search(r"\s", argument):
        return argument
    lead, field, rest = matched.groups()
    if not lead or (field and field.casefold() not in FIELDS) or _LANGUAGE.search(rest):
        return argument
    marked = rest.replace("\\", "\\\\")
    return f'{lead}"{marked}"'
