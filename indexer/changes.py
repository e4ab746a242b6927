"""What has to be done: a scan held against what the library knows about the same root."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from clipsearch.library import FileRecord
from indexer.scan import FoundFile, Scan, Unreadable

# Recorded for a file that could not even be opened: no real time, so the next run tries again.
# A file that was read and is damaged keeps its real time and is left alone until it changes.
NOT_READ_MTIME_NS = 0


@dataclass(frozen=True)
class Plan:
    """What one root needs. Files neither in ``read`` nor ``gone`` need nothing."""

    root_id: int
    read: list[FoundFile] = field(default_factory=list)  # new, changed, or back again
    unchanged: int = 0
    known_failures: int = 0  # read before, damaged, and the same file still
    gone: list[FileRecord] = field(default_factory=list)
    unreadable: list[Unreadable] = field(default_factory=list)
    previous: dict[str, FileRecord] = field(default_factory=dict)  # by relpath
    note: str | None = None  # for people: why nothing was marked as gone


def plan_changes(
    root_id: int, scan: Scan, known: Sequence[FileRecord], *, retry_failures: bool = False
) -> Plan:
    """Compares by size, modification time and inode; no file is opened.

    A root that is absent or suddenly has no pictures (an unplugged disk, an unmounted share)
    leaves everything as it is. Damaged files are read again only when their size or time changed,
    or all of them with ``retry_failures``.
    """
    previous = {record.relpath: record for record in known}
    present = [record for record in known if record.missing_since is None]
    if scan.absent is not None:
        note = f"{scan.root} cannot be read now ({scan.absent}): what it held stays in the library"
        return Plan(root_id, unchanged=len(present), previous=previous, note=note)
    read: list[FoundFile] = []
    unchanged = known_failures = 0
    for file in scan.files:
        record = previous.get(file.relpath)
        if record is None or record.missing_since is not None or _differs(file, record):
            read.append(file)
        elif record.failure is None:
            unchanged += 1
        elif retry_failures:
            read.append(file)
        else:
            known_failures += 1
    emptied = _emptied(scan, present)
    return Plan(
        root_id,
        read,
        len(present) if emptied else unchanged,
        known_failures,
        gone=[] if emptied else _gone(scan, present),
        unreadable=scan.unreadable,
        previous=previous,
        note=emptied,
    )


def _emptied(scan: Scan, present: Sequence[FileRecord]) -> str | None:
    held = sum(record.item_id is not None for record in present)
    if scan.files or not held:
        return None
    return (
        f"{scan.root} held {held:,} pictures and now holds none: they stay in the library. "
        f"If you removed them on purpose: clipsearch forget {scan.root}"
    )


def _differs(file: FoundFile, record: FileRecord) -> bool:
    if (file.size, file.mtime_ns) != (record.size, record.mtime_ns):
        return True
    if record.failure is None and record.item_id is None:
        return True  # a repair removed its content from the library
    # Another inode with the old size and time: replaced by a copy that kept its time. A failure
    # is not worth a second try for that.
    return record.failure is None and file.inode != record.inode


def _gone(scan: Scan, present: Sequence[FileRecord]) -> list[FileRecord]:
    """Rows whose file is not there, unless it may still lie in a folder that cannot be listed."""
    found = {file.relpath for file in scan.files} | {entry.relpath for entry in scan.unreadable}
    unlisted = tuple(entry.relpath + "/" for entry in scan.unreadable)
    return [
        record
        for record in present
        if record.relpath not in found and not record.relpath.startswith(unlisted)
    ]
