"""The losses of large batches: memory and time, naive against a block of rows at a time.

    python benchmarks/large_batch.py [--sizes 2048 8192 32768] [--dim 512] [--naive-gib 8]

Each measurement has a fresh process: peak resident memory above what it had before the loss, and
the time of loss and gradients, once. The two ways take turns, and ratios are of neighbours. A naive
loss that needs more than --naive-gib (it holds four n x n matrices at once) is not run.
"""

from __future__ import annotations

import argparse
import json
import time

from _fresh import in_a_process, peak_mib

ROUNDS = 3
MATRICES = 4  # of n x n float32 that a naive loss holds at its peak, as measured below


def measure(way: str, loss: str, size: int, dim: int) -> dict[str, float]:
    import torch
    from torch.nn import functional as F

    from training.blockwise import contrastive_in_blocks, sigmoid_in_blocks
    from training.loss import contrastive_loss, sigmoid_loss

    torch.manual_seed(0)
    images, texts = (F.normalize(torch.randn(size, dim), dim=1).requires_grad_() for _ in "ab")
    scale = torch.tensor(50.0, requires_grad=True)
    bias = torch.tensor(-10.0, requires_grad=True)
    functions = {
        ("naive", "clip"): lambda: contrastive_loss(images, texts, scale),
        ("blocks", "clip"): lambda: contrastive_in_blocks(images, texts, scale),
        ("naive", "siglip"): lambda: sigmoid_loss(images, texts, scale, bias),
        ("blocks", "siglip"): lambda: sigmoid_in_blocks(images, texts, scale, bias),
    }
    (images[:64] @ texts[:64].T).sum().backward()  # starts the threads
    before = peak_mib()
    started = time.perf_counter()
    functions[way, loss]().backward()
    took = time.perf_counter() - started
    after = peak_mib()
    assert images.grad is not None
    return {"mib": after - before, "s": took, "norm": float(images.grad.norm())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2048, 8192, 32768])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--naive-gib", type=float, default=8.0)
    parser.add_argument("--losses", nargs="+", default=["clip", "siglip"])
    parser.add_argument("--one", nargs=4)
    arguments = parser.parse_args()
    if arguments.one:
        way, loss, size, dim = arguments.one
        print(json.dumps(measure(way, loss, int(size), int(dim))))
        return
    for loss in arguments.losses:
        for size in arguments.sizes:
            needed = MATRICES * 4 * size**2 / 2**30
            is_run = needed <= arguments.naive_gib
            rounds = ROUNDS if is_run else 1
            pairs = []
            for _ in range(rounds):
                given = (loss, str(size), str(arguments.dim))
                ours = in_a_process(__file__, "--one", "blocks", *given)
                pairs.append(
                    (ours, in_a_process(__file__, "--one", "naive", *given) if is_run else None)
                )
            ours = pairs[0][0]
            print(
                f"{loss} {size} x {arguments.dim}: blocks {ours['mib']:.0f} MiB {ours['s']:.2f} s"
            )
            if not is_run:
                print(f"  naive: not run, it would need about {needed:.0f} GiB")
                continue
            naive = pairs[0][1]
            assert naive is not None
            print(f"  naive {naive['mib']:.0f} MiB {naive['s']:.2f} s")
            for name in ("mib", "s"):
                ratios = [b[name] / n[name] for b, n in pairs if n is not None]
                shown = " ".join(f"{ratio:.3f}" for ratio in ratios)
                print(f"  blocks / naive, {name}: {shown}")
            assert abs(ours["norm"] / naive["norm"] - 1) < 1e-4, "the gradients differ"


if __name__ == "__main__":
    main()
