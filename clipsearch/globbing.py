"""Wildcards against names and paths, in time linear in either: no pattern makes it slow.

A regular expression for a whole path backtracks: with each further star ``*a*a*a*a*a*b`` takes a
power more of the length of a name, and patterns come from questions and from other people's
folders. So a name is matched by atomic groups, and folders one after the other.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from functools import lru_cache

Part = re.Pattern[str] | None  # one name of a path; None: any number of folders
_NOTHING = re.compile("(?!)")  # matches no name
_PIECES = re.compile(r"(\*\*/|/\*\*|\*\*|\*|\?)", re.DOTALL)


@lru_cache(maxsize=1024)
def compile_name(pattern: str, *, has_sets: bool) -> re.Pattern[str]:
    """A pattern for one name, without slashes, as a regular expression that never backtracks far.

    ``*`` is any number of characters, ``?`` one; with ``has_sets`` also ``[a-z]``, ``[!x]``, and a
    backslash before what is meant as it is. ValueError for a set or an escape that is none.
    Python's fnmatch makes it (with atomic groups); it lacks escapes and knows [!x], not [^x].
    """
    if not has_sets:
        return re.compile(fnmatch.translate(pattern.replace("[", "[[]")))
    glob: list[str] = []
    position = 0
    while position < len(pattern):
        char = pattern[position]
        if char == "\\":
            position += 1
            if position == len(pattern):
                raise ValueError("it ends in a backslash")
            escaped = pattern[position]
            glob.append(f"[{escaped}]" if escaped in "*?[" else escaped)
        elif char == "[":
            end = pattern.find(
                "]", position + 2 + (pattern[position + 1 : position + 2] in ("!", "^"))
            )
            inside = pattern[position + 1 : end]
            if end < 0 or "\\" in inside or "[:" in inside:
                raise ValueError(f"{pattern[position:]!r} is no set of characters such as [a-z]")
            glob.append(f"[!{inside[1:]}]" if inside[0] in "!^" else f"[{inside}]")
            position = end
        else:
            glob.append(char)
        position += 1
    return re.compile(fnmatch.translate("".join(glob)))


def match_parts(parts: Sequence[Part], names: Sequence[str]) -> bool:
    """Whether the parts match all names. Only the last None is ever tried again: that suffices."""
    part = name = 0
    retry: tuple[int, int] | None = None
    while name < len(names):
        wanted = parts[part] if part < len(parts) else _NOTHING
        if wanted is None:
            part, retry = part + 1, (part + 1, name + 1)
        elif wanted.match(names[name]):
            part, name = part + 1, name + 1
        elif retry is not None:
            part, name = retry
            retry = (part, name + 1)
        else:
            return False
    return all(left is None for left in parts[part:])


class PathPattern:
    """``*`` and ``?`` within a name, ``**`` across folders; everything else is meant as it is.

    With ``and_below`` it also matches all that lies below what it matches.
    """

    def __init__(self, pattern: str, *, and_below: bool = False) -> None:
        names = pattern.split("/")
        self._parts: list[Part] | None = None
        self._steps: _Steps | None = None
        if all(name == "**" or "**" not in name for name in names):
            parts = [None if name == "**" else compile_name(name, has_sets=False) for name in names]
            self._parts = [*parts, None] if and_below else parts
        else:  # a ** beside other characters may end in the middle of a name
            self._steps = _Steps(pattern + ("/**" if and_below else ""))

    def matches(self, path: str) -> bool:
        """Whether it is the whole path."""
        if self._parts is not None:
            return match_parts(self._parts, path.split("/"))
        assert self._steps is not None  # noqa: S101 - one of the two is set
        return self._steps.match(path)


class _Steps:
    """All places in a pattern that a text may have reached, as the bits of one number.

    (Thompson's simulation; K. Thompson, Regular expression search algorithm, 1968.)
    """

    def __init__(self, pattern: str) -> None:
        self._literals: dict[str, int] = {}  # character -> the places that it leads on from
        self._any = self._name = 0  # places where any character leads on, or any but a slash
        self._stay = self._stay_in_name = 0  # where it leads nowhere else
        self._jumps: list[tuple[int, int]] = []  # places that lead on without a character
        self._end = 0
        for piece in _PIECES.split(pattern):
            if piece == "**/":
                self._jump(1)
                self._jump(3)
                self._end += 1
                self._loop(within_name=False)
                self._literal("/")
            elif piece == "/**":
                self._jump(2)
                self._literal("/")
                self._loop(within_name=False)
            elif piece in ("**", "*"):
                self._loop(within_name=piece == "*")
            elif piece == "?":
                self._name |= 1 << self._end
                self._end += 1
            else:
                for char in piece:
                    self._literal(char)
        self._jumps.sort()

    def match(self, text: str) -> bool:
        places = self._closed(1)
        for char in text:
            leads, stays = self._any | self._literals.get(char, 0), self._stay
            if char != "/":
                leads, stays = leads | self._name, stays | self._stay_in_name
            places = self._closed((places & leads) << 1 | places & stays)
            if not places:
                return False
        return bool(places >> self._end & 1)

    def _literal(self, char: str) -> None:
        self._literals[char] = self._literals.get(char, 0) | 1 << self._end
        self._end += 1

    def _loop(self, *, within_name: bool) -> None:
        if within_name:
            self._stay_in_name |= 1 << self._end
        else:
            self._stay |= 1 << self._end
        self._jump(1)
        self._end += 1

    def _jump(self, distance: int) -> None:
        self._jumps.append((self._end, self._end + distance))

    def _closed(self, places: int) -> int:
        for start, end in self._jumps:  # all lead on, so in their order once is enough
            if places >> start & 1:
                places |= 1 << end
        return places
