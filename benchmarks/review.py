"""Review: what k answers make of a tag's F1, on labelled photos that no model was trained on.

    python benchmarks/review.py [--data ../shared/data] [--choose] [--vectors dev.npy]

Three libraries of the photos of dev.parquet, tagged with the embedded model: those with a class
label, with their classes as a vocabulary; those with keywords, with the keywords; those with human
sentences, with NOUNS, which fit a photo if one of its sentences names them. Each tag of three
labelled photos or more (five of the last two) is asked about in a library of its own: the questions
of ``clipsearch review TAG``, in its order, answered by the labels, or with one answer in ten wrong.
F1 is that of the tag over the whole library before and after k answers: with what was answered
itself, which an answer decides, and of the photos that were not asked about alone, which only the
cut-off decides.

The prior of clipsearch/tagging/learning.py was chosen on every second tag; the figures are of the
others. --choose prints what it was chosen by: the log odds at the cut-off lie between the most
likely ones of the answers, and those of half of the mean F1, from which on a tag is best given; the
width is the largest of the grid with which at most two tags in a hundred lose more than three
points of F1, whatever the number of answers.
"""

from __future__ import annotations

import argparse
import io
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tagging import made_library

from clipsearch import Library, load_encoder
from clipsearch.encoders import Encoder
from clipsearch.tagging import learning, tag
from clipsearch.tagging.review import Review
from clipsearch.tagging.vocabulary import parse_vocabulary
from clipsearch.vectors import Matrix

ANSWERS = (1, 2, 3, 5, 10, 20)
WRONG = 0.1
POINTS = 3.0  # of F1: what counts as lowered
LEAST = {"label": 3, "keywords": 5, "sentence": 5}  # photos that a tag fits
WIDTHS = (0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
NOUNS = """\
dog | puppy
ball
water
snow
grass
beach
man
woman
child | boy | girl
bicycle | bike
car
tree
street
mountain
ocean | sea
pool | swimming pool
horse
cat
bird
boat
skateboard
surfboard
football player
baseball player
soccer ball
tennis racket
motorcycle
bench
kitchen
pizza
train
bus
fence
rock
river
hat
sunglasses
crowd
swing
guitar
bathroom
toilet
table
giraffe
elephant
airplane | plane
stairs
sand
tent
jacket
"""


@dataclass
class Labelled:
    """One library, and which of its photos each tag fits: (photos,) by the tag's name."""

    kind: str
    path: Path
    truth: dict[str, NDArray[np.bool_]]


@dataclass
class Change:
    """Of one tag, F1 in points after less before, for each number of answers: (k,)."""

    whole: NDArray[np.float64]
    others: NDArray[np.float64]  # of the photos that were not asked about
    moved: NDArray[np.float64]  # of those, how many got or lost the tag


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--vectors", type=Path, help="keeps what was encoded from run to run")
    arguments = parser.parse_args()
    if not (arguments.data / "dev" / "dev.parquet").is_file():
        print(f"not measured, there is no {arguments.data / 'dev' / 'dev.parquet'}")
        return
    encoder = load_encoder("embedded")
    with tempfile.TemporaryDirectory() as folder:
        sets = list(libraries(arguments.data, encoder, Path(folder), arguments.vectors))
        tags = [(each, name) for each in sets for name in each.truth]
        print(f"{len(tags)} tags of {len(sets)} libraries, {encoder.address} by {encoder.runtime}")
        if arguments.choose:
            choose(tags[::2], encoder)
            return
        for share in (0.0, WRONG):
            print(f"\n{len(tags[1::2])} tags, {share:.0%} of the answers wrong")
            report([asked(one, name, encoder, share) for one, name in tags[1::2]])
        print("\nhow often asked tags fit, by the probability that was said")
        calibration(tags[1::2], encoder)


def choose(tags: list[tuple[Labelled, str]], encoder: Encoder) -> None:
    odds = np.linspace(-2, 0, 81)
    said = np.concatenate([shown(one, name, encoder) for one, name in tags])
    near = np.abs(said[:, 0]) < 1
    logits = said[near, :1] + odds
    likely = np.where(said[near, 1:2] > 0, -np.logaddexp(0, -logits), -np.logaddexp(0, logits))
    best = odds[likely.sum(axis=0).argmax()]
    print(
        f"{len(tags)} tags; most likely log odds at the cut-off, {near.sum()} answers: {best:.2f}"
    )
    half = np.mean([f1_as_given(one, name) for one, name in tags]) / 2
    print(f"log odds of half of the mean F1, {2 * half:.3f}: {np.log(half / (1 - half)):.2f}")
    for width in WIDTHS:
        learning.PRIOR_WIDTH = width
        print(f"\nprior of width {width}, log odds at the cut-off {learning.AT_CUTOFF}")
        report([asked(one, name, encoder, 0.0) for one, name in tags])


def libraries(data: Path, encoder: Encoder, folder: Path, kept: Path | None) -> Iterator[Labelled]:
    import pyarrow.parquet as pq

    columns = ["image", "labels", "kind", "captions"]
    rows = pq.read_table(data / "dev" / "dev.parquet", columns=columns).to_pylist()
    if kept is not None and kept.exists():
        vectors = np.load(kept)
    else:
        vectors = encoded(encoder, [row["image"] for row in rows])
        if kept is not None:
            np.save(kept, vectors)
    for kind, least in LEAST.items():
        of_kind = [at for at, row in enumerate(rows) if row["kind"] == kind]
        if kind == "sentence":
            lines = {line.split(" | ")[0]: line for line in NOUNS.splitlines()}
            fits = {
                name: [named(line.split(" | "), rows[at]["captions"]) for at in of_kind]
                for name, line in lines.items()
            }
        else:
            counts = Counter(label for at in of_kind for label in rows[at]["labels"])
            names = {label.casefold(): label for label in sorted(counts)}.values()
            lines = {name: name for name in names}
            fits = {name: [name in rows[at]["labels"] for at in of_kind] for name in names}
        path = folder / f"{kind}.clipsearch"
        words = parse_vocabulary("\n".join(lines.values()), name=kind, path=Path(kind))
        with made_library(path, encoder, vectors[of_kind]) as library:
            tag(library, words, encoder=encoder)
        truth = {name: np.array(each) for name, each in fits.items() if sum(each) >= least}
        yield Labelled(kind, path, truth)


def encoded(encoder: Encoder, pictures: list[bytes]) -> Matrix:
    from PIL import Image

    pixels = [encoder.preprocess(Image.open(io.BytesIO(p)).convert("RGB")) for p in pictures]
    parts = range(0, len(pixels), 32)
    return np.concatenate([encoder.encode_images(np.stack(pixels[at : at + 32])) for at in parts])


def named(words: list[str], captions: list[str]) -> bool:
    pattern = "|".join(f"{re.escape(word)}(?:s|es)?" for word in words)
    return re.search(rf"\b(?:{pattern})\b", " ".join(captions), re.IGNORECASE) is not None


def asked(one: Labelled, name: str, encoder: Encoder, wrong: float) -> Change:
    """Answers a tag's first questions in a copy of its library."""
    truth = one.truth[name]
    random = np.random.default_rng(len(name) + int(truth.sum()))
    rows: list[tuple[float, float, int]] = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy.clipsearch"
        shutil.copytree(one.path, copy)
        with Library.open(copy) as library:
            review = Review(library, one.kind, encoder=encoder)
            before, others = held(library, one, name), np.ones(len(truth), bool)
            for count, doubt in enumerate(review.queue(name, max(ANSWERS)), 1):
                is_right = bool(truth[doubt.item - 1]) != (random.random() < wrong)
                (review.accept if is_right else review.reject)(doubt.item, name)
                others[doubt.item - 1] = False
                if count in ANSWERS:
                    after = held(library, one, name)
                    rows.append(
                        (
                            100 * (f1(after, truth) - f1(before, truth)),
                            100 * (f1(after, truth, others) - f1(before, truth, others)),
                            int((after != before)[others].sum()),
                        )
                    )
    return Change(*(np.array(column, float) for column in zip(*rows, strict=True)))


def shown(one: Labelled, name: str, encoder: Encoder) -> NDArray[Any]:
    """(n, 3) of a tag's questions: log odds less those at the cut-off, truth, said probability."""
    with Library.open(one.path) as library:
        queue = Review(library, one.kind, encoder=encoder).queue(name, max(ANSWERS))
        said = np.array([doubt.probability for doubt in queue])
        fits = one.truth[name][[doubt.item - 1 for doubt in queue]]
        return np.stack([np.log(said / (1 - said)) - learning.AT_CUTOFF, fits, said], axis=1)


def f1_as_given(one: Labelled, name: str) -> float:
    with Library.open(one.path) as library:
        return f1(held(library, one, name), one.truth[name])


def held(library: Library, one: Labelled, name: str) -> NDArray[np.bool_]:
    """Which photos have the tag, by the model or by an answer."""
    has = np.zeros(len(one.truth[name]), bool)
    has[[each.item - 1 for each in library.tags.given_by_model(one.kind, name)]] = True
    has[[each.item - 1 for each in library.tags.answers(name) if each.accepted]] = True
    return has


def f1(has: NDArray[np.bool_], truth: NDArray[np.bool_], which: Any = slice(None)) -> float:
    both = (has & truth)[which].sum()
    return float(2 * both / max(has[which].sum() + truth[which].sum(), 1))


def report(changes: list[Change]) -> None:
    print("answers | F1: mean  worst  lowered by > 3 | not asked: mean  worst  > 3 | changed tags")
    for at, count in enumerate(ANSWERS):
        whole = np.array([each.whole[at] for each in changes])
        others = np.array([each.others[at] for each in changes])
        moved = np.array([each.moved[at] for each in changes])
        lowered, less = (whole < -POINTS).mean(), (others < -POINTS).mean()
        print(
            f"{count:7d} | {whole.mean():+8.2f} {whole.min():+6.1f} {lowered:14.1%}"
            f" | {others.mean():+15.2f} {others.min():+6.1f} {less:5.1%}"
            f" | {moved.mean():6.2f}, at most {moved.max():.0f}"
        )


def calibration(tags: list[tuple[Labelled, str]], encoder: Encoder) -> None:
    for kind in LEAST:
        parts = [shown(one, name, encoder) for one, name in tags if one.kind == kind]
        rows = np.concatenate(parts)
        told = []
        for low, high in ((0.0, 0.2), (0.2, 0.35), (0.35, 1.0)):
            part = rows[(rows[:, 2] >= low) & (rows[:, 2] < high)]
            if len(part):
                told.append(f"{part[:, 2].mean():.2f}: {part[:, 1].mean():.2f} of {len(part)}")
        print(f"  {kind:<9} {'   '.join(told)}")


if __name__ == "__main__":
    main()
