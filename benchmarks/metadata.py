"""Metadata of the messy folder of real files: how many of the values that we know are read right.

    python benchmarks/metadata.py [--folder FOLDER]    (default: $CLIPSEARCH_DATA/messy)

metadata_expected.tsv holds the known values: file, field, value. They were taken from ExifTool and
exiv2, where these two disagree or fill in boilerplate by the rules of docs/metadata.md. An empty
value must not be read at all; one that ends in "…" is the beginning. A field "described.x" is what
the picture and its sidecars say together. Every file of the folder is read, also those without
known values: an exception, or more than 2 s, is an error. Exits with 1 when anything is wrong.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from indexer.metadata import PhotoMetadata, read_metadata
from indexer.sidecar_names import SidecarNames
from indexer.sidecars import Described, describe

REPOSITORY = Path(__file__).parents[1]
EXPECTED = Path(__file__).with_name("metadata_expected.tsv")
MAX_SECONDS = 2.0
TOLERANCE = {"latitude": 1e-6, "longitude": 1e-6, "exposure_s": 1e-6}
DEFAULT_TOLERANCE = 0.006  # f-numbers, lengths and heights are kept to two digits


def expected_values() -> dict[str, list[tuple[str, str]]]:
    """Fields and values by file."""
    values: dict[str, list[tuple[str, str]]] = {}
    with EXPECTED.open(encoding="utf-8", newline="") as file:
        for name, field, value in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            values.setdefault(name, []).append((field, value))
    return values


def read(path: Path, index: SidecarNames) -> tuple[PhotoMetadata, Described]:
    embedded = read_metadata(path.read_bytes())
    beside = index.of(path.name)
    return embedded, describe(
        embedded, {name: (path.parent / name).read_bytes() for name in beside}, path.name
    )


def shown(embedded: PhotoMetadata, described: Described, field: str) -> str:
    """What was read, as the table writes it."""
    if field == "described.keywords":
        return "; ".join(keyword.name for keyword in described.keywords)
    if field == "described.captions":
        return "; ".join(f"{caption.source}: {caption.text}" for caption in described.captions)
    name = field.removeprefix("described.")
    value = getattr(embedded if name == field else described.metadata, name)
    if isinstance(value, tuple):
        return "; ".join(value)
    return "" if value is None else str(value)


def is_right(field: str, value: str, found: str) -> bool:
    if value.endswith("…"):
        return found.startswith(value[:-1])
    if value == found:
        return True
    try:
        difference = abs(float(value) - float(found))
    except ValueError:
        return False
    allowed = TOLERANCE.get(field.removeprefix("described."), DEFAULT_TOLERANCE)
    return math.isfinite(difference) and difference <= allowed


def wrong_values(
    known: list[tuple[str, str]], embedded: PhotoMetadata, described: Described
) -> Iterator[str]:
    for field, value in known:
        found = shown(embedded, described, field)
        if not is_right(field, value, found):
            yield f"{field} is {found!r}, not {value!r}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    data = Path(os.environ.get("CLIPSEARCH_DATA", REPOSITORY.parent / "shared" / "data"))
    parser.add_argument("--folder", type=Path, default=data / "messy")
    folder = parser.parse_args().folder
    if not folder.is_dir():
        print(f"{folder} is not there: nothing to measure")
        return
    known = expected_values()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    indexes: dict[Path, SidecarNames] = {}
    for parent in {path.parent for path in files}:
        indexes[parent] = SidecarNames([path.name for path in parent.iterdir()])
    right = total = checked = errors = 0
    slowest_s, spent_s = 0.0, 0.0
    for path in files:
        name = path.relative_to(folder).as_posix()
        started = time.perf_counter()
        try:
            embedded, described = read(path, indexes[path.parent])
        except Exception as error:
            print(f"{name}: {error!r}")
            errors += 1
            continue
        seconds = time.perf_counter() - started
        slowest_s, spent_s = max(slowest_s, seconds), spent_s + seconds
        if seconds > MAX_SECONDS:
            print(f"{name}: took {seconds:.1f} s")
            errors += 1
        wrong = list(wrong_values(known.get(name, []), embedded, described))
        for text in wrong:
            print(f"{name}: {text}")
        checked += name in known
        total += len(known.get(name, []))
        right += len(known.get(name, [])) - len(wrong)
    for name in sorted(known.keys() - {path.relative_to(folder).as_posix() for path in files}):
        print(f"{name}: is not in {folder}")
        errors += 1
    print(f"right       {right} of {total} values of {checked} files ({right / max(1, total):.1%})")
    print(f"errors      {errors} in {len(files)} files")
    print(f"time        {1000 * spent_s / len(files):.2f} ms a file, at most {slowest_s:.2f} s")
    sys.exit(1 if errors or right < total or not total else 0)


if __name__ == "__main__":
    main()
