"""Which sidecars a picture has, and whether they are as they were: names, sizes and times."""

from __future__ import annotations

import os
from collections.abc import Iterable

from indexer.sidecars import SidecarNames

_SUFFIXES = (".xmp", ".txt", ".json")


def may_be_sidecar(name: str) -> bool:
    """True for a name that can only belong to a picture, never be one."""
    return name.lower().endswith(_SUFFIXES)


class FolderSidecars:
    """The sidecars of one folder, from its listing."""

    def __init__(self, entries: Iterable[os.DirEntry[str]]) -> None:
        # A stamp is text, a line each: a name that would break that is no sidecar.
        self._entries = {
            entry.name: entry
            for entry in entries
            if may_be_sidecar(entry.name) and entry.name.isprintable()
        }
        self._names = SidecarNames(self._entries)

    def stamp(self, picture_name: str) -> str:
        """A line for each sidecar of a picture, or "" if it has none."""
        if not self._entries:
            return ""
        lines = []
        for name in self._names.of(picture_name):
            try:
                status = self._entries[name].stat()
            except OSError:
                continue  # removed since the folder was listed
            lines.append(f"{status.st_size}:{status.st_mtime_ns}:{name}")
        return "\n".join(lines)


def stamped_names(stamp: str) -> list[str]:
    """The names of the sidecars in a stamp."""
    return [line.split(":", 2)[2] for line in stamp.split("\n") if line]
