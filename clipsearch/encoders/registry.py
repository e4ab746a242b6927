"""Models as data: what is recommended for whom, and what an address means."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path

EMBEDDED = "embedded"
AUTO = "auto"
DEFAULT = "ViT-B-32-256/datacomp_s34b_b86k"
HF_HUB = "hf-hub:"
EMBEDDED_FOLDER = Path(__file__).parent / "embedded"

# OpenAI's own models (CLIP, Radford et al. 2021) may be named by their architecture alone.
OPENAI_MODELS = (
    "RN50",
    "RN101",
    "RN50x4",
    "RN50x16",
    "RN50x64",
    "ViT-B-32",
    "ViT-B-16",
    "ViT-L-14",
    "ViT-L-14-336",
)


@dataclass(frozen=True)
class ModelEntry:
    """One line of ``clipsearch models``. ``cached``: its weights are on this machine."""

    address: str
    tier: str
    dim: int | None
    licence: str
    note: str
    hub: str | None = None  # the Hugging Face repository of the weights
    cached: bool = False
    megabytes: int | None = None  # of the weights as they are downloaded, in float32


RECOMMENDED = (
    ModelEntry(
        EMBEDDED,
        "embedded",
        384,
        "Apache-2.0",
        "ships with clipsearch; small, works offline",
    ),
    ModelEntry(
        DEFAULT,
        "default",
        512,
        "MIT",
        "151 M parameters, ImageNet 72.8 %",
        "laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K",
        megabytes=605,
    ),
    ModelEntry(
        "ViT-B-16-SigLIP2-256/webli",
        "better",
        768,
        "Apache-2.0",
        "many languages, ImageNet 79.1 %, about 3 GB of memory",
        "timm/ViT-B-16-SigLIP2-256",
        megabytes=1501,
    ),
    ModelEntry(
        "PE-Core-L-14-336/meta",
        "gpu",
        1024,
        "Apache-2.0",
        "ImageNet 83.5 %, for a GPU",
        "timm/PE-Core-L-14-336",
        megabytes=2685,
    ),
    ModelEntry(
        "ViT-SO400M-16-SigLIP2-384/webli",
        "gpu",
        1152,
        "Apache-2.0",
        "many languages, ImageNet 84.1 %, for a GPU",
        "timm/ViT-SO400M-16-SigLIP2-384",
        megabytes=4544,
    ),
    ModelEntry(
        "MobileCLIP2-S2/dfndr2b",
        "opt-in",
        512,
        "Apple research only",
        "small and good, licensed for research only",
        "timm/MobileCLIP2-S2-OpenCLIP",
        megabytes=397,
    ),
)


def known_models(*, include_all: bool = False) -> list[ModelEntry]:
    """The recommended models, OpenAI's, and with ``include_all`` every one of open_clip's."""
    openai = (
        ModelEntry(name, "openai", None, "MIT", "CLIP as published by OpenAI")
        for name in OPENAI_MODELS
    )
    entries = [replace(entry, cached=is_cached(entry)) for entry in (*RECOMMENDED, *openai)]
    if include_all:
        from clipsearch.encoders.openclip_names import list_addresses

        named = {entry.address for entry in entries}
        entries.extend(
            ModelEntry(address, "other", None, "see its model card", "")
            for address in list_addresses()
            if address not in named
        )
    return entries


def is_cached(entry: ModelEntry) -> bool:
    """True if the weights need no download, as far as can be told without loading open_clip."""
    if entry.address == EMBEDDED:
        return True
    if entry.hub is None:
        return False
    return cached_file(entry.hub) is not None


def cached_file(repository: str, file: str = "") -> Path | None:
    """The weights file of a hub repository in the local hub cache, if it is there."""
    from huggingface_hub import try_to_load_from_cache

    usual = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    for name in (f"{Path(file).stem}.safetensors", file) if file else usual:
        found = try_to_load_from_cache(repository, name)
        if isinstance(found, str):
            return Path(found)
    return None


def package_folder(package: str) -> Path:
    """Where an installed package lies, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(package)
    return Path(spec.origin).parent
