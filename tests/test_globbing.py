"""Wildcards: the same answers as a regular expression gives, without its time."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsearch.globbing import PathPattern, compile_name

_WILDCARDS = {"**/": "(.*/)?", "/**": "(/.*)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def regular_expression(pattern: str) -> re.Pattern[str]:
    """The oracle: what a pattern means, word for word."""
    parts = re.split(r"(\*\*/|/\*\*|\*\*|\*|\?)", pattern)
    return re.compile("".join(_WILDCARDS.get(part, re.escape(part)) for part in parts), re.DOTALL)


@given(
    st.text("ab/*?[.é\n", max_size=8),
    st.lists(st.text("ab.é[\n", min_size=1, max_size=3), max_size=4),
    st.booleans(),
)
def test_a_path_pattern_matches_as_the_regular_expression_does(
    pattern: str, names: list[str], is_absolute: bool
) -> None:
    path = "/" * is_absolute + "/".join(names)
    assert PathPattern(pattern).matches(path) == bool(regular_expression(pattern).fullmatch(path))
    below = re.compile(f"(?:{regular_expression(pattern).pattern})(/.*)?", re.DOTALL)
    assert PathPattern(pattern, and_below=True).matches(path) == bool(below.fullmatch(path))


@pytest.mark.parametrize(
    "pattern",
    ["*a" * 40 + "*b", "**a" * 40 + "**b", "**/*a*" * 30 + "b", "?*" * 60 + "b", "*" * 90],
)
def test_no_pattern_takes_long(pattern: str) -> None:
    """A backtracking matcher takes years for most of these."""
    text = "/".join(["a" * 200] * 20)
    begun = time.process_time()
    assert not PathPattern(pattern, and_below=True).matches(text) or pattern == "*" * 90
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("[a-c]x", "bx", True),
        ("[!a-c]x", "bx", False),
        ("[^a-c]x", "dx", True),
        (r"\*x", "*x", True),
        (r"\*x", "ax", False),
        ("é*", "été", True),
    ],
)
def test_names_of_ignore_files_have_sets_and_escapes(pattern: str, name: str, fits: bool) -> None:
    assert bool(compile_name(pattern, has_sets=True).match(name)) == fits


def test_names_in_questions_have_no_sets() -> None:
    assert compile_name("[ab]*", has_sets=False).match("[ab]c")
    assert not compile_name("[ab]*", has_sets=False).match("ac")
