"""The architectures and pretrained tags that open_clip knows."""

from __future__ import annotations

import difflib

import open_clip

from clipsearch.errors import UnknownModelError


def list_addresses() -> list[str]:
    """Every ``ARCHITECTURE/TAG`` of open_clip's registry."""
    return [f"{name}/{tag}" for name, tag in open_clip.list_pretrained()]


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
    suggestion = f"Did you mean {', '.join(near)}?" if near else ""
    raise UnknownModelError(address=address, suggestion=suggestion)
