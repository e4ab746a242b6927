"""The architectures and pretrained tags that open_clip knows."""

from __future__ import annotations

import difflib
import logging
import warnings
from pathlib import Path

import open_clip
import torch

from clipsearch.encoders.registry import cached_file
from clipsearch.errors import UnknownModelError


def list_addresses() -> list[str]:
    """Every ``ARCHITECTURE/TAG`` of open_clip's registry."""
    return [f"{name}/{tag}" for name, tag in open_clip.list_pretrained()]


def weights_here(address: str) -> Path | None:
    """The weights of an ``ARCHITECTURE/TAG`` in the local hub cache, or None."""
    name, _, tag = address.partition("/")
    place = str(open_clip.get_pretrained_cfg(name, tag).get("hf_hub", ""))
    repository, _, file = place.rpartition("/")
    return cached_file(repository, file) if repository else None


def megabytes_of(address: str) -> int | None:
    """The size of a model's weights in float32, by its architecture; None if it cannot be built."""
    name, _, _ = address.partition("/")
    logging.disable(logging.CRITICAL)  # of weights that are missing, which they are to be
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = open_clip.create_model(name, load_weights=False, device="meta")
        numbers = sum(int(each.numel()) for each in model.parameters())
        return round(4 * numbers / 1e6)
    except Exception:  # a text tower of another package, which would be asked for
        return None
    finally:
        logging.disable(logging.NOTSET)


def check_address(address: str) -> str:
    """Returns a known ``ARCHITECTURE/TAG`` unchanged; UnknownModelError with the nearest ones."""
    name, _, tag = address.partition("/")
    if tag and open_clip.get_pretrained_cfg(name, tag):
        return address
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tags:
        given = f"{name} has no weights called '{tag}'" if tag else f"{name} needs a tag"
        choices = ", ".join(f"{name}/{known}" for known in tags[:8])
        raise UnknownModelError(address=address, suggestion=f"{given}; there are: {choices}.")
    near = difflib.get_close_matches(address, list_addresses(), n=3, cutoff=0.5)
    if not near:
        near = difflib.get_close_matches(name, open_clip.list_models(), n=3, cutoff=0.5)
    suggestion = f"Did you mean {', '.join(near)}?" if near else "There is none of that name."
    raise UnknownModelError(address=address, suggestion=suggestion)
