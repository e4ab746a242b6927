"""A library's models are its own: a run folder may move, be trained into again, or be deleted."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from models import VIT, save_model

from clipsearch.config import Settings, resolve
from clipsearch.encoders import load_encoder
from clipsearch.encoders.local_model import read_local_model
from clipsearch.encoders.model_store import ModelStore
from clipsearch.errors import ModelChangeError, StorageError, WeightsNotFoundError
from clipsearch.library import Library, SpaceRecord
from clipsearch.model_names import names_of
from clipsearch.own_models import find_space, known_model
from clipsearch.searcher import Searcher
from clipsearch.tagging import tag
from clipsearch.vectors import EmbeddingSpace
from indexer.pipeline import index_library
from indexer.switching import change_model
from tests.test_pipeline import paint

Run = Callable[..., CompletedProcess[str]]
WEIGHTS = "open_clip_model.safetensors"
TORCH = ("--runtime", "torch", "--threads", "1")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models, as two trainings would export them."""
    folder = tmp_path_factory.mktemp("trained")
    return [save_model(folder / str(seed), VIT, seed=seed) for seed in (5, 6)]


@pytest.fixture
def run(trained: list[Path], tmp_path: Path) -> Path:
    """The export of a run folder; its README is the model's card."""
    export = shutil.copytree(trained[0], tmp_path / "runs/mine/export")
    (export / "README.md").write_text("licence: mine")
    return export


@pytest.fixture
def settings(library_path: Path, run: Path) -> Settings:
    model = f"local-dir:{run}"
    return resolve({"library": library_path, "model": model, "runtime": "torch", "threads": 1})


@pytest.fixture
def library(library_path: Path, tmp_path: Path, settings: Settings) -> Iterator[Library]:
    for number in range(3):
        paint(tmp_path / "photos" / f"{number}.png", number)
    with Library.open(library_path, create=True) as opened:
        index_library(opened, [tmp_path / "photos"], settings=settings, verify_model=True)
        yield opened


def train_again(trained: list[Path], run: Path) -> None:
    shutil.copyfile(trained[1] / WEIGHTS, run / WEIGHTS)


def active(library: Library) -> SpaceRecord:
    space = library.active_space()
    assert space is not None
    return space


def copies(library: Library) -> set[str]:
    return {folder.name for folder in (library.path / "models").iterdir()}


def asked(library: Library, settings: Settings) -> list[float | None]:
    hits = Searcher(library, settings=settings).search("cutoff:none a dog")
    return [hit.score for hit in hits]


@contextmanager
def without_room(limit_bytes: int) -> Iterator[None]:
    """No file can become larger, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("then", ["moved", "trained again", "deleted"])
def test_whatever_becomes_of_the_run_everything_goes_on(
    library: Library,
    settings: Settings,
    run: Path,
    trained: list[Path],
    tmp_path: Path,
    call_cli: Run,
    then: str,
) -> None:
    before = asked(library, settings)
    if then == "moved":
        run.parent.rename(run.parent.with_name("elsewhere"))
    elif then == "trained again":
        train_again(trained, run)
    else:
        shutil.rmtree(run.parent)
    assert asked(library, settings) == before
    (tmp_path / "words.txt").write_text("dog\ncat\n")
    assert tag(library, tmp_path / "words.txt", settings=settings).items == 3
    paint(tmp_path / "photos" / "late.png", 9)
    done = call_cli("index", *TORCH)  # by the library's own setting
    assert done.returncode == 0, done.stderr
    assert active(library).embedded == 4
    assert len(library.spaces()) == 1
    elsewhere = tmp_path / "other.png"
    paint(elsewhere, 12)
    assert call_cli("learn", "Rex", elsewhere).returncode == 0


def test_a_copy_is_named_by_its_weights_is_private_and_has_what_belongs_to_it(
    library: Library, run: Path
) -> None:
    space = active(library)
    (name,) = copies(library)
    copy = library.path / "models" / name
    assert name == f"{hashlib.sha256((run / WEIGHTS).read_bytes()).hexdigest()}-{space.id}"
    assert read_local_model(copy, "-").space() == space.space
    assert (copy / "README.md").read_text() == "licence: mine"
    assert copy.stat().st_mode & 0o077 == 0
    assert "models/" in (library.path / "README.txt").read_text()


def test_two_trainings_into_one_folder_are_two_models_that_can_be_told_apart(
    library: Library, settings: Settings, run: Path, trained: list[Path], call_cli: Run
) -> None:
    first = active(library)
    train_again(trained, run)
    used = call_cli("models", "use", f"local-dir:{run}", *TORCH)
    assert used.returncode == 0, used.stderr
    assert "its weights changed" in used.stderr
    second = active(library)
    assert second.id != first.id
    held = [json.loads(line) for line in call_cli("models", "--json").stdout.splitlines()]
    addresses = [one["address"] for one in held if one["kind"] == "held"]
    assert addresses == [first.address, second.address]
    assert len(set(addresses)) == 2
    told = call_cli("models").stdout
    assert all(address in told for address in addresses)
    for wanted in (first, second, first):
        done = call_cli("models", "use", wanted.address, *TORCH)
        assert done.returncode == 0, done.stderr
        assert active(library).id == wanted.id
        assert library.settings()["model"] == wanted.address
    assert call_cli("models", "back", *TORCH).returncode == 0
    assert active(library).id == second.id
    for space in (first, second):
        found = call_cli("search", "--model", space.address, "--all", "a dog", "--json")
        assert len(found.stdout.splitlines()) == 3, found.stderr
    both = call_cli("search", "--model", f"local-dir:{run}", "a dog")
    assert both.returncode == ModelChangeError.exit_code
    assert first.address in both.stderr


def test_index_takes_what_lies_in_the_folder_now_and_says_so(
    library: Library, run: Path, trained: list[Path], call_cli: Run
) -> None:
    first = active(library)
    train_again(trained, run)
    done = call_cli("index", "--model", f"local-dir:{run}", *TORCH)
    assert done.returncode == 0, done.stderr
    assert "its weights changed" in done.stderr
    assert first.address in done.stderr
    assert active(library).id != first.id
    assert len(copies(library)) == 2
    again = call_cli("index", *TORCH)
    assert "weights changed" not in again.stderr


def test_a_deleted_folder_still_names_its_model_unless_it_was_several(
    library: Library, settings: Settings, run: Path, trained: list[Path], call_cli: Run
) -> None:
    change_model(library, "embedded", settings=settings)
    address, first = f"local-dir:{run}", library.spaces()[0]
    shutil.rmtree(run)
    heard: list[str] = []
    found = known_model(library, address, heard.append)
    assert found is not None
    assert (found.id, len(heard)) == (first.id, 1)
    done = call_cli("models", "use", address, *TORCH)
    assert done.returncode == 0, done.stderr
    assert active(library).id == first.id
    shutil.copytree(trained[1], run)
    change_model(library, address, settings=settings)
    shutil.rmtree(run)
    with pytest.raises(ModelChangeError, match=first.address):
        known_model(library, address)


def test_dropping_a_model_removes_its_copy_alone(
    library: Library, settings: Settings, run: Path, trained: list[Path], call_cli: Run
) -> None:
    first = active(library)
    train_again(trained, run)
    change_model(library, f"local-dir:{run}", settings=settings)
    assert len(copies(library)) == 2
    assert call_cli("models", "drop", first.address).returncode == 0
    (left,) = copies(library)
    assert left.endswith(active(library).id)


def test_a_library_of_before_takes_its_model_in_with_the_next_run(
    library: Library, settings: Settings, run: Path, call_cli: Run
) -> None:
    space = active(library)
    shutil.rmtree(library.path / "models")
    library.set_setting("model", space.origin)  # as it was kept
    before = asked(library, settings)
    assert before
    assert call_cli("index", *TORCH).returncode == 0
    assert len(copies(library)) == 1
    shutil.rmtree(run)
    assert asked(library, settings) == before
    assert library.settings()["model"] == space.address


@pytest.mark.parametrize("then", ["moved", "trained again"])
def test_a_model_that_is_nowhere_is_asked_for_and_needs_no_embedding_when_it_is_found(
    library: Library,
    settings: Settings,
    run: Path,
    trained: list[Path],
    tmp_path: Path,
    call_cli: Run,
    then: str,
) -> None:
    space = active(library)
    shutil.rmtree(library.path / "models")
    moved = shutil.copytree(run, tmp_path / "new place")
    if then == "moved":
        shutil.rmtree(run)
    else:
        train_again(trained, run)
    with pytest.raises(WeightsNotFoundError, match="models use local-dir:NEW_FOLDER") as caught:
        asked(library, settings)
    assert caught.value.exit_code == 32
    assert str(run) in str(caught.value)
    assert call_cli("search", "a dog", "--model", space.address).returncode == 32
    done = call_cli("models", "use", f"local-dir:{moved}", "--json", *TORCH)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["embedded"] == 0
    assert (active(library).id, active(library).origin) == (space.id, f"local-dir:{moved}")
    shutil.rmtree(moved)
    assert asked(library, settings)


def test_a_library_that_cannot_be_written_is_searched_by_its_own_copy(
    library: Library, settings: Settings, run: Path, tmp_path: Path
) -> None:
    before = asked(library, settings)
    shutil.rmtree(run)
    copy = shutil.copytree(library.path, tmp_path / "copy.clipsearch")
    for path in [copy, *copy.rglob("*")]:
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        with Library.open(copy) as opened:
            assert asked(opened, settings) == before
    finally:
        for path in [copy, *copy.rglob("*")]:
            path.chmod(0o700)


def test_a_full_disk_leaves_no_half_model_and_is_told(
    library: Library, settings: Settings, run: Path, trained: list[Path]
) -> None:
    before, first = copies(library), active(library)
    train_again(trained, run)
    with without_room(1_000_000), pytest.raises(StorageError, match=r"models/.* free some space"):
        change_model(library, f"local-dir:{run}", settings=settings)
    assert copies(library) == before
    assert [space.id for space in library.spaces()] == [first.id]
    assert change_model(library, f"local-dir:{run}", settings=settings).switched


def test_a_folder_that_is_written_to_while_it_is_copied_is_not_taken(
    run: Path, trained: list[Path], tmp_path: Path
) -> None:
    model = read_local_model(run, "local-dir:mine")
    space = model.space()
    train_again(trained, run)
    store = ModelStore(tmp_path / "library")
    with pytest.raises(ModelChangeError, match="changed while they were copied"):
        store.take(model, space)
    assert list(store.path.iterdir()) == []


def test_what_a_killed_copy_left_is_removed_by_the_next(run: Path, tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "library")
    left = store.path / ".taking-abc"
    left.mkdir(parents=True)
    (left / WEIGHTS).write_bytes(b"half")
    model = read_local_model(run, "local-dir:mine")
    assert store.take(model, model.space())
    assert not left.exists()
    assert not store.take(model, model.space())


def test_the_same_weights_with_other_pixels_are_another_model(
    library: Library, settings: Settings, run: Path
) -> None:
    config = run / "open_clip_config.json"
    record = json.loads(config.read_text())
    record["preprocess_cfg"]["mean"] = [0.1, 0.2, 0.3]
    config.write_text(json.dumps(record))
    first = active(library)
    change_model(library, f"local-dir:{run}", settings=settings)
    assert len(copies(library)) == 2
    for space in library.spaces():
        encoder = load_encoder(space.address, settings=settings, space=space.space)
        assert encoder.space == space.space
        by_name = load_encoder(space.address, settings=settings)
        assert by_name.space == space.space
    assert find_space(library, first.id[:6]).id == first.id


def test_names_of_two_models_are_never_the_same() -> None:
    spaces = [("a" * 16, "embedded"), ("b" * 16, "embedded"), ("c" * 16, "RN50/openai")]
    assert list(names_of(spaces).values()) == ["embedded@aaaaaaaa", "embedded", "RN50/openai"]


def test_vectors_of_an_earlier_release_are_asked_by_their_own_model(
    library_path: Path, tmp_path: Path, tiny_model_dir: Path
) -> None:
    """As where the embedded model is another one since, and the old one is still compiled."""
    folder, settings = f"local-dir:{tiny_model_dir}", resolve({"library": library_path})
    paint(tmp_path / "photos" / "1.png", 1)
    with Library.open(library_path, create=True) as library:
        index_library(library, [tmp_path / "photos"], settings=replace(settings, model=folder))
        with sqlite3.connect(library_path / "library.db") as database:
            database.execute("UPDATE space SET address = 'embedded'")
        with library.writer() as writer:
            newer = EmbeddingSpace("open_clip:newer", "1" * 64, "-", 4)
            writer.add_space(newer, address="embedded", runtime="torch", precision="f32")
        old = active(library)
        assert old.address == f"embedded@{old.id[:8]}"
        assert len(Searcher(library, settings=settings).search("cutoff:none a dog")) == 1
        report = change_model(library, old.address, settings=settings)
        assert (report.switched, active(library).id) == (True, old.id)
        paint(tmp_path / "photos" / "2.png", 2)
        chosen = resolve({"library": library_path}, library.settings())
        assert index_library(library, settings=chosen).embedded == 1
        assert active(library).embedded == 2


def test_spaces_of_libraries_of_before_have_names_of_their_own(
    library: Library, settings: Settings, run: Path, trained: list[Path]
) -> None:
    train_again(trained, run)
    change_model(library, f"local-dir:{run}", settings=settings)
    with sqlite3.connect(library.path / "library.db") as database:
        rows = database.execute("SELECT address FROM space").fetchall()
    assert {row[0] for row in rows} == {f"local-dir:{run}"}  # what an earlier version reads
    names = [space.address for space in library.spaces()]
    assert len(set(names)) == 2
    assert replace(settings).model == f"local-dir:{run}"


def test_a_backup_names_the_models_that_it_does_not_hold_and_they_are_restored_with_it(
    library: Library, settings: Settings, run: Path, tmp_path: Path, call_cli: Run
) -> None:
    before = asked(library, settings)
    told = call_cli("backup", tmp_path / "a.db")
    assert str(library.path / "models") in told.stderr
    as_json = json.loads(call_cli("backup", tmp_path / "b.db", "--json").stdout)
    assert [Path(one).name for one in as_json["models_not_in_it"]] == sorted(copies(library))
    shutil.rmtree(run)
    restored = tmp_path / "restored.clipsearch"
    shutil.copytree(library.path / "models", restored / "models")
    shutil.copy(tmp_path / "a.db", restored / "library.db")
    with Library.open(restored) as opened:
        assert asked(opened, settings) == before


@pytest.mark.parametrize("is_there", [True, False])
def test_a_damaged_copy_is_found_and_taken_again_where_the_model_still_is(
    library: Library, run: Path, call_cli: Run, is_there: bool
) -> None:
    assert call_cli("check").returncode == 0
    (name,) = copies(library)
    damaged = library.path / "models" / name / WEIGHTS
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    if not is_there:
        shutil.rmtree(run)
    checked = call_cli("check")
    assert (checked.returncode, name in checked.stdout) == (23, True)
    assert call_cli("check", "--repair").returncode == (0 if is_there else 23)
    assert call_cli("check").returncode == (0 if is_there else 23)


def test_a_change_in_the_background_goes_by_the_librarys_own_copy(
    library_path: Path, tmp_path: Path, tiny_model_dir: Path, call_cli: Run
) -> None:
    compiled = shutil.copytree(tiny_model_dir, tmp_path / "tiny")  # so nobody needs torch
    paint(tmp_path / "photos" / "1.png", 1)
    done = call_cli("index", tmp_path / "photos", "--model", f"local-dir:{compiled}")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(compiled)
    with Library.open(library_path) as library:
        with library.writer() as writer:
            writer.plan_switch(active(library).id)
        begun = call_cli("models", "use", active(library).address, "--background", "--json")
        assert begun.returncode == 0, begun.stderr
        os.waitpid(json.loads(begun.stdout)["process"], 0)
        assert library.models.next() is None
        assert "now uses" in (library.path / "fill.log").read_text()
