"""What lies in a folder now: names, sizes and times of picture files, without opening one."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from clipsearch.images import EXTENSIONS

_JUNK_FOLDERS = frozenset(  # compared in lower case
    (
        "@eadir",  # Synology's thumbnails
        "#recycle",
        "__macosx",  # resource forks in unpacked archives
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "thumbs.db",
    )
)
_JUNK_ENDINGS = (
    ".lrdata",  # Lightroom's previews
    ".cocatalogdb",  # Capture One's
    ".clipsearch",  # a library's own thumbnails
)


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A picture file by its name; ``relpath`` has forward slashes and no leading one."""

    relpath: str
    size: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A folder that could not be listed or a file that cannot be named, and why."""

    relpath: str
    reason: str


@dataclass(frozen=True)
class Scan:
    """One look at a root. ``absent`` says why the root itself could not be listed, if so."""

    root: Path
    files: list[FoundFile]  # by relpath
    unreadable: list[Unreadable]  # by relpath
    absent: str | None = None


@dataclass(frozen=True, slots=True)
class _Folder:
    path: str
    prefix: str  # of the relpaths in it: "" or "holiday/2019/"


def scan(root: Path) -> Scan:
    """Walks a root and returns its picture files in the order of their relative paths.

    Hidden names, caches of other programs and clipsearch libraries are left out. Links to files
    count as files; a link to a folder is followed once, after all real folders, and never to a
    folder that was already walked or that contains the root. Nothing is raised: what cannot be
    listed is in ``unreadable`` or ``absent``.
    """
    walk = _Walk(root)
    try:
        walk.enter(_Folder(str(root), ""))
    except OSError as error:
        return Scan(root, [], [], absent=_reason(error))
    walk.run()
    return Scan(
        root,
        files=sorted(walk.files, key=lambda file: file.relpath),
        unreadable=sorted(walk.unreadable, key=lambda found: found.relpath),
    )


class _Walk:
    """The state of one scan."""

    def __init__(self, root: Path) -> None:
        self.files: list[FoundFile] = []
        self.unreadable: list[Unreadable] = []
        self._folders: list[_Folder] = []
        self._linked: list[_Folder] = []
        self._visited: set[tuple[int, int]] = set()
        # A link to one of these would drag in everything around the photos.
        self._around = set(_identities(root.resolve().parents))

    def run(self) -> None:
        while self._folders or self._linked:
            # Real folders first: a link must not take the place of what it points to.
            if self._folders:
                folder = self._folders.pop()
            else:
                self._linked.sort(key=lambda linked: linked.prefix, reverse=True)
                folder = self._linked.pop()
            try:
                self.enter(folder)
            except FileNotFoundError:
                continue  # removed since its parent was listed, or a link to nothing
            except OSError as error:
                self.unreadable.append(Unreadable(folder.prefix.rstrip("/"), _reason(error)))

    def enter(self, folder: _Folder) -> None:
        """Lists one folder unless it was listed before; raises OSError when it cannot be."""
        status = os.stat(folder.path)  # noqa: PTH116 - Path objects double the time of a scan
        identity = (status.st_dev, status.st_ino)
        if identity in self._visited or identity in self._around:
            return
        with os.scandir(folder.path) as entries:
            listed = list(entries)
        self._visited.add(identity)
        for entry in listed:
            self._take(entry, folder.prefix + entry.name)

    def _take(self, entry: os.DirEntry[str], relpath: str) -> None:
        if _is_junk(entry.name):
            return
        try:
            if entry.is_dir(follow_symlinks=False):
                self._folders.append(_Folder(entry.path, relpath + "/"))
            elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS:  # noqa: PTH122 - as above
                self._take_file(entry, relpath)
            elif entry.is_symlink() and entry.is_dir():
                self._linked.append(_Folder(entry.path, relpath + "/"))
        except FileNotFoundError:
            return
        except OSError as error:
            self.unreadable.append(Unreadable(relpath, _reason(error)))

    def _take_file(self, entry: os.DirEntry[str], relpath: str) -> None:
        status = entry.stat()
        if stat.S_ISDIR(status.st_mode):  # a link named like a picture
            self._linked.append(_Folder(entry.path, relpath + "/"))
        elif stat.S_ISREG(status.st_mode):
            if not _is_text(relpath):
                readable = relpath.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
                reason = "its name is not valid UTF-8: rename it"
                self.unreadable.append(Unreadable(readable, reason))
                return
            self.files.append(FoundFile(relpath, status.st_size, status.st_mtime_ns, status.st_ino))


def _is_junk(name: str) -> bool:
    if name.startswith("."):
        return True
    lower = name.lower()
    return lower in _JUNK_FOLDERS or lower.endswith(_JUNK_ENDINGS)


def _is_text(name: str) -> bool:
    """False for the surrogates with which Python stands in for undecodable bytes."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _identities(folders: Iterable[Path]) -> Iterator[tuple[int, int]]:
    for folder in folders:
        try:
            status = folder.stat()
        except OSError:
            continue
        yield status.st_dev, status.st_ino


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
