"""Makes the compiled runtime's files of a model. Runs as a process of its own:

    python -m clipsearch.encoders.openclip_export ADDRESS ENTRIES_FOLDER

so that the process that indexes or serves never holds torch and a second copy of the weights. It
prints one JSON object: the space, or the error. The result is compared with torch before it counts.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clipsearch.encoders import compiled, text_tower
from clipsearch.encoders.openclip import OpenClipModel, load_openclip
from clipsearch.encoders.openclip_pooling import spare_unused_tokens
from clipsearch.encoders.openclip_text import save_text_tower
from clipsearch.encoders.openvino_runtime import convert_model, ov
from clipsearch.encoders.tokenizer import can_tokenize
from clipsearch.errors import ClipsearchError, ModelError

_SMALLEST_COSINE = 0.9999
_EXAMPLES = 3  # not 1, so that tracing does not take the batch size for a constant


class _ImageTower(torch.nn.Module):
    """uint8 pixels to unit vectors: the normalisation travels with the model."""

    def __init__(self, loaded: OpenClipModel) -> None:
        super().__init__()
        self.model = loaded.model
        preprocessing = loaded.preprocessing
        self.mean = torch.tensor(preprocessing.mean).reshape(1, 3, 1, 1)
        self.std = torch.tensor(preprocessing.std).reshape(1, 3, 1, 1)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        normal = (pixels.to(torch.float32) / 255 - self.mean) / self.std
        vectors: torch.Tensor = self.model.encode_image(normal, normalize=True)  # type: ignore[operator]
        return vectors


class _TextTower(torch.nn.Module):
    """Token ids to unit vectors."""

    def __init__(self, loaded: OpenClipModel) -> None:
        super().__init__()
        self.model = loaded.model

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        vectors: torch.Tensor = self.model.encode_text(tokens, normalize=True)  # type: ignore[operator]
        return vectors


def export(address: str, entries: Path) -> compiled.Manifest:
    """Converts, verifies and files a model; ModelError if it cannot be done faithfully."""
    # The fused attention of inference has no counterpart outside torch.
    torch.backends.mha.set_fastpath_enabled(False)
    loaded = load_openclip(address)
    spare_unused_tokens(loaded.model)
    text_cfg = loaded.model_cfg["text_cfg"]
    clean = text_cfg.get("tokenizer_kwargs", {}).get("clean", "lower")
    if text_cfg.get("hf_tokenizer_name") or "siglip" in address.lower() or not can_tokenize(clean):
        raise ModelError(reason=f"{address} needs a tokenizer that only the torch runtime has.")
    context_length = int(text_cfg.get("context_length", 77))
    side = (loaded.preprocessing.height, loaded.preprocessing.width)
    pixels = torch.randint(0, 256, (_EXAMPLES, 3, *side), dtype=torch.uint8)
    texts = ["a photo", "two dogs on a beach at night", "x"]
    tokens = loaded.tokenizer(texts)
    entries.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix="making-", dir=entries))
    try:
        _convert(_ImageTower(loaded).eval(), pixels, temporary / "image.xml")
        if not _write_text_tower(loaded, tokens, temporary / text_tower.FILE):
            _convert(_TextTower(loaded).eval(), tokens, temporary / "text.xml")
        files = {path.name: compiled.file_checksum(path) for path in sorted(temporary.iterdir())}
        manifest = compiled.Manifest(
            loaded.space,
            loaded.address,
            loaded.preprocess_cfg,
            context_length,
            clean,
            files,
            compiled.openvino_version(),
        )
        manifest.write(temporary)
        _put_in_place(temporary, entries / loaded.space.id)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return manifest


def _convert(tower: torch.nn.Module, example: torch.Tensor, path: Path) -> None:
    with torch.inference_mode():
        wanted = tower(example).numpy()
    # torch's own check of a trace is as long as the trace; _agrees compares what counts.
    traced = torch.jit.trace(tower, example, check_trace=False)  # type: ignore[no-untyped-call]
    converted = convert_model(traced, example_input=example)
    converted.reshape([-1, *example.shape[1:]])
    for compress in (True, False):  # float16 on the disk, unless that shows
        ov.save_model(converted, path, compress_to_fp16=compress)
        run = ov.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        if _agrees(partial(_run_openvino, run), example.numpy(), wanted):
            return
    raise ModelError(reason=f"the compiled {path.stem} tower does not agree with torch")


def _write_text_tower(loaded: OpenClipModel, tokens: torch.Tensor, path: Path) -> bool:
    """False, and no file, where numpy cannot compute the text tower."""
    with torch.inference_mode():
        wanted = _TextTower(loaded).eval()(tokens).numpy()
    for half in (True, False):
        if not save_text_tower(loaded.model, path, half=half):
            return False
        if _agrees(text_tower.TextTower(path), tokens.numpy(), wanted):
            return True
    path.unlink()
    return False


def _run_openvino(made: Any, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = made([rows])[0]
    return found


def _agrees(
    run: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]],
    example: np.ndarray[Any, Any],
    wanted: np.ndarray[Any, Any],
) -> bool:
    """One at a time and together, so that a frozen batch size would show."""
    together = run(example)
    alone = np.concatenate([run(row[None]) for row in example])
    cosines = [
        (found * wanted).sum(axis=1) / np.linalg.norm(found, axis=1) for found in (together, alone)
    ]
    return bool(np.min(cosines) > _SMALLEST_COSINE)


def _put_in_place(made: Path, destination: Path) -> None:
    """Replaces an older entry; another process may be doing the same."""
    if destination.exists():
        doomed = Path(tempfile.mkdtemp(prefix="old-", dir=destination.parent))
        destination.replace(doomed / "entry")
        shutil.rmtree(doomed, ignore_errors=True)
    made.replace(destination)


def main() -> int:
    address, entries = sys.argv[1:]
    try:
        manifest = export(address, Path(entries))
    except ClipsearchError as error:
        fields = {name: str(value) for name, value in error.fields.items()}
        result: dict[str, Any] = {"error": type(error).__name__, "fields": fields}
    else:
        result = {"space": asdict(manifest.space)}
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
