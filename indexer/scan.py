"""What lies in a folder now: names, sizes and times of picture files, without opening one."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from clipsearch.config import DEFAULT_SIDECAR_TEXT
from clipsearch.images import EXTENSIONS, VIDEO_EXTENSIONS
from clipsearch.library import LIBRARY_CACHES, is_library
from indexer.ignore import (
    IGNORE_FILE,
    MARKERS,
    PACKAGE_ORIGINALS,
    SYSTEM_FOLDERS,
    Rules,
    is_left_out,
    is_package,
    marker_in,
    read_rules,
)
from indexer.sidecar_names import may_be_sidecar
from indexer.sidecar_stamps import FolderSidecars

LIBRARY = "of a clipsearch library"
_ENDINGS = EXTENSIONS | VIDEO_EXTENSIONS


class FoundFile(NamedTuple):  # a third of a dataclass's cost, and there may be 100,000
    """A picture file by its name; ``relpath`` has forward slashes and no leading one."""

    relpath: str
    size: int
    mtime_ns: int
    inode: int  # 0 where the system does not tell (Windows)
    sidecars: str = ""  # as ``sidecar_stamps`` writes them


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
    only: tuple[str, ...] | None = None  # what was looked at with all below it; None: everything
    top: frozenset[str] = frozenset()  # after a scan of ``only``: all names in the root itself
    skipped: tuple[str, ...] = ()  # links within ``only`` that only a whole scan follows
    empty: tuple[str, ...] = ()  # folders without any entry; "" is the root
    notes: tuple[str, ...] = ()  # for people: lines of ignore files that have no effect
    # Of what was met, what someone's wish or its being a library leaves out: by what.
    left_out: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Folder:
    path: str
    prefix: str  # of the relpaths in it: "" or "holiday/2019/"
    rules: Rules | None = None  # of the ignore files above it, and once opened of its own
    is_package: bool = False
    is_library: bool = False
    is_named: bool = False  # a line without wildcards takes it in: it was meant


@dataclass(frozen=True, slots=True)
class _Opened:
    folder: _Folder
    entries: list[os.DirEntry[str]]
    sidecars: FolderSidecars


def scan(
    root: Path, *, only: Sequence[str] | None = None, sidecar_text: str = DEFAULT_SIDECAR_TEXT
) -> Scan:
    """Walks a root and returns its picture files in the order of their relative paths.

    Hidden names, caches of other programs, clipsearch libraries, folders with a .nomedia or another
    marker and what .clipsearchignore names are left out. Links to files count as files; a link to a
    folder is followed once, after all real folders, and never to a folder that was already walked
    or that contains the root. What cannot be listed is in ``unreadable`` or ``absent``; an OSError
    is raised only where this process may open no more files.

    ``only`` are relative paths of files and folders: nothing but these and what lies below is
    looked at, and no link to a folder is followed. An ignore file or a sidecar stands for its
    folder. ``sidecar_text`` is what a .txt beside a picture holds, as in Settings.
    """
    wanted = None if only is None else _outermost(only)
    walk = _Walk(root, sidecar_text)
    try:
        top = walk.open_root()
    except OSError as error:
        _refuse_limits(error)
        return Scan(root, [], [], absent=_reason(error), only=wanted)
    names: frozenset[str] = frozenset()
    if wanted is None:
        walk.take_all(top)
        walk.run()
    else:
        names = frozenset(entry.name for entry in top.entries)
        walk.take_only(top, wanted)
    return Scan(
        root,
        files=sorted(walk.files),
        unreadable=sorted(walk.unreadable, key=lambda found: found.relpath),
        only=wanted,
        top=names,
        skipped=tuple(folder.prefix.rstrip("/") for folder in walk.linked),
        empty=tuple(walk.empty),
        notes=tuple(walk.notes),
        left_out=walk.left_out,
    )


def speaks_of_its_folder(name: str) -> bool:
    """True for the name of a file that decides whether what lies beside it is taken."""
    return name == IGNORE_FILE or name in MARKERS


def _outermost(only: Sequence[str]) -> tuple[str, ...] | None:
    """The paths without those below another one of them; None if the root is among them."""
    split = set()
    for path in only:
        parts = [part for part in path.split("/") if part not in ("", ".")]
        if parts and (speaks_of_its_folder(parts[-1]) or may_be_sidecar(parts[-1])):
            parts.pop()
        if not parts:
            return None
        if ".." not in parts:
            split.add(tuple(parts))
    kept: list[tuple[str, ...]] = []
    for path_parts in sorted(split):  # a folder comes right before what lies in it
        if not kept or path_parts[: len(kept[-1])] != kept[-1]:
            kept.append(path_parts)
    return tuple("/".join(parts) for parts in kept)


class _Walk:
    """The state of one scan."""

    def __init__(self, root: Path, sidecar_text: str) -> None:
        self._sidecar_text = sidecar_text
        self.files: list[FoundFile] = []
        self.unreadable: list[Unreadable] = []
        self.linked: list[_Folder] = []  # links to folders that were not followed (yet)
        self.empty: list[str] = []
        self.notes: list[str] = []
        self.left_out: dict[str, str] = {}
        self._root = root
        self._folders: list[_Folder] = []
        self._visited: set[tuple[int, int]] = set()
        # A link to one of these would drag in everything around the photos.
        self._around = set(_identities(root.resolve().parents))

    def open_root(self) -> _Opened:
        """Lists the root, whatever it is called; raises OSError when it cannot be."""
        name = self._root.name
        top = _Folder(str(self._root), "", is_package=is_package(name), is_named=True)
        opened = self._open(top)
        return opened if opened is not None else _Opened(top, [], FolderSidecars([]))

    def run(self) -> None:
        """Walks everything that waits, links last."""
        while self._folders or self.linked:
            # Real folders first: a link must not take the place of what it points to.
            if self._folders:
                folder = self._folders.pop()
            else:
                self.linked.sort(key=lambda linked: linked.prefix, reverse=True)
                folder = self.linked.pop()
            self._enter(folder)

    def take_only(self, top: _Opened, wanted: Sequence[str]) -> None:
        """Walks some paths; the folders above them are listed, but nothing else is taken."""
        opened: dict[str, _Opened | None] = {"": top}
        by_name: dict[str, dict[str, os.DirEntry[str]]] = {}
        for path in wanted:
            parts = path.split("/")
            for depth, name in enumerate(parts):
                above = opened["/".join(parts[:depth])]
                if above is None:
                    break  # gone, left out, or named among what cannot be listed
                prefix = above.folder.prefix
                if prefix not in by_name:
                    by_name[prefix] = {entry.name: entry for entry in above.entries}
                # By the listing: on macOS and Windows a name also opens what is spelled otherwise.
                entry = by_name[prefix].get(name)
                here = "/".join(parts[: depth + 1])
                if depth == len(parts) - 1:
                    if entry is not None:
                        self._take(entry, above)
                elif here not in opened:
                    opened[here] = self._step(entry, above)
        while self._folders:
            self._enter(self._folders.pop())

    def _step(self, entry: os.DirEntry[str] | None, above: _Opened) -> _Opened | None:
        """Opens a folder on the way to a wanted path, if the scan would walk it."""
        waiting = len(self._folders)
        if entry is not None:
            self._take(entry, above, folders_only=True)
        return self._try_to_open(self._folders.pop()) if len(self._folders) > waiting else None

    def _enter(self, folder: _Folder) -> None:
        opened = self._try_to_open(folder)
        if opened is not None:
            self.take_all(opened)

    def _try_to_open(self, folder: _Folder) -> _Opened | None:
        try:
            return self._open(folder)
        except FileNotFoundError:
            return None  # removed since its parent was listed, or a link to nothing
        except OSError as error:
            _refuse_limits(error)
            self.unreadable.append(Unreadable(folder.prefix.rstrip("/"), _reason(error)))
            return None

    def _open(self, folder: _Folder) -> _Opened | None:
        """Lists one folder unless it was listed before; raises OSError when it cannot be."""
        status = os.stat(folder.path)  # noqa: PTH116 - Path objects double the time of a scan
        identity = (status.st_dev, status.st_ino)
        if identity in self._visited or identity in self._around:
            return None
        with os.scandir(folder.path) as entries:
            listed = list(entries)
        self._visited.add(identity)
        if not listed:
            self.empty.append(folder.prefix.rstrip("/"))
        names = {entry.name for entry in listed}
        relpath = folder.prefix.rstrip("/")
        if is_library(folder.path, names):
            folder = replace(folder, is_library=True)
        marker = None if folder.is_named else marker_in(relpath.rpartition("/")[2], names)
        if marker is not None:
            self.left_out[relpath] = marker
            return None
        if IGNORE_FILE in names:
            folder = self._with_own_rules(folder)
        return _Opened(folder, listed, FolderSidecars(listed, self._sidecar_text))

    def _with_own_rules(self, folder: _Folder) -> _Folder:
        """An ignore file that cannot be read is as bad as a folder that cannot be listed.

        Without it, what someone wanted left out would enter the library.
        """
        path = os.path.join(folder.path, IGNORE_FILE)  # noqa: PTH118 - as above
        if not os.path.isfile(path):  # noqa: PTH113 - a folder or a pipe of that name
            return folder
        try:
            rules, notes = read_rules(path, folder.prefix, folder.rules)
        except FileNotFoundError:
            return folder
        except OSError as error:
            raise OSError(f"its {IGNORE_FILE} cannot be used: {_reason(error)}") from error
        self.notes += notes
        return replace(folder, rules=rules)

    def take_all(self, opened: _Opened) -> None:
        """Takes the files of a folder, and has its folders wait."""
        for entry in opened.entries:
            self._take(entry, opened)

    def _take(
        self, entry: os.DirEntry[str], opened: _Opened, *, folders_only: bool = False
    ) -> None:
        folder = opened.folder
        name = entry.name
        relpath = folder.prefix + name
        dot = name.rfind(".")
        try:
            if entry.is_dir(follow_symlinks=False):
                if not self._leaves_out(folder, name, is_folder=True):
                    self._folders.append(self._below(entry, folder))
            elif entry.is_symlink() and entry.is_dir():
                if not self._leaves_out(folder, name, is_folder=True):
                    self.linked.append(self._below(entry, folder))
            elif (
                dot >= 0
                and not folders_only
                and name[dot:].lower() in _ENDINGS
                and not self._leaves_out(folder, name, is_folder=False)
            ):
                self._take_file(entry, relpath, opened.sidecars)
        except FileNotFoundError:
            return
        except OSError as error:
            _refuse_limits(error)
            self.unreadable.append(Unreadable(relpath, _reason(error)))

    def _take_file(self, entry: os.DirEntry[str], relpath: str, sidecars: FolderSidecars) -> None:
        status = entry.stat()
        if not stat.S_ISREG(status.st_mode):
            return
        if not relpath.isascii() and not _is_text(relpath):
            readable = relpath.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            reason = "its name is not valid UTF-8: rename it"
            self.unreadable.append(Unreadable(readable, reason))
            return
        stamp = sidecars.stamp(entry.name)
        self.files.append(
            FoundFile(relpath, status.st_size, status.st_mtime_ns, status.st_ino, stamp)
        )

    def _below(self, entry: os.DirEntry[str], folder: _Folder) -> _Folder:
        relpath = folder.prefix + entry.name
        found = None
        if folder.rules is not None:
            found = folder.rules.find(relpath, entry.name, is_folder=True)
        return _Folder(
            entry.path,
            f"{relpath}/",
            folder.rules,
            is_package=is_package(entry.name),
            is_named=found is not None and found.is_plain,
        )

    def _leaves_out(self, folder: _Folder, name: str, *, is_folder: bool) -> bool:
        if folder.is_library and is_folder and name in LIBRARY_CACHES:
            self.left_out[folder.prefix + name] = LIBRARY
            return True
        if folder.rules is not None:
            found = folder.rules.find(folder.prefix + name, name, is_folder=is_folder)
            if found is not None and found.leaves_out:
                self.left_out[folder.prefix + name] = IGNORE_FILE
                return True
            if found is not None and found.is_plain:
                return False  # named on purpose, also if it is left out by default
        if folder.is_package:
            return not is_folder or name.lower() not in PACKAGE_ORIGINALS
        if not is_folder:
            return name.startswith(".")
        if folder.path == os.sep and name in SYSTEM_FOLDERS:
            return True
        return is_left_out(name)


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


def _refuse_limits(error: OSError) -> None:
    """Passes on what says nothing of the folder: this process may open no more files."""
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        raise error


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
