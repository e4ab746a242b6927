"""What a scan leaves out: other programs' caches by default, and what .clipsearchignore says.

The file has the syntax of .gitignore (git-scm.com/docs/gitignore), and a test holds it against git
itself. Patterns are matched here and not through the pathspec package, whose regular expressions
backtrack: ``*a*a*a*a*a*b`` took 10 s there for one name of 120 letters, and a folder of photos
from someone else may hold such a line.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass

from clipsearch.counting import counted
from clipsearch.globbing import Part, compile_name, match_parts

IGNORE_FILE = ".clipsearchignore"
MAX_IGNORE_BYTES = 256 * 1024
_NAMED_LINES = 3  # of the lines that are no pattern, so many are told

# --- left out by default --------------------------------------------------------------------

# Hidden names (a leading dot) go first of all. That covers ._NAME (macOS resource forks),
# .thumbnails, .@__thumb (QNAP), .picasaoriginals (the pictures that Picasa's edits replaced),
# .photoprism, .comments (gThumb), .dtrash (digiKam), .Trash-1000, .trashed-NAME (Android).
# Thumbs.db and the thumbnail databases of digiKam and Windows are no pictures by their names.

LEFT_OUT_NAMES = frozenset(  # folders, compared in lower case
    (
        "@eadir",  # Synology: thumbnails
        "#recycle",  # Synology: deleted files
        "@recycle",  # QNAP: deleted files
        "#snapshot",  # Synology: older states of every file
        "~snapshot",  # NetApp: the same
        "$recycle.bin",  # Windows: deleted files
        "system volume information",  # Windows: restore points
        "__macosx",  # macOS: resource forks in unpacked archives
        "lost+found",  # Linux: what fsck found
        "files_trashbin",  # Nextcloud: deleted files
        "files_versions",  # Nextcloud: older states of every file
        "node_modules",  # npm: the pictures of programs
    )
)
LEFT_OUT_STARTS = ("appdata_oc",)  # Nextcloud: previews, in appdata_ and the id of the server
LEFT_OUT_ENDINGS = (
    ".lrdata",  # Lightroom: previews, smart previews
    ".lrcat-data",  # Lightroom: masks and other working data
    ".clipsearch",  # a library of our own: thumbnails
)
# Markers by which people ask that pictures, videos and folders in a folder are shown nowhere: of
# Android, Nextcloud and Kodi, of Nextcloud Photos, of Nextcloud Memories. Those that only spare
# another program's search work (.metadata_never_index, .trackerignore) say nothing of that kind.
WISHES = (".nomedia", ".noimage", ".nomemories")
# Folders that say of themselves what they are: the marker in them -> the names that count, or all.
MARKERS: dict[str, frozenset[str] | None] = {
    ".immich": frozenset(("thumbs", "encoded-video")),  # Immich puts one in its originals, too
    ".ppstorage": None,  # PhotoPrism: its storage folder with cache and sidecars
    "CACHEDIR.TAG": None,  # any program: bford.info/cachedir
    **dict.fromkeys(WISHES),
}
# Photo libraries of Apple: only these folders of theirs hold originals, the others hold smaller
# copies of the same pictures.
PACKAGE_ENDINGS = (
    ".photoslibrary",  # Photos
    ".photolibrary",  # iPhoto 9
    ".migratedphotolibrary",  # iPhoto, after Photos took it over
    ".aplibrary",  # Aperture
)
PACKAGE_ORIGINALS = frozenset(("originals", "masters"))
# When the whole disk is indexed: what lies there is made by the kernel and is no file.
SYSTEM_FOLDERS = frozenset(("proc", "sys", "dev", "run"))


def is_left_out(name: str) -> bool:
    """True for a folder that no library should hold, by its name alone."""
    if name.startswith("."):
        return True
    lower = name.lower()
    return (
        lower in LEFT_OUT_NAMES
        or lower.endswith(LEFT_OUT_ENDINGS)
        or lower.startswith(LEFT_OUT_STARTS)
    )


def marker_in(folder: str, names: Collection[str]) -> str | None:
    """Which marker among the ``names`` in it has a folder left out, if one does."""
    return next(
        (
            marker
            for marker, only in MARKERS.items()
            if marker in names and (only is None or folder.lower() in only)
        ),
        None,
    )


def is_package(folder: str) -> bool:
    """True for a photo library of Apple, of which only PACKAGE_ORIGINALS are pictures."""
    return folder.lower().endswith(PACKAGE_ENDINGS)


# --- .clipsearchignore ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line. ``name`` is matched against the last part of a path; else ``parts`` against all.

    Among the parts, None stands for any number of folders.
    """

    leaves_out: bool  # False for a line with !
    folders_only: bool
    is_plain: bool  # its last part has no wildcards
    name: re.Pattern[str] | None = None
    parts: tuple[Part, ...] = ()

    def matches(self, relpath: str, name: str, *, is_folder: bool) -> bool:
        if self.folders_only and not is_folder:
            return False
        if self.name is not None:
            return self.name.match(name) is not None
        return match_parts(self.parts, relpath.split("/"))


@dataclass(frozen=True, slots=True)
class Rules:
    """The patterns of one ignore file, and those of the folders above it."""

    patterns: tuple[Pattern, ...]  # the last line first: it has the last word
    depth: int  # how many characters of a relative path come before the file's own folder
    outer: Rules | None

    def find(self, relpath: str, name: str, *, is_folder: bool) -> Pattern | None:
        """The pattern that decides about a path below the root, if one does.

        Of several that let it in, one without wildcards: only that overrules the defaults.
        """
        lets_in: Pattern | None = None
        rules: Rules | None = self
        while rules is not None:
            below = relpath[rules.depth :]
            if not below.isascii():  # macOS may spell a name differently than the person did
                below = unicodedata.normalize("NFC", below)
                name = unicodedata.normalize("NFC", name)
            for pattern in rules.patterns:
                if not pattern.matches(below, name, is_folder=is_folder):
                    continue
                if pattern.leaves_out:
                    return lets_in or pattern
                if pattern.is_plain:
                    return pattern
                lets_in = lets_in or pattern
            rules = rules.outer
        return lets_in


def read_rules(path: str, prefix: str, outer: Rules | None) -> tuple[Rules, list[str]]:
    """Reads an ignore file in the folder ``prefix``; also says which lines are no patterns.

    OSError when it cannot be read, is larger than MAX_IGNORE_BYTES, or is no text.
    """
    with open(path, "rb") as file:  # noqa: PTH123 - the scan has no Path objects
        data = file.read(MAX_IGNORE_BYTES + 1)
    if len(data) > MAX_IGNORE_BYTES:
        raise OSError(f"it is larger than {MAX_IGNORE_BYTES // 1024} KiB")
    if b"\0" in data:
        raise OSError("it is not UTF-8 text")
    patterns: list[Pattern] = []
    bad: list[str] = []
    for number, line in enumerate(data.decode("utf-8-sig", "surrogateescape").split("\n"), 1):
        try:
            pattern = parse(line)
        except ValueError as error:
            bad.append(f"line {number} of {path} has no effect: {error}")
            continue
        if pattern is not None:
            patterns.append(pattern)
    if len(bad) > _NAMED_LINES:
        more = counted(len(bad) - _NAMED_LINES, "more line has", "more lines have")
        bad[_NAMED_LINES:] = [f"{more} no effect in {path}"]
    return Rules(tuple(reversed(patterns)), len(prefix), outer), bad


def parse(line: str) -> Pattern | None:
    """One line of an ignore file; None for blank lines and comments, ValueError for bad ones."""
    text = _without_trailing_spaces(line.rstrip("\r"))
    if not text or text.startswith("#"):
        return None
    leaves_out = not text.startswith("!")
    text = unicodedata.normalize("NFC", text if leaves_out else text[1:])
    folders_only = text.endswith("/")
    text = text.removesuffix("/")
    if not text:
        raise ValueError("it names nothing")
    parts = text.removeprefix("/").split("/")
    is_plain = not re.search(r"[*?\[]", parts[-1])
    if "/" not in text:
        return Pattern(leaves_out, folders_only, is_plain, name=compile_name(text, has_sets=True))
    compiled = [None if part == "**" else compile_name(part, has_sets=True) for part in parts]
    if compiled[-1] is None:  # everything in a folder, but not the folder
        compiled.append(compile_name("*", has_sets=True))
    return Pattern(leaves_out, folders_only, is_plain, parts=tuple(compiled))


def _without_trailing_spaces(line: str) -> str:
    text = line.rstrip(" ")
    backslashes = len(text) - len(text.rstrip("\\"))
    return text + " " if backslashes % 2 and len(text) < len(line) else text
