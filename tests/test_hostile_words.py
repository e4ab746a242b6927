"""Words that would be markup, code or formulas stay words, on every face that shows them.

Names of files, titles, captions, tags, cameras, places, albums, learned names and vocabularies are
other people's text: a photo that was downloaded brings its own.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import quote

import numpy as np
import pytest
from docs_blocks import clipsearch
from once import made_once
from serving import Served, running_server

from clipsearch.hits import SearchHit
from clipsearch.library import Library
from clipsearch.meaning_map import MeaningMap, Region, write_map
from clipsearch.sheet import write_sheet

HARM = "window.harmed=1;document.title='harmed';alert(1)"
# What would do harm where it is taken for markup, a script, a template, a formula or a link.
WORDS = [
    f"<img src=x onerror={HARM}>",
    f"\"'><script>{HARM}</script>",
    f"</script><script>{HARM}</script>",
    f"<svg onload={HARM}>",
    f"</textarea></title></style></dialog><iframe srcdoc='<script>{HARM}</script>'>",
    f"javascript:{HARM}",
    f"[x](javascript:{HARM})",
    f"' onmouseover='{HARM}' autofocus onfocus='{HARM}",
    f'" onmouseover="{HARM}" autofocus onfocus="{HARM}',
    "{{7*7}} {% raw %} ${7*7} #{7*7} <%= 7*7 %>",
    '=HYPERLINK("http://127.0.0.1/?"&A1,"x")',
    "+1+cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "-1+1",
    "&lt;b&gt; &amp; &#60;script&#62;",
    "-->]]><!--<![CDATA[",
    "\u202e\u2066gnp.exe\u2069\u200f",
    "a\u0000b\u0085c\u2028d",
    "\ud800 lone \udfff",
    "tab\tline\nfeed\rreturn",
    "#EXTINF:1,x",
]
FILES = [
    f"<img src=x onerror={HARM}>.png",
    f"\"'><script>{HARM}<&.png",
    f"' onmouseover='{HARM}.png",
    "{{7*7}}{% raw %}.png",
    "=1+1.png",
    "@SUM(1).png",
    "#EXTM3U.png",
    "javascript:alert(1).png",
    "\u202egnp.exe.png",
    "line\nbreak.png",
    "tab\tback\\slash.png",
    os.fsdecode(b"\xff\xfe<b>.png"),
]
SPREADSHEET_STARTS = ("=", "+", "-", "@", "\t", "\r")
LONG = "<b>" + "long " * 200_000


TAGS = ["<script src=x", "<img src=x onerror=alert(1) x=", "=1+1", "{{7*7}}", "' onload='x"]
ALBUMS = [f"<script>{HARM}</script>", "=1+1", "line\nbreak\r#EXTINF"]
NAME = "Rex<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def folder(shared: Path, tiny_model_dir: Path) -> Path:
    """Photos with hostile names and words of every origin, and their library; for reading."""
    return made_once(shared / "hostile", lambda folder: _make(folder, tiny_model_dir))


@pytest.fixture
def library(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, the one that commands use; the current folder is the test's own."""
    copy = tmp_path / "library"
    shutil.copytree(folder / "library", copy)
    monkeypatch.setenv("CLIPSEARCH_LIBRARY", str(copy))
    monkeypatch.chdir(tmp_path)
    return copy


def _make(folder: Path, model: Path) -> None:
    from PIL import Image

    photos = folder / "photos <b>&"
    photos.mkdir(parents=True)
    for number, name in enumerate(FILES):
        colour = (17 * number % 256, 59 * number % 256, 200)
        Image.new("RGB", (40 + number, 30), colour).save(photos / name)
    for number, words in enumerate([*WORDS, LONG]):
        path = photos / f"photo{number}.jpg"
        exif = Image.Exif()
        exif[0x010F], exif[0x0110] = words[:80].encode("ascii", "replace").decode(), "<b>Model"
        Image.new("RGB", (50 + number, 40), (0, 9 * number, 90)).save(path, exif=exif)
        if number % 2:  # a Takeout JSON may hold what XML cannot
            said = {"title": words, "description": words, "people": [{"name": words}]}
            path.with_name(f"{path.name}.json").write_text(json.dumps(said))
        else:
            path.with_name(f"{path.name}.xmp").write_bytes(_xmp(words))
    vocabulary = folder / "evil'<b>.txt"
    vocabulary.write_text("".join(f"{word}\n" for word in [*TAGS, "dog"]), "utf-8")
    flags = ["--library", str(folder / "library")]
    photo = str(photos / "photo0.jpg")
    for command in (
        ["index", str(photos), "--model", f"local-dir:{model}", *flags],
        ["tag", "--vocabulary", str(vocabulary), "--quiet", *flags],
        *(["tag", f"--add={word}", photo, *flags] for word in WORDS),
        *(["albums", "save", word, "type:picture", *flags] for word in ALBUMS),
        ["learn", NAME, photo, *flags],
    ):
        done = clipsearch(command)
        # One name is no UTF-8, which is a failure of its own.
        assert done.code == (100 if command[0] == "index" else 0), f"{command}: {done.err}"


def _xmp(words: str) -> bytes:
    legal = "".join(
        c for c in words if c in "\t\n\r" or (c >= " " and not "\ud800" <= c <= "\udfff")
    )
    text = escape(legal)
    bags = "".join(
        f"<dc:{name}><rdf:{kind}><rdf:li xml:lang='x-default'>{text}</rdf:li></rdf:{kind}>"
        f"</dc:{name}>"
        for name, kind in (("title", "Alt"), ("description", "Alt"), ("subject", "Bag"))
    )
    return (
        "<x:xmpmeta xmlns:x='adobe:ns:meta/'>"
        "<rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>"
        "<rdf:Description xmlns:dc='http://purl.org/dc/elements/1.1/' "
        "xmlns:photoshop='http://ns.adobe.com/photoshop/1.0/' "
        f"photoshop:City='{text}' photoshop:Country='{text}'>{bags}</rdf:Description>"
        "</rdf:RDF></x:xmpmeta>"
    ).encode()


class Elements(HTMLParser):
    """What a browser would make of HTML: its elements, with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def require_harmless(self, scripts: int = 0) -> None:
        """Only elements of ours; no handlers; no addresses but data and paths of ours."""
        names = [tag for tag, _ in self.found]
        assert names.count("script") == scripts
        assert not {"iframe", "object", "embed", "base", "form", "link"} & set(names)
        for tag, attributes in self.found:
            assert not [name for name in attributes if name.startswith("on")], tag
            for name in ("src", "href", "srcdoc"):
                value = attributes.get(name) or "data:"
                assert value.startswith(("data:", "thumb/", "view/", "original/", "#")), (
                    tag,
                    value,
                )


def test_the_map_is_the_page_that_it_was_meant_to_be(library: Path, tmp_path: Path) -> None:
    with Library.open(library) as opened:
        items = opened.present_items().tolist()
        regions = [Region(words, np.array([at])) for at, words in enumerate([*WORDS, *TAGS])]
        laid_out = MeaningMap(items, np.zeros((len(items), 2)), regions, len(items))
        write_map(opened, laid_out, tmp_path / "map.html", title=WORDS[2])
    html = (tmp_path / "map.html").read_text("utf-8")
    Elements(html).require_harmless(scripts=1)
    data = json.loads(html.split("const data = ", 1)[1].split(";\n", 1)[0])
    assert set(FILES[:-1]) <= {Path(path).name for path in data["names"]}
    assert [region["name"] for region in data["regions"]] == [*WORDS, *TAGS]


def test_evaluate_and_train_write_reports_of_words_alone(library: Path, tmp_path: Path) -> None:
    from PIL import Image

    for number, name in enumerate(FILES[:4]):
        (tmp_path / "classes" / name).mkdir(parents=True)
        for copy in range(2):
            picture = Image.new("RGB", (40, 30 + copy), (60 * number, 0, 99))
            picture.save(tmp_path / "classes" / name / f"{copy}.png")
    parts = ["--parts", "zero-shot", "--html", "e.html"]
    done = clipsearch(["evaluate", "--data", "classes", *parts])
    assert done.code == 0, done.err
    Elements((tmp_path / "e.html").read_text("utf-8")).require_harmless()
    from training.evaluation import Retrieval
    from training.examples import Example
    from training.report_page import report_page

    recall = Retrieval(2, 2, {1: 1.0, 5: 1.0, 10: 1.0}, {1: 1.0, 5: 1.0, 10: 1.0}, 1, 1)
    report = SimpleNamespace(
        forgetting=SimpleNamespace(before=1, after=1, max_forgetting=1, unguarded=1, trust=TAGS[0]),
        alpha=1, export=None, pictures=2, learn=WORDS[1], steps=1, held_out=1,
        before=recall, after=recall, mixtures=[], chance=None,
    )  # fmt: skip
    page = report_page(
        cast("Any", report),
        model=WORDS[2],
        sources=WORDS[3],
        plots={WORDS[4]: b"x"},
        examples=[Example(words, (0,), (0,), (0,), 1, 1) for words in WORDS],
        thumbnail=lambda place: b"x",
    )
    Elements(page).require_harmless()
    assert "Content-Security-Policy" in page
    page.encode("utf-8")


def test_a_sheet_is_drawn_whatever_it_says(folder: Path, library: Path, tmp_path: Path) -> None:
    with Library.open(library) as opened:
        paths = [found[0] for found in opened.paths(opened.present_items().tolist()).values()]
    hits = [SearchHit(rank, 0.5, rank, path, (path,)) for rank, path in enumerate(paths, 1)]
    write_sheet([("all", hits)], tmp_path / "names.png")
    photo = folder / "photos <b>&" / "photo0.jpg"
    hits = [SearchHit(1, 0.5, 1, photo, (photo,))]
    write_sheet([(words, hits) for words in [*WORDS, LONG]], tmp_path / "titles.jpg")
    from PIL import Image

    with Image.open(tmp_path / "titles.jpg") as sheet:
        assert sheet.width < 2000


def test_exports_hold_the_words_and_no_formula_begins_a_cell(library: Path, tmp_path: Path) -> None:
    """Text that others wrote stands in lists, in JSON, and paths are absolute."""
    for name in ("all.csv", "all.jsonl", "all.parquet"):
        done = clipsearch(["export", "--all", "--to", name])
        assert done.code == 0, done.err
    with (tmp_path / "all.csv").open(
        newline="", encoding="utf-8", errors="surrogateescape"
    ) as file:
        rows = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert len(rows) == len(lines) == len(FILES) - 1 + len(WORDS) + 1
    for row, line in zip(rows, lines, strict=True):
        assert row["path"] == line["path"]
        assert json.loads(row["tags"]) == line["tags"]
        assert json.loads(row["captions"]) == line["captions"]
        assert not [cell for cell in row.values() if cell.startswith(SPREADSHEET_STARTS)]
    everything = {tag for line in lines for tag in line["tags"]}
    assert {word for word in WORDS if word.isprintable()} <= everything
    assert {Path(line["path"]).name for line in lines} >= set(FILES[:-1])
    from pyarrow import parquet

    assert len(parquet.read_table(tmp_path / "all.parquet")) == len(rows)


def test_thumbs_as_captions_begin_no_formula(library: Path, tmp_path: Path) -> None:
    spoken = [word for word in WORDS if word.isprintable() and "javascript" not in word]
    with Library.open(library) as opened:
        for words in spoken:
            opened.opinions.answer(words, int(opened.present_items()[0]), relevant=True)
    done = clipsearch(["feedback", "--captions", "thumbs.csv"])
    assert done.code == 0, done.err
    with (tmp_path / "thumbs.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > len(spoken) / 2
    assert not [row for row in rows if row["caption"].startswith(SPREADSHEET_STARTS)]


def test_playlists_name_every_picture_on_one_line(library: Path, tmp_path: Path) -> None:
    for number, album in enumerate(ALBUMS):
        for ending in (".m3u8", ".txt"):
            done = clipsearch(["albums", "export", album, "--to", f"list{number}{ending}"])
            assert done.code == 0, done.err
            assert done.err.count("its name has a line break") == 1
            path = tmp_path / f"list{number}{ending}"
            lines = path.read_bytes().decode("utf-8", "surrogateescape").split("\n")[:-1]
            named = [line for line in lines if not line.startswith("#")]
            assert all(Path(line).is_file() for line in named)
            assert {Path(line).name for line in named} >= set(FILES[:-1]) - {"line\nbreak.png"}
        done = clipsearch(["albums", "export", album, "--to", f"links{number}"])
        assert done.code == 0, done.err
        links = [link for link in (tmp_path / f"links{number}").iterdir() if link.is_symlink()]
        assert all(link.resolve().is_file() for link in links)
        assert len(links) == len(FILES) - 1 + len(WORDS) + 1


def test_sidecars_that_are_written_are_sound_and_read_back(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLIPSEARCH_LIBRARY", str(tmp_path / "library"))
    shutil.copytree(folder / "library", tmp_path / "library")
    shutil.copytree(folder / "photos <b>&", tmp_path / "photos")
    done = clipsearch(["roots", "move", str(folder / "photos <b>&"), str(tmp_path / "photos")])
    assert done.code == 0, done.err
    done = clipsearch(["tag", "--write-xmp", str(tmp_path / "photos" / "photo0.jpg")])
    assert done.code == 0, done.err
    sidecar = (tmp_path / "photos" / "photo0.jpg.xmp").read_text("utf-8")
    assert "<!" not in sidecar.replace("<!--", "")
    tree = ET.fromstring(sidecar)  # noqa: S314 - written just now
    names = {node.text for node in tree.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}li")}
    assert {word for word in WORDS if word.isprintable()} <= names


# --- the server and its page


@pytest.fixture(scope="module")
def served(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    copy = tmp_path_factory.mktemp("hostile") / "library"
    shutil.copytree(folder / "library", copy)
    with running_server(copy) as served:
        yield served


def test_the_rest_interface_answers_in_json_that_no_browser_takes_for_a_page(
    served: Served, folder: Path
) -> None:
    with Library.open(folder / "library") as library:
        items = library.present_items().tolist()
        for item in items:
            reply = served.ask(f"/api/items/{item}")
            assert reply.headers["content-type"].startswith("application/json")
            assert reply.headers["x-content-type-options"] == "nosniff"
            told, said = json.loads(reply.body), library.words_of(item)
            assert told["paths"] == [str(path) for path in library.paths([item])[item]]
            assert set(told["tags"]) == {name for name, _ in said.tags}
            assert told["captions"] == [text for text, _ in said.captions]
    for words in WORDS:
        query = quote(words.encode("utf-8", "surrogatepass"))
        for path in (f"/api/search?q={query}", f"/api/items/{query}", f"/api/{query}"):
            reply = served.ask(path)
            assert reply.status < 500, (words, reply.body)
            assert reply.headers["content-type"].startswith("application/json")
            json.loads(reply.body)
        for path in (f"/thumb/{query}", f"/?token={query}", f"/{query}"):
            reply = served.ask(path)
            assert reply.status < 500, (words, reply.body)
            if reply.headers["content-type"].startswith("text/html"):
                assert b"harmed" not in reply.body


@pytest.fixture
def page(served: Served, tmp_path: Path) -> Iterator[Any]:
    """The page in Chromium; in the end nothing of it ran that is not ours."""
    chromium = os.environ.get("CLIPSEARCH_CHROMIUM") or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if chromium is None and os.environ.get("CLIPSEARCH_REQUIRE_BROWSER") != "1":
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    flags += ["--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page()
        page.set_default_timeout(30_000)
        dialogs: list[str] = []
        page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
        yield page
        page.wait_for_timeout(300)
        assert dialogs == []
        assert page.evaluate("window.harmed") is None
        assert page.title() != "harmed"
        browser.close()


def _require_harmless(page: Any) -> None:
    made = page.evaluate(
        """() => [...document.querySelectorAll('#results *, dialog *, #review-grid *, #status *')]
        .filter(e => ['SCRIPT', 'IFRAME', 'FORM', 'OBJECT', 'EMBED'].includes(e.tagName)
            || [...e.attributes].some(a => a.name.startsWith('on') || a.name === 'srcdoc'
                || (['href', 'src'].includes(a.name) && /^\\s*javascript:/i.test(a.value))))
        .map(e => e.outerHTML)"""
    )
    assert made == []


def test_the_page_shows_the_words_and_runs_none_of_them(
    served: Served, page: Any, folder: Path
) -> None:
    page.goto(served.url)
    page.get_by_text("private, on your own machine").wait_for()
    words = page.locator("#words input, #words textarea").first
    words.wait_for()
    words.fill("type:picture limit:60")
    words.press("Enter")
    page.locator(".cs-hit").nth(len(FILES)).wait_for()
    names = {tile.get_attribute("alt") for tile in page.locator(".cs-hit img").all()}
    assert set(FILES[:-1]) <= names
    _require_harmless(page)
    shown = ""
    for photo in ("photo0.jpg", "photo1.jpg", "photo2.jpg", FILES[0], f"photo{len(WORDS)}.jpg"):
        page.locator(".cs-hit", has=page.get_by_alt_text(photo, exact=True)).first.click()
        dialog = page.locator("dialog[open]")
        dialog.wait_for()
        page.wait_for_function("document.querySelector('dialog[open] dl')")
        _require_harmless(page)
        shown += dialog.inner_text()
        page.keyboard.press("Escape")
        dialog.wait_for(state="hidden")
    assert all(word in shown for word in WORDS if word.isprintable() and "  " not in word)
    page.get_by_text("Review tags").click()
    page.locator("#review-tag input, #review-tag textarea").first.fill(TAGS[0])
    page.locator("#review-ask").click()
    page.locator(".cs-doubts li").first.wait_for()
    _require_harmless(page)
    assert f"{TAGS[0]}?" in page.locator("#review-grid").inner_text()
    page.locator(".cs-answer").first.click()
    page.locator("#review-status").get_by_text("Kept:").wait_for()
    for text in [*(word for word in WORDS if word.isprintable()), NAME]:
        before = page.locator("#status").inner_html()
        words.fill(text)
        words.press("Enter")
        page.wait_for_function(
            "before => document.querySelector('#status').innerHTML !== before", arg=before
        )
        _require_harmless(page)
