"""A run is a folder: what it leaves behind, what a continued one keeps, and what it will take."""

from __future__ import annotations

import html.parser
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from models import VIT, save_model
from PIL import Image

from clipsearch.cli import main
from clipsearch.config import Settings
from clipsearch.encoders.openclip import load_openclip
from clipsearch.errors import CheckpointError
from training.data import CaptionSource
from training.estimate import estimate_run
from training.examples import Answers, find_examples
from training.loop import Interrupted, Step
from training.model_card import _licence
from training.plots import Line, Mark, line_chart
from training.run import Options, RunReport, fine_tune
from training.run_folder import RunFolder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, real_photos: Path) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name in ("cat.png", "moon.png", "coffee.png", "lion.jpg", "tower.jpg"):
        shutil.copyfile(real_photos / name, folder / name)
        (folder / name).with_suffix(".txt").write_text(f"<b>{name}</b>\n<b>another</b> of {name}")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"local-dir:{save_model(tmp_path_factory.mktemp('base') / 'my secret base', VIT)}"


OPTIONS = Options(learn="text", lr=3e-3, epochs=8, batch_size=3, val_fraction=0.4,
                  max_forgetting=100.0)  # fmt: skip


@pytest.fixture(scope="module")
def small_probe() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.probing._TEXTS", 30)
        patch.setattr("training.forgetting._IMAGINED", 60)
        yield patch


def settings(folder: Path) -> Settings:
    return Settings(library=folder / "no library", cache_dir=folder)


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, photos: Path, model: str, small_probe: object
) -> tuple[Path, RunReport]:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / "run"
    report = fine_tune(
        photos, out, model, options=OPTIONS, settings=settings(out.parent), tell=lambda _: None
    )
    return out, report


def test_a_run_leaves_everything_that_people_need(run: tuple[Path, RunReport]) -> None:
    out, report = run
    assert report.export is not None, "else this file tests little"
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert names >= {
        "config.json", "metrics.jsonl", "report.json", "skipped.jsonl", "report.html",
        "MODEL_CARD.md", "plots/loss.png", "plots/temperature.png", "plots/recall.png",
        "export/README.md", "export/open_clip_config.json", "export/open_clip_model.safetensors",
    }  # fmt: skip
    assert not [name for name in names if name.endswith(".part")]
    config = json.loads((out / "config.json").read_text())
    assert config["recipe"]["cut"] == {"least": 0.6, "aspect": 1.0, "flip": False}
    for plot in (out / "plots").iterdir():
        with Image.open(plot) as image:
            assert image.size == (1280, 720)
            assert len(image.getcolors(1 << 20) or []) > 5, "something is drawn"


class _Page(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[str, list[dict[str, str | None]]] = {}
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.setdefault(tag, []).append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_else_and_escapes_captions(run: tuple[Path, RunReport]) -> None:
    out, report = run
    page = _Page()
    page.feed((out / "report.html").read_text())
    assert not {"script", "link", "iframe"} & set(page.tags)
    sources = [image["src"] or "" for image in page.tags["img"]]
    assert all(source.startswith("data:image/") for source in sources)
    assert sum(source.startswith("data:image/png") for source in sources) == 3
    shown = [source for source in sources if source.startswith("data:image/jpeg")]
    assert len(shown) % (2 * report.held_out) == 0
    assert shown
    assert len(page.tags["b"]) == 2, "captions are text, not markup"
    assert "<b>" in page.text
    assert "Only 2 pictures are held out" in page.text


def test_the_card_tells_what_matters_and_no_names_of_files(run: tuple[Path, RunReport]) -> None:
    out, report = run
    card = (out / "MODEL_CARD.md").read_text()
    assert card == (out / "export" / "README.md").read_text()
    for told in (
        "5 pictures with 10 captions, from a folder",
        "| R@10 on general pictures |",
        f"| {report.before.text_to_image[1]:.1f} % | {report.after.text_to_image[1]:.1f} % |",
        "`local-dir:my secret base`",
        "clipsearch does not know it",
        "create_model_from_pretrained",
    ):
        assert told in card
    assert str(out.parent) not in card
    assert "cat.png" not in card


def test_the_licence_of_known_weights_is_named() -> None:
    assert "Apache-2.0" in _licence("embedded")
    assert "MIT" in _licence("ViT-B-32-256/datacomp_s34b_b86k")
    assert "MIT" in _licence("ViT-B-32/openai")


def test_a_finished_run_is_read_again_and_not_trained_again(
    run: tuple[Path, RunReport], photos: Path, model: str, small_probe: object
) -> None:
    out, report = run
    steps: list[Step] = []
    metrics = (out / "metrics.jsonl").read_bytes()
    again = fine_tune(
        photos, out, model, options=OPTIONS, settings=settings(out.parent), tell=lambda _: None,
        on_step=lambda _, step: steps.append(step),
    )  # fmt: skip
    assert (again, steps) == (report, [])
    assert (out / "metrics.jsonl").read_bytes() == metrics


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("captions", ["other captions or pictures"]),
        ("picture", ["other captions or pictures"]),
        ("model", ["other weights"]),
        ("recipe", ["other settings", "cut was", "lr was 0.003"]),
    ],
)
def test_a_run_whose_data_changed_is_refused_with_the_reason(
    run: tuple[Path, RunReport],
    photos: Path,
    model: str,
    tmp_path: Path,
    small_probe: object,
    change: str,
    told: list[str],
) -> None:
    out = tmp_path / "run"
    shutil.copytree(run[0], out)
    mine = tmp_path / "photos"
    shutil.copytree(photos, mine)
    options = OPTIONS
    if change == "captions":
        (mine / "lion.txt").write_text("<b>lion.jpg</b>\nthe words are others")
    elif change == "picture":
        Image.open(mine / "lion.jpg").rotate(90).save(mine / "lion.jpg")
    elif change == "model":
        model = f"local-dir:{save_model(tmp_path / 'other', VIT, seed=1)}"
    else:
        options = replace(OPTIONS, lr=1e-3, cut=replace(OPTIONS.cut, least=1.0))
    with pytest.raises(CheckpointError) as refused:
        fine_tune(
            mine, out, model, options=options, settings=settings(tmp_path), tell=lambda _: None
        )
    assert [words for words in told if words not in str(refused.value)] == []


def test_an_interrupted_run_in_other_forms_ends_with_the_same_weights(
    run: tuple[Path, RunReport], photos: Path, model: str, tmp_path: Path, small_probe: object
) -> None:
    """The same pictures out of a tar, stopped in both trainings, against the folder, in one go."""
    tar = tmp_path / "c.tar.gz"
    with tarfile.open(tar, "w:gz") as file:
        for path in sorted(photos.iterdir(), key=lambda path: (path.stem, path.suffix)):
            file.add(path, path.name)
    out = tmp_path / "run"
    reports = []
    for steps in (3, 4, 10**9):
        asked = iter(range(steps + 1))
        with suppress(Interrupted):
            reports.append(
                fine_tune(
                    tar, out, model, options=OPTIONS, settings=settings(tmp_path),
                    tell=lambda _: None, should_stop=lambda asked=asked: next(asked, None) is None,
                )
            )  # fmt: skip
    assert reports == [replace(run[1], export=out / "export")]
    name = "export/open_clip_model.safetensors"
    assert (out / name).read_bytes() == (run[0] / name).read_bytes()
    steps = [(s["phase"], s["step"]) for s in RunFolder(out).steps()]
    assert steps == [(s["phase"], s["step"]) for s in RunFolder(run[0]).steps()]


def test_steps_that_are_done_again_are_logged_once(tmp_path: Path) -> None:
    def step(number: int, loss: float) -> Step:
        return Step(number, 4, loss, 14.0, 1e-3)

    folder = RunFolder(tmp_path)
    folder.prepare({}, [])
    for number in (1, 2, 3):
        folder.log("judge", step(number, 1.0))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "judge", "st')  # killed while it wrote
    again = RunFolder(tmp_path)
    for number in (2, 3, 4):  # the checkpoint was of step 1
        again.log("judge", step(number, 2.0))
    again.log("final", step(1, 3.0))
    found = [(s["phase"], s["step"], s["loss"]) for s in again.steps()]
    assert found == [("judge", 1, 1.0), *(("judge", n, 2.0) for n in (2, 3, 4)), ("final", 1, 3.0)]


def test_tensorboard_gets_the_steps_where_it_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    folder = RunFolder(tmp_path)
    folder.prepare({}, [])
    folder.log("judge", Step(1, 1, 0.5, 14.0, 1e-3))
    folder.close()
    assert list((tmp_path / "tensorboard" / "judge").glob("events*"))


# --- examples and plots ---------------------------------------------------------------------


def test_examples_show_losses_as_well_as_gains_one_for_a_picture() -> None:
    chance = np.random.default_rng(3)
    images = chance.normal(size=(30, 8)).astype(np.float32)
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    owner = [place for place in range(30) for _ in range(2)]
    noise = [chance.normal(0, 0.4, (60, 8)).astype(np.float32) for _ in range(2)]
    states = [Answers(images, images[owner] + each) for each in noise]
    found = find_examples([f"q{n}" for n in range(60)], owner, *states)
    gains = [1 / each.rank_after - 1 / each.rank_before for each in found]
    assert [gain > 0 for gain in gains[:5]] == [True] * 5
    assert [gain < 0 for gain in gains[5:7]] == [True] * 2
    assert gains[7:] == [0, 0]
    assert gains[:5] == sorted(gains[:5], reverse=True)
    assert len({each.right for each in found}) == len(found)
    for each in found:
        (own,) = each.right
        for rank, shown in ((each.rank_before, each.before), (each.rank_after, each.after)):
            assert len(shown) == 5
            assert (own in shown) == (rank <= 5)
            assert rank > 5 or shown[rank - 1] == own


def test_an_example_of_a_caption_that_pictures_share_is_right_for_all_of_them() -> None:
    images = np.eye(4, dtype=np.float32)
    captions, owner = ["a seven", "a seven", "a nine"], [0, 1, 2]
    before = Answers(images, images[[3, 3, 3]])
    after = Answers(images, images[[1, 1, 2]])
    found = find_examples(captions, owner, before, after)
    assert sorted(each.right for each in found) == [(0, 1), (2,)]
    assert [each.rank_after for each in found] == [1, 1]
    assert all(each.after[0] in each.right for each in found)


def test_a_line_lies_where_its_values_are() -> None:
    png = line_chart("t", "x", [Line("a", [0, 1, 2], [0.0, 1.0, float("nan")])], [Mark("m", y=2)])
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    is_blue = (np.abs(pixels - [0x25, 0x63, 0xEB]).sum(axis=2) < 20)[90:620]
    ys, xs = np.nonzero(is_blue)
    assert ys[np.argmin(xs)] > ys[np.argmax(xs)], "it rises"
    assert xs.max() - xs.min() > 1000, "what is not a number takes no room"
    assert line_chart("t", "x", [Line("a", [], [])]).startswith(b"\x89PNG")
    assert line_chart("t", "x", [Line("a", [1], [5.0])]).startswith(b"\x89PNG")


# --- the estimate ---------------------------------------------------------------------------


def test_an_estimate_adds_up_and_keeps_nothing(
    photos: Path, model: str, tmp_path: Path, small_probe: object
) -> None:
    found = estimate_run(
        CaptionSource((photos,)), model, options=replace(OPTIONS, epochs=50),
        settings=settings(tmp_path), tell=lambda _: None,
    )  # fmt: skip
    assert (found.pictures, found.held_out, found.captions) == (5, 2, 10)
    assert (found.steps, found.trainings, found.batch_size) == (100, 2, 3)
    assert found.step_s > 0
    assert found.train_s >= 2 * 100 * found.step_s * 0.9
    assert found.total_s == pytest.approx(found.read_s + found.train_s + found.judge_s, abs=0.2)
    weights = sum(v.nbytes for v in load_openclip(model).model.state_dict().values())
    assert found.peak_memory_bytes is None or found.peak_memory_bytes > 3 * weights
    assert not list(tmp_path.iterdir())


def test_the_command_estimates_without_a_folder(
    photos: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    small_probe: object,
) -> None:  # fmt: skip
    command = ["train", "--captions", str(photos), "--model", model, "--estimate", "--threads", "1",
               "--batch-size", "3", "--library", str(tmp_path / "none")]  # fmt: skip
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "steps of 3 pictures, twice" in printed
    assert "all of it" in printed
    assert main([*command, "--json", "--keep-held-out"]) == 0
    assert json.loads(capsys.readouterr().out)["trainings"] == 1
