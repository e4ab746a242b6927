"""Makes the embedded model from the photo pack; every finished stage is kept and not repeated.

    python -m training.embedded --data FOLDER --work FOLDER --out FOLDER

FOLDER of ``--data`` holds train/*.parquet and val/val.parquet with the columns key, image, captions
and source. Needs the extra ``embedded-model`` and Debian's wordnet-base; an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from clipsearch.errors import TrainingError
from training.embedded import student
from training.embedded.class_knowledge import ClassKnowledge
from training.embedded.corpus import read_photos, vocabulary_texts
from training.embedded.image_features import compute_features, load_trunk
from training.embedded.teacher import embed_texts
from training.evaluation import Retrieval, evaluate_retrieval
from training.export import export_model

VIEWS = 5  # the shipped one and four random ones of each photo


class Stages:
    """The recipe's steps in order; ``work`` keeps what each has made."""

    def __init__(self, data: Path, work: Path) -> None:
        self._files = sorted((data / "train").glob("*.parquet"))
        self._val_file = data / "val" / "val.parquet"
        if not self._files or not self._val_file.exists():
            raise TrainingError(reason=f"{data} has no train/*.parquet and val/val.parquet")
        self._work = work
        work.mkdir(parents=True, exist_ok=True)
        self._photos = [(photo.source, photo.captions) for photo in read_photos(self._files)]
        captions = sorted({text for _, said in self._photos for text in said})
        self._texts = vocabulary_texts(captions)

    def run(self, out: Path, distil_s: float, earlier: Path | None) -> Retrieval:
        """Runs what has not been run and writes the model folder.

        ``earlier`` is a model folder of this recipe whose text tower starts the new one.
        """
        knowledge = ClassKnowledge()
        teacher = self._vectors("teacher", lambda: embed_texts(self._texts, _counter("texts")))
        classes = self._vectors("classes", lambda: embed_texts(knowledge.texts))
        features = self._array("train", lambda: self._features(self._files, VIEWS))
        rows = {text: row for row, text in enumerate(self._texts)}
        pairs = student.Pairs(
            features,
            [[rows[text] for text in said] for _, said in self._photos],
            student.pair_weights([source for source, _ in self._photos]),
        )
        head, text_map, _ = self._head(
            "align",
            lambda: student.fit_head(
                pairs, teacher, teacher, knowledge, classes,
                maps_text=True, steps=1500, peak_rate=1e-3, tell=_tell,
            ),
        )  # fmt: skip
        with torch.no_grad():
            targets = F.normalize(text_map(torch.cat([teacher, classes])), dim=1)
        tokens = self._array("tokens", lambda: embed_texts(student.token_strings()))
        model = student.new_text_tower(tokens.astype(np.float32))
        texts = student.Texts([*self._texts, *knowledge.texts])
        self._distilled(model.text, texts, targets, pairs, distil_s, earlier)
        said = student.embed_all(model.text, texts)
        own, own_classes = said[: len(teacher)], said[len(teacher) :]
        head, _, log_scale = self._head(
            "refit",
            lambda: student.fit_head(
                pairs, own, teacher, knowledge, own_classes,
                start=head, maps_text=False, steps=1000, peak_rate=5e-4, tell=_tell,
            ),
        )  # fmt: skip
        self._export(out, model, head, log_scale)
        return self._judge(model.text, head)

    def _head(
        self, name: str, make: Callable[[], tuple[nn.Sequential, nn.Linear, float]]
    ) -> tuple[nn.Sequential, nn.Linear, float]:
        file = self._work / f"{name}.safetensors"
        if not file.exists():
            head, text_map, log_scale = make()
            state = {f"head.{key}": value for key, value in head.state_dict().items()}
            state |= {"map": text_map.weight.detach(), "log_scale": torch.tensor(log_scale)}
            save_file(state, file)
        state = load_file(file)
        head = student.new_image_head(dropout=0.2)
        head.load_state_dict(
            {key.removeprefix("head."): state[key] for key in state if key.startswith("head.")}
        )
        text_map = nn.Linear(student.EMBED_DIM, student.EMBED_DIM, bias=False)
        with torch.no_grad():
            text_map.weight.copy_(state["map"])
        return head.eval(), text_map, float(state["log_scale"])

    def _distilled(
        self,
        text: Any,
        texts: student.Texts,
        targets: Tensor,
        pairs: student.Pairs,
        seconds: float,
        earlier: Path | None,
    ) -> None:
        file = self._work / "distil.safetensors"
        if not file.exists():
            rate = 2e-3
            if earlier is not None:
                rate = 1e-3
                state = load_file(earlier / "open_clip_model.safetensors")
                own = {
                    name.removeprefix("text."): value.float()
                    for name, value in state.items()
                    if name.startswith("text.")
                }
                student.adopt_text_tower(text, own, texts, targets)
            captions = np.array(sorted({row for said in pairs.captions for row in said}))
            classes = np.arange(len(self._texts), len(targets))
            student.distil(
                text, texts, targets, [captions, classes],
                seconds=seconds, peak_rate=rate, tell=_tell,
            )  # fmt: skip
            save_file(text.state_dict(), file)
        text.load_state_dict(load_file(file))

    def _export(self, out: Path, model: Any, head: nn.Sequential, log_scale: float) -> None:
        """Puts the trained parts into open_clip's model and writes it in float16."""
        trunk = {f"trunk.{name}": value for name, value in load_trunk().state_dict().items()}
        names = {"0.weight": "fc1.weight", "0.bias": "fc1.bias", "3.weight": "fc2.weight"}
        mlp = {f"head.mlp.{names[name]}": value for name, value in head.state_dict().items()}
        model.visual.load_state_dict({**trunk, **mlp}, strict=True)
        with torch.no_grad():
            model.logit_scale.fill_(min(log_scale, math.log(100)))
        export_model(
            out,
            model.state_dict(),
            {**student.MODEL_CFG, "custom_text": True},
            student.PREPROCESS_CFG,
            dtype=torch.float16,
        )

    def _judge(self, text: Any, head: nn.Sequential) -> Retrieval:
        photos = list(read_photos([self._val_file]))
        features = self._array("val", lambda: self._features([self._val_file], 1))
        texts = student.Texts([caption for photo in photos for caption in photo.captions])
        owner = [place for place, photo in enumerate(photos) for _ in photo.captions]
        with torch.no_grad():
            images = F.normalize(head(torch.from_numpy(features[:, 0].astype(np.float32))), dim=1)
        found = student.embed_all(text, texts)
        return evaluate_retrieval(images.numpy(), found.numpy(), owner)

    def _features(self, files: list[Path], views: int) -> NDArray[np.float16]:
        photos: Any = read_photos(files)
        return compute_features(photos, views, _counter("photos"))

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
    parser.add_argument("--distil-s", type=float, default=2400, help="seconds for the text student")
    parser.add_argument(
        "--earlier", type=Path, help="a model folder of this recipe; its text tower starts the new"
    )
    arguments = parser.parse_args()
    stages = Stages(arguments.data, arguments.work)
    found = stages.run(arguments.out, arguments.distil_s, arguments.earlier)
    sys.stdout.write(json.dumps(found.as_record()) + "\n")


if __name__ == "__main__":
    main()
