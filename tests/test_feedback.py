"""Thumbs: they move a question towards what was meant, are kept, and can be taken back."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from clipsearch.cli import main
from clipsearch.config import resolve
from clipsearch.errors import NotInLibraryError, QueryError
from clipsearch.feedback import refined
from clipsearch.library import Library
from clipsearch.searcher import Searcher
from clipsearch.vectors import unit_rows
from ui.service import Service


@pytest.fixture
def library(library_copy: Library) -> Library:
    return library_copy


def item(library: Library, name: str) -> int:
    (root,) = library.roots()
    found = library.item_at(root.path / name)
    assert found is not None
    return found


def test_a_question_moves_towards_the_liked_and_away_from_the_disliked() -> None:
    random = np.random.default_rng(0)
    rows = unit_rows(random.standard_normal((9, 32)).astype(np.float32))
    question, liked, disliked = rows[0], rows[1:5], rows[5:9]
    moved = refined(question, liked, disliked)
    assert np.linalg.norm(moved) == pytest.approx(1, abs=1e-5)
    assert (liked @ moved).mean() > (liked @ question).mean()
    assert (disliked @ moved).mean() < (disliked @ question).mean()
    nothing = rows[:0]
    assert np.allclose(refined(question, nothing, nothing), question, atol=1e-6)
    one = refined(question, liked[:1], nothing)  # one answer moves less than four of its kind
    four = refined(question, np.repeat(liked[:1], 4, axis=0), nothing)
    assert question @ one > question @ four


def test_a_search_ranks_by_its_answers(library: Library) -> None:
    searcher = Searcher(library)
    cat, coffee = item(library, "cat.png"), item(library, "coffee.png")

    def rank(wanted: int, **given: list[int]) -> int:
        hits = searcher.search("a face cutoff:none", top=50, **given)  # type: ignore[arg-type]
        return next(hit.rank for hit in hits if hit.item == wanted)

    assert rank(cat) > 1
    assert rank(cat, more_like=[cat]) == 1
    assert rank(cat, more_like=[coffee], less_like=[cat]) > rank(cat, more_like=[cat])
    with pytest.raises(NotInLibraryError):
        searcher.search("a photo", more_like=[10**6])
    with pytest.raises(QueryError):
        searcher.search("format:png", more_like=[cat])


def test_the_commands_keep_answers_and_give_them_to_training(
    library: Library, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--library", str(library.path)]
    cat, coffee = item(library, "cat.png"), item(library, "coffee.png")
    (root,) = library.roots()
    search = ["search", "a pet", "--more-like", str(root.path / "cat.png")]
    assert main([*search, "--less-like", f"#{coffee}", "--json", *place]) == 0
    hits = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert hits[0]["item"] == cat
    assert main(["feedback", "--json", *place]) == 0
    kept = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {(one["query"], one["item"], one["relevant"]) for one in kept} == {
        ("a pet", cat, True),
        ("a pet", coffee, False),
    }
    file = tmp_path / "captions.csv"
    assert main(["feedback", "--captions", str(file), *place]) == 0
    with file.open(newline="") as opened:
        (row,) = csv.DictReader(opened)
    assert row == {"path": str(root.path / "cat.png"), "caption": "a pet"}
    assert (
        main(["search", "a pet", "--more-like", "#999999", *place]) == NotInLibraryError.exit_code
    )


def test_the_page_keeps_thumbs_and_takes_the_same_one_back(library: Library) -> None:
    service = Service(library, settings=resolve({}, library.settings()))
    cat = item(library, "cat.png")

    def kept() -> list[bool]:
        return [answer.relevant for answer in library.opinions.answers("a face")]

    def first() -> list[int]:
        return [hit.item for hit in service.search("a face", with_answers=True, top=5).found[:1]]

    assert first() != [cat]
    service.judge("a face", cat, relevant=True)
    assert kept() == [True]
    assert first() == [cat]
    service.judge("a face", cat, relevant=False)
    assert kept() == [False]
    service.judge("a face", cat, relevant=False)
    assert kept() == []
    with pytest.raises(QueryError):
        service.judge("format:png", cat, relevant=True)
    with pytest.raises(NotInLibraryError):
        service.judge("a face", 10**6, relevant=True)
