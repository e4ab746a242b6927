"""Albums outside the library: folders of links and playlists, made and kept current.

Nothing that we did not make is ever overwritten or removed. A folder's manifest names the links
that are ours; one that was changed since is left alone. A playlist of ours begins with our mark.
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
from clipsearch.hits import SearchHit
from clipsearch.library import LINKS, PLAYLIST, Album, Library
from clipsearch.searcher import MAX_TOP, Searcher
from clipsearch.user_paths import expand_user

MANIFEST = ".clipsearch-album.json"
_MARK = "# clipsearch album: "
_PLAYLISTS = (".m3u8", ".txt")


@dataclass(frozen=True)
class Written:
    """What an export holds now, and how much was changed for that."""

    destination: Path
    pictures: int
    added: int
    removed: int


def album_hits(searcher: Searcher, album: Album, top: int = MAX_TOP) -> list[SearchHit]:
    """What the album's query finds now."""
    return searcher.search(album.query, top=top)


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


def export_album(library: Library, searcher: Searcher, name: str, destination: Path) -> Written:
    """Writes an album to a folder of links, or to a playlist (.m3u8, .txt), and keeps it current.

    UsageError for a place that holds what is not ours or that the library indexes, StorageError
    where it cannot be written.
    """
    album = required_album(library, name)
    destination = Path(os.path.abspath(expand_user(destination)))  # noqa: PTH100 - keeps links
    form = PLAYLIST if destination.suffix.lower() in _PLAYLISTS else LINKS
    for root in library.roots() if form == LINKS else ():
        if destination.resolve().is_relative_to(root.path):
            raise UsageError(
                reason=f"{destination} is in {root.path}, which the library indexes: the links "
                "would be found as copies. Choose a folder elsewhere"
            )
    paths = _paths(album_hits(searcher, album))
    written = _write(album, destination, form, paths)
    library.albums.keep_current(name, destination, form)
    return written


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
                found[export.album.name] = _paths(album_hits(searcher, export.album))
            paths = found[export.album.name]
            if not export.destination.parent.is_dir():
                continue  # a disk that is not there now
            done.append(_write(export.album, export.destination, export.form, paths))
        except ClipsearchError as error:
            notify(f"The album '{export.album.name}' could not be kept current: {error}")
    return done


def _paths(hits: Sequence[SearchHit]) -> list[Path]:
    return list(dict.fromkeys(hit.path for hit in hits))  # moments share their video


def _write(album: Album, destination: Path, form: str, paths: list[Path]) -> Written:
    try:
        if form == PLAYLIST:
            return _write_playlist(album, destination, paths)
        return _write_links(album, destination, paths)
    except OSError as error:
        raise StorageError(
            path=destination, reason=error.strerror or error, advice="choose another place"
        ) from error


# --- playlists ------------------------------------------------------------------------------


def _write_playlist(album: Album, destination: Path, paths: list[Path]) -> Written:
    lines = ["#EXTM3U"] if destination.suffix.lower() == ".m3u8" else []
    lines.append(_MARK + " ".join(album.name.split()))
    written = [str(path) for path in paths if "\n" not in str(path) and "\r" not in str(path)]
    before = _lines_of(destination)
    if before is not None and not any(line.startswith(_MARK) for line in before[:2]):
        raise UsageError(reason=f"{destination} is there and was not made by clipsearch")
    if before != [*lines, *written]:
        _replace(destination, "".join(f"{line}\n" for line in [*lines, *written]))
    old = {line for line in before or () if not line.startswith("#")}
    return Written(destination, len(written), len(set(written) - old), len(old - set(written)))


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


def _write_links(album: Album, folder: Path, paths: list[Path]) -> Written:
    ours = _manifest(folder)
    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: target for name, target in ours.items() if _is_link_to(folder / name, target)}
    wanted = _named(paths, kept, folder)
    # Before anything is changed: after a crash every link of ours is known.
    _save_manifest(folder, album, {**kept, **wanted})
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
    _save_manifest(folder, album, wanted)
    return Written(folder, len(wanted), added, removed)


def _manifest(folder: Path) -> dict[str, str]:
    """The links of ours in a folder: name and target; UsageError if the folder is not ours."""
    try:
        said = json.loads((folder / MANIFEST).read_text(encoding="ascii"))
        links = said["links"]
        if all(Path(name).name == name for name in links):
            return {str(name): str(target) for name, target in links.items()}
    except (FileNotFoundError, NotADirectoryError):
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return {}
    except (ValueError, KeyError, TypeError, AttributeError):
        pass  # damaged: what it named cannot be told from what is not ours
    raise UsageError(
        reason=f"{folder} is there and no album that clipsearch made: name a new or empty folder"
    )


def _save_manifest(folder: Path, album: Album, links: dict[str, str]) -> None:
    said = {
        "about": "Made by clipsearch albums, which removes and adds only the links named here.",
        "album": album.name,
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
