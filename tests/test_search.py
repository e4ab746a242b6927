"""Search: the same answers as brute force, for words and pictures, while the library changes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import clipsearch
from clipsearch.encoders import Encoder
from clipsearch.errors import (
    ImageNotFoundError,
    NotInLibraryError,
    QueryError,
    SpaceMismatchError,
    UsageError,
)
from clipsearch.images import load_image
from clipsearch.library import Library
from clipsearch.searcher import Searcher


def index(folder: Path, library_path: Path, model: str) -> None:
    command = ["index", str(folder), "--library", str(library_path), "--model", model]
    subprocess.run(
        [sys.executable, "-m", "clipsearch", *command], check=True, capture_output=True, timeout=240
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, real_photos: Path) -> Path:
    """A copy of the real photos that these tests may move about, with one exact copy in it."""
    folder = tmp_path_factory.mktemp("search") / "photos"
    shutil.copytree(real_photos, folder)
    (folder / "copies").mkdir()
    shutil.copyfile(folder / "cat.png", folder / "copies" / "same cat.png")
    return folder


@pytest.fixture(scope="module")
def library(photos: Path, tiny_model_dir: Path) -> Iterator[Library]:
    path = photos.parent / "search.clipsearch"
    index(photos, path, f"local-dir:{tiny_model_dir}")
    with clipsearch.open_library(path) as opened:
        yield opened


@pytest.fixture(scope="module")
def encoder(tiny_model_dir: Path) -> Encoder:
    return clipsearch.load_encoder(f"local-dir:{tiny_model_dir}")


def brute_force(library: Library, query: np.ndarray) -> dict[int, float]:
    """Every item's cosine to the question, straight from the stored vectors."""
    space = library.active_space()
    assert space is not None
    ids, vectors = library.vectors(space.id)
    scores = vectors @ (query / np.linalg.norm(query))
    return dict(zip(ids.tolist(), scores.tolist(), strict=True))


def assert_same_ranking(hits: list[clipsearch.SearchHit], truth: dict[int, float]) -> None:
    """Compared tie-aware: each place must hold an item of that place's score."""
    best = sorted(truth.values(), reverse=True)[: len(hits)]
    np.testing.assert_allclose([hit.score for hit in hits], best, atol=1e-5)
    np.testing.assert_allclose([truth[hit.item] for hit in hits], best, atol=1e-5)
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
    assert len({hit.item for hit in hits}) == len(hits)


@pytest.mark.parametrize("words", ["a cat", "日本語 🐈", "x" * 5000, "  spaced  "])
def test_words_rank_as_brute_force_does(library: Library, encoder: Encoder, words: str) -> None:
    hits = clipsearch.search(library, f"{words} cutoff:none", encoder=encoder, top=25)
    assert len(hits) == 25
    assert_same_ranking(hits, brute_force(library, encoder.encode_texts([words.strip()])[0]))


def test_picture_and_words_are_the_sum_of_their_unit_vectors(
    library: Library, encoder: Encoder, photos: Path
) -> None:
    picture = load_image(photos / "moon.png")
    query = (
        encoder.encode_texts(["at night"])[0]
        + encoder.encode_images(encoder.preprocess(picture)[None])[0]
    )
    hits = clipsearch.search(
        library, "at night cutoff:none", image=photos / "moon.png", encoder=encoder, top=10
    )
    assert_same_ranking(hits, brute_force(library, query))


def test_an_open_picture_answers_like_its_file(
    library: Library, encoder: Encoder, photos: Path
) -> None:
    by_file = clipsearch.search(library, image=photos / "moon.png", encoder=encoder)
    by_picture = clipsearch.search(library, image=Image.open(photos / "moon.png"), encoder=encoder)
    assert by_file == by_picture
    assert by_file[0].path.name == "moon.png"
    assert by_file[0].score > 0.99


def test_copies_are_one_hit_with_both_paths(
    library: Library, encoder: Encoder, photos: Path
) -> None:
    first = clipsearch.search(library, image=photos / "cat.png", encoder=encoder)[0]
    assert {path.name for path in first.paths} == {"cat.png", "same cat.png"}
    assert first.path == first.paths[0]


def test_similar_to_an_indexed_file_leaves_it_out_and_needs_no_model(
    library: Library, photos: Path
) -> None:
    hits = clipsearch.similar(library, photos / "lion.jpg", top=30, everything=True)
    assert len(hits) == 24
    assert "lion.jpg" not in {hit.path.name for hit in hits}
    item = library.item_at(photos / "lion.jpg")
    assert item is not None
    assert clipsearch.similar(library, item, top=30, everything=True) == hits


def test_top_larger_than_the_library_gives_everything(library: Library, encoder: Encoder) -> None:
    assert len(clipsearch.search(library, "a cutoff:none", encoder=encoder, top=10_000)) == 25


def test_questions_that_cannot_be_answered_are_refused(
    library: Library, encoder: Encoder, photos: Path
) -> None:
    for nothing in (None, "", "  \n"):
        with pytest.raises(QueryError):
            clipsearch.search(library, nothing, encoder=encoder)
    with pytest.raises(UsageError):
        clipsearch.search(library, "a", encoder=encoder, top=0)
    with pytest.raises(ImageNotFoundError):
        clipsearch.search(library, image=photos / "gone.png", encoder=encoder)
    with pytest.raises(NotInLibraryError):
        clipsearch.similar(library, 999_999)


@pytest.mark.usefixtures("embedded_library")
def test_a_model_of_another_space_is_refused(library: Library) -> None:
    with pytest.raises(SpaceMismatchError, match="models use embedded"):
        clipsearch.search(library, "a", encoder=clipsearch.load_encoder("embedded"))


def test_a_kept_searcher_notices_new_and_vanished_photos(
    tmp_path: Path, photos: Path, tiny_model_dir: Path, encoder: Encoder
) -> None:
    folder = tmp_path / "live"
    folder.mkdir()
    for name in ("cat.png", "moon.png"):
        shutil.copyfile(photos / name, folder / name)
    path = tmp_path / "live.clipsearch"
    index(folder, path, f"local-dir:{tiny_model_dir}")
    with clipsearch.open_library(path) as library:
        searcher = Searcher(library, encoder=encoder)
        assert len(searcher.search("a cutoff:none")) == 2
        shutil.copyfile(photos / "coins.png", folder / "coins.png")
        (folder / "cat.png").unlink()
        index(folder, path, f"local-dir:{tiny_model_dir}")
        assert {hit.path.name for hit in searcher.search("a cutoff:none")} == {
            "moon.png",
            "coins.png",
        }


def test_an_empty_library_has_no_answers(tmp_path: Path) -> None:
    with clipsearch.open_library(tmp_path / "empty.clipsearch", create=True) as library:
        assert clipsearch.search(library, "a cat") == []
