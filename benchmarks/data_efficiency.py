"""How many examples captions need: contrastive learning beside predicting the captions' words.

    python benchmarks/data_efficiency.py --data ../shared/data [--sentences] [--keep FOLDER]

After Figure 2 of CLIP's paper (section 2.3: "bag of words contrastive" learns four times as fast as
"bag of words prediction"), on what fits two cores: the image tower is the trunk of the embedded
model, frozen, its features of every photo computed once. On them a head of the same form learns (a)
by the contrastive loss against the mean of learned word vectors, (b) to predict the words of the
caption. Both see the same photos with the same captions in the same order. Judged by zero-shot
top-1 on the class labels of dev, asked by the name alone and by "a photo of a NAME.": (a) by the
cosine, (b) by the mean log probability of the words.

A run is trained anew for each number of examples, with a schedule of its own, and for each of
--rates; the best rate counts, for each way and number, so no way is judged by another's rate (it
is chosen by the figure itself, for both alike). --sentences leaves out captions made of labels.
"""

from __future__ import annotations

import argparse
import math
import random
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from clipsearch.encoders.openclip import load_openclip
from clipsearch.encoders.openvino_runtime import ov
from clipsearch.images import decode_image
from training.loss import (
    MAX_LOGIT_SCALE,
    bag_of_words_loss,
    bag_of_words_scores,
    contrastive_loss,
)
from training.towers import normalised

DIM, HIDDEN = 256, 768
LENGTH = 24  # words of a caption that are read
LEAST_COUNT = 2  # of a word in the captions, to be in the vocabulary
WORD = re.compile(r"[a-z]+")
PROMPT = "a photo of a {}."
BATCH = 128
WAYS = ("contrastive", "words")


@dataclass(frozen=True)
class Photos:
    """``features`` (n, width) of the frozen trunk; what was said of each, or what it is."""

    features: Tensor
    captions: list[list[str]]
    labels: list[list[str]]

    def chosen(self, rows: list[int]) -> Photos:
        return Photos(
            self.features[rows],
            [self.captions[row] for row in rows],
            [self.labels[row] for row in rows],
        )


class Trunk:
    """The embedded model's image tower below its head, by OpenVINO, which is faster than torch."""

    def __init__(self) -> None:
        loaded = load_openclip("embedded")
        visual: Any = loaded.model.visual
        self._preprocessing = loaded.preprocessing
        shape = (3, loaded.preprocessing.height, loaded.preprocessing.width)
        converted = ov.convert_model(visual.trunk.eval(), example_input=torch.zeros(1, *shape))
        converted.reshape([-1, *shape])
        # Vectors as exact as the shipped ones, also where the CPU would rather use bfloat16.
        self._compiled = ov.Core().compile_model(
            converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )

    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """(n, 1280)."""
        pixels = np.stack([self._preprocessing.apply(image) for image in images])
        return torch.tensor(self._compiled(normalised(pixels, self._preprocessing).numpy())[0])


def read(files: Sequence[Path], trunk: Trunk, kept: Path | None) -> Photos:
    """Everything in ``files``; features from ``kept`` if they are there, else they go there."""
    features, captions, labels = [], [], []
    is_known = kept is not None and kept.exists()
    for file in files:
        columns = ["image", "captions", "labels", "kind"]
        for batch in pq.ParquetFile(file).iter_batches(64, columns=columns):
            rows = batch.to_pylist()
            if not is_known:
                images = [decode_image(r["image"], name="a photo", target_side=256) for r in rows]
                features.append(trunk.features(images))
            captions += [row["captions"] for row in rows]
            labels += [row["labels"] if row["kind"] == "label" else [] for row in rows]
    if kept is None:
        return Photos(torch.cat(features), captions, labels)
    if not is_known:
        save_file({"features": torch.cat(features)}, kept)
    return Photos(load_file(kept)["features"], captions, labels)


def is_sentence(caption: str) -> bool:
    """Not one of those that name a label: what is left never names a class as the prompt does."""
    return not caption.startswith("a photo of ")


class Vocabulary:
    """Numbers of words from 1 on; 0 is none."""

    def __init__(self, texts: Sequence[str]) -> None:
        counts = Counter(word for text in texts for word in words_of(text))
        known = sorted(word for word, count in counts.items() if count >= LEAST_COUNT)
        self.number = {word: place for place, word in enumerate(known, 1)}

    def __len__(self) -> int:
        return len(self.number) + 1

    def rows(self, texts: Sequence[str]) -> Tensor:
        """(n, LENGTH) int64: the known words in their order."""
        found = torch.zeros(len(texts), LENGTH, dtype=torch.int64)
        for row, text in enumerate(texts):
            numbers = [self.number[word] for word in words_of(text) if word in self.number]
            found[row, : len(numbers[:LENGTH])] = torch.tensor(numbers[:LENGTH], dtype=torch.int64)
        return found

    def has(self, rows: Tensor) -> Tensor:
        """(n, vocabulary) bool: which words a text has."""
        found = torch.zeros(len(rows), len(self), dtype=torch.bool)
        found.scatter_(1, rows, torch.ones_like(rows, dtype=torch.bool))
        found[:, 0] = False
        return found


def words_of(text: str) -> list[str]:
    return WORD.findall(text.lower())


def head(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, out))


class MeanOfWords(nn.Module):
    """(n, LENGTH) words to (n, DIM): the mean of their vectors."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.vectors = nn.EmbeddingBag(words, DIM, mode="mean", padding_idx=0)

    def forward(self, rows: Tensor) -> Tensor:
        found: Tensor = self.vectors(rows)
        return found


@dataclass(frozen=True)
class Task:
    train: Photos
    said: list[Tensor]  # per photo: (captions, LENGTH)
    vocabulary: Vocabulary
    test: Tensor  # (n, width)
    truth: Tensor  # (n, classes) bool
    names: list[str]


def learn(way: str, task: Task, examples: int, rate: float, seed: int) -> dict[str, float]:
    """Top-1 in percent, by what the classes are asked with."""
    torch.manual_seed(seed)
    width, count = task.test.shape[1], len(task.train.features)
    contrastive = way != "words"
    image = head(width, DIM if contrastive else len(task.vocabulary))
    text = MeanOfWords(len(task.vocabulary)) if contrastive else nn.Identity()
    scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
    learned = [*image.parameters(), *text.parameters(), *([scale] if contrastive else [])]
    optimizer = torch.optim.AdamW(learned, lr=rate, weight_decay=0.05, betas=(0.9, 0.98))
    steps = max(1, examples // BATCH)
    chance = random.Random(seed)  # the same photos and captions whatever the way
    order: list[int] = []
    for step in range(steps):
        while len(order) < BATCH:
            order += chance.sample(range(count), count)
        places, order = order[:BATCH], order[BATCH:]
        rows = torch.stack([said[chance.randrange(len(said))] for said in
                            (task.said[place] for place in places)])  # fmt: skip
        warm = min(1.0, (step + 1) / max(1, steps // 10))
        for group in optimizer.param_groups:
            group["lr"] = rate * warm * 0.5 * (1 + math.cos(math.pi * step / steps))
        seen = image(task.train.features[places])
        if contrastive:
            same = (rows[:, None] == rows).all(dim=2)
            loss = contrastive_loss(
                F.normalize(seen, dim=1), F.normalize(text(rows), dim=1), scale.exp(), same
            )
        else:
            loss = bag_of_words_loss(seen, task.vocabulary.has(rows))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        with torch.no_grad():
            scale.clamp_(max=math.log(MAX_LOGIT_SCALE))
    image.eval()
    text.eval()
    asked = {"name": task.names, "prompt": [PROMPT.format(name) for name in task.names]}
    found = {}
    with torch.no_grad():
        seen = image(task.test)
        for kind, texts in asked.items():
            rows = task.vocabulary.rows(texts)
            if contrastive:
                scores = F.normalize(seen, dim=1) @ F.normalize(text(rows), dim=1).T
            else:
                scores = bag_of_words_scores(seen, task.vocabulary.has(rows))
            right = task.truth.gather(1, scores.argmax(dim=1, keepdim=True))
            found[kind] = 100 * float(right.float().mean())
    return found


def needed(points: Sequence[tuple[int, float]], wanted: float) -> float | None:
    """How many examples give ``wanted`` percent, interpolated over their logarithm."""
    for (fewer, low), (more, high) in pairwise(points):
        if low <= wanted <= high and high > low:
            share = (wanted - low) / (high - low)
            return math.exp(math.log(fewer) + share * math.log(more / fewer))
    return None


def prepare(data: Path, sentences: bool, keep: Path | None) -> Task:
    trunk = Trunk()
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)

    files = sorted((data / "train").glob("*.parquet"))
    train = read(files, trunk, keep and keep / "train.safetensors")
    test = read([data / "dev" / "dev.parquet"], trunk, keep and keep / "dev.safetensors")
    if sentences:
        captions = [[text for text in said if is_sentence(text)] for said in train.captions]
        train = Photos(train.features, captions, train.labels)
    train = train.chosen([row for row, said in enumerate(train.captions) if said])
    test = test.chosen([row for row, names in enumerate(test.labels) if names])
    vocabulary = Vocabulary([text for said in train.captions for text in said])
    spoken = [[label.replace("_", " ").replace("-", " ") for label in of] for of in test.labels]
    # Only what all ways can be asked: names that have a word in the vocabulary.
    names = sorted({n for of in spoken for n in of if vocabulary.rows([n]).any()})
    column = {name: place for place, name in enumerate(names)}
    kept = [row for row, of in enumerate(spoken) if any(name in column for name in of)]
    truth = torch.zeros(len(kept), len(names), dtype=torch.bool)
    for row, place in enumerate(kept):
        truth[row, [column[name] for name in spoken[place] if name in column]] = True
    print(
        f"{len(train.features)} photos with {sum(map(len, train.captions))} captions to learn "
        f"from, {len(vocabulary) - 1} words; judged on {len(kept)} photos of {len(names)} classes"
    )
    said = [vocabulary.rows(texts) for texts in train.captions]
    features = (train.features.mean(dim=0), train.features.std(dim=0) + 1e-6)
    scaled = Photos((train.features - features[0]) / features[1], train.captions, train.labels)
    return Task(scaled, said, vocabulary, (test.features[kept] - features[0]) / features[1],
                truth, names)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--examples", type=int, nargs="+",
                        default=[256, 1024, 4096, 16384, 65536])  # fmt: skip
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-3, 3e-3, 1e-2])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--keep", type=Path, metavar="FOLDER",
                        help="for the features, which take longest, for another run")  # fmt: skip
    parser.add_argument("--sentences", action="store_true",
                        help="only what people wrote, no captions made of labels")  # fmt: skip
    arguments = parser.parse_args()
    started = time.monotonic()
    task = prepare(arguments.data, arguments.sentences, arguments.keep)
    print(f"features: {time.monotonic() - started:.0f} s", flush=True)
    curves: dict[str, list[tuple[int, float]]] = {}
    for examples in arguments.examples:
        for way in WAYS:
            begun = time.monotonic()
            by_rate = []
            for rate in arguments.rates:
                runs = [learn(way, task, examples, rate, seed) for seed in range(arguments.seeds)]
                by_rate.append({kind: float(np.mean([run[kind] for run in runs]))
                                for kind in runs[0]})  # fmt: skip
            best = {kind: max(found[kind] for found in by_rate) for kind in by_rate[0]}
            chosen = [arguments.rates[int(np.argmax([f[k] for f in by_rate]))] for k in best]
            # Each way by what it is best asked with at this number of examples.
            curves.setdefault(way, []).append((examples, max(best.values())))
            shown = ", ".join(f"by {kind} {value:.1f}" for kind, value in best.items())
            print(f"{examples:>7} examples, {way:<12} top-1 {shown} (rates {chosen}), "
                  f"{time.monotonic() - begun:.0f} s", flush=True)  # fmt: skip
    for examples, reached in curves["words"]:
        own = needed(curves["contrastive"], reached)
        fewest, least = curves["contrastive"][0]
        outside = f"fewer than {fewest}" if reached < least else "more than any of these"
        said = f"{own:.0f}, {examples / own:.2f} times fewer" if own else outside
        print(f"{reached:.1f} %: words after {examples} examples, contrastive after {said}")


if __name__ == "__main__":
    main()
