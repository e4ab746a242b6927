"""A model as a folder: its configuration and the header of its weights, read without torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipsearch.encoders.preprocessing import Preprocessing
from clipsearch.errors import (
    ModelConfigError,
    WeightsCorruptError,
    WeightsFormatError,
    WeightsNotFoundError,
)
from clipsearch.model_names import LOCAL_DIR
from clipsearch.vectors import EmbeddingSpace

CONFIG = "open_clip_config.json"
WEIGHTS = "open_clip_model.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
# What a tokenizer of the transformers library is made of, where a model folder brings one.
_TOKENIZER_FILES = ("*token*", "vocab*", "merges.txt", "*.model", "*sentencepiece*")
_TOKENIZER_SETTINGS = ("hf_tokenizer_name", "tokenizer_kwargs", "tokenizer_mode")
_MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_INTEGERS = frozenset({"I64", "I32", "BOOL", "U8"})


@dataclass(frozen=True)
class TensorHeader:
    """What a safetensors file says of one tensor."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class LocalModel:
    """A folder with open_clip's configuration and safetensors weights, both checked."""

    address: str
    folder: Path
    model_cfg: dict[str, Any]
    preprocess_cfg: dict[str, Any]
    preprocessing: Preprocessing
    tensors: dict[str, TensorHeader]

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS

    def space(self) -> EmbeddingSpace:
        """The space of its vectors; reads the whole weights file once."""
        weights = file_sha256(self.weights)
        return space_of(self.model_cfg, weights, self.preprocessing, self.tokenizer_sha256())

    def tokenizer_sha256(self) -> str:
        """The checksum of the tokenizer's own files, or "" where it is CLIP's, which has none."""
        if not self.model_cfg["text_cfg"].get("hf_tokenizer_name"):
            return ""
        state = hashlib.sha256()
        for file in tokenizer_files(self.folder):
            state.update(f"{file.name} {file_sha256(file)}\n".encode())
        return state.hexdigest()

    def parts(self) -> dict[str, str]:
        """Checksums of what the model's name in its space stands for, by part."""
        text_cfg = self.model_cfg["text_cfg"]
        words = {name: text_cfg[name] for name in _TOKENIZER_SETTINGS if name in text_cfg}
        others = {name: value for name, value in text_cfg.items() if name not in words}
        return {
            "architecture": _digest({**self.model_cfg, "text_cfg": others}),
            "tokenizer": _digest([words, self.tokenizer_sha256()]),
        }


def read_local_model(folder: Path, address: str) -> LocalModel:
    """Reads and checks a model folder.

    Raises WeightsNotFoundError, WeightsFormatError, WeightsCorruptError, or ModelConfigError, each
    naming the file and what to do.
    """
    config_path = folder / CONFIG
    if not folder.is_dir() or not config_path.is_file():
        raise WeightsNotFoundError(
            address=address,
            path=config_path,
            advice=f"A model folder holds {CONFIG} and {WEIGHTS}. If it has moved, name its new "
            f"place: {LOCAL_DIR}NEW_FOLDER",
        )
    config = _read_config(config_path, address)
    weights = folder / WEIGHTS
    if not weights.is_file():
        _refuse_missing(folder, address)
    tensors = read_safetensors_header(weights)
    try:
        preprocessing = Preprocessing.from_config(config["preprocess_cfg"])
    except (ValueError, TypeError) as error:
        raise ModelConfigError(
            address=address,
            path=config_path,
            reason=str(error),
            advice="Copy the configuration that belongs to these weights.",
        ) from error
    _check_dtypes(tensors, weights, address)
    return LocalModel(
        address, folder, config["model_cfg"], config["preprocess_cfg"], preprocessing, tensors
    )


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of a model folder that a tokenizer may read, sorted."""
    found = {file for pattern in _TOKENIZER_FILES for file in folder.glob(pattern)}
    return sorted(file for file in found - {folder / CONFIG} if file.is_file())


def space_of(
    model_cfg: dict[str, Any],
    weights_sha256: str,
    preprocessing: Preprocessing,
    tokenizer_sha256: str = "",
) -> EmbeddingSpace:
    """The space of a model; a folder that is moved or renamed keeps its space.

    ``tokenizer_sha256`` is that of ``LocalModel``.
    """
    words = f"+{tokenizer_sha256[:16]}" if tokenizer_sha256 else ""
    return EmbeddingSpace(
        model=f"open_clip:{_digest(model_cfg)}{words}",
        weights_sha256=weights_sha256,
        preprocess=preprocessing.identity(),
        dim=int(model_cfg["embed_dim"]),
    )


def _digest(record: Any) -> str:
    canonical = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_safetensors_header(path: Path) -> dict[str, TensorHeader]:
    """The tensors of a safetensors file by name; WeightsCorruptError if it is cut or damaged."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(_MAX_HEADER_BYTES, size - 8):
                raise ValueError(f"its header is cut off or it is no safetensors file ({size} B)")
            header = json.loads(file.read(length))
        tensors = {
            name: TensorHeader(entry["dtype"], tuple(entry["shape"]))
            for name, entry in header.items()
            if name != "__metadata__"
        }
        entries = (entry for name, entry in header.items() if name != "__metadata__")
        end = max((entry["data_offsets"][1] for entry in entries), default=0)
    except OSError as error:
        raise WeightsCorruptError(path=path, reason=error.strerror or error, advice="") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsCorruptError(
            path=path, reason=error, advice="Copy or download the file again."
        ) from error
    if 8 + length + end != size:
        raise WeightsCorruptError(
            path=path,
            reason=f"it should have {8 + length + end:,} bytes and has {size:,}",
            advice="Copy or download the file again.",
        )
    return tensors


def _read_config(path: Path, address: str) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        for part in ("model_cfg", "preprocess_cfg"):
            if not isinstance(config.get(part), dict):
                raise ValueError(f"it has no '{part}'")
        for part in ("vision_cfg", "text_cfg"):
            if not isinstance(config["model_cfg"].get(part), dict):
                raise ValueError(f"its model_cfg has no '{part}'")
        int(config["model_cfg"]["embed_dim"])
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        reason = "its model_cfg has no 'embed_dim'" if isinstance(error, KeyError) else str(error)
        raise ModelConfigError(
            address=address,
            path=path,
            reason=reason,
            advice="Copy the configuration that belongs to these weights; without preprocess_cfg "
            "pictures would be prepared wrongly.",
        ) from error
    result: dict[str, Any] = config
    return result


def _refuse_missing(folder: Path, address: str) -> None:
    for pattern in _PICKLES:
        for path in sorted(folder.glob(pattern)):
            raise WeightsFormatError(path=path, reason="it is a torch pickle")
    raise WeightsNotFoundError(
        address=address,
        path=folder / WEIGHTS,
        advice=f"Put the weights there, as safetensors, beside {CONFIG}.",
    )


def _check_dtypes(tensors: dict[str, TensorHeader], path: Path, address: str) -> None:
    """Refuses quantised weights: torch would load them into a float model without scaling."""
    for name, tensor in tensors.items():
        if tensor.dtype in _FLOATS or (tensor.dtype in _INTEGERS and not tensor.shape):
            continue
        if tensor.dtype == "I64" and "position_ids" in name:
            continue
        raise ModelConfigError(
            address=address,
            path=path,
            reason=f"tensor {name} is {tensor.dtype}, not floating point",
            advice="Quantised weights cannot be used; take the float16 or float32 ones.",
        )
