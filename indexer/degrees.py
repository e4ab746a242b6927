"""Degrees of a position as programs write them in text."""

from __future__ import annotations

import re

_UNITS = re.compile(
    "deg(?:rees?)?|min(?:utes?)?|sec(?:onds?)?|[°º'\u2032\u2019\"\u2033\u201d]", re.I
)
_SIDE = re.compile(
    r"(?P<first>[NSEW])?(?P<rest>[^NSEW]*)(?P<last>[NSEW])?(?:orth|outh|ast|est)?", re.I
)
_NUMBER = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(?:/(\d+(?:\.\d*)?))?")
_PER_DEGREE = (1, 60, 3600)


def parse_degrees(text: str | None, reference: str | None, letters: str) -> float | None:
    """Degrees north or east, from text as the XMP specification has it (part 2, GPSCoordinate:
    "50,2.8646N", "50,2,51N"), as a signed number, or with marks of degrees and minutes.

    ``letters`` are "NS" or "EW"; ``reference`` is what a property beside it says of the side. None
    for what is damaged: a fraction over 0, more than 60 minutes, sides that contradict each other,
    a comma before what may be minutes or decimals. A decimal number without any side is north and
    east if it is positive; degrees and minutes without a side are nowhere.
    """
    plain = _UNITS.sub(" ", (text or "").replace("\u2212", "-")).strip()
    matched = _SIDE.fullmatch(plain)
    if matched is None:
        return None
    sides = [
        side for side in (matched["first"], matched["last"], (reference or "").strip()[:1]) if side
    ]
    named = {side.upper() for side in sides}
    if (
        len(named) > 1
        or not named <= set(letters)
        or (reference is not None and not reference.strip())
    ):
        return None
    number = matched["rest"].strip(" ,;")
    sign = number[:1] if number[:1] in ("+", "-") else ""
    has_letter = bool(matched["first"] or matched["last"])
    parts = _parts(number.removeprefix(sign).strip(), has_letter=has_letter)
    if not parts or (len(parts) > 1 and not (named or sign)):
        return None
    if max(parts[1:], default=0) > 60:  # which rounding makes of 59.9999
        return None
    if any(part % 1 and any(parts[place + 1 :]) for place, part in enumerate(parts)):
        return None  # of a fraction nothing smaller follows
    degrees = sum(part / unit for part, unit in zip(parts, _PER_DEGREE, strict=False))
    is_negative = letters[1] in named
    if sign == "-" and letters[0] in named:
        return None
    return -degrees if is_negative or sign == "-" else degrees


def _parts(text: str, *, has_letter: bool) -> list[float] | None:
    """Degrees, minutes and seconds, as many as there are; None for anything else."""
    words = [word for word in re.split(r"[\s:;]+", text) if word]
    if len(words) == 1 and "," in text:
        words = text.split(",")
        if len(words) == 2 and "." not in text and "/" not in text:
            is_decimal = len(words[1]) > 2 or (words[1].isdigit() and int(words[1]) >= 60)
            if is_decimal:
                words = [".".join(words)]
            elif not has_letter:
                return None  # 33,45: 33 degrees 45 minutes, or 33.45 degrees?
    else:
        words = [word.rstrip(",").replace(",", ".") for word in words]
    if not 1 <= len(words) <= len(_PER_DEGREE):
        return None
    parts = []
    for place, word in enumerate(words):
        matched = _NUMBER.fullmatch(word.strip())
        if matched is None:
            return None
        over, under = float(matched[1]), float(matched[2] or 1)
        if under == 0:
            if place == 0 or over:
                return None
            over, under = 0.0, 1.0  # 0/0: not given
        parts.append(over / under)
    return parts
