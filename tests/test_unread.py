"""Words that a model does not read are told of: which, wherever words are given."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import open_clip
import pytest
import torch
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient
from word_encoder import WordEncoder

from clipsearch.config import resolve
from clipsearch.encoders import Encoder, counted_unread, load_encoder, told_unread
from clipsearch.encoders.openclip import load_openclip
from clipsearch.encoders.openclip_cutting import cutting
from clipsearch.encoders.tokenizer import BytePairTokenizer
from clipsearch.encoders.unread import unread_words
from clipsearch.library import Library
from clipsearch.searcher import Searcher, search
from clipsearch.tagging import tag
from tests.test_pipeline import paint
from training.captions.images import ImageFile
from training.data import CaptionedPicture
from training.run import tell_unread
from ui import markup
from ui.rest import rest_routes
from ui.service import Service

Run = Callable[..., CompletedProcess[str]]
LENGTH = 16  # tokens that the small model reads; begin and end are two of them
LONG = "a b c d e f g h i j k l m n "  # 14 tokens: whatever follows is not read


@pytest.fixture(scope="module", params=["compiled", "torch"])
def encoder(request: pytest.FixtureRequest, tiny_model_dir: Path) -> Encoder:
    settings = replace(resolve(), runtime=request.param)
    return load_encoder(f"local-dir:{tiny_model_dir}", settings=settings)


@pytest.fixture(scope="module")
def tiny_library(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, shared: Path
) -> Path:
    """A library of three photos by the small model, for reading."""
    from indexer.pipeline import index_library

    folder = tmp_path_factory.mktemp("unread")
    for number in range(3):
        paint(folder / "photos" / f"{number}.png", number)
    settings = resolve({"library": folder / "l", "model": f"local-dir:{tiny_model_dir}"})
    with Library.open(folder / "l", create=True) as library:
        index_library(library, [folder / "photos"], settings=settings)
    return folder / "l"


@pytest.mark.parametrize(
    ("text", "unread"),
    [
        ("a dog", ""),
        ("", ""),
        (LONG.strip(), ""),
        (LONG + "boat", "boat"),
        (LONG + "boat on the sea", "boat on the sea"),
        (f"  {LONG}  boat  ", "boat"),
        (LONG.replace(" ", "\n") + "boat", "boat"),
        ("a b c d e f g h i j k l m brontosaurus!!", "brontosaurus!!"),  # in part
        (LONG.upper() + "BOAT &amp; Ü", "BOAT &amp; Ü"),
    ],
)
def test_which_words_are_not_read(encoder: Encoder, text: str, unread: str) -> None:
    assert encoder.unread([text]) == [unread]  # type: ignore[attr-defined]
    assert len(told_unread(encoder, [text])) == bool(unread)
    if unread:
        read = text[: text.rstrip().rindex(unread)]
        assert encoder.unread([read]) == [""]  # type: ignore[attr-defined]


def test_what_is_said_to_be_read_makes_the_vector_and_the_rest_does_not(encoder: Encoder) -> None:
    whole = encoder.encode_texts([LONG, LONG + "boat", LONG + "cathedral by night"])
    np.testing.assert_allclose(whole[1:], whole[:1].repeat(2, 0), atol=1e-5)
    short = encoder.encode_texts(["a boat", "a cathedral"])
    assert short[0] @ short[1] < 0.9999


def test_a_script_without_spaces_is_cut_within(encoder: Encoder) -> None:
    text = "夜の海の上の小さな白い船と月と星と灯台と港と町の明かりと山と空と雲と鳥と人と犬と猫と"
    (unread,) = encoder.unread([text])  # type: ignore[attr-defined]
    assert text.endswith(unread)
    assert 0 < len(unread) < len(text)


@cache
def both(length: int) -> tuple[Callable[[str], bool], Callable[[str], bool]]:
    tokenizer = open_clip.SimpleTokenizer(context_length=length)
    return BytePairTokenizer(length).is_cut, cutting(tokenizer)


@given(st.text(max_size=120), st.sampled_from([16, 40, 64, 77]))
def test_both_runtimes_tell_the_same_words(text: str, length: int) -> None:
    text = text.encode("utf-8", "replace").decode()
    ours, theirs = both(length)
    assert unread_words(text, ours) == unread_words(text, theirs)
    assert text.rstrip().endswith(unread_words(text, ours))


class Pieces:
    """A tokenizer of another kind: a token a letter, filled up with 1, some with an end token."""

    def __init__(self, context_length: int, end: bool) -> None:
        self.context_length = context_length
        self._end = [2] if end else []

    def __call__(self, texts: Sequence[str], context_length: int) -> torch.Tensor:
        rows = torch.ones((len(texts), context_length), dtype=torch.long)
        for row, text in zip(rows, texts, strict=True):
            ids = [*(ord(letter) + 3 for letter in text)][: context_length - len(self._end)]
            row[: len(ids) + len(self._end)] = torch.tensor([*ids, *self._end])
        return rows


@pytest.mark.parametrize("end", [True, False])
@pytest.mark.parametrize("length", [64, 77])
def test_tokenizers_of_other_kinds_and_lengths_are_asked_what_they_leave(
    length: int, end: bool
) -> None:
    is_cut = cutting(Pieces(length, end))
    room = length - end
    assert not is_cut("x" * room)
    assert is_cut("x" * (room + 1))
    assert unread_words("x" * (room - 2) + " boat", is_cut) == "boat"


def test_a_note_says_the_text_the_limit_and_the_words(encoder: Encoder) -> None:
    (note,) = told_unread(encoder, [LONG + "boat", "a dog"])
    assert note == f"'{LONG}boat' is longer than the model reads (16 tokens). Not read: boat"
    (long,) = told_unread(encoder, [LONG + "very " * 999 + "boat"])
    assert long.endswith("boat (1,000 words)")
    assert len(long) < 800
    assert counted_unread(encoder, ["a dog"], "captions") is None
    told = counted_unread(encoder, [LONG + "boat", "a dog", LONG + "sea"], "captions")
    assert told is not None
    assert told.startswith("2 of 3 captions are longer than the model reads (16 tokens)")
    assert told_unread(WordEncoder(), [LONG * 99]) == ()


def test_each_part_of_a_query_is_told_of_by_itself(tiny_library: Path) -> None:
    with Library.open(tiny_library) as library:
        asked = f'2:"{LONG}boat" -"{LONG}sea" "{LONG.strip()}" tag:none'
        notes = Searcher(library).answer(asked).notes
        assert [note.rpartition(": ")[2] for note in notes] == ["boat", "sea"]
        assert Searcher(library).answer("a dog").notes == ()
        heard: list[str] = []
        search(library, LONG + "boat", notify=heard.append)
        assert len([note for note in heard if "Not read: boat" in note]) == 1


def test_of_a_learned_name_the_rest_of_the_text_is_told_of(
    tiny_library: Path, tmp_path: Path
) -> None:
    from clipsearch.learning import learn

    shutil.copytree(tiny_library, tmp_path / "copy")
    with Library.open(tmp_path / "copy") as library:
        learn(library, "Rex", library.present_items().tolist())
        notes = Searcher(library).answer(f"Rex {LONG}boat").notes
        assert [note.rpartition(": ")[2] for note in notes] == ["n boat"]  # after "something"
        assert Searcher(library).answer("Rex").notes == ()


def test_search_tells_on_stderr_and_in_json(tiny_library: Path, call_cli: Run) -> None:
    here = ("--all", "--library", tiny_library)
    told = call_cli("search", LONG + "boat", *here)
    assert "Not read: boat" in told.stderr
    assert "boat" not in told.stdout
    hits = [
        json.loads(line)
        for line in call_cli("search", LONG + "boat", "--json", *here).stdout.splitlines()
    ]
    assert len(hits) == 3
    assert all("Not read: boat" in hit["notes"][0] for hit in hits)
    short = call_cli("search", "boat", "--json", *here)
    assert json.loads(short.stdout.splitlines()[0])["notes"] == []
    assert "Not read" not in short.stderr


def test_the_page_and_rest_tell(tiny_library: Path) -> None:
    with Library.open(tiny_library) as library:
        service = Service(library, settings=resolve({"library": tiny_library}, library.settings()))
        answer = service.search(LONG + "<boat>", top=3, everything=True)
        assert "Not read: &lt;boat&gt;" in markup.answered(answer)
        app = FastAPI()
        app.include_router(rest_routes(service, tiny_library))
        asked = TestClient(app)
        told = asked.get("/api/search", params={"q": LONG + "boat"}).json()
        assert "Not read: boat" in told["notes"][0]
        assert asked.get("/api/search", params={"q": "boat"}).json()["notes"] == []


def test_a_vocabulary_whose_sentences_are_cut_is_told_of_in_every_run(
    tiny_library: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_library, tmp_path / "copy")
    words, templates = tmp_path / "words.txt", tmp_path / "templates.txt"
    words.write_text("boat\ndog\n")
    templates.write_text(f"a photo of a {{}}\n{LONG}{{}}\n")
    with Library.open(tmp_path / "copy") as library:
        for _ in range(2):  # the second time from the cache
            heard: list[str] = []
            report = tag(library, words, templates=str(templates), notify=heard.append)
            (note,) = report.notes
            assert note.startswith("2 of 4 sentences of the vocabulary are longer")
            assert note in heard
        assert tag(library, words).notes == ()


def test_captions_that_are_cut_are_counted_once_before_training(tiny_model_dir: Path) -> None:
    photo = ImageFile(Path("photo.jpg"))
    pictures = [
        CaptionedPicture(photo, "a", ("a dog", LONG + "boat")),
        CaptionedPicture(photo, "b", (LONG + "sea", LONG.strip())),
    ]
    heard: list[str] = []
    loaded = load_openclip(f"local-dir:{tiny_model_dir}")
    tell_unread(loaded, pictures, "the teacher", heard.append)
    (told,) = heard
    assert told.startswith("2 of 4 captions are longer than the teacher reads (16 tokens)")
    tell_unread(loaded, [CaptionedPicture(photo, "a", ("a dog",))], "the model", heard.append)
    assert len(heard) == 1


def test_captions_and_classes_that_are_cut_are_counted_in_an_evaluation(
    tmp_path: Path, tiny_model_dir: Path, call_cli: Run
) -> None:
    rows = [["path", "caption"]]
    for number in range(4):
        paint(tmp_path / f"{number}.png", number)
        rows.append([f"{number}.png", f"{LONG}boat {number}" if number else "a dog"])
    with (tmp_path / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    model = ("--model", f"local-dir:{tiny_model_dir}", "--parts", "retrieval", "--json")
    done = call_cli("evaluate", "--data", tmp_path / "captions.csv", *model)
    assert done.returncode == 0, done.stderr
    assert "3 of 4 captions are longer than the model reads (16 tokens)" in done.stderr
