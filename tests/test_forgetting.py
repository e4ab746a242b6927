"""Fine-tuning that forgets no more than it may: the mixture, the probe, and the choice."""

from __future__ import annotations

import json
import math
import shutil
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models import VIT, save_model

from clipsearch.config import Settings
from clipsearch.encoders.openclip import load_openclip
from clipsearch.errors import CaptionFileError
from training.data import read_captions
from training.evaluation import Retrieval
from training.forgetting import Exam, Kept, Mixture, Probe, choose, copy_weights, mix
from training.general_texts import general_texts
from training.grad_cache import backward_in_chunks
from training.loop import Recipe, train
from training.loss import contrastive_loss
from training.probing import captioned_probe, find_probe
from training.run import Options, fine_tune
from training.towers import encode_texts


@given(
    st.lists(
        st.tuples(st.lists(st.integers(1, 9), min_size=4, max_size=4), st.floats(0, 100)),
        min_size=1,
        max_size=11,
    ),
    st.floats(0, 100),
    st.floats(0, 5),
)
def test_the_choice_is_the_most_of_what_may_be_kept_and_is_no_worse_than_the_best(
    found: list[tuple[list[int], float]], before: float, most: float
) -> None:
    own = Retrieval(1, 1, {1: 0.0}, {1: 0.0}, 1.0, 1.0)
    mixtures = [
        Mixture(place / 10, own, before if place == 0 else kept)
        for place, (_, kept) in enumerate(found)
    ]
    ranks = [np.array(own_ranks) for own_ranks, _ in found]
    chosen = choose(mixtures, ranks, before, most)
    safe = [place for place, m in enumerate(mixtures) if place == 0 or before - m.kept <= most]
    gains = {place: [1 / rank for rank in found[place][0]] for place in safe}
    best = max(safe, key=lambda place: statistics.mean(gains[place]))
    good = []
    for place in safe:
        less = [a - b for a, b in zip(gains[best], gains[place], strict=True)]
        if statistics.mean(less) <= statistics.stdev(less) / math.sqrt(4) + 1e-12:
            good.append(place)
    assert chosen is mixtures[max(good)] or (
        statistics.mean(gains[mixtures.index(chosen)]) == statistics.mean(gains[best])
    )


def test_what_finds_nothing_more_and_much_less_is_not_kept() -> None:
    own = Retrieval(1, 1, {1: 0.0}, {1: 0.0}, 1.0, 1.0)
    mixtures = [Mixture(0.0, own, 60.0), Mixture(0.5, own, 59.5), Mixture(1.0, own, 50.0)]
    ranks = [np.array([1, 2, 1, 2]), np.array([2, 4, 2, 5]), np.array([1, 1, 1, 1])]
    assert choose(mixtures, ranks, 60.0, 1.0).alpha == 0
    assert choose(mixtures, ranks, 60.0, 100.0).alpha == 1
    assert choose(mixtures, [ranks[0], ranks[2], ranks[2]], 60.0, 1.0).alpha == 0.5


@pytest.fixture
def photos(tmp_path: Path, real_photos: Path) -> Path:
    names = ("cat.png", "moon.png", "coffee.png", "lion.jpg", "tower.jpg")
    for name in names:
        shutil.copyfile(real_photos / name, tmp_path / name)
    file = tmp_path / "captions.csv"
    file.write_text("path,caption\n" + "".join(f"{n},a photo of {n[:-4]}\n" for n in names))
    return file


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model", VIT)


def test_the_mixture_is_linear_and_its_ends_are_the_models_themselves(model: Path) -> None:
    loaded = load_openclip(f"local-dir:{model}")
    old = copy_weights(loaded.model)
    new = {name: value + 1 if value.is_floating_point() else value for name, value in old.items()}
    for alpha, expected in ((0.0, old), (1.0, new)):
        mix(loaded.model, old, new, alpha)
        for name, value in loaded.model.state_dict().items():
            assert torch.equal(value, expected[name])
    mix(loaded.model, old, new, 0.25)
    for name, value in loaded.model.state_dict().items():
        assert torch.allclose(value, old[name] + 0.25, atol=1e-6), name


@pytest.mark.parametrize("source", ["file", "library", "texts"])
def test_every_probe_sees_a_model_that_has_lost_its_mind(
    photos: Path, real_photos: Path, model: Path, source: str
) -> None:
    loaded = load_openclip(f"local-dir:{model}")
    pictures = read_captions(real_photos / "captions.csv").pictures
    probe = captioned_probe(pictures, "ours")
    if source == "file":  # a model of random weights that has learnt them
        recipe = Recipe(learn="all", steps=25, batch_size=25, lr=1e-3, warmup=2)
        train(loaded, pictures, recipe, photos.with_name("run"))
    else:
        own = () if source == "texts" else probe.pictures
        probe = Probe(source, own, tuple(general_texts(40, "probe")), None, "")
    kept = Kept(loaded, probe, images_move=True)
    assert kept.now() == kept.before
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    assert kept.now() < kept.before - 10


def test_a_locked_tower_is_asked_once(photos: Path, model: Path) -> None:
    loaded = load_openclip(f"local-dir:{model}")
    pictures = read_captions(photos).pictures
    exam, moving = (Exam(loaded, pictures, images_move=moves) for moves in (False, True))
    assert exam.sit()[0] == moving.sit()[0]
    with torch.no_grad():
        visual: Any = loaded.model.visual
        visual.proj.neg_()
    (same, ranks), (other, _) = exam.sit(), moving.sit()
    assert same != other
    assert len(ranks) == same.captions == 5


def test_the_two_parts_of_the_general_texts_have_nothing_in_common() -> None:
    learn, probe = general_texts(600, "learn"), general_texts(600, "probe")
    assert not set(learn) & set(probe)
    assert len(set(probe)) == len(probe) == 600
    assert general_texts(50, "probe") == general_texts(50, "probe")


def test_a_text_is_the_same_alone_and_among_longer_ones(tmp_path: Path) -> None:
    from clipsearch.encoders import load_encoder

    loaded = load_openclip("embedded")
    texts = ["a cat", "a small brown dog that runs after a ball on the beach at sunset", "sea"]
    together = encode_texts(loaded, texts)
    for place, text in enumerate(texts):
        assert np.allclose(encode_texts(loaded, [text])[0], together[place], atol=1e-6)
    assert np.allclose(together, load_encoder("embedded").encode_texts(texts), atol=2e-3)


def test_the_probe_is_the_best_that_is_at_hand(photos: Path, embedded_library: Path) -> None:
    pictures = read_captions(photos).pictures
    assert find_probe(None, None, pictures, 0).source == "texts"
    assert find_probe(None, embedded_library, pictures, 0).source == "texts", "25 are too few"
    given_file = find_probe(photos, embedded_library, pictures[:2], 0)
    assert (given_file.source, len(given_file.pictures)) == ("file", 3)
    with pytest.raises(CaptionFileError, match="also learnt"):
        find_probe(photos, None, pictures, 0)


def test_the_librarys_other_photos_are_the_probe(
    photos: Path, embedded_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.probing._LEAST_PICTURES", 10)
    pictures = read_captions(photos).pictures
    probe = find_probe(None, embedded_library, pictures, 0)
    assert (probe.source, probe.owner, len(probe.pictures)) == ("library", None, 20)
    assert not {p.content_hash for p in probe.pictures} & {p.content_hash for p in pictures}


@pytest.mark.parametrize(("most", "kept"), [(100.0, True), (0.0, False)])
def test_a_run_keeps_what_it_may_and_says_so(
    tmp_path: Path,
    photos: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    most: float,
    kept: bool,
) -> None:
    monkeypatch.setattr("training.probing._TEXTS", 30)
    monkeypatch.setattr("training.run._LEAST_STEPS", 12)
    monkeypatch.setattr("training.forgetting._IMAGINED", 60)
    chosen = Settings(library=tmp_path / "none", cache_dir=tmp_path)
    options = Options(learn="text", lr=3e-2, max_forgetting=most)
    told: list[str] = []
    out = tmp_path / "run"
    report = fine_tune(
        photos, out, f"local-dir:{model}", options=options, settings=chosen, tell=told.append
    )
    assert (report.alpha > 0) == kept == (out / "export").is_dir()
    assert report.forgetting.before - report.forgetting.after <= most
    assert report.forgetting.unguarded < report.forgetting.before
    assert [mixture.alpha for mixture in report.mixtures] == [n / 10 for n in range(11)]
    assert "rough guess" in " ".join(told)
    written = json.loads((out / "report.json").read_text())
    assert (written["alpha"], len(written["mixtures"])) == (report.alpha, 11)


@settings(max_examples=20)
@given(st.integers(2, 9), st.integers(1, 9), st.integers(0, 99))
def test_the_gradients_of_chunks_are_those_of_the_whole_batch(
    rows: int, size: int, seed: int
) -> None:
    torch.manual_seed(seed)
    towers = [torch.nn.Linear(5, 4), torch.nn.Linear(6, 4)]
    scale = torch.nn.Parameter(torch.tensor(3.0))
    inputs = [torch.randn(rows, 5), torch.randn(rows, 6)]
    learning = [scale, *(p for tower in towers for p in tower.parameters())]

    def loss(vectors: Any) -> torch.Tensor:
        images, texts = (torch.nn.functional.normalize(v, dim=1) for v in vectors)
        return contrastive_loss(images, texts, scale.exp())

    naive = loss([tower(batch) for tower, batch in zip(towers, inputs, strict=True)])
    expected = torch.autograd.grad(naive, learning)
    sides = [
        [lambda tower=tower, part=part: tower(part) for part in batch.split(size)]
        for tower, batch in zip(towers, inputs, strict=True)
    ]
    found = backward_in_chunks(sides, loss)
    assert found.item() == pytest.approx(naive.item(), rel=1e-5)
    for parameter, gradient in zip(learning, expected, strict=True):
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, gradient, rtol=1e-4, atol=1e-5)
