"""What an index run would do, from names, sizes and times alone: nothing is opened or changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from clipsearch.config import DEFAULT_SIDECAR_TEXT
from clipsearch.counting import counted
from clipsearch.library import FileRecord, Library, RootRecord
from indexer.changes import plan_changes
from indexer.ignore import IGNORE_FILE
from indexer.scan import scan

_FOLDERS_SHOWN = 10
_NO_ROOT = 0  # of a folder that the library does not hold yet


@dataclass
class Preview:
    """Counts of files, by what an index run would do with them."""

    read: int = 0  # new or changed: they would be opened
    unchanged: int = 0
    gone: int = 0  # some of them may turn out to be moved
    known_failures: int = 0
    with_words: int = 0  # of those to read: photos that a person said something of
    unreadable: int = 0  # folders and names that cannot even be listed
    read_bytes: int = 0
    formats: dict[str, int] = field(default_factory=dict)  # of what would be read, by ending
    left_out: dict[str, str] = field(default_factory=dict)  # folders, by the marker in them
    notes: list[str] = field(default_factory=list)

    def as_record(self) -> dict[str, Any]:
        """One flat JSON object."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """The same for people."""
        size = f"{self.read_bytes / 1e6:,.1f} MB"
        endings = ", ".join(f"{count:,} {name}" for name, count in self.formats.items())
        files = counted(self.read, "file")
        yield f"would read   {files}, {size}" + (f": {endings}" if endings else "")
        if self.with_words:
            yield f"carried over what you said of up to {self.with_words:,} of them"
        yield f"unchanged    {self.unchanged:,}"
        if self.gone:
            yield f"not there    {self.gone:,} (moved files are recognised when they are read)"
        if self.known_failures:
            yield f"failed before {self.known_failures:,}, and not changed since"
        if self.unreadable:
            yield f"cannot be listed {self.unreadable:,}"
        for folder, why in list(self.left_out.items())[:_FOLDERS_SHOWN]:
            yield f"left out     {folder} ({why})"
        if len(self.left_out) > _FOLDERS_SHOWN:
            yield f"left out     {len(self.left_out) - _FOLDERS_SHOWN:,} more (--json names them)"
        yield from self.notes
        yield "Nothing was changed. Without --dry-run, clipsearch index does it."


def preview(
    library: Library | None, roots: Sequence[Path], *, sidecar_text: str = DEFAULT_SIDECAR_TEXT
) -> Preview:
    """Scans some folders, or all of a library, against what the library knows of them."""
    found = Preview()
    endings: Counter[str] = Counter()
    for root, known in _chosen(library, roots):
        scanned = scan(root.path, sidecar_text=sidecar_text)
        plan = plan_changes(root.id, scanned, known)
        found.read += len(plan.read)
        if library is not None:
            known_items = [
                record.item_id
                for file in plan.read
                if (record := plan.previous.get(file.relpath)) is not None
                and record.item_id is not None
            ]
            found.with_words += library.carryings.said_of(known_items)
        found.read_bytes += sum(file.size for file in plan.read)
        found.unchanged += plan.unchanged
        found.gone += len(plan.gone)
        found.known_failures += plan.known_failures
        found.unreadable += len(plan.unreadable)
        found.left_out |= {
            str(root.path / folder): why
            for folder, why in scanned.left_out.items()
            if why != IGNORE_FILE
        }
        found.notes += plan.notes
        endings.update(PurePosixPath(file.relpath).suffix.lower() for file in plan.read)
    found.formats = dict(endings.most_common())
    return found


def _chosen(
    library: Library | None, given: Sequence[Path]
) -> Iterator[tuple[RootRecord, list[FileRecord]]]:
    """The roots that cover the given folders, else the folders themselves; or all roots."""
    held = library.roots() if library is not None else []
    if not given:
        chosen = held
    else:
        chosen = []
        for folder in given:
            resolved = folder.resolve()
            covering = [root for root in held if resolved.is_relative_to(root.path)]
            chosen.append(covering[0] if covering else RootRecord(_NO_ROOT, resolved))
    for root in dict.fromkeys(chosen):
        known = library.files(root.id) if library is not None and root.id != _NO_ROOT else []
        yield root, known
