"""Indexing: only what is new is opened, only new content is embedded, nothing is lost."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipsearch import errors
from clipsearch.config import Settings, resolve
from clipsearch.encoders import Encoder
from clipsearch.library import Library
from clipsearch.vectors import EmbeddingSpace, Matrix, Pixels
from indexer.decoders import Decoder
from indexer.model import StandardLoader
from indexer.pipeline import index_library
from indexer.report import IndexReport
from tests.models import VIT, named, save_model

Index = Callable[..., IndexReport]


def paint(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((80, 60)).save(path)
    return settled(path)


def settled(path: Path) -> Path:
    """Dates a file a minute back: one that was just written is read twice, on purpose."""
    then = time.time() - 60
    os.utime(path, (then, then))
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(6):
        paint(tmp_path / "photos" / f"{number}.png", number)
    return tmp_path / "photos"


@pytest.fixture
def settings(tiny_model_dir: Path, library_path: Path) -> Settings:
    chosen = {"model": f"local-dir:{tiny_model_dir}", "runtime": "torch", "library": library_path}
    return resolve(chosen, environment={})


@pytest.fixture
def library(library_path: Path) -> Iterator[Library]:
    with Library.open(library_path, create=True) as opened:
        yield opened


@pytest.fixture
def index(library: Library, settings: Settings) -> Index:
    def run(*roots: Path, **options: object) -> IndexReport:
        return index_library(library, roots, **{"settings": settings, **options})  # type: ignore[arg-type]

    return run


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are opened from now on."""
    names: list[str] = []
    original = Decoder.ask

    def noted(
        decoder: Decoder, request: dict[str, Any], timeout_s: float
    ) -> tuple[dict[str, Any], bytes]:
        if request["do"] == "open":
            names.append(Path(request["path"]).name)
        return original(decoder, request, timeout_s)

    monkeypatch.setattr(Decoder, "ask", noted)
    return names


def stopping_after(files: int) -> dict[str, object]:
    """What asks a run to stop once so many files have been read."""
    seen = [0]
    return {
        "progress": lambda done, _total: seen.append(done),
        "should_stop": lambda: seen[-1] >= files,
    }


def known(library: Library) -> list[str]:
    items = [int(item) for item in library.present_items()]
    return sorted(path.name for paths in library.paths(items).values() for path in paths)


def test_a_second_run_opens_nothing(index: Index, photos: Path, opened: list[str]) -> None:
    first = index(photos)
    assert (first.added, first.embedded, first.failures) == (6, 6, [])
    assert sorted(opened) == [f"{n}.png" for n in range(6)]
    opened.clear()
    for again in (index(photos), index()):
        assert (again.unchanged, again.added, again.embedded) == (6, 0, 0)
    assert not opened


def test_only_new_and_changed_files_are_opened(
    index: Index, photos: Path, opened: list[str], library: Library
) -> None:
    index(photos)
    opened.clear()
    paint(photos / "new" / "7.png", 7)
    paint(photos / "0.png", 100)
    report = index()
    assert sorted(opened) == ["0.png", "7.png"]
    assert (report.added, report.changed, report.unchanged, report.embedded) == (1, 1, 5, 2)
    assert library.counts().items == 7


def test_a_file_with_a_new_time_and_the_old_content_keeps_its_vector(
    index: Index, photos: Path
) -> None:
    index(photos)
    os.utime(photos / "0.png", ns=(1, 1))
    assert index().embedded == 0
    assert index().unchanged == 6


def test_renamed_moved_and_copied_files_are_not_embedded_again(
    index: Index, photos: Path, library: Library
) -> None:
    index(photos)
    before = library.item_at(photos / "0.png")
    (photos / "0.png").rename(photos / "renamed.png")
    (photos / "deep").mkdir()
    (photos / "1.png").rename(photos / "deep" / "1.png")
    shutil.copy(photos / "2.png", photos / "copy.png")
    report = index()
    assert (report.moved, report.copied, report.gone, report.embedded) == (2, 1, 0, 0)
    assert library.item_at(photos / "renamed.png") == before
    assert library.counts().items == 6


def test_copies_in_one_run_are_embedded_once(index: Index, photos: Path, library: Library) -> None:
    for number in range(20):
        shutil.copy(photos / "0.png", photos / f"copy{number}.png")
    report = index(photos)
    assert report.embedded == 6
    assert (library.counts().items, library.counts().files) == (6, 26)


def test_a_removed_photo_is_gone_and_comes_back_without_embedding(
    index: Index, photos: Path, library: Library, tmp_path: Path
) -> None:
    index(photos)
    item = library.item_at(photos / "3.png")
    shutil.move(photos / "3.png", tmp_path / "kept.png")
    assert index().gone == 1
    assert library.item_at(photos / "3.png") is None
    shutil.move(tmp_path / "kept.png", photos / "3.png")
    assert index().embedded == 0
    assert library.item_at(photos / "3.png") == item


def test_a_root_that_is_missing_or_suddenly_empty_marks_nothing_gone(
    index: Index, photos: Path, library: Library
) -> None:
    index(photos)
    photos.rename(photos.with_name("unplugged"))
    report = index()
    assert report.gone == 0
    assert "stays in the library" in report.notes[0]
    photos.mkdir()  # an empty mount point
    report = index()
    assert report.gone == 0
    assert "clipsearch forget" in report.notes[0]
    assert library.counts().items == 6


def test_roots_add_up_and_nested_ones_index_once(
    index: Index, photos: Path, tmp_path: Path, library: Library
) -> None:
    other = paint(tmp_path / "other" / "9.png", 9).parent
    paint(photos / "deep" / "8.png", 8)
    index(photos / "deep")
    assert index(photos, other).embedded == 7  # 8.png has its vector
    assert len(library.roots()) == 2
    assert index(photos / "deep").embedded == 0
    assert len(library.roots()) == 2
    assert (library.counts().items, library.counts().files) == (8, 8)
    report = index()
    assert (report.unchanged, report.gone) == (8, 0)


def test_failures_are_named_and_tried_again_only_after_a_change(
    index: Index, photos: Path, library: Library, opened: list[str]
) -> None:
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing more")
    (photos / "empty.jpg").touch()
    settled(photos / "broken.jpg")
    settled(photos / "empty.jpg")
    first = index(photos)
    assert {failure.path.name for failure in first.failures} == {"broken.jpg", "empty.jpg"}
    assert {failure.path.name for failure in library.failures()} == {"broken.jpg", "empty.jpg"}
    opened.clear()
    again = index()
    assert (again.failures, again.known_failures, opened) == ([], 2, [])
    paint(photos / "0.png", 0)
    shutil.copy(photos / "0.png", photos / "broken.jpg")
    mended = index()
    assert (mended.failures, mended.known_failures) == ([], 1)
    assert [failure.path.name for failure in library.failures()] == ["empty.jpg"]


def test_a_picture_that_becomes_unreadable_is_told_and_found_as_before(
    index: Index, photos: Path, library: Library
) -> None:
    index(photos)
    (photos / "0.png").write_bytes(b"gone bad")
    report = index()
    assert (len(report.failures), report.unread) == (1, 1)
    assert "0.png" in known(library)
    assert [failure.path.name for failure in library.failures()] == ["0.png"]


def test_a_higher_limit_tries_the_large_ones_again(
    index: Index, photos: Path, settings: Settings
) -> None:
    Image.new("L", (20_000, 12_000)).save(photos / "large.jpg")  # JPEG is decoded reduced: fast
    report = index(photos)
    assert "--max-pixels 240000000" in report.failures[0].reason
    assert index().known_failures == 1
    higher = Settings(**{**vars(settings), "max_pixels": 240_000_000})
    report = index(settings=higher)
    assert (report.added, report.failures) == (1, [])


def test_a_second_model_is_filled_beside_the_first_and_switched_to_when_full(
    index: Index, photos: Path, library: Library, settings: Settings, tmp_path: Path
) -> None:
    index(photos)
    first = library.active_space()
    other = f"local-dir:{save_model(tmp_path / 'other-model', VIT, seed=5)}"
    second_settings = Settings(**{**vars(settings), "model": other})
    report = index(settings=second_settings, batch_size=1, **stopping_after(2))
    assert report.interrupted
    assert library.active_space() == first  # searches go on with what is full
    done = report.embedded
    report = index(settings=second_settings)
    assert report.embedded == 6 - done
    active = library.active_space()
    assert active is not None
    assert (active.address, active.embedded) == (named(other), 6)
    report = index(settings=settings, verify_model=True)  # and back, for nothing
    assert report.embedded == 0
    assert library.active_space() == first


def test_a_model_switch_waits_for_pictures_that_cannot_be_read_now(
    index: Index, photos: Path, library: Library, settings: Settings, tmp_path: Path
) -> None:
    index(photos)
    photos.rename(photos.with_name("unplugged"))
    other = f"local-dir:{save_model(tmp_path / 'other-model', VIT, seed=5)}"
    report = index(settings=Settings(**{**vars(settings), "model": other}))
    assert any("could not be read" in note for note in report.notes)
    active = library.active_space()
    assert active is not None
    assert active.address == named(settings.model)


def test_an_interrupted_run_keeps_what_is_done(
    index: Index, photos: Path, library: Library
) -> None:
    for number in range(6, 40):
        paint(photos / f"{number}.png", number)
    report = index(photos, batch_size=4, **stopping_after(9))
    assert report.interrupted
    done = library.counts().items
    assert done == 8
    report = index()
    assert (report.embedded, library.counts().items) == (40 - done, 40)


def test_what_fails_in_the_model_loses_nothing_that_was_made(
    index: Index, photos: Path, library: Library, settings: Settings
) -> None:
    class Breaking:
        """The real encoder until its third batch."""

        def __init__(self, encoder: Encoder) -> None:
            self._encoder, self._batches = encoder, 0
            self.space: EmbeddingSpace = encoder.space
            self.runtime, self.precision = encoder.runtime, encoder.precision
            self.preprocessing = encoder.preprocessing

        def preprocess(self, image: Image.Image) -> Pixels:
            return self._encoder.preprocess(image)

        def encode_images(self, batch: Pixels) -> Matrix:
            self._batches += 1
            if self._batches == 3:
                raise errors.DeviceError(reason="the device is gone")
            return self._encoder.encode_images(batch)

        def encode_texts(self, texts: list[str]) -> Matrix:
            return self._encoder.encode_texts(texts)

    class Loader(StandardLoader):
        def load(self, address: str, space: EmbeddingSpace | None) -> Encoder:
            return Breaking(super().load(address, space))  # type: ignore[return-value]

    with pytest.raises(errors.DeviceError):
        index(photos, batch_size=2, loader=Loader(settings))
    assert library.counts().items == 4
    assert index().embedded == 2


def test_no_more_decoders_start_than_pay(
    index: Index, photos: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder takes longer to start than another takes for a few small photos."""
    used: set[int] = set()
    original = Decoder.ask

    def noted(decoder: Decoder, request: dict[str, Any], timeout_s: float) -> Any:
        used.add(id(decoder))
        return original(decoder, request, timeout_s)

    monkeypatch.setattr(Decoder, "ask", noted)
    many = Settings(**{**vars(settings), "threads": 8})
    (photos / "more").mkdir()
    for number in range(3):
        (photos / f"{number}.png").rename(photos / "more" / f"{number}.png")
    assert index(photos / "more", settings=many).embedded == 3
    assert len(used) == 1
    used.clear()
    for number in (3, 4):  # large files are worth a decoder each
        picture = photos / f"{number}.png"
        picture.write_bytes(picture.read_bytes() + bytes(8_000_000))
    assert index(photos, settings=many).embedded == 3
    assert 1 < len(used) <= 3


def test_the_photos_are_not_touched(index: Index, photos: Path) -> None:
    def state() -> dict[str, tuple[int, bytes]]:
        return {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in photos.iterdir()}

    before = state()
    index(photos)
    index(photos)
    assert state() == before


def test_the_vectors_are_those_of_the_model(
    index: Index, photos: Path, library: Library, settings: Settings
) -> None:
    import clipsearch

    index(photos)
    encoder = clipsearch.load_encoder(settings.model, settings=settings)
    space = library.active_space()
    assert space is not None
    for path in photos.iterdir():
        item = library.item_at(path)
        assert item is not None
        _, stored = library.vectors_of(space.id, [item])
        made = encoder.encode_images(encoder.preprocess(Image.open(path).convert("RGB"))[None])
        assert float((stored @ made.T).item()) > 0.999
