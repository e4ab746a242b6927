"""What a search by words begins with: its model is loaded while Python imports everything else.

Loading a compiled model is work outside of Python's lock. Which model a library needs stands in its
database, whose libraries take longest to import, so it is guessed from the library's search cache.
A wrong guess costs nothing but the work.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from clipsearch.config import Settings


def begin(settings: Settings) -> None:
    """Begins to load the text tower of the space that was last searched, if it is compiled."""
    space_id = _last_searched(settings.library)
    if space_id is not None and (settings.compiled_dir / space_id).is_dir():
        from clipsearch.encoders.loading import start_loading_text

        start_loading_text(space_id, settings)


def _last_searched(library: Path) -> str | None:
    with suppress(OSError):
        manifests = {path.stat().st_mtime: path for path in library.glob("index/*/manifest.json")}
        if manifests:
            return manifests[max(manifests)].parent.name
    return None
