"""The torch runtime: every model of open_clip, loaded with nothing silent.

open_clip leaves a local model in train mode, takes OpenAI's mean and std where a configuration has
none, resizes position embeddings that do not fit, and fills a float model from int8 tensors. Each
of these is checked here, because each would only show as bad answers.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

from clipsearch.config import Settings, resolve
from clipsearch.encoders.addresses import hub_is_reachable, resolve_address
from clipsearch.encoders.checking import checked_pixels, checked_texts
from clipsearch.encoders.downloads import announce, failed, forbidden, hub_offline
from clipsearch.encoders.local_model import (
    CONFIG,
    LocalModel,
    file_sha256,
    read_local_model,
    read_safetensors_header,
    space_of,
)
from clipsearch.encoders.model_store import read_model
from clipsearch.encoders.openclip_cutting import context_length_of, unread_by
from clipsearch.encoders.preprocessing import Preprocessing
from clipsearch.encoders.registry import EMBEDDED, EMBEDDED_FOLDER, HF_HUB
from clipsearch.errors import (
    DependencyError,
    DeviceError,
    ModelConfigError,
    ModelError,
    WeightsCorruptError,
    WeightsFormatError,
)
from clipsearch.model_names import LOCAL_DIR
from clipsearch.network import is_forbidden
from clipsearch.vectors import EmbeddingSpace, Matrix, Pixels, unit_rows

_SUB_BATCH = 64  # pictures in one forward pass
Notify = Callable[[str], None]
Tokenizer = Callable[[list[str]], torch.Tensor]
Fetched = TypeVar("Fetched")


@dataclass(frozen=True)
class OpenClipModel:
    """A loaded dual encoder: eval mode, float32, on the CPU until it is moved."""

    model: torch.nn.Module
    preprocess_cfg: dict[str, Any]
    tokenizer: Callable[[list[str]], torch.Tensor]
    address: str
    model_cfg: dict[str, Any]
    weights_sha256: str
    tokenizer_sha256: str = ""  # of a folder's own tokenizer

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing.from_config(self.preprocess_cfg)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def space(self) -> EmbeddingSpace:
        return space_of(
            self.model_cfg, self.weights_sha256, self.preprocessing, self.tokenizer_sha256
        )


def load_openclip(
    address: str,
    *,
    settings: Settings | None = None,
    space: EmbeddingSpace | None = None,
    notify: Notify | None = None,
) -> OpenClipModel:
    """Loads a model by any address but ``auto``; never with random weights.

    ``space`` is that of a model that the library of ``settings`` knows. Raises a ModelError of the
    kind of trouble: unknown name, no or broken weights, pickled weights, configuration and weights
    that do not fit, or no network for a download.
    """
    settings = settings or resolve()
    address = resolve_address(address, settings=settings, notify=notify)
    with _quiet():
        if address == EMBEDDED:
            return _from_folder(read_local_model(EMBEDDED_FOLDER, address))
        if address.startswith(LOCAL_DIR):
            return _from_folder(read_model(address, settings, space))
        if address.startswith(HF_HUB):
            return _from_hub(address, settings, notify)
        return _from_registry(address, settings, notify)


def _from_folder(local: LocalModel) -> OpenClipModel:
    name = f"{LOCAL_DIR}{local.folder}"
    try:
        model = open_clip.create_model(
            name, load_weights=False, pretrained_image=False, pretrained_text=False
        )
    except Exception as error:  # whatever a configuration can make a constructor raise
        raise ModelConfigError(
            address=local.address,
            path=local.folder / CONFIG,
            reason=f"no model can be built from it: {error}",
            advice="Copy the configuration that belongs to these weights.",
        ) from error
    _check_shapes(local, model)
    try:
        state = load_file(local.weights)
    except (SafetensorError, OSError) as error:
        raise WeightsCorruptError(
            path=local.weights, reason=error, advice="Copy or download the file again."
        ) from error
    model.load_state_dict(state, strict=True)
    return OpenClipModel(
        model=model.float().eval(),
        preprocess_cfg=local.preprocess_cfg,
        tokenizer=open_clip.get_tokenizer(name),
        address=local.address,
        model_cfg=local.model_cfg,
        weights_sha256=file_sha256(local.weights),
        tokenizer_sha256=local.tokenizer_sha256(),
    )


def _check_shapes(local: LocalModel, model: torch.nn.Module) -> None:
    """Every tensor of the file in its place and of its size, or ModelConfigError says which."""
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tensor.shape for name, tensor in local.tensors.items()}
    reasons = [
        *(f"{name} is missing from the weights" for name in wanted.keys() - found.keys()),
        *(f"{name} has no place in the model" for name in found.keys() - wanted.keys()),
        *(
            f"{name} is {found[name]} in the weights and {wanted[name]} in the configuration"
            for name in wanted.keys() & found.keys()
            if wanted[name] != found[name]
        ),
    ]
    visual: Any = model.visual
    side = tuple(open_clip.utils.to_2tuple(visual.image_size))
    given = (local.preprocessing.height, local.preprocessing.width)
    if side != given:
        reasons.append(f"image_size is {side} in model_cfg and {given} in preprocess_cfg")
    if not reasons:
        return
    more = f", and {len(reasons) - 1} more" if len(reasons) > 1 else ""
    raise ModelConfigError(
        address=local.address,
        path=local.folder / CONFIG,
        reason=f"{min(reasons)}{more}",
        advice="Check image_size, context_length and embed_dim against the model's own config.",
    )


def _from_registry(address: str, settings: Settings, notify: Notify | None) -> OpenClipModel:
    name, _, tag = address.partition("/")
    tag_cfg = open_clip.get_pretrained_cfg(name, tag)

    def fetch() -> tuple[Path, Tokenizer]:
        return Path(open_clip.download_pretrained(tag_cfg)), open_clip.get_tokenizer(name)

    weights, tokenizer = _fetched(address, settings, notify, fetch)
    # The weights of some tags need QuickGELU, whatever the architecture's name says.
    quick_gelu = bool(tag_cfg.get("quick_gelu", False))
    model = _created(weights, name, pretrained=tag, force_quick_gelu=quick_gelu)
    model_cfg = deepcopy(open_clip.get_model_config(name))
    if quick_gelu:
        model_cfg["quick_gelu"] = True
    return _finished(address, model, model_cfg, weights, tokenizer)


def _from_hub(address: str, settings: Settings, notify: Notify | None) -> OpenClipModel:
    repository = address.removeprefix(HF_HUB)

    def fetch() -> tuple[Path, Tokenizer, dict[str, Any]]:
        config = open_clip.factory._get_hf_config(repository)
        weights = Path(open_clip.pretrained.download_pretrained_from_hf(repository))
        return weights, open_clip.get_tokenizer(address), config

    weights, tokenizer, config = _fetched(address, settings, notify, fetch)
    model = _created(weights, address)
    return _finished(address, model, config["model_cfg"], weights, tokenizer)


def _fetched(
    address: str, settings: Settings, notify: Notify | None, fetch: Callable[[], Fetched]
) -> Fetched:
    """What is on this machine; where something is missing, from the network, which is told before.

    Raises ModelDownloadError, within seconds where there is no network.
    """
    try:
        with hub_offline():
            return fetch()
    except ImportError as error:
        raise DependencyError(
            reason=f"{address} needs a package that is not installed: pip install {error.name}"
        ) from error
    except Exception:  # the hub's and open_clip's own, of many kinds: something is not here
        announce(address, settings, notify)
        if is_forbidden(settings.offline):
            raise forbidden(address) from None
    if not hub_is_reachable():  # the client alone would retry for over twenty seconds
        raise failed(address, "there is no network")
    try:
        with hub_offline(False):
            return fetch()
    except Exception as error:
        raise failed(address, (str(error).splitlines() or [repr(error)])[0]) from error


def _created(weights: Path, name: str, **options: Any) -> torch.nn.Module:
    if weights.suffix == ".safetensors":
        read_safetensors_header(weights)
    try:
        with hub_offline():  # all of it has been fetched
            model: torch.nn.Module = open_clip.create_model(
                name, require_pretrained=True, weights_only=True, **options
            )
    except Exception as error:  # open_clip raises many kinds, and RuntimeError for most
        if "weights_only" in str(error) or "Unsupported global" in str(error):
            raise WeightsFormatError(path=weights, reason="it holds more than tensors") from error
        raise WeightsCorruptError(
            path=weights, reason=error, advice="Delete it and run again to download it anew."
        ) from error
    return model


def _finished(
    address: str,
    model: torch.nn.Module,
    model_cfg: dict[str, Any],
    weights: Path,
    tokenizer: Callable[[list[str]], torch.Tensor],
) -> OpenClipModel:
    preprocess_cfg = dict(open_clip.get_model_preprocess_cfg(model))
    return OpenClipModel(
        model.float().eval(), preprocess_cfg, tokenizer, address, model_cfg, file_sha256(weights)
    )


class TorchEncoder:
    """An Encoder on torch: CUDA with bfloat16 where there is one, else the CPU with float32."""

    def __init__(self, loaded: OpenClipModel, settings: Settings | None = None) -> None:
        settings = settings or resolve()
        self._device, self.precision = _device_and_precision(settings)
        if self._device.type == "cpu":
            torch.set_num_threads(settings.thread_count)
        self.address = loaded.address
        self.space = loaded.space
        self.runtime = f"torch-{self._device.type}"
        self.preprocessing = loaded.preprocessing
        self._tokenizer = loaded.tokenizer
        self._dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        self._model: Any = loaded.model.to(self._device, self._dtype)
        shape = (1, 3, 1, 1)
        self._mean = torch.tensor(self.preprocessing.mean, device=self._device).reshape(shape)
        self._std = torch.tensor(self.preprocessing.std, device=self._device).reshape(shape)

    def preprocess(self, image: Image.Image) -> Pixels:
        return self.preprocessing.apply(image)

    def encode_images(self, batch: Pixels) -> Matrix:
        pixels = checked_pixels(batch, self.preprocessing.height, self.preprocessing.width)
        parts = [
            self._encode_pixels(pixels[start : start + _SUB_BATCH])
            for start in range(0, len(pixels), _SUB_BATCH)
        ]
        return np.concatenate(parts) if parts else np.empty((0, self.space.dim), np.float32)

    def _encode_pixels(self, batch: Pixels) -> Matrix:
        with torch.inference_mode(), self._failing("these pictures"):
            own = batch if batch.flags.writeable else batch.copy()  # torch warns of others
            pixels = torch.from_numpy(own).to(self._device).float() / 255
            normal = ((pixels - self._mean) / self._std).to(self._dtype)
            vectors = self._model.encode_image(normal)
            return unit_rows(vectors.float().cpu().numpy())

    def encode_texts(self, texts: Sequence[str]) -> Matrix:
        checked = checked_texts(texts)
        if not checked:
            return np.empty((0, self.space.dim), np.float32)
        with torch.inference_mode(), self._failing("these texts"):
            tokens = self._tokenizer(checked).to(self._device)
            return unit_rows(self._model.encode_text(tokens).float().cpu().numpy())

    @property
    def context_length(self) -> int:
        return context_length_of(self._tokenizer)

    def unread(self, texts: Sequence[str]) -> list[str]:
        return unread_by(self._tokenizer, checked_texts(texts))

    @contextlib.contextmanager
    def _failing(self, what: str) -> Iterator[None]:
        """Turns torch's errors, of too little memory for example, into ours."""
        try:
            yield
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise ModelError(reason=f"{self.address} could not encode {what}: {reason}") from error


def _device_and_precision(settings: Settings) -> tuple[torch.device, str]:
    has_cuda = torch.cuda.is_available()
    if settings.device == "cuda" and not has_cuda:
        raise DeviceError(reason="--device cuda: torch sees no CUDA GPU here. Use --device cpu")
    device = "cuda" if has_cuda and settings.device != "cpu" else "cpu"
    automatic = "bf16" if device == "cuda" else "f32"
    precision = automatic if settings.precision == "auto" else settings.precision
    return torch.device(device), precision


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps open_clip's and torch's remarks to themselves; what matters is raised."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
