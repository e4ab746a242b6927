"""Learned names: photos teach them, any query can say them, and nothing else changes."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient
from word_encoder import WordEncoder, add_pictures, library_of

import clipsearch
from clipsearch.cli import main
from clipsearch.config import Settings, resolve
from clipsearch.errors import ConceptError, NotInLibraryError
from clipsearch.library import Library
from clipsearch.naming import prototype, said, spelt_otherwise
from clipsearch.searcher import Searcher
from ui.rest import rest_routes
from ui.service import Service

SHOWN = {
    **{f"rex{n}.jpg": f"dog brown floppy thing{n}" for n in range(6)},
    "rex-beach.jpg": "dog brown floppy beach sea",
    **{f"dog{n}.jpg": f"dog white pointed other{n}" for n in range(6)},
    "dog-beach.jpg": "dog white pointed beach sea",
    **{f"car{n}.jpg": f"car street{n} wheels thing{n}" for n in range(8)},
    "flower.jpg": "rose red garden",
}
REX = ["rex0.jpg", "rex1.jpg", "rex2.jpg"]


@pytest.fixture
def encoder() -> WordEncoder:
    return WordEncoder()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return resolve({"cache_dir": tmp_path / "cache"})


@pytest.fixture
def library(tmp_path: Path, encoder: WordEncoder) -> Iterator[Library]:
    (tmp_path / "photos").mkdir()
    with library_of(tmp_path / "t.clipsearch", tmp_path / "photos", SHOWN, encoder) as opened:
        yield opened


@pytest.fixture
def searcher(library: Library, settings: Settings, encoder: WordEncoder) -> Searcher:
    return Searcher(library, settings=settings, encoder=encoder)


def item(library: Library, name: str) -> int:
    return next(i for i, paths in library.paths(range(1, 60)).items() if paths[0].name == name)


def teach(
    library: Library, name: str, photos: list[str], **given: object
) -> clipsearch.LearnReport:
    items = [item(library, photo) for photo in photos]
    return clipsearch.learn(library, name, items, **given)  # type: ignore[arg-type]


def found(searcher: Searcher, query: str, top: int = 50) -> list[str]:
    return [hit.path.name for hit in searcher.search(f"{query} cutoff:none", top=top)]


def test_a_name_finds_its_photos_and_mixes_with_words(library: Library, searcher: Searcher) -> None:
    report = teach(library, "Rex", REX)
    assert (report.photos, report.added, report.encoded, report.skipped) == (3, 3, 0, ())
    assert all(name.startswith("rex") for name in found(searcher, "Rex", top=7))
    assert found(searcher, "Rex on the beach")[0] == "rex-beach.jpg"
    assert found(searcher, "a white dog on the beach")[0] == "dog-beach.jpg"
    shown = {hit.path.name for hit in searcher.search("Rex")}
    assert shown >= set(REX)  # the photos that taught it are answers, too
    assert all(name.startswith("rex") for name in shown)


def test_a_name_works_wherever_the_language_takes_words(
    library: Library, searcher: Searcher
) -> None:
    teach(library, "Rex", REX)
    assert found(searcher, "-Rex")[-7:] == found(searcher, "Rex")[:7][::-1]
    assert found(searcher, "dog -Rex")[0].startswith("dog")
    assert found(searcher, "Rex -beach", top=6) != found(searcher, "Rex", top=6)
    assert found(searcher, "Rex -beach").index("rex-beach.jpg") == 6
    assert found(searcher, 'car 5:"Rex"')[0].startswith("rex")
    assert found(searcher, "car 0.1:Rex")[0].startswith("car")
    assert found(searcher, "+Rex")[:7] == found(searcher, '"Rex"')[:7] == found(searcher, "Rex")[:7]
    assert found(searcher, "Rex name:beach") == ["rex-beach.jpg", "dog-beach.jpg"]
    teach(library, "Molly the 2nd", ["dog0.jpg", "dog1.jpg"])
    both = found(searcher, "Rex and Molly the 2nd", top=14)
    assert {name[:3] for name in both} == {"rex", "dog"}


def test_queries_without_the_name_stay_as_they_are_to_the_last_bit(
    library: Library, searcher: Searcher
) -> None:
    queries = ["rex", "a dog", "Rexford", "T-Rex2", "REX", "dog -car", '2:"a red rose"', "Rexx's"]
    before = [searcher.search(f"{query} cutoff:none") for query in queries]
    teach(library, "Rex", REX)
    assert [searcher.search(f"{query} cutoff:none") for query in queries] == before


@pytest.mark.parametrize(
    ("text", "rest", "names"),
    [
        ("a dog", "a dog", ()),
        ("Rex", "", ("Rex",)),
        ("a photo of Rex", "", ("Rex",)),
        ("Rex's pictures", "", ("Rex",)),
        ("Rex's ball", "something's ball", ("Rex",)),
        ("a girl with Rex, running", "a girl with something, running", ("Rex",)),
        ("Rex Junior and Rex", "", ("Rex Junior", "Rex")),
        ("Rex, Rex!", "", ("Rex",)),
        ("rex T_Rex Rex2", "rex T_Rex Rex2", ()),
        ("Zoe\u0308 in snow", "something in snow", ("Zoë",)),
        ("Zoe\u0308ology", "Zoe\u0308ology", ()),
        ("小黑在海滩", "something在海滩", ("小黑",)),
    ],
)
def test_names_are_whole_words_as_they_are_spelt(
    text: str, rest: str, names: tuple[str, ...]
) -> None:
    heard = said(text, ["Rex", "Rex Junior", "Zoë", "小黑"])
    assert (heard.rest, heard.names) == (rest, names)


def test_a_name_in_other_capitals_is_told_of() -> None:
    names = ["Rex", "Zoë", "Bo"]
    assert spelt_otherwise("rex and ZOË", names) == ["Rex", "Zoë"]
    assert spelt_otherwise("Rex in a box", names) == [], "found as it is, or part of a word"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("O\u2019Brien on the beach", ("O'Brien",)),
        ("O\u02bcBrien, Anna\u2011Lena", ("O'Brien", "Anna-Lena")),
        ("Anna\u2013Lena", ("Anna-Lena",)),
        ("Jose\u0301 runs", ("José",)),
        ("Mary\u00a0Ann", ("Mary Ann",)),
        ("Jose, Anna Lena, OBrien", ()),
    ],
)
def test_a_name_is_found_whichever_apostrophe_or_hyphen_was_typed(
    text: str, names: tuple[str, ...]
) -> None:
    learned = ["O'Brien", "José", "Anna-Lena", "Mary Ann"]
    assert said(text, learned).names == names


def test_of_two_names_that_differ_in_typography_the_typed_one_is_meant() -> None:
    learned = ["O'Brien", "O\u2019Brien"]
    assert said("O'Brien", learned).names == ("O'Brien",)
    assert said("O\u2019Brien", learned).names == ("O\u2019Brien",)


def test_a_name_without_its_accents_or_hyphens_is_told_of() -> None:
    learned = ["José", "Anna-Lena", "O'Brien", "Al"]
    assert spelt_otherwise("jose at the sea", learned) == ["José"]
    assert spelt_otherwise("Anna Lena", learned) == ["Anna-Lena"]
    assert spelt_otherwise("annalena and OBrien", learned) == ["Anna-Lena", "O'Brien"]
    assert spelt_otherwise("joseph, banal", learned) == []


def test_a_name_is_taught_on_and_forgotten_as_it_was_first_spelt(library: Library) -> None:
    teach(library, "O'Brien", REX[:1])
    teach(library, "O\u2019Brien", REX[1:2])
    assert library.concepts.names() == ["O'Brien"]
    assert main(["learn", "O\u2019Brien", "--forget", "--library", str(library.path)]) == 0
    assert library.concepts.names() == []


def test_an_answer_says_that_a_learned_name_is_spelt_otherwise(
    library: Library, searcher: Searcher
) -> None:
    teach(library, "José", REX[:2])
    (note,) = searcher.answer("jose cutoff:none").notes
    assert "'José' is a learned name" in note
    assert searcher.answer("José cutoff:none").notes == ()


def test_a_prototype_is_the_direction_of_the_mean() -> None:
    rows = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    expected = sum(row / np.linalg.norm(row) for row in rows)
    assert np.allclose(prototype(rows), expected / np.linalg.norm(expected), atol=1e-6)


def test_photos_are_added_replaced_and_forgotten(library: Library, searcher: Searcher) -> None:
    teach(library, "Rex", REX)
    again = teach(library, "Rex", ["rex2.jpg", "rex3.jpg"])
    assert (again.photos, again.added) == (4, 1)
    other = teach(library, "Rex", ["car0.jpg", "car1.jpg"], replace=True)
    assert (other.photos, other.added) == (2, 2)
    assert found(searcher, "Rex")[0].startswith("car")
    assert library.concepts.remove("Rex")
    assert not library.concepts.remove("Rex")
    assert library.concepts.names() == []


def test_warnings_are_for_ordinary_words_and_for_few_photos(library: Library) -> None:
    assert "ordinary" in " ".join(teach(library, "rose", ["flower.jpg"]).warnings)
    capital = " ".join(teach(library, "Rose", ["flower.jpg"]).warnings)
    assert "'rose' stays the word" in capital
    assert "by capitals alone" in capital
    assert "1 photo teaches little" in capital
    enough = [f"rex{n}.jpg" for n in range(5)]
    assert teach(library, "Rexzor", enough).warnings == ()


@pytest.mark.parametrize(
    "name", ["", "  ", "-Rex", "+Rex", "in:x", '"Rex"', "2:Rex", "!!", "x" * 99]
)
def test_a_name_that_no_query_could_say_is_refused(library: Library, name: str) -> None:
    with pytest.raises(ConceptError):
        teach(library, name, REX)
    assert library.concepts.names() == []


def test_what_cannot_be_read_is_skipped_and_if_all_is_nothing_changes(
    library: Library, tmp_path: Path, encoder: WordEncoder
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    (tmp_path / "empty.jpg").touch()
    bad = [tmp_path / "broken.jpg", tmp_path / "empty.jpg", tmp_path / "none.jpg", tmp_path, 999]
    with pytest.raises(ConceptError):
        clipsearch.learn(library, "Rex", bad[:3], encoder=encoder)
    assert library.concepts.names() == []
    good = item(library, "rex0.jpg")
    report = clipsearch.learn(library, "Rex", [*bad[:3], 999, good], encoder=encoder)
    assert report.photos == 1
    assert [skipped.photo for skipped in report.skipped] == [*bad[:3], 999]
    assert "999" in report.skipped[-1].reason


def test_a_concept_follows_the_library_to_another_model(
    library: Library, settings: Settings
) -> None:
    """Photos of the library are known to a new model as soon as it has filled its space."""
    teach(library, "Rex", REX)
    other = WordEncoder("other")
    with library.writer() as writer:
        space = writer.add_space(other.space, address="other", runtime="w", precision="f32")
        writer.activate_space(space.id)
    searcher = Searcher(library, settings=settings, encoder=other)
    with pytest.raises(ConceptError, match="clipsearch learn Rex"):
        searcher.search("Rex on the beach")
    assert library.concepts.all(space.id)[0].known == 0
    add_pictures(library, SHOWN, other)
    assert library.concepts.all(space.id)[0].known == 3
    assert found(searcher, "Rex on the beach")[0] == "rex-beach.jpg"


# --- with real photos and the embedded model ------------------------------------------------


@pytest.fixture
def outside(library_copy: Library, tmp_path: Path) -> Path:
    """A folder of two photos of a cat that the library does not hold, one file that is none."""
    folder = tmp_path / "cats"
    folder.mkdir()
    (root,) = library_copy.roots()
    with Image.open(root.path / "cat.png") as cat:
        cat.crop((20, 0, cat.width, cat.height - 20)).save(folder / "crop.png")
        cat.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "mirrored.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_photos_outside_of_the_library_are_encoded_once(
    library_copy: Library, outside: Path
) -> None:
    library = library_copy
    report = clipsearch.learn(library, "Mimi", [outside])
    assert (report.photos, report.encoded, report.skipped) == (2, 2, ())
    assert clipsearch.search(library, "Mimi", top=1)[0].path.name == "cat.png"
    assert clipsearch.learn(library, "Mimi", [outside / "crop.png"]).encoded == 0
    shutil.copy(library.roots()[0].path / "cat.png", outside / "copy.png")
    assert clipsearch.learn(library, "Mimi", [outside / "copy.png"]).encoded == 0  # known content
    assert library.concepts.remove("Mimi")
    with sqlite3.connect(library.path / "library.db") as connection:
        assert connection.execute("SELECT count(*) FROM concept_vector").fetchone() == (0,)
    connection.close()


def test_check_finds_a_damaged_vector_and_the_photo_is_read_again(
    library_copy: Library, outside: Path
) -> None:
    library = library_copy
    clipsearch.learn(library, "Mimi", [outside])
    with sqlite3.connect(library.path / "library.db") as connection:
        connection.execute("UPDATE concept_vector SET vector = zeroblob(length(vector))")
    connection.close()
    assert len(library.check().problems) == 2
    assert library.check(repair=True).ok
    with pytest.raises(ConceptError):
        clipsearch.search(library, "Mimi")
    assert clipsearch.learn(library, "Mimi").encoded == 2
    assert clipsearch.search(library, "Mimi", top=1)[0].path.name == "cat.png"
    (outside / "crop.png").unlink()
    shutil.copy(outside / "notes.txt", outside / "mirrored.png")
    assert clipsearch.learn(library, "Mimi").photos == 2  # what is known need not be there


def test_the_command_learns_lists_shows_and_forgets(
    library_copy: Library, outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    library = library_copy

    def run(*arguments: object) -> tuple[int, list[str], str]:
        code = main([str(one) for one in arguments] + ["--library", str(library.path)])
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err

    code, out, err = run("learn", "Mimi", outside / "crop.png", "--json", outside / "notes.txt")
    assert code == 100
    record = json.loads(out[0])
    assert (record["name"], record["photos"], record["paths"]) == (
        "Mimi",
        1,
        [str(outside / "crop.png")],
    )
    assert str(outside / "notes.txt") in record["skipped"][0]["reason"]
    assert "notes.txt" in err
    cat = library.item_at(library.roots()[0].path / "cat.png")
    assert cat is not None
    with library.writer() as writer:
        writer.tags.add_by_hand([cat], "mimi")
    assert run("learn", "Mimi", "--from-tag", "mimi")[0] == 0
    assert run("learn", "Mimi", "--from-tag", "nobody")[0] == NotInLibraryError.exit_code
    assert run("learn", "Mimi", "#999999")[0] == NotInLibraryError.exit_code
    code, out, _ = run("learn", "Mimi")
    assert code == 0
    assert [Path(line.split()[0]).name for line in out[1:]] == ["crop.png", "cat.png"]
    (listed,) = run("learn", "--json")[1]
    assert {**json.loads(listed), "added_at": ""} == {
        "name": "Mimi",
        "photos": 2,
        "known": 2,
        "added_at": "",
    }
    assert run("learn")[1] == [f"{'Mimi':<24}    2 photos"]
    code, out, _ = run("search", "Mimi", "asleep", "--json", "--top", "1")
    assert json.loads(out[0])["item"] == cat
    assert run("learn", "--forget")[0] == 2
    assert run("learn", "Mimi", "--forget", "x.jpg")[0] == 2
    assert run("learn", "--forget", "Mimi", "--json")[1] == ['{"forgotten": "Mimi"}']
    assert run("learn", "--forget", "Mimi")[0] == NotInLibraryError.exit_code
    assert run("learn", "Nobody")[0] == ConceptError.exit_code


def test_the_page_and_rest_know_the_name_of_another_process_at_once(
    library_copy: Library, outside: Path, tmp_path: Path
) -> None:
    service = Service(library_copy, settings=resolve({}, library_copy.settings()))
    app = FastAPI(openapi_url=None)
    app.include_router(rest_routes(service, tmp_path))
    client = TestClient(app)
    service.search("Mimi asleep", top=3)
    with Library.open(library_copy.path) as elsewhere:
        clipsearch.learn(elsewhere, "Mimi", [outside])
    assert service.search("Mimi", top=3).found[0].path.name == "cat.png"
    hits = client.get("/api/search", params={"q": "Mimi -coffee"}).json()["hits"]
    assert hits[0]["path"].endswith("cat.png")
    with sqlite3.connect(library_copy.path / "library.db") as connection:
        connection.execute("DELETE FROM concept_vector")  # as if for another model
    connection.close()
    refused = client.get("/api/search", params={"q": "Mimi"})
    assert refused.status_code == 400
    assert refused.json()["error"]["kind"] == "ConceptError"
