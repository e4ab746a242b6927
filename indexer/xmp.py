"""XMP: the properties of an RDF packet (ISO 16684-1), embedded or as a sidecar file.

The XML is read with defusedxml, so a packet that declares entities is refused, not expanded.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from clipsearch.clocks import stored_in_utc
from indexer import fields
from indexer.dates import parse_date
from indexer.degrees import parse_degrees
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
# Names of namespaces as ``_plain_name`` gives them.
_DC = "{purl.org/dc/elements}"
_XMP = "{ns.adobe.com/xap}"
_EXIF = "{ns.adobe.com/exif}"
_EXIF_EX = "{cipa.jp/exif}"
_TIFF = "{ns.adobe.com/tiff}"
_AUX = "{ns.adobe.com/exif/aux}"
_PHOTOSHOP = "{ns.adobe.com/photoshop}"
_LIGHTROOM = "{ns.adobe.com/lightroom}"
_DIGIKAM = "{digikam.org/ns}"
_MICROSOFT = "{ns.microsoft.com/photo}"
_MICROSOFT_REGION = "{ns.microsoft.com/photo/t/Region}"
_IPTC_EXT = "{iptc.org/std/Iptc4xmpExt}"
_MEDIA_PRO = "{ns.iview-multimedia.com/mediapro}"
_EXPRESSION_MEDIA = "{ns.microsoft.com/expressionmedia}"
_ACDSEE = "{ns.acdsee.com/iptc}"
_REGIONS = "{metadataworkinggroup.com/schemas/regions}"
_OWN = "{ns.clipsearch.invalid}"
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"

_START = re.compile(r"<(?:\w+:)?(?:xmpmeta|xapmeta|RDF)\b")
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_MAX_ELEMENTS = 50_000
_VERSION = re.compile(r"/(?:\d+\.\d+|\d{4}-\d\d-\d\d)(?=/|\Z)")
# Roots of hierarchies in which programs keep their own marks.
_PROGRAM_TAGS = ("_digikam_", "darktable|", "darktable/")

Properties = dict[str, list[str]]


def read_xmp(packet: bytes, origin: str = "xmp") -> Findings:
    """What a packet says; of damaged XML what stands before the damage, else nothing."""
    found = Findings(origin)
    root = _parsed(_decoded(packet))
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
    for name in (_XMP + "Rating", _ACDSEE + "rating"):
        found.put("rating", fields.rating(first(name)))
    for name in (_MICROSOFT + "Rating", _XMP + "RatingPercent"):
        found.put("rating", fields.rating_of_percent(first(name)))
    _read_dates(found, first)
    position = fields.position(
        parse_degrees(first(_EXIF + "GPSLatitude"), first(_EXIF + "GPSLatitudeRef"), "NS"),
        parse_degrees(first(_EXIF + "GPSLongitude"), first(_EXIF + "GPSLongitudeRef"), "EW"),
    )
    if position is not None:
        found.put("latitude", position[0])
        found.put("longitude", position[1])
        height = fields.number(first(_EXIF + "GPSAltitude"), -1e6, 1e6)
        if height is not None:
            is_below = first(_EXIF + "GPSAltitudeRef") == "1" and height > 0
            found.put("altitude_m", fields.altitude(-height if is_below else height))
    camera = (found.values.get("make"), found.values.get("model"))
    short = fields.MAX_SHORT_CHARACTERS
    for name in (_DC + "title", _PHOTOSHOP + "Headline", _ACDSEE + "caption"):
        found.put("title", fields.clean_caption(first(name), short, besides=camera))
    for name in (_DC + "description", _EXIF + "UserComment", _ACDSEE + "notes"):
        found.put("description", fields.clean_caption(first(name), besides=camera))
    found.keywords = _keywords(properties, _faces(root))
    return found


def _decoded(packet: bytes) -> str:
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


def _properties(root: Element) -> Properties:
    """The simple and list values of all top-level descriptions, by "{namespace}name"."""
    found: Properties = {}
    for rdf in root.iter(_RDF + "RDF"):
        for description in rdf:
            for name, value in description.attrib.items():
                found.setdefault(_plain_name(name), []).append(value)
            for item in description:
                values = _values(item)
                if values:
                    found.setdefault(_plain_name(item.tag), []).extend(values)
    return found


@lru_cache(maxsize=4096)
def _plain_name(tag: str) -> str:
    """ "{namespace}name" with the namespace less what programs spell differently.

    That is the protocol, "www.", the version, and a slash or # at the end.
    """
    namespace, brace, name = tag.removeprefix("{").partition("}")
    if not brace:
        return tag
    namespace = namespace.removeprefix("http://").removeprefix("https://").removeprefix("www.")
    return "{" + _VERSION.sub("", namespace.rstrip("/#")) + "}" + name


def _values(item: Element) -> list[str]:
    """The text of a property, or of the entries of its bag, list or alternatives."""
    for container in item:
        if container.tag in (_RDF + "Bag", _RDF + "Seq", _RDF + "Alt"):
            entries = [entry for entry in container if entry.text]
            if container.tag == _RDF + "Alt":  # the default language first
                entries.sort(key=lambda entry: entry.get(_LANGUAGE, "").lower() != "x-default")
            return [entry.text for entry in entries if entry.text]
    return [item.text] if item.text and item.text.strip() else []


def _read_dates(found: Findings, first: Callable[[str], str | None]) -> None:
    """Dates by rank; what is in UTC tells no clock, unless a property beside it does."""
    original = first(_EXIF + "DateTimeOriginal")
    offset = first(_EXIF_EX + "OffsetTimeOriginal") or first(_EXIF + "OffsetTimeOriginal")
    if original is not None and offset is not None:
        found.put_date(fields.TAKEN, parse_date(original, offset))
    for rank, text in (
        (fields.TAKEN, original),
        (fields.TAKEN, first(_PHOTOSHOP + "DateCreated")),
        (fields.DIGITIZED, first(_EXIF + "DateTimeDigitized")),
        (fields.DIGITIZED, first(_XMP + "CreateDate")),
        (fields.CHANGED, first(_ACDSEE + "datetime")),
    ):
        found.put_date(rank, stored_in_utc(parse_date(text, partial=True)))
    by_gps = parse_date(first(_EXIF + "GPSTimeStamp"), "Z")
    if by_gps is not None and datetime.fromisoformat(by_gps).tzinfo is not None:
        found.put_date(fields.BY_GPS, stored_in_utc(by_gps))


def _keywords(properties: Properties, faces: Sequence[str]) -> list[str]:
    """Flat ones, hierarchical ones as leaf and path, and the people who are named.

    What our own model gave, and was written out, is nobody's word.
    """
    by_model = {name.casefold() for name in properties.get(_OWN + MODEL_TAGS, ())}
    subjects = [
        name for name in properties.get(_DC + "subject", ()) if name.casefold() not in by_model
    ]
    found: list[str] = [*fields.split_lone(subjects)]
    found += properties.get(_ACDSEE + "keywords", ())
    categories = [
        path for text in properties.get(_ACDSEE + "categories", ()) for path in _categories(text)
    ]
    for paths, separator in (
        (properties.get(_LIGHTROOM + "hierarchicalSubject", ()), "|"),
        (properties.get(_MEDIA_PRO + "CatalogSets", ()), "|"),
        (properties.get(_EXPRESSION_MEDIA + "CatalogSets", ()), "|"),
        (properties.get(_DIGIKAM + "TagsList", ()), "/"),
        (properties.get(_MICROSOFT + "LastKeywordXMP", ()), "/"),
        (properties.get(_MICROSOFT + "LastKeywordIPTC", ()), "/"),
        (categories, "|"),
    ):
        own = (
            path
            for path in paths
            if not path.strip().casefold().startswith(_PROGRAM_TAGS)
            and path.replace(separator, "|").casefold() not in by_model
        )
        found += fields.clean_paths(own, separator)
    for people in (
        _IPTC_EXT + "PersonInImage",
        _MEDIA_PRO + "People",
        _EXPRESSION_MEDIA + "People",
    ):
        found += properties.get(people, ())
    return fields.clean_keywords([*found, *faces])


def _categories(text: str) -> Iterator[str]:
    """ACDSee's tree of categories, XML in text: the path of each that is assigned."""
    root = _parsed(text)
    levels = [(root, "")] if root is not None else []
    while levels:
        element, above = levels.pop()
        name = (element.text or "").strip()
        path = f"{above}|{name}" if above and name else name or above
        if name and element.get("Assigned") == "1":
            yield path
        levels += [(each, path) for each in reversed(element)]


def _faces(root: Element) -> list[str]:
    """Names of the people and animals that are marked in the picture."""
    found = []
    for element in root.iter():
        said = {_plain_name(name): value for name, value in element.attrib.items()}
        for child in element:
            if child.text:
                said.setdefault(_plain_name(child.tag), child.text)
        if name := said.get(_REGIONS + "Name"):
            if said.get(_REGIONS + "Type", "Face").strip().casefold() in ("face", "pet"):
                found.append(name)
        elif name := said.get(_MICROSOFT_REGION + "PersonDisplayName"):
            found.append(name)
    return found
