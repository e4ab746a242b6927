"""A library's model is changed without losing search, embedding twice, or mixing vectors."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from clipsearch.config import Settings, resolve
from clipsearch.encoders import load_encoder, loading
from clipsearch.errors import FillRunningError, ModelChangeError, StorageError
from clipsearch.library import Library
from clipsearch.library.choices import held_models
from clipsearch.library.fill_state import read_fill_state
from clipsearch.library.lock import fill_lock
from clipsearch.searcher import Searcher
from clipsearch.tagging import tag
from clipsearch.vectors import EmbeddingSpace
from indexer import change_checks, filling
from indexer.pipeline import index_library
from indexer.switching import ChangeReport, change_model
from tests.models import VIT, save_model
from tests.test_pipeline import paint

PHOTOS = 6
Run = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "other", VIT, seed=3)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(PHOTOS):
        paint(tmp_path / "photos" / f"{number}.png", number)
    return tmp_path / "photos"


@pytest.fixture
def old(tiny_model_dir: Path) -> str:
    return f"local-dir:{tiny_model_dir}"


@pytest.fixture
def new(other_model: Path, tmp_path: Path) -> str:
    return f"local-dir:{shutil.copytree(other_model, tmp_path / 'new-model')}"


@pytest.fixture
def settings(library_path: Path, old: str) -> Settings:
    return resolve({"library": library_path, "model": old, "runtime": "torch", "threads": 1})


@pytest.fixture
def library(library_path: Path, photos: Path, settings: Settings) -> Iterator[Library]:
    with Library.open(library_path, create=True) as opened:
        index_library(opened, [photos], settings=settings)
        yield opened


def change(library: Library, address: str, settings: Settings, **options: object) -> ChangeReport:
    return change_model(library, address, settings=settings, **options)  # type: ignore[arg-type]


def using(library: Library) -> str:
    """What the model that searches use was taken from."""
    active = library.active_space()
    assert active is not None
    return active.origin


def name_of(library: Library, origin: str) -> str:
    """What the last model that was taken from there is called."""
    return [space.address for space in library.spaces() if space.origin == origin][-1]


def test_search_keeps_answering_by_the_old_model_and_switches_when_full(
    library: Library, settings: Settings, old: str, new: str
) -> None:
    searcher = Searcher(library, settings=settings)
    models = []

    def ask(_done: int, _total: int) -> None:
        assert len(searcher.search("cutoff:none a dog")) == PHOTOS
        models.append(using(library))

    report = change(library, new, settings, progress=ask)
    assert (report.switched, report.embedded, report.lacking) == (True, PHOTOS, 0)
    assert set(models) == {old}
    assert using(library) == new
    assert library.settings()["model"] == name_of(library, new)
    hits = searcher.search("cutoff:none a dog")
    with_new = Searcher(library, settings=settings, encoder=load_encoder(new, settings=settings))
    assert [hit.score for hit in hits] == [
        hit.score for hit in with_new.search("cutoff:none a dog")
    ]


def test_a_question_that_began_before_the_switch_does_not_bring_the_old_space_back(
    library: Library, settings: Settings, new: str
) -> None:
    searcher = Searcher(library, settings=settings)
    searcher.search("cutoff:none a dog")
    before = library.active_space()
    assert before is not None
    change(library, new, settings)
    searcher._current_view(before)
    after = searcher._space()
    assert after is not None
    assert after.origin == new


def test_questions_and_a_change_at_the_same_time(
    library: Library, settings: Settings, old: str, new: str
) -> None:
    searcher, done, failed = Searcher(library, settings=settings), threading.Event(), []

    def ask() -> None:
        while not done.is_set():
            try:
                assert len(searcher.search("cutoff:none a dog")) == PHOTOS
            except Exception as error:
                failed.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        change(library, new, settings)
        change(library, old, settings)
    finally:
        done.set()
        asking.join()
    assert failed == []


def test_what_was_stopped_goes_on_and_nothing_is_embedded_twice(
    library: Library, settings: Settings, old: str, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filling, "COMMIT_AFTER_FILES", 1)
    seen: list[int] = []
    first = change(
        library,
        new,
        settings,
        batch_size=1,
        progress=lambda done, _: seen.append(done),
        should_stop=lambda: bool(seen) and seen[-1] >= 2,
    )
    assert first.interrupted
    assert 0 < first.embedded < PHOTOS
    assert using(library) == old
    told = {model.address: model for model in held_models(library)}[name_of(library, new)]
    assert (told.state, told.embedded) == ("next", first.embedded)
    fill = read_fill_state(library.path)
    assert fill is not None
    assert fill.state == "stopped"
    second = change(library, new, settings)
    assert second.switched
    assert first.embedded + second.embedded == PHOTOS
    assert read_fill_state(library.path) is None


def test_photos_that_are_added_during_a_fill_are_found_at_once_and_filled_before_the_switch(
    library: Library, settings: Settings, photos: Path, new: str
) -> None:
    added = []

    def add(done: int, total: int) -> None:
        if done == total and not added:
            paint(photos / "late.png", 99)
            with Library.open(library.path) as another:
                added.append(index_library(another, settings=settings).embedded)
                assert another.counts().embedded == PHOTOS + 1  # by the old model

    report = change(library, new, settings, progress=add)
    assert added == [1]
    assert report.switched
    assert report.embedded == PHOTOS + 1
    assert library.counts().embedded == PHOTOS + 1


def test_a_removed_photo_does_not_hold_the_switch_up(
    library: Library, settings: Settings, photos: Path, new: str
) -> None:
    (photos / "0.png").unlink()
    report = change(library, new, settings)
    assert (report.switched, report.embedded) == (True, PHOTOS - 1)


def test_an_unreadable_photo_holds_the_switch_up_unless_it_is_left(
    library: Library, settings: Settings, photos: Path, old: str, new: str
) -> None:
    photos.rename(photos.with_name("unplugged"))
    report = change(library, new, settings)
    assert (report.switched, report.lacking, len(report.left)) == (False, PHOTOS, PHOTOS)
    assert using(library) == old
    report = change(library, new, settings, leave_unreadable=True)
    assert report.switched
    photos.with_name("unplugged").rename(photos)
    assert index_library(library, settings=replace(settings, model=new)).embedded == PHOTOS


@pytest.mark.parametrize(
    ("part", "told"), [("weights", "weights"), ("preprocessing", "preprocessing"), ("words", "tok")]
)
def test_what_changed_in_a_folder_is_told_and_is_another_model(
    library: Library, settings: Settings, new: str, part: str, told: str
) -> None:
    change(library, new, settings)
    folder = Path(new.removeprefix("local-dir:"))
    config = folder / "open_clip_config.json"
    record = json.loads(config.read_text())
    if part == "weights":
        save_model(folder, VIT, seed=9)
    elif part == "preprocessing":
        record["preprocess_cfg"]["mean"] = [0.1, 0.2, 0.3]
        config.write_text(json.dumps(record))
    else:
        record["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"clean": "whitespace"}
        config.write_text(json.dumps(record))
    heard: list[str] = []
    assert change(library, new, settings, notify=heard.append).switched
    assert re.search(f"its {told}.* changed.*new model beside the old", heard[0])
    assert len({space.id for space in library.spaces() if space.origin == new}) == 2
    assert len({space.address for space in library.spaces()}) == 3


def test_two_changes_at_once_are_refused_by_name(
    library: Library, settings: Settings, new: str
) -> None:
    with fill_lock(library.path), pytest.raises(FillRunningError, match=r"process \d+"):
        change(library, new, settings)


def test_a_full_disk_is_told_before_anything_is_made(
    library: Library, settings: Settings, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(library.path)._replace(free=1000)
    monkeypatch.setattr(change_checks.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StorageError, match=r"6 pictures take .* kB, .* 1 kB are free"):
        change(library, new, settings)
    assert len(library.spaces()) == 1


def test_back_drop_and_list_on_the_command_line(
    library: Library, call_cli: Run, old: str, new: str, settings: Settings
) -> None:
    assert call_cli("models", "back").returncode == ModelChangeError.exit_code
    flags = ("--runtime", "torch", "--threads", "1")
    preview = call_cli("models", "use", new, "--dry-run", "--json", *flags)
    assert json.loads(preview.stdout)["pictures"] == PHOTOS
    assert len(library.spaces()) == 1
    used = call_cli("models", "use", new, "--json", *flags)
    assert used.returncode == 0, used.stderr
    assert json.loads(used.stdout.splitlines()[-1])["using"] == name_of(library, new)
    listed = [json.loads(line) for line in call_cli("models", "--json").stdout.splitlines()]
    held = {one["address"]: one["state"] for one in listed if one["kind"] == "held"}
    assert held == {name_of(library, old): "before", name_of(library, new): "in use"}
    assert "in use" in call_cli("models").stdout
    refused = call_cli("models", "drop", new)
    assert refused.returncode == ModelChangeError.exit_code
    assert "models back" in refused.stderr
    assert call_cli("models", "back", *flags).returncode == 0
    assert using(library) == old
    with library.writer() as writer:
        writer.plan_switch(next(one.id for one in library.spaces() if one.origin == new))
    withdrawn = call_cli("models", "back", "--json")
    assert json.loads(withdrawn.stdout)["withdrawn"] == name_of(library, new)
    assert library.models.next() is None
    dropped = json.loads(call_cli("models", "drop", new, "--json").stdout)
    assert (dropped["vectors"], dropped["not_shrunk"]) == (PHOTOS, "")
    assert [space.origin for space in library.spaces()] == [old]
    assert call_cli("check").returncode == 0
    assert json.loads(call_cli("models", "shrink", "--json").stdout)["event"] == "shrunk"


def test_dropping_a_space_makes_the_database_smaller(library: Library, tmp_path: Path) -> None:
    space = library.active_space()
    assert space is not None
    with library.writer() as writer:
        other = writer.add_space(
            type(space.space)("big", "w", "p", 100_000), address="big", runtime="", precision=""
        )
        ids, hashes = library.present_items(), []
        hashes = [item.content_hash for item in library.items(ids.tolist()).values()]
        import numpy as np

        from clipsearch.library import Batch

        rows = np.full((PHOTOS, 100_000), 100_000**-0.5, np.float32)
        writer.commit(Batch(vectors=(other.id, hashes, rows)))
    library.shrink()
    before = change_checks.size_on_disk(library.path)
    with library.writer() as writer:
        assert writer.drop_space(other.id) == PHOTOS
    library.shrink()
    assert before - change_checks.size_on_disk(library.path) > 1_000_000


def test_a_change_in_the_background_outlives_its_command_and_tells_how_far_it_is(
    library: Library, call_cli: Run, tiny_model_dir: Path, tmp_path: Path
) -> None:
    same = f"local-dir:{tiny_model_dir}"  # compiled already, so the process needs no torch
    with library.writer() as writer:
        space = library.spaces()[0]
        writer.plan_switch(space.id)
    begun = call_cli("models", "use", same, "--background", "--json")
    assert begun.returncode == 0, begun.stderr
    os.waitpid(json.loads(begun.stdout)["process"], 0)
    assert library.models.next() is None
    assert "now uses" in (library.path / "fill.log").read_text()


def test_vocabularies_tag_anew_in_the_new_space_unless_told_not_to(
    library: Library, settings: Settings, old: str, new: str, tmp_path: Path
) -> None:
    words = tmp_path / "mine.txt"
    words.write_text("dog\ncat\ntree\n")
    tag(library, words, settings=settings)

    def tagged_in() -> str:
        state = library.tags.state("mine")
        assert state is not None
        assert state["last_item"] == max(library.present_items())
        return str(state["space"])

    spaces = {space.origin: space.id for space in library.spaces()}
    assert tagged_in() == spaces[old]
    report = change(library, new, settings)
    assert (report.switched, report.tags_failed) == (True, "")
    assert tagged_in() == report.space
    change(library, old, settings, with_tags=False)
    assert tagged_in() == report.space


def test_the_next_release_of_the_embedded_model_is_taken_without_a_flag(tmp_path: Path) -> None:
    other, settings = "ViT-B-32/openai", resolve()
    heard: list[str] = []
    now = EmbeddingSpace("model", "1" * 64, "-", 4)
    with Library.open(tmp_path / "test.clipsearch", create=True) as library:
        with library.writer() as writer:
            for address, digit in (("embedded", "0"), (other, "2")):
                space = EmbeddingSpace("model", digit * 64, "-", 4)
                writer.add_space(space, address=address, runtime="torch", precision="f32")
        change_checks.tell_changed(library, "embedded", now, settings, heard.append)
        assert heard == []
        with pytest.raises(ModelChangeError, match="--as-new"):
            change_checks.tell_changed(library, other, now, settings, heard.append)
        change_checks.tell_changed(library, other, now, settings, heard.append, as_new=True)
        assert "its weights changed" in heard[0]


def test_a_library_of_an_earlier_embedded_model_is_told_that_a_newer_one_ships(
    embedded_library: Path,
    tiny_model_dir: Path,
    call_cli: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def told() -> tuple[bool, bool]:
        printed = call_cli("models", "--library", embedded_library).stdout
        as_json = call_cli("models", "--json", "--library", embedded_library).stdout
        return "a newer one ships" in printed, json.loads(as_json.splitlines()[0])["outdated"]

    assert told() == (False, False)
    monkeypatch.setattr(loading, "EMBEDDED_FOLDER", tiny_model_dir)  # as a later release would
    assert told() == (True, True)
