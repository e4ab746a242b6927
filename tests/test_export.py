"""Export: every form holds what the library says, readable by the programs it is meant for."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from clipsearch.cli import main
from clipsearch.errors import StorageError, UsageError
from clipsearch.export import everything, export
from clipsearch.library import Library


@pytest.fixture
def library(library_copy: Library) -> Library:
    return library_copy


def test_every_form_holds_the_same_rows_and_vectors(library: Library, tmp_path: Path) -> None:
    hits = everything(library)
    files = {ending: tmp_path / f"all.{ending}" for ending in ("csv", "jsonl", "parquet")}
    for file in files.values():
        assert export(library, hits, file, vectors=True) == len(hits) == library.counts().items
    lines = [json.loads(line) for line in files["jsonl"].read_text().splitlines()]
    table = pyarrow.parquet.read_table(files["parquet"]).to_pylist()
    with files["csv"].open(newline="") as file:
        cells = list(csv.DictReader(file))
    space = library.active_space()
    assert space is not None
    ids, rows = library.vectors(space.id)
    vectors = dict(zip(ids.tolist(), rows, strict=True))
    for hit, line, row, cell in zip(hits, lines, table, cells, strict=True):
        assert Path(line["path"]) == Path(row["path"]) == Path(cell["path"]) == hit.path
        record = library.items([hit.item])[hit.item]
        assert line["hash"] == row["hash"] == cell["hash"] == record.content_hash
        assert line["width"] == row["width"] == int(cell["width"]) == record.width
        assert line["metadata"] == json.loads(row["metadata"]) == json.loads(cell["metadata"])
        for vector in (line["vector"], row["vector"], json.loads(cell["vector"])):
            assert np.allclose(vector, vectors[hit.item], atol=1e-5)


def test_faiss_finds_in_the_exported_index_what_we_find(library: Library, tmp_path: Path) -> None:
    import faiss

    hits = everything(library)
    assert export(library, hits, tmp_path / "all.faiss") == len(hits)
    index = faiss.read_index(str(tmp_path / "all.faiss"))
    space = library.active_space()
    assert space is not None
    ids, rows = library.vectors(space.id)
    scores, found = index.search(rows, 3)
    assert found[:, 0].tolist() == ids.tolist()
    assert np.allclose(scores[:, 0], 1, atol=1e-3)
    with (tmp_path / "all.faiss.csv").open(newline="") as file:
        assert {int(row["item"]) for row in csv.DictReader(file)} == set(ids.tolist())


def test_words_and_odd_paths_survive(library: Library, tmp_path: Path) -> None:
    hits = everything(library)[:1]
    odd = hits[0].path.with_name('a "b", \udcff\n.jpg')
    strange = type(hits[0])(1, 0.5, hits[0].item, odd, (odd,), None)
    for ending in ("csv", "jsonl", "parquet"):
        export(library, [strange], tmp_path / f"odd.{ending}")
    (line,) = (tmp_path / "odd.jsonl").read_text().splitlines()
    assert json.loads(line)["path"] == str(odd)
    with (tmp_path / "odd.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as f:
        (row,) = csv.DictReader(f)
    assert (row["path"], json.loads(row["paths"])) == (str(odd), [str(odd)])


def test_nothing_is_overwritten_unasked_and_no_half_file_stays(
    library: Library, tmp_path: Path
) -> None:
    taken = tmp_path / "taken.csv"
    taken.write_text("mine")
    hits = everything(library)[:2]
    with pytest.raises(UsageError, match="--overwrite"):
        export(library, hits, taken)
    assert taken.read_text() == "mine"
    assert export(library, hits, taken, overwrite=True) == 2
    with pytest.raises(UsageError, match="ending"):
        export(library, hits, tmp_path / "photo.jpg")
    with pytest.raises(StorageError):
        export(library, hits, tmp_path / "no folder" / "a.csv")
    assert {path.name for path in tmp_path.iterdir()} == {"taken.csv", "copy.clipsearch"}


def test_the_command_exports_a_query_or_everything(
    library: Library, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--library", str(library.path)]
    file = tmp_path / "cats.jsonl"
    query = "a cat cutoff:none"  # so that there are more than are asked for
    assert main(["export", query, "--to", str(file), "--top", "3", "--json", *place]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": str(file), "written": 3}
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["rank"] for line in lines] == [1, 2, 3]
    assert lines[0]["path"].endswith("cat.png")
    assert main(["export", "--all", "--to", str(tmp_path / "all.csv"), *place]) == 0
    assert main(["export", "--all", "a cat", "--to", str(tmp_path / "b.csv"), *place]) == 2
    assert main(["export", "--to", str(tmp_path / "b.csv"), *place]) == 2
