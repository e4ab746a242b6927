"""What an index run did, for people and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipsearch.library import failure_kind

_REASONS_SHOWN = 5


@dataclass(frozen=True)
class Failure:
    """A file that is not searchable, and why."""

    path: Path
    reason: str


@dataclass
class IndexReport:
    """Counts of files, by what became of them."""

    added: int = 0  # new content
    changed: int = 0  # new content under a known name
    moved: int = 0  # known content under a new name, gone from an old one
    copied: int = 0  # known content under one name more
    unchanged: int = 0
    gone: int = 0
    embedded: int = 0  # vectors made, of new and of old pictures
    live_photos: int = 0  # videos that turned out to be the moving half of a photo
    failures: list[Failure] = field(default_factory=list)  # new ones only
    known_failures: int = 0
    left: list[Failure] = field(default_factory=list)  # not settled: the next run looks again
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False
    model: str | None = None  # the address of the model that is searched now
    seconds: float = 0.0

    def as_record(self) -> dict[str, Any]:
        """One flat JSON object; failures are counted, their list is printed by itself."""
        return {
            "added": self.added,
            "changed": self.changed,
            "moved": self.moved,
            "copied": self.copied,
            "unchanged": self.unchanged,
            "gone": self.gone,
            "embedded": self.embedded,
            "live_photos": self.live_photos,
            "new_failures": len(self.failures),
            "known_failures": self.known_failures,
            "left_for_next_run": len(self.left),
            "interrupted": self.interrupted,
            "model": self.model,
            "seconds": round(self.seconds, 3),
            "notes": self.notes,
        }

    def summary(self) -> str:
        """What happened, in how long; zeros are left out except for what was added."""
        counts = (
            (self.added, "added"),
            (self.changed, "changed"),
            (self.moved, "moved"),
            (self.copied, "copies"),
            (self.unchanged, "unchanged"),
            (self.gone, "gone"),
            (len(self.failures), "failed"),
            (self.known_failures, "failed before"),
            (len(self.left), "left for the next run"),
        )
        parts = [f"{count:,} {what}" for count, what in counts if count or what == "added"]
        return f"{', '.join(parts)} in {duration(self.seconds)}"

    def lines(self) -> Iterator[str]:
        """What happened, why files were skipped, and what to do next; one line each."""
        yield self.summary()
        if self.live_photos:
            yield (
                f"  of these, {self.live_photos:,} videos are the moving halves of Live Photos: "
                "they are found by their photos"
            )
        reasons = Counter(failure_kind(failure.reason) for failure in self.failures)
        for reason, count in reasons.most_common(_REASONS_SHOWN):
            yield f"  skipped {count:,}: {reason}"
        if self.failures or self.known_failures:
            yield "Which files, and why: clipsearch info --failures"
        reasons = Counter(failure_kind(failure.reason) for failure in self.left)
        for reason, count in reasons.most_common(_REASONS_SHOWN):
            yield f"  left {count:,}: {reason}"
        if self.left:
            yield "What was left is read at the next run: clipsearch index"
        if self.added + self.moved + self.copied and not self.interrupted:
            yield (
                'Now search them: clipsearch search "a dog on the beach", '
                "or in the browser: clipsearch serve"
            )


def duration(seconds: float) -> str:
    """``7.4 s``, ``3 min 05 s`` or ``2 h 10 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
