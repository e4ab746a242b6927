"""Files to library: finds photos, reads what changed, embeds what is new."""

from __future__ import annotations

from indexer.pipeline import IndexReport, index_library

__all__ = ["IndexReport", "index_library"]
