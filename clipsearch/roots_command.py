"""The command roots: which folders a library has, and where a moved one lies now."""

from __future__ import annotations

import os
import stat
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from clipsearch import errors
from clipsearch.command import (
    Command,
    add_json_argument,
    add_library_argument,
    print_json,
    say,
    show,
)
from clipsearch.config import resolve
from clipsearch.counting import counted
from clipsearch.errors import LibraryError, UsageError
from clipsearch.library import FileRecord, Library, RootRecord
from clipsearch.library.paths import spellings
from clipsearch.user_paths import expand_user

_SAMPLE = 200  # files looked for in the new place
_ENOUGH = 0.8  # of them have to be there: the others may have been removed since


@dataclass(frozen=True)
class RootSummary:
    """A folder of the library; ``unreachable`` says why it cannot be listed now, if so."""

    path: Path
    pictures: int  # files that are there and readable
    missing: int  # files that were there and are not now
    failures: int  # files that could not be read
    reachable: bool
    unreachable: str | None


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=["list", "move", "add", "remove"])
    parser.add_argument("old", nargs="?", type=Path, metavar="OLD", help="with move: a folder")
    parser.add_argument("new", nargs="?", type=Path, metavar="NEW", help="where it lies now")
    parser.add_argument(
        "--force", action="store_true", help="move even if few of its files are at NEW"
    )
    add_json_argument(parser)
    add_library_argument(parser)
    parser.epilog = (
        "roots move OLD NEW is for a folder that was moved or a disk that is mounted elsewhere:\n"
        "nothing is read or embedded again, and tags stay. No file on the disk is touched.\n"
        "If NEW was indexed already, the two become one folder.\n"
        "To add a folder: clipsearch index FOLDER. To remove one: clipsearch forget FOLDER."
    )


def _run(arguments: Namespace) -> int:
    # Taken as words to say what to type instead.
    if arguments.action == "add":
        raise UsageError(reason=f"To add a folder: clipsearch index {arguments.old or 'FOLDER'}")
    if arguments.action == "remove":
        named = arguments.old or "FOLDER"
        raise UsageError(reason=f"To remove a folder from the library: clipsearch forget {named}")
    if arguments.action == "move":
        if arguments.old is None or arguments.new is None:
            raise UsageError(reason="Name both places: clipsearch roots move OLD NEW")
    elif arguments.old is not None:
        raise UsageError(reason=f"list takes no folder, but {arguments.old} was given")
    with Library.open(resolve(vars(arguments)).library) as library:
        if arguments.action == "move":
            return _move(library, arguments)
        return _list(library, as_json=arguments.json)


def _list(library: Library, *, as_json: bool) -> int:
    summaries = [_summary(library, root) for root in library.roots()]
    for found in summaries:
        if as_json:
            print_json(asdict(found))
            continue
        line = f"{found.path}  {counted(found.pictures, 'picture')}"
        if found.missing:
            line += f", {found.missing:,} missing"
        if found.failures:
            line += f", {found.failures:,} not readable"
        if not found.reachable:
            line += f"  NOT REACHABLE: {found.unreachable}"
        show(line)
    if not summaries:
        say("The library has no folders yet. Add one: clipsearch index FOLDER")
    elif not as_json and not all(found.reachable for found in summaries):
        say("If a folder lies elsewhere now: clipsearch roots move OLD NEW")
    return errors.DONE


def _summary(library: Library, root: RootRecord) -> RootSummary:
    files = library.files(root.id)
    present = [file for file in files if file.missing_since is None]
    failures = sum(file.failure is not None for file in present)
    why = _why_unreachable(root.path)
    return RootSummary(
        path=root.path,
        pictures=sum(file.item_id is not None for file in present),
        missing=len(files) - len(present),
        failures=failures,
        reachable=why is None,
        unreachable=why,
    )


def _why_unreachable(folder: Path) -> str | None:
    try:
        with os.scandir(folder):
            return None
    except OSError as error:
        return error.strerror or str(error)


def _move(library: Library, arguments: Namespace) -> int:
    old, new = expand_user(arguments.old), expand_user(arguments.new)
    why = _why_unreachable(new)
    if why is not None:
        raise LibraryError(reason=f"{new} cannot be listed ({why}), so nothing was moved there")
    with library.writer() as writer:
        wanted = spellings(old)
        root = next((root for root in library.roots() if root.path in wanted), None)
        held = [] if root is None else _held(library, root)
        found, looked_for = _find_sample(held, new)
        if found < _ENOUGH * looked_for and not arguments.force:
            raise LibraryError(
                reason=f"Of {counted(looked_for, 'file')} that {old} held, {found:,} of the same "
                f"size {'lies' if found == 1 else 'lie'} at {new}, so nothing was changed. Name "
                "the folder that holds them now; or, if it is the right one: clipsearch roots "
                "move OLD NEW --force"
            )
        before = len(library.roots())
        moved = writer.move_root(old, new, force=arguments.force)
        merged = len(library.roots()) < before
    if arguments.json:
        said = {"old": old, "new": moved.path, "files": len(held), "found": found}
        print_json({**said, "merged": merged})
    else:
        show(f"{old} is now {moved.path} ({counted(len(held), 'file')})")
        if merged:
            say("Both were folders of the library and are one now; each file is known once")
        say("Look for what changed there since: clipsearch index")
    return errors.DONE


def _held(library: Library, root: RootRecord) -> list[FileRecord]:
    """The files that are to be found again; all that were ever there if it was unplugged."""
    files = [file for file in library.files(root.id) if file.item_id is not None]
    return [file for file in files if file.missing_since is None] or files


def _find_sample(files: Sequence[FileRecord], folder: Path) -> tuple[int, int]:
    """How many of some files, spread evenly, lie in a folder with their size; and of how many."""
    count = min(_SAMPLE, len(files))
    sample = [files[number * len(files) // count] for number in range(count)]
    return sum(_has_size(folder / file.relpath, file.size) for file in sample), count


def _has_size(path: Path, size: int) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == size


roots = Command(_configure, _run)
