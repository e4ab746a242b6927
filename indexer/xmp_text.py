"""Where everything stands in an XMP sidecar, so that its text can be changed in place.

Nothing here keeps a tree to be written again: expat says where properties, lists and their entries
begin and end, in the bytes of the text as UTF-8.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from xml.parsers import expat  # document types, and so entities, are refused below

from indexer.xmp import RDF

Property = tuple[str, str, str]  # namespace, local name, usual prefix

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_DECLARED = re.compile(r"<\?xml[^>]*?\bencoding\s*=\s*[\"']([\w.-]+)[\"']", re.ASCII)
_MAX_DEPTH = 100


class UneditableError(Exception):
    """The sidecar cannot be changed without risk; the message says why."""


def decoded(content: bytes) -> tuple[str, Callable[[str], bytes]]:
    """The text, and what turns it into bytes of the same encoding again."""
    mark, encoding = next(
        ((mark, name) for mark, name in _BOMS if content.startswith(mark)), (b"", "")
    )
    body = content[len(mark) :]
    if not encoding:
        head = body[:4]
        if head.startswith(b"<\0"):
            encoding = "utf-16-le"
        elif head.startswith(b"\0<"):
            encoding = "utf-16-be"
        else:
            declared = _DECLARED.match(body[:200].decode("latin-1"))
            encoding = declared[1].lower() if declared else "utf-8"
    try:
        text = body.decode(encoding)
        if text.encode(encoding) != body:
            raise UneditableError(f"its encoding {encoding} cannot be written back as it is")
    except LookupError:
        raise UneditableError(f"its encoding {encoding} is not known") from None
    except UnicodeError:
        raise UneditableError(f"it is not sound {encoding} text") from None
    return text, lambda changed: mark + changed.encode(encoding, "xmlcharrefreplace")


# --- where everything stands ------------------------------------------------------------------


@dataclass
class Entry:
    """One rdf:li: where it stands, in characters, and what it says."""

    start: int
    end: int = 0
    text: str = ""


@dataclass
class Element:
    """An element of interest: where its start tag, its content and itself begin and end."""

    kind: str  # "rdf", "description", "property", "container"
    name: tuple[str, str]  # namespace, local name
    tag: str  # as written, with its prefix
    start: int
    inside: int  # after the start tag
    is_empty: bool  # written as <a/>
    prefixes: dict[str, str]  # prefix: namespace, in scope inside
    close: int = 0  # where the end tag begins
    end: int = 0
    container: Element | None = None
    entries: list[Entry] = field(default_factory=list)
    text: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Element] = field(default_factory=list)


@dataclass
class Document:
    rdf: Element | None = None

    def find(self, prop: Property) -> Element | None:
        """The property's element, in whichever description it stands."""
        for description in self.rdf.children if self.rdf else ():
            if f"{prop[0]} {prop[1]}" in description.attributes:
                raise UneditableError(f"{prop[2]}:{prop[1]} is written as an attribute")
            for child in description.children:
                if child.name == prop[:2]:
                    return child
        return None


class _Reader:
    """Follows expat's events; offsets are in the UTF-8 bytes it is given."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._open: list[Element | None] = []
        self._scopes: list[dict[str, str]] = [{"xml": "http://www.w3.org/XML/1998/namespace"}]
        self._declared: dict[str, str] = {}
        self._entry: Entry | None = None
        self._entry_depth = 0
        self.document = Document()
        self._parser = expat.ParserCreate("utf-8", " ")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._parser.StartNamespaceDeclHandler = self._declare
        self._parser.StartDoctypeDeclHandler = self._refuse

    def read(self) -> Document:
        try:
            self._parser.Parse(self._data, True)
        except expat.ExpatError as error:
            raise UneditableError(f"its XML is broken: {error}") from None
        if self.document.rdf is None:
            raise UneditableError("it holds no XMP (there is no rdf:RDF)")
        return self.document

    def _refuse(self, *_: object) -> None:
        raise UneditableError("it declares a document type")

    def _declare(self, prefix: str | None, uri: str | None) -> None:
        self._declared[prefix or ""] = uri or ""

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self._open) > _MAX_DEPTH:
            raise UneditableError("its elements are nested too deeply")
        scope = {**self._scopes[-1], **self._declared}
        self._declared = {}
        self._scopes.append(scope)
        above = self._open[-1] if self._open else None
        namespace, _, local = name.rpartition(" ")
        kind = _kind(above, namespace, local)
        if kind == "entry" and above is not None and self._entry is None:
            self._entry, self._entry_depth = Entry(self._parser.CurrentByteIndex), len(self._open)
        element = None
        if kind not in ("", "entry"):
            element = self._element(kind, (namespace, local), scope, attributes)
            self._attach(above, element)
        self._open.append(element)

    def _element(
        self,
        kind: str,
        name: tuple[str, str],
        scope: dict[str, str],
        attributes: dict[str, str],
    ) -> Element:
        start = self._parser.CurrentByteIndex
        inside = _tag_end(self._data, start)
        written = re.match(rb"<([^\s/>]+)", self._data[start:inside])
        assert written is not None  # noqa: S101 - expat has seen a start tag here
        return Element(
            kind,
            name,
            written[1].decode(),
            start,
            inside,
            self._data[inside - 2 : inside] == b"/>",
            scope,
            attributes=attributes,
        )

    def _attach(self, above: Element | None, element: Element) -> None:
        if element.kind == "rdf":
            if self.document.rdf is not None:
                raise UneditableError("it holds more than one rdf:RDF")
            self.document.rdf = element
        elif above is not None and element.kind == "container":
            if above.container is not None:
                raise UneditableError(f"{above.tag} holds more than one list")
            above.container = element
        elif above is not None:
            above.children.append(element)

    def _end(self, _: str) -> None:
        element = self._open.pop()
        self._scopes.pop()
        at = self._parser.CurrentByteIndex
        if self._entry is not None and len(self._open) == self._entry_depth:
            entry, self._entry = self._entry, None
            inside = _tag_end(self._data, entry.start)
            is_empty = self._data[inside - 2 : inside] == b"/>"
            entry.end = inside if is_empty else _tag_end(self._data, at)
            owner = self._open[-2] if len(self._open) > 1 else None
            if owner is not None:
                owner.entries.append(entry)
        elif element is not None:
            element.close = element.inside if element.is_empty else at
            element.end = element.inside if element.is_empty else _tag_end(self._data, at)

    def _text(self, data: str) -> None:
        if self._entry is not None:
            self._entry.text += data
        elif self._open and self._open[-1] is not None:
            self._open[-1].text += data


def _kind(above: Element | None, namespace: str, local: str) -> str:
    """What an element is to us, by where it stands; "" for what is only passed over."""
    if above is None:
        return "rdf" if (namespace, local) == (RDF, "RDF") else ""
    if above.kind == "rdf":
        return "description"
    if above.kind == "description":
        return "property"
    if above.kind == "property" and namespace == RDF and local in ("Bag", "Seq", "Alt"):
        return "container"
    if above.kind == "container" and (namespace, local) == (RDF, "li"):
        return "entry"
    return ""


def _tag_end(data: bytes, start: int) -> int:
    """The position after the tag that begins at ``start``; quoted text may hold a >."""
    quote = 0
    for position in range(start, len(data)):
        byte = data[position]
        if quote:
            quote = 0 if byte == quote else quote
        elif byte in b"\"'":
            quote = byte
        elif byte == ord(">"):
            return position + 1
    raise UneditableError("a tag has no end")


def parsed(text: str) -> Document:
    # A declared encoding would contradict the one given here, which expat lets win.
    return _Reader(text.encode("utf-8")).read()
