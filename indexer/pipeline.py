"""Indexing from end to end: scan, plan, read, encode, commit, switch the model when full."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from clipsearch.config import DEFAULT_MAX_PIXELS, DEFAULT_SIDECAR_TEXT, Settings
from clipsearch.counting import counted
from clipsearch.encoders import Encoder, model_parts
from clipsearch.hashing import hash_file
from clipsearch.library import (
    Batch,
    FileState,
    Library,
    LibraryWriter,
    RootRecord,
    SpaceRecord,
)
from clipsearch.own_models import keep_model, keep_models, told_change
from indexer.changes import NOT_READ_MTIME_NS, Plan, plan_changes, same_contents
from indexer.decoders import DecoderPool
from indexer.filling import Filler
from indexer.likeness import Likeness
from indexer.model import EncoderLoader, StandardLoader, Target, choose_target
from indexer.reading import EncoderOnDemand, Job, Reader, Reading
from indexer.reading_ahead import ReadingAhead, backlog
from indexer.report import Failure, IndexReport, tell_carried
from indexer.scan import FoundFile, scan

DEFAULT_BATCH_SIZE = 32
_RETRIED_WITH = "failures_tried_with_max_pixels"


def index_library(
    library: Library,
    roots: Sequence[Path] = (),
    *,
    settings: Settings,
    only: Sequence[Path] | None = None,
    verify_model: bool = False,
    model_of: Callable[[], str] | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    loader: EncoderLoader | None = None,
    progress: Callable[[int, int], None] | None = None,
    on_failure: Callable[[Failure], None] | None = None,
    notify: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> IndexReport:
    """Brings the library up to date with some folders, or with all it knows.

    ``only`` are files and folders below known roots: nothing else is looked at again.
    ``settings.model`` names the model; ``verify_model`` says that it was asked for by name, so it
    is loaded even if nothing is new. ``model_of`` gives the name once nobody else writes: the
    library may have changed its model since the settings were made. ``progress`` hears (done,
    total) in files to read, ``on_failure`` each file that this run is the first to find
    unreadable. When ``should_stop`` becomes true, what is encoded is committed and the rest left
    for the next run.
    Raises LibraryLockedError, StorageError and what loading the model raises; unreadable files
    are in the report.
    """
    started = time.monotonic()
    settings = settings.of(library.path)
    loader = loader or StandardLoader(settings, notify)
    with library.writer() as writer:
        if model_of is not None:
            settings = replace(settings, model=model_of())
        keep_models(library, notify)
        run = _Run(library, writer, settings, loader)
        run.notify = notify or run.notify
        run.batch_size = batch_size
        run.progress = progress or run.progress
        run.on_failure = on_failure or run.on_failure
        run.should_stop = should_stop or run.should_stop
        target = choose_target(library, settings, verify=verify_model, notify=notify)
        run.only = only
        report = run.execute(roots, target)
    if not report.interrupted:
        loader.finish()
    active = library.active_space()
    report.model = active.address if active else None
    report.seconds = time.monotonic() - started
    return report


class _Run:
    """The state of one run."""

    batch_size = DEFAULT_BATCH_SIZE

    def __init__(
        self, library: Library, writer: LibraryWriter, settings: Settings, loader: EncoderLoader
    ) -> None:
        self.progress: Callable[[int, int], None] = lambda _done, _total: None
        self.notify: Callable[[str], None] = lambda _message: None
        self.only: Sequence[Path] | None = None
        self.on_failure: Callable[[Failure], None] = lambda _failure: None
        self.should_stop: Callable[[], bool] = lambda: False
        self._library = library
        self._writer = writer
        self._settings = settings
        self._loader = loader
        self._report = IndexReport()
        self._doubted: set[int] = set()
        self._space: SpaceRecord | None = None
        self._on_demand = EncoderOnDemand()

    def execute(self, roots: Sequence[Path], target: Target) -> IndexReport:
        self._remember_settings()
        self._doubted = self._library.unproved_live_photos()
        chosen = self._roots(roots)
        plans = [self._plan(root) for root in chosen]
        self._note_inodes(plans)
        self._writer.date_all_by_names()
        carried_before = self._library.carryings.last()
        new = [
            Job(root.path / file.relpath, root.id, file, describe=_has_words(file, plan))
            for root, plan in zip(chosen, plans, strict=True)
            for file in plan.read
        ]
        with DecoderPool(self._settings.thread_count, self._settings.max_pixels) as decoders:
            self._decoders = decoders
            self._read_all(new, plans, target)
        if not self._report.interrupted:
            self._finish(chosen, plans)
        tell_carried(self._report, self._library.carryings.all(after=carried_before))
        return self._report

    def _read_all(self, new: Sequence[Job], plans: Sequence[Plan], target: Target) -> None:
        limit = self._settings.max_pixels
        self._reader = Reader(self._library, self._on_demand, self._decoders, limit)
        self._reader.doubted = self._doubted
        self._filler = self._make_filler(plans)
        self._target = target
        if target.space is not None:
            self._fill(target.space)
        elif len(self._library.present_items()):
            # Only the model itself can say whether the items have its vectors.
            self._on_demand.provide(self._load)
        self._read([*new, *self._backlog()])

    # --- before reading ---------------------------------------------------------------------

    def _remember_settings(self) -> None:
        """Keeps what the files have to be read with again, so that no later run reads otherwise."""
        wanted = self._settings.sidecar_text
        if self._library.settings().get("sidecar_text", DEFAULT_SIDECAR_TEXT) != wanted:
            self._library.set_setting("sidecar_text", wanted)

    def _roots(self, given: Sequence[Path]) -> list[RootRecord]:
        """The roots that cover the given folders, or all; each once."""
        if self.only is not None:
            return [root for root in self._library.roots() if _places(root.path, self.only)]
        if not given:
            return self._library.roots()
        for path in given:
            self._writer.add_root(path)
        # Asked again at the end: a parent absorbs the roots that lie in it.
        covering = (self._writer.add_root(path) for path in given)
        return list({root.id: root for root in covering}.values())

    def _plan(self, root: RootRecord) -> Plan:
        limit = self._settings.max_pixels
        tried = int(self._library.settings().get(_RETRIED_WITH, DEFAULT_MAX_PIXELS))
        known = self._library.files(root.id)
        places = None if self.only is None else _places(root.path, self.only)
        plan = plan_changes(
            root.id,
            scan(root.path, only=places, sidecar_text=self._settings.sidecar_text),
            known,
            retry_failures=limit > tried,
            doubted=self._doubted,
            same_contents=same_contents(self._library, root.path, hash_file),
        )
        self._report.unchanged += plan.unchanged
        self._report.known_failures += plan.known_failures
        self._report.notes += plan.notes
        return plan

    def _note_inodes(self, plans: Sequence[Plan]) -> None:
        """Records the numbers that a disk gave its files when it was mounted anew."""
        inodes = {file: inode for plan in plans for file, inode in plan.inodes.items()}
        if inodes:
            self._writer.commit(Batch(inodes=inodes))

    def _make_filler(self, plans: Sequence[Plan]) -> Filler:
        previous = {
            (plan.root_id, relpath): record
            for plan in plans
            for relpath, record in plan.previous.items()
        }
        sidecar_failures = {
            ((plan.root_id, relpath), name): reason
            for plan in plans
            for (relpath, name), reason in self._library.sidecar_failures(plan.root_id).items()
        }
        return Filler(
            self._writer.commit,
            self._report,
            previous,
            [record for plan in plans for record in plan.gone],
            self.batch_size,
            self.on_failure,
            sidecar_failures,
            Likeness(self._library),
            self._library.last_item(),
        )

    def _fill(self, space: SpaceRecord) -> None:
        """Sets the space to fill; the first one of a library is searched from its first batch."""
        self._space = space
        self._reader.embedded = self._library.embedded_ids(space.id)
        if self._library.active_space() is None:
            self._writer.activate_space(space.id)

    def _load(self) -> Encoder:
        """Loads the model, and learns from it which space is filled if that is not known."""
        known = self._space.space if self._space is not None else None
        address = self._target.address
        encoder = self._loader.load(address, known)
        if known is None:
            changed = told_change(self._library, address, encoder.space, self._settings)
            if changed is not None:
                self.notify(f"{changed} It is taken as a new model beside the old one")
        keep_model(self._library, address, encoder.space)
        space = self._writer.add_space(
            encoder.space,
            address=address,
            runtime=encoder.runtime,
            precision=encoder.precision,
            parts=model_parts(address, self._settings, encoder.space),
        )
        self._target = Target(space.address, space)
        if self._library.settings().get("model") != space.address:
            self._library.set_setting("model", space.address)
        if self._space is None:
            self._fill(space)
        self._filler.encode_with(encoder, space.id)
        return encoder

    def _backlog(self) -> list[Job]:
        """Items that have a file but no vector in the space to fill."""
        return backlog(self._library, self._lacking())

    def _lacking(self) -> list[int]:
        return [] if self._space is None else self._library.models.lacking(self._space.id)

    # --- reading ----------------------------------------------------------------------------

    def _read(self, jobs: Sequence[Job]) -> None:
        """Has all jobs read, a bounded number ahead, and takes the readings as they arrive."""
        done = 0
        self.progress(done, len(jobs))
        for reading in self._readings(jobs):
            self._filler.take(reading)
            done += 1
            self.progress(done, len(jobs))
        if not self._report.interrupted:
            self._filler.encode()
        self._filler.commit()

    def _readings(self, jobs: Sequence[Job]) -> Iterator[Reading]:
        ahead = ReadingAhead(
            self._reader,
            self._decoders,
            self._on_demand,
            load=self._load,
            threads=self._settings.thread_count,
            batch_size=self.batch_size,
            should_stop=self.should_stop,
        )
        yield from ahead.readings(jobs)
        self._report.interrupted = ahead.was_stopped

    # --- after reading ----------------------------------------------------------------------

    def _finish(self, roots: Sequence[RootRecord], plans: Sequence[Plan]) -> None:
        missing = [record.id for plan in plans for record in plan.gone]
        self._report.gone += sum(
            record.failure is None or record.item_id is not None
            for plan in plans
            for record in plan.gone
        )
        self._report.gone -= self._report.moved
        files = [
            row
            for root, plan in zip(roots, plans, strict=True)
            for row in self._unreadable_rows(root, plan)
        ]
        if missing or files:
            self._writer.commit(Batch(new_items=[], vectors=None, files=files, missing=missing))
        limit = self._settings.max_pixels
        if limit > int(self._library.settings().get(_RETRIED_WITH, DEFAULT_MAX_PIXELS)):
            self._library.set_setting(_RETRIED_WITH, str(limit))
        self._switch_if_full()

    def _unreadable_rows(self, root: RootRecord, plan: Plan) -> Iterator[FileState]:
        """Rows for folders and files that could not even be looked at, if they are new."""
        for found in plan.unreadable:
            record = plan.previous.get(found.relpath)
            known = record is not None and record.missing_since is None
            if known and record is not None and record.failure == found.reason:
                self._report.known_failures += 1
                continue
            self._report.failures.append(Failure(root.path / found.relpath, found.reason))
            self._report.unread += record is not None and record.item_id is not None
            yield FileState(
                root_id=root.id,
                relpath=found.relpath,
                size=0,
                mtime_ns=NOT_READ_MTIME_NS,
                inode=0,
                content_hash=None,
                failure=found.reason,
            )

    def _switch_if_full(self) -> None:
        active = self._library.active_space()
        if self._space is None or active is None or active.id == self._space.id:
            return
        lacking = len(self._lacking())
        if not lacking:
            self._writer.activate_space(self._space.id)
            self._report.notes.append(
                f"Searches now use {self._target.address}; the vectors of {active.address} are kept"
            )
            return
        self._report.notes.append(
            f"{counted(lacking, 'picture')} could not be read for {self._target.address}: "
            "searches keep "
            f"using {active.address}. Make the pictures readable and run clipsearch index again"
        )


def _has_words(file: FoundFile, plan: Plan) -> bool:
    """True if sidecars say something about a file, or may have when it was last read.

    The row of a file that could not be read since names those that were there then.
    """
    previous = plan.previous.get(file.relpath)
    if previous is None:
        return bool(file.sidecars)
    was_unread = previous.failure is not None and previous.item_id is not None
    return bool(file.sidecars or previous.sidecars or was_unread)


def _places(root: Path, only: Sequence[Path]) -> list[str]:
    """What of ``only`` lies in a root, as relative paths; a folder around it stands for all."""
    found = []
    for path in only:
        if path == root or path in root.parents:
            return ["."]
        if path.is_relative_to(root):
            found.append(path.relative_to(root).as_posix())
    return found
