"""Memory and time of a training step: bf16, checkpointed blocks, chunks and torch.compile.

    python benchmarks/training_memory.py [--batch 64] [--steps 5] [--threads 1] [--ways WAY ...]

A ViT of 128 px with random weights learns pictures of noise through the loop of `clipsearch train`.
Each run has a fresh process: peak resident memory above what it had before training, and the median
time of a step but for the first. Each way takes turns with plain float32; ratios are of neighbours.
It says first which instructions for bfloat16 the CPU has; without them bf16 is emulated.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from _fresh import in_a_process, peak_mib

PLAIN = "f32"
WAYS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "bf16": {"precision": "bf16"},
    "checkpoint-blocks": {"checkpoint_blocks": True},
    "both": {"precision": "bf16", "checkpoint_blocks": True},
    "chunk-16": {"chunk": 16},
    "compile": {"compiled": True},
}
BFLOAT16 = ("avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16", "svebf16")


def build(side: int = 128) -> dict[str, Any]:
    vision = {"image_size": side, "layers": 8, "width": 256, "head_width": 64, "patch_size": 16}
    text = {"context_length": 32, "vocab_size": 49408, "width": 192, "heads": 3, "layers": 4}
    return {"embed_dim": 128, "vision_cfg": vision, "text_cfg": text}


def measure(way: str, batch: int, steps: int, threads: int) -> dict[str, Any]:
    import numpy as np
    import open_clip
    import torch
    from PIL import Image

    from clipsearch.encoders.openclip import load_openclip
    from training.captions.images import ImageFile
    from training.data import CaptionedPicture
    from training.export import export_model
    from training.loop import Recipe, train

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    chance = np.random.default_rng(0)
    words = ["red", "blue", "old", "small", "wet", "dry", "dog", "cat", "boat", "tree", "house"]
    config = build()
    side = config["vision_cfg"]["image_size"]
    preprocess = {
        "size": [side, side], "mode": "RGB", "mean": [0.5] * 3, "std": [0.5] * 3,
        "interpolation": "bicubic", "resize_mode": "shortest", "fill_color": 0,
    }  # fmt: skip
    losses: list[float] = []
    moments: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        pictures = []
        for number in range(batch):
            path = Path(folder) / f"{number}.png"
            noise = chance.integers(0, 256, (192, 192, 3), dtype=np.uint8)
            Image.fromarray(noise).save(path)
            said = f"{number}: " + " ".join(chance.choice(words, 10))
            pictures.append(CaptionedPicture(ImageFile(path), str(number), (said,)))
        export_model(
            Path(folder) / "model", open_clip.CLIP(**config).state_dict(), config, preprocess
        )
        loaded = load_openclip(f"local-dir:{folder}/model")
        recipe = Recipe(
            learn="all", steps=steps, batch_size=batch, lr=5e-4, warmup=1, save_every=10**9,
            **WAYS[way],
        )  # fmt: skip

        def note(loss: float) -> None:
            losses.append(loss)
            moments.append(time.perf_counter())

        before = peak_mib()
        train(loaded, pictures, recipe, Path(folder) / "run", tell=lambda step: note(step.loss))
        after = peak_mib()
    took = [later - earlier for earlier, later in pairwise(moments)]
    return {"mib": after - before, "s": statistics.median(took), "loss": losses[-1]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument(
        "--ways", nargs="+", choices=list(WAYS)[1:], default=list(WAYS)[1:], metavar="WAY",
        help="some of: " + ", ".join(list(WAYS)[1:]),
    )  # fmt: skip
    parser.add_argument("--one", choices=list(WAYS))
    arguments = parser.parse_args()
    numbers = (arguments.batch, arguments.steps, arguments.threads)
    if arguments.one:
        print(json.dumps(measure(arguments.one, *numbers)))
        return
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if info.exists() else set()
    known = " ".join(flag for flag in BFLOAT16 if flag in flags)
    print(f"bfloat16 instructions of this CPU: {known or 'none'}; load {os.getloadavg()[0]:.1f}")

    def run(way: str) -> dict[str, Any]:
        given = [f"--{name}={value}" for name, value in
                 zip(("batch", "steps", "threads"), numbers, strict=True)]  # fmt: skip
        return in_a_process(__file__, f"--one={way}", *given)

    for way in arguments.ways:
        pairs = [(run(PLAIN), run(way)) for _ in range(arguments.rounds)]
        plain, own = pairs[0]
        for name, found in ((way, own), (PLAIN, plain)):
            print(f"{name}: {found['mib']:.0f} MiB, {found['s']:.2f} s, loss {found['loss']:.4f}")
        for name, key in (("memory", "mib"), ("time", "s")):
            ratios = " ".join(f"{b[key] / a[key]:.2f}" for a, b in pairs)
            print(f"  of {PLAIN}'s {name}: {ratios}", flush=True)
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
