"""The query language: text to Query and back, the same for every face of clipsearch.

``parse("sunset -people after:2023")`` reads it, ``str`` of a Query writes it, and ``words(text)``
is a query for exactly that text. docs/query.md says what can be written.
"""

from clipsearch.query.fields import FIELDS, help_text, markdown_table
from clipsearch.query.mistakes import mistake
from clipsearch.query.parsing import parse
from clipsearch.query.printing import print_pieces
from clipsearch.query.terms import Filter, Like, Near, Period, Query, Span, Term, words

__all__ = [
    "FIELDS",
    "Filter",
    "Like",
    "Near",
    "Period",
    "Query",
    "Span",
    "Term",
    "help_text",
    "markdown_table",
    "mistake",
    "parse",
    "print_pieces",
    "words",
]
