"""Hits, or the whole library, as a file for other programs: CSV, JSON lines, Parquet, FAISS."""

from __future__ import annotations

import csv
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from clipsearch.errors import DependencyError, StorageError, UsageError
from clipsearch.hits import SearchHit
from clipsearch.library import Library
from clipsearch.user_paths import expand_user

_CHUNK = 1000  # items that are looked up at a time
_LISTS = ("paths", "tags", "captions", "vector")
_FIELDS = (
    *("rank", "score", "item", "path", "paths", "time_s", "kind", "hash", "width", "height"),
    *("format", "bytes", "taken_at", "metadata", "tags", "captions"),
)
Record = dict[str, Any]
Write = Callable[[Iterator[Record], Path, bool], int]


def everything(library: Library) -> list[SearchHit]:
    """All pictures and moments that are there, as hits without a score, by item."""
    ids = library.present_items().tolist()
    paths, times = library.paths(ids), library.times(ids)
    return [
        SearchHit(rank, None, item, paths[item][0], tuple(paths[item]), times.get(item))
        for rank, item in enumerate((item for item in ids if item in paths), start=1)
    ]


def export(
    library: Library,
    hits: Sequence[SearchHit],
    destination: Path,
    *,
    vectors: bool = False,
    overwrite: bool = False,
) -> int:
    """Writes hits to a file whose ending says its form, and returns how many.

    ``.csv``, ``.jsonl`` and ``.parquet`` hold a row a hit, with ``vectors`` those of the active
    space, too. ``.faiss`` holds a flat inner-product index of the vectors by item, and beside it
    ``.faiss.csv`` says which item is which file. UsageError for another ending or an existing file,
    DependencyError where Parquet cannot be written, StorageError if the disk does not take it.
    """
    destination = expand_user(destination).absolute()
    write = _WRITERS.get(destination.suffix.lower())
    if write is None:
        endings = ", ".join([*_WRITERS, ".faiss"])
        if destination.suffix.lower() != ".faiss":
            raise UsageError(
                reason=f"The file's ending says its form: {endings}; not {destination}"
            )
    if destination.exists() and not overwrite:
        raise UsageError(reason=f"{destination} is there: add --overwrite, or name another")
    if write is None:
        with _replacing(destination.with_name(destination.name + ".csv")) as half:
            _write_csv(_records(library, hits, vectors=False), half, False)
        with _replacing(destination) as half:
            return _write_faiss(library, hits, half)
    with _replacing(destination) as half:
        return write(_records(library, hits, vectors=vectors), half, vectors)


@contextmanager
def _replacing(destination: Path) -> Iterator[Path]:
    """A half file, which takes the place of the whole one when all went well."""
    half = destination.with_name(f".{destination.name}.{os.getpid()}.part")
    try:
        yield half
        half.replace(destination)
    except OSError as error:
        raise StorageError(
            path=destination, reason=error.strerror or error, advice="choose another place"
        ) from error
    finally:
        with suppress(OSError):
            half.unlink(missing_ok=True)


def _records(library: Library, hits: Sequence[SearchHit], *, vectors: bool) -> Iterator[Record]:
    space = library.active_space()
    for start in range(0, len(hits), _CHUNK):
        some = hits[start : start + _CHUNK]
        ids = [hit.item for hit in some]
        items = library.items(ids)
        rows = {}
        if vectors and space is not None:
            found, matrix = library.vectors_of(space.id, sorted(set(ids)))
            rows = dict(zip(found.tolist(), matrix, strict=True))
        of_model: dict[int, list[str]] = {}
        for tag in library.tags.of_items(ids):
            of_model.setdefault(tag.item, []).append(tag.name)
        for hit in some:
            item = items.get(hit.item)
            if item is None:
                continue  # forgotten meanwhile
            said = library.words_of(hit.item)
            names = [*(name for name, _ in said.tags), *of_model.get(hit.item, ())]
            record: Record = {
                "rank": hit.rank,
                "score": hit.score,
                "item": hit.item,
                "path": str(hit.path),
                "paths": [str(path) for path in hit.paths],
                "time_s": hit.time_s,
                "kind": item.kind,
                "hash": item.content_hash,
                "width": item.width,
                "height": item.height,
                "format": item.format,
                "bytes": item.bytes,
                "taken_at": item.taken_at,
                "metadata": item.metadata,
                "tags": list(dict.fromkeys(names)),
                "captions": list(dict.fromkeys(text for text, _ in said.captions)),
            }
            if vectors:
                row = rows.get(hit.item)
                record["vector"] = None if row is None else [round(float(x), 6) for x in row]
            yield record


def _write_csv(records: Iterator[Record], path: Path, vectors: bool) -> int:
    """Lists and metadata are JSON in their cells. The bytes of paths stay as they are."""
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        writer = csv.DictWriter(file, [*_FIELDS, *(["vector"] if vectors else [])])
        writer.writeheader()
        count = 0
        for record in records:
            writer.writerow({name: _cell(name, value) for name, value in record.items()})
            count += 1
    return count


def _cell(name: str, value: Any) -> Any:
    if value is None:
        return ""
    return json.dumps(value, ensure_ascii=False) if name in (*_LISTS, "metadata") else value


def _write_lines(records: Iterator[Record], path: Path, vectors: bool) -> int:
    del vectors  # a record has what it has
    with path.open("w", encoding="ascii") as file:
        count = 0
        for record in records:
            file.write(json.dumps(record) + "\n")
            count += 1
    return count


def _write_parquet(records: Iterator[Record], path: Path, vectors: bool) -> int:
    """Metadata is JSON text. What is not UTF-8 in a path is replaced: Parquet knows only that."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DependencyError(
            reason="Parquet needs a package that is not installed: "
            "pip install 'clipsearch[parquet]', or export to .csv or .jsonl"
        ) from error
    text, number = pyarrow.string(), pyarrow.int64()
    types = {"score": pyarrow.float32(), "time_s": pyarrow.float64()}
    types |= dict.fromkeys(("rank", "item", "width", "height", "bytes"), number)
    types |= dict.fromkeys(("paths", "tags", "captions"), pyarrow.list_(text))
    fields = [(name, types.get(name, text)) for name in _FIELDS]
    if vectors:
        fields.append(("vector", pyarrow.list_(pyarrow.float32())))
    schema = pyarrow.schema(fields)
    count = 0
    with parquet.ParquetWriter(path, schema) as writer:
        while chunk := list(itertools.islice(records, _CHUNK)):
            count += len(chunk)
            rows = [{name: _plain(value) for name, value in record.items()} for record in chunk]
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
    return count


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return json.dumps(value)
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return value


def _write_faiss(library: Library, hits: Sequence[SearchHit], path: Path) -> int:
    from clipsearch.index.faiss_index import write_index

    space = library.active_space()
    if space is None:
        raise UsageError(reason="The library has no vectors yet: clipsearch index FOLDER")
    ids, rows = library.vectors_of(space.id, sorted({hit.item for hit in hits}))
    write_index(ids, rows, path)
    return len(ids)


_WRITERS: dict[str, Write] = {
    ".csv": _write_csv,
    ".jsonl": _write_lines,
    ".parquet": _write_parquet,
}
