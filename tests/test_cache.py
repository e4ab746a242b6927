"""The index cache: loaded when it is current and sound, made again in every other case."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clipsearch.index import cache, open_index
from clipsearch.library import Batch, FileState, Library, NewItem, SpaceRecord
from clipsearch.vectors import EmbeddingSpace, unit_rows

SPACE = EmbeddingSpace("model", "weights", "preprocess", 16)
COUNT = 50


def fill(library: Library, folder: Path, first: int, count: int) -> SpaceRecord:
    chance = np.random.default_rng(first)
    hashes = [f"{number:032x}" for number in range(first, first + count)]
    with library.writer() as writer:
        root = writer.add_root(folder)
        space = writer.add_space(SPACE, address="m", runtime="r", precision="f32")
        writer.activate_space(space.id)
        writer.commit(
            Batch(
                new_items=[NewItem(name, 4, 3, "PNG", 9) for name in hashes],
                vectors=(space.id, hashes, unit_rows(chance.standard_normal((count, 16)))),
                files=[FileState(root.id, f"{name}.png", 9, 1, 1, name) for name in hashes],
            )
        )
    return space


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    with Library.open(tmp_path / "cache.clipsearch", create=True) as opened:
        fill(opened, tmp_path, 0, COUNT)
        yield opened


def active(library: Library) -> SpaceRecord:
    space = library.active_space()
    assert space is not None
    return space


def answers(library: Library) -> list[int]:
    query = unit_rows(np.ones((1, 16)))[0]
    return [int(i) for i in open_index(library, active(library)).search(query, 10).ids]


def is_cached(library: Library) -> bool:
    folder = library.path / "index" / active(library).id
    return cache._load(folder, library.state) is not None


def test_a_second_opening_reads_the_cache(library: Library) -> None:
    assert not is_cached(library)
    first = answers(library)
    assert is_cached(library)
    assert answers(library) == first


def test_a_flipped_byte_anywhere_leads_to_a_rebuild(library: Library) -> None:
    expected = answers(library)
    folder = library.path / "index" / active(library).id
    chance = random.Random(5)
    for name in sorted(path.name for path in folder.iterdir()):
        size = (folder / name).stat().st_size
        for place in [0, size - 1, *(chance.randrange(size) for _ in range(12))]:
            path = folder / name
            if not path.exists():
                continue
            data = bytearray(path.read_bytes())
            data[place] ^= 1 << chance.randrange(8)
            path.write_bytes(data)
            assert not is_cached(library), f"{name}, byte {place}"
            assert answers(library) == expected
            assert is_cached(library)


def test_an_empty_space_is_cached_like_any_other(library: Library) -> None:
    with library.writer() as writer:
        other = EmbeddingSpace("other", "weights", "preprocess", 16)
        space = writer.add_space(other, address="o", runtime="r", precision="f32")
    for _ in range(2):
        assert len(open_index(library, space)) == 0
    assert cache._load(library.path / "index" / space.id, library.state) is not None


def test_missing_files_are_made_again(library: Library) -> None:
    expected = answers(library)
    folder = library.path / "index" / active(library).id
    for path in sorted(folder.iterdir()):
        path.unlink()
        assert answers(library) == expected
        assert is_cached(library)


def test_a_new_revision_and_another_faiss_version_are_noticed(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(library)
    fill(library, tmp_path, 1000, 3)
    assert not is_cached(library)
    assert len(open_index(library, active(library))) == COUNT + 3
    monkeypatch.setattr(cache, "VERSION", "0.0.1")
    assert not is_cached(library)


def test_a_cache_that_cannot_be_written_is_done_without(library: Library) -> None:
    (library.path / "index").write_text("a file where the folder should be")
    assert len(answers(library)) == 10


def test_two_processes_may_save_at_once(library: Library) -> None:
    script = """
import sys
from pathlib import Path
from clipsearch.index import cache, open_index
from clipsearch.library import Library
library = Library.open(Path(sys.argv[1]))
space = library.active_space()
for _ in range(15):
    index = open_index(library, space)
    assert len(index) == 50
    (library.path / "index" / space.id / "manifest.json").unlink(missing_ok=True)
"""
    running = [
        subprocess.Popen([sys.executable, "-c", script, str(library.path)]) for _ in range(2)
    ]
    assert [process.wait(60) for process in running] == [0, 0]
    assert len(answers(library)) == 10
    folder = library.path / "index" / active(library).id
    body, _ = (folder / "manifest.json").read_text().split("\n")
    assert json.loads(body)["state"] == library.state
