"""Keywords into an XMP sidecar by changing its text, so that every byte that is not ours stays.

Nothing is parsed and written again: a parser says where in the bytes the properties stand, and
entries are inserted there or removed. What we add is listed in a property of our own besides, so
that it is told from the user's keywords when the sidecar is read (``MODEL_TAGS``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from indexer.xmp import DUBLIN_CORE, LIGHTROOM, MODEL_TAGS, OWN_NAMESPACE, RDF
from indexer.xmp_text import Document, Element, Property, UneditableError, decoded, parsed

SUBJECT = (DUBLIN_CORE, "subject", "dc")
HIERARCHY = (LIGHTROOM, "hierarchicalSubject", "lr")
OURS = (OWN_NAMESPACE, MODEL_TAGS, "clipsearch")

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
    text, restore = decoded(_NEW.encode() if content is None else content)
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
    parsed(text)  # what we made must be sound, whatever it was made of
    return restore(text)


def _folded(names: Iterable[str]) -> dict[str, str]:
    """Names by how they compare, the first of those that differ only in case."""
    found: dict[str, str] = {}
    for name in names:
        found.setdefault(name.casefold(), name)
    return found


def _keywords(text: str) -> dict[Property, list[str]]:
    document = parsed(text)
    found: dict[Property, list[str]] = {}
    for prop in (SUBJECT, HIERARCHY, OURS):
        element = document.find(prop)
        found[prop] = [] if element is None else [entry.text for entry in element.entries]
    return found


def _changed(text: str, prop: Property, wanted: Sequence[str], gone: Collection[str]) -> str:
    """The text with entries more and less in one property."""
    if not wanted and not gone:
        return text
    data = text.encode("utf-8")
    document = parsed(text)
    element = document.find(prop)
    newline = "\r\n" if "\r\n" in text else "\n"
    if element is None:
        edited = _with_property(data, document, prop, wanted, newline) if wanted else data
    else:
        edited = _with_entries(data, element, wanted, gone)
    return edited.decode("utf-8")


def _with_entries(
    data: bytes, element: Element, wanted: Sequence[str], gone: Collection[str]
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


def _filled(data: bytes, element: Element, inner: bytes) -> bytes:
    """The element with other content; <a/> becomes <a>...</a>."""
    if element.is_empty:
        opened = data[: element.inside - 2].rstrip() + b">"
        return opened + inner + f"</{element.tag}>".encode() + data[element.end :]
    return data[: element.inside] + inner + data[element.close :]


def _with_property(
    data: bytes, document: Document, prop: Property, wanted: Sequence[str], newline: str
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


def _indent_inside(data: bytes, element: Element, newline: str) -> str:
    """A line break and the indentation of what stands in an element, or "" in one long line."""
    if element.children:
        return _blanks_before(data, element.children[0].start).decode()
    outer = _blanks_before(data, element.start).decode()
    return f"{newline}{outer.lstrip(chr(13) + chr(10))} " if outer else ""


def _escaped(name: str) -> str:
    return escape(name)
