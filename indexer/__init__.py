"""Files to library: finds photos, reads what changed, embeds what is new."""

from __future__ import annotations

from indexer.pipeline import index_library
from indexer.report import IndexReport

__all__ = ["IndexReport", "index_library"]
