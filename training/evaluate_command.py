"""The command that measures models on captions and labels: evaluate."""

from __future__ import annotations

import shlex
import sys
import time
from argparse import ArgumentParser, Namespace
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from clipsearch import errors
from clipsearch.command import (
    Command,
    add_json_argument,
    add_library_argument,
    print_json,
    say,
    show,
)
from clipsearch.config import Settings, resolve
from clipsearch.counting import counted
from clipsearch.errors import LibraryNotFoundError, StorageError, UsageError
from clipsearch.user_paths import expand_user
from training.evaluating import PARTS, USUAL

if TYPE_CHECKING:
    from clipsearch.library import Library
    from training.evaluating.dataset import Dataset
    from training.evaluating.measuring import ModelReport
    from training.evaluating.recommending import Recommendation

_LINE_EVERY_S = 5.0


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        action="append",
        metavar="ADDRESS",
        help="what to measure; several to compare them (default: the library's model, "
        "else embedded)",
    )
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="a folder with one folder a class; .csv with path,caption or path,label; .parquet; "
        "or NAME:FOLDER as in torchvision (default: the library's captions and tags)",
    )
    add_library_argument(parser)
    parser.add_argument(
        "--only",
        metavar="COLUMN=VALUE",
        help="of a table, the rows with this value, as kind=label",
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="at most N pictures, a sample (default: all)"
    )
    parser.add_argument(
        "--parts",
        default=",".join(USUAL),
        metavar="LIST",
        help=f"what to measure, of {', '.join(PARTS)}, or all (default %(default)s)",
    )
    parser.add_argument(
        "--train",
        metavar="PATH",
        help="labelled pictures for probes to learn from, as --data (default: half of those)",
    )
    parser.add_argument(
        "--templates",
        default="imagenet",
        metavar="DOMAIN|FILE",
        help="sentences for classes: a domain of 'tag', or a text file (default: CLIP's 80)",
    )
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="also write a page with tables and plots"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an HTML file that is there"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of samples (default 0)")
    parser.add_argument("--threads", type=int, metavar="N", help="default: as many as cores")
    parser.add_argument("--runtime", choices=["auto", "torch", "compiled"], help="default: auto")
    add_json_argument(parser)


def _run(arguments: Namespace) -> int:
    parts = _parts(arguments.parts)
    only = _only(arguments.only)
    if arguments.limit is not None and arguments.limit < 2:
        raise UsageError(reason=f"--limit must be at least 2, not {arguments.limit}")
    to = _page(arguments)
    flags = {**vars(arguments), "model": None}
    settings = resolve(flags)
    from clipsearch.tagging.templates import read_templates
    from training.evaluating.measuring import Plan, measure_models
    from training.evaluating.recommending import recommend
    from training.evaluating.sources import read_dataset
    from training.evaluating.tables import lines_of

    plan = Plan(
        parts=parts,
        templates=read_templates(arguments.templates),
        train=read_dataset(arguments.train, only) if arguments.train else None,
        seed=arguments.seed,
    )
    dataset, settings, own_model = _data(arguments, only, settings, flags)
    dataset = dataset.sample(arguments.limit, arguments.seed).telling()
    models = list(dict.fromkeys(arguments.model or [own_model]))
    progress = _Progress()
    dataset, measured = measure_models(
        models, dataset, plan, settings=settings, tell=say, show=progress.show
    )
    reports = [one.report for one in measured]
    advice = recommend(measured) if len(measured) > 1 else None
    if to is not None:
        _write(reports, advice, dataset, to)
    if arguments.json:
        for report in reports:
            print_json({"data": dataset.name, "notes": dataset.notes, **asdict(report)})
        if advice is not None:
            print_json({"recommendation": asdict(advice)})
        return errors.DONE
    show(f"Measured on {dataset.name}: {counted(len(dataset.pictures), 'picture')}")
    for note in dataset.notes:
        show(f"  {note}")
    print()
    for line in "\n".join(lines_of(reports, advice)).rstrip().split("\n"):
        show(line)
    return errors.DONE


def _page(arguments: Namespace) -> Path | None:
    """Where the page goes: checked before minutes of work, not after."""
    if arguments.html is None:
        return None
    to: Path = expand_user(arguments.html).absolute()
    if to.suffix.lower() not in (".html", ".htm"):
        raise UsageError(reason=f"--html takes an .html file, not {to}")
    if to.exists() and not arguments.overwrite:
        raise UsageError(reason=f"{to} is there already: add --overwrite, or name another")
    if not to.parent.is_dir():
        raise UsageError(reason=f"There is no folder {to.parent} to write {to.name} into")
    return to


def _write(
    reports: list[ModelReport], advice: Recommendation | None, dataset: Dataset, to: Path
) -> None:
    from training.evaluating.page import write_page

    try:
        write_page(reports, advice, dataset, to, shlex.join(["clipsearch", *sys.argv[1:]]))
    except OSError as error:
        raise StorageError(
            path=to, reason=error.strerror or error, advice="choose another place"
        ) from error
    say(f"Wrote {to}")


def _parts(given: str) -> tuple[str, ...]:
    wanted = [part.strip() for part in given.split(",") if part.strip()]
    if wanted == ["all"]:
        return PARTS
    unknown = [part for part in wanted if part not in PARTS]
    if unknown or not wanted:
        raise UsageError(
            reason=f"--parts takes {', '.join(PARTS)} or all, not '{', '.join(unknown) or given}'"
        )
    return tuple(wanted)


def _only(given: str | None) -> tuple[str, str] | None:
    if given is None:
        return None
    column, sign, value = given.partition("=")
    if not sign or not column:
        raise UsageError(reason=f"--only takes COLUMN=VALUE, as kind=label, not '{given}'")
    return column.strip(), value.strip()


def _data(
    arguments: Namespace, only: tuple[str, str] | None, settings: Settings, flags: dict[str, object]
) -> tuple[Dataset, Settings, str]:
    """The pictures, the settings, and the model to measure where none is named."""
    from clipsearch.library import Library
    from training.evaluating.sources import read_dataset, read_library

    if arguments.data is not None:
        dataset = read_dataset(arguments.data, only)
        with suppress(LibraryNotFoundError), Library.open(settings.library) as library:
            return dataset, resolve(flags, library.settings()), _named(library)
        return dataset, settings, "embedded"
    if only is not None:
        raise UsageError(reason="--only picks rows of a table: name one with --data")
    with Library.open(settings.library) as library:
        settings = resolve(flags, library.settings())
        return read_library(library), settings, _named(library)


def _named(library: Library) -> str:
    active = library.active_space()
    return active.address if active is not None else "embedded"


class _Progress:
    """What is being encoded, on stderr."""

    def __init__(self) -> None:
        self._shown_at = 0.0

    def show(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        is_last = done == total
        if not sys.stderr.isatty():
            if now - self._shown_at >= _LINE_EVERY_S and not is_last:
                say(f"  {what} {done:,} of {total:,}")
                self._shown_at = now
            return
        if now - self._shown_at >= 0.2 or is_last:
            self._shown_at = now
            sys.stderr.write(f"\r  {what} {done:,} of {total:,}\x1b[K" + ("\n" if is_last else ""))
            sys.stderr.flush()


evaluate = Command(_configure, _run)
