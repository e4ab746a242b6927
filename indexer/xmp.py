"""XMP: the properties of an RDF packet (ISO 16684-1), embedded or as a sidecar file.

The XML is read with defusedxml, so a packet that declares entities is refused, not expanded.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from indexer import fields
from indexer.fields import Findings

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
DUBLIN_CORE = "http://purl.org/dc/elements/1.1/"
LIGHTROOM = "http://ns.adobe.com/lightroom/1.0/"
# Ours: which keywords of a sidecar a model gave. `.invalid` is a name that nobody can own.
OWN_NAMESPACE = "https://ns.clipsearch.invalid/1.0/"
MODEL_TAGS = "modelTags"

_RDF = f"{{{RDF}}}"
_DC = f"{{{DUBLIN_CORE}}}"
_XMP = "{http://ns.adobe.com/xap/1.0/}"
_EXIF = "{http://ns.adobe.com/exif/1.0/}"
_EXIF_EX = "{http://cipa.jp/exif/1.0/}"
_TIFF = "{http://ns.adobe.com/tiff/1.0/}"
_AUX = "{http://ns.adobe.com/exif/1.0/aux/}"
_PHOTOSHOP = "{http://ns.adobe.com/photoshop/1.0/}"
_LIGHTROOM = f"{{{LIGHTROOM}}}"
_DIGIKAM = "{http://www.digikam.org/ns/1.0/}"
_MICROSOFT = "{http://ns.microsoft.com/photo/1.0/}"
_IPTC_EXT = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
_REGIONS = "{http://www.metadataworkinggroup.com/schemas/regions/}"
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"

_START = re.compile(r"<(?:\w+:)?(?:xmpmeta|xapmeta|RDF)\b")
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_MAX_ELEMENTS = 50_000
_DEGREES = re.compile(r"\s*([\d.]+)(?:,([\d.]+))?(?:,([\d.]+))?\s*([NSEW])\s*\Z", re.IGNORECASE)
# Roots of hierarchies in which programs keep their own marks.
_PROGRAM_TAGS = ("_digikam_", "darktable|", "darktable/")

Properties = dict[str, list[str]]


def read_xmp(packet: bytes, origin: str = "xmp") -> Findings:
    """What a packet says; of damaged XML what stands before the damage, else nothing."""
    found = Findings(origin)
    root = _parsed(packet_text(packet))
    if root is None:
        return found
    properties = _properties(root)

    def first(name: str) -> str | None:
        return next(iter(properties.get(name, ())), None)

    found.put("make", fields.clean_name(first(_TIFF + "Make")))
    found.put("model", fields.clean_name(first(_TIFF + "Model")))
    for name in (_EXIF_EX + "LensModel", _AUX + "Lens"):
        found.put("lens", fields.clean_name(first(name)))
    found.put("exposure_s", fields.exposure(first(_EXIF + "ExposureTime")))
    found.put("f_number", fields.f_number(first(_EXIF + "FNumber")))
    for name in (_EXIF + "ISOSpeedRatings", _EXIF_EX + "PhotographicSensitivity"):
        found.put("iso", fields.iso(first(name)))
    found.put("focal_length_mm", fields.focal_length(first(_EXIF + "FocalLength")))
    found.put("rating", fields.rating(first(_XMP + "Rating")))
    found.put("rating", fields.rating_of_percent(first(_MICROSOFT + "Rating")))
    for rank, name in (
        (fields.TAKEN, _EXIF + "DateTimeOriginal"),
        (fields.TAKEN, _PHOTOSHOP + "DateCreated"),
        (fields.DIGITIZED, _EXIF + "DateTimeDigitized"),
        (fields.DIGITIZED, _XMP + "CreateDate"),
    ):
        found.put_date(rank, fields.parse_date(first(name), partial=True))
    _read_place(found, first(_EXIF + "GPSLatitude"), first(_EXIF + "GPSLongitude"))
    if "latitude" in found.values:
        height = fields.number(first(_EXIF + "GPSAltitude"), -1e6, 1e6)
        if height is not None:
            is_below = first(_EXIF + "GPSAltitudeRef") == "1" and height > 0
            found.put("altitude_m", fields.altitude(-height if is_below else height))
    camera = (found.values.get("make"), found.values.get("model"))
    short = fields.MAX_SHORT_CHARACTERS
    for name in (_DC + "title", _PHOTOSHOP + "Headline"):
        found.put("title", fields.clean_caption(first(name), short, besides=camera))
    for name in (_DC + "description", _EXIF + "UserComment"):
        found.put("description", fields.clean_caption(first(name), besides=camera))
    found.keywords = _keywords(properties, _faces(root))
    return found


def packet_text(packet: bytes) -> str:
    """The packet as text: UTF-8, UTF-16 or UTF-32 (ISO 16684-1, 7.1), from its first element on."""
    packet = packet[: packet.rfind(b">") + 4]  # writers pad a packet with blanks or zeros
    for encoding, marks in (
        ("utf-32-le", (b"<\0\0\0", b"\xff\xfe\0\0")),
        ("utf-32-be", (b"\0\0\0<", b"\0\0\xfe\xff")),
        ("utf-16-le", (b"<\0", b"\xff\xfe")),
        ("utf-16-be", (b"\0<", b"\xfe\xff")),
    ):
        if packet.startswith(marks):
            text = packet.decode(encoding, "replace")
            break
    else:
        text = fields.decode_text(packet)
    text = _NOT_XML.sub("", text)
    begin = _START.search(text)
    return text[begin.start() :] if begin else ""


def _parsed(text: str) -> Element | None:
    """The tree of the first element; of broken XML, the part before the break."""
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import ParseError, iterparse

    root: Element | None = None
    try:
        source = io.BytesIO(text.encode("utf-8"))
        parsing = iterparse(source, events=("start",), forbid_dtd=True)
        for count, (_, element) in enumerate(parsing):
            root = element if root is None else root
            if count > _MAX_ELEMENTS:
                break
    except (ParseError, DefusedXmlException, ValueError):
        return root  # what follows the packet's end, too, counts as a break
    return root


def parse_whole(content: bytes) -> tuple[Element | None, str | None]:
    """A sidecar's root as far as it can be read, and what is wrong with it, if anything is."""
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import ParseError, iterparse

    text = packet_text(content)
    if not text:
        return None, "the sidecar holds no XMP"
    root: Element | None = None
    try:
        source = io.BytesIO(text.encode("utf-8"))
        parsing = iterparse(source, events=("start", "end"), forbid_dtd=True)
        for count, (event, element) in enumerate(parsing):
            if event == "end" and element is root:
                return root, None  # what follows it, such as padding, does not matter
            root = element if root is None else root
            if count > 2 * _MAX_ELEMENTS:
                return root, f"the sidecar has more than {_MAX_ELEMENTS:,} XML elements"
    except ParseError as error:
        return root, f"the sidecar is broken XML: {error}"
    except (DefusedXmlException, ValueError):
        return root, "the sidecar declares XML entities, which are not read"
    return root, "the sidecar is broken XML: it ends too early"


def _properties(root: Element) -> Properties:
    """The simple and list values of all top-level descriptions, by "{namespace}name"."""
    found: Properties = {}
    for rdf in root.iter(_RDF + "RDF"):
        for description in rdf:
            for name, value in description.attrib.items():
                found.setdefault(name, []).append(value)
            for item in description:
                values = _values(item)
                if values:
                    found.setdefault(item.tag, []).extend(values)
    return found


def _values(item: Element) -> list[str]:
    """The text of a property, or of the entries of its bag, list or alternatives."""
    for container in item:
        if container.tag in (_RDF + "Bag", _RDF + "Seq", _RDF + "Alt"):
            entries = [entry for entry in container if entry.text]
            if container.tag == _RDF + "Alt":  # the default language first
                entries.sort(key=lambda entry: entry.get(_LANGUAGE, "").lower() != "x-default")
            return [entry.text for entry in entries if entry.text]
    return [item.text] if item.text and item.text.strip() else []


def _read_place(found: Findings, latitude: str | None, longitude: str | None) -> None:
    position = fields.position(_degrees(latitude, "NS"), _degrees(longitude, "EW"))
    if position is not None:
        found.put("latitude", position[0])
        found.put("longitude", position[1])


def _degrees(text: str | None, letters: str) -> float | None:
    """ "50,2.8646N" or "50,2,51N" as degrees (XMP specification part 2, GPSCoordinate)."""
    matched = _DEGREES.match(text or "")
    if matched is None or matched[4].upper() not in letters:
        return None
    try:
        degrees = sum(
            float(part) / unit
            for part, unit in zip(matched.groups()[:3], (1, 60, 3600), strict=True)
            if part
        )
    except ValueError:
        return None
    return -degrees if matched[4].upper() == letters[1] else degrees


def _keywords(properties: Properties, faces: Sequence[str]) -> list[str]:
    """Flat ones, hierarchical ones as leaf and path, and the people who are named.

    What our own model gave, and was written out, is nobody's word.
    """
    by_model = {name.casefold() for name in properties.get(f"{{{OWN_NAMESPACE}}}{MODEL_TAGS}", ())}
    subjects = [
        name for name in properties.get(_DC + "subject", ()) if name.casefold() not in by_model
    ]
    found: list[str] = [*fields.split_lone(subjects)]
    for name, separator in (
        (_LIGHTROOM + "hierarchicalSubject", "|"),
        (_DIGIKAM + "TagsList", "/"),
        (_MICROSOFT + "LastKeywordXMP", "/"),
    ):
        own = (
            path
            for path in properties.get(name, ())
            if not path.strip().casefold().startswith(_PROGRAM_TAGS)
            and path.replace(separator, "|").casefold() not in by_model
        )
        found += fields.clean_paths(own, separator)
    found += properties.get(_IPTC_EXT + "PersonInImage", ())
    return fields.clean_keywords([*found, *faces])


def _faces(root: Element) -> list[str]:
    """Names of the faces that are marked in the picture."""
    return [
        name
        for element in root.iter()
        if _named(element, "Type") == "Face" and (name := _named(element, "Name"))
    ]


def _named(element: Element, name: str) -> str | None:
    return element.get(_REGIONS + name) or element.findtext(_REGIONS + name)
