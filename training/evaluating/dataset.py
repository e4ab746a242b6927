"""What a model is measured on: pictures with captions, with labels, or with both."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from PIL import Image

from clipsearch.errors import DatasetError


@dataclass(frozen=True)
class Picture:
    """``open`` gives it upright and RGB, at least as large as a side that is asked for.

    It raises ImageError where the file cannot be read. ``labels`` are the names of all that is
    right for it; often one.
    """

    name: str
    open: Callable[[int], Image.Image]
    captions: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """Pictures in a fixed order. ``notes`` say for people what was left out, and why."""

    name: str
    pictures: tuple[Picture, ...]
    notes: tuple[str, ...] = ()

    def sample(self, limit: int | None, seed: int) -> Dataset:
        """At most ``limit`` of the pictures; the same seed, the same ones."""
        if limit is None or len(self.pictures) <= limit:
            return self
        chosen = sorted(random.Random(seed).sample(range(len(self.pictures)), limit))
        note = f"a sample of {limit:,} of {len(self.pictures):,} pictures (--limit)"
        return replace(
            self,
            pictures=tuple(self.pictures[place] for place in chosen),
            notes=(*self.notes, note),
        )

    def without(self, places: dict[int, str]) -> Dataset:
        """Without the pictures that could not be read, by place and reason."""
        if not places:
            return self
        first = next(iter(places.values()))
        kept = tuple(one for place, one in enumerate(self.pictures) if place not in places)
        note = f"{len(places)} pictures left out that cannot be read, as: {first}"
        return replace(self, pictures=kept, notes=(*self.notes, note))

    def telling(self) -> Dataset:
        """Without captions that several pictures share: they tell none of them from the others.

        DatasetError if neither captions nor labels are enough to measure anything.
        """
        shared = Counter(caption for one in self.pictures for caption in set(one.captions))
        pictures = tuple(
            replace(one, captions=tuple(c for c in one.captions if shared[c] == 1))
            for one in self.pictures
        )
        common = sum(count for count in shared.values() if count > 1)
        note = f"{common:,} captions left out that several pictures share"
        found = replace(
            self, pictures=pictures, notes=(*self.notes, note) if common else self.notes
        )
        if len(found.captioned()) < 2 and len(found.classes()) < 2:
            raise DatasetError(
                name=self.name,
                reason=f"of its {len(pictures):,} pictures {len(found.captioned())} have a caption "
                f"of their own, and {len(found.classes())} labels are told apart; at least 2 of "
                "either are needed",
                advice="Add captions (path,caption) or labels (path,label, or a folder a class).",
            )
        return found

    def captioned(self) -> list[int]:
        """The places of the pictures with captions."""
        return [place for place, one in enumerate(self.pictures) if one.captions]

    def labelled(self) -> list[int]:
        """The places of the pictures with labels."""
        return [place for place, one in enumerate(self.pictures) if one.labels]

    def classes(self) -> list[str]:
        """Every label, sorted."""
        return sorted({label for one in self.pictures for label in one.labels})


def spoken(label: str) -> str:
    """A label as it is said in a sentence: ``golden_retriever`` is a golden retriever."""
    return " ".join(label.replace("_", " ").split())


def said_of(pictures: Sequence[Picture]) -> tuple[list[str], list[int]]:
    """All captions, and for each the place of its picture."""
    pairs = [(text, place) for place, one in enumerate(pictures) for text in one.captions]
    return [text for text, _ in pairs], [place for _, place in pairs]
