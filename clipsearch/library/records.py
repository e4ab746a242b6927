"""What the library hands out and takes in: plain frozen records, no database objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipsearch.vectors import EmbeddingSpace, Matrix


@dataclass(frozen=True)
class RootRecord:
    """A folder that is indexed with everything below it."""

    id: int
    path: Path


@dataclass(frozen=True)
class FileRecord:
    """One path below a root. It has an item, or a failure, or had one and is missing."""

    id: int
    root_id: int
    relpath: str  # with forward slashes
    size: int  # bytes
    mtime_ns: int
    inode: int
    item_id: int | None
    missing_since: str | None  # ISO 8601, UTC
    failure: str | None


@dataclass(frozen=True)
class FailureRecord:
    """A file that could not be read, as it was when that was tried."""

    path: Path
    reason: str
    size: int
    mtime_ns: int
    when: str  # ISO 8601, UTC


@dataclass(frozen=True)
class ItemRecord:
    """A picture as content: all files with this hash are copies of it."""

    id: int
    content_hash: str
    width: int
    height: int
    format: str
    bytes: int
    taken_at: str | None  # ISO 8601, with an offset if the camera wrote one
    metadata: dict[str, Any]


@dataclass(frozen=True)
class SpaceRecord:
    """An embedding space that the library holds vectors of, and what made them."""

    id: str
    space: EmbeddingSpace
    address: str
    runtime: str
    precision: str
    embedded: int  # vectors
    active: bool  # searches use it


@dataclass(frozen=True)
class Counts:
    """How much a library holds."""

    items: int  # pictures with at least one file that is there
    files: int  # files that are there and readable
    missing: int  # files that were there and are not now
    failures: int  # files that could not be read
    embedded: int  # vectors in the active space


@dataclass(frozen=True)
class NewItem:
    """A picture that the library does not hold yet."""

    content_hash: str
    width: int
    height: int
    format: str
    bytes: int
    taken_at: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FileState:
    """A file as it was just read: its content's hash, or why it has none."""

    root_id: int
    relpath: str
    size: int
    mtime_ns: int
    inode: int
    content_hash: str | None
    failure: str | None = None


@dataclass(frozen=True)
class Batch:
    """What one transaction writes. Vectors are named by content hash, known or new."""

    new_items: list[NewItem] = field(default_factory=list)
    vectors: tuple[str, list[str], Matrix] | None = None  # space id, content hashes, (n, dim)
    files: list[FileState] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)  # ids of files that are gone


@dataclass(frozen=True)
class ForgetReport:
    """What was removed from the library; nothing was removed from the disk."""

    files: int
    items: int


@dataclass(frozen=True)
class Problem:
    """One thing that ``check`` found: ``where`` names the table and row, or the file."""

    what: str
    where: str
    repaired: bool = False


@dataclass(frozen=True)
class CheckReport:
    """Everything that ``check`` found."""

    problems: list[Problem]

    @property
    def ok(self) -> bool:
        """True if nothing is wrong, or everything that was wrong has been mended."""
        return all(problem.repaired for problem in self.problems)
