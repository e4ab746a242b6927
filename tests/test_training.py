"""Training: the paper's loss to the digit, runs that resume bit for bit, models that come back."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import RESNET, VIT, save_model
from safetensors.torch import load_file

from clipsearch.cli import main
from clipsearch.encoders.openclip import load_openclip
from clipsearch.errors import CaptionFileError, CheckpointError
from training.data import read_captions, split_by_content
from training.evaluation import evaluate_retrieval
from training.loop import Interrupted, Recipe, train
from training.loss import contrastive_loss

WEIGHTS = "open_clip_model.safetensors"


def unit(seed: int, rows: int, dim: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(rows, dim, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(vectors, dim=1)


# --- the loss -------------------------------------------------------------------------------


def reference_loss(images: np.ndarray, texts: np.ndarray, scale: float) -> float:
    """CLIP's Figure 3 in plain numpy and float64, one row at a time."""
    logits = scale * images @ texts.T
    losses = []
    for matrix in (logits, logits.T):
        for row in range(len(matrix)):
            terms = matrix[row] - matrix[row].max()
            losses.append(-(terms[row] - math.log(np.exp(terms).sum())))
    return float(np.mean(losses))


@given(st.integers(1, 12), st.integers(2, 16), st.floats(0.5, 100), st.integers(0, 99))
def test_the_loss_is_the_papers(rows: int, dim: int, scale: float, seed: int) -> None:
    images, texts = unit(seed, rows, dim), unit(seed + 1000, rows, dim)
    found = contrastive_loss(images, texts, torch.tensor(scale, dtype=torch.float64))
    expected = reference_loss(images.numpy(), texts.numpy(), scale)
    assert float(found) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_the_losss_gradients_are_right() -> None:
    images = unit(1, 5, 4).requires_grad_()
    texts = unit(2, 5, 4).requires_grad_()
    scale = torch.tensor(7.0, dtype=torch.float64, requires_grad=True)
    alike = torch.zeros(5, 5, dtype=torch.bool)
    alike[0, 3] = True
    assert torch.autograd.gradcheck(
        lambda *inputs: contrastive_loss(*inputs, alike), (images, texts, scale)
    )


def test_the_same_caption_is_not_a_wrong_answer() -> None:
    images, texts = unit(1, 3, 8), unit(2, 3, 8)
    texts[2] = texts[0]
    images[2] = images[0]
    scale = torch.tensor(50.0, dtype=torch.float64)
    alike = torch.tensor([[True, False, True], [False, True, False], [True, False, True]])
    plain = contrastive_loss(images, texts, scale)
    assert float(contrastive_loss(images, texts, scale, alike)) < float(plain)
    apart = torch.eye(3, dtype=torch.bool)
    assert float(contrastive_loss(images, texts, scale, apart)) == pytest.approx(float(plain))


# --- evaluation -----------------------------------------------------------------------------


@given(st.integers(1, 12), st.lists(st.integers(1, 4), min_size=1, max_size=12), st.integers(0, 50))
def test_recall_agrees_with_counting_by_hand(_n: int, per_image: list[int], seed: int) -> None:
    chance = np.random.default_rng(seed)
    # Eighths, whose products have no rounding: scores that look the same are the same.
    images = (8 * unit(seed, len(per_image), 3).numpy()).round().astype(np.float32) / 8
    owner = [image for image, count in enumerate(per_image) for _ in range(count)]
    noise = (8 * chance.normal(0, 0.7, (len(owner), 3))).round().astype(np.float32) / 8
    texts = images[owner] + noise
    found = evaluate_retrieval(images, texts, owner)
    scores = texts @ images.T
    for k in (1, 5, 10):
        text_hits = [
            sum(scores[t, i] >= scores[t, own] for i in range(len(images))) <= k
            for t, own in enumerate(owner)
        ]
        image_hits = []
        for i in range(len(images)):
            best = max(scores[t, i] for t, own in enumerate(owner) if own == i)
            ahead = sum(scores[t, i] >= best for t, own in enumerate(owner) if own != i)
            image_hits.append(ahead + 1 <= k)
        assert found.text_to_image[k] == pytest.approx(100 * np.mean(text_hits), abs=0.01)
        assert found.image_to_text[k] == pytest.approx(100 * np.mean(image_hits), abs=0.01)


def test_perfect_and_constant_models_get_what_they_deserve() -> None:
    images = np.eye(20, dtype=np.float32)
    owner = [i for i in range(20) for _ in range(2)]
    perfect = evaluate_retrieval(images, images[owner], owner)
    assert (perfect.text_to_image[1], perfect.image_to_text[1], perfect.median_rank) == (
        100,
        100,
        1,
    )
    same = np.ones((20, 4), np.float32) / 2
    assert evaluate_retrieval(same, same[owner], owner).text_to_image[10] == 0


# --- captions -------------------------------------------------------------------------------


@pytest.fixture
def captions(tmp_path: Path, real_photos: Path) -> Path:
    for name in ("cat.png", "moon.png", "coffee.png", "lion.jpg", "tower.jpg"):
        shutil.copyfile(real_photos / name, tmp_path / name)
    shutil.copyfile(tmp_path / "cat.png", tmp_path / "same cat.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no")
    file = tmp_path / "captions.csv"
    file.write_text(
        "path,caption\n"
        "cat.png,a cat\n"
        'same cat.png,"a cat, ginger"\n'
        "cat.png,a cat\n"
        "moon.png,the moon\n"
        "coffee.png,a cup of coffee\n"
        "lion.jpg,a lion\n"
        "tower.jpg,a tower\n"
        "broken.jpg,nothing\n"
        "gone.jpg,nothing\n"
        "moon.png,\n",
        encoding="utf-8-sig",
    )
    return file


def test_captions_are_merged_by_content_and_bad_rows_are_listed(captions: Path) -> None:
    found = read_captions(captions)
    assert [picture.captions for picture in found.pictures] == [
        ("a cat", "a cat, ginger"),
        ("the moon",),
        ("a cup of coffee",),
        ("a lion",),
        ("a tower",),
    ]
    assert [(row.where, Path(row.name).name) for row in found.skipped] == [
        ("captions.csv:9", "broken.jpg"),
        ("captions.csv:10", "gone.jpg"),
        ("captions.csv:11", "moon.png"),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "path,caption"),
        ("photograph,words\na.jpg,b\n", "path,caption"),
        ("path,caption\ngone.jpg,a\n", "gone.jpg"),
        ("path,caption\n", "at least 2"),
    ],
)
def test_a_caption_file_that_cannot_be_used_says_why(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "captions.csv"
    file.write_text(text)
    with pytest.raises(CaptionFileError, match=told) as caught:
        read_captions(file)
    assert str(file) in str(caught.value)
    with pytest.raises(CaptionFileError, match="no such file"):
        read_captions(tmp_path / "none.csv")
    file.write_bytes(b"path,caption\n\xff\xfe\x00,\x80\n")
    with pytest.raises(CaptionFileError, match="UTF-8"):
        read_captions(file)


def test_the_split_is_by_content_stable_and_never_empty(captions: Path) -> None:
    pictures = read_captions(captions).pictures
    for fraction in (0.01, 0.2, 0.5, 0.99):
        learning, held_out = split_by_content(pictures, fraction, seed=3)
        assert len(held_out) >= 1
        assert len(learning) >= 2
        assert not {p.content_hash for p in learning} & {p.content_hash for p in held_out}
        assert len(learning) + len(held_out) == len(pictures)
        again = split_by_content(list(reversed(pictures)), fraction, seed=3)
        assert {p.content_hash for p in again[1]} == {p.content_hash for p in held_out}


# --- the loop -------------------------------------------------------------------------------


def recipe(learn: str) -> Recipe:
    return Recipe(learn=learn, steps=6, batch_size=3, lr=1e-3, warmup=2, save_every=2)


@pytest.mark.parametrize("learn", ["all", "text"])
@pytest.mark.parametrize("config", [VIT, RESNET], ids=["vit", "resnet"])
def test_an_interrupted_run_ends_with_the_same_weights_bit_for_bit(
    tmp_path: Path, captions: Path, learn: str, config: dict[str, object]
) -> None:
    torch.set_num_threads(1)
    pictures = read_captions(captions).pictures
    address = f"local-dir:{save_model(tmp_path / 'model', config)}"
    straight = load_openclip(address)
    start = {name: value.clone() for name, value in straight.model.state_dict().items()}
    train(straight, pictures, recipe(learn), tmp_path / "straight")
    for stop_at in (1, 4):
        asked = iter(range(100))
        stopped = load_openclip(address)
        folder = tmp_path / f"stopped-{stop_at}"
        with pytest.raises(Interrupted):
            train(
                stopped,
                pictures,
                recipe(learn),
                folder,
                should_stop=lambda asked=asked, at=stop_at: next(asked) == at,
            )
        resumed = load_openclip(address)
        train(resumed, pictures, recipe(learn), folder)
        for name, value in straight.model.state_dict().items():
            assert torch.equal(value, resumed.model.state_dict()[name]), name
    changed = {
        name
        for name, value in straight.model.state_dict().items()
        if not torch.equal(value, start[name])
    }
    assert any(name.startswith("transformer") for name in changed)
    assert any(name.startswith("visual") for name in changed) == (learn == "all")
    assert not any("running_" in name for name in changed), "batch norms keep their statistics"


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, captions: Path) -> None:
    pictures = read_captions(captions).pictures
    address = f"local-dir:{save_model(tmp_path / 'model', VIT)}"
    train(load_openclip(address), pictures, recipe("text"), tmp_path / "run")
    with pytest.raises(CheckpointError, match="--out"):
        train(load_openclip(address), pictures[1:], recipe("text"), tmp_path / "run")
    state = next((tmp_path / "run").glob("*.safetensors"))
    state.write_bytes(state.read_bytes()[:1000])
    with pytest.raises(CheckpointError):
        train(load_openclip(address), pictures, recipe("text"), tmp_path / "run")


def test_the_temperature_is_clipped_at_one_hundred(tmp_path: Path, captions: Path) -> None:
    pictures = read_captions(captions).pictures
    loaded = load_openclip(f"local-dir:{save_model(tmp_path / 'model', VIT)}")
    with torch.no_grad():
        loaded.model.logit_scale.fill_(math.log(100))
    scales: list[float] = []
    hot = Recipe(learn="text", steps=5, batch_size=3, lr=0.5, warmup=1)
    train(
        loaded, pictures, hot, tmp_path / "run", tell=lambda step: scales.append(step.logit_scale)
    )
    assert max(scales) <= 100.001


# --- the command ----------------------------------------------------------------------------


def train_command(*arguments: str | Path) -> list[str]:
    return ["train", "--threads", "1", *map(str, arguments)]


def test_the_command_exports_a_model_that_open_clip_itself_loads(
    tmp_path: Path, captions: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import open_clip

    out = tmp_path / "run"
    command = train_command(
        "--captions", captions, "--out", out, "--model", f"local-dir:{tiny_model_dir}",
        "--epochs", "2", "--batch-size", "3", "--json"
    )  # fmt: skip
    code = main(command)
    printed = capsys.readouterr()
    assert code == 0, printed.err
    report = json.loads(printed.out)
    assert (report["pictures"], report["held_out"], report["skipped"]) == (5, 1, 3)
    assert set(report["before"]["text_to_image"]) == {"1", "5", "10"}
    assert "gone.jpg" in printed.err
    assert "held out" in printed.err
    model = open_clip.create_model(f"local-dir:{out / 'export'}", require_pretrained=True)
    before = load_file(tiny_model_dir / WEIGHTS)
    assert any(not torch.equal(v, before[n]) for n, v in model.state_dict().items())
    steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {step["phase"] for step in steps} == {"judge", "final"}
    assert json.loads((out / "config.json").read_text())["recipe"]["steps"] == 4


def test_ctrl_c_saves_and_the_same_command_goes_on(
    tmp_path: Path, captions: Path, tiny_model_dir: Path
) -> None:
    out = tmp_path / "run"
    command = train_command(
        "--captions", captions, "--out", out, "--model", f"local-dir:{tiny_model_dir}",
        "--epochs", "50", "--batch-size", "3", "--keep-held-out", "--json"
    )  # fmt: skip
    process = [sys.executable, "-m", "clipsearch", *command]
    running = subprocess.Popen(process, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = out / "metrics.jsonl"
    deadline = time.monotonic() + 90
    while not metrics.exists() or len(metrics.read_bytes().splitlines()) < 5:
        assert running.poll() is None, running.stderr.read() if running.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(running.pid, signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 130, told
    assert "same command continues" in told
    saved = json.loads((out / "checkpoint-judged" / "step.json").read_text())["step"]
    assert 0 < saved < 100
    assert main(command) == 0
    steps = [json.loads(line) for line in metrics.read_text().splitlines()]
    judged = [step["step"] for step in steps if step["phase"] == "judge"]
    assert judged == list(range(1, 101))
