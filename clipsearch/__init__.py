"""clipsearch: a private, local search engine for pictures.

>>> import clipsearch
>>> with clipsearch.open_library("photos.clipsearch") as library:  # doctest: +SKIP
...     hits = clipsearch.search(library, "a dog on the beach")
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipsearch import errors
from clipsearch.errors import ClipsearchError
from clipsearch.network import tell_no_one

if TYPE_CHECKING:
    from clipsearch import query
    from clipsearch.encoders import Encoder, load_encoder
    from clipsearch.hits import SearchHit
    from clipsearch.learning import LearnReport, learn
    from clipsearch.library import Library
    from clipsearch.query import Query
    from clipsearch.searcher import Searcher, search, similar
    from clipsearch.tagging import TagReport, read_vocabulary, tag

tell_no_one()  # before anything else is imported, in every process

try:
    __version__ = version("clipsearch")
except PackageNotFoundError:  # run from a checkout that was never installed
    __version__ = "0+unknown"

__all__ = [
    "ClipsearchError",
    "Encoder",
    "LearnReport",
    "Library",
    "Query",
    "SearchHit",
    "Searcher",
    "TagReport",
    "__version__",
    "errors",
    "learn",
    "load_encoder",
    "open_library",
    "query",
    "read_vocabulary",
    "search",
    "similar",
    "tag",
]

_HOMES = {
    "Encoder": "clipsearch.encoders",
    "load_encoder": "clipsearch.encoders",
    "LearnReport": "clipsearch.learning",
    "learn": "clipsearch.learning",
    "Library": "clipsearch.library",
    "Query": "clipsearch.query",
    "SearchHit": "clipsearch.hits",
    "Searcher": "clipsearch.searcher",
    "search": "clipsearch.searcher",
    "similar": "clipsearch.searcher",
    "TagReport": "clipsearch.tagging",
    "read_vocabulary": "clipsearch.tagging",
    "tag": "clipsearch.tagging",
}


def open_library(path: str | Path | None = None, *, create: bool = False) -> Library:
    """Opens a library folder, by default the user's own; a context manager.

    ``create`` makes an empty one where there is none; otherwise LibraryNotFoundError.
    """
    from clipsearch.config import resolve
    from clipsearch.library import Library

    return Library.open(resolve({"library": path}).library, create=create)


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used, so that ``--help`` costs no imports."""
    if name in _HOMES:
        from importlib import import_module

        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    if name == "query":
        from importlib import import_module

        return import_module("clipsearch.query")  # which sets the attribute, too
    raise AttributeError(f"module 'clipsearch' has no attribute {name!r}")
