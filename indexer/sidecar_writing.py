"""Tags out to XMP sidecars, on request only, and back again: the pictures stay as they are.

Before a sidecar is written, the library keeps what it was and what it is going to be, so that
undo gives back exactly those bytes, and knows when somebody else has changed the file since.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import xxhash

from clipsearch.errors import SidecarError, UsageError
from clipsearch.hashing import hash_file
from clipsearch.library import Library, LibraryWriter
from clipsearch.library.tags import KnownFile
from clipsearch.tagging.vocabulary import BUILT_IN, Vocabulary, everyday, parse_vocabulary
from indexer.sidecar_names import FULL, STEM, SidecarNames, folded
from indexer.sidecars import MAX_SIDECAR_BYTES, speaks_of
from indexer.xmp_text import UneditableError
from indexer.xmp_writing import Tags, with_tags

_BLOCK = 500  # items whose tags are looked up at once


@dataclass(frozen=True)
class SidecarChange:
    """What happened to one sidecar, or would: "written", "restored", "removed", or "refused"."""

    path: Path
    done: str
    reason: str = ""


def write_sidecars(
    library: Library,
    items: Sequence[int] | None = None,
    *,
    naming: str = FULL,
    dry_run: bool = False,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Iterator[SidecarChange]:
    """Writes the tags of items, by default of all that were tagged here, beside their files.

    ``naming`` is of new ones: FULL is photo.jpg.xmp as digiKam and darktable have it, STEM
    photo.xmp as Lightroom. Written are the owner's tags and the model's, these also as paths of
    their hierarchy. A sidecar that is there is extended, under either name; what stands in it stays
    byte for byte. Files that say all of it already are not touched and not told. Nothing is changed
    in a dry run.
    """
    if naming not in (FULL, STEM):
        raise UsageError(reason=f"A sidecar's name is '{FULL}' or '{STEM}', not '{naming}'")
    wanted = library.tags.tagged_items() if items is None else list(items)
    paths = _paths_of_concepts(library)
    with contextlib.nullcontext() if dry_run else library.writer() as writer:
        for start in range(0, len(wanted), _BLOCK):
            progress(start, len(wanted))
            part = wanted[start : start + _BLOCK]
            tags = _tags_of(library, part, paths)
            for item, files in library.tags.files_of(part).items():
                for file in files:
                    change = _write(writer, file, tags.get(item, Tags()), naming)
                    if change is not None:
                        yield change
        progress(len(wanted), len(wanted))


def undo_sidecars(library: Library, *, dry_run: bool = False) -> Iterator[SidecarChange]:
    """Gives every sidecar that was written back the bytes that it had, or removes it if it was new.

    One that was changed since, by any program, is refused by name and stays.
    """
    with contextlib.nullcontext() if dry_run else library.writer() as writer:
        for known in library.tags.written_sidecars():
            try:
                now = _read(known.path)
            except (UneditableError, OSError) as error:
                yield SidecarChange(known.path, "refused", str(error))
                continue
            if now == known.before:  # the writing never came to its end, or somebody undid it
                if writer is not None:
                    writer.tags.forget_sidecar(known.path)
                continue
            if now is None or _hash(now) != known.after_hash:
                what = "it is gone" if now is None else "it was changed since clipsearch wrote it"
                yield SidecarChange(known.path, "refused", what)
                continue
            if writer is not None:
                if known.before is None:
                    _remove(known.path)
                else:
                    _replace(known.path, known.before)
                writer.tags.forget_sidecar(known.path)
            yield SidecarChange(known.path, "removed" if known.before is None else "restored")


def sidecar_of(file: Path, naming: str = FULL) -> Path:
    """Which sidecar tags of a file go to: one that is there, else one named as asked for.

    One that is there is taken only if it speaks of this file and of no other. ``photo.xmp`` is
    given to a file only if no other file beside it is called photo, too: it would speak of both.
    """
    names = {entry.name for entry in os.scandir(file.parent) if not entry.is_dir()}
    folder = SidecarNames(names)
    for name, role in folder.beside(file.name):
        path = file.with_name(name)
        if not name.lower().endswith(".xmp"):
            continue
        if role == FULL or (
            role == STEM and not folder.is_shared(file.name) and speaks_of(_begin(path), file.name)
        ):
            return path
    stem = f"{file.stem}.xmp"
    is_free = folded(stem) not in map(folded, names) and not folder.is_shared(file.name)
    return file.with_name(stem if naming == STEM and is_free else f"{file.name}.xmp")


def _require_same(file: KnownFile) -> None:
    """UneditableError if a file holds another picture than the one that has the tags."""
    status = file.path.stat()
    if (status.st_size, status.st_mtime_ns) == (file.size, file.mtime_ns):
        return
    if hash_file(file.path) != file.content_hash:
        if file.size < 0:
            raise UneditableError("the photo could not be read: clipsearch info --failures")
        raise UneditableError("the photo has changed since: run clipsearch index, then write again")


def _place_of(file: Path, naming: str) -> Path:
    """The sidecar of a file, links followed; UneditableError if that leads to another photo's."""
    path = sidecar_of(file, naming)
    here = path.parent.resolve() / path.name
    if path.name not in os.listdir(path.parent) and os.path.lexists(path):  # noqa: PTH208
        # A disk that heeds no case: the name is taken by a sidecar that another photo bears.
        raise UneditableError("on this disk its sidecar would be that of another photo")
    if not path.is_symlink():
        return here
    there, original = path.resolve(), file.resolve()
    if there.parent != original.parent or sidecar_of(original, naming) != there:
        raise UneditableError(f"it is a link to {there}, which is not beside this photo")
    return there


def _write(
    writer: LibraryWriter | None, file: KnownFile, tags: Tags, naming: str
) -> SidecarChange | None:
    path = file.path
    try:
        _require_same(file)
        path = _place_of(file.path, naming)
        before = _read(path)
        if before is None and not tags.own and not tags.model:
            return None
        if before is not None and len(before) > MAX_SIDECAR_BYTES:
            raise UneditableError(f"it is larger than {MAX_SIDECAR_BYTES:,} bytes")
        after = with_tags(before, tags)
    except UneditableError as error:
        return SidecarChange(path, "refused", str(error))
    except OSError as error:
        return SidecarChange(file.path, "refused", error.strerror or str(error))
    if after == before:
        return None
    if writer is not None:
        kept, first = _earlier(writer, path, before)
        writer.tags.remember_sidecar(path, first if kept else before, _hash(after))
        try:
            _replace(path, after)
        except SidecarError as error:
            return SidecarChange(path, "refused", str(error.fields["reason"]))
    return SidecarChange(path, "written")


def _earlier(writer: LibraryWriter, path: Path, now: bytes | None) -> tuple[bool, bytes | None]:
    """Whether the file is as we left it, and what it was before we first wrote it."""
    known = writer.tags.remembered_sidecar(path)
    if known is None or now is None or _hash(now) != known.after_hash:
        return False, None
    return True, known.before


def _tags_of(
    library: Library, items: Sequence[int], paths: dict[str, dict[str, str]]
) -> dict[int, Tags]:
    """The tags of pictures and videos; a video has those of its moments as well."""
    moments = library.tags.moments_of(items)
    owner = {moment: video for video, below in moments.items() for moment in below}
    own: dict[int, list[str]] = {}
    model: dict[int, list[str]] = {}
    for given in library.tags.of_items([*items, *owner]):
        item = owner.get(given.item, given.item)
        if given.source == "user":
            own.setdefault(item, []).append(given.name)
        else:
            model.setdefault(item, []).append(given.name)
            path = paths.get(given.origin, {}).get(given.name)
            if path is not None:
                model[item].append(path)
    return {
        item: Tags(_unique(own.get(item, ())), _deepest(_unique(model.get(item, ()))))
        for item in {*own, *model}
    }


def _unique(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _deepest(names: Sequence[str]) -> list[str]:
    """Names, and of their paths those that no other one goes on from."""
    return [
        name
        for name in names
        if "|" not in name or not any(other.startswith(f"{name}|") for other in names)
    ]


def _paths_of_concepts(library: Library) -> dict[str, dict[str, str]]:
    """By vocabulary, the hierarchical keyword of each concept that is below another."""
    found: dict[str, dict[str, str]] = {}
    for name in library.tags.vocabularies():
        state = library.tags.state(name) or {}
        words: Vocabulary = (
            everyday()
            if name == BUILT_IN
            else parse_vocabulary(state["text"], name=name, path=Path(name))
        )
        found[name] = {
            concept.name: "|".join(concept.path)
            for concept in words.concepts
            if len(concept.path) > 1
        }
    return found


def _read(path: Path) -> bytes | None:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would wait for ever
            raise UneditableError("it is no regular file")
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _begin(path: Path) -> bytes:
    """As much of a sidecar as would be read of it."""
    with path.open("rb") as file:
        return file.read(MAX_SIDECAR_BYTES)


def _replace(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all; its mode stays."""
    half = path.with_name(f".{path.name}.clipsearch-part")
    try:
        with half.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(FileNotFoundError):
            half.chmod(path.stat().st_mode & 0o7777)
        half.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            half.unlink(missing_ok=True)
        raise _failed(path, error) from error


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _failed(path, error) from error


def _failed(path: Path, error: OSError) -> SidecarError:
    return SidecarError(
        path=path, reason=error.strerror or str(error), advice="Check the folder's permissions."
    )


def _hash(content: bytes) -> str:
    return str(xxhash.xxh3_128_hexdigest(content))
