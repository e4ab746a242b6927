"""Text to Query. Plain words always are words; what looks like language has to be right."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass, field, replace

from clipsearch.query.fields import FIELDS, OPTIONS, TERMS, Kind
from clipsearch.query.folding import DASHES, clean
from clipsearch.query.mistakes import mistake
from clipsearch.query.terms import LARGEST_WEIGHT, SMALLEST_WEIGHT, Filter, Query, Term
from clipsearch.query.values import Piece, number_notes, read_filter, read_option, read_picture

MAX_CHARACTERS = 20_000

_WEIGHT = re.compile(r"(\d+(?:\.\d+)?|\.\d+):(?=[^\s\d/.,;:)])")
_COMMA_WEIGHT = re.compile(r"(\d+),(\d+):(?=[^\s\d/.,;:)])")
_NAME = re.compile(r"([A-Za-z][A-Za-z_-]*)[:\uff1a](?!//)")
_WORD = re.compile(r"\S+")
CLOSING = {'"': '"', "“": "”", "„": "“”", "”": "”", "«": "»"}
_NOT_AFTER_A_SIGN = (frozenset(string.punctuation) | set(DASHES)) - set('".#')
_TERMS = frozenset(entry.name for entry in TERMS)
_OPTIONS = frozenset(entry.name for entry in OPTIONS)
_LONGEST_NAME = 24  # characters; what is longer is no misspelt field


def parse(text: str) -> Query:
    """Understands a query; QueryError with a caret under the place for a mistake."""
    if len(text) > MAX_CHARACTERS:
        raise mistake(
            text,
            MAX_CHARACTERS,
            len(text),
            f"A query has at most {MAX_CHARACTERS:,} characters, not {len(text):,}.",
        )
    return _Parser(text).parse()


@dataclass
class _Parser:
    text: str
    at: int = 0
    terms: list[Term] = field(default_factory=list)
    plain: list[str] = field(default_factory=list)
    plain_place: int | None = None  # where among the terms the plain words stand
    query: Query = field(default_factory=Query)
    filters: list[Filter] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def parse(self) -> Query:
        while found := _WORD.search(self.text, self.at):
            self.at = found.start()
            self._token()
        words = clean(" ".join(self.plain))
        if words and self.plain_place is not None:
            self.terms.insert(self.plain_place, Term("text", words))
        return replace(
            self.query,
            terms=tuple(self.terms),
            filters=tuple(self.filters),
            notes=tuple(dict.fromkeys(self.notes)),
        )

    def _token(self) -> None:
        start = self.at
        sign = self._sign()
        if comma := _COMMA_WEIGHT.match(self.text, self.at):
            written = f"{comma[1]}.{comma[2]}:"
            message = f"A weight has a point, as in {written} ; words are literal in quotes."
            raise mistake(self.text, comma.start(), comma.end(), message)
        weight = _WEIGHT.match(self.text, self.at)
        if weight is not None:
            self.at = weight.end()
        factor = self._factor(weight) * (-1 if sign == "-" else 1)
        name = _NAME.match(self.text, self.at)
        if name is not None and self._is_field(name):
            self._field(start, name, sign, weight, factor)
        elif sign or weight:
            self._term(factor)
        else:
            self._plain()

    def _sign(self) -> str:
        sign, after = self.text[self.at], self.text[self.at + 1 : self.at + 2]
        if sign in DASHES:
            sign = "-"
        if sign not in "+-" or not after.strip() or after in _NOT_AFTER_A_SIGN:
            return ""
        self.at += 1
        return sign

    def _factor(self, weight: re.Match[str] | None) -> float:
        if weight is None:
            return 1.0
        number = float(weight[1])
        if not SMALLEST_WEIGHT <= number <= LARGEST_WEIGHT:
            raise mistake(
                self.text,
                weight.start(),
                weight.end(),
                f"A weight is a number from {SMALLEST_WEIGHT} to {LARGEST_WEIGHT:g}, as in "
                '0.5:"warm light".',
            )
        return number

    def _is_field(self, name: re.Match[str]) -> bool:
        """True for a known field; QueryError for what was probably meant as one."""
        given = name[1].casefold()
        after = self.text[name.end() : name.end() + 1]
        if given in FIELDS:
            if after.strip():
                return True
            raise mistake(
                self.text,
                name.start(),
                name.end(),
                f"{given}: needs its value right after the colon, such as "
                f'{FIELDS[given].example.split(" -")[0]}; in quotes it is a word: "{given}:".',
            )
        meant = _nearest_field(given) if after.strip() else None
        if meant is not None:
            raise mistake(
                self.text,
                name.start(),
                name.end(),
                f"There is no field {name[1]}:, did you mean {meant}: ? "
                "To search for the words, put them in quotes.",
            )
        return False

    def _plain(self) -> None:
        if self.plain_place is None:
            self.plain_place = len(self.terms)
        quoted = self._quoted()
        self.plain.append(self._word() if quoted is None else quoted)

    def _term(self, weight: float) -> None:
        start = self.at
        quoted = self._quoted()
        words = clean(self._word() if quoted is None else quoted)
        if not words:
            raise mistake(self.text, start, self.at, "There is nothing in these quotes.")
        self.terms.append(Term("text", words, weight))

    def _word(self) -> str:
        found = _WORD.match(self.text, self.at)
        if found is None:
            return ""
        self.at = found.end()
        return found[0]

    def _quoted(self) -> str | None:
        """The text in the quotes that begin here; None if none do, or they are never closed."""
        closing = CLOSING.get(self.text[self.at : self.at + 1])
        if closing is None:
            return None
        said, at = [], self.at + 1
        while at < len(self.text):
            character = self.text[at]
            if character == "\\" and self.text[at + 1 : at + 2] in ("\\", *closing):
                at += 1
                said.append(self.text[at])
            elif character in closing:
                self.at = at + 1
                return "".join(said)
            else:
                said.append(character)
            at += 1
        return None

    def _field(
        self,
        start: int,
        name: re.Match[str],
        sign: str,
        weight: re.Match[str] | None,
        factor: float,
    ) -> None:
        entry = FIELDS[name[1].casefold()]
        self.at = name.end()
        pieces = self._pieces(entry.name)
        if entry.name in _TERMS:
            self.terms.append(Term("image", read_picture(self.text, entry, pieces), factor))
            return
        if weight is not None:
            raise mistake(
                self.text,
                weight.start(),
                weight.end(),
                f"{entry.name}: keeps or leaves out, so it has no weight; words and image: do.",
            )
        if sign == "+":
            raise mistake(
                self.text, start, start + 1, f"{entry.name}: needs no plus: it always holds."
            )
        if entry.name not in _OPTIONS:
            values = read_filter(self.text, entry, pieces)
            self.filters.append(Filter(entry.name, values, negated=sign == "-"))
            if entry.kind is Kind.NUMBER:
                self.notes += number_notes(entry, pieces, self.text[self.at :])
            return
        if sign:
            raise mistake(
                self.text, start, name.end(), f"{entry.name}: cannot be turned round with a minus."
            )
        self.query = read_option(self.text, entry, pieces, self.query)

    def _pieces(self, name: str) -> list[Piece]:
        """The value up to the next blank, divided at commas outside of quotes."""
        pieces: list[Piece] = []
        while True:
            start = self.at
            quoted = self._quoted()
            if quoted is None and self.text[self.at : self.at + 1] in CLOSING:
                raise mistake(
                    self.text, start, start + 1, f"This quote in {name}: is never closed."
                )
            rest_at = self.at
            while self.at < len(self.text) and not (
                self.text[self.at].isspace() or self.text[self.at] == ","
            ):
                self.at += 1
            pieces.append(Piece(quoted, self.text[rest_at : self.at], start, self.at))
            if self.text[self.at : self.at + 1] != ",":
                return pieces
            self.at += 1


def _nearest_field(given: str) -> str | None:
    """The field that a misspelt name is for; None where it is more likely a plain word."""
    if not 2 < len(given) <= _LONGEST_NAME:
        return None
    allowed = 1 if len(given) < 6 else 2
    distances = {name: _distance(given, name) for name in FIELDS if len(name) > 2}
    best = min(distances, key=lambda name: (distances[name], not name.startswith(given)))
    return best if distances[best] <= allowed else None


def _distance(one: str, other: str) -> int:
    """Edits from one word to another: a letter more, less, changed, or two swapped."""
    rows = [list(range(len(other) + 1))]
    for i, letter in enumerate(one, 1):
        row = [i]
        for j, wanted in enumerate(other, 1):
            edits = min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                edits = min(edits, rows[-2][j - 2] + 1)
            row.append(edits)
        rows.append(row)
    return rows[-1][-1]
