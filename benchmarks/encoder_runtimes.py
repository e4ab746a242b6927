"""Runtimes for the image and text towers, side by side in one run: torch, OpenVINO, ONNX Runtime.

    python benchmarks/encoder_runtimes.py [--pictures 128] [--model embedded|large]

``large`` is ViT-B-32-256 with random weights. ONNX Runtime takes part where onnxruntime, onnx and
onnxscript are installed; the project itself does not need them. Each figure is of a process of its
own; ratios are to torch in the same run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CHILD = Path(__file__)


def measure(
    runtime: str, address: str, folder: Path, threads: int, pictures: int
) -> dict[str, Any]:
    command = [sys.executable, str(CHILD), "--child", runtime, address, str(folder)]
    done = subprocess.run(
        [*command, str(threads), str(pictures)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1]}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def child(runtime: str, address: str, folder: Path, threads: int, pictures: int) -> None:
    """Measures one runtime and prints one JSON object."""
    import resource

    started = time.perf_counter()
    encode_texts, encode_images, side = RUNTIMES[runtime](address, folder, threads)
    encode_texts(["a dog on the beach"])
    first = time.perf_counter() - started
    times = []
    for _ in range(20):
        begun = time.perf_counter()
        encode_texts(["two cats"])
        times.append(time.perf_counter() - begun)
    import numpy as np

    pixels = np.random.default_rng(0).integers(0, 256, (pictures, 3, side, side), dtype=np.uint8)
    encode_images(pixels[:16])
    begun = time.perf_counter()
    encode_images(pixels)
    rate = pictures / (time.perf_counter() - begun)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps(
            {
                "images_per_s": rate,
                "text_ms": sorted(times)[len(times) // 2] * 1000,
                "first_text_s": first,
                "rss_mb": memory,
            }
        )
    )


def _clipsearch(settings: dict[str, object]) -> Any:
    def load(address: str, folder: Path, threads: int) -> Any:
        from PIL import Image

        from clipsearch.config import resolve
        from clipsearch.encoders import load_encoder

        chosen = resolve({"cache_dir": folder, "threads": threads, "device": "cpu", **settings})
        encoder = load_encoder(address, settings=chosen)
        side = encoder.preprocess(Image.new("RGB", (300, 300))).shape[1]
        return encoder.encode_texts, encoder.encode_images, side

    return load


def _onnx(_address: str, folder: Path, threads: int) -> Any:
    import numpy as np
    import onnxruntime

    from clipsearch.encoders.tokenizer import BytePairTokenizer

    facts = json.loads((folder / "onnx.json").read_text())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    towers = {
        name: onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), options)
        for name in ("image", "text")
    }
    tokenizer = BytePairTokenizer(facts["context_length"])

    def images(pixels: Any) -> None:
        for start in range(0, len(pixels), 16):
            towers["image"].run(None, {"x": pixels[start : start + 16]})

    def texts(words: list[str]) -> Any:
        return np.asarray(towers["text"].run(None, {"x": tokenizer(words)})[0])

    return texts, images, facts["side"]


RUNTIMES = {
    "torch f32": _clipsearch({"runtime": "torch"}),
    "openvino f32": _clipsearch({"runtime": "compiled", "precision": "f32"}),
    "openvino bf16": _clipsearch({"runtime": "compiled", "precision": "bf16"}),
    "onnxruntime f32": _onnx,
}


def export_onnx(address: str, folder: Path) -> None:
    """Writes both towers as ONNX, normalisation inside, as the compiled runtime has it."""
    import torch

    from clipsearch.encoders import openclip_export as export
    from clipsearch.encoders.openclip import load_openclip

    torch.backends.mha.set_fastpath_enabled(False)
    loaded = load_openclip(address)
    side = loaded.preprocessing.height
    length = int(loaded.model_cfg["text_cfg"]["context_length"])
    examples = {
        "image": (export._ImageTower(loaded), torch.zeros(2, 3, side, side, dtype=torch.uint8)),
        "text": (export._TextTower(loaded), loaded.tokenizer(["a", "b c"])),
    }
    for name, (tower, example) in examples.items():
        torch.onnx.export(
            tower.eval(),
            (example,),
            str(folder / f"{name}.onnx"),
            input_names=["x"],
            dynamo=False,
            dynamic_axes={"x": {0: "n"}},
            opset_version=17,
        )
    (folder / "onnx.json").write_text(json.dumps({"side": side, "context_length": length}))


def random_large(folder: Path) -> str:
    """ViT-B-32-256 with random weights, as a local folder."""
    import open_clip
    import torch

    from training.export import export_model

    torch.manual_seed(0)
    model = open_clip.create_model("ViT-B-32-256")
    preprocess = dict(open_clip.get_model_preprocess_cfg(model))
    config = open_clip.get_model_config("ViT-B-32-256")
    export_model(folder / "large", model.state_dict(), config, preprocess)
    return f"local-dir:{folder / 'large'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=128)
    parser.add_argument("--model", choices=["embedded", "large"], default="embedded")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        address = random_large(folder) if arguments.model == "large" else "embedded"
        from clipsearch.config import resolve
        from clipsearch.encoders import compile_encoder

        begun = time.perf_counter()
        compile_encoder(address, settings=resolve({"cache_dir": folder}))
        print(
            f"{arguments.model}: made the compiled runtime in {time.perf_counter() - begun:.1f} s"
        )
        if all(importlib.util.find_spec(name) for name in ("onnxruntime", "onnx", "onnxscript")):
            export_onnx(address, folder)
        else:
            print("onnxruntime f32: not measured, onnxruntime, onnx and onnxscript are needed")
            del RUNTIMES["onnxruntime f32"]
        for threads in (1, 2):
            base = 0.0
            for runtime in RUNTIMES:
                found = measure(runtime, address, folder, threads, arguments.pictures)
                if "error" in found:
                    print(f"{threads} threads  {runtime:<16} {found['error']}")
                    continue
                base = base or found["images_per_s"]
                print(
                    f"{threads} threads  {runtime:<16} {found['images_per_s']:7.1f} images/s "
                    f"(x{found['images_per_s'] / base:.1f})  text {found['text_ms']:6.1f} ms  "
                    f"first text after {found['first_text_s']:5.2f} s  {found['rss_mb']:6.0f} MB"
                )


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--child":
        child(sys.argv[2], sys.argv[3], Path(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6]))
    else:
        main()
