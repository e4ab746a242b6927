"""Makes the embedded model from the photo pack; what is finished is kept and not repeated.

    python -m training.embedded --data FOLDER --work FOLDER --out FOLDER [--recipe FILE]

FOLDER of ``--data`` holds train/*.parquet, dev/dev.parquet and val/val.parquet with the columns
key, image, captions and source. Needs the extra ``embedded-model`` and Debian's wordnet-base; an
hour or more on two cores. Interrupted, the same command goes on from where it was, less what the
last five minutes made.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.embedded import backbone, heads, student
from training.embedded import config as recipes
from training.embedded.config import Config
from training.embedded.material import SPLITS, Material
from training.embedded.progress import tell
from training.evaluation import Retrieval
from training.export import export_model


class Stages:
    """The recipe's steps in order; ``work`` keeps what each has made."""

    def __init__(self, data: Path, work: Path, config: Config) -> None:
        self._work, self._config = work, config
        self._material = Material(data, work, config.images)

    def run(self, out: Path, earlier: Path | None) -> Retrieval:
        """Runs what has not been run and writes the model folder.

        ``earlier`` is a model folder of this recipe whose text tower starts the new one.
        """
        material, config = self._material, self._config
        teacher, classes = material.teacher, material.classes
        lessons = material.lessons()
        aligned = self._fitted(
            "align", heads.Joint(), partial(heads.fit, lessons, teacher, classes, config.align)
        )
        with torch.no_grad():
            targets = aligned.texts(torch.cat([teacher, classes]))
        texts = student.Texts([*material.texts, *material.knowledge.texts])
        model = self._distilled(texts, targets, earlier)
        self._judge("the first head", model.text, aligned)
        captions = np.array(sorted({row for said in material.captions for row in said}))
        own = torch.zeros_like(teacher)  # only the captions' rows are asked for
        own[captions] = student.embed_all(model.text, texts, rows=captions)
        phrases = np.arange(len(teacher), len(targets))
        own_classes = student.embed_all(model.text, texts, rows=phrases)
        tail = material.tail if config.refit.tail_rate else None
        refitted = self._fitted(
            "refit",
            heads.Joint(tail=copy.deepcopy(tail)),
            partial(
                heads.fit, lessons, own, own_classes, config.refit,
                start=aligned, tail=copy.deepcopy(tail),
            ),
        )  # fmt: skip
        self._export(out, model, refitted)
        return self._judge("the model", model.text, refitted)

    def _fitted(
        self, name: str, empty: heads.Joint, fit: Callable[..., heads.Joint]
    ) -> heads.Joint:
        """What ``fit`` made, from its file if it is there, put into ``empty``."""
        file = self._work / f"{name}.safetensors"
        if not file.exists():
            made = fit(tell=tell, checkpoint=self._work / f"{name}.checkpoint")
            save_file(made.state_dict(), file)
        empty.load_state_dict(load_file(file))
        return empty.eval()

    def _distilled(self, texts: student.Texts, targets: Tensor, earlier: Path | None) -> Any:
        """The whole model with a text tower that imitates its teacher."""
        file = self._work / "distil.safetensors"
        material, images, text = self._material, self._config.images, self._config.text
        if file.exists() or earlier is not None:
            model = student.new_model(images, text)
        else:
            model = student.new_model(images, text, material.tokens)
        if not file.exists():
            if earlier is not None:
                state = load_file(earlier / "open_clip_model.safetensors")
                own = {
                    name.removeprefix("text."): value.float()
                    for name, value in state.items()
                    if name.startswith("text.")
                }
                student.adopt_text_tower(model.text, own, texts, targets)
            captions = np.array(sorted({row for said in material.captions for row in said}))
            phrases = np.arange(len(material.texts), len(targets))
            student.distil(
                model.text, texts, targets, [captions, phrases], self._config.distil, tell,
                checkpoint=self._work / "distil.checkpoint",
            )  # fmt: skip
            save_file(model.text.state_dict(), file)
        model.text.load_state_dict(load_file(file))
        return model

    def _export(self, out: Path, model: Any, joint: heads.Joint) -> None:
        """Puts the trained parts into open_clip's model and writes it in float16."""
        trunk = self._material.backbone.state_dict()
        if joint.tail is not None:
            trunk |= backbone.tail_state(joint.tail, trunk)
        names = {"0.weight": "fc1.weight", "0.bias": "fc1.bias", "3.weight": "fc2.weight"}
        state = {f"trunk.{name}": value for name, value in trunk.items()} | {
            f"head.mlp.{names[name]}": value for name, value in joint.head.state_dict().items()
        }
        model.visual.load_state_dict(state, strict=True)
        with torch.no_grad():
            model.logit_scale.fill_(min(float(joint.log_scales[0]), math.log(100)))
        export_model(
            out,
            model.state_dict(),
            {**student.model_config(self._config.images, self._config.text), "custom_text": True},
            student.preprocess_config(self._config.images),
            dtype=torch.float16,
        )

    def _judge(self, name: str, text: Any, joint: heads.Joint) -> Retrieval:
        """Tells how sentences find their photos, on dev, where choices are made, and on val."""
        found = {}
        for split in SPLITS:
            held_out = self._material.held_out(split)
            said = student.embed_all(text, student.Texts(held_out.sentences))
            found[split] = held_out.judge(joint, said, self._material.tail)
            recall, rank = found[split].text_to_image, found[split].median_rank
            tell(f"{name} on {split}: {recall}, median rank {rank}")
        return found["val"]


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
