"""What has to be done: a scan held against what the library knows about the same root."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clipsearch.counting import counted
from clipsearch.errors import ImageError
from clipsearch.library import FileRecord, Library
from indexer.decoders import was_cut_short
from indexer.ignore import IGNORE_FILE, WISHES
from indexer.scan import LIBRARY, FoundFile, Scan, Unreadable

# Recorded for a file that could not even be opened, or that may have changed since it was read: no
# file has that time, so the next run reads it. A file that was read and is damaged keeps its real
# time and is left alone until it changes.
NOT_READ_MTIME_NS = -1

# How coarse the times of files are: 2 s on FAT, 1 s on HFS+ and some network drives, both in whole
# seconds; elsewhere the kernel's clock tick, at most 10 ms.
_COARSE_NS = 2_000_000_000
_FINE_NS = 20_000_000
_SECOND_NS = 1_000_000_000

# How many files have to show only a new inode before some are compared in place of reading all.
_MANY_RENUMBERED = 40
_COMPARED = 20
_MANY_EMPTIED = 20  # pictures that a folder held, to say that it may be where a disk belongs

_TAKE_IN = f"To take it in all the same: a line !FOLDER/ in a {IGNORE_FILE} beside it"

SameContents = Callable[[Sequence[tuple[FoundFile, FileRecord]]], bool]


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
    inodes: dict[int, int] = field(default_factory=dict)  # file id: its new inode, to be noted
    notes: list[str] = field(default_factory=list)  # for people


def settled_mtime_ns(mtime_ns: int, read_at_ns: int) -> int:
    """The time to record for a file that was read; NOT_READ_MTIME_NS if it does not prove enough.

    A file that is written again within one tick of its file system's clock keeps its time (git's
    "racily clean" entries, Documentation/technical/racy-git.txt). So a time within a tick of
    ``read_at_ns``, the moment before the file was opened, has the next run read the file once more.
    A file dated in the future does not: what is written now gets the time of now.
    """
    tick_ns = _FINE_NS if mtime_ns % _SECOND_NS else _COARSE_NS
    return NOT_READ_MTIME_NS if abs(read_at_ns - mtime_ns) < tick_ns else mtime_ns


def plan_changes(
    root_id: int,
    scan: Scan,
    known: Sequence[FileRecord],
    *,
    retry_failures: bool = False,
    doubted: Collection[int] = (),
    same_contents: SameContents | None = None,
) -> Plan:
    """Compares by size, modification time, inode and sidecars; opens no file itself.

    A root that is absent or suddenly has no pictures (an unplugged disk, an unmounted share)
    leaves everything as it is. After a scan of some paths only, nothing else is judged. Damaged
    files are read again only when their size or time changed, or all of them with
    ``retry_failures``; unchanged files of ``doubted`` items are read again, too.

    Network drives, FAT and FUSE number their files anew at every mount. When many files show
    nothing but a new inode, ``same_contents`` is asked about a few of them: if these are the same,
    none is read. Without it, or where they are few, all of them are.
    """
    looked_at = known if scan.only is None else list(_within(scan, known))
    previous = {record.relpath: record for record in looked_at}
    present = [record for record in looked_at if record.missing_since is None]
    if scan.absent is not None:
        note = f"{scan.root} cannot be read now ({scan.absent}): what it held stays in the library"
        return Plan(root_id, unchanged=len(present), previous=previous, notes=[note])
    read: list[FoundFile] = []
    renumbered: list[tuple[FoundFile, FileRecord]] = []
    unchanged = known_failures = 0
    for file in scan.files:
        record = previous.get(file.relpath)
        if (
            record is None
            or record.missing_since is not None
            or _differs(file, record)
            or record.item_id in doubted
        ):
            read.append(file)
        elif record.failure is not None:
            # Not worth a second try for a new inode, unless the photo was known before.
            is_other = file.inode != record.inode and file.inode and record.inode
            is_known = is_other and record.item_id is not None
            if retry_failures or is_known or was_cut_short(record.failure):
                read.append(file)
            else:
                known_failures += 1
        elif file.inode != record.inode and file.inode and record.inode:
            # Replaced by a copy that kept size and time? Or only mounted anew.
            renumbered.append((file, record))
        else:
            unchanged += 1
    inodes: dict[int, int] = {}
    if _are_same(renumbered, same_contents):
        inodes = {record.id: file.inode for file, record in renumbered}
        unchanged += len(renumbered)
    elif renumbered:
        read = sorted([*read, *(file for file, _ in renumbered)])
    gone: list[FileRecord] = []
    notes = list(scan.notes)
    if emptied := _emptied(scan, known):
        notes.append(emptied)
        gone = [record for record in present if _is_below(record.relpath, scan.left_out)]
        unchanged = len(present) - len(gone)
    else:
        gone = _gone(scan, present)
        notes += _emptied_folders(scan, gone)
    notes += _left_out(scan, gone, is_first=not known)
    return Plan(
        root_id, read, unchanged, known_failures, gone, scan.unreadable, previous, inodes, notes
    )


def same_contents(library: Library, root: Path, hash_file: Callable[[Path], str]) -> SameContents:
    """Makes what ``plan_changes`` asks; ``hash_file`` names a content as the library's items do."""

    def are_same(pairs: Sequence[tuple[FoundFile, FileRecord]]) -> bool:
        items = library.items([record.item_id for _, record in pairs if record.item_id is not None])
        try:
            return all(
                record.item_id in items
                and hash_file(root / file.relpath) == items[record.item_id].content_hash
                for file, record in pairs
            )
        except (OSError, ImageError):
            return False

    return are_same


def _within(scan: Scan, known: Sequence[FileRecord]) -> Iterator[FileRecord]:
    """The rows that a scan of some paths says something about."""
    wanted, skipped = frozenset(scan.only or ()), frozenset(scan.skipped)
    for record in known:
        if _is_below(record.relpath, wanted) and not _is_below(record.relpath, skipped):
            yield record


def _is_below(relpath: str, folders: Collection[str]) -> bool:
    """True at or below one of the folders."""
    if not folders:
        return False
    while relpath not in folders:
        relpath, slash, _ = relpath.rpartition("/")
        if not slash:
            return False
    return True


def _are_same(renumbered: Sequence[tuple[FoundFile, FileRecord]], ask: SameContents | None) -> bool:
    """Compares some files, spread evenly, if there are many. Then most changes would show."""
    if ask is None or len(renumbered) < _MANY_RENUMBERED:
        return False
    step = len(renumbered) / _COMPARED
    return ask([renumbered[int(number * step)] for number in range(_COMPARED)])


def _emptied(scan: Scan, known: Sequence[FileRecord]) -> str | None:
    """Says that nothing of what a root held is there any more, if so.

    A scan of some paths only knows the names in the root: none of them is of what it held.
    """
    if scan.files:
        return None
    held = [
        record.relpath
        for record in known
        if record.item_id is not None
        and record.missing_since is None
        and not _is_below(record.relpath, scan.left_out)
    ]
    if not held or any(relpath.partition("/")[0] in scan.top for relpath in held):
        return None
    refused = {entry.relpath for entry in scan.unreadable}
    if any(_is_below(relpath, refused) for relpath in held):
        return None  # it is there, and cannot be looked at
    return (
        f"{scan.root} held {counted(len(held), 'picture')} and now holds none: "
        f"{'it stays' if len(held) == 1 else 'they stay'} in the library. "
        f"If you removed them on purpose: clipsearch forget {scan.root}"
    )


def _emptied_folders(scan: Scan, gone: Sequence[FileRecord]) -> Iterator[str]:
    """Says which folders may be places where a disk is mounted at other times.

    Their pictures are marked as missing all the same: a folder whose pictures were moved
    elsewhere looks no different, and what is missing keeps its vector and tags.
    """
    empty = frozenset(scan.empty)
    held: Counter[str] = Counter()
    for record in gone if empty else ():
        folder = record.relpath
        while folder:
            folder = folder.rpartition("/")[0]
            if folder in empty and record.item_id is not None:
                held[folder] += 1
    for folder, pictures in sorted(held.items()):
        if pictures >= _MANY_EMPTIED:
            yield (
                f"{scan.root / folder} held {counted(pictures, 'picture')} and is empty now: "
                "they are "
                "missing until they are seen again. If a disk belongs there, mount it and run "
                "clipsearch index"
            )


def _left_out(scan: Scan, gone: Sequence[FileRecord], *, is_first: bool) -> Iterator[str]:
    """Says what a marker in a folder costs, when it does and at the first look at a root."""
    marked = {folder: why for folder, why in sorted(scan.left_out.items()) if why != IGNORE_FILE}
    held: Counter[str] = Counter()
    for record in gone if marked else ():
        folder = record.relpath
        while folder and folder not in marked:
            folder = folder.rpartition("/")[0]
        held[folder] += folder in marked and record.item_id is not None
    for folder, why in marked.items():
        if why == LIBRARY and held[folder]:
            small = counted(held[folder], "small copy in it is", "small copies in it are")
            yield (
                f"{scan.root / folder} belongs to a clipsearch library: {small} not searched any "
                "more"
            )
        elif held[folder]:
            pictures = counted(held[folder], "picture is", "pictures are")
            yield (
                f"{scan.root / folder} is left out for the {why} in it: {pictures} not searched "
                f"any more. {_TAKE_IN}"
            )
    asked = [folder for folder, why in marked.items() if why in WISHES]
    if is_first and asked:
        others = f" (and {counted(len(asked) - 1, 'more folder')})" if len(asked) > 1 else ""
        yield f"Left out for a {marked[asked[0]]} in it: {scan.root / asked[0]}{others}. {_TAKE_IN}"


def _differs(file: FoundFile, record: FileRecord) -> bool:
    found = (file.size, file.mtime_ns, file.sidecars)
    if found != (record.size, record.mtime_ns, record.sidecars):
        return True
    # A repair removed its content from the library.
    return record.failure is None and record.item_id is None


def _gone(scan: Scan, present: Sequence[FileRecord]) -> list[FileRecord]:
    """Rows whose file is not there, unless it may still lie in a folder that cannot be listed."""
    found = {file.relpath for file in scan.files} | {entry.relpath for entry in scan.unreadable}
    unlisted = tuple(entry.relpath + "/" for entry in scan.unreadable)
    return [
        record
        for record in present
        if record.relpath not in found and not record.relpath.startswith(unlisted)
    ]
