"""Fine-tuning on a narrow set of photos: what is gained there, what is lost elsewhere, who sees it.

    python benchmarks/forgetting.py --data FOLDER [--source grocery] [--photos 160] [--keep-close 0]

FOLDER holds train/*.parquet, dev/dev.parquet and val/val.parquet. The embedded model is fine-tuned
on photos of one source; at every share of the new weights the script prints recall on the held-out
photos of that source, how far R@10 on val falls (what the guard is meant to limit), and how far
each probe says that it falls: captioned photos of dev, photos of dev without their captions, texts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
import torch
import xxhash

from clipsearch.encoders.openclip import load_openclip
from training.captions.images import ImageFile
from training.data import CaptionedPicture, split_by_content
from training.forgetting import Exam, Kept, Probe, choose, copy_weights, mix
from training.forgetting import Mixture as Measured
from training.general_texts import general_texts
from training.layers import images_move
from training.loop import train
from training.probing import captioned_probe
from training.run import Options, choose_recipe


def photos(files: list[Path], folder: Path, count: int, source: str = "") -> list[CaptionedPicture]:
    """The first ``count`` captioned photos of a source, written as files, three captions each."""
    folder.mkdir()
    found: list[CaptionedPicture] = []
    for file in files:
        columns = ["image", "captions", "labels", "source"]
        for batch in pq.ParquetFile(file).iter_batches(64, columns=columns):
            for row in batch.to_pylist():
                said = row["captions"][:3] or [f"a photo of a {name}" for name in row["labels"]]
                if said and source in ("", row["source"]):
                    path = folder / f"{len(found)}.img"
                    path.write_bytes(row["image"])
                    content = xxhash.xxh3_128_hexdigest(row["image"])
                    found.append(CaptionedPicture(ImageFile(path), content, tuple(said)))
                    if len(found) == count:
                        return found
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--source", default="grocery")
    parser.add_argument("--photos", type=int, default=160)
    parser.add_argument("--general", type=int, default=300, help="photos of val and of dev")
    parser.add_argument("--learn")
    parser.add_argument("--keep-close", type=float, default=0.0)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as work:
        measure(arguments, Path(work))


def measure(arguments: argparse.Namespace, work: Path) -> None:
    data, general = arguments.data, arguments.general
    train_files = sorted((data / "train").glob("*.parquet"))
    own = photos(train_files, work / "own", arguments.photos, arguments.source)
    dev = photos([data / "dev" / "dev.parquet"], work / "dev", general)
    val = photos([data / "val" / "val.parquet"], work / "val", general)
    learning, held_out = split_by_content(own, 0.2, 0)
    loaded = load_openclip("embedded")
    options = Options(
        learn=arguments.learn, keep_close=arguments.keep_close, epochs=arguments.epochs
    )
    recipe = choose_recipe(len(own), options)
    moves = images_move(recipe.learn)
    texts = tuple(general_texts(200, "probe"))
    probes = {
        "val": captioned_probe(val, "val"),
        "file": captioned_probe(dev, "dev"),
        "library": Probe("library", tuple(dev), texts, None, ""),
        "texts": Probe("texts", (), texts, None, ""),
    }
    kept = {name: Kept(loaded, probe, images_move=moves) for name, probe in probes.items()}
    exam = Exam(loaded, held_out, images_move=moves)
    old = copy_weights(loaded.model)
    started = time.monotonic()
    train(loaded, learning, recipe, work / "run")
    print(f"{recipe}\ntrained in {time.monotonic() - started:.0f} s; R@10 before: ", end="")
    print(", ".join(f"{name} {each.before:.1f}" for name, each in kept.items()))
    print(f"{'alpha':>5} {'R@1':>6} {'R@10':>6} {'MRR':>6}   falls of R@10: {', '.join(kept)}")
    new, mixtures, all_ranks = copy_weights(loaded.model), [], []
    for fifths in range(6):
        alpha = fifths / 5
        mix(loaded.model, old, new, alpha)
        found, ranks = exam.sit()
        recalls = {name: each.now() for name, each in kept.items()}
        falls = "".join(f"{kept[name].before - recall:8.2f}" for name, recall in recalls.items())
        recall = found.text_to_image
        print(f"{alpha:5.1f} {recall[1]:6.1f} {recall[10]:6.1f}", end=" ")
        print(f"{found.mean_reciprocal_rank:6.3f} {falls}", flush=True)
        mixtures.append((alpha, found, recalls))
        all_ranks.append(ranks)
    for name, each in kept.items():
        measured = [Measured(alpha, found, recalls[name]) for alpha, found, recalls in mixtures]
        chosen = choose(measured, all_ranks, each.before, 1.0)
        _, found, recalls = next(m for m in mixtures if m[0] == chosen.alpha)
        print(
            f"guarded by {name}: alpha {chosen.alpha:.1f}, R@1 {found.text_to_image[1]:.1f}, "
            f"val falls by {kept['val'].before - recalls['val']:.2f}"
        )


if __name__ == "__main__":
    main()
