"""Several processes, and what else must not change a gradient or a resumed run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
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
from training.data import CaptionedPicture, read_captions
from training.loop import Interrupted, Recipe, train
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


def models(captions: Path, recipe: Recipe) -> dict[str, OpenClipModel | None]:
    teacher = load_openclip(f"local-dir:{captions.parent / 'teacher'}") if recipe.teacher else None
    return {"loaded": load_openclip(f"local-dir:{captions.parent / 'vit'}"), "teacher": teacher}


def weights_after(
    captions: Path, recipe: Recipe, folder: Path, team: Team = ALONE, stop_at: int | None = None
) -> dict[str, torch.Tensor]:
    torch.set_num_threads(1)
    given = models(captions, recipe)
    loaded = given["loaded"]
    assert loaded is not None
    pictures = read_captions(captions).pictures
    asked = iter(range(99))
    # Only the first process is asked to stop; all must.
    should_stop = (lambda: team.leads and next(asked) == stop_at) if stop_at is not None else None
    train(
        loaded, pictures, recipe, folder,
        teacher=given["teacher"], team=team, should_stop=should_stop,
    )  # fmt: skip
    return dict(loaded.model.state_dict())


def one_of_two(rank: int, port: int, captions: Path, out: Path) -> None:
    environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in environment.items()})
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    with join_team(torch.device("cpu")) as team:
        for name, recipe in WAYS.items():
            weights = weights_after(captions, recipe, out / name, team)
            save_file(weights, out / f"{name}-{rank}.safetensors")
        with contextlib.suppress(Interrupted):
            weights_after(captions, WAYS["taught"], out / "again", team, stop_at=3)
        weights = weights_after(captions, WAYS["taught"], out / "again", team)
        save_file(weights, out / f"again-{rank}.safetensors")
        with pytest.raises(TrainingError, match="2 processes"):
            weights_after(captions, replace(RECIPE, batch_size=1), out / "few", team)


def test_two_processes_learn_what_one_does_with_the_whole_batch(
    captions: Path, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(one_of_two, (port, captions, tmp_path), nprocs=2)
    start = load_file(captions.parent / "vit" / "open_clip_model.safetensors")
    for name, recipe in WAYS.items():
        first, second = (load_file(tmp_path / f"{name}-{rank}.safetensors") for rank in (0, 1))
        alone = weights_after(captions, recipe, tmp_path / f"{name}-alone")
        for key, value in alone.items():
            assert torch.equal(first[key], second[key]), f"{name} {key}: they drift apart"
            moved = float((value - start[key]).abs().max())
            assert torch.allclose(first[key], value, rtol=0, atol=0.02 * moved + 1e-7), (name, key)
        assert any(not torch.equal(value, start[key]) for key, value in alone.items())
        assert list((tmp_path / name).glob("4-*")), "the first process writes the checkpoint"
    for rank in (0, 1):
        again = load_file(tmp_path / f"again-{rank}.safetensors")
        straight = load_file(tmp_path / f"taught-{rank}.safetensors")
        assert all(torch.equal(again[key], straight[key]) for key in straight), "resumed"
