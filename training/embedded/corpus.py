"""What the embedded model learns from: captioned photos, and words that no caption holds."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from clipsearch.errors import TrainingError

# Sources whose captions are whole sentences by people; drawn more often than lists of labels.
SENTENCE_SOURCES = frozenset({"flickr8k", "coco-val2014", "coco-mini", "coco-vi-sports"})
WORDNET = Path("/usr/share/wordnet")
_PLACES = ("on a beach", "in the snow", "at night", "in a city", "on a table", "on the grass",
           "in the water", "in a room", "in a forest", "against the sky")  # fmt: skip
_COLOURS = ("red", "white", "black", "brown", "green", "blue", "yellow", "old", "small", "big")


@dataclass(frozen=True)
class CaptionedPhoto:
    """One photo of a parquet file with everything that was said of it."""

    key: str
    image: bytes
    captions: tuple[str, ...]
    source: str
    labels: tuple[str, ...] = ()


def read_photos(files: list[Path]) -> Iterator[CaptionedPhoto]:
    """Reads parquet files with the columns key, image, captions, source and labels, bit by bit."""
    columns = ["key", "image", "captions", "source", "labels"]
    for path in files:
        for batch in pq.ParquetFile(path).iter_batches(256, columns=columns):
            for row in batch.to_pylist():
                if row["captions"]:
                    yield CaptionedPhoto(
                        row["key"],
                        row["image"],
                        tuple(row["captions"]),
                        row["source"],
                        tuple(row["labels"] or ()),
                    )


def vocabulary_texts(captions: list[str], seed: int = 0) -> list[str]:
    """Texts for the student to imitate its teacher on: captions, WordNet's words, and phrases.

    Words carry the model beyond its captions: every noun of WordNet alone, the frequent ones in
    phrases as people type them, and glosses. Duplicates are removed; order is fixed by ``seed``.
    """
    chance = random.Random(seed)
    nouns = _lemmas("noun")
    frequent = _frequent_nouns()
    texts = set(captions)
    texts.update(noun for noun in nouns if len(noun) < 18)
    texts.update(word for kind in ("adj", "verb") for word in _lemmas(kind) if " " not in word)
    for noun in frequent[:6000]:
        article = "an" if noun[0] in "aeiou" else "a"
        texts.update((f"{article} {noun}", f"a photo of {article} {noun}", f"{noun}s"))
        texts.add(f"{article} {noun} {chance.choice(_PLACES)}")
        texts.add(f"a {chance.choice(_COLOURS)} {noun}")
        texts.add(f"{article} {noun} and a {chance.choice(frequent[:1500])}")
    glosses = [gloss for gloss in _glosses("noun") if 12 < len(gloss) < 60]
    texts.update(chance.sample(glosses, min(20_000, len(glosses))))
    for caption in chance.sample(captions, len(captions) // 3):
        words = caption.split()
        if len(words) > 5:  # people type fragments, not sentences
            start = chance.randrange(len(words) - 3)
            texts.add(" ".join(words[start : start + chance.randint(2, 4)]).strip(" .,"))
    ordered = sorted(texts)
    chance.shuffle(ordered)
    return ordered


@dataclass(frozen=True)
class Synset:
    """One meaning in WordNet: its names, its definition, and the more general synset's offset."""

    names: tuple[str, ...]
    definition: str
    above: str | None


def noun_synsets() -> dict[str, Synset]:
    """WordNet's nouns by offset, eight digits as a string (ImageNet's ids after their n)."""
    found = {}
    for line in _wordnet_file("data.noun").read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):  # the licence
            continue
        data, _, gloss = line.partition("|")
        words = data.split()
        count = int(words[3], 16)
        names = tuple(word.replace("_", " ") for word in words[4 : 4 + 2 * count : 2])
        pointers = words[5 + 2 * count :]
        above = next((pointers[i + 1] for i, w in enumerate(pointers) if w in ("@", "@i")), None)
        found[words[0]] = Synset(names, gloss.split(";")[0].strip(), above)
    return found


def _lemmas(kind: str) -> list[str]:
    path = _wordnet_file(f"index.{kind}")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    words = (line.split(" ", 1)[0].replace("_", " ") for line in lines if not line.startswith(" "))
    return [word for word in words if re.fullmatch(r"[a-z][a-z' -]+", word)]


def _frequent_nouns() -> list[str]:
    """Nouns that WordNet's tagged texts contain, the most frequent first."""
    counts: dict[str, int] = {}
    for line in _wordnet_file("cntlist.rev").read_text(encoding="utf-8").splitlines():
        sense, _, count = line.split(" ")
        lemma, lexical = sense.split("%")
        if lexical.startswith("1:"):
            name = lemma.replace("_", " ")
            counts[name] = counts.get(name, 0) + int(count)
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    return [name for name in ranked if re.fullmatch(r"[a-z][a-z -]+", name)]


def _glosses(kind: str) -> Iterator[str]:
    text = _wordnet_file(f"data.{kind}").read_text(encoding="utf-8", errors="replace")
    for line in text.splitlines():
        if "|" in line:
            yield line.split("|", 1)[1].split(";")[0].strip()


def _wordnet_file(name: str) -> Path:
    path = WORDNET / name
    if not path.exists():
        raise TrainingError(
            reason=f"WordNet's {path} is not there. Install it: apt-get install wordnet-base"
        )
    return path
