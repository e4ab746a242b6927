"""Named concepts: a mean of photos, a token learned in the text tower, small adapters.

    python benchmarks/concepts.py [--data ../shared/data] [--model embedded] [--vectors KEPT.npz]

Of each of the 30 subjects of subjects.parquet (4 to 6 photos each) some photos teach a name, the
others have to be found among all other subjects and the 1,000 photos of val. Every method gets the
same photos to learn from and to find.

name        recall@5 of the left-out photos for the name alone, two draws of 3 photos a subject
few         the same where general pictures are not the library's but the 158 of the subjects
            alone, as in a small library that is full of what is searched for; methods that look
            at no general pictures stay as they are
scene @1    queries such as "NAME on a rock": the left-out photo that shows it is the best of all
scene @5    it is among the best five (concepts_scenes.tsv says which photo shows what)
captions    recall@10 of val's captions afterwards: what becomes of queries without the name
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from clipsearch import load_encoder
from clipsearch.encoders import Encoder
from clipsearch.naming import PLACEHOLDER, prototype, said
from clipsearch.vectors import Matrix, Vector, unit_rows, unit_vector

DATA = Path(__file__).parents[2] / "shared" / "data"
SCENES = Path(__file__).with_name("concepts_scenes.tsv")
TAUGHT = 3  # photos
NAME = "Zorblax"
TEMPLATES = ("a photo of {}", "{}", "a picture of {} outside", "{} in a room", "a close-up of {}")
SCALE = 50.0  # of cosines in the softmax of what is trained
GENERAL = 400  # pictures that are not meant, for what is trained


@dataclass(frozen=True)
class Job:
    """Photos (rows) to learn from, what the query says after the name, what it has to find."""

    kind: str  # the subject's class word
    taught: np.ndarray
    scene: str
    wanted: np.ndarray
    left_out: np.ndarray  # neither right nor wrong, with what was taught

    def query(self, name: str) -> str:
        return f"{name} {self.scene}".strip()


@dataclass(frozen=True)
class Pool:
    """All photos: unit rows, and of the first ones subject, class word and scene."""

    rows: Matrix
    subjects: np.ndarray
    kinds: list[str]
    scenes: list[str]

    @property
    def of_subjects(self) -> np.ndarray:
        return np.arange(len(self.subjects))


# A method makes the questions of jobs; general pictures are some rows of the pool.
Method = Callable[[Pool, Sequence[Job], np.ndarray], Matrix]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--vectors", type=Path, help="a file (.npz) to keep vectors in")
    parser.add_argument("--steps", type=int, default=60, help="of what is trained; 0: leave out")
    parser.add_argument("--every", type=int, default=3, help="train for one of so many queries")
    arguments = parser.parse_args()
    encoder = load_encoder(arguments.model)
    subjects = pq.read_table(arguments.data / "subjects.parquet").to_pylist()
    val = pq.read_table(arguments.data / "val" / "val.parquet").to_pylist()
    captions = [caption for photo in val for caption in photo["captions"]]
    rows, texts = encoded(encoder, [*subjects, *val], captions, arguments.vectors)
    pool = pool_of(rows, subjects)
    names, scenes = name_jobs(pool, TAUGHT, draws=2), scene_jobs(pool)
    owners = np.array([row for row, photo in enumerate(val) for _ in photo["captions"]])
    pictures = pool.rows[len(subjects) :]
    changed = sum(said(caption, [NAME]).rest != caption for caption in captions)
    usual = recall(texts, pictures, owners, 10)
    print(
        f"{len(subjects)} photos of {len(set(pool.subjects))} subjects, {len(val)} of val; "
        f"{len(names)} queries by name, {len(scenes)} with a scene"
    )
    print(f"captions that the name {NAME} changes: {changed} of {len(captions)}")
    print(
        f"{'':<44}{'name':>7}{'few':>7}{'scene @1':>10}{'scene @5':>10}{'captions':>10}", flush=True
    )

    def compare(label: str, method: Method, names: list[Job], scenes: list[Job]) -> None:
        by_name = method(pool, names, np.arange(len(pool.rows)))
        after = usual
        if isinstance(method, Adapter):
            adapted = (method.adapted(texts, at) for at in range(len(names)))
            after = float(np.mean([recall(rows, pictures, owners, 10) for rows in adapted]))
        few = method(pool, names, pool.of_subjects)
        by_scene = method(pool, scenes, np.arange(len(pool.rows)))
        print(
            f"{label:<44}{found(pool, names, by_name, 5):7.3f}{found(pool, names, few, 5):7.3f}"
            f"{found(pool, scenes, by_scene, 1):10.3f}{found(pool, scenes, by_scene, 5):10.3f}"
            f"{after:10.3f}",
            flush=True,
        )

    for label, method in methods(encoder).items():
        compare(label, method, names, scenes)
    if arguments.steps:
        names, scenes = names[:: arguments.every], scenes[:: arguments.every]
        print(f"\none of {arguments.every} queries, {arguments.steps} steps of what is trained")
        for label, method in trained(encoder, arguments.steps).items():
            compare(label, method, names, scenes)
    print("\nphotos that taught it, name recall@5, as clipsearch does it:")
    for count in range(1, 5):
        jobs = name_jobs(pool, count, draws=8)
        questions = mean_of_photos(encoder)(pool, jobs, pool.of_subjects)
        print(f"{count}: {found(pool, jobs, questions, 5):.3f}")


# --- photos, what to learn and what to find ---------------------------------------------------


def encoded(
    encoder: Encoder, photos: list[dict[str, Any]], captions: list[str], kept: Path | None
) -> tuple[Matrix, Matrix]:
    """The vectors of photos and captions, from a file if they are in it."""
    if kept is not None and kept.exists():
        with np.load(kept, allow_pickle=False) as arrays:
            return arrays["photos"], arrays["captions"]
    made = []
    for start in range(0, len(photos), 32):
        opened = [
            Image.open(io.BytesIO(photo["image"])).convert("RGB")
            for photo in photos[start : start + 32]
        ]
        made.append(encoder.encode_images(np.stack([encoder.preprocess(i) for i in opened])))
    parts = [encoder.encode_texts(captions[at : at + 64]) for at in range(0, len(captions), 64)]
    rows, texts = np.concatenate(made), np.concatenate(parts)
    if kept is not None:
        np.savez(kept, photos=rows, captions=texts)
    return rows, texts


def pool_of(rows: Matrix, subjects: list[dict[str, Any]]) -> Pool:
    lines = SCENES.read_text(encoding="utf-8").splitlines()
    shows = dict(line.split("\t") for line in lines if not line.startswith("#"))
    keys = [photo["key"].removeprefix("dbo_") for photo in subjects]
    return Pool(
        rows,
        np.array([key.rsplit("_", 1)[0] for key in keys]),
        [photo["labels"][0] for photo in subjects],
        [shows.get(key, "") for key in keys],
    )


def name_jobs(pool: Pool, taught: int, draws: int) -> list[Job]:
    random = np.random.default_rng(0)
    jobs = []
    for subject in sorted(set(pool.subjects)):
        own = np.flatnonzero(pool.subjects == subject)
        for _ in range(draws):
            drawn = random.permutation(own)
            count = min(taught, len(drawn) - 1)
            jobs.append(
                Job(pool.kinds[own[0]], drawn[:count], "", drawn[count:], np.array([], np.int64))
            )
    return jobs


def scene_jobs(pool: Pool) -> list[Job]:
    """For each photo with a scene that others of its subject do not show: learn from those."""
    random = np.random.default_rng(1)
    jobs = []
    for row in pool.of_subjects:
        scene = pool.scenes[row]
        own = np.flatnonzero(pool.subjects == pool.subjects[row])
        same = np.array([one for one in own if pool.scenes[one] == scene and one != row], np.int64)
        others = [one for one in own if pool.scenes[one] != scene]
        if scene and len(others) >= 2:
            taught = random.permutation(others)[: min(TAUGHT, len(others) - 1)]
            jobs.append(Job(pool.kinds[row], taught, scene, np.array([row]), same))
    return jobs


def found(pool: Pool, jobs: Sequence[Job], questions: Matrix, first: int) -> float:
    """The mean part of what is wanted that is among the first."""
    parts = []
    for job, question in zip(jobs, questions, strict=True):
        scores = pool.rows @ question
        scores[np.concatenate([job.taught, job.left_out])] = -2.0
        best = np.argsort(-scores, kind="stable")[:first]
        parts.append(np.isin(job.wanted, best).sum() / min(first, len(job.wanted)))
    return float(np.mean(parts))


def recall(texts: Matrix, pictures: Matrix, owners: np.ndarray, first: int) -> float:
    scores = texts @ pictures.T
    own = scores[np.arange(len(texts)), owners][:, None]
    return float(((scores > own).sum(axis=1) < first).mean())


# --- methods ----------------------------------------------------------------------------------


def methods(encoder: Encoder) -> dict[str, Method]:
    return {
        "class word": class_word(encoder),
        "mean of photos + text, as clipsearch does it": mean_of_photos(encoder),
        "mean + class word in the text": mean_of_photos(encoder, kind_said=True),
        "mean - mean of general pictures": mean_of_photos(encoder, without_general=1.0),
        "mean, covariance removed (shrinkage 0.5)": whitened(encoder, 0.5),
        "mean, covariance removed (shrinkage 0.8)": whitened(encoder, 0.8),
        "the same, of the four fifths least like it": whitened(encoder, 0.8, without_nearest=0.2),
    }


def trained(encoder: Encoder, steps: int) -> dict[str, Method]:
    token = LearnedToken(encoder, steps)
    return {
        "mean of photos + text, as clipsearch does it": mean_of_photos(encoder),
        "learned token": token,
        "learned token + mean of photos": token.with_photos,
        "adapter on all text vectors": Adapter(encoder, steps),
    }


def class_word(encoder: Encoder) -> Method:
    return lambda _pool, jobs, _general: encoder.encode_texts(
        [f"a photo of {job.query('a ' + job.kind)}" for job in jobs]
    )


def mean_of_photos(
    encoder: Encoder, *, kind_said: bool = False, without_general: float = 0.0
) -> Method:
    def questions(pool: Pool, jobs: Sequence[Job], general: np.ndarray) -> Matrix:
        centre = pool.rows[general].mean(axis=0)
        return with_words(
            encoder,
            jobs,
            [
                unit_vector(prototype(pool.rows[job.taught]) - without_general * centre)
                for job in jobs
            ],
            kind_said=kind_said,
        )

    return questions


def with_words(
    encoder: Encoder, jobs: Sequence[Job], means: Sequence[Vector], *, kind_said: bool = False
) -> Matrix:
    """Adds what a query says beside the name."""
    made = []
    for job, mean in zip(jobs, means, strict=True):
        if job.scene:
            words = job.query(f"a {job.kind}" if kind_said else PLACEHOLDER)
            made.append(unit_vector(mean + encoder.encode_texts([words])[0]))
        else:
            made.append(mean)
    return np.stack(made)


def whitened(encoder: Encoder, shrinkage: float, without_nearest: float = 0.0) -> Method:
    """Linear discriminant: what pictures in general vary by counts less (Hariharan et al. 2012).

    ``without_nearest`` is the part of the general pictures, the most like it, that is left out.
    """

    def direction(mean: Vector, general: Matrix) -> Vector:
        farthest = np.argsort(general @ mean)[: round(len(general) * (1 - without_nearest))]
        centre, covariance = general[farthest].mean(axis=0), np.cov(general[farthest].T)
        usual = np.trace(covariance) / len(covariance) * np.eye(len(covariance))
        shrunk = (1 - shrinkage) * covariance + shrinkage * usual
        return unit_vector(np.linalg.solve(shrunk, mean - centre))

    def questions(pool: Pool, jobs: Sequence[Job], general: np.ndarray) -> Matrix:
        means = [direction(prototype(pool.rows[j.taught]), pool.rows[general]) for j in jobs]
        return with_words(encoder, jobs, means)

    return questions


def general_rows(jobs: Sequence[Job], general: np.ndarray) -> np.ndarray:
    """(jobs, n) rows for each job that did not teach it: unknown ones may show it, as in life."""
    random = np.random.default_rng(2)
    rows = []
    for job in jobs:
        others = np.setdiff1d(general, job.taught)
        rows.append(random.choice(others, GENERAL, replace=len(others) < GENERAL))
    return np.stack(rows)


class LearnedToken:
    """A word for each job, found by gradient descent through the frozen text tower.

    As Gal et al. 2022 and Cohen et al. 2022 (PALAVRA, without its pretrained set encoder): begun
    at the class word, so that sentences with it fit the photos better than general pictures.
    """

    def __init__(self, encoder: Encoder, steps: int) -> None:
        from clipsearch.encoders.openclip import load_openclip

        self._encoder = encoder
        self._steps = steps
        self._loaded = load_openclip(encoder.address)
        self._known: dict[Any, tuple[Matrix, Matrix]] = {}

    def __call__(self, pool: Pool, jobs: Sequence[Job], general: np.ndarray) -> Matrix:
        return self._both(pool, jobs, general)[0]

    def with_photos(self, pool: Pool, jobs: Sequence[Job], general: np.ndarray) -> Matrix:
        return self._both(pool, jobs, general)[1]

    def _both(self, pool: Pool, jobs: Sequence[Job], general: np.ndarray) -> tuple[Matrix, Matrix]:
        key = (id(jobs), len(general))
        if key not in self._known:
            said_so = self._trained(pool, jobs, general)
            means = np.stack([prototype(pool.rows[job.taught]) for job in jobs])
            self._known[key] = said_so, unit_rows(said_so + means)
        return self._known[key]

    def _trained(self, pool: Pool, jobs: Sequence[Job], general: np.ndarray) -> Matrix:
        import torch

        tokenizer, model = self._loaded.tokenizer, self._loaded.model
        model.requires_grad_(False)
        table = getattr(model, "text", model).token_embedding
        (mark,) = set(tokenizer(["sks"])[0, 1:2].tolist())
        first = tokenizer([job.kind for job in jobs])[:, 1]
        words = torch.nn.Parameter(table.weight[first].clone())
        begun = words.detach().clone()
        chosen = torch.arange(len(jobs))

        def put_words(_module: Any, given: Any, made: Any) -> Any:
            here = (given[0] == mark)[..., None]
            return torch.where(here, words[chosen][:, None].to(made.dtype), made)

        def encoded(sentences: list[str]) -> torch.Tensor:
            return torch.nn.functional.normalize(model.encode_text(tokenizer(sentences)), dim=-1)

        rows = torch.from_numpy(pool.rows)
        others = torch.from_numpy(general_rows(jobs, general))
        hook = table.register_forward_hook(put_words)
        optimizer = torch.optim.Adam([words], lr=0.01)
        for step in range(self._steps):
            template = TEMPLATES[step % len(TEMPLATES)]
            texts = encoded([template.format("sks")] * len(jobs))
            loss = 0.01 * ((words - begun) ** 2).sum() / begun.var()
            for at, job in enumerate(jobs):
                wanted = SCALE * rows[torch.from_numpy(job.taught)] @ texts[at]
                unwanted = torch.logsumexp(SCALE * rows[others[at]] @ texts[at], 0)
                loss = loss + (torch.logaddexp(wanted, unwanted) - wanted).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            made = encoded([f"a photo of {job.query('sks')}" for job in jobs]).numpy()
        hook.remove()
        return made


class Adapter:
    """A residual layer of rank 4 on text vectors, for all queries (Gao et al. 2021, CLIP-Adapter).

    Trained so that "a photo of NAME", a name the model does not know, fits the photos.
    """

    def __init__(self, encoder: Encoder, steps: int) -> None:
        self._encoder = encoder
        self._steps = steps
        self._layers: list[np.ndarray] = []  # of the jobs of the last call

    def adapted(self, texts: Matrix, job: int) -> Matrix:
        """What becomes of the vectors of texts."""
        return unit_rows(texts + texts @ self._layers[job])

    def __call__(self, pool: Pool, jobs: Sequence[Job], general: np.ndarray) -> Matrix:
        sentences = [template.format(NAME) for template in TEMPLATES]
        texts = self._encoder.encode_texts(sentences)
        others = general_rows(jobs, general)
        self._layers = [
            self._trained(texts, pool.rows[job.taught], pool.rows[others[at]])
            for at, job in enumerate(jobs)
        ]
        queries = self._encoder.encode_texts([f"a photo of {job.query(NAME)}" for job in jobs])
        return np.stack([self.adapted(queries[at : at + 1], at)[0] for at in range(len(jobs))])

    def _trained(self, texts: Matrix, taught: Matrix, general: Matrix) -> np.ndarray:
        import torch

        torch.manual_seed(0)
        said_so, shown, others = (torch.from_numpy(rows) for rows in (texts, taught, general))
        down = torch.nn.Parameter(torch.randn(texts.shape[1], 4) / texts.shape[1] ** 0.5)
        up = torch.nn.Parameter(torch.zeros(4, texts.shape[1]))
        optimizer = torch.optim.Adam([down, up], lr=0.01)
        for _ in range(self._steps):
            adapted = torch.nn.functional.normalize(said_so + said_so @ down @ up, dim=-1)
            wanted = SCALE * adapted @ shown.T
            unwanted = torch.logsumexp(SCALE * adapted @ others.T, 1, keepdim=True)
            loss = (torch.logaddexp(wanted, unwanted) - wanted).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return np.asarray((down @ up).detach().numpy())


if __name__ == "__main__":
    main()
