"""The info command: what a library holds, its model, its failures."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import Any

from clipsearch import errors
from clipsearch.command import Command, add_json_argument, add_library_argument, print_json, show
from clipsearch.commands import open_library
from clipsearch.config import Settings
from clipsearch.counting import counted
from clipsearch.library import Library
from clipsearch.sizes import shown_bytes

_SIDECAR_TEXT = {
    "caption": "a .txt beside a picture holds captions",
    "tags": "a .txt beside a picture holds tags",
    "off": "a .txt beside a picture is not read",
}
_SHOWN = 6  # of the most frequent formats, years, cameras


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--failures", action="store_true", help="list the files that could not be read, and why"
    )
    add_json_argument(parser)
    add_library_argument(parser)


def _run(arguments: Namespace) -> int:
    library, settings = open_library(arguments)
    with library:
        if arguments.failures:
            _list_failures(library, as_json=arguments.json)
        elif arguments.json:
            print_json(_record(library, settings))
        else:
            _print(_record(library, settings))
    return errors.DONE


def _record(library: Library, settings: Settings) -> dict[str, Any]:
    from clipsearch.index import active_faiss

    active = library.active_space()
    return {
        "library": library.path,
        "model": active.address if active else settings.model,
        "offline": settings.offline,
        **asdict(library.counts()),
        "roots": [root.path for root in library.roots()],
        "statistics": asdict(library.statistics()),
        "sidecar_text": settings.sidecar_text,
        "revision": library.revision,
        "faiss": active_faiss(),
        "spaces": [
            {
                "id": space.id,
                "model": space.address,
                "dim": space.space.dim,
                "runtime": space.runtime,
                "precision": space.precision,
                "embedded": space.embedded,
                "active": space.active,
            }
            for space in library.spaces()
        ],
    }


def _print(record: dict[str, Any]) -> None:
    found = record["statistics"]
    show(f"library   {record['library']}")
    show(f"model     {record['model']}")
    if record["offline"]:
        show("network   never, also not for weights (clipsearch models online allows them)")
    show(f"pictures  {record['items']:,} in {counted(record['files'], 'file')}")
    if record["videos"]:
        show(f"videos    {record['videos']:,}; their moments count as pictures above")
    if found["live_photos"]:
        halves = f"{found['live_photos']:,} of them are the moving halves of Live Photos"
        show(f"          {halves}, found by their photos")
    for root in record["roots"]:
        show(f"folder    {root}")
    for name, counts in (("formats", "formats"), ("years", "years"), ("cameras", "cameras")):
        if found[counts]:
            show(f"{name:<9} {_most(found[counts])}")
    show(f"sidecars  {_SIDECAR_TEXT[record['sidecar_text']]}")
    if record["missing"]:
        gone = counted(record["missing"], "file was", "files were")
        show(f"missing   {gone} there before and not now")
    if record["carried"]:
        show(
            f"carried   what you said of {counted(record['carried'], 'photo')} stayed through "
            "changes (list them: clipsearch carried)"
        )
    if record["failures"]:
        show(f"failures  {record['failures']:,} (list them: clipsearch info --failures)")
        for reason, count in found["failures"].items():
            show(f"          {count:,} x {reason}")
        if record["unread"]:
            show(f"          {record['unread']:,} of them are known from before, and found")
    for space in record["spaces"]:
        state = "in use" if space["active"] else "kept"
        show(
            f"vectors   {space['embedded']:,} x {space['dim']} of {space['model']}, "
            f"{space['runtime']} {space['precision']}, {state}"
        )
    show(
        f"on disk   photos {shown_bytes(found['photo_bytes'])}, "
        f"library {shown_bytes(found['library_bytes'])}, "
        f"index {shown_bytes(found['index_bytes'])}, "
        f"thumbnails {shown_bytes(found['thumbnail_bytes'])}"
    )
    show(f"faiss     {record['faiss']}")


def _most(counts: dict[str, int]) -> str:
    shown = [f"{name} {count:,}" for name, count in list(counts.items())[:_SHOWN]]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f", and {more:,} more" if more else "")


def _list_failures(library: Library, *, as_json: bool) -> None:
    for failure in library.failures():
        if as_json:
            print_json(asdict(failure))
        else:
            show(f"{failure.path}: {failure.reason}")


info = Command(_configure, _run)
