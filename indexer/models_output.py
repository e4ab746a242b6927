"""What the models command says: of a model that is held, and of how a change went."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING

from clipsearch import errors
from clipsearch.command import print_json, say, show
from clipsearch.counting import counted
from clipsearch.sizes import shown_bytes

if TYPE_CHECKING:
    from clipsearch.library import Library
    from clipsearch.library.choices import HeldModel
    from clipsearch.library.fill_state import FillState
    from indexer.change_checks import Estimate
    from indexer.switching import ChangeReport

_SHOWN = 5  # failures


def held_line(model: HeldModel, fill: FillState | None) -> str:
    """One space for people: what it is, how full, and how its fill goes."""
    whole = model.embedded + model.lacking
    full = counted(whole, "vector")
    if model.lacking:
        full = f"{model.embedded:,} of {full}"
    facts = f"{full}, {shown_bytes(model.bytes)}, id {model.space}"
    line = f"  {model.state:<7} {model.address:<44} {facts}"
    if model.state != "next":
        return line
    if fill is None or fill.state != "running":
        why = f": {fill.error}" if fill is not None and fill.error else ""
        return f"{line}\n          stopped{why}; go on: clipsearch models use {model.address}"
    speed = ""
    if fill.images_per_s and fill.seconds_left is not None:
        from indexer.report import duration

        speed = f", {fill.images_per_s:,.1f} images/s, {duration(fill.seconds_left)} left"
    return f"{line}\n          {fill.doing}{speed}, process {fill.process}"


def tell_estimate(estimate: Estimate, address: str, arguments: Namespace) -> None:
    if arguments.json:
        print_json({"event": "estimate", "model": address, **asdict(estimate)})
    elif estimate.pictures:
        say(
            f"{counted(estimate.pictures, 'picture lacks', 'pictures lack')} a vector of "
            f"{address}: about "
            f"{shown_bytes(estimate.database_bytes)} in the library and "
            f"{shown_bytes(estimate.index_bytes)} of search index; "
            f"{shown_bytes(estimate.free_bytes)} are free"
        )


def tell_change(report: ChangeReport, library: Library, arguments: Namespace) -> int:
    active = library.active_space()
    using = active.address if active is not None else None
    if arguments.json:
        print_json({"event": "summary", **report.as_record(), "using": using})
        if report.switched:
            return errors.DONE
    elif report.switched:
        made = counted(report.embedded, "vector was", "vectors were")
        show(f"{library.path} now uses {report.model}; {made} made")
        if not library.counts().items:
            say("It holds no pictures yet. Add some: clipsearch index FOLDER")
        if report.tags_failed:
            say(f"The tags are still those of the model before: {report.tags_failed}")
        return errors.DONE
    if report.interrupted:
        say(
            f"Interrupted; what is done is saved, and searches keep using {using}. "
            "Run the same command again to continue."
        )
        return errors.INTERRUPTED
    if report.withdrawn:
        say(f"Another model was chosen meanwhile: searches use {using}")
        return errors.ModelChangeError.exit_code
    for failure in report.left[:_SHOWN]:
        say(f"  {failure.path}: {failure.reason}")
    say(
        f"{counted(report.lacking, 'picture')} could not be read for {report.model}, so "
        "searches keep "
        f"using {using}. Make them readable and run the same command again, or switch without "
        f"them: clipsearch models use {report.model} --leave-unreadable"
    )
    return errors.SOME_FILES_SKIPPED
