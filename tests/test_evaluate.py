"""Evaluation: figures as counted by hand in float64, and a command that says what is wrong."""

from __future__ import annotations

import json
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet
from word_encoder import WordEncoder, library_of

from clipsearch.errors import DatasetError
from clipsearch.library.records import Batch, Description
from clipsearch.vectors import unit_rows
from training.evaluating.bootstrap import median_interval, ratio_interval
from training.evaluating.corruptions import KINDS, corrupt
from training.evaluating.measuring import Measured, ModelReport
from training.evaluating.probes import crossing_point, few_shot, fit, split, sweep
from training.evaluating.recommending import recommend
from training.evaluating.robustness import effective_robustness
from training.evaluating.sources import read_dataset, read_library
from training.evaluating.timing import Timing
from training.evaluating.zero_shot import (
    accuracy_of,
    class_ranks,
    class_vectors,
    ensembled,
    truth_of,
)
from training.evaluation import rank_both

Call = Callable[..., subprocess.CompletedProcess[str]]


def some_rows(chance: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """Unit rows, some of them twice, so that there are true ties."""
    rows = unit_rows(chance.standard_normal((count, dim)))
    return rows[chance.integers(0, count, count)]


@given(
    seed=st.integers(0, 10_000),
    pictures=st.integers(2, 40),
    block=st.integers(1, 50),
    close=st.sampled_from([1.0, 1e-3, 1e-7]),
    shared=st.integers(1, 6),
)
@hypothesis_settings(max_examples=60)
def test_ranks_in_blocks_are_those_of_the_whole_float64_matrix(
    seed: int, pictures: int, block: int, close: float, shared: int
) -> None:
    chance = np.random.default_rng(seed)
    centre = chance.standard_normal(8)
    images = unit_rows(centre + close * some_rows(chance, pictures, 8))  # nearly all the same
    owner = chance.integers(0, pictures, 3 * pictures)
    texts = unit_rows(centre + close * some_rows(chance, len(owner), 8))

    text_ranks, image_ranks = rank_both(images, texts, owner.tolist(), block=block)
    same = chance.integers(0, 1 + len(owner) // shared, len(owner))
    words, firsts = np.unique(same, return_index=True)
    shared_ranks = rank_both(images, texts, owner.tolist(), [str(n) for n in same], block=block)

    # The oracle: every pair by itself in float64, so that equal vectors tie exactly.
    scores = (texts[:, None, :].astype(np.float64) * images[None]).sum(axis=2)
    own = scores[np.arange(len(owner)), owner]
    assert text_ranks.tolist() == (scores >= own[:, None]).sum(axis=1).tolist()
    expected = []
    for image in np.unique(owner):
        mine = owner == image
        expected.append(1 + (scores[~mine, image] >= scores[mine, image].max()).sum())
    assert image_ranks.tolist() == expected

    # Of the texts with the same words, the first; right for all their images.
    right = np.zeros((len(words), pictures), np.bool_)
    right[np.searchsorted(words, same), owner] = True
    scores = scores[firsts]
    best = np.where(right, scores, -np.inf).max(axis=1)
    ahead = 1 + (~right & (scores >= best[:, None])).sum(axis=1)
    assert shared_ranks[0].tolist() == ahead[np.searchsorted(words, same)].tolist()
    best = np.where(right, scores, -np.inf).max(axis=0)
    ahead = 1 + (~right & (scores >= best)).sum(axis=0)
    assert shared_ranks[1].tolist() == ahead[np.unique(owner)].tolist()


def test_pictures_without_captions_are_in_the_way_but_not_asked() -> None:
    images = np.eye(3, dtype=np.float32)
    text_ranks, image_ranks = rank_both(images, images[[1]], [0])
    assert text_ranks.tolist() == [3]  # both others score as high: ties count against it
    assert image_ranks.tolist() == [1]


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    chance = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        right = chance.random(150) < 0.3
        low, high = ratio_interval(right, np.ones(150), resamples=200)
        inside += low <= 30 <= high
    assert 0.90 <= inside / 200 <= 0.99


def test_the_medians_interval_is_that_of_repeated_medians() -> None:
    ranks = np.array([5, 1, 9, 2, 2, 7], dtype=np.int64)
    owner = np.array([0, 0, 1, 2, 2, 2], dtype=np.int64)
    found = median_interval(ranks, owner, resamples=300)
    chance = np.random.default_rng(0)
    medians = []
    for _ in range(300):
        drawn = chance.integers(3, size=3)
        medians.append(np.median(np.concatenate([ranks[owner == one] for one in drawn])))
    assert found == pytest.approx(np.percentile(medians, [2.5, 97.5]), abs=0.01)


def test_evaluate_measures_captions(
    call_cli: Call, tiny_model_dir: Path, real_photos: Path
) -> None:
    done = call_cli(
        *("evaluate", "--model", f"local-dir:{tiny_model_dir}", "--json"),
        *("--data", real_photos / "captions.csv", "--parts", "retrieval"),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["retrieval"]["found"]["pictures"] == 25
    assert found["zero_shot"] is None
    assert found["timing"] is None


# --- zero-shot ------------------------------------------------------------------------------


def test_class_ranks_count_ties_against_the_model_and_any_label_is_right() -> None:
    classes = np.eye(3, dtype=np.float32)
    images = unit_rows(np.array([[1, 0, 0], [1, 1, 0], [0, 1, 2]], np.float32))
    truth = truth_of([("a",), ("b",), ("b", "c")], ["a", "b", "c"])
    assert class_ranks(images, classes, truth).tolist() == [1, 2, 1]
    found = accuracy_of(class_ranks(images, classes, truth), truth)
    assert found.top1 == pytest.approx(66.67)
    assert found.mean_per_class == pytest.approx(100 * (1 + 0.5 + 1) / 3, abs=0.01)
    assert found.top5 is None


def test_words_decide_as_the_ensemble_of_the_paper_does() -> None:
    encoder = WordEncoder()
    vectors = class_vectors(encoder, ["red_cat", "dog"], ["a photo of a {}.", "a dog, a {}"])
    by_hand = encoder.encode_texts(["a photo of a red cat.", "a dog, a red cat"]).mean(axis=0)
    assert np.allclose(ensembled(vectors)[0], by_hand / np.linalg.norm(by_hand), atol=1e-6)


# --- probes ---------------------------------------------------------------------------------


@given(st.integers(0, 96))
def test_the_sweep_finds_the_peak_of_a_hill_in_few_steps(peak: int) -> None:
    asked: list[int] = []

    def hill(step: int) -> float:
        asked.append(step)
        return -abs(step - peak)

    assert sweep(hill) == peak
    assert len(asked) == len(set(asked)) <= 15


def test_the_probe_solves_the_regularised_problem_it_says_it_does() -> None:
    chance = np.random.default_rng(1)
    rows = chance.standard_normal((60, 4)).astype(np.float32)
    classes = chance.integers(0, 3, 60)
    model = fit(rows, classes, 0.7)
    weights = model.coef_.astype(np.float64)
    scores = rows @ weights.T + model.intercept_
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    gradient = 0.7 * (shares - np.eye(3)[classes]).T @ rows + weights  # 0 at the minimum
    assert np.abs(gradient).max() < 0.02


def test_the_crossing_point_is_log_linear() -> None:
    tried = [(1.0, 40.0), (4.0, 60.0), (16.0, 80.0)]
    assert crossing_point(tried, 50.0) == (2.0, "=")
    assert crossing_point(tried, 70.0) == (8.0, "=")
    assert crossing_point(tried, 30.0) == (1.0, "<")
    assert crossing_point(tried, 90.0) == (16.0, ">")


def test_few_shots_learn_what_zero_shot_cannot() -> None:
    chance = np.random.default_rng(2)
    centres = unit_rows(chance.standard_normal((4, 16)))
    classes = np.repeat(np.arange(4), 12)
    rows = unit_rows(centres[classes] + 0.15 * chance.standard_normal((48, 16)))
    learn, judge = split(classes, 0.5, seed=0)
    assert not set(learn) & set(judge)
    assert sorted([*learn, *judge]) == list(range(48))
    found = few_shot(
        (rows[learn], classes[learn]), (rows[judge], classes[judge]), lambda *_: 25.0, seeds=2
    )
    assert found is not None
    assert found.shots == (1, 2, 4)  # of six a class
    assert (found.crossing, found.relation) == (1.0, "<")
    assert found.top1[-1] > 95


# --- robustness -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_corruptions_grow_with_severity_and_repeat_with_the_seed(kind: str) -> None:
    ramp = np.linspace(20, 200, 224 * 300 * 3).reshape(224, 300, 3)
    noise = np.random.default_rng(0).integers(0, 40, ramp.shape)
    image = Image.fromarray((ramp + noise).astype(np.uint8))
    clean = np.asarray(image, float)
    away = [
        float(np.abs(np.asarray(corrupt(image, kind, level, 3), float) - clean).mean())
        for level in (1, 3, 5)
    ]
    assert min(away) > 0
    if kind != "fog":  # it covers more, but no further from what is there
        assert away[0] < away[1] < away[2]
    assert corrupt(image, kind, 3, 3).tobytes() == corrupt(image, kind, 3, 3).tobytes()


def test_effective_robustness_is_what_the_line_of_the_others_does_not_expect() -> None:
    clean = [50.0, 60.0, 70.0, 80.0]
    logit = np.log(np.array(clean) / (100 - np.array(clean)))
    corrupted = (100 / (1 + np.exp(-(0.8 * logit - 0.5)))).tolist()
    corrupted[2] += 5
    found = effective_robustness(clean, corrupted)
    assert found is not None
    assert found[2] == pytest.approx(5, abs=0.01)
    assert effective_robustness(clean[:3], corrupted[:3]) is None


# --- which model ----------------------------------------------------------------------------


def measured(name: str, of_each: np.ndarray, speed: float, peak_mb: float = 300) -> Measured:
    timing = Timing("t", "f32", 1, 0.5, 5.0, speed, peak_mb)
    report = ModelReport(name, "s", "w", 8, float(of_each.mean()), *[None] * 5, timing)
    return Measured(report, of_each)


def test_the_faster_of_equals_is_recommended_and_never_what_does_not_fit() -> None:
    chance = np.random.default_rng(0)
    good = chance.uniform(0, 100, 400)
    same = good + chance.normal(0, 5, 400) - 0.1
    models = [measured("good", good, 10), measured("fast", same, 90)]
    models += [measured("bad", good - 10, 500), measured("huge", good + 30, 900, peak_mb=9000)]
    found = recommend(models, memory_mb=8000)
    assert found.model == "fast"
    assert [one.as_good for one in found.compared] == [True, True, False, True]
    assert "9,000 MB" in found.compared[3].too_much


# --- data, and the command ------------------------------------------------------------------


def by_class(folder: Path) -> Path:
    for number, (name, colour) in enumerate([("red_thing", "red"), ("blue", "blue")] * 3):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), colour).save(folder / name / f"{number}.png")
    return folder


def test_one_dataset_is_the_same_from_folders_csv_and_parquet(tmp_path: Path) -> None:
    folder = by_class(tmp_path / "photos")
    files = sorted(folder.rglob("*.png"))
    table = tmp_path / "labels.csv"
    rows = [f"{file.relative_to(tmp_path)},{file.parent.name}" for file in files]
    table.write_text("path,label\n" + "\n".join(rows) + "\n")
    packed = tmp_path / "photos.parquet"
    columns = {
        "image": [{"bytes": file.read_bytes(), "path": file.name} for file in files],
        "labels": [[file.parent.name] for file in files],
    }
    parquet.write_table(pyarrow.table(columns), packed)
    found = [read_dataset(str(path)) for path in (folder, table, packed)]
    assert len({tuple(one.labels for one in data.pictures) for data in found}) == 1
    assert {one.open(32).getpixel((3, 3)) for one in found[2].pictures} == {
        (255, 0, 0),
        (0, 0, 255),
    }
    assert read_dataset(str(table), ("label", "blue")).classes() == ["blue"]


def test_torchvisions_files_are_read_where_they_lie(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in (("train", 1), ("t10k", 3)):
        pixels = bytes(range(count)) * (28 * 28)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(
            struct.pack(">4i", 2051, count, 28, 28) + pixels
        )
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2i", 2049, count) + bytes([7, 1, 7][:count])
        )
    found = read_dataset(f"mnist:{tmp_path}")
    assert [one.labels for one in found.pictures] == [("7 - seven",), ("1 - one",), ("7 - seven",)]
    assert found.pictures[0].open(28).size == (28, 28)
    with pytest.raises(DatasetError, match="Nothing is downloaded"):
        read_dataset(f"cifar10:{tmp_path}")
    with pytest.raises(DatasetError, match="Known are: mnist"):
        read_dataset(f"imagenet21k:{tmp_path}")


@pytest.mark.parametrize(
    ("text", "reason"),
    [("path,label\n", "at least 2"), ("file,label\na,b\n", "It must name the columns")],
)
def test_a_table_that_cannot_be_used_is_named(tmp_path: Path, text: str, reason: str) -> None:
    table = tmp_path / "bad.csv"
    table.write_text(text)
    with pytest.raises(DatasetError, match=reason) as caught:
        read_dataset(str(table)).telling()
    assert "bad.csv" in str(caught.value)


def test_the_library_is_measured_by_peoples_words_not_by_a_models(
    tmp_path: Path, library_path: Path
) -> None:
    encoder = WordEncoder()
    shown = {f"{n}.png": text for n, text in enumerate(["cat", "dog", "owl"])}
    with library_of(library_path, tmp_path, shown, encoder) as library:
        with library.writer() as writer:
            tags, captions = (("animal|cat", "xmp"),), (("Tom", "xmp"),)
            said = [
                Description("0.png", None, {}, tags, captions),
                Description("1.png", None, {}, (), (("a dog", "xmp"),)),
            ]
            writer.commit(Batch(descriptions=said))
        found = read_library(library)
    assert [(one.captions, one.labels) for one in found.pictures] == [
        (("Tom",), ("cat",)),
        (("a dog",), ()),
        ((), ()),
    ]


def test_evaluate_measures_everything_and_writes_a_page(
    call_cli: Call, tiny_model_dir: Path, tmp_path: Path
) -> None:
    folder = by_class(tmp_path / "photos")
    (folder / "blue" / "broken.png").write_bytes(b"not a picture")
    page = tmp_path / "page.html"
    templates = tmp_path / "templates.txt"
    templates.write_text("a {}\nthe <b>{}</b>\n")
    asked = ("evaluate", "--model", f"local-dir:{tiny_model_dir}", "--data", folder)
    done = call_cli(
        *asked,
        *("--parts", "zero-shot,probe,few-shot,robustness", "--templates", templates),
        *("--json", "--html", page),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["zero_shot"]["pictures"] == 6
    assert "broken.png" in found["notes"][0]
    assert found["linear_probe"]["judged_on"] == 2
    assert len(found["robustness"]["each"]) == len(KINDS)
    text = page.read_text()
    assert "the &lt;b&gt;{}&lt;/b&gt;" in text
    assert "<b>{}</b>" not in text
    assert "http" not in text.replace("http-equiv", "")  # nothing is fetched
    again = call_cli(*asked, "--html", page)
    assert again.returncode == 2
    assert "--overwrite" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["--data", "nowhere"], 75, "there is no such file"),
        (["--parts", "magic"], 2, "--parts takes"),
        (["--only", "x"], 2, "COLUMN=VALUE"),
        (["--limit", "1"], 2, "at least 2"),
        (["--html", "x.txt"], 2, ".html"),
        ([], 21, "no library"),
    ],
)
def test_bad_input_is_named(call_cli: Call, arguments: list[str], code: int, reason: str) -> None:
    done = call_cli("evaluate", *arguments)
    assert done.returncode == code
    assert reason in done.stderr
