"""Names in an export of Google Takeout: which JSON file speaks of which photo.

The JSON of a photo is called after its title: ``IMG_1.jpg.supplemental-metadata.json``, in older
exports ``IMG_1.jpg.json``. Before ``.json`` a name is cut after 46 characters, some releases cut
elsewhere. Photos of one title are numbered: ``IMG_1(1).jpg`` has ``IMG_1.jpg(1).json`` or
``IMG_1.jpg.supplemental-metadata(1).json``. Edited copies have no JSON of their own, nor has the
moving half of a Live Photo.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator

SUPPLEMENT = ".supplemental-metadata"
CUT_LENGTHS = range(43, 52)
_LONG_NAME = 47  # characters from which on the name of the photo itself may have been cut

# What Takeout appends to the name of an edited copy or of its own creations. The marks of the
# second group are English in every language; the others are the word for "edited" in the language
# of the account. It changed over the years, so a language may have several.
EDITED = tuple(
    unicodedata.normalize("NFC", f"-{word}").casefold()
    for word in (
        *("edited", "effects", "smile", "mix", "collage", "animation", "motion", "pano"),
        *("color_pop", "pop_out", "cinematic", "photo_frame"),
        *("bearbeitet", "modifié", "modifie", "modifiée", "ha editado", "editado", "editada"),
        *("modificato", "modificata", "bewerkt", "editat", "modificat", "edytowane", "edytowany"),
        *("redigeret", "redigert", "redigerad", "redigerat", "muokattu", "breytt", "muudetud"),
        *("upraveno", "upravené", "upravene", "szerkesztve", "szerkesztett", "urejeno", "uređeno"),
        *("redaguota", "rediģēts", "düzenlendi", "düzenlenmiş", "diedit", "telah diedit"),
        *("đã chỉnh sửa", "na-edit", "editatua", "geredigeer"),
        *("редактировано", "отредактировано", "изменено", "измененный", "відредаговано", "змінено"),
        *("редактирано", "измењено", "уређено", "επεξεργασμένο", "επεξεργασία", "τροποποιήθηκε"),
        *("編集済み", "编辑", "已编辑", "编辑后", "已修改", "修改后", "編輯", "已編輯"),
        *("편집됨", "수정됨", "แก้ไขแล้ว", "संपादित", "সম্পাদিত", "திருத்தப்பட்டது", "సవరించబడింది"),
        *("تم التعديل", "معدّل", "معدل", "ویرایش شده", "ویرایش‌شده", "נערך", "ערוך", "עריכה"),
    )
)
_NUMBERED = re.compile(r"(.+)(\(\d{1,4}\))\Z", re.DOTALL)
# Characters that Takeout writes as "_" in names; the title in the JSON has them.
_REPLACED = re.compile(r"""[&<>:"/\\|?*'%#;=,+~^\0]""")


def key(name: str) -> str:
    """A name so that it compares equal to what Takeout, or a file system, may have made of it."""
    return _REPLACED.sub("_", unicodedata.normalize("NFC", name).casefold())


def numbered(text: str) -> tuple[str, str]:
    """``("IMG", "(1)")`` of "IMG(1)"; the number is "" where there is none."""
    found = _NUMBERED.match(text)
    return (found[1], found[2]) if found else (text, "")


def length(text: str) -> int:
    """Characters as Takeout counts them: UTF-16 code units."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def supplemented(body: str) -> str | None:
    """What stands before ``.supplemental-metadata``, however much of that was cut; or None."""
    before, dot, after = body.rpartition(".")
    if before and dot and SUPPLEMENT.startswith(dot + after.casefold()):
        return before
    return None


def cut_titles(title: str) -> list[str]:
    """What may be left of a title in the name of its JSON, if it was too long for one."""
    found: dict[str, None] = {}
    for encoding, width in (("utf-16-le", 2), ("utf-8", 1)):
        data = title.encode(encoding, "surrogatepass")
        for characters in CUT_LENGTHS:
            if characters * width < len(data):
                found[data[: characters * width].decode(encoding, "ignore")] = None
    return list(found)


def originals(stem: str, *, is_long: bool) -> list[str]:
    """What an edited copy's original may be called, both without ending; [] if it is no copy.

    Of a long name the end, and with it a part of the mark, may have been cut off.
    """
    folded = unicodedata.normalize("NFC", stem)
    found: dict[str, None] = {}
    for begin in (match.start() for match in re.finditer("-", folded)):
        mark = folded[begin:].casefold()
        if begin and (mark in EDITED or (is_long and _is_begun(mark))):
            found[folded[:begin]] = None
    return list(found)


def _is_begun(mark: str) -> bool:
    return any(whole.startswith(mark) for whole in EDITED)


def is_long(name: str) -> bool:
    """True for a name that Takeout may have cut."""
    return length(name) >= _LONG_NAME


def title_fits(title: object, picture_name: str, endings: frozenset[str]) -> bool:
    """True if a JSON's title can have become the name of this picture.

    ``endings`` are those of pictures and videos; a title without one fits any.
    """
    if not isinstance(title, str):
        return False
    wanted, wanted_ending = _split(key(html.unescape(title)), endings)
    have, ending = _split(key(picture_name), endings)
    return wanted_ending in ("", ending) and any(
        wanted == stem or (is_long(picture_name) and wanted.startswith(stem))
        for stem in _stems(have, picture_name)
    )


def begins(title: object, json_name: str) -> bool:
    """True if the name of a JSON is the beginning of its title, whatever its number."""
    before, _ = numbered(json_name.rpartition(".")[0])
    return isinstance(title, str) and key(html.unescape(title)).startswith(key(before))


def _stems(stem: str, picture_name: str) -> Iterator[str]:
    root, _ = numbered(stem)
    for name in dict.fromkeys((stem, root)):
        yield name
        yield from originals(name, is_long=is_long(picture_name))


def _split(name: str, endings: frozenset[str]) -> tuple[str, str]:
    before, dot, after = name.rpartition(".")
    return (before, dot + after) if before and dot + after in endings else (name, "")
