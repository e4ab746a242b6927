"""Tags in sidecars: what is not ours stays byte for byte, undo is exact, and nothing comes back."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from word_encoder import WordEncoder, library_of

import clipsearch
from clipsearch.cli import main
from clipsearch.config import resolve
from clipsearch.library import Library
from clipsearch.tagging.vocabulary import parse_vocabulary
from indexer.sidecar_writing import sidecar_of, undo_sidecars, write_sidecars
from indexer.sidecars import describe
from indexer.xmp import read_xmp
from indexer.xmp_text import UneditableError
from indexer.xmp_writing import Tags, with_tags

RDF = 'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"'
DC = 'xmlns:dc="http://purl.org/dc/elements/1.1/"'
TAGS = Tags(["beach", "trip|2023"], ["dog", "animal", "animal|dog"])
BAG = "<rdf:Bag><rdf:li>mine</rdf:li></rdf:Bag>"

# What other programs leave; something of ours may be inserted at @, and only there.
FOREIGN = {
    "attributes": f'<rdf:RDF {RDF}><rdf:Description a:x="1" xmlns:a="urn:a#"@/@></rdf:RDF>',
    "elements": f'<rdf:RDF {RDF}>\n <rdf:Description rdf:about="" xmlns:a="urn:a#">\n'
    "  <a:x>1 &amp; 2</a:x>@\n </rdf:Description>\n</rdf:RDF>",
    "keywords": f"<rdf:RDF {RDF} {DC}><rdf:Description><dc:subject><rdf:Bag>\n"
    "\t<rdf:li>mine</rdf:li>@\n</rdf:Bag></dc:subject>@</rdf:Description></rdf:RDF>",
    "other prefixes": f'<r:RDF xmlns:r="{RDF[11:-1]}"><r:Description xmlns:d="{DC[10:-1]}">'
    "<d:subject><r:Bag><r:li>mine</r:li>@</r:Bag></d:subject>@</r:Description></r:RDF>",
    "default namespace": f'<RDF xmlns="{RDF[11:-1]}"><Description {DC}><dc:subject><Bag>'
    "<li>mine</li>@</Bag></dc:subject>@</Description></RDF>",
    "empty bag": f"<rdf:RDF {RDF} {DC}><rdf:Description><dc:subject><rdf:Bag@/@></dc:subject>@"
    "</rdf:Description></rdf:RDF>",
    "no description": f"<rdf:RDF {RDF}>@</rdf:RDF>",
    "two descriptions": f'<rdf:RDF {RDF}><rdf:Description xmlns:a="urn:a#" a:x=">"@/@>'
    f"<rdf:Description {DC}><dc:subject>{BAG[:-10]}@</rdf:Bag></dc:subject></rdf:Description>"
    "</rdf:RDF>",
    "packet": '<?xpacket begin="\ufeff" id="W5M0"?>\r\n<x:xmpmeta xmlns:x="adobe:ns:meta/">\r\n'
    f' <rdf:RDF {RDF}>\r\n  <rdf:Description a:y="é" xmlns:a="urn:a#">\r\n  @</rdf:Description>'
    '\r\n </rdf:RDF>\r\n</x:xmpmeta>\r\n<!-- c --><?xpacket end="w"?>\r\n   \r\n',
}  # fmt: skip
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-be")


def without_insertions(after: str, template: str) -> bool:
    """True if ``after`` is the template with something at its marks, and nothing else changed."""
    at = 0
    *parts, last = template.split("@")
    for part in parts:
        found = after.find(part, at)
        if found < 0 or (at == 0 and found != 0):
            return False
        at = found + len(part)
    return after.endswith(last) or last == "/>"


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", FOREIGN)
def test_what_others_wrote_stays_byte_for_byte(name: str, encoding: str) -> None:
    template = FOREIGN[name]
    before = template.replace("@", "").encode(encoding)
    after = with_tags(before, TAGS)
    # An empty element is opened: its "/" is what goes, and its end tag what comes.
    kept = template.replace("@/@>", "@")
    assert without_insertions(after.decode(encoding), kept)
    said = read_xmp(after).keywords
    mine = ["mine"] if "mine" in template else []
    assert said == [*mine, "beach", "2023", "trip|2023"]  # a model's are nobody's word
    assert with_tags(after, TAGS) == after
    # Everything we added can be taken out again, the user's stay.
    emptied = with_tags(after, Tags())
    assert read_xmp(emptied).keywords == said
    assert b"dog" not in emptied.replace("dog".encode(encoding.replace("-sig", "")), b"dog")


@settings(max_examples=60)
@given(
    own=st.lists(
        st.text(st.characters(categories=["L", "P", "S"]), min_size=1, max_size=8), max_size=4
    ),
    model=st.lists(st.sampled_from(["dog", "a<b", "x&y", "ünï", "]]>"]), max_size=4, unique=True),
    name=st.sampled_from(sorted(FOREIGN)),
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_any_keywords_are_written_and_read_back(
    own: list[str], model: list[str], name: str, newline: str
) -> None:
    own = [text for text in own if "|" not in text and ";" not in text]
    before = FOREIGN[name].replace("@", "").replace("\r\n", "\n").replace("\n", newline).encode()
    after = with_tags(before, Tags(own, model))
    assert with_tags(after, Tags(own, model)) == after
    wanted = {text.casefold() for text in own if any(map(str.isalnum, text))}
    assert wanted <= {text.casefold() for text in read_xmp(after).keywords} | {"mine"}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"<rdf:RDF", "broken"),
        (b"", "broken"),
        (f"<rdf:RDF {RDF}><rdf:Description></rdf:RDF>".encode(), "broken"),
        (b"<x/>", "no XMP"),
        (f"<!DOCTYPE a [<!ENTITY e 'x'>]><rdf:RDF {RDF}/>".encode(), "document type"),
        (f"<rdf:RDF {RDF}>\xe9</rdf:RDF>".encode("latin-1"), "not sound utf-8"),
        (f"<rdf:RDF {RDF}><rdf:Description {DC} dc:subject='x'/></rdf:RDF>".encode(), "attribute"),
        (
            f"<rdf:RDF {RDF}><rdf:Description {DC}><dc:subject rdf:resource='x'/>"
            "</rdf:Description></rdf:RDF>".encode(),
            "attributes",
        ),
        (b'<?xml version="1.0" encoding="klingon"?><a/>', "not known"),
    ],
)
def test_what_cannot_be_changed_safely_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(UneditableError, match=why):
        with_tags(content, TAGS)


def test_a_tag_that_its_owner_took_over_is_the_owners() -> None:
    by_model = with_tags(None, Tags([], ["dog", "cat"]))
    assert read_xmp(by_model).keywords == []
    taken_over = with_tags(by_model, Tags(["dog"], ["car"]))
    assert read_xmp(taken_over).keywords == ["dog"]
    assert b"cat" not in taken_over
    assert b"<rdf:li>car</rdf:li>" in taken_over


def test_other_programs_read_what_we_write(tmp_path: Path) -> None:
    tools = [tool for tool in ("exiftool", "exiv2") if shutil.which(tool)]
    if not tools:
        pytest.skip("neither exiftool nor exiv2 is installed")
    file = tmp_path / "photo.xmp"
    for before in (None, FOREIGN["packet"].replace("@", "").encode("utf-8-sig")):
        file.write_bytes(with_tags(before, TAGS))
        if "exiftool" in tools:
            done = subprocess.run(
                ["exiftool", "-j", "-Subject", "-HierarchicalSubject", str(file)],
                capture_output=True, text=True, timeout=60, check=True,
            )  # fmt: skip
            (said,) = json.loads(done.stdout)
            assert said["Subject"] == ["beach", "dog", "animal"]
            assert said["HierarchicalSubject"] == ["trip|2023", "animal|dog"]
        if "exiv2" in tools:
            done = subprocess.run(
                ["exiv2", "-px", str(file)],
                capture_output=True, text=True, timeout=60, check=True,
            )  # fmt: skip
            assert "beach, dog, animal" in done.stdout
            assert "trip|2023, animal|dog" in done.stdout


# --- files ------------------------------------------------------------------------------------


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    """Twelve pictures of dogs and twelve others, tagged; the files are there."""
    photos = tmp_path / "photos"
    photos.mkdir()
    shown = {f"{n}.jpg": f"dog thing{n}" if n < 12 else f"noise{n} more{n}" for n in range(24)}
    for name in shown:
        (photos / name).write_bytes(b"a photo.")
        os.utime(photos / name, ns=(1, 1))
    encoder = WordEncoder()
    with library_of(tmp_path / "t.clipsearch", photos, shown, encoder) as opened:
        words = parse_vocabulary("animal\n    dog\n", name="mine", path=Path("mine.txt"))
        options = {"settings": resolve({"cache_dir": tmp_path / "cache"})}
        clipsearch.tag(opened, words, encoder=encoder, **options)
        yield opened


def photo(library: Library, name: str) -> Path:
    return library.roots()[0].path / name


def everything(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_sidecars_are_written_on_request_and_undone_exactly(library: Library) -> None:
    folder = photo(library, "")
    (folder / "0.xmp").write_text(FOREIGN["keywords"].replace("@", ""))
    (folder / "1.jpg.xmp").write_bytes(FOREIGN["packet"].replace("@", "").encode("utf-16"))
    (folder / "2.xmp").write_text("<broken")
    (folder / "0.xmp").chmod(0o600)
    before = everything(folder)
    dry = list(write_sidecars(library, dry_run=True))
    assert everything(folder) == before
    changes = list(write_sidecars(library))
    assert changes == dry
    done = {change.path.name: change.done for change in changes}
    assert done == {
        "0.xmp": "written",
        "1.jpg.xmp": "written",
        "2.xmp": "refused",
        **{f"{n}.jpg.xmp": "written" for n in range(3, 12)},
    }
    assert stat.S_IMODE((folder / "0.xmp").stat().st_mode) == 0o600
    after = everything(folder)
    assert all(after[name] == b"a photo." for name in before if name.endswith("jpg"))
    assert b"<rdf:li>animal|dog</rdf:li>" in after["0.xmp"]
    assert list(write_sidecars(library)) == [c for c in changes if c.done == "refused"]
    # One is changed by somebody else; it is refused by name, all others are as they were.
    (folder / "3.jpg.xmp").write_bytes(after["3.jpg.xmp"] + b"\n")
    undone = {change.path.name: change.done for change in undo_sidecars(library)}
    assert undone.pop("3.jpg.xmp") == "refused"
    assert (undone.pop("0.xmp"), undone.pop("1.jpg.xmp")) == ("restored", "restored")
    assert set(undone.values()) == {"removed"}
    assert everything(folder) == {**before, "3.jpg.xmp": after["3.jpg.xmp"] + b"\n"}
    assert [one.path.name for one in library.tags.written_sidecars()] == ["3.jpg.xmp"]


def test_undo_goes_back_to_before_the_first_of_several_writings(library: Library) -> None:
    file = photo(library, "0.xmp")
    file.write_text(FOREIGN["keywords"].replace("@", ""))
    before = file.read_bytes()
    (item,) = library.tags.items_at(photo(library, "0.jpg"))
    list(write_sidecars(library, [item]))
    with library.writer() as writer:
        writer.tags.add_by_hand([item], "holiday")
    list(write_sidecars(library, [item]))
    assert b"holiday" in file.read_bytes()
    assert [change.done for change in undo_sidecars(library)] == ["restored"]
    assert file.read_bytes() == before


def test_a_sidecar_goes_where_other_programs_look(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    file.touch()
    assert sidecar_of(file).name == "a.jpg.xmp"
    assert sidecar_of(file, "stem").name == "a.xmp"
    (tmp_path / "A.XMP").touch()
    assert sidecar_of(file).name == "A.XMP"
    (tmp_path / "a.jpg.xmp").touch()
    assert sidecar_of(file).name == "a.jpg.xmp"
    (tmp_path / "a.jpg.xmp").unlink()
    (tmp_path / "a.cr2").touch()  # a.xmp would speak of both
    assert sidecar_of(file).name == "a.jpg.xmp"


def test_a_sidecar_of_another_photo_is_never_written_to(tmp_path: Path) -> None:
    for name in ("I.JPG", "i.jpg", "J.jpg", "K.jpg", "K.CR2", "\u00e9.jpg", "e\u0301.jpg"):
        (tmp_path / name).touch()
    for name in ("I.JPG.xmp", "I.xmp", "J.xmp", "K.xmp", "\u00e9.jpg.xmp"):
        (tmp_path / name).touch()
    owner = (
        'photoshop:SidecarForExtension="NEF" xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"'
    )
    (tmp_path / "J.xmp").write_text(
        f"<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF {RDF}><rdf:Description {owner}/></rdf:RDF>"
        "</x:xmpmeta>"
    )
    for naming in ("full", "stem"):
        for name in ("I.JPG", "i.jpg", "J.jpg", "K.jpg", "\u00e9.jpg"):
            assert sidecar_of(tmp_path / name, naming).name == f"{name}.xmp", naming
    assert sidecar_of(tmp_path / "e\u0301.jpg").name == "e\u0301.jpg.xmp"
    (tmp_path / "J.xmp").unlink()
    assert sidecar_of(tmp_path / "J.jpg", "stem").name == "J.xmp"


def test_what_leads_away_from_the_photo_or_is_another_photo_now_is_refused(
    library: Library, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "other.xmp").write_bytes(b"")
    photo(library, "0.jpg.xmp").symlink_to(elsewhere / "other.xmp")
    os.mkfifo(photo(library, "1.jpg.xmp"))
    photo(library, "1.xmp").mkdir()
    photo(library, "2.jpg").write_bytes(b"no dog.")
    photo(library, "3.jpg").unlink()
    items = library.tags.items_at(photo(library, "").resolve())[:5]
    reasons = [change.reason for change in write_sidecars(library, items)]
    assert "is a link to" in reasons[0]
    assert "regular file" in reasons[1]
    assert "has changed since" in reasons[2]
    assert "No such file" in reasons[3]
    assert not reasons[4]
    assert (elsewhere / "other.xmp").read_bytes() == b""
    # Links to a photo and to its own sidecar beside it are one as the other.
    photo(library, "5.jpg").rename(elsewhere / "5.jpg")
    photo(library, "5.jpg").symlink_to(elsewhere / "5.jpg")
    (elsewhere / "5.jpg.xmp").write_text(FOREIGN["keywords"].replace("@", ""))
    photo(library, "5.jpg.xmp").symlink_to(elsewhere / "5.jpg.xmp")
    (item,) = library.tags.items_at(photo(library, "5.jpg"))
    (change,) = write_sidecars(library, [item])
    assert (change.path, change.done) == ((elsewhere / "5.jpg.xmp").resolve(), "written")


def test_keywords_of_the_picture_itself_are_not_lost_behind_a_new_sidecar(
    library: Library,
) -> None:
    """A sidecar's keywords replace the picture's, so a new one has to repeat them."""
    from clipsearch.library import Batch, Description

    (item,) = library.tags.items_at(photo(library, "0.jpg"))
    record = library.items([item])[item]
    said = Description(record.content_hash, None, {}, tags=(("Lisbon", "iptc"),))
    with library.writer() as writer:
        writer.commit(Batch(descriptions=[said]))
    list(write_sidecars(library, [item]))
    written = photo(library, "0.jpg.xmp").read_bytes()
    found = describe(said_by_picture(), {"0.jpg.xmp": written})
    assert [keyword.name for keyword in found.keywords] == ["Lisbon"]


def said_by_picture() -> Any:
    from indexer.fields import PhotoMetadata

    return PhotoMetadata(keywords=("Lisbon",), keyword_origins=("iptc",))


def test_the_command_line_from_words_to_sidecars_and_back(
    embedded_library: Path,
    real_photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    photos, mine = tmp_path / "photos", tmp_path / "mine.txt"
    shutil.copytree(real_photos, photos)
    path = shutil.copytree(embedded_library, tmp_path / "t.clipsearch")
    mine.write_text("animal\n    cat\ncoffee | cup of coffee\nmotorcycle\nzeppelin\n")

    def run(*arguments: str | Path, code: int = 0) -> list[dict[str, Any]]:
        told = main([*map(str, arguments), "--library", str(path), "--json"])
        shown = capsys.readouterr()
        assert told == code, shown.err
        return [json.loads(line) for line in shown.out.splitlines()]

    run("roots", "move", real_photos.resolve(), photos)
    *_, summary = run("tag", "--vocabulary", mine)
    assert summary["concepts"] == 5
    tags = {tag["name"]: tag["model"] for tag in run("tags", "--by", "model")}
    assert tags["cat"] >= 1
    assert tags["animal"] >= tags["cat"]
    assert "zeppelin" not in tags
    mine_flags = ("--vocabulary", "mine")
    queue = run("review", "cat", "--limit", "3", *mine_flags)
    assert len(queue) == 3
    other = next(d for d in queue if not d["path"].endswith("cat.png"))
    run("review", "--reject", str(other["item"]), "cat")  # of the vocabulary that was used last
    assert run("review", "cat", "--limit", "2") == run("review", "cat", "--limit", "2", *mine_flags)
    run("review", "--vocabulary", "everyday", code=90)
    assert [a["accepted"] for a in run("tags", "--answers")] == [False]
    assert run("tag", "--add", "pet", photos / "cat.png")[0]["added"] == 1
    run("tag", "--add", "pet", tmp_path / "nothing.jpg", code=26)
    run("tag", "--vocabulary", tmp_path / "none.txt", code=91)
    run("tag", photos, code=2)
    written = run("tag", "--write-xmp", photos / "cat.png")
    assert written[-1]["written"] == 1
    sidecar = (photos / "cat.png.xmp").read_text()
    assert "<rdf:li>pet</rdf:li>" in sidecar
    assert "<rdf:li>animal|cat</rdf:li>" in sidecar
    # Our own sidecar is read at the next scan: what a model said in it is not the user's.
    run("index")
    with clipsearch.open_library(path) as library:
        (item,) = library.tags.items_at(photos / "cat.png")
        given = [(tag.name, tag.source, tag.origin) for tag in library.tags.of_items([item])]
    assert ("pet", "user", "xmp-sidecar") in given
    assert ("cat", "model", "mine") in given
    assert not [name for name, source, _ in given if source == "user" and name != "pet"]
    assert run("tag", "--undo")[-1]["removed"] == 1
    assert not (photos / "cat.png.xmp").exists()
    assert run("tag", "--clear", "--vocabulary", mine)[0]["removed"] > 0
    assert run("tags", "--by", "model") == []
