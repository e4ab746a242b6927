"""What only the XMP of a sidecar says: whose it is, what it empties, and whether it is whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from indexer import xmp

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_PHOTOSHOP = "{http://ns.adobe.com/photoshop/1.0/}"
_MEDIA = "{http://ns.adobe.com/xap/1.0/mm/}"
_DC = f"{{{xmp.DUBLIN_CORE}}}"
_RDF = f"{{{xmp.RDF}}}"
# By what they empty together: properties that are there without a value say that there is none.
_PROPERTIES = {
    "keywords": (
        f"{_DC}subject",
        f"{{{xmp.LIGHTROOM}}}hierarchicalSubject",
        "{http://www.digikam.org/ns/1.0/}TagsList",
        "{http://ns.microsoft.com/photo/1.0/}LastKeywordXMP",
    ),
    "title": (f"{_DC}title", f"{_PHOTOSHOP}Headline"),
    "description": (f"{_DC}description",),
}


@dataclass(frozen=True)
class SidecarPacket:
    """A sidecar's own facts. ``damage`` is a reason, or None where the packet is whole."""

    for_extension: str | None = None  # without its dot: the file of that ending is meant
    derived_from: str | None = None  # a file's name, as darktable writes it
    emptied: frozenset[str] = frozenset()  # of "keywords", "title" and "description"
    damage: str | None = None


def read_packet(content: bytes) -> SidecarPacket:
    """Reads these facts of an XMP file's bytes; an empty file says nothing and is whole."""
    if not content.strip(b"\0 \t\r\n\xef\xbb\xbf\xfe\xff"):
        return SidecarPacket()
    root, damage = xmp.parse_whole(content)
    if root is None:
        return SidecarPacket(damage=damage)
    values = _values(root)

    def text(name: str) -> str | None:
        return next((value.strip() for value in values.get(name, ()) if value.strip()), None)

    return SidecarPacket(
        for_extension=(text(_PHOTOSHOP + "SidecarForExtension") or "").lstrip(".") or None,
        derived_from=text(_MEDIA + "DerivedFrom"),
        emptied=frozenset(
            what
            for what, names in _PROPERTIES.items()
            if any(name in values for name in names)
            and not any(value.strip() for name in names for value in values.get(name, ()))
        ),
        damage=damage,
    )


def _values(root: Element) -> dict[str, list[str]]:
    """The texts of all top-level properties, also of those that are empty."""
    found: dict[str, list[str]] = {}
    for description in (child for rdf in root.iter(f"{_RDF}RDF") for child in rdf):
        for name, value in description.attrib.items():
            found.setdefault(name, []).append(value)
        for item in description:
            found.setdefault(item.tag, []).extend(part.text or "" for part in item.iter())
    return found
