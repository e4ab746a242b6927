"""Vocabularies and templates: ours are sound, and a user's mistakes are told by line."""

from __future__ import annotations

import importlib.util
import runpy
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipsearch.errors import VocabularyError
from clipsearch.tagging.templates import (
    built_in_templates,
    read_templates,
    templates_of,
    wordings,
)
from clipsearch.tagging.vocabulary import Vocabulary, everyday, parse_vocabulary, read_vocabulary


def parsed(text: str) -> Vocabulary:
    return parse_vocabulary(text, name="mine", path=Path("mine.txt"))


def test_the_built_in_vocabulary_is_large_and_names_everything_once() -> None:
    words = everyday()
    assert len(words) >= 1500
    every = [
        text.casefold() for concept in words.concepts for text in (concept.name, *concept.synonyms)
    ]
    assert [name for name, count in Counter(every).items() if count > 1] == []
    assert all(text == text.strip() and text.isprintable() for text in every)
    assert sum(bool(concept.synonyms) for concept in words.concepts) > 300
    assert max(len(concept.ancestors) for concept in words.concepts) >= 3
    assert len(templates_of(words)) == len(words)  # every domain that is asked for is there


def test_the_built_in_hierarchy_implies_what_it_should() -> None:
    words = everyday()
    puppy = words.concepts[words.find("puppy") or 0]
    assert [words.names[at] for at in puppy.ancestors] == ["dog", "pet", "animal"]
    assert puppy.path == ("animal", "pet", "dog", "puppy")
    assert words.find("Hound") == words.find("dog")
    assert words.find("occasion") is None  # a heading
    groups = [{words.names[at] for at in group.members} for group in words.groups]
    assert {"indoors", "outdoors"} in groups
    assert [group.always_one for group in words.groups] == [True, False, False]


def test_indented_lines_paths_and_plain_lists_say_the_same() -> None:
    tree = parsed("animal\n    pet\n        dog | hound\n        cat\n")
    assert tree.concepts == parsed("animal\n\tpet\n\t\tdog | hound\n\t\tcat").concepts
    paths = parsed("animal > pet > dog | hound\nanimal > pet > cat")
    assert [c.path for c in paths.concepts] == [c.path for c in tree.concepts]
    assert [c.ancestors for c in paths.concepts] == [c.ancestors for c in tree.concepts]
    assert parsed("\ufeffbeach\r\n# no\r\n\r\nsnow man\r\n".lstrip("\ufeff")).names == (
        "beach",
        "snow man",
    )
    later = parsed("animal > dog\nanimal | beast\n")
    assert later.concepts[0].synonyms == ("beast",)


def test_headings_domains_and_groups() -> None:
    words = parsed(
        "place: @interior\n    kitchen\n    beach @nature\nday\nnight\nat most one of: day, night\n"
    )
    kitchen, beach, *_ = words.concepts
    assert kitchen.path == ("place", "kitchen")
    assert (kitchen.ancestors, kitchen.domain, beach.domain) == ((), "interior", "nature")
    assert words.groups[0].members == (2, 3)
    assert not words.groups[0].always_one
    assert parsed("a | b (colour)").concepts[0].wordings == ("a", "b colour")


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("dog\ncat\nDog", 3, "line 1 already"),
        ("dog | dog", 1, "already"),
        ("dog\n  cat | hound\nhound", 3, "line 2 already"),
        ("animal > dog\ndog", 2, "line 1 already"),
        ("  dog", 1, "below nothing"),
        ("a\n    b\n  c", 3, "indentation"),
        ("a |\nb", 1, "missing"),
        ("a > > b", 1, "missing"),
        ("x" * 101, 1, "longer than"),
        ("a\nbel\x07l", 2, "control"),
        ("day\nnight\none of: day, nigth", 3, "no concept"),
        ("day\none of: day", 2, "two names"),
        ("a\nb\nc\none of: a, b\none of: b, c", 5, "line 4 already"),
        ("dog @nonsense", 1, "no templates"),
    ],
)
def test_a_mistake_is_told_with_file_and_line(
    text: str, line: int, what: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.txt"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(VocabularyError) as told:
        words = read_vocabulary(file)
        templates_of(words, file)
    assert f"mine.txt, line {line}:" in str(told.value)
    assert what in str(told.value)


def test_files_that_are_no_vocabulary_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match=r"nowhere\.txt"):
        read_vocabulary(tmp_path / "nowhere.txt")
    (tmp_path / "empty.txt").write_text("# only a comment\n")
    with pytest.raises(VocabularyError, match="names no concept"):
        read_vocabulary(tmp_path / "empty.txt")
    (tmp_path / "latin.txt").write_bytes("gut\nschön\n".encode("latin-1"))
    with pytest.raises(VocabularyError, match=r"latin\.txt, line 2: it is not UTF-8"):
        read_vocabulary(tmp_path / "latin.txt")
    (tmp_path / "everyday.txt").write_text("dog\n")
    with pytest.raises(VocabularyError, match="built-in"):
        read_vocabulary(tmp_path / "everyday.txt")


_NAME = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=12)


@settings(max_examples=40)
@given(st.lists(_NAME, min_size=1, max_size=30, unique_by=str.casefold))
def test_any_list_of_words_is_a_vocabulary_of_these_words(names: list[str]) -> None:
    assert parsed("\n".join(names)).names == tuple(names)


@settings(max_examples=60)
@given(st.text(max_size=200))
def test_any_text_is_a_vocabulary_or_an_error_of_ours(text: str) -> None:
    try:
        assert len(parsed(text)) > 0
    except VocabularyError as error:
        assert "mine.txt" in str(error)


def test_the_templates_of_open_clip_are_there_whole() -> None:
    package = importlib.util.find_spec("open_clip")
    assert package is not None
    assert package.origin is not None
    # The file by itself: the package takes seconds to import.
    theirs = runpy.run_path(str(Path(package.origin).with_name("zero_shot_metadata.py")))
    known = built_in_templates()
    assert list(known["imagenet"]) == [make("{}") for make in theirs["OPENAI_IMAGENET_TEMPLATES"]]
    assert all("{}" in template for templates in known.values() for template in templates)


def test_wordings_are_every_name_in_every_template(tmp_path: Path) -> None:
    concept = parsed("dog (animal) | hound").concepts[0]
    assert wordings(concept, ("a {}.", "{}")) == [
        ["a dog animal.", "dog animal"],
        ["a hound.", "hound"],
    ]
    file = tmp_path / "t.txt"
    file.write_text("# mine\na drawing of a {}\n")
    assert read_templates(str(file)) == ("a drawing of a {}",)
    assert read_templates("sketch") == built_in_templates()["sketch"]
    file.write_text("a drawing\n")
    with pytest.raises(VocabularyError, match=r"t\.txt, line 1: it has no \{\}"):
        read_templates(str(file))
    with pytest.raises(VocabularyError, match="no domain and no text file"):
        read_templates("scetch")


def test_the_built_in_vocabulary_can_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_vocabulary(Path("everyday")).name == "everyday"
    Path("everyday").write_text("dog\n")
    with pytest.raises(VocabularyError, match="Rename"):  # which of the two is meant?
        read_vocabulary(Path("everyday"))
    with pytest.raises(VocabularyError):
        read_vocabulary(tmp_path / "elsewhere" / "everyday.txt")
