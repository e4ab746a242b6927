"""What a run of tags did, and how it is asked for."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from clipsearch.tagging.assigning import Row
from clipsearch.tagging.vocabulary import BUILT_IN


@dataclass(frozen=True)
class TagReport:
    """What a run did, or in a dry run would do."""

    vocabulary: str
    concepts: int
    items: int  # pictures and moments that were looked at
    known: int  # that had been looked at before, and were left out
    tags: int  # given, implied ones included
    untagged: int  # items that got none
    seconds: float
    dry_run: bool
    interrupted: bool = False
    most: dict[str, int] = field(default_factory=dict)  # the most frequent tags
    notes: tuple[str, ...] = ()  # on words that the model does not read to their end

    @property
    def tags_per_item(self) -> float:
        return self.tags / self.items if self.items else 0.0


@dataclass
class Counted:
    """What a run counts as it goes."""

    items: int = 0
    untagged: int = 0
    tags: Counter[str] = field(default_factory=Counter)

    def add(self, items: int, rows: list[Row]) -> None:
        self.items += items
        self.untagged += items - len({item for item, _, _ in rows})
        self.tags.update(name for _, name, _ in rows)


def tag_command(vocabulary: str) -> str:
    """The command that tags by a vocabulary, by its name or its file."""
    if vocabulary == BUILT_IN:
        return "clipsearch tag"
    file = vocabulary if Path(vocabulary).suffix else f"{vocabulary}.txt"
    return f"clipsearch tag --vocabulary {shlex.quote(file)}"
