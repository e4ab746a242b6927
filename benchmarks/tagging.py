"""Tags: how well they rank and how well they are given on labelled photos, and how fast.

    python benchmarks/tagging.py [--data ../shared/data] [--items 100000] [--only speed]

Quality: photos of dev.parquet that have class labels, which no model was trained on. mAP is the
mean over classes of the average precision, with the class name alone, in one template, and in
ensembles; the embedded model. Then the photos are tagged as a library with their classes as a
vocabulary of the user's, and with the built-in one: precision and recall at the cut-offs.
The figures on train-*.parquet, on which the rules were chosen, are printed with --train.

Speed: a library of synthetic unit vectors in clusters, tagged with 1,500 and with all concepts,
from stored vectors to written rows; words are encoded once, before, and not counted.
"""

from __future__ import annotations

import argparse
import io
import re
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipsearch import Library, load_encoder
from clipsearch.config import available_cores, resolve
from clipsearch.encoders import Encoder
from clipsearch.library import Batch, FileState, NewItem
from clipsearch.tagging import everyday, tag
from clipsearch.tagging.prototypes import Prototypes
from clipsearch.tagging.templates import built_in_templates
from clipsearch.tagging.vocabulary import Vocabulary, parse_vocabulary
from clipsearch.vectors import Matrix, unit_rows

FULL_SIZE = 100_000
SECONDS = 60.0
TAGS = 1_500
DIM = 384


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--items", type=int, default=FULL_SIZE)
    parser.add_argument("--only", choices=["quality", "speed"])
    parser.add_argument("--train", action="store_true")
    arguments = parser.parse_args()
    encoder = load_encoder("embedded")
    print(f"{available_cores()} cores, {encoder.address} by {encoder.runtime}")
    if arguments.only != "speed":
        folder = arguments.data
        if not folder.is_dir():
            print(f"quality: not measured, there is no {folder}")
        else:
            if arguments.train:
                quality(encoder, "train", sorted((folder / "train").glob("*.parquet"))[:2])
            quality(encoder, "dev", [folder / "dev" / "dev.parquet"])
    if arguments.only != "quality":
        speed(encoder, arguments.items)


def quality(encoder: Encoder, name: str, files: list[Path]) -> None:
    import pyarrow.parquet as pq
    from PIL import Image

    columns = ["image", "labels", "kind"]
    rows = [row for file in files for row in pq.read_table(file, columns=columns).to_pylist()]
    if name == "train":
        rows = [row for row in rows if row["labels"]]
    pictures = [
        encoder.preprocess(Image.open(io.BytesIO(row["image"])).convert("RGB")) for row in rows
    ]
    vectors = np.concatenate(
        [encoder.encode_images(np.stack(pictures[i : i + 32])) for i in range(0, len(rows), 32)]
    )
    labelled = [i for i, row in enumerate(rows) if row["labels"] and row["kind"] == "label"]
    counts = Counter(label for i in labelled for label in set(rows[i]["labels"]))
    classes = sorted(label for label, count in counts.items() if count >= 2)
    truth = np.array([[label in rows[i]["labels"] for label in classes] for i in labelled])
    print(f"\n{name}: {len(rows):,} photos; {len(labelled)} with labels of {len(classes)} classes")
    ranked(encoder, classes, vectors[labelled], truth)
    with tempfile.TemporaryDirectory() as folder:
        library = made_library(Path(folder) / "q.clipsearch", encoder, vectors)
        with library:
            mine = parse_vocabulary("\n".join(classes), name="classes", path=Path("classes"))
            given = tags_of(library, mine, encoder, len(rows))
            held = np.array([[label in given[i] for label in classes] for i in labelled])
            print(f"  classes as a vocabulary       {judged(held, truth)}")
            words = everyday()
            given = tags_of(library, words, encoder, len(rows))
            in_words = {
                at: words.find(re.sub(r"s$", "", label)) for at, label in enumerate(classes)
            }
            at = [column for column, position in in_words.items() if position is not None]
            names = [words.names[in_words[column] or 0] for column in at]
            held = np.array([[each in given[i] for each in names] for i in labelled])
            print(f"  {len(at)} classes in the built-in one  {judged(held, truth[:, at])}")
            each = sum(map(len, given)) / len(given)
            print(f"  built-in: {each:.1f} tags a photo, implied included")


def ranked(encoder: Encoder, classes: list[str], vectors: Matrix, truth: NDArray[np.bool_]) -> None:
    known = built_in_templates()
    ways = {
        "class name alone": ("{}",),
        "one template": ("a photo of a {}.",),
        "ensemble [photo]": known["photo"],
        "ensemble [object]": known["object"],
        "ensemble [imagenet], 80": known["imagenet"],
    }
    for way, templates in ways.items():
        with tempfile.TemporaryDirectory() as cache:
            maker = Prototypes(encoder.space, lambda: encoder, Path(cache))
            prototypes = maker.of([[[t.replace("{}", c) for t in templates]] for c in classes])
        scores = vectors @ prototypes.T
        mean = np.mean([average_precision(scores[:, j], truth[:, j]) for j in range(len(classes))])
        print(f"  {way:<28}  mAP {mean:.4f}")


def average_precision(scores: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    order = truth[np.argsort(-scores, kind="stable")]
    hits = np.cumsum(order)
    return float((hits / np.arange(1, len(order) + 1))[order].mean())


def judged(held: NDArray[np.bool_], truth: NDArray[np.bool_]) -> str:
    right = (held & truth).sum(axis=0)
    precision, recall = right.sum() / max(held.sum(), 1), right.sum() / max(truth.sum(), 1)
    f1 = np.mean(2 * right / np.maximum(held.sum(axis=0) + truth.sum(axis=0), 1))
    return f"precision {precision:.3f}  recall {recall:.3f}  mean F1 of the classes {f1:.3f}"


def tags_of(library: Library, words: Vocabulary, encoder: Encoder, count: int) -> list[set[str]]:
    tag(library, words, encoder=encoder)
    given: list[set[str]] = [set() for _ in range(count)]
    for one in library.tags.given_by_model(words.name):
        given[one.item - 1].add(one.name)
    return given


def made_library(path: Path, encoder: Any, vectors: Matrix) -> Library:
    library = Library.open(path, create=True)
    with library.writer() as writer:
        root = writer.add_root(path.parent / "photos")
        space = writer.add_space(encoder.space, address="embedded", runtime="-", precision="f32")
        for start in range(0, len(vectors), 10_000):
            part = vectors[start : start + 10_000]
            names = [f"{start + number:032x}" for number in range(len(part))]
            writer.commit(
                Batch(
                    new_items=[NewItem(name, 8, 8, "JPEG", 8) for name in names],
                    vectors=(space.id, names, part),
                    files=[FileState(root.id, f"{name}.jpg", 8, 1, 1, name) for name in names],
                )
            )
        writer.activate_space(space.id)
    return library


def speed(encoder: Encoder, items: int) -> None:
    """A cluster for each of 400 concepts, pictures around them, as cosines of real ones lie."""
    words = everyday()
    lines = [f"{'|'.join((c.name, *c.synonyms))}" for c in words.concepts[:TAGS]]
    some = parse_vocabulary("\n".join(lines), name="some", path=Path("some"))
    settings = resolve()
    random = np.random.default_rng(7)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        tiny = made_library(
            base / "tiny.clipsearch", encoder, unit_rows(random.normal(size=(9, DIM)))
        )
        with tiny:  # encodes the words of both, once
            for vocabulary in (some, words):
                tag(tiny, vocabulary, encoder=encoder, settings=settings)
        centres = unit_rows(random.normal(size=(400, DIM)))
        texts = encoder.encode_texts([f"a photo of a {name}." for name in words.names[::7]])
        centres[: len(texts)] = unit_rows(0.45 * texts[:400] + 0.9 * centres[: len(texts)])
        own = random.normal(size=(items, DIM)).astype(np.float32) / np.sqrt(DIM)
        vectors = unit_rows(centres[random.integers(0, len(centres), items)] + 0.8 * own)
        library = made_library(base / "big.clipsearch", encoder, vectors)
        with library:
            print(f"\n{items:,} x {DIM} stored vectors")
            for vocabulary in (some, words):
                started = time.perf_counter()
                report = tag(library, vocabulary, settings=settings)
                taken = time.perf_counter() - started
                bar = (
                    f"; bar <= {SECONDS:.0f} s: {'met' if taken <= SECONDS else 'MISSED'}"
                    if vocabulary is some and items == FULL_SIZE
                    else ""
                )
                print(
                    f"  {len(vocabulary):,} tags: {taken:.1f} s, {report.tags:,} rows "
                    f"({report.tags_per_item:.1f} a picture){bar}"
                )
                started = time.perf_counter()
                tag(library, vocabulary, settings=settings)
                print(f"    again with nothing new: {time.perf_counter() - started:.2f} s")
            started = time.perf_counter()
            counted = library.tags.counts()
            print(f"  clipsearch tags: {len(counted):,} in {time.perf_counter() - started:.2f} s")


if __name__ == "__main__":
    main()
