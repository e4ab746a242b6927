"""Captions in Parquet files as Hugging Face's datasets are: pictures as bytes in a column."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clipsearch.errors import CaptionFileError, DependencyError
from training.captions.rows import GUESSED, Columns, Rows, SkippedRow

_AT_ONCE = 32  # rows, each with a picture


def read_parquet(path: Path, columns: Columns) -> Rows:
    """Rows of a Parquet file, some at a time.

    A picture is bytes, Hugging Face's {bytes, path}, or a path from the file's folder; captions are
    a text or a list. Class numbers take the names that Hugging Face keeps in the file's metadata.
    DependencyError without pyarrow; CaptionFileError if the file cannot be read.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise DependencyError(
            reason=f"{path} is Parquet, whose reader is not installed: "
            "pip install 'clipsearch[parquet]'"
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            image, caption, label = columns.find(_by_likeliness(schema))
            if image is None or (caption is None and label is None):
                raise CaptionFileError(
                    path=path,
                    reason=f"its columns are {', '.join(schema.names)}",
                    advice=f"It must have {GUESSED}",
                )
            wanted = [name for name in (image, caption, label) if name]
            chosen = Columns(image, caption)
            names = _class_names(schema.metadata or {}, label)
            number = 0
            for batch in file.iter_batches(_AT_ONCE, columns=wanted):
                for record in batch.to_pylist():
                    number += 1
                    if label:
                        record[label] = _named(record[label], names)
                    where = f"{path.name}: row {number}"
                    yield (
                        chosen.row(where, record, path.parent)
                        if record[image] is not None
                        else SkippedRow(where, "", "it has no picture")
                    )
    except (pa.ArrowException, OSError) as error:
        raise CaptionFileError(
            path=path, reason=str(error).splitlines()[0], advice="Write it anew."
        ) from error


def _by_likeliness(schema: Any) -> list[str]:
    """Column names; those that hold bytes are before those of the same meaning that hold paths."""
    import pyarrow.types as kinds

    def holds_bytes(kind: Any) -> bool:
        if kinds.is_struct(kind):
            return any(holds_bytes(kind.field(place).type) for place in range(kind.num_fields))
        return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind))

    with_bytes = [field.name for field in schema if holds_bytes(field.type)]
    if not with_bytes:
        return list(schema.names)
    # Where pictures are in the file, a path beside them is only a name.
    texts = [name for name in schema.names if name not in with_bytes and name.lower() != "path"]
    return [*with_bytes, *texts]


def _class_names(metadata: Mapping[bytes, bytes], label: str | None) -> list[str]:
    """Those of Hugging Face's ClassLabel: {info: {features: {label: {names: [...]}}}}."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        feature = features[label]
        return [str(name) for name in feature.get("names") or feature["feature"]["names"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def _named(cell: Any, names: list[str]) -> Any:
    if isinstance(cell, list):
        return [_named(each, names) for each in cell]
    if isinstance(cell, int):
        return names[cell] if 0 <= cell < len(names) else None
    return cell
