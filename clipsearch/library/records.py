"""What the library hands out and takes in: plain frozen records, no database objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from clipsearch.vectors import EmbeddingSpace, Matrix

PICTURE, VIDEO, MOMENT = "picture", "video", "moment"  # what an item can be


@dataclass(frozen=True)
class RootRecord:
    """A folder that is indexed with everything below it."""

    id: int
    path: Path


class FileRecord(NamedTuple):  # not a dataclass: there may be 100,000, and this costs a third
    """One path below a root. It has an item or a failure, or both: read before, and not now."""

    id: int
    root_id: int
    relpath: str  # with forward slashes
    size: int  # bytes
    mtime_ns: int
    inode: int
    item_id: int | None
    missing_since: str | None  # ISO 8601, UTC
    failure: str | None
    sidecars: str = ""  # as in FileState


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
    """A picture, a video, or a moment of a video, as content: files with its hash are copies.

    A video has no vector of its own; its moments have, and are what is found.
    """

    id: int
    content_hash: str
    width: int
    height: int
    format: str
    bytes: int
    taken_at: str | None  # ISO 8601, with an offset if the camera wrote one
    metadata: dict[str, Any]
    kind: str = PICTURE
    parent_id: int | None = None  # of a moment: its video
    time_s: float | None = None  # of a moment: where in the video

    @property
    def is_dated_by_name(self) -> bool:
        """True if nothing but the name of a file told the day."""
        return bool(self.metadata.get("taken_from") == "name")


@dataclass(frozen=True)
class SpaceRecord:
    """An embedding space that the library holds vectors of, and what made them.

    No other has the same ``address`` (see ``model_names``). ``origin`` is the one that the model
    was taken from, which may hold another model by now.
    """

    id: str
    space: EmbeddingSpace
    address: str
    runtime: str
    precision: str
    embedded: int  # vectors
    active: bool  # searches use it
    origin: str


@dataclass(frozen=True)
class Counts:
    """How much a library holds."""

    items: int  # pictures and moments of videos with at least one file that is there
    files: int  # files that are there and known, also where they cannot be read now
    missing: int  # files that were there and are not now
    failures: int  # files that could not be read, sidecars among them
    embedded: int  # vectors in the active space
    videos: int = 0  # videos with at least one file that is there
    unread: int = 0  # of the failures: known from before, so that they are found all the same
    carried: int = 0  # files with another content than before that have what was said of it


@dataclass(frozen=True)
class Statistics:
    """Counts of what is there, the most frequent first; years and cameras may be "unknown"."""

    formats: dict[str, int]
    years: dict[str, int]
    cameras: dict[str, int]
    failures: dict[str, int]  # by kind of reason
    live_photos: int  # videos that are the moving half of a photo
    photo_bytes: int  # of the files themselves, copies counted once
    library_bytes: int  # the database
    index_bytes: int  # the search index, a cache
    thumbnail_bytes: int  # a cache


@dataclass(frozen=True)
class NewItem:
    """A picture, a video or a moment that the library does not hold yet.

    A moment comes after its video, and names it by ``parent_hash``.
    """

    content_hash: str
    width: int
    height: int
    format: str
    bytes: int
    taken_at: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    kind: str = PICTURE
    parent_hash: str | None = None
    time_s: float | None = None


@dataclass(frozen=True)
class Description:
    """What a photo's own metadata and its sidecars say in words; replaces what they said before.

    ``tags`` and ``captions`` are pairs of a text and where it stood, such as ("dog", "iptc").
    What a person wrote in clipsearch itself is never touched.
    """

    content_hash: str
    taken_at: str | None
    metadata: dict[str, Any]
    tags: tuple[tuple[str, str], ...] = ()
    captions: tuple[tuple[str, str], ...] = ()
    own: dict[str, Any] | None = None  # what the photo says itself, where its files have sidecars


@dataclass(frozen=True)
class SidecarState:
    """A sidecar as it was just read.

    ``failure`` says why it was not, or not as a whole: then what it said before stays.
    """

    name: str
    size: int  # bytes
    mtime_ns: int
    said: dict[str, Any]  # a record of clipsearch.uniting.SidecarSaying
    failure: str | None = None


@dataclass(frozen=True)
class FileState:
    """A file as it was just read: its content's hash, or why it could not be read.

    One that could not be read keeps the item that its path had. ``is_same`` says whether its
    picture is the one that the path had before, edited, as far as that was compared;
    ``moved_from`` is the row of the file that was renamed to it.
    """

    root_id: int
    relpath: str
    size: int
    mtime_ns: int
    inode: int
    content_hash: str | None
    failure: str | None = None
    sidecars: str = ""  # names, sizes and times of its sidecars, or "" if it has none
    beside: tuple[SidecarState, ...] | None = None  # most specific first; None: they were not read
    is_same: bool | None = None
    moved_from: int | None = None


@dataclass(frozen=True)
class Words:
    """What people and files say about an item: pairs of a text and where it stood."""

    tags: tuple[tuple[str, str], ...]
    captions: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Batch:
    """What one transaction writes. Vectors are named by content hash, known or new."""

    new_items: list[NewItem] = field(default_factory=list)
    vectors: tuple[str, list[str], Matrix] | None = None  # space id, content hashes, (n, dim)
    files: list[FileState] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)  # ids of files that are gone
    descriptions: list[Description] = field(default_factory=list)  # of known or new items
    inodes: dict[int, int] = field(default_factory=dict)  # file id: the number it has now
    leaving: frozenset[int] = frozenset()  # ids of files that this run will find missing
    last_known: int | None = None  # greatest id of an item before the run; None: before the batch


@dataclass(frozen=True)
class Carried:
    """A path whose content became another one, and what a person had said of it before.

    ``state`` is "carried": the new content has it; or "kept": it stays with the old one, which has
    no file now. ``is_same`` says whether both show the same picture, None if it is not known.
    """

    id: int
    path: Path
    from_item: int
    to_item: int
    carried_at: str  # ISO 8601, UTC
    is_same: bool | None
    state: str
    words: dict[str, int]  # how many of each kind: tags, captions, answers, thumbs ...


@dataclass(frozen=True)
class ForgetReport:
    """What was removed from the library; nothing was removed from the disk.

    ``kept_for`` are paths that were not named and wait, missing or unreadable, for what the library
    knows of the same contents: it stays for them.
    """

    files: int
    items: int
    kept_for: tuple[Path, ...] = ()


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
