"""Keywords into an XMP sidecar by changing its text, so that every byte that is not ours stays.

Nothing is parsed and written again: a parser says where in the bytes the properties stand, and
entries are inserted there or removed. What we add is listed in a property of our own besides, so
that it is told from the user's keywords when the sidecar is read (``MODEL_TAGS``).
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from xml.parsers import expat  # noqa: S407 - document types and entities are refused below
from xml.sax.saxutils import escape

from indexer.xmp import DUBLIN_CORE, LIGHTROOM, MODEL_TAGS, OWN_NAMESPACE, RDF

SUBJECT = (DUBLIN_CORE, "subject", "dc")
HIERARCHY = (LIGHTROOM, "hierarchicalSubject", "lr")
OURS = (OWN_NAMESPACE, MODEL_TAGS, "clipsearch")

Property = tuple[str, str, str]  # namespace, local name, usual prefix

_NEW = """\
<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="clipsearch">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:dc="http://purl.org/dc/elements/1.1/"
    xmlns:lr="http://ns.adobe.com/lightroom/1.0/">
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_DECLARED = re.compile(r"<\?xml[^>]*?\bencoding\s*=\s*[\"']([\w.-]+)[\"']", re.ASCII)
_MAX_DEPTH = 100


class UneditableError(Exception):
    """The sidecar cannot be changed without risk; the message says why."""


@dataclass
class Tags:
    """What a sidecar is to hold: the owner's keywords, and those of a model.

    Each is a name, or a path like "animal|dog". The owner's are added, never removed.
    """

    own: Sequence[str] = ()
    model: Sequence[str] = ()


def with_tags(content: bytes | None, tags: Tags) -> bytes:
    """A sidecar's bytes with these tags, or the same bytes if there is nothing to change.

    What an earlier call added and ``tags`` no longer has is removed. ``None``: a new sidecar.
    UneditableError for XML that is broken, no XMP, or of a form that cannot be changed safely.
    """
    text, restore = _decoded(_NEW.encode() if content is None else content)
    before = _keywords(text)
    ours = {name.casefold() for name in before[OURS]}
    own = _folded(tags.own)
    for prop in (SUBJECT, HIERARCHY):  # what is there and was not ours is the owner's
        own.update(_folded(name for name in before[prop] if name.casefold() not in ours))
    model = {key: name for key, name in _folded(tags.model).items() if key not in own}
    for prop, is_path in ((SUBJECT, False), (HIERARCHY, True)):
        there = _folded(before[prop])
        wanted = [
            name
            for name in [*tags.own, *model.values()]
            if ("|" in name) == is_path and name.casefold() not in there
        ]
        gone = {key for key in there if key in ours and key not in model and key not in own}
        text = _changed(text, prop, wanted, gone)
    stale = {key for key in ours if key not in model}
    new = [name for key, name in model.items() if key not in ours]
    text = _changed(text, OURS, new, stale)
    _parsed(text)  # what we made must be sound, whatever it was made of
    return restore(text)


def _folded(names: Iterable[str]) -> dict[str, str]:
    """Names by how they compare, the first of those that differ only in case."""
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(name.casefold(), name)
    return found


def _keywords(text: str) -> dict[Property, list[str]]:
    document = _parsed(text)
    found: dict[Property, list[str]] = {}
    for prop in (SUBJECT, HIERARCHY, OURS):
        element = document.find(prop)
        found[prop] = [] if element is None else [entry.text for entry in element.entries]
    return found


# --- the text and its encoding ----------------------------------------------------------------


def _decoded(content: bytes) -> tuple[str, Callable[[str], bytes]]:
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
class _Entry:
    """One rdf:li: where it stands, in characters, and what it says."""

    start: int
    end: int = 0
    text: str = ""


@dataclass
class _Element:
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
    container: _Element | None = None
    entries: list[_Entry] = field(default_factory=list)
    text: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[_Element] = field(default_factory=list)


@dataclass
class _Document:
    rdf: _Element | None = None

    def find(self, prop: Property) -> _Element | None:
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
        self._open: list[_Element | None] = []
        self._scopes: list[dict[str, str]] = [{"xml": "http://www.w3.org/XML/1998/namespace"}]
        self._declared: dict[str, str] = {}
        self._entry: _Entry | None = None
        self._entry_depth = 0
        self.document = _Document()
        self._parser = expat.ParserCreate("utf-8", " ")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._parser.StartNamespaceDeclHandler = self._declare
        self._parser.StartDoctypeDeclHandler = self._refuse

    def read(self) -> _Document:
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
            self._entry, self._entry_depth = _Entry(self._parser.CurrentByteIndex), len(self._open)
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
    ) -> _Element:
        start = self._parser.CurrentByteIndex
        inside = _tag_end(self._data, start)
        written = re.match(rb"<([^\s/>]+)", self._data[start:inside])
        assert written is not None  # noqa: S101 - expat has seen a start tag here
        return _Element(
            kind,
            name,
            written[1].decode(),
            start,
            inside,
            self._data[inside - 2 : inside] == b"/>",
            scope,
            attributes=attributes,
        )

    def _attach(self, above: _Element | None, element: _Element) -> None:
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


def _kind(above: _Element | None, namespace: str, local: str) -> str:
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


def _parsed(text: str) -> _Document:
    # A declared encoding would contradict the one given here, which expat lets win.
    return _Reader(text.encode("utf-8")).read()


# --- changing it ------------------------------------------------------------------------------


def _changed(text: str, prop: Property, wanted: Sequence[str], gone: Collection[str]) -> str:
    """The text with entries more and less in one property."""
    if not wanted and not gone:
        return text
    data = text.encode("utf-8")
    document = _parsed(text)
    element = document.find(prop)
    newline = "\r\n" if "\r\n" in text else "\n"
    if element is None:
        edited = _with_property(data, document, prop, wanted, newline) if wanted else data
    else:
        edited = _with_entries(data, element, wanted, gone)
    return edited.decode("utf-8")


def _with_entries(
    data: bytes, element: _Element, wanted: Sequence[str], gone: Collection[str]
) -> bytes:
    container = element.container
    rdf = _prefix(element.prefixes, RDF)
    odd = [name for name in element.attributes if not name.endswith(" lang")]
    if odd:
        raise UneditableError(f"{element.tag} has attributes, so it is not a plain list")
    items = "".join(f"<{rdf}li>{_escaped(name)}</{rdf}li>" for name in wanted)
    if container is None:  # a single value where a list belongs, or nothing at all
        if element.children or "<" in data[element.inside : element.close].decode():
            raise UneditableError(f"{element.tag} is no list")
        value = data[element.inside : element.close].decode()
        first = f"<{rdf}li>{value}</{rdf}li>" if value.strip() else ""
        inner = f"<{rdf}Bag>{first}{items}</{rdf}Bag>"
        return _filled(data, element, inner.encode())
    if container.is_empty:
        return _filled(data, container, items.encode()) if items else data
    pieces, at = [], 0
    for entry in element.entries:
        if entry.text.casefold() in gone:
            begin = entry.start  # with the blanks before it
            while data[begin - 1 : begin].isspace():
                begin -= 1
            pieces.append(data[at:begin])
            at = entry.end
    last = element.entries[-1] if element.entries else None
    if last is None:
        pieces.append(data[at : container.inside])
        at = container.inside
        gap = b""
    else:
        pieces.append(data[at : last.end])
        at = max(at, last.end)
        gap = _blanks_before(data, last.start)
    pieces += [gap + f"<{rdf}li>{_escaped(name)}</{rdf}li>".encode() for name in wanted]
    return b"".join([*pieces, data[at:]])


def _filled(data: bytes, element: _Element, inner: bytes) -> bytes:
    """The element with other content; <a/> becomes <a>...</a>."""
    if element.is_empty:
        opened = data[: element.inside - 2].rstrip() + b">"
        return opened + inner + f"</{element.tag}>".encode() + data[element.end :]
    return data[: element.inside] + inner + data[element.close :]


def _with_property(
    data: bytes, document: _Document, prop: Property, wanted: Sequence[str], newline: str
) -> bytes:
    rdf_element = document.rdf
    assert rdf_element is not None  # noqa: S101 - _Reader.read refuses a document without
    plain = [
        child
        for child in rdf_element.children
        if child.name == (RDF, "Description") and f"{RDF} parseType" not in child.attributes
    ]
    if rdf_element.children and not plain:
        raise UneditableError("it describes nothing with rdf:Description")
    target = plain[0] if plain else rdf_element
    rdf = _prefix(target.prefixes, RDF)
    indent = _indent_inside(data, target, newline)
    step = " " if indent else ""
    if not plain:
        made = _property(target.prefixes, prop, wanted, indent + step, step)
        name = f"{rdf}Description"
        made = f'{indent}<{name} {rdf or "rdf:"}about="">{made}{indent}</{name}>'
        if not rdf:
            raise UneditableError("it has no rdf:Description, and rdf: is its default namespace")
    else:
        made = _property(target.prefixes, prop, wanted, indent, step)
    if target.is_empty:
        outer = _blanks_before(data, target.start).decode()
        opened = data[: target.inside - 2].rstrip() + b">"
        end = f"{outer if indent else ''}</{target.tag}>"
        return opened + made.encode() + end.encode() + data[target.end :]
    at = target.close
    while data[at - 1 : at].isspace() and at > target.inside:  # before the end tag's own indent
        at -= 1
    return data[:at] + made.encode() + data[at:]


def _property(
    prefixes: dict[str, str], prop: Property, wanted: Sequence[str], indent: str, step: str
) -> str:
    namespace, local, usual = prop
    rdf = _prefix(prefixes, RDF)
    known = [name for name, uri in prefixes.items() if uri == namespace and name]
    prefix = known[0] if known else usual
    declaration = "" if known else f' xmlns:{usual}="{namespace}"'
    items = "".join(f"{indent}{step * 2}<{rdf}li>{_escaped(n)}</{rdf}li>" for n in wanted)
    return (
        f"{indent}<{prefix}:{local}{declaration}>{indent}{step}<{rdf}Bag>{items}"
        f"{indent}{step}</{rdf}Bag>{indent}</{prefix}:{local}>"
    )


def _prefix(prefixes: dict[str, str], namespace: str) -> str:
    """ "rdf:" as it is bound in scope, or "" for the default namespace."""
    named = [name for name, uri in prefixes.items() if uri == namespace]
    best = next((name for name in named if name), "")
    return f"{best}:" if best else ""


def _blanks_before(data: bytes, at: int) -> bytes:
    """The line break and indentation before a place, or nothing if text stands there."""
    begin = at
    while begin and data[begin - 1 : begin].isspace():
        begin -= 1
    blanks = data[begin:at]
    cut = max(blanks.rfind(b"\r\n"), blanks.rfind(b"\n") if b"\r\n" not in blanks else -1)
    return blanks[cut:] if cut >= 0 else b""


def _indent_inside(data: bytes, element: _Element, newline: str) -> str:
    """A line break and the indentation of what stands in an element, or "" in one long line."""
    if element.children:
        return _blanks_before(data, element.children[0].start).decode()
    outer = _blanks_before(data, element.start).decode()
    return f"{newline}{outer.lstrip(chr(13) + chr(10))} " if outer else ""


def _escaped(name: str) -> str:
    return escape(name)
