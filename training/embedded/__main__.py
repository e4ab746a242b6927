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

    def run(self, out: Path, distil_s: float, join_steps: int) -> Retrieval:
        """Runs what has not been run and writes the model folder."""
        teacher = self._array("teacher", lambda: embed_texts(self._texts, _counter("texts")))
        features = self._array("train", lambda: self._features(self._files, VIEWS))
        rows = {text: row for row, text in enumerate(self._texts)}
        pairs = student.Pairs(
            features,
            [[rows[text] for text in said] for _, said in self._photos],
            student.pair_weights([source for source, _ in self._photos]),
        )
        head, text_map, log_scale = self._aligned(pairs, teacher)
        with torch.no_grad():
            mapped = text_map(torch.from_numpy(teacher.astype(np.float32)))
            targets = F.normalize(mapped, dim=1)
        tokens = self._array("tokens", lambda: embed_texts(student.token_strings()))
        model = student.new_text_tower(tokens.astype(np.float32))
        texts = student.Texts(self._texts)
        self._distilled(model.text, texts, targets, pairs, distil_s)
        scale = self._joined(
            head, model.text, log_scale, pairs, texts, targets, teacher, join_steps
        )
        self._export(out, model, head, scale)
        return self._judge(model.text, head)

    def _aligned(
        self, pairs: student.Pairs, teacher: NDArray[np.float16]
    ) -> tuple[nn.Sequential, nn.Linear, float]:
        file = self._work / "align.safetensors"
        head = student.new_image_head(dropout=0.2)
        text_map = nn.Linear(student.EMBED_DIM, student.EMBED_DIM, bias=False)
        if not file.exists():
            head, text_map, log_scale = student.align(pairs, teacher, steps=1500, tell=_tell)
            state = {f"head.{name}": value for name, value in head.state_dict().items()}
            state |= {"map": text_map.weight.detach(), "log_scale": torch.tensor(log_scale)}
            save_file(state, file)
        state = load_file(file)
        head.load_state_dict(_under("head.", state))
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
    ) -> None:
        file = self._work / "distil.safetensors"
        if not file.exists():
            captions = np.array(sorted({row for said in pairs.captions for row in said}))
            student.distil(text, texts, targets, captions, seconds=seconds, tell=_tell)
            save_file(text.state_dict(), file)
        text.load_state_dict(load_file(file))

    def _joined(
        self,
        head: nn.Sequential,
        text: Any,
        log_scale: float,
        pairs: student.Pairs,
        texts: student.Texts,
        targets: Tensor,
        teacher: NDArray[np.float16],
        steps: int,
    ) -> float:
        file = self._work / "join.safetensors"
        if not file.exists():
            scale = student.join(
                head, text, log_scale, pairs, texts, targets, teacher, steps=steps, tell=_tell
            )
            state = {f"head.{name}": value for name, value in head.state_dict().items()}
            state |= {f"text.{name}": value for name, value in text.state_dict().items()}
            save_file({**state, "log_scale": torch.tensor(scale)}, file)
        state = load_file(file)
        head.load_state_dict(_under("head.", state))
        text.load_state_dict(_under("text.", state))
        return float(state["log_scale"])

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
            starts = range(0, len(owner), 500)
            sentences = [
                student.encode_trimmed(text, texts.batch(np.arange(s, min(s + 500, len(owner)))))
                for s in starts
            ]
        found = F.normalize(torch.cat(sentences), dim=1)
        return evaluate_retrieval(images.numpy(), found.numpy(), owner)

    def _features(self, files: list[Path], views: int) -> NDArray[np.float16]:
        photos: Any = read_photos(files)
        return compute_features(photos, views, _counter("photos"))

    def _array(self, name: str, make: Any) -> NDArray[np.float16]:
        file = self._work / f"{name}.npy"
        if not file.exists():
            half = file.with_suffix(".part.npy")
            np.save(half, make())
            half.replace(file)
        found: NDArray[np.float16] = np.load(file, allow_pickle=False)
        return found


def _under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }


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
    parser.add_argument("--join-steps", type=int, default=800)
    arguments = parser.parse_args()
    stages = Stages(arguments.data, arguments.work)
    found = stages.run(arguments.out, arguments.distil_s, arguments.join_steps)
    sys.stdout.write(json.dumps(found.as_record()) + "\n")


if __name__ == "__main__":
    main()
