"""The vector index: the same answers as brute force, and nothing in it that could poison one."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsearch.errors import DependencyError, VectorError
from clipsearch.index.faiss_index import FaissIndex, require_one_faiss
from clipsearch.vectors import unit_rows

DIM = 8


def rows(seed: int, count: int, alphabet: int) -> np.ndarray:
    """Unit rows, many of them equal if the alphabet is small, so that ties happen."""
    chance = np.random.default_rng(seed)
    distinct = unit_rows(chance.standard_normal((alphabet, DIM)))
    return distinct[chance.integers(alphabet, size=count)]


def brute_force(
    ids: np.ndarray, vectors: np.ndarray, query: np.ndarray, k: int, among: np.ndarray | None
) -> list[int]:
    """Ids by descending cosine, ties by id."""
    allowed = set(ids.tolist()) if among is None else set(among.tolist())
    scored = [
        (-float(vector @ query), int(identity))
        for identity, vector in zip(ids, vectors, strict=True)
        if int(identity) in allowed
    ]
    return [identity for _, identity in sorted(scored)[:k]]


@given(
    seed=st.integers(0, 10_000),
    count=st.integers(0, 60),
    alphabet=st.integers(1, 20),
    k=st.integers(0, 80),
    share=st.one_of(st.none(), st.floats(0, 1)),
)
def test_answers_are_those_of_brute_force(
    seed: int, count: int, alphabet: int, k: int, share: float | None
) -> None:
    chance = np.random.default_rng(seed)
    ids = chance.permutation(1000)[:count].astype(np.int64)
    vectors = rows(seed, count, alphabet)
    index = FaissIndex(DIM)
    index.put(ids, vectors)
    # Of its own alphabet or not: an equal vector must come first, others must not confuse it.
    query = (
        rows(seed, 1, alphabet)[0] if seed % 2 else unit_rows(chance.standard_normal((1, DIM)))[0]
    )
    among = None
    if share is not None:
        among = np.array([i for i in range(1000) if chance.random() < share], np.int64)
    found = index.search(query, k, among)
    expected = brute_force(ids, vectors, query, k, among)
    truth = dict(zip(ids.tolist(), (vectors @ query).tolist(), strict=True))
    assert len(found.ids) == len(expected)
    assert -1 not in found.ids
    np.testing.assert_allclose([truth[i] for i in found.ids.tolist()], found.scores, atol=1e-5)
    np.testing.assert_allclose(
        [truth[i] for i in found.ids.tolist()], [truth[i] for i in expected], atol=1e-5
    )
    scores = found.scores.tolist()
    assert scores == sorted(scores, reverse=True)
    pairs = list(zip(found.ids.tolist(), scores, strict=True))
    for (first, one), (second, two) in pairwise(pairs):
        assert one > two or first < second, "ties are ordered by id"


def test_put_replaces_and_remove_counts() -> None:
    index = FaissIndex(DIM)
    vectors = np.eye(DIM, dtype=np.float32)
    index.put(np.array([5, 3, 9]), vectors[:3])
    index.put(np.array([3]), vectors[7:8])
    assert len(index) == 3
    assert index.search(vectors[7], 1).ids.tolist() == [3]
    assert index.search(vectors[1], 3).scores.max() == 0
    assert index.remove(np.array([3, 4, 9])) == 2
    assert index.search(vectors[0], 9).ids.tolist() == [5]
    assert index.remove(np.array([3])) == 0


@pytest.mark.parametrize(
    ("ids", "vectors", "told"),
    [
        ([1], np.full((1, DIM), np.nan), "length"),
        ([1], np.zeros((1, DIM)), "length 0"),
        ([1], np.ones((1, DIM)), "unit"),
        ([1], np.eye(DIM - 1)[:1], "shape"),
        ([1, 1], np.eye(DIM)[:2], "twice"),
        ([-1], np.eye(DIM)[:1], "negative"),
        ([1, 2], np.eye(DIM)[:1], "1 vectors"),
    ],
)
def test_what_faiss_would_take_without_a_word_is_refused(
    ids: list[int], vectors: np.ndarray, told: str
) -> None:
    index = FaissIndex(DIM)
    with pytest.raises(VectorError, match=told):
        index.put(np.array(ids), vectors.astype(np.float32))
    assert len(index) == 0


def test_faiss_itself_gives_the_same_answers_from_the_saved_file(tmp_path: Path) -> None:
    import faiss

    chance = np.random.default_rng(3)
    ids, vectors = np.arange(10, 60), unit_rows(chance.standard_normal((50, DIM)))
    index = FaissIndex(DIM)
    index.put(ids, vectors)
    rows_at = index.save(tmp_path / "saved.faiss")
    theirs = faiss.read_index(str(tmp_path / "saved.faiss"))
    data = (tmp_path / "saved.faiss").read_bytes()[rows_at:]
    read = FaissIndex.over(ids, np.frombuffer(data, np.float32).reshape(-1, DIM))
    query = unit_rows(chance.standard_normal((1, DIM)))[0]
    scores, places = theirs.search(query[None], 9)
    for ours in (index, read):
        found = ours.search(query, 9)
        assert found.ids.tolist() == ids[places[0]].tolist()
        np.testing.assert_allclose(found.scores, scores[0], atol=1e-6)
    read.put(np.array([99]), query[None])
    assert read.search(query, 1).ids.tolist() == [99]
    with pytest.raises(VectorError):
        FaissIndex.over(ids[1:], vectors)


def test_a_question_that_is_no_vector_is_refused() -> None:
    index = FaissIndex(DIM)
    index.put(np.array([1]), np.eye(DIM, dtype=np.float32)[:1])
    for bad in (np.full(DIM, np.nan), np.zeros(DIM), np.ones(DIM + 1)):
        with pytest.raises(VectorError):
            index.search(bad.astype(np.float32), 1)


def test_two_faiss_packages_at_once_are_refused_with_the_way_out() -> None:
    with pytest.raises(DependencyError, match="pip uninstall"):
        require_one_faiss({"faiss-gpu": "1.15.1", "faiss-cpu": "1.15.1"})
    with pytest.raises(DependencyError, match="pip install"):
        require_one_faiss({})
    assert require_one_faiss({"faiss-cpu": "1"}) == ("faiss-cpu", "1")


@pytest.mark.parametrize("order", ["torch faiss", "faiss torch"])
def test_torch_and_faiss_work_in_one_process(order: str) -> None:
    lines = {
        "torch": "import torch; torch.rand(300, 300) @ torch.rand(300, 300)",
        "faiss": "import faiss, numpy; i = faiss.IndexFlatIP(8); "
        "i.add(numpy.eye(8, dtype='f4')); i.search(numpy.eye(8, dtype='f4'), 3)",
    }
    script = "\n".join([*(lines[name] for name in order.split()), *lines.values(), "print('fine')"])
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "fine\n", done.stderr
