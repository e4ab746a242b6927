"""What an index run did, for people and for programs."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipsearch.counting import counted
from clipsearch.library import Carried, failure_kind, words_said

_REASONS_SHOWN = 5
_CHANGES_NAMED = 5


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
    unread: int = 0  # of the failures: what was known of the path is kept
    carried: int = 0  # changed files that kept what a person had said of them
    kept: int = 0  # files that were replaced; what had been said stays with the earlier picture
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
            "kept_though_unread": self.unread,
            "carried_over": self.carried,
            "kept_with_earlier": self.kept,
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
            (self.carried, "with what you said of them"),
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
            halves = counted(
                self.live_photos,
                "video is the moving half of a Live Photo: it is found by its photo",
                "videos are the moving halves of Live Photos: they are found by their photos",
            )
            yield f"  of these, {halves}"
        reasons = Counter(failure_kind(failure.reason) for failure in self.failures)
        for reason, count in reasons.most_common(_REASONS_SHOWN):
            yield f"  skipped {count:,}: {reason}"
        if self.failures or self.known_failures:
            yield "Which files, and why: clipsearch info --failures"
        reasons = Counter(failure_kind(failure.reason) for failure in self.left)
        for reason, count in reasons.most_common(_REASONS_SHOWN):
            yield f"  left {count:,}: {reason}"
        if self.unread:
            yield f"What is known of {self.unread:,} of them is kept, and found as before"
        if self.carried:
            photos = counted(self.carried, "changed photo")
            yield f"What you said of {photos} was carried over: clipsearch carried"
        if self.left:
            yield "What was left is read at the next run: clipsearch index"
        if self.added + self.moved + self.copied and not self.interrupted:
            yield (
                'Now search them: clipsearch search "a dog on the beach", '
                "or in the browser: clipsearch serve"
            )


def tell_carried(report: IndexReport, changes: Sequence[Carried]) -> None:
    """Counts what became of people's words in this run, and names what they should look at."""
    report.carried = sum(one.state == "carried" for one in changes)
    report.kept = len(changes) - report.carried
    doubtful = [one for one in changes if one.state != "carried" or one.is_same is False]
    for one in doubtful[:_CHANGES_NAMED]:
        path = shlex.quote(str(one.path))
        if one.state == "carried":
            report.notes.append(
                f"{one.path} shows another picture now: {words_said(one.words)} of the one before "
                f"went over to it. To take that back: clipsearch carried --take-back {path}"
            )
        else:
            report.notes.append(
                f"{one.path} is another picture now: {words_said(one.words)} of the one before "
                f"stay with that. To give them to the new one: clipsearch carried --carry {path}"
            )
    if len(doubtful) > _CHANGES_NAMED:
        more = len(doubtful) - _CHANGES_NAMED
        others = counted(
            more, "more photo became another picture", "more photos became other pictures"
        )
        report.notes.append(f"{others}: clipsearch carried")


def duration(seconds: float) -> str:
    """``7.4 s``, ``3 min 05 s`` or ``2 h 10 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
