"""Which paths a script may be given: of copies that hold nothing of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from clipsearch.duplicates import ALIKE, BURST, DuplicateGroup
from clipsearch.hashing import hash_file
from clipsearch.library import Library


def disposable(library: Library, groups: Sequence[DuplicateGroup]) -> tuple[list[Path], list[str]]:
    """The paths of all but the best of each group, and notes on those that are left out.

    Left out are copies that have what the best lacks, and everything of a group whose best file is
    not there as it was indexed: its copies may be all there is. So is what has changed since.
    """
    indexed = _Indexed(library)
    paths: dict[Path, None] = {}  # a copy of a worse version is in two groups
    left: Counter[str] = Counter()
    example: dict[str, Path] = {}

    def leave(reason: str, some: Iterable[Path]) -> None:
        for path in some:
            example.setdefault(reason, path)
            left[reason] += 1

    for group in groups:
        kept = group.best.paths
        if not any(indexed.is_as_it_was(path, group.best.item) for path in kept[:1] or kept):
            every = [path for shot in group.others for path in shot.paths]
            leave("the file to keep is not there as it was indexed", every)
            continue
        for shot in group.others:
            if shot.only_here and group.tier not in (BURST, ALIKE):
                leave(f"they have what the best lacks, such as {shot.only_here[0]}", shot.paths)
                continue
            for path in shot.paths:
                if indexed.is_as_it_was(path, shot.item):
                    paths[path] = None
                else:
                    leave("they are gone or have changed since they were indexed", [path])
    notes = [
        f"Not among the paths: {count:,}, because {reason} ({example[reason]})"
        for reason, count in left.items()
    ]
    return list(paths), notes


class _Indexed:
    """Whether files are what the library says; hashes those whose time has changed."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._files = {
            root.path / file.relpath: (file.size, file.mtime_ns)
            for root in library.roots()
            for file in library.files(root.id)
            if file.failure is None  # else these are of what could not be read there
        }

    def is_as_it_was(self, path: Path, item: int) -> bool:
        try:
            status = path.stat()
            size, mtime_ns = self._files.get(path, (-1, -1))
            if status.st_size != size:
                return False
            return status.st_mtime_ns == mtime_ns or hash_file(path) == self._hash(item)
        except OSError:
            return False

    def _hash(self, item: int) -> str:
        record = self._library.items([item])[item]
        if record.parent_id is not None:
            record = self._library.items([record.parent_id])[record.parent_id]
        return record.content_hash
