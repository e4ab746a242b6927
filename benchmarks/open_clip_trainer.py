"""open_clip's own trainer beside ours: loss curve, throughput and memory on the same batches.

    python benchmarks/open_clip_trainer.py --captions captions.csv [--steps 30] [--batch 64]

The captions are those of `clipsearch train --captions`; pictures whose caption another one has
are left out, because open_clip takes equal captions for wrong answers. ``train_one_epoch`` of
open_clip_train gets the pictures, cuts and captions that our loop draws, the same weights, AdamW
and schedule, so the curves may differ by rounding alone. Whole batches, and in four parts: our
--chunk, its --accum-freq. Each run has a fresh process and one thread; the two trainers take turns.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from _fresh import in_a_process, peak_mib

MODEL: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {
        "image_size": 96,
        "layers": 6,
        "width": 192,
        "head_width": 64,
        "patch_size": 16,
    },
    "text_cfg": {
        "context_length": 32,
        "vocab_size": 49408,
        "width": 192,
        "heads": 3,
        "layers": 4,
    },
}
PARTS = (1, 4)
LR, WARMUP, SEED, DECAY = 5e-4, 5, 0, 0.05


def save_model(folder: Path) -> None:
    import open_clip
    import torch

    from training.export import export_model

    torch.manual_seed(0)
    side = MODEL["vision_cfg"]["image_size"]
    preprocess = {
        "size": [side, side], "mode": "RGB", "mean": [0.5] * 3, "std": [0.5] * 3,
        "interpolation": "bicubic", "resize_mode": "shortest", "fill_color": 0,
    }  # fmt: skip
    export_model(folder, open_clip.CLIP(**MODEL).state_dict(), MODEL, preprocess)


class _Loader:
    """The batches of our loop, in ``parts``, as open_clip's trainer takes them."""

    def __init__(self, loaded: Any, pictures: Any, batch: int, steps: int, parts: int) -> None:
        from training.views import Views

        self._loaded, self._pictures, self._parts = loaded, pictures, parts
        self._views = Views(pictures, loaded.preprocessing)
        self._batch, self._steps = batch, steps
        self.num_batches, self.num_samples = steps * parts, steps * batch

    def __iter__(self) -> Iterator[Any]:
        from training.towers import normalised

        for step in range(self._steps):
            chance = random.Random(SEED * 1_000_003 + step)
            places = chance.sample(range(len(self._pictures)), self._batch)
            said = [chance.choice(self._pictures[place].captions) for place in places]
            size = self._batch // self._parts
            for start in range(0, self._batch, size):
                some = places[start : start + size]
                chances = [random.Random(f"{SEED} {step} {place}") for place in some]
                cuts = self._views.cut_each(some, chances)
                images = normalised(cuts, self._loaded.preprocessing)
                yield images, self._loaded.tokenizer(said[start : start + size])


def theirs(loaded: Any, pictures: Any, batch: int, steps: int, parts: int) -> list[float]:
    import open_clip
    from open_clip_train.scheduler import cosine_lr
    from open_clip_train.train import train_one_epoch

    from training.optimizer import make_optimizer

    loader = _Loader(loaded, pictures, batch, steps, parts)
    data = {"train": SimpleNamespace(dataloader=loader, set_epoch=lambda _: None)}
    optimizer = make_optimizer(loaded.model, lr=LR, weight_decay=DECAY, layer_decay=1)
    losses: list[float] = []

    class Writer:
        def add_scalar(self, name: str, value: float, _: int) -> None:
            if name == "train/loss":
                losses.append(value)

    arguments = SimpleNamespace(
        device="cpu", precision="fp32", distill=False, accum_freq=parts, skip_scheduler=False,
        grad_clip_norm=1.0, horovod=False, rank=0, local_rank=0, world_size=1, log_local=False,
        log_every_n_steps=1, batch_size=batch // parts, wandb=False,
    )  # fmt: skip
    loaded.model.output_dict = True
    schedule = cosine_lr(optimizer, LR, WARMUP, steps)
    loss = open_clip.ClipLoss()
    model = loaded.model
    train_one_epoch(model, data, loss, 0, optimizer, None, schedule, None, arguments, Writer())
    return losses


def ours(loaded: Any, pictures: Any, batch: int, steps: int, parts: int) -> list[float]:
    from training.loop import Recipe, train

    recipe = Recipe(
        learn="all", steps=steps, batch_size=batch, lr=LR, warmup=WARMUP, seed=SEED,
        weight_decay=DECAY, save_every=10**9, chunk=batch // parts if parts > 1 else 0,
    )  # fmt: skip
    losses: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        train(loaded, pictures, recipe, Path(folder), tell=lambda step: losses.append(step.loss))
    return losses


def measure(who: str, model: str, captions: str, numbers: list[int]) -> dict[str, Any]:
    import torch

    from clipsearch.encoders.openclip import load_openclip
    from training.data import read_captions

    torch.set_num_threads(1)
    loaded = load_openclip(f"local-dir:{model}")
    seen: set[str] = set()
    pictures = []
    for picture in read_captions(Path(captions)).pictures:
        if not seen & set(picture.captions):
            pictures.append(picture)
        seen.update(picture.captions)
    batch, steps, parts = numbers
    trainer = {"ours": ours, "theirs": theirs}[who]
    before = peak_mib()
    started = time.perf_counter()
    losses = trainer(loaded, pictures, batch, steps, parts)
    took = time.perf_counter() - started
    after = peak_mib()
    return {"losses": losses, "rate": batch * steps / took, "mib": after - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--captions", type=Path, default=Path("../shared/data/train/train-00.parquet")
    )
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3, help="pairs of runs (default 3)")
    parser.add_argument("--parts", type=int, nargs="+", default=PARTS)
    parser.add_argument("--one", nargs=5)
    arguments = parser.parse_args()
    if arguments.one:
        who, model, *numbers = arguments.one
        found = measure(who, model, str(arguments.captions), [int(number) for number in numbers])
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder) / "model")

        def run(who: str, parts: int) -> dict[str, Any]:
            numbers = (str(arguments.batch), str(arguments.steps), str(parts))
            one = ("--one", who, f"{folder}/model", *numbers)
            return in_a_process(__file__, "--captions", str(arguments.captions), *one)

        for parts in arguments.parts:
            pairs = [(run("ours", parts), run("theirs", parts)) for _ in range(arguments.rounds)]
            first, other = pairs[0]
            apart = max(abs(a - b) for a, b in zip(first["losses"], other["losses"], strict=True))
            print(f"{arguments.steps} steps of {arguments.batch} in {parts}:")
            for name, found in (("ours", first), ("open_clip", other)):
                curve = " ".join(
                    f"{loss:.4f}" for loss in found["losses"][:: max(1, arguments.steps // 5)]
                )
                print(f"  {name}: {found['rate']:.0f} pictures/s, {found['mib']:.0f} MiB; {curve}")
            print(f"  the curves are at most {apart:.6f} apart")
            for name, key in (("speed", "rate"), ("memory", "mib")):
                ratios = " ".join(f"{a[key] / b[key]:.3f}" for a, b in pairs)
                print(f"  ours / open_clip, {name}: {ratios}", flush=True)


if __name__ == "__main__":
    main()
