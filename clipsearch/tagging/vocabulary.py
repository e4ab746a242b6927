"""Vocabularies: the words that pictures can be tagged with, read from a list or a hierarchy.

A file is plain text, one concept a line, what is indented below a line is a kind or a part of it:

    animal
        dog | hound             synonyms
    animal > pet > cat          the same in one line
    occasion:                   a heading is a level of the hierarchy, but no tag
    food @food                  templates for it and all below
    one of: indoors, outdoors   exactly one holds for every picture
    at most one of: day, night  never two hold for one picture
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from clipsearch.errors import VocabularyError

BUILT_IN = "everyday"
MAX_CONCEPTS = 20_000
MAX_NAME_CHARACTERS = 100
_MAX_FILE_BYTES = 5_000_000
_TAB_COLUMNS = 4
_DOMAIN = re.compile(r"\s@([A-Za-z][\w-]*)$")
_GROUP = re.compile(r"(at most )?one of:(.*)", re.IGNORECASE)
_BRACKETS = re.compile(r"[()]")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Concept:
    """One tag. ``path`` holds every level down to its name; ``ancestors`` are tags, nearest first.

    ``line`` is where it stands in its file, ``domain`` the templates it asks for, or None.
    """

    name: str
    synonyms: tuple[str, ...]
    path: tuple[str, ...]
    ancestors: tuple[int, ...]  # positions in the vocabulary
    domain: str | None
    line: int

    @property
    def wordings(self) -> tuple[str, ...]:
        """What a model is asked for: the name and its synonyms, without brackets."""
        return tuple(_BRACKETS.sub("", text) for text in (self.name, *self.synonyms))


@dataclass(frozen=True)
class Group:
    """Concepts, by position, of which one holds for every picture, or at most one."""

    members: tuple[int, ...]
    always_one: bool


@dataclass(frozen=True)
class Vocabulary:
    """Concepts in the order of their file; each name and synonym is there once."""

    name: str
    concepts: tuple[Concept, ...]
    groups: tuple[Group, ...]
    text: str = field(repr=False)

    def __len__(self) -> int:
        return len(self.concepts)

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(concept.name for concept in self.concepts)

    @cached_property
    def _positions(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for position, concept in enumerate(self.concepts):
            for text in (concept.name, *concept.synonyms):
                found[text.casefold()] = position
        return found

    def find(self, name: str) -> int | None:
        """The position of a concept by its name or a synonym; case does not matter."""
        return self._positions.get(_SPACE.sub(" ", name).strip().casefold())


@cache
def everyday() -> Vocabulary:
    """The built-in vocabulary."""
    file = Path(__file__).with_name("everyday.txt")
    return parse_vocabulary(file.read_text(encoding="utf-8"), name=BUILT_IN, path=file)


def read_vocabulary(path: Path) -> Vocabulary:
    """Reads a user's file; its name without the ending is the vocabulary's. The built-in one can
    be named, too, where no file of that name is there.

    VocabularyError names the file and the line of whatever cannot be understood.
    """
    name = path.stem
    if path == Path(BUILT_IN) and not path.exists():
        return everyday()
    if name == BUILT_IN:
        raise _error(path, 0, f"'{BUILT_IN}' is the built-in vocabulary's name", "Rename the file.")
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise _error(path, 0, f"it is larger than {_MAX_FILE_BYTES:,} bytes", "Split it.")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise _error(path, 0, error.strerror or str(error), "Name a text file.") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise _error(path, line, "it is not UTF-8", "Save it as UTF-8 text.") from error
    return parse_vocabulary(text, name=name, path=path)


def parse_vocabulary(text: str, *, name: str, path: Path) -> Vocabulary:
    """Understands a vocabulary's text; ``path`` is named in errors."""
    return _Parser(name, path).parsed(text)


@dataclass
class _Level:
    """A line that others may be indented below."""

    column: int
    path: tuple[str, ...]
    ancestors: tuple[int, ...]  # of what is below it, nearest first
    domain: str | None


class _Parser:
    def __init__(self, name: str, path: Path) -> None:
        self._name = name
        self._path = path
        self._concepts: list[Concept] = []
        self._places: dict[tuple[str, ...], int] = {}  # of concepts, by folded path
        self._known: dict[str, int] = {}  # the line of each folded name and synonym
        self._implied: set[int] = set()  # named so far only in the path of another
        self._groups: list[tuple[int, bool, list[str]]] = []

    def parsed(self, text: str) -> Vocabulary:
        open_levels: list[_Level] = []
        for number, column, content in self._lines(text):
            if group := _GROUP.fullmatch(content):
                members = [part.strip() for part in group[2].split(",")]
                self._groups.append((number, group[1] is None, members))
                continue
            while open_levels and open_levels[-1].column >= column:
                closed = open_levels.pop()
                outer = open_levels[-1].column if open_levels else 0
                if outer < column < closed.column:
                    raise self._wrong(number, "its indentation fits no line above", "Align it.")
            if column and not open_levels:
                raise self._wrong(number, "it is indented below nothing", "Align it to the left.")
            open_levels.append(self._level(number, column, content, open_levels[-1:]))
        if not self._concepts:
            raise self._wrong(0, "it names no concept", "Write one a line.")
        vocabulary = Vocabulary(self._name, tuple(self._concepts), (), text)
        return Vocabulary(self._name, vocabulary.concepts, tuple(self._resolved(vocabulary)), text)

    def _lines(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Number, column and content of each line that says something."""
        for number, raw in enumerate(text.split("\n"), 1):
            line = raw.rstrip().expandtabs(_TAB_COLUMNS)
            content = line.strip()
            if not content or content.startswith("#"):
                continue
            if not content.isprintable():
                raise self._wrong(number, "it holds control characters", "Remove them.")
            yield number, len(line) - len(line.lstrip()), content

    def _level(self, number: int, column: int, content: str, above: Sequence[_Level]) -> _Level:
        base = above[0] if above else _Level(-1, (), (), None)
        domain = base.domain
        if marked := _DOMAIN.search(content):
            domain = marked[1].lower()
            content = content[: marked.start()].rstrip()
        *before, last = content.split(">")
        at = base
        for part in before:
            at = self._below(number, at, [self._cleaned(number, part)], domain, is_implied=True)
        if last.rstrip().endswith(":"):
            heading = self._cleaned(number, last.rstrip()[:-1])
            return _Level(column, (*at.path, heading), at.ancestors, domain)
        names = [self._cleaned(number, part) for part in last.split("|")]
        level = self._below(number, at, names, domain, is_implied=False)
        return _Level(column, level.path, level.ancestors, level.domain)

    def _below(
        self, number: int, at: _Level, names: list[str], domain: str | None, *, is_implied: bool
    ) -> _Level:
        """The level of a concept under another; it is added unless its path names it already."""
        path = (*at.path, names[0])
        folded = tuple(part.casefold() for part in path)
        position = self._places.get(folded)
        if position is not None and (is_implied or position in self._implied):
            if is_implied:
                names = names[:0]
            else:
                self._implied.discard(position)
                names = names[1:]
            before = self._concepts[position]
            synonyms = (*before.synonyms, *names)
            self._concepts[position] = Concept(
                before.name, synonyms, before.path, before.ancestors, before.domain, before.line
            )
        else:
            position = len(self._concepts)
            if position == MAX_CONCEPTS:
                reason = f"a vocabulary holds at most {MAX_CONCEPTS:,} concepts"
                raise self._wrong(number, reason, "Split it.")
            concept = Concept(names[0], tuple(names[1:]), path, at.ancestors, domain, number)
            self._concepts.append(concept)
            self._places[folded] = position
            if is_implied:
                self._implied.add(position)
        for name in names:
            line = self._known.setdefault(name.casefold(), number)
            if line != number or names.count(name) > 1:
                reason = f"'{name}' stands in line {line} already"
                raise self._wrong(number, reason, "Name each concept once.")
        return _Level(at.column, path, (position, *at.ancestors), domain)

    def _cleaned(self, number: int, text: str) -> str:
        name = _SPACE.sub(" ", text).strip()
        if not name:
            raise self._wrong(number, "a name is missing beside | or >", "Write it or remove it.")
        if len(name) > MAX_NAME_CHARACTERS:
            reason = f"'{name[:20]}...' is longer than {MAX_NAME_CHARACTERS} characters"
            raise self._wrong(number, reason, "Shorten it.")
        return name

    def _resolved(self, vocabulary: Vocabulary) -> Iterator[Group]:
        taken: dict[int, int] = {}
        for number, always_one, names in self._groups:
            members: list[int] = []
            for name in names:
                position = vocabulary.find(name)
                if position is None:
                    close = difflib.get_close_matches(name, vocabulary.names, 1)
                    advice = f"Did you mean '{close[0]}'?" if close else "Add it as a line."
                    raise self._wrong(number, f"'{name}' is no concept of this file", advice)
                if position in taken:
                    reason = f"'{name}' is in the group of line {taken[position]} already"
                    raise self._wrong(number, reason, "A concept belongs to one group.")
                taken[position] = number
                members.append(position)
            if len(members) < 2:
                raise self._wrong(number, "a group needs two names", "Separate them by commas.")
            yield Group(tuple(members), always_one)

    def _wrong(self, line: int, reason: str, advice: str) -> VocabularyError:
        return _error(self._path, line, reason, advice)


def _error(path: Path, line: int, reason: str, advice: str) -> VocabularyError:
    place = f"{path}, line {line}" if line else str(path)
    return VocabularyError(place=place, reason=reason, advice=advice)
