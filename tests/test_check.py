"""check: damage on the disk is found, named with its row, and mended without losing the rest."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clipsearch.errors import LibraryCorruptError, LibraryError
from clipsearch.library import Batch, FileState, Library, NewItem
from clipsearch.vectors import EmbeddingSpace, unit_rows

Run = Callable[..., subprocess.CompletedProcess[str]]
COUNT = 40


@pytest.fixture
def filled(library_path: Path, tmp_path: Path) -> Path:
    """A library of 40 pictures with vectors; nothing of it is on the disk."""
    names = [f"{number:032x}" for number in range(COUNT)]
    with Library.open(library_path, create=True) as library, library.writer() as writer:
        root = writer.add_root(tmp_path)
        space = writer.add_space(
            EmbeddingSpace("m", "w", "p", 16), address="m", runtime="r", precision="f32"
        )
        writer.activate_space(space.id)
        matrix = unit_rows(np.random.default_rng(0).standard_normal((COUNT, 16)))
        writer.commit(
            Batch(
                new_items=[NewItem(name, 4, 3, "PNG", 9, metadata={"make": "X"}) for name in names],
                vectors=(space.id, names, matrix),
                files=[FileState(root.id, f"{name}.png", 9, 1, 1, name) for name in names],
            )
        )
    return library_path


def harm(library: Path, statement: str, *values: object) -> None:
    """Changes a row behind the library's back, as a flipped bit on the disk would."""
    connection = sqlite3.connect(library / "library.db")
    connection.execute("PRAGMA foreign_keys = OFF")
    assert connection.execute(statement, values).rowcount == 1
    connection.commit()
    connection.close()


def flipped(library: Path, table: str, column: str, identity: int) -> bytes:
    connection = sqlite3.connect(library / "library.db")
    query = f"SELECT {column} FROM {table} WHERE id = ?"  # noqa: S608 - names of this file
    (value,) = connection.execute(query, (identity,)).fetchone()
    connection.close()
    data = bytearray(value if isinstance(value, bytes) else str(value).encode())
    data[len(data) // 2] ^= 1
    return bytes(data)


def test_a_sound_library_has_no_problems(filled: Path) -> None:
    with Library.open(filled) as library:
        assert library.check().problems == []
        assert library.check(repair=True).problems == []
        assert library.counts().items == COUNT


@pytest.mark.parametrize("column", ["vector", "checksum", "item_id"])
def test_a_flipped_bit_in_an_embedding_is_named_with_its_row(filled: Path, column: str) -> None:
    value = flipped(filled, "embedding", "vector", 7) if column == "vector" else 39
    harm(filled, f"UPDATE OR REPLACE embedding SET {column} = ? WHERE id = 7", value)  # noqa: S608
    with Library.open(filled) as library:
        (problem,) = library.check().problems
        assert problem.where == "embedding 7"
        assert not problem.repaired
        assert not library.check().ok
        repaired = library.check(repair=True)
        assert repaired.ok
        assert repaired.problems[0].repaired
        assert library.check().problems == []
        assert library.counts().items == COUNT
        space = library.active_space()
        assert space is not None
        lost = 2 if column == "item_id" else 1  # the row it was taken for is gone, too
        assert space.embedded == COUNT - lost


@pytest.mark.parametrize("column", ["hash", "format", "metadata", "width"])
def test_a_flipped_bit_in_an_item_is_named_with_its_row(filled: Path, column: str) -> None:
    value = 5 if column == "width" else flipped(filled, "item", column, 9).decode()
    harm(filled, f"UPDATE item SET {column} = ? WHERE id = 9", value)  # noqa: S608
    with Library.open(filled) as library:
        (problem,) = library.check().problems
        assert problem.where == "item 9"
        assert library.check(repair=True).ok
        assert library.counts().items == COUNT - 1
        assert library.check().problems == []


def test_rows_that_point_nowhere_are_named_and_removed(filled: Path) -> None:
    harm(filled, "DELETE FROM item WHERE id = 3")
    with Library.open(filled) as library:
        places = {problem.where for problem in library.check().problems}
        assert {"file 3", "embedding 3"} <= places
        assert library.check(repair=True).ok
        assert library.check().problems == []
        assert library.counts().items == COUNT - 1


@pytest.mark.parametrize(
    ("table", "values"),
    [
        ("item_tag", "99, 1, 'user', 'hand', NULL"),
        ("tag_answer", "99, 1, 1, '2024-01-01'"),
        ("tag_answer", "1, 99, 1, '2024-01-01'"),
        ("tag_before_answer", "99, 1"),
        ("tag_cutoff", "'no space', 1, 0.5"),
        ("feedback", "'a cat', 99, 1, '2024-01-01'"),
        ("not_duplicate", "1, 99"),
        ("not_duplicate", "98, 99"),
        ("own_words", "99, '{}'"),
        ("sidecar", "99, 'a.xmp', 0, 1, 1, '{}', NULL, '2024-01-01'"),
        ("album_export", "'/there', 99, 'links'"),
        ("carried", "1, 99, 1, 2, '2024-01-01', 1, 0, 1, 'carried', '[]'"),
        ("caption", "1, 99, 'a cat', 'hand'"),
        ("concept_photo", "1, 99, 'hash', '/there'"),
        ("embedding", "99, 99, 'no space', x'00', 0"),
    ],
)
def test_a_row_of_any_table_that_points_nowhere_is_removed_and_no_other(
    filled: Path, table: str, values: str
) -> None:
    with Library.open(filled) as library, library.writer() as writer:
        writer.tags.add_by_hand([1], "mine")
        writer.tags.answer(2, "mine", accepted=False)
        library.opinions.tell_apart(1, 2)
        library.opinions.answer("a cat", 3, relevant=True)
    harm(filled, f"INSERT INTO {table} VALUES ({values})")  # noqa: S608 - our own texts
    with Library.open(filled) as library:
        assert [problem.where.split()[0] for problem in library.check().problems] == [table]
        assert library.check(repair=True).ok
        assert library.check().problems == []
        assert library.counts().items == COUNT
        assert {one.name for one in library.tags.of_items([1])} == {"mine"}
        assert len(library.tags.answers()) == len(library.opinions.answers()) == 1
        assert library.opinions.told_apart() == {(1, 2)}


@pytest.mark.parametrize(
    ("table", "values"),
    [
        ("own_words", "1, '{'"),
        ("sidecar", "1, 'a.xmp', 0, 1, 1, '{\"over\": ', NULL, '2024-01-01'"),
        ("carried", "1, 1, 2, 3, '2024-01-01', 1, 0, 1, 'carried', '[{'"),
    ],
)
def test_damaged_words_are_named_and_mended_and_read_again(
    filled: Path, table: str, values: str
) -> None:
    harm(filled, f"INSERT INTO {table} VALUES ({values})")  # noqa: S608 - our own texts
    with Library.open(filled) as library:
        (problem,) = library.check().problems
        assert problem.where.split()[0] == table
        if table == "carried":
            with pytest.raises(LibraryCorruptError, match="clipsearch check"):
                library.carryings.all()
        if table == "own_words":
            file = library.files(library.roots()[0].id)[0]
            read = FileState(file.root_id, file.relpath, 9, 2, 1, file.relpath[:-4])
            with (
                library.writer() as writer,
                pytest.raises(LibraryCorruptError, match="clipsearch check"),
            ):
                writer.commit(Batch(files=[read]))
        assert library.check(repair=True).ok
        assert library.check().problems == []
        (root,) = library.roots()
        if table != "carried":
            assert library.files(root.id)[0].mtime_ns == -1, "it is read again"


def test_random_flips_in_the_file_never_pass_unnoticed_for_a_vector(filled: Path) -> None:
    """Any bit of any stored vector: the check finds it, by checksum or by page structure."""
    data = (filled / "library.db").read_bytes()
    connection = sqlite3.connect(filled / "library.db")
    stored = [row[0] for row in connection.execute("SELECT vector FROM embedding")]
    connection.close()
    assert not (filled / "library.db-wal").exists()
    chance = random.Random(4)
    for vector in chance.sample(stored, 12):
        place = data.index(vector) + chance.randrange(len(vector))
        harmed = bytearray(data)
        harmed[place] ^= 1 << chance.randrange(8)
        (filled / "library.db").write_bytes(harmed)
        with Library.open(filled) as library:
            assert not library.check().ok


def test_a_damaged_page_is_told_with_what_to_do(filled: Path, call_cli: Run) -> None:
    data = bytearray((filled / "library.db").read_bytes())
    data[16384 * 4 : 16384 * 5] = random.Random(1).randbytes(16384)
    (filled / "library.db").write_bytes(data)
    done = call_cli("check", "--repair")
    assert done.returncode in (20, 23), done.stdout + done.stderr
    assert "restore a backup" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    try:
        with Library.open(filled) as library:
            assert not library.check().ok
    except LibraryError as error:
        assert "damaged" in str(error)


def test_the_command_names_the_row_and_mends_it(filled: Path, call_cli: Run) -> None:
    harm(
        filled,
        "UPDATE embedding SET vector = ? WHERE id = 7",
        flipped(filled, "embedding", "vector", 7),
    )
    found = call_cli("check", "--json")
    assert found.returncode == 23
    lines = [json.loads(line) for line in found.stdout.splitlines()]
    assert any(line.get("where") == "embedding 7" for line in lines)
    assert "--repair" in call_cli("check").stderr
    assert call_cli("check", "--repair").returncode == 0
    assert call_cli("check").returncode == 0
