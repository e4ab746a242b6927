"""Vector indexes: the nearest vectors to a question, exactly, from a cache that is not trusted."""

from __future__ import annotations

from clipsearch.index.cache import open_index
from clipsearch.index.faiss_index import describe as active_faiss
from clipsearch.index.protocol import Neighbours, VectorIndex, best_first

__all__ = ["Neighbours", "VectorIndex", "active_faiss", "best_first", "open_index"]
