"""The models command: which models there are, and changing the library's without losing search."""

from __future__ import annotations

import signal
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from clipsearch import errors
from clipsearch.command import (
    Command,
    add_json_argument,
    add_library_argument,
    print_json,
    say,
    show,
)
from clipsearch.config import resolve
from clipsearch.counting import counted
from clipsearch.errors import FillRunningError, LibraryError, ModelChangeError, UsageError
from clipsearch.model_names import unmarked
from clipsearch.sizes import shown_bytes
from indexer.models_output import held_line, tell_change, tell_estimate

if TYPE_CHECKING:
    from clipsearch.library import Library
    from clipsearch.vectors import EmbeddingSpace


def _configure(parser: ArgumentParser) -> None:
    from indexer.commands import add_encoding_arguments

    parser.add_argument(
        "action",
        nargs="?",
        choices=["list", "use", "back", "drop", "shrink", "offline", "online"],
        default="list",
        help="list (default); use ADDRESS: change to it; back: to the one before; drop ADDRESS: "
        "delete its vectors; shrink: give free space in the database back to the disk; offline: "
        "never download for this library, in any command; online: allow it again",
    )
    parser.add_argument(
        "address",
        nargs="?",
        metavar="ADDRESS",
        help="a model's address, or with drop the id of its vectors",
    )
    parser.add_argument(
        "--all", action="store_true", help="list every architecture and tag of open_clip, too"
    )
    parser.add_argument(
        "--background",
        action="store_true",
        help="with use: fill as a process of its own and return at once; clipsearch models shows "
        "how far it is",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="with use: say what it will take on the disk, and change nothing",
    )
    parser.add_argument(
        "--as-new",
        action="store_true",
        help="with use: take a model whose files have changed as a new one beside the old",
    )
    parser.add_argument(
        "--leave-unreadable",
        action="store_true",
        help="with use, back: switch also while some pictures cannot be read; they are not found "
        "until they can",
    )
    parser.add_argument(
        "--no-tags",
        action="store_true",
        help="with use, back: leave the tags that the model before gave as they are",
    )
    parser.add_argument(
        "--gentle", action="store_true", help="with use, back: let other programs go first"
    )
    add_encoding_arguments(parser)
    add_json_argument(parser)
    add_library_argument(parser)
    parser.epilog = (
        "models use ADDRESS fills the model's vectors beside the old ones, which keep answering,\n"
        "and switches when they are complete. Ctrl-C stops it; the same command goes on from\n"
        "there. models back withdraws a change that is not complete, else returns to the model\n"
        "before. More: docs/models.md"
    )


def _run(arguments: Namespace) -> int:
    if arguments.action in ("use", "drop") and arguments.address is None:
        raise UsageError(
            reason=f"Name the model: clipsearch models {arguments.action} ADDRESS. "
            "What there is: clipsearch models"
        )
    if arguments.action not in ("use", "drop") and arguments.address is not None:
        raise UsageError(reason=f"models {arguments.action} takes no address")
    run = {
        "use": _use,
        "back": _back,
        "drop": _drop,
        "shrink": _shrink,
        "offline": _allow_network,
        "online": _allow_network,
        "list": _list,
    }
    return run[arguments.action](arguments)


# --- list -----------------------------------------------------------------------------------


def _list(arguments: Namespace) -> int:
    from clipsearch.encoders import embedded_space, known_models
    from clipsearch.encoders.registry import EMBEDDED
    from clipsearch.library import Library
    from clipsearch.library.choices import IN_USE, NEXT, held_models
    from clipsearch.library.fill_state import read_fill_state

    path = resolve(vars(arguments)).library
    if (path / "library.db").exists():
        with Library.open(path) as library:
            held = held_models(library)
            state = read_fill_state(library.path)
        if held and not arguments.json:
            show(f"In {path}:")
        for model in held:
            fill = state if model.state == NEXT else None
            used = unmarked(model.address)[0] == EMBEDDED and model.state == IN_USE
            outdated = used and model.space != embedded_space().id
            if arguments.json:
                told = {**asdict(model), "fill": asdict(fill) if fill else None}
                print_json({"kind": "held", **told, "outdated": outdated})
            else:
                show(held_line(model, fill))
                if outdated:
                    show(f"          a newer one ships with clipsearch: models use {EMBEDDED}")
        if held and not arguments.json:
            show("")
            show("Models there are:")
    for entry in known_models(include_all=arguments.all):
        if arguments.json:
            print_json({"kind": "known", **asdict(entry)})
        else:
            here = "here" if entry.cached else ""
            show(f"{entry.tier:<9} {entry.address:<44} {here:<5} {entry.note}")
    return errors.DONE


# --- use and back ---------------------------------------------------------------------------


def _use(arguments: Namespace) -> int:
    from clipsearch.encoders import resolve_address
    from clipsearch.library import Library
    from clipsearch.own_models import known_model

    base = resolve(vars(arguments))
    if (base.library / "library.db").exists():
        with Library.open(base.library) as library:
            known = known_model(library, arguments.address, say)
            base = resolve(vars(arguments), library.settings())
    else:
        known = None
    address = (
        known.address
        if known is not None
        else resolve_address(arguments.address, settings=base, notify=say)
    )
    with Library.open(base.library, create=True) as library:
        if arguments.background:
            return _begin(library, address, arguments)
        return _change(library, address, None, arguments)


def _begin(library: Library, address: str, arguments: Namespace) -> int:
    from indexer.background import start_change

    if arguments.dry_run:
        raise UsageError(reason="--dry-run changes nothing, so there is nothing to do behind")
    flags = [
        f"--{name.replace('_', '-')}"
        for name in ("as_new", "leave_unreadable", "no_tags", "gentle")
        if getattr(arguments, name)
    ]
    if arguments.offline is not None:
        flags.append("--offline" if arguments.offline else "--no-offline")
    for name in ("runtime", "device", "precision", "threads", "batch_size"):
        if getattr(arguments, name) is not None:
            flags += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    process, log = start_change(library.path, address, flags)
    if arguments.json:
        print_json({"event": "started", "model": address, "process": process, "log": log})
    else:
        show(
            f"Filling {address} in the background, process {process}. Searches keep using the "
            f"present model until it is full.\nHow far it is: clipsearch models; what it says: "
            f"{log}; withdraw it: clipsearch models back"
        )
    return errors.DONE


def _back(arguments: Namespace) -> int:
    """Withdraws a change that is not complete, else changes to the space before."""
    from clipsearch.library import Library

    with Library.open(resolve(vars(arguments)).library) as library:
        spaces = {space.id: space for space in library.spaces()}
        active = library.active_space()
        coming = spaces.get(library.models.next() or "")
        if coming is not None and active is not None:
            with library.writer() as writer:
                writer.plan_switch(None)
            _tell(
                {"event": "withdrawn", "model": active.address, "withdrawn": coming.address},
                f"Withdrew the change to {coming.address}; searches stay with {active.address}. "
                f"Its {counted(coming.embedded, 'vector is', 'vectors are')} kept: go on with "
                "clipsearch models use, "
                "or free their space with clipsearch models drop",
                arguments,
            )
            return errors.DONE
        before = spaces.get(library.models.previous() or "")
        if before is None:
            raise ModelChangeError(
                reason="This library has used no other model whose vectors are still there"
            )
        return _change(library, before.address, before.space, arguments)


def _change(
    library: Library, address: str, space: EmbeddingSpace | None, arguments: Namespace
) -> int:
    from indexer.commands import interruptible
    from indexer.priority import lower_priority
    from indexer.progress import Progress
    from indexer.switching import change_model

    settings = resolve(vars(arguments), library.settings())
    if arguments.batch_size < 1:
        raise UsageError(reason=f"--batch-size must be at least 1, not {arguments.batch_size}")
    if arguments.gentle:
        lower_priority()
    shown = Progress(quiet=False, as_json=arguments.json)
    with interruptible(signal.SIGTERM) as stop:
        try:
            report = change_model(
                library,
                address,
                settings=settings,
                space=space,
                as_new=arguments.as_new,
                leave_unreadable=arguments.leave_unreadable,
                dry_run=arguments.dry_run,
                batch_size=arguments.batch_size,
                with_tags=not arguments.no_tags,
                progress=shown.show,
                on_estimate=lambda estimate: tell_estimate(estimate, address, arguments),
                notify=shown.say,
                should_stop=stop.is_wanted,
            )
        finally:
            shown.end()
    if arguments.dry_run:
        return errors.DONE
    return tell_change(report, library, arguments)


# --- drop and shrink ------------------------------------------------------------------------


def _drop(arguments: Namespace) -> int:
    from clipsearch.library import Library
    from clipsearch.library.lock import fill_holder
    from clipsearch.own_models import find_space
    from indexer.change_checks import size_on_disk

    with Library.open(resolve(vars(arguments)).library) as library:
        space = find_space(library, arguments.address)
        holder = fill_holder(library.path)
        if holder is not None and space.id == library.models.next():
            raise FillRunningError(path=library.path, holder=holder)
        before = size_on_disk(library.path)
        with library.writer() as writer:
            vectors = writer.drop_space(space.id)
        kept = _shrunk(library)
        freed = before - size_on_disk(library.path)
        _tell(
            {
                "event": "dropped",
                "model": space.address,
                "space": space.id,
                "vectors": vectors,
                "freed_bytes": freed,
                "bytes": before - freed,
                "not_shrunk": kept,
            },
            f"Dropped {counted(vectors, 'vector')} of {space.address}; the database went from "
            f"{shown_bytes(before)} to {shown_bytes(before - freed)}{kept and f': {kept}'}",
            arguments,
        )
    return errors.DONE


def _allow_network(arguments: Namespace) -> int:
    """Keeps in the library whether its commands may download weights."""
    from clipsearch.library import Library

    is_offline = arguments.action == "offline"
    with Library.open(resolve(vars(arguments)).library, create=True) as library:
        library.set_setting("offline", "yes" if is_offline else "no")
        _tell(
            {"event": arguments.action, "library": library.path, "offline": is_offline},
            f"{library.path} stays off the network from now on: no command downloads weights for "
            "it. Allow it again: clipsearch models online; once: --no-offline"
            if is_offline
            else f"{library.path} may download a model's weights, when you choose such a model",
            arguments,
        )
    return errors.DONE


def _shrink(arguments: Namespace) -> int:
    from clipsearch.library import Library
    from indexer.change_checks import size_on_disk

    with Library.open(resolve(vars(arguments)).library) as library:
        before = size_on_disk(library.path)
        library.shrink()
        after = size_on_disk(library.path)
        _tell(
            {"event": "shrunk", "freed_bytes": before - after, "bytes": after},
            f"The database went from {shown_bytes(before)} to {shown_bytes(after)}",
            arguments,
        )
    return errors.DONE


def _shrunk(library: Library) -> str:
    """Gives freed space back to the disk; what is to be said where that could not be done."""
    try:
        library.shrink()
    except LibraryError as error:
        return (
            "the space is free inside the database and will be used again, but could not be "
            f"given back to the disk ({error}). Later: clipsearch models shrink"
        )
    return ""


def _tell(record: dict[str, Any], line: str, arguments: Namespace) -> None:
    if arguments.json:
        print_json(record)
    else:
        show(line)


models = Command(_configure, _run)
