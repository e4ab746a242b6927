"""Albums outside the library: folders of links and playlists, made and kept current.

Nothing that we did not make is ever overwritten or removed, nor what was made of another album. A
folder's manifest names the links that are ours; one that was changed since is left alone. A
playlist of ours begins with our marks. Both say of which library's which album they are.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from clipsearch.config import Settings
from clipsearch.encoders import Encoder
from clipsearch.errors import ClipsearchError, NotInLibraryError, StorageError, UsageError
from clipsearch.hits import Answered, SearchHit
from clipsearch.library import LINKS, PLAYLIST, Album, Library
from clipsearch.searcher import Searcher
from clipsearch.user_paths import expand_user

MANIFEST = ".clipsearch-album.json"
_MARK = "# clipsearch album: "
_LIBRARY_MARK = "# clipsearch library: "
_PLAYLISTS = (".m3u8", ".txt")


@dataclass(frozen=True)
class Written:
    """What an export holds now, how much was changed for that, and what it could not hold."""

    destination: Path
    pictures: int
    added: int
    removed: int
    left_out: tuple[Path, ...] = ()


@dataclass(frozen=True)
class _Owner:
    """Whose an export is: the album of a library."""

    album: str
    library: str


def album_answer(searcher: Searcher, album: Album, top: int | None = None) -> Answered:
    """What the album's query finds now: all of it, or the first ``top``."""
    return searcher.answer(album.query, top=top)


def required_album(library: Library, name: str) -> Album:
    """The album of that name; NotInLibraryError if there is none."""
    album = library.albums.get(name)
    if album is None:
        raise NotInLibraryError(
            what=f"An album '{name}'",
            path=library.path,
            advice="List them: clipsearch albums list",
        )
    return album


def export_album(
    library: Library,
    searcher: Searcher,
    name: str,
    destination: Path,
    notify: Callable[[str], None] = lambda _: None,
) -> Written:
    """Writes an album to a folder of links, or to a playlist (.m3u8, .txt), and keeps it current.

    ``notify`` hears how the album's query was read, where it could have been read otherwise.
    UsageError for a place that holds what is not ours or another album, or that the library
    indexes, StorageError where it cannot be written.
    """
    album = required_album(library, name)
    destination = Path(os.path.abspath(expand_user(destination)))  # noqa: PTH100 - keeps links
    _refuse_other_albums(library, album, destination)
    form = PLAYLIST if destination.suffix.lower() in _PLAYLISTS else LINKS
    for root in library.roots() if form == LINKS else ():
        if destination.resolve().is_relative_to(root.path):
            raise UsageError(
                reason=f"{destination} is in {root.path}, which the library indexes: the links "
                "would be found as copies. Choose a folder elsewhere"
            )
    answered = album_answer(searcher, album)
    for note in answered.notes:
        notify(note)
    paths = _paths(answered.hits)
    written = _write(_owner(library, album), destination, form, paths)
    for path in written.left_out:
        notify(
            f"{str(path)!r} cannot stand in {destination}: its name has a line break, or another "
            "file there has it. Rename it, or export to another place"
        )
    library.albums.keep_current(name, destination, form)
    return written


def leave_export(library: Library, name: str, place: Path) -> Path:
    """Keeps an export of an album current no longer; returns where it was, which stays as it is.

    NotInLibraryError if the album is not exported there.
    """
    wanted = Path(os.path.abspath(expand_user(place)))  # noqa: PTH100 - keeps links
    for export in library.albums.exports():
        if export.album.name == name and (
            export.destination == wanted or _is_same_place(export.destination, wanted)
        ):
            library.albums.leave(export.destination)
            return export.destination
    raise NotInLibraryError(
        what=f"An export of '{name}' to {wanted}",
        path=library.path,
        advice="List them: clipsearch albums list",
    )


def _refuse_other_albums(library: Library, album: Album, destination: Path) -> None:
    """UsageError for a place where this library keeps another album current.

    By what the place is, so that a link to it or another spelling of its name is the same place.
    """
    for export in library.albums.exports():
        if export.album.name != album.name and (
            export.destination == destination or _is_same_place(export.destination, destination)
        ):
            leave = f"clipsearch albums leave '{export.album.name}' --to '{export.destination}'"
            raise _taken(destination, export.album.name, f"{leave} and then delete what is there")


def _is_same_place(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _taken(destination: Path, name: str, advice: str) -> UsageError:
    return UsageError(
        reason=f"{destination} holds the album '{name}': choose another place, or {advice}"
    )


def _owner(library: Library, album: Album) -> _Owner:
    return _Owner(" ".join(album.name.split()), str(library.path.resolve()))


def _refuse_other_owner(destination: Path, owner: _Owner, album: str, library: str | None) -> None:
    """UsageError where an export says that it is of another album, or of another library's.

    A library that is not where it was may be this one, which was moved.
    """
    if album != owner.album:
        raise _taken(destination, album, "delete what is there first")
    if library is not None and library != owner.library and Path(library).is_dir():
        raise UsageError(
            reason=f"{destination} holds the album '{album}' of another library, {library}: "
            "choose another place"
        )


def refresh_exports(
    library: Library,
    *,
    settings: Settings,
    encoder: Encoder | None = None,
    notify: Callable[[str], None] = lambda _: None,
) -> list[Written]:
    """Brings every export up to date; one that cannot be written is told and the next one done."""
    exports = library.albums.exports()
    if not exports:
        return []
    searcher = Searcher(library, settings=settings, encoder=encoder, notify=notify)
    done: list[Written] = []
    found: dict[str, list[Path]] = {}
    for export in exports:
        try:
            if export.album.name not in found:
                found[export.album.name] = _paths(album_answer(searcher, export.album).hits)
            paths = found[export.album.name]
            if not export.destination.parent.is_dir():
                continue  # a disk that is not there now
            owner = _owner(library, export.album)
            done.append(_write(owner, export.destination, export.form, paths))
        except ClipsearchError as error:
            notify(f"The album '{export.album.name}' could not be kept current: {error}")
    return done


def _paths(hits: Sequence[SearchHit]) -> list[Path]:
    return list(dict.fromkeys(hit.path for hit in hits))  # moments share their video


def _write(owner: _Owner, destination: Path, form: str, paths: list[Path]) -> Written:
    try:
        if form == PLAYLIST:
            return _write_playlist(owner, destination, paths)
        return _write_links(owner, destination, paths)
    except OSError as error:
        raise StorageError(
            path=destination, reason=error.strerror or error, advice="choose another place"
        ) from error


# --- playlists ------------------------------------------------------------------------------


def _write_playlist(owner: _Owner, destination: Path, paths: list[Path]) -> Written:
    lines = ["#EXTM3U"] if destination.suffix.lower() == ".m3u8" else []
    lines += [_MARK + owner.album, _LIBRARY_MARK + json.dumps(owner.library)]
    left_out = tuple(path for path in paths if "\n" in str(path) or "\r" in str(path))
    written = [str(path) for path in paths if path not in left_out]
    before = _lines_of(destination)
    if before is not None:
        albums, libraries = (
            [line.removeprefix(mark) for line in before[:3] if line.startswith(mark)]
            for mark in (_MARK, _LIBRARY_MARK)
        )
        if not albums:
            raise UsageError(reason=f"{destination} is there and was not made by clipsearch")
        library = None
        with suppress(ValueError):
            library = str(json.loads(libraries[0])) if libraries else None
        _refuse_other_owner(destination, owner, albums[0], library)
    if before != [*lines, *written]:
        _replace(destination, "".join(f"{line}\n" for line in [*lines, *written]))
    old = {line for line in before or () if not line.startswith("#")}
    added, removed = len(set(written) - old), len(old - set(written))
    return Written(destination, len(written), added, removed, left_out)


def _lines_of(path: Path) -> list[str] | None:
    """The lines of a file that may be a playlist of ours; None where there is nothing."""
    if not path.exists() and not path.is_symlink():
        return None
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").split("\n")[:-1]
    except (IsADirectoryError, UnicodeError):
        return []


def _replace(destination: Path, text: str) -> None:
    half = destination.with_name(f".{destination.name}.{os.getpid()}.part")
    try:
        half.write_text(text, encoding="utf-8", errors="surrogateescape")
        half.replace(destination)
    finally:
        half.unlink(missing_ok=True)


# --- folders of links -----------------------------------------------------------------------


def _write_links(owner: _Owner, folder: Path, paths: list[Path]) -> Written:
    ours = _manifest(folder, owner)
    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: target for name, target in ours.items() if _is_link_to(folder / name, target)}
    wanted = _named(paths, kept, folder)
    # Before anything is changed: after a crash every link of ours is known.
    _save_manifest(folder, owner, {**kept, **wanted})
    removed = 0
    for name, target in kept.items():
        if wanted.get(name) != target and _is_link_to(folder / name, target):
            (folder / name).unlink()
            removed += 1
    added = 0
    for name, target in wanted.items():
        if not _is_link_to(folder / name, target):
            with suppress(FileExistsError):  # somebody put a file of that name there just now
                (folder / name).symlink_to(target)
                added += 1
    _save_manifest(folder, owner, wanted)
    linked = set(wanted.values())
    left_out = tuple(path for path in paths if str(path) not in linked)
    return Written(folder, len(wanted), added, removed, left_out)


def _manifest(folder: Path, owner: _Owner) -> dict[str, str]:
    """The links of ours in a folder: name and target; UsageError if it is not the owner's."""
    try:
        said = json.loads((folder / MANIFEST).read_text(encoding="ascii"))
        links = said["links"]
        if all(Path(name).name == name for name in links):
            _refuse_other_owner(
                folder, owner, " ".join(str(said["album"]).split()), said.get("library")
            )
            return {str(name): str(target) for name, target in links.items()}
    except (FileNotFoundError, NotADirectoryError):
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return {}
    except (ValueError, KeyError, TypeError, AttributeError):
        pass  # damaged: what it named cannot be told from what is not ours
    raise UsageError(
        reason=f"{folder} is there and no album that clipsearch made: name a new or empty folder"
    )


def _save_manifest(folder: Path, owner: _Owner, links: dict[str, str]) -> None:
    said = {
        "about": "Made by clipsearch albums, which removes and adds only the links named here.",
        "album": owner.album,
        "library": owner.library,
        "links": links,
    }
    _replace(folder / MANIFEST, json.dumps(said, indent=1))


def _is_link_to(path: Path, target: str) -> bool:
    try:
        return str(path.readlink()) == target
    except OSError:
        return False


def _named(paths: list[Path], kept: dict[str, str], folder: Path) -> dict[str, str]:
    """A name for each path: the one it has, else its own, with a print where that is taken."""
    has = {target: name for name, target in kept.items()}
    named: dict[str, str] = {}
    for path in paths:
        target = str(path)
        name = has.get(target, path.name)
        if target not in has and (name in named or name in kept or os.path.lexists(folder / name)):
            mark = hashlib.sha256(os.fsencode(target)).hexdigest()[:8]
            name = f"{path.stem} {mark}{path.suffix}"
            if os.path.lexists(folder / name):
                continue  # it is somebody else's
        named[name] = target
    return named
