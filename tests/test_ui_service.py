"""What the page asks for, as values, and its HTML: every answer is right and harmless."""

from __future__ import annotations

import io
import shutil
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import VIT, named, save_model
from PIL import Image
from serving import index

from clipsearch.config import resolve
from clipsearch.encoders.openclip import TorchEncoder, load_openclip
from clipsearch.errors import (
    ImageNotFoundError,
    ImageUnreadableError,
    NotInLibraryError,
    QueryError,
)
from clipsearch.library import Library
from clipsearch.library.choices import HeldModel
from clipsearch.library.fill_state import FillState
from clipsearch.searcher import Searcher
from clipsearch.vectors import Matrix
from indexer.switching import change_model
from ui import markup
from ui.models import Models
from ui.service import Answer, Found, Picture, Service, Summary

COLOURS = ("red", "green", "blue", "yellow", "black")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number, colour in enumerate(COLOURS):
        picture = Image.new("RGB", (60 + number, 40), "white")
        picture.paste(colour, (5 * number, 0, 40 + 3 * number, 30))
        exif = Image.Exif()
        exif[0x010F], exif[0x0110] = "Acme", "Acme Box 1"
        exif.get_ifd(0x8769)[0x9003] = "2024:05:07 18:03:00"
        picture.save(folder / f"{colour}.jpg", exif=exif, quality=95)
    return folder


@pytest.fixture(scope="module")
def library(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path
) -> Iterator[Library]:
    path = tmp_path_factory.mktemp("library") / "test.clipsearch"
    index(path, folder, f"local-dir:{tiny_model_dir}")
    with Library.open(path) as library:
        yield library


@pytest.fixture(scope="module")
def service(library: Library) -> Service:
    return Service(library, settings=resolve({}, library.settings()))


def test_words_find_the_asked_number_best_first(service: Service) -> None:
    answer = service.search("something red", top=3, everything=True)
    assert [found.rank for found in answer.found] == [1, 2, 3]
    scores = [found.score for found in answer.found]
    assert scores == sorted(scores, reverse=True)
    assert answer.model == service.summary().model
    assert answer.elapsed_s > 0


@pytest.mark.parametrize("colour", COLOURS)
def test_a_picture_finds_itself_first(service: Service, folder: Path, colour: str) -> None:
    best = service.search(picture=folder / f"{colour}.jpg", top=2).found[0]
    assert best.path == folder / f"{colour}.jpg"
    assert best.score > 0.99
    assert (best.width, best.height) == (60 + COLOURS.index(colour), 40)


def test_words_and_a_picture_are_searched_together(service: Service, folder: Path) -> None:
    def scores(**asked: object) -> dict[int, float]:
        answer = service.search(top=5, everything=True, **asked)  # type: ignore[arg-type]
        return {found.item: found.score for found in answer.found}

    words, picture = "a box", folder / "red.jpg"
    both = scores(words=words, picture=picture)
    assert both != scores(words=words)
    assert both != scores(picture=picture)


def test_more_like_an_item_leaves_the_item_out(service: Service) -> None:
    item = service.search("anything", top=1, everything=True).found[0].item
    others = [found.item for found in service.search(item=item, top=10, everything=True).found]
    assert len(others) == len(COLOURS) - 1
    assert item not in others


def test_details_tell_what_is_known(service: Service, folder: Path) -> None:
    (found,) = service.search(picture=folder / "red.jpg", top=1).found
    shown = service.picture(found.item)
    assert shown.paths == (folder / "red.jpg",)
    assert (shown.width, shown.height, shown.format) == (60, 40, "JPEG")
    assert shown.size_bytes == (folder / "red.jpg").stat().st_size
    assert shown.taken_at is not None
    assert shown.taken_at.startswith("2024-05-07T18:03")
    assert shown.camera == "Acme Box 1"
    html = markup.picture(shown, 0.25)
    for text in ("7 May 2024, 18:03", "Acme Box 1", "60 × 40", "0.250", str(folder / "red.jpg")):
        assert text in html


def test_asking_for_nothing_or_for_the_unknown_is_an_error(
    service: Service, tmp_path: Path
) -> None:
    with pytest.raises(QueryError):
        service.search("  ", top=5)
    for ask in (service.picture, service.thumbnail, service.view, service.original):
        with pytest.raises(NotInLibraryError):
            ask(999_999)
    damaged = tmp_path / "c0ffee.jpg"
    damaged.write_bytes(b"\xff\xd8\xff\xe0 not much of a picture")
    for path in (damaged, tmp_path / "gone.jpg"):
        with pytest.raises(ImageUnreadableError) as raised:
            service.search(picture=path, top=5)
        assert str(raised.value).startswith("The dropped picture")
        assert str(tmp_path) not in str(raised.value)


def test_new_photos_and_vanished_ones_are_noticed(
    tmp_path: Path, folder: Path, tiny_model_dir: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "red.jpg").write_bytes((folder / "red.jpg").read_bytes())
    path = tmp_path / "test.clipsearch"
    index(path, photos, f"local-dir:{tiny_model_dir}")
    with Library.open(path) as library:
        service = Service(library, settings=resolve({}, library.settings()))
        assert len(service.search("red", top=5, everything=True).found) == 1
        (photos / "blue.jpg").write_bytes((folder / "blue.jpg").read_bytes())
        index(path, photos, f"local-dir:{tiny_model_dir}")
        found = service.search("red", top=5, everything=True).found
        assert {one.path.name for one in found} == {"red.jpg", "blue.jpg"}
        assert service.summary().items == 2
        (photos / "red.jpg").unlink()
        item = next(one.item for one in found if one.path.name == "red.jpg")
        with pytest.raises(ImageNotFoundError):
            service.view(item)
        assert Image.open(io.BytesIO(service.thumbnail(item).data)).size[0] > 0


def test_the_closest_is_offered_only_where_a_cut_off_kept_it_back(service: Service) -> None:
    filtered = service.search("rating:5", top=3)
    assert (filtered.found, filtered.is_cut) == ((), False)
    assert "cs-closest" not in markup.nothing_found(is_cut=False)
    assert service.search("something red", top=3).is_cut
    assert not service.search("something red", top=3, everything=True).is_cut
    assert "cs-closest" in markup.nothing_found(is_cut=True)


def test_an_empty_library_answers_with_nothing(tmp_path: Path) -> None:
    with Library.open(tmp_path / "new.clipsearch", create=True) as library:
        service = Service(library, settings=resolve({}, library.settings()))
        service.warm_up_in_background().join(30)
        assert service.summary() == Summary(0, None, library.path)
        assert service.search("a dog", top=5).found == ()
        assert f"clipsearch index FOLDER --library {library.path}" in markup.empty_library(
            service.summary()
        )


def test_after_a_switch_the_new_model_is_loaded_before_anyone_asks(
    tmp_path: Path, folder: Path, tiny_model_dir: Path
) -> None:
    path = tmp_path / "test.clipsearch"
    index(path, folder, f"local-dir:{tiny_model_dir}")
    new = f"local-dir:{shutil.copytree(tiny_model_dir, tmp_path / 'new')}"
    config = tmp_path / "new" / "open_clip_config.json"  # other preprocessing: another space
    config.write_text(config.read_text().replace('"bicubic"', '"bilinear"'))
    with Library.open(path) as library, Library.open(path) as elsewhere:
        settings = resolve({"runtime": "torch"}, library.settings())
        service = Service(library, settings=settings)
        service.warm_up_in_background().join()
        before = loaded(service)
        assert service.models().in_use == service.models().held[0]
        space = change_model(elsewhere, new, settings=settings).space
        assert space != before
        in_use = service.models().in_use
        assert in_use is not None
        assert in_use.space == space
        for thread in threading.enumerate():
            if thread.name == "warm-up":
                thread.join()
        assert loaded(service) == space
        assert service.search("red", top=1, everything=True).model == named(new)


def test_an_answer_names_the_model_that_gave_it_though_another_has_taken_over(
    tmp_path: Path, folder: Path, tiny_model_dir: Path
) -> None:
    """The switch comes when the question has been encoded, before its answer is put together."""
    path, old = tmp_path / "test.clipsearch", f"local-dir:{tiny_model_dir}"
    index(path, folder, old)
    new = f"local-dir:{save_model(tmp_path / 'new', VIT, seed=3)}"
    with Library.open(path) as library, Library.open(path) as elsewhere:
        settings = resolve({"runtime": "torch"}, library.settings())
        before = library.active_space()
        assert before is not None

        class SwitchedWhileAsked(TorchEncoder):
            def encode_texts(self, texts: Sequence[str]) -> Matrix:
                vectors = super().encode_texts(texts)
                active = elsewhere.active_space()
                if list(texts) == ["red"] and active is not None and active.origin == old:
                    change_model(elsewhere, new, settings=settings)
                return vectors

        encoder = SwitchedWhileAsked(load_openclip(old), settings)
        asked = Service(library, settings=settings, encoder=encoder)
        answer = asked.search("red", top=5, everything=True)
        assert asked.summary().model == named(new), "the switch has happened"
        assert answer.model == named(old)
        of_old = Searcher(library, settings=settings, space_id=before.id)
        assert [(one.item, one.score) for one in answer.found] == [
            (hit.item, hit.score) for hit in of_old.search("cutoff:none red", top=5)
        ]
        afterwards = Service(library, settings=settings)
        assert afterwards.search("red", top=5, everything=True).model == named(new)


def loaded(service: Service) -> str:
    encoder = service._searcher._encoder
    assert encoder is not None
    return encoder.space.id


# --- HTML -----------------------------------------------------------------------------------


class Elements(HTMLParser):
    """Collects what a browser would see: elements with attributes, and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


NASTY = st.one_of(
    st.sampled_from(
        ["<img src=x onerror=alert(1)>", "' onload='alert(1)", '"><script>', "&amp;", "</dialog>"]
    ),
    st.text(st.characters(blacklist_characters="/\0"), min_size=1, max_size=40),
)


@given(name=NASTY, camera=NASTY)
def test_no_name_becomes_markup(name: str, camera: str) -> None:
    plain_path, path = Path("/photos/plain"), Path("/photos") / name
    for draw in (
        lambda path, _: markup.gallery(Answer((Found(1, 0.5, 7, path, 4, 3),), "m", 0.1)),
        lambda path, text: markup.picture(
            Picture(7, (path,), 4, 3, text, 10, f"{text} o'clock", text), 0.5
        ),
        lambda path, text: markup.status(f"{text} {path}"),
        lambda path, text: markup.empty_library(Summary(0, text, path)),
        lambda path, text: markup.answered(Answer((), text, 0.1), f" like {path}"),
        lambda path, text: markup.models(
            Models(
                (held("in use", f"local-dir:/{text}", 9), held("next", f"x {text}", 3)),
                FillState(text, "failed", "filling", error=text),
            ),
            path,
        ),
    ):
        html, plain = draw(path, camera), draw(plain_path, "plain")
        found, expected = Elements(html), Elements(plain)
        assert [tag for tag, _ in found.elements] == [tag for tag, _ in expected.elements]
        assert [set(given) for _, given in found.elements] == [
            set(given) for _, given in expected.elements
        ]
        html.encode("utf-8")  # also names that are no text


def test_every_picture_has_a_name_for_those_who_cannot_see_it() -> None:
    answer = Answer((Found(1, 0.5, 7, Path("/photos/dog & cat.jpg"), 4, 3),), "m", 0.1)
    shown = Picture(7, (), 4, 3, "JPEG", 10, None, None)
    for html in (markup.gallery(answer), markup.picture(shown, None)):
        images = [given for tag, given in Elements(html).elements if tag == "img"]
        assert [bool(given.get("alt")) for given in images] == [True]


def test_the_status_line_reads_well() -> None:
    found = tuple(Found(n, 0.5, n, Path("a.jpg"), 4, 3) for n in range(1, 26))
    assert "25 pictures, embedded model, 0.03 s" in markup.answered(
        Answer(found, "embedded", 0.031)
    )
    assert "25 of 1,061 pictures, m model" in markup.answered(
        Answer(found, "m", 0.1, is_cut=True, total=1_061)
    )
    assert ">25 pictures, m model" in markup.answered(Answer(found, "m", 0.1, total=1_061))
    passed = tuple(replace(one, score=None) for one in found)  # by filters alone
    assert "25 of 61 pictures," in markup.answered(Answer(passed, "m", 0.1, total=61))
    assert ">1 picture like a.jpg," in markup.answered(Answer(found[:1], "m", 0.1), " like a.jpg")


def held(state: str, address: str, embedded: int, whole: int = 1_234) -> HeldModel:
    return HeldModel("id", address, state, embedded, whole - embedded, 0, 4)


FAR = "400 of 1,234 pictures"
OLD, NEW = held("in use", "embedded", 1_234), held("next", "local-dir:/models/mine", 400)


@pytest.mark.parametrize(
    ("models", "fill", "text", "bar"),
    [
        ((), None, "", None),
        ((OLD, held("kept", "x", 3)), None, "Searches use embedded", None),
        ((OLD,), ("running", "loading"), "Searches use embedded. mine is being loaded", None),
        ((NEW,), ("running", "filling"), f"mine is being filled, {FAR}", ("400", "1234")),
        ((NEW,), ("running", "loading"), f"mine is being filled, {FAR}", ("400", "1234")),
        ((NEW,), ("running", "filling", 45), f"{FAR}, 45.0 s left", ("400", "1234")),
        ((NEW,), ("running", "filling", 200), f"{FAR}, 3 min 20 s left", ("400", "1234")),
        ((NEW,), ("running", "filling", 3_900), f"{FAR}, 1 h 05 min left", ("400", "1234")),
        ((NEW,), ("running", "waiting"), "mine waits for another process", ("400", "1234")),
        ((OLD, NEW), ("stopped", "filling"), f"to mine has stopped at {FAR}. It", ("400", "1234")),
        ((OLD, NEW), None, f"to mine has stopped at {FAR}. It goes on", ("400", "1234")),
        ((OLD, NEW), ("failed", "filling"), f"stopped at {FAR} (disk full).", ("400", "1234")),
        ((OLD,), ("running", "filling"), "Searches use embedded", None),  # withdrawn
        ((OLD,), ("running", "tagging"), "embedded. It gives the photos its tags", None),
        ((OLD,), ("failed", "loading"), ". The change to mine did not begin: disk full", None),
        ((OLD,), ("failed", "filling"), "Searches use embedded", None),  # withdrawn since
        ((OLD,), ("stopped", "loading"), "Searches use embedded", None),
        ((OLD, NEW), ("failed", "loading"), f"stopped at {FAR} (disk full).", ("400", "1234")),
    ],
)
def test_the_line_about_models_says_which_searches_and_how_a_change_goes(
    models: tuple[HeldModel, ...],
    fill: tuple[str, str] | tuple[str, str, float] | None,
    text: str,
    bar: tuple[str, str] | None,
) -> None:
    told = None
    if fill is not None:
        state, doing, *left = fill
        told = FillState(
            NEW.address,
            state,
            doing,
            seconds_left=float(left[0]) if left else None,
            error="disk full" if state == "failed" else None,
        )
    seen = Elements(markup.models(Models(models, told), Path("/my photos/a.clipsearch")))
    assert text in seen.text
    if bar is None:
        assert seen.text.endswith(text)
    if "stopped" in text:
        assert "use local-dir:/models/mine --library '/my photos/a.clipsearch'" in seen.text
    bars = [(given["value"], given["max"]) for tag, given in seen.elements if tag == "progress"]
    assert bars == ([bar] if bar else [])
    titles = {given["title"] for tag, given in seen.elements if tag == "b"}
    assert titles <= {"embedded", NEW.address}


def test_a_refused_change_is_not_taken_for_the_one_that_has_stopped() -> None:
    refused = FillState("other <model>", "failed", "loading", error="<b>disk full</b>")
    seen = Elements(markup.models(Models((OLD, NEW), refused), Path("a.clipsearch")))
    assert f"The change to mine has stopped at {FAR}. It goes on with" in seen.text
    assert seen.text.endswith(". The change to other <model> did not begin: <b>disk full</b>")
