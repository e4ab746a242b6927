"""Several processes, and what else must not change a gradient or a resumed run."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from models import RESNET, VIT, save_model
from safetensors.torch import load_file, save_file

from clipsearch.cli import main
from clipsearch.encoders.openclip import OpenClipModel, load_openclip
from clipsearch.errors import TrainingError
from training.data import read_captions
from training.layers import prepare_layers
from training.loop import Batches, Interrupted, Recipe, train
from training.team import ALONE, Team, join_team

RECIPE = Recipe(learn="all", steps=4, batch_size=5, lr=2e-3, warmup=1, save_every=2, seed=3)
# Each goes through other parts of the loop.
WAYS = {
    "clip": replace(RECIPE, keep_close=0.1),
    "siglip-in-chunks": replace(RECIPE, loss="siglip", chunk=1),
    "taught": replace(RECIPE, teacher="it", teach="images", learn="images", ema=0.9),
}


@pytest.fixture(scope="module")
def captions(tmp_path_factory: pytest.TempPathFactory, real_photos: Path) -> Path:
    folder = tmp_path_factory.mktemp("captions")
    said = {
        "cat.png": "a cat",
        "moon.png": "the moon",
        "coffee.png": "a cup",
        "lion.jpg": "a cat",  # the same caption: not each other's wrong answers
        "tower.jpg": "a tower",
    }
    for name in said:
        shutil.copyfile(real_photos / name, folder / name)
    lines = "".join(f"{name},{caption}\n" for name, caption in said.items())
    (folder / "captions.csv").write_text(f"path,caption\n{lines}")
    for name, config in (("vit", VIT), ("resnet", RESNET)):
        save_model(folder / name, config)
    save_model(folder / "teacher", {**VIT, "embed_dim": 12}, seed=7)
    return folder / "captions.csv"


def models(captions: Path, recipe: Recipe) -> tuple[OpenClipModel, OpenClipModel | None]:
    torch.set_num_threads(1)
    teacher = load_openclip(f"local-dir:{captions.parent / 'teacher'}") if recipe.teacher else None
    return load_openclip(f"local-dir:{captions.parent / 'vit'}"), teacher


def gradients(captions: Path, recipe: Recipe, team: Team = ALONE) -> dict[str, torch.Tensor]:
    """Of the first batch, by parameter; and its loss."""
    loaded, teacher = models(captions, recipe)
    model: Any = loaded.model
    if recipe.loss == "siglip":
        model.logit_bias = torch.nn.Parameter(torch.tensor(-2.0))
    prepare_layers(model, recipe.learn)
    pictures = read_captions(captions).pictures
    loss = Batches(loaded, pictures, recipe, teacher, team).backward(0)
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {**found, "loss": loss}


def trained(
    captions: Path, recipe: Recipe, folder: Path, team: Team = ALONE, stop_at: int | None = None
) -> dict[str, torch.Tensor]:
    loaded, teacher = models(captions, recipe)
    asked = iter(range(99))
    train(
        loaded,
        read_captions(captions).pictures,
        recipe,
        folder,
        teacher=teacher,
        team=team,
        # Only the first process is asked to stop; all must.
        should_stop=lambda: team.leads and next(asked) == stop_at,
    )
    return dict(loaded.model.state_dict())


def one_of_two(rank: int, port: int, captions: Path, out: Path) -> None:
    named = {"RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port, "MASTER_ADDR": "127.0.0.1"}
    with pytest.MonkeyPatch.context() as torchrun:
        for name, value in named.items():
            torchrun.setenv(name, str(value))
        learn_as_one_of_two(rank, captions, out)


def learn_as_one_of_two(rank: int, captions: Path, out: Path) -> None:
    with join_team(torch.device("cpu")) as team:
        for name, recipe in WAYS.items():
            save_file(gradients(captions, recipe, team), out / f"{name}-{rank}.safetensors")
        straight = trained(captions, WAYS["taught"], out / "straight", team)
        with pytest.raises(Interrupted):
            trained(captions, WAYS["taught"], out / "again", team, stop_at=3)
        again = trained(captions, WAYS["taught"], out / "again", team)
        assert all(torch.equal(again[name], value) for name, value in straight.items()), "resumed"
        save_file(again, out / f"again-{rank}.safetensors")
        with pytest.raises(TrainingError, match="2 processes"):
            trained(captions, replace(RECIPE, batch_size=1), out / "few", team)


def test_two_processes_find_the_gradients_of_one_with_the_whole_batch(
    captions: Path, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    other = mp.get_context("spawn").Process(target=one_of_two, args=(1, port, captions, tmp_path))
    other.start()
    one_of_two(0, port, captions, tmp_path)
    other.join(timeout=60)
    assert other.exitcode == 0

    def of(name: str) -> list[dict[str, torch.Tensor]]:
        return [load_file(tmp_path / f"{name}-{rank}.safetensors") for rank in (0, 1)]

    for name, recipe in WAYS.items():
        first, second = of(name)
        alone = gradients(captions, recipe)
        assert set(first) == set(second) == set(alone)
        for key, value in alone.items():
            assert torch.equal(first[key], second[key]), f"{name} {key}: they would drift apart"
            size = max(float(value.abs().max()), 1e-4)
            assert torch.allclose(first[key], value, rtol=0, atol=1e-4 * size), (name, key)
    first, second = of("again")
    assert all(torch.equal(first[key], value) for key, value in second.items())
    assert [path.name for path in (tmp_path / "again").glob("4-*")], "one of them writes"


def test_torchrun_trains_what_one_process_trains(
    captions: Path, real_photos: Path, tmp_path: Path
) -> None:
    """The documented command line itself, two processes over gloo, beside the same without it."""
    train = [
        "-m", "clipsearch", "train", "--captions", str(real_photos / "captions.csv"),
        "--model", f"local-dir:{captions.parent / 'vit'}", "--learn", "all", "--lr", "1e-3",
        "--epochs", "2", "--batch-size", "7", "--keep-held-out", "--max-forgetting", "100",
        "--threads", "1", "--library", str(tmp_path / "none"), "--json",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    def run(name: str, *launch: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        command = [*launch, *train, "--out", str(tmp_path / name)]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=240, check=False
        )
        assert done.returncode == 0, done.stderr
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return json.loads(done.stdout), [json.loads(line) for line in lines]

    torchrun = str(Path(sys.executable).parent / "torchrun")
    together, steps = run("two", torchrun, "--standalone", "--nproc-per-node", "2")
    alone, expected = run("one", sys.executable)
    assert len(steps) == len(expected) >= 6, "each step is written once"
    for step, of_one in zip(steps, expected, strict=True):
        assert (step["phase"], step["step"]) == (of_one["phase"], of_one["step"])
        assert step["loss"] == pytest.approx(of_one["loss"], abs=1e-4)
    weights, of_one = (
        load_file(next((tmp_path / name / "checkpoint-judged").glob("*.safetensors")))
        for name in ("two", "one")
    )
    start = load_file(captions.parent / "vit" / "open_clip_model.safetensors")
    moved, apart = (
        max(float((weights[f"model.{key}"] - other[key]).abs().max()) for key in start)
        for other in (start, {key: of_one[f"model.{key}"] for key in start})
    )
    assert apart < 0.02 * moved, (apart, moved)
    assert together["mixtures"][-1]["alpha"] == alone["mixtures"][-1]["alpha"] == 1.0
    assert together["pictures"] == alone["pictures"]


@pytest.mark.soak  # over a minute: torch compiles C++ for each kernel
@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="no C++ compiler")
def test_a_compiled_tower_learns_the_same(
    captions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    torch.set_num_threads(1)
    pictures = read_captions(captions).pictures
    vision = {**VIT["vision_cfg"], "layers": 1}  # what is compiled takes a second a kernel
    model = save_model(tmp_path / "vit", {**VIT, "vision_cfg": vision})
    curves: list[list[float]] = []
    for compiled in (False, True):
        curves.append([])
        train(
            load_openclip(f"local-dir:{model}"), pictures, replace(RECIPE, compiled=compiled),
            tmp_path / str(compiled),
            tell=lambda step, kept=curves[-1]: kept.append(step.loss),
        )  # fmt: skip
    assert curves[1] == pytest.approx(curves[0], abs=1e-4)
    assert len(set(curves[0])) == RECIPE.steps
    assert list((tmp_path / "compiled").rglob("*.cpp")), "nothing was compiled"


def test_compile_is_refused_before_anything_is_done_where_it_cannot_work(
    captions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    command = [
        "train", "--captions", str(captions), "--compile", "--out", str(tmp_path / "run"),
        "--model", f"local-dir:{captions.parent / 'vit'}", "--library", str(tmp_path / "none"),
        "--threads", "1", "--learn",
    ]  # fmt: skip
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    torch._dynamo.reset()
    with torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler")}):
        assert main([*command, "all"]) == 70
    assert "--compile needs a C++ compiler" in capsys.readouterr().err.splitlines()[-1]
    assert main([*command, "text"]) == 70
    assert "--learn text locks" in capsys.readouterr().err.splitlines()[-1]
    assert not list((tmp_path / "run").rglob("*.safetensors"))


@pytest.mark.parametrize("config", ["vit", "resnet"])
def test_checkpointed_blocks_and_chunks_have_the_same_gradients(
    captions: Path, config: str
) -> None:
    """Each in a model of its own, with the whole batch's as the reference."""
    pictures = read_captions(captions).pictures
    found = []
    for recipe in (RECIPE, replace(RECIPE, checkpoint_blocks=True), replace(RECIPE, chunk=2)):
        loaded = load_openclip(f"local-dir:{captions.parent / config}")
        model: Any = loaded.model
        model.train()
        model.set_grad_checkpointing(recipe.checkpoint_blocks)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
        Batches(loaded, pictures, recipe, None, ALONE).backward(0)
        found.append([p.grad for p in model.parameters()])
    for whole, *others in zip(*found, strict=True):
        for other in others:
            size = max(float(whole.abs().max()), 1e-4)  # a key's bias has none but rounding
            assert torch.allclose(whole, other, rtol=0, atol=1e-4 * size)


def test_the_average_follows_the_weights_and_is_what_is_kept(
    captions: Path, tmp_path: Path
) -> None:
    recipe = replace(RECIPE, ema=0.5)
    plain = []
    for steps in range(1, 5):  # the weights after each step, without an average
        cut = replace(RECIPE, steps=4, save_every=1)
        folder = tmp_path / f"plain-{steps}"
        if steps < 4:
            with pytest.raises(Interrupted):
                trained(captions, cut, folder, stop_at=steps)
        else:
            trained(captions, cut, folder)
        state = load_file(next(folder.glob("*.safetensors")))
        plain.append(state["model.visual.proj"])
    start = load_file(captions.parent / "vit" / "open_clip_model.safetensors")["visual.proj"]
    mean = start.clone()
    for step, weights in enumerate(plain):
        decay = min(0.5, (1 + step) / (10 + step))
        mean = decay * mean + (1 - decay) * weights
    kept = trained(captions, recipe, tmp_path / "mean")
    assert torch.allclose(kept["visual.proj"], mean, atol=1e-7)
    state = load_file(next((tmp_path / "mean").glob("*.safetensors")))
    assert torch.equal(state["average.visual.proj"], kept["visual.proj"])
    assert torch.equal(state["model.visual.proj"], plain[-1]), "what goes on learning"


@pytest.mark.parametrize(
    "way",
    [
        {"ema": 0.9, "learn": "lora:2"},
        {"precision": "bf16", "checkpoint_blocks": True},
        {"teacher": "it", "teach": "texts", "learn": "text"},
        {"teacher": "it", "chunk": 2, "loss": "siglip"},
    ],
    ids=lambda way: "-".join(map(str, way)),
)
def test_every_way_resumes_bit_for_bit(captions: Path, tmp_path: Path, way: dict[str, Any]) -> None:
    recipe = replace(RECIPE, **way)
    straight = trained(captions, recipe, tmp_path / "straight")
    with pytest.raises(Interrupted):
        trained(captions, recipe, tmp_path / "again", stop_at=3)
    again = trained(captions, recipe, tmp_path / "again")
    assert all(torch.equal(again[name], value) for name, value in straight.items())
    start = load_file(captions.parent / "vit" / "open_clip_model.safetensors")
    assert any(not torch.equal(again[name], value) for name, value in start.items())
    assert set(start) == set(again)


def test_bf16_is_near_float32_and_its_vectors_are_float32(captions: Path) -> None:
    full, half = (gradients(captions, replace(RECIPE, precision=p)) for p in ("f32", "bf16"))
    assert not torch.equal(full["visual.proj"], half["visual.proj"])
    cosine = torch.cosine_similarity(
        full["visual.proj"].flatten(), half["visual.proj"].flatten(), dim=0
    )
    assert float(cosine) > 0.98
    assert all(value.dtype == torch.float32 for value in half.values())


def test_a_taught_tower_comes_nearer_its_teacher(captions: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, teacher="it", teacher_weight=30.0, steps=12)
    pictures = read_captions(captions).pictures
    for teach, learn in (("both", "all"), ("images", "images"), ("texts", "text")):
        way = replace(recipe, teach=teach, learn=learn)
        loaded, teacher = models(captions, way)
        losses: list[float] = []
        train(
            loaded, pictures, way, tmp_path / teach,
            teacher=teacher, tell=lambda step, kept=losses: kept.append(step.loss),
        )  # fmt: skip
        assert losses[-1] < 0.8 * losses[0], teach


def test_the_command_trains_a_last_epoch_with_larger_pictures(
    captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    command = [
        "train", "--captions", str(captions), "--out", str(out), "--threads", "1",
        "--model", f"local-dir:{captions.parent / 'vit'}", "--learn", "images", "--epochs", "1",
        "--last-epoch-size", "80", "--ema", "0.9", "--checkpoint-blocks", "--precision", "f32",
        "--teacher", f"local-dir:{captions.parent / 'teacher'}", "--max-forgetting", "100",
        "--teach", "images", "--lr", "0.01", "--json",
    ]  # fmt: skip
    assert main(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["forgetting"]["max_forgetting"] == 100
    config = json.loads((out / "config.json").read_text())
    assert config["recipe"]["checkpoint_blocks"]
    assert len(config["recipe"]["teacher"]) == 64
    steps = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {step["phase"] for step in steps} >= {"judge", "judge-80"}
    exported = json.loads((out / "export" / "open_clip_config.json").read_text())
    assert exported["model_cfg"]["vision_cfg"]["image_size"] == 80
    assert exported["preprocess_cfg"]["size"] == [80, 80]
    assert load_openclip(f"local-dir:{out / 'export'}").preprocessing.height == 80
    assert main([*command, "--learn", "text", "--out", str(tmp_path / "locked")]) == 70
    assert "--last-epoch-size" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags", [["--ema", "1"], ["--last-epoch-size", "0"], ["--teacher-weight", "-1"]]
)
def test_flags_out_of_range_are_refused(
    captions: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--captions", str(captions), "--out", "x", *flags]) == 2
    assert flags[0] in capsys.readouterr().err
