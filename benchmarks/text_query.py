"""Words to a vector with the embedded model, on one core: a text query, and from nothing to one.

    python benchmarks/text_query.py [--rounds 3] [--runs 9]

The queries are those of relevance_queries.tsv, one by one. "ready" is measured in new processes
that have imported what a search imports (clipsearch.searcher, clipsearch.query): from the call of
load_encoder, with the space that a library remembers, to the first text vector; files are in the
disk cache. "by its address alone" is the same where no library says the space, so that the weights
are hashed. "full length" computes each query up to the context length, as is needed of a model that
is not causal. The ceiling of a query is the tower's matrix products alone, for as many tokens.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

TEXT_BAR_MS, READY_BAR_S = 5.0, 0.4
QUERIES = Path(__file__).with_name("relevance_queries.tsv")
ONE_CORE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
CHILD = """
import json, os, sys, time
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import clipsearch.query, clipsearch.searcher
from clipsearch.config import resolve
from clipsearch.encoders import load_encoder
from clipsearch.vectors import EmbeddingSpace
settings = resolve({"cache_dir": sys.argv[1], "threads": 1, "device": "cpu", "runtime": "compiled"})
space = EmbeddingSpace(**json.loads(sys.argv[2])) if sys.argv[2] else None
begun = time.perf_counter()
load_encoder("embedded", settings=settings, space=space).encode_texts(["a dog on the beach"])
print(time.perf_counter() - begun)
"""


def queries() -> list[str]:
    lines = QUERIES.read_text(encoding="utf-8").splitlines()
    of_lines = (line.split("\t")[0] for line in lines if line and not line.startswith("#"))
    return [form.strip() for forms in of_lines for form in forms.split("|")]


def ready_s(cache: Path, space: str, runs: int) -> list[float]:
    """Seconds in each of ``runs`` new processes, after one that warms the disk cache."""
    command = [sys.executable, "-c", CHILD, str(cache), space]
    found = [
        float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for _ in range(runs + 1)
    ]
    return found[1:]


def side_by_side_ms(
    works: dict[str, tuple[Callable[[Any], object], Sequence[Any]]], rounds: int
) -> dict[str, list[float]]:
    """Milliseconds by name, each work with its own inputs; after one round that is not counted.

    They take turns at each input, so that a slow minute of the machine is every one's.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    turns = min(len(inputs) for _, inputs in works.values())
    for counted in [False, *[True] * rounds]:
        for turn in range(turns):
            for name, (work, inputs) in works.items():
                begun = time.perf_counter()
                work(inputs[turn])
                if counted:
                    times[name].append(1000 * (time.perf_counter() - begun))
    return times


def told(name: str, times: list[float], bar: float, unit: str) -> str:
    middle = statistics.median(times)
    high = statistics.quantiles(times, n=20)[-1] if len(times) >= 20 else max(times)
    label = "95 of 100 below" if len(times) >= 20 else "highest"
    return (
        f"{name:<34} {middle:8.3f} {unit}  {label} {high:8.3f} {unit}  "
        f"{middle / bar:5.2f} of the bar of {bar:g} {unit}"
    )


def measure(cache: Path, rounds: int, runs: int) -> None:
    """Prints every figure; this process has one core and one thread."""
    import numpy as np

    from clipsearch.config import resolve
    from clipsearch.encoders.compiled import CompiledEncoder, read_manifest
    from clipsearch.encoders.text_tower import FILE, TextTower
    from clipsearch.encoders.tokenizer import BytePairTokenizer, _merged

    settings = resolve({"cache_dir": cache, "threads": 1, "device": "cpu", "runtime": "compiled"})
    (folder,) = settings.compiled_dir.iterdir()
    manifest = read_manifest(folder)
    assert manifest is not None
    space = json.dumps(vars(manifest.space))
    encoder, tower = CompiledEncoder(folder, settings), TextTower(folder / FILE)
    tokenizer = BytePairTokenizer(manifest.context_length, manifest.clean)
    asked = queries()
    tokens = [tokenizer([one]) for one in asked]
    lengths = [int(ids.argmax()) + 1 for ids in tokens]
    print(
        f"{len(asked)} queries, {rounds} rounds; tokens: median {statistics.median(lengths):g}, "
        f"most {max(lengths)}, context {manifest.context_length}"
    )

    def tokenize(one: str) -> None:
        _merged.cache_clear()  # it is for words that come again, as here they would all do
        tokenizer([one])

    full = np.full((1, manifest.context_length), tokens[0][0, 1])
    full[0, 0], full[0, -1] = tokens[0][0, 0], tokens[0].max()  # begins and ends as texts do
    weights = [
        matrix
        for layer in tower._layers
        for matrix in (
            layer.asking.weight,
            layer.attended.weight,
            layer.widening.weight,
            layer.narrowing.weight,
        )
    ]
    chance = np.random.default_rng(0)
    columns = {
        (matrix.shape[1], length): chance.standard_normal((matrix.shape[1], length), np.float32)
        for matrix in weights
        for length in set(lengths)
    }

    def products(length: int) -> None:
        for matrix in weights:
            matrix @ columns[matrix.shape[1], length]

    def text(one: str) -> None:
        _merged.cache_clear()
        encoder.encode_texts([one])

    works: dict[str, tuple[Callable[[Any], object], Sequence[Any]]] = {
        "a text query": (text, asked),
        "  of it, tokenizing": (tokenize, asked),
        "  of it, the tower": (tower, tokens),
        "ceiling, its products alone": (products, lengths),
        "the tower at full length": (tower, [full] * len(asked)),
    }
    for name, times in side_by_side_ms(works, rounds).items():
        print(told(name, times, TEXT_BAR_MS, "ms"))
    print(told("ready, of a library's space", ready_s(cache, space, runs), READY_BAR_S, "s"))
    print(told("ready, by its address alone", ready_s(cache, "", runs), READY_BAR_S, "s"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cache is not None:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        measure(arguments.cache, arguments.rounds, arguments.runs)
        return
    from clipsearch.config import resolve
    from clipsearch.encoders import compile_encoder

    with tempfile.TemporaryDirectory() as temporary:
        compile_encoder("embedded", settings=resolve({"cache_dir": temporary}))
        again = [sys.executable, __file__, "--cache", temporary]
        numbers = ["--rounds", str(arguments.rounds), "--runs", str(arguments.runs)]
        subprocess.run([*again, *numbers], check=True, env={**os.environ, **ONE_CORE})


if __name__ == "__main__":
    main()
