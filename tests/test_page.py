"""The page in a real browser: type, see, click, drop a picture, in wide and narrow windows.

Needs Chromium (Debian: apt-get install chromium). Without one the tests skip, or fail where
CLIPSEARCH_REQUIRE_BROWSER=1 is set.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from models import named
from serving import Served, index, running_server

import clipsearch
from clipsearch.cli import main
from clipsearch.config import resolve
from clipsearch.errors import StorageError
from clipsearch.library import Library
from indexer import change_checks, filling
from indexer.switching import change_model

CHROMIUM = os.environ.get("CLIPSEARCH_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
if CHROMIUM is None and os.environ.get("CLIPSEARCH_REQUIRE_BROWSER") != "1":
    pytest.skip("no Chromium on this machine", allow_module_level=True)

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # Whatever the page might ask of other hosts must fail, not merely be noticed.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]
WIDE, NARROW = {"width": 1280, "height": 850}, {"width": 400, "height": 800}
HOSTILE_NAME = "<img src=x onerror=document.title='harmed'>.png"
WAIT_MS = 30_000


@pytest.fixture(scope="module")
def photos(real_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample photos, and one with a name that tries to be markup."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("page") / "photos"
    shutil.copytree(real_photos, folder)
    Image.new("RGB", (90, 60), "purple").save(folder / HOSTILE_NAME)
    return folder


@pytest.fixture(scope="module")
def server(photos: Path, embedded_library: Path) -> Iterator[Served]:
    library = photos.parent / "page.clipsearch"
    index(library, photos, "embedded")
    with running_server(library) as served:
        yield served


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    assert CHROMIUM is not None, "CLIPSEARCH_REQUIRE_BROWSER=1, but there is no Chromium"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("browser"),
            executable_path=CHROMIUM,
            headless=True,
            args=FLAGS,
            viewport=WIDE,
        )
        context.set_default_timeout(WAIT_MS)
        yield context
        context.close()


# Two answers may have the same status line, so the pictures and their scores are looked at, too.
SHOWN = """[...document.querySelectorAll('#status .cs-status, .cs-hit')]
    .map(part => part.outerHTML).join('')"""


class Visit:
    """The page in one tab, and everything it asked for and complained about."""

    def __init__(self, browser: Any, url: str) -> None:
        self.url = url
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.tab = browser.new_page()
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("requestfailed", self._failed)
        self.tab.on(
            "console",
            lambda message: (
                self.complaints.append(message.text) if message.type == "error" else None
            ),
        )
        self.tab.goto(url)
        self.words = self.tab.locator("#words input, #words textarea").first
        self.words.wait_for()
        self.tab.get_by_text("private, on your own machine").wait_for()

    def _failed(self, request: Any) -> None:
        # Lazy thumbnails and event streams that a new search or a closed tab makes needless.
        if "ERR_ABORTED" not in (request.failure or ""):
            self.complaints.append(f"{request.url}: {request.failure}")

    def type(self, words: str) -> list[str]:
        before = self.shown
        self.words.fill(words)
        self.words.press("Enter")
        self.wait_for_news(before)
        return self.names

    def wait_for_news(self, before: str) -> None:
        """Waits until the status line or the gallery says something else."""
        self.tab.wait_for_function(f"before => ![before, ''].includes({SHOWN})", arg=before)
        self.tab.wait_for_timeout(150)  # both are updated, one after the other

    @property
    def shown(self) -> str:
        return str(self.tab.evaluate(SHOWN))

    @property
    def status(self) -> str:
        line = self.tab.locator("#status .cs-status")
        return line.inner_text() if line.count() else ""

    @property
    def names(self) -> list[str]:
        return [tile.get_attribute("alt") for tile in self.tab.locator(".cs-hit img").all()]

    def open_first(self) -> Any:
        self.tab.locator(".cs-hit").first.click()
        dialog = self.tab.locator("dialog[open]")
        dialog.wait_for()
        return dialog

    def drop(self, path: Path) -> None:
        before = self.shown
        self.tab.locator("#picture input[type=file]").first.set_input_files(path)
        self.wait_for_news(before)

    def drawn(self, selector: str) -> None:
        """Waits until the first such picture has been decoded by the browser."""
        self.tab.wait_for_function(
            "selector => { const image = document.querySelector(selector);"
            " return image && image.complete && image.naturalWidth > 1 }",
            arg=selector,
        )

    def overflow(self) -> int:
        width: int = self.tab.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        return width


@pytest.fixture
def visit(browser: Any, server: Served) -> Iterator[Visit]:
    """Opens the page; afterwards: nothing was asked of others, and no error was logged."""
    visit = Visit(browser, server.url)
    yield visit
    visit.tab.close()
    elsewhere = [
        url
        for url in visit.requests
        if not url.startswith((f"{server.url}/", "data:", f"blob:{server.url}/"))
    ]
    assert elsewhere == []
    assert visit.complaints == []


def test_typing_shows_the_right_photo_first(visit: Visit, photos: Path) -> None:
    assert "What are you looking for?" in visit.tab.inner_text("#results")
    assert visit.type("a cat cutoff:none")[0] == "cat.png"
    assert "25 pictures, embedded model, " in visit.status
    visit.drawn(".cs-hit img")
    scores = [float(text) for text in visit.tab.locator(".cs-score").all_inner_texts()]
    assert len(scores) == 25
    assert scores == sorted(scores, reverse=True)
    assert visit.type("a motorcycle")[0] == "motorcycle.png"


def test_a_click_shows_the_full_picture_and_more_like_it(visit: Visit, photos: Path) -> None:
    visit.type("a motorcycle")
    dialog = visit.open_first()
    visit.drawn("dialog figure img")
    text = dialog.inner_text()
    for fact in ("motorcycle.png", "Score", "Dimensions", "PNG, ", str(photos / "motorcycle.png")):
        assert fact in text
    assert dialog.locator("figure img").get_attribute("alt") == "motorcycle.png"
    before = visit.shown
    dialog.get_by_text("More like this").click()
    visit.wait_for_news(before)
    assert "like motorcycle.png" in visit.status
    assert "motorcycle.png" not in visit.names
    assert visit.tab.locator("dialog[open]").count() == 0


def test_what_is_not_there_gives_nothing_and_the_closest_on_request(visit: Visit) -> None:
    assert visit.type("a submarine") == []
    assert "Nothing found" in visit.tab.inner_text("#results")
    before = visit.shown
    visit.tab.get_by_text("Show the closest anyway").click()
    visit.wait_for_news(before)
    assert len(visit.names) == 25


def test_the_keyboard_is_enough(visit: Visit) -> None:
    visit.type("a cat cutoff:none")
    visit.tab.locator(".cs-hit").first.focus()
    visit.tab.keyboard.press("ArrowRight")
    visit.tab.keyboard.press("Enter")
    names = visit.names
    dialog = visit.tab.locator(f"dialog[open][aria-label='{names[1]}']")
    dialog.wait_for()
    visit.tab.keyboard.press("ArrowRight")
    visit.tab.locator(f"dialog[open][aria-label='{names[2]}']").wait_for()
    visit.tab.keyboard.press("Escape")
    visit.tab.wait_for_function("!document.querySelector('dialog[open]')")
    visit.tab.wait_for_function(  # the focus returns when the dialog's close event is handled
        "name => document.activeElement.querySelector('img')?.alt === name", arg=names[2]
    )


def test_a_dropped_picture_is_searched_alone_and_with_words(visit: Visit, photos: Path) -> None:
    visit.drop(photos / "cat.png")
    assert visit.names[0] == "cat.png"
    alone = visit.tab.locator(".cs-score").all_inner_texts()
    assert float(alone[0]) > 0.95
    visit.words.fill("at night")
    visit.tab.locator("#search").click()
    visit.tab.wait_for_function(
        "alone => document.querySelector('.cs-score').innerText !== alone", arg=alone[0]
    )
    assert visit.tab.locator(".cs-score").all_inner_texts() != alone


def test_what_cannot_be_answered_is_one_plain_line(visit: Visit, tmp_path: Path) -> None:
    visit.tab.locator("#search").click()
    visit.wait_for_news("")
    assert visit.status == "There is nothing to search for: give words, a picture, or both."
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(b"\xff\xd8\xff\xe0 not much of a picture")
    visit.drop(damaged)
    assert visit.status.startswith("The dropped picture cannot be read as a picture")
    assert "Traceback" not in visit.tab.content()
    assert len(visit.status.splitlines()) == 1


def test_a_file_name_cannot_become_markup(visit: Visit, photos: Path) -> None:
    visit.drop(photos / HOSTILE_NAME)
    assert visit.names[0] == HOSTILE_NAME
    dialog = visit.open_first()
    assert HOSTILE_NAME in dialog.inner_text()
    assert visit.tab.title() == "clipsearch"
    assert visit.tab.locator("img[src='x']").count() == 0


def test_the_number_of_results_is_kept(visit: Visit) -> None:
    visit.tab.locator("#count input, #count button").first.click()
    visit.tab.get_by_role("option", name="10", exact=True).click()
    assert len(visit.type("a building cutoff:none")) == 10


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_everything_fits_wide_and_narrow(
    visit: Visit, tmp_path: Path, size: dict[str, int], scheme: Any
) -> None:
    visit.tab.emulate_media(color_scheme=scheme)
    visit.tab.set_viewport_size(size)
    visit.type("a lion cutoff:none")
    assert visit.overflow() <= 0
    visit.drawn(".cs-hit img")
    visit.tab.screenshot(path=tmp_path / "results.png")
    dialog = visit.open_first()
    visit.drawn("dialog figure img")
    box = dialog.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= size["width"]
    assert box["y"] + box["height"] <= size["height"]
    dialog.get_by_text("More like this").scroll_into_view_if_needed()
    dialog.get_by_label("Close", exact=True).click()
    visit.tab.wait_for_function("!document.querySelector('dialog[open]')")


def test_the_page_shows_a_change_of_models_and_goes_on_with_the_new_one(
    browser: Any,
    library_copy: Library,
    tiny_model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(filling, "COMMIT_AFTER_FILES", 1)
    new = f"local-dir:{tiny_model_dir}"
    with running_server(library_copy.path) as served:
        visit = Visit(browser, served.url)
        line = visit.tab.locator("#models .cs-models")
        visit.tab.get_by_text("Searches use embedded", exact=True).wait_for()
        visit.type("a cat cutoff:none")
        looked = []

        def look(done: int, total: int) -> None:
            if done < 12 or looked:
                return
            visit.tab.wait_for_function(  # a page that is open anyway finds out by itself
                "() => /[1-9]\\d* of 25 pictures/.test(document.querySelector('#models').innerText)"
            )
            looked.append(line.inner_text())
            assert 0 < visit.tab.locator("#models progress").evaluate("bar => bar.position") < 1
            for size, name in ((WIDE, "wide"), ({"width": 390, "height": 844}, "phone")):
                visit.tab.set_viewport_size(size)
                assert visit.overflow() <= 0
                visit.tab.screenshot(path=tmp_path / f"change-{name}.png")
            assert visit.type("a motorcycle")[0] == "motorcycle.png"
            assert "embedded model" in visit.status

        settings = resolve({}, library_copy.settings())
        report = change_model(library_copy, new, settings=settings, batch_size=1, progress=look)
        assert report.switched
        (shown,) = looked
        shown_name = Path(named(new)).name
        assert shown.startswith(f"Searches use embedded. {shown_name} is being filled, ")
        visit.tab.get_by_text(f"Searches use {shown_name}", exact=True).wait_for()
        assert visit.tab.locator("#models progress").count() == 0
        assert "embedded model" in visit.status, "what is on show stays"
        assert len(visit.type("a cat cutoff:none")) == 25
        assert f"{named(new)} model" in visit.status
        assert visit.complaints == []
        visit.tab.close()


def test_the_page_says_why_a_change_of_models_did_not_begin(
    browser: Any,
    library_copy: Library,
    tiny_model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    new, settings = f"local-dir:{tiny_model_dir}", resolve({}, library_copy.settings())
    with running_server(library_copy.path) as served:
        visit = Visit(browser, served.url)
        visit.tab.get_by_text("Searches use embedded", exact=True).wait_for()
        full = shutil.disk_usage(library_copy.path)._replace(free=1000)
        with monkeypatch.context() as patched:
            patched.setattr(change_checks.shutil, "disk_usage", lambda _: full)
            with pytest.raises(StorageError) as refused:
                change_model(library_copy, new, settings=settings)
        line = visit.tab.locator("#models .cs-models")
        line.get_by_text("did not begin").wait_for()  # a page that is open finds out by itself
        assert line.inner_text() == (
            f"Searches use embedded. The change to tiny-model did not begin: {refused.value}"
        )
        visit.tab.set_viewport_size({"width": 390, "height": 844})
        assert visit.overflow() <= 0
        visit.tab.screenshot(path=tmp_path / "refused.png")
        assert change_model(library_copy, new, settings=settings).switched
        shown_name = Path(named(new)).name
        visit.tab.get_by_text(f"Searches use {shown_name}", exact=True).wait_for()
        assert visit.complaints == []
        visit.tab.close()


def test_an_empty_library_says_how_to_fill_it(browser: Any, tmp_path: Path) -> None:
    from clipsearch import open_library

    with open_library(tmp_path / "new.clipsearch", create=True):
        pass
    with running_server(tmp_path / "new.clipsearch", "--token", "s3cret-and-long") as served:
        tab = browser.new_page()
        assert tab.goto(served.url).status == 401
        tab.goto(f"{served.url}/?token=s3cret-and-long")
        tab.get_by_text("This library is empty").wait_for()
        assert f"clipsearch index FOLDER --library {tmp_path}" in tab.inner_text("#results")
        assert "token" not in tab.url
        tab.close()


def test_a_video_plays_from_the_moment_that_was_found(
    browser: Any, real_photos: Path, tmp_path: Path
) -> None:
    import av
    from PIL import Image

    (tmp_path / "films").mkdir()
    with av.open(str(tmp_path / "films" / "film.webm"), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for name in ("cat.png", "coffee.png"):
            still = Image.open(real_photos / name).convert("RGB").resize((320, 240))
            for _ in range(40):
                container.mux(stream.encode(av.VideoFrame.from_image(still)))
        container.mux(stream.encode())
    library = tmp_path / "films.clipsearch"
    index(library, tmp_path / "films", "embedded")
    with running_server(library) as served:
        visit = Visit(browser, served.url)
        assert visit.type("a cup of coffee")[0] == "film.webm at 0:04"
        dialog = visit.open_first()
        visit.tab.wait_for_function("document.querySelector('dialog video').readyState >= 2")
        video = dialog.locator("video")
        assert abs(video.evaluate("film => film.currentTime") - 4) < 0.5
        assert "At" in dialog.inner_text()
        assert visit.complaints == []
        visit.tab.close()


def test_the_review_asks_and_keeps_the_answer(visit: Visit, photos: Path) -> None:
    words = photos.parent / "mine.txt"
    words.write_text("cat\ncoffee\nmotorcycle\n")
    library = photos.parent / "page.clipsearch"
    flags = ["--vocabulary", str(words), "--library", str(library), "--quiet"]
    assert main(["tag", *flags]) == 0
    visit.tab.get_by_text("Review tags").click()
    visit.tab.locator("#review-tag input, #review-tag textarea").first.fill("cat")
    visit.tab.locator("#review-ask").click()
    card = visit.tab.locator(".cs-doubts li", has=visit.tab.get_by_alt_text("cat.png"))
    card.get_by_text("Yes").click()
    visit.tab.get_by_text("Kept: 'cat' fits.").wait_for()
    with clipsearch.open_library(library) as opened:
        (answer,) = opened.tags.answers()
        assert opened.paths([answer.item])[answer.item] == [photos / "cat.png"]
        assert (answer.name, answer.accepted) == ("cat", True)
    visit.tab.locator("#review-tag input, #review-tag textarea").first.fill("zebra")
    visit.tab.locator("#review-ask").click()
    visit.tab.get_by_text("is no tag of the vocabulary").wait_for()
    assert visit.complaints == []
