"""Which files of a folder speak of which picture, by their names alone.

A sidecar belongs to the file whose name it bears exactly, byte for byte. Only one that no file
of the folder bears so is given to a picture whose name differs in case or Unicode form, and only
if that is a single one: what could be another photo's is nobody's.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator
from functools import cached_property
from typing import NamedTuple

from clipsearch.images import EXTENSIONS, RAW_EXTENSIONS, VIDEO_EXTENSIONS
from indexer import takeout

SUFFIXES = (".xmp", ".txt", ".json")
ENDINGS = EXTENSIONS | VIDEO_EXTENSIONS

# How a sidecar is named, which decides how much it counts and what its content has to say.
FULL = "full"  # photo.jpg.xmp
STEM = "stem"  # photo.xmp: of every picture called photo
SHARED = "shared"  # photo.json of several pictures called photo: Takeout's has to name this one
VERSION = "version"  # photo_01.jpg.xmp, darktable's further versions: it has to name the picture
TAKEOUT = "takeout"  # a name as only Takeout makes it
CUT = "cut"  # a part of the name: of this picture, unless its title is another one's
TITLED = "titled"  # the same, but of other pictures, too: its title has to be this one's
CONVERTED = "converted"  # photo.heic.json of photo.jpg alone: its title has to be this one's
SOUGHT = "sought"  # a part of it with a number of no picture: if only its title is this one's

_JPEG = frozenset((".jpg", ".jpeg"))
_CAMERA = RAW_EXTENSIONS | {".heic", ".heif"}


class Beside(NamedTuple):
    """A sidecar of a picture; ``role`` is one of the words above."""

    name: str
    role: str


class SidecarNames:
    """The names of one folder, so that each picture's sidecars are found without a search.

    Built once a folder, in the time of one pass; a picture then takes a bounded number of look-ups.
    """

    def __init__(self, names_in_folder: Collection[str]) -> None:
        self._files: set[str] = set()
        self._sidecars: dict[str, list[str]] = {}
        for name in names_in_folder:
            if may_be_sidecar(name):
                self._sidecars.setdefault(folded(name), []).append(name)
            else:
                self._files.add(name)

    def of(self, picture_name: str) -> tuple[str, ...]:
        """The names of a picture's sidecars, most specific first; () when there are none."""
        return tuple(found.name for found in self.beside(picture_name))

    def beside(self, picture_name: str) -> tuple[Beside, ...]:
        """The sidecars of a picture and how they are named, most specific first."""
        if not self._sidecars:
            return ()
        found: dict[str, str] = {}
        stem = split(picture_name)[0]
        whole_key, stem_key = folded(picture_name), folded(stem)
        for suffix in self._kinds:
            if named := self._sidecars.get(whole_key + suffix):
                for name in self._called(picture_name, named):
                    found.setdefault(name, FULL)
            if named := self._sidecars.get(stem_key + suffix):
                is_shared = suffix == ".json" and self._shares(picture_name, stem)
                for name in self._called_stem(picture_name, stem, named):
                    found.setdefault(name, SHARED if is_shared else STEM)
            if suffix == ".xmp" and whole_key in self._versions:
                for name in self._versions_of(picture_name):
                    found.setdefault(name, VERSION)
        if takeout.key(picture_name)[:1] in self._beginnings:
            for name, role in self._of_takeout(picture_name):
                found.setdefault(name, role)
        return tuple(Beside(name, role) for name, role in found.items())

    def is_shared(self, file_name: str) -> bool:
        """True if another file has the same name but for its ending, in any case."""
        return bool(self._by_stem.get(folded(split(file_name)[0]), set()) - {file_name})

    # --- names that any program gives -------------------------------------------------------

    def _called(self, picture: str, named: list[str]) -> list[str]:
        """Those called after the whole name."""
        exact = sorted(name for name in named if _base(name) == picture)
        if exact or self._twins.get(folded(picture), set()) - {picture}:
            return exact
        free = [name for name in named if not self._is_owned(_base(name))]
        return free if len(free) == 1 else []

    def _called_stem(self, picture: str, stem: str, named: list[str]) -> list[str]:
        """Those called after the name without its ending, unless it is a file's whole name."""
        named = [name for name in named if _base(name) not in self._files or stem == picture]
        exact = sorted(name for name in named if _base(name) == stem)
        if exact or self._stems.get(folded(stem), set()) - {stem}:
            return exact
        if folded(stem) in self._twins:
            return []  # it may be called after a whole name, in another case
        free = [name for name in named if not self._is_owned(_base(name))]
        return free if len(free) == 1 else []

    def _is_owned(self, base: str) -> bool:
        """True if a file of the folder is called exactly so, with or without its ending."""
        return base in self._files or base in self._stems.get(folded(base), ())

    def _shares(self, picture: str, stem: str) -> bool:
        """True if another still picture has the same name but for its ending."""
        return any(
            split(name)[1].lower() in EXTENSIONS and split(name)[0] == stem
            for name in self._by_stem.get(folded(stem), ())
            if name != picture
        )

    @cached_property
    def _kinds(self) -> list[str]:
        """The suffixes that occur, the most telling kind first."""
        there = {"." + name.rpartition(".")[2] for name in self._sidecars}
        return [suffix for suffix in SUFFIXES if suffix in there]

    @cached_property
    def _twins(self) -> dict[str, set[str]]:
        """The files whose names differ in case or Unicode form alone."""
        return _grouped((folded(name), name) for name in self._files)

    @cached_property
    def _by_stem(self) -> dict[str, set[str]]:
        return _grouped((folded(split(name)[0]), name) for name in self._files)

    @cached_property
    def _stems(self) -> dict[str, set[str]]:
        return _grouped((folded(stem), stem) for stem in (split(name)[0] for name in self._files))

    def _versions_of(self, picture: str) -> list[str]:
        """Those that darktable gives to further versions of a picture."""
        named = self._versions.get(folded(picture), {})
        exact = sorted(name for name, original in named.items() if original == picture)
        has_twins = self._twins.get(folded(picture), set()) - {picture}
        return exact if exact or has_twins else sorted(named)

    @cached_property
    def _versions(self) -> dict[str, dict[str, str]]:
        """The sidecars that may be of further versions of a picture, by it and as it is written."""
        found: dict[str, dict[str, str]] = {}
        for key, names in self._sidecars.items():
            if not key.endswith(".xmp") or key.removesuffix(".xmp") in self._twins:
                continue
            for name in names:
                stem, ending = split(name[: -len(".xmp")])
                before, _, number = stem.rpartition("_")
                if before and ending and len(number) >= 2 and number.isdecimal():
                    found.setdefault(folded(before + ending), {})[name] = before + ending
        return found

    # --- names that Takeout gives -----------------------------------------------------------

    def _of_takeout(self, picture: str) -> list[Beside]:
        """The JSON of a picture; where it has none, that of what it was made from."""
        own = self._titled(picture)
        if own or self._called(picture, self._sidecars.get(folded(picture + ".json"), [])):
            return own
        stem, ending = split(picture)
        root, number = takeout.numbered(stem)
        for original in takeout.originals(root, is_long=takeout.is_long(picture)):
            # The number of photo-edited(1).jpg and of photo(1)-edited.jpg is the original's.
            found = self._of_original(picture, original + number, ending)
            if found:
                return found
        if ending.lower() in VIDEO_EXTENSIONS:  # the moving half of a Live Photo
            return self._of_original(picture, stem, ending)
        return self._converted(picture, stem) if ending.lower() in _JPEG else []

    def _converted(self, picture: str, stem: str) -> list[Beside]:
        """The JSON of the camera's file that a JPEG was made from, if that is not in the folder."""
        names = self._origins.get(takeout.key(stem), set()) - {picture}
        found = [self._titled(name) for name in names if split(name)[1].lower() in _CAMERA]
        if len(names) != 1 or names & self._files or not any(found):
            return []
        return [Beside(name, CONVERTED) for name, _ in found[0]]

    def _of_original(self, picture: str, stem: str, ending: str) -> list[Beside]:
        """The JSON of the still that a file was made from, by its stem; its ending may differ."""
        there = {
            name
            for name in self._by_stem.get(folded(stem), ())
            if name != picture and split(name)[1].lower() in EXTENSIONS
        }
        same = f"{stem}{ending}"
        found = []
        if same != picture and (same in there or not there):
            found = self._titled(same)
        if found:
            return found
        gone = self._origins.get(takeout.key(stem), set()) - {picture, same}
        several = [found for name in sorted(there or gone) if (found := self._titled(name))]
        return several[0] if len(several) == 1 else []

    def _titled(self, picture: str) -> list[Beside]:
        """The JSON whose name the title of this very file gives; the surest form that is there."""
        stem, ending = split(picture)
        root, number = takeout.numbered(stem)
        titles = [(picture, ""), (root + ending, number)]
        if ending and not self._shares(picture, stem):
            # Unpacking to deep folders cuts names elsewhere; some titles have no ending at all.
            for kept in range(len(ending) - 1, -1, -1):
                titles += [(stem + ending[:kept], ""), (root + ending[:kept], number)]
        for title, its_number in dict.fromkeys(titles):
            found = self._whole(picture, title, its_number)
            if found:
                return found
        return self._cut(picture, root + ending, number)

    def _whole(self, picture: str, title: str, number: str) -> list[Beside]:
        """Those with a whole title in their name."""
        named = self._titles.get((takeout.key(title), number), {})
        exact = sorted(name for name, written in named.items() if written == title)
        if exact or not named:
            return [Beside(name, TAKEOUT) for name in exact]
        if len(set(named.values())) > 1 or self._keys.get(takeout.key(picture), set()) - {picture}:
            return []
        root, ending = split(next(iter(named.values())))
        is_owned = f"{root}{number}{ending}" in self._files
        return [] if is_owned else [Beside(name, TAKEOUT) for name in sorted(named)]

    def _cut(self, picture: str, title: str, number: str) -> list[Beside]:
        """Those with a part of a long title in their name.

        Where several files have that part in common, each JSON's own title has to decide.
        """
        found: list[Beside] = []
        for part in takeout.cut_titles(title) if self._numbers else ():
            key = takeout.key(part)
            numbers = self._numbers.get(key)
            if not numbers:
                continue
            alike = self._long.get(key, set()) - {picture}
            by_number = _grouped((takeout.numbered(split(name)[0])[1], name) for name in alike)
            rivals = by_number.pop(number, set())
            role = TITLED if self._real_rivals(picture, rivals) else CUT
            found += [Beside(name, role) for name in sorted(numbers.get(number, ()))]
            for other in sorted(numbers.keys() - {number} - by_number.keys()):
                found += [Beside(name, SOUGHT) for name in sorted(numbers[other])]
        return found

    def _real_rivals(self, picture: str, rivals: set[str]) -> bool:
        """Whether one of the files is a photo of its own, not made from another one of them."""
        stem, ending = split(picture)
        for rival in rivals:
            other_stem, other_ending = split(rival)
            is_half = other_stem == stem and (
                (ending.lower() in VIDEO_EXTENSIONS) != (other_ending.lower() in VIDEO_EXTENSIONS)
            )
            if (
                not is_half
                and not _is_copy_of(other_stem, stem)
                and not _is_copy_of(stem, other_stem)
            ):
                return True
        return False

    @cached_property
    def _titles(self) -> dict[tuple[str, str], dict[str, str]]:
        """JSON files by title and number, as far as their names tell, with the title as written."""
        found: dict[tuple[str, str], dict[str, str]] = {}
        for name in self._json:
            for title, number in _readings(name[: -len(".json")]):
                found.setdefault((takeout.key(title), number), {}).setdefault(name, title)
        return found

    @cached_property
    def _beginnings(self) -> set[str]:
        """The first characters of all titles: most pictures in most folders have no JSON."""
        return {key[:1] for key, _ in self._titles}

    @cached_property
    def _origins(self) -> dict[str, set[str]]:
        """By stem, the stills that have a JSON, whether they are in the folder or not."""
        pairs = []
        for title_and_number, named in self._titles.items():
            for title in named.values():
                stem, ending = split(title)
                if ending.lower() in EXTENSIONS:
                    whole = stem + title_and_number[1]
                    pairs.append((takeout.key(whole), whole + ending))
        return _grouped(iter(pairs))

    @cached_property
    def _numbers(self) -> dict[str, dict[str, list[str]]]:
        """By what stands in a name before its number: the numbers, and the names with them."""
        found: dict[str, dict[str, list[str]]] = {}
        for name in self._json:
            body = name[: -len(".json")]
            readings = {takeout.numbered(body), (body, "")}
            for part, number in readings:
                if takeout.length(part) >= takeout.CUT_LENGTHS.start or not part.isascii():
                    found.setdefault(takeout.key(part), {}).setdefault(number, []).append(name)
        return found

    @cached_property
    def _long(self) -> dict[str, set[str]]:
        """By the beginning of a name, the files that are called so and could have been cut."""
        return _grouped(
            (takeout.key(part), name)
            for name in self._files
            for part in takeout.cut_titles(takeout.numbered(split(name)[0])[0] + split(name)[1])
        )

    @cached_property
    def _keys(self) -> dict[str, set[str]]:
        """The files whose names Takeout could not tell apart."""
        return _grouped((takeout.key(name), name) for name in self._files)

    @cached_property
    def _json(self) -> list[str]:
        return [name for names in self._sidecars.values() for name in names if _is_json(name)]


def find_sidecars(picture_name: str, names_in_folder: Collection[str]) -> tuple[str, ...]:
    """The files of a folder that describe a picture of that folder, most specific first.

    For more than one picture of a folder, make its SidecarNames once.
    """
    return SidecarNames(names_in_folder).of(picture_name)


def may_be_sidecar(name: str) -> bool:
    """True for a name that can only belong to a picture, never be one."""
    return name.lower().endswith(SUFFIXES)


def folded(name: str) -> str:
    """A name as file systems compare it that heed neither case nor Unicode form."""
    return unicodedata.normalize("NFC", name).casefold()


def split(name: str) -> tuple[str, str]:
    """A name without its ending, and that ending with its dot, "" if it has none."""
    before, dot, after = name.rpartition(".")
    return (before, dot + after) if before else (name, "")


def _readings(body: str) -> Iterator[tuple[str, str]]:
    """Every title and number that the name of a JSON file can have, without its ending."""
    yield body, ""
    before, number = takeout.numbered(body)
    if number:
        yield before, number
    title = takeout.supplemented(before)
    if title is not None:
        yield title, number
        inner, inner_number = takeout.numbered(title)
        if inner_number and not number:
            yield inner, inner_number


def _is_copy_of(stem: str, original: str) -> bool:
    root = takeout.numbered(stem)[0]
    return original in takeout.originals(root, is_long=True)


def _base(sidecar: str) -> str:
    return sidecar.rpartition(".")[0]


def _is_json(name: str) -> bool:
    return name[-5:].lower() == ".json"


def _grouped(pairs: Iterator[tuple[str, str]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for key, name in pairs:
        found.setdefault(key, set()).add(name)
    return found
