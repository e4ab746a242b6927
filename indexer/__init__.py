"""Files to library: finds photos, reads what changed, embeds what is new."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from indexer.pipeline import index_library
    from indexer.report import IndexReport

__all__ = ["IndexReport", "index_library"]

_HOMES = {"IndexReport": "indexer.report", "index_library": "indexer.pipeline"}


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used: a decoder process imports little of this."""
    if name in _HOMES:
        from importlib import import_module

        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'indexer' has no attribute {name!r}")
