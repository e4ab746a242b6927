"""Changing a library's model: the new vectors are filled beside the old, then searches switch.

The old space answers all the while, and others may write: only a commit holds the library's lock,
for a moment. What they add meanwhile is filled, too, before the switch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from clipsearch.config import Settings
from clipsearch.counting import counted
from clipsearch.encoders import Encoder, model_parts
from clipsearch.errors import (
    ClipsearchError,
    LibraryLockedError,
    StorageError,
)
from clipsearch.index import open_index
from clipsearch.library import Batch, Library, LibraryWriter, SpaceRecord
from clipsearch.library.fill_state import FAILED, RUNNING, STOPPED, FillState, write_fill_state
from clipsearch.library.lock import fill_lock
from clipsearch.own_models import keep_model, keep_models, known_model
from clipsearch.sizes import shown_bytes
from clipsearch.tagging.run import tag_again
from clipsearch.vectors import EmbeddingSpace
from indexer.change_checks import Estimate, estimate_fill, tell_changed
from indexer.decoders import DecoderPool
from indexer.filling import Filler
from indexer.model import EncoderLoader, StandardLoader
from indexer.pipeline import DEFAULT_BATCH_SIZE, index_library
from indexer.reading import EncoderOnDemand, Job, Reader
from indexer.reading_ahead import ReadingAhead, backlog
from indexer.report import Failure, IndexReport

_TELL_EVERY_S = 1.0
_WAIT_S = 0.5
_SPARE_BYTES = 50_000_000  # that must stay free


@dataclass
class ChangeReport:
    """What a change did. ``switched`` says that searches use the model now."""

    model: str
    space: str
    embedded: int = 0
    lacking: int = 0  # pictures that are there and have no vector of the model
    left: list[Failure] = field(default_factory=list)  # why, as far as it is known
    switched: bool = False
    interrupted: bool = False
    withdrawn: bool = False  # another model was chosen meanwhile
    tagged: int = 0  # tags that the model gave, where one before had given some
    tags_failed: str = ""  # why the tags are still those of the model before
    seconds: float = 0.0

    def as_record(self) -> dict[str, Any]:
        """One flat JSON object; of what was left only the number."""
        told = {name: value for name, value in vars(self).items() if name != "left"}
        return {**told, "left": len(self.left), "seconds": round(self.seconds, 3)}


def change_model(
    library: Library,
    address: str,
    *,
    settings: Settings,
    space: EmbeddingSpace | None = None,
    as_new: bool = False,
    leave_unreadable: bool = False,
    dry_run: bool = False,
    with_tags: bool = True,
    batch_size: int = DEFAULT_BATCH_SIZE,
    loader: EncoderLoader | None = None,
    progress: Callable[[int, int], None] | None = None,
    on_estimate: Callable[[Estimate], None] | None = None,
    notify: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> ChangeReport:
    """Fills the space of a model and has searches use it once it is full.

    ``address`` is resolved already, or names a space of the library; with ``space`` the model has
    to be of exactly that space. What lies in a folder is copied into the library. ``as_new`` takes
    a model whose files have changed since it was used as another one, also where they should not.
    ``leave_unreadable`` switches also while some pictures cannot be read. ``dry_run`` loads the
    model, tells the estimate, and changes nothing. ``with_tags`` has the vocabularies that the
    library was tagged with tag anew by the model, after the switch. A fill that was stopped goes
    on where it was.
    Raises FillRunningError, ModelChangeError, SpaceMismatchError, StorageError, and what loading
    the model raises; what cannot be read is in the report.
    """
    settings = settings.of(library.path)
    if space is None and (known := known_model(library, address, notify)) is not None:
        address, space = known.address, known.space
    run = _Change(library, address, settings, loader or StandardLoader(settings, notify))
    run.progress = progress or run.progress
    run.on_estimate = on_estimate or run.on_estimate
    run.notify = notify or run.notify
    run.should_stop = should_stop or run.should_stop
    run.batch_size = batch_size
    if dry_run:
        return run.previewed(space, as_new=as_new)
    with fill_lock(library.path):
        started = time.monotonic()
        try:
            report = run.execute(space, as_new=as_new, leave_unreadable=leave_unreadable)
        except BaseException as error:
            run.tell(FAILED if isinstance(error, ClipsearchError) else STOPPED, error=str(error))
            raise
        if report.switched and with_tags:
            run.tag_again(report)
        if report.switched:
            write_fill_state(library.path, None)
        report.seconds = time.monotonic() - started
        return report


class _StoppedError(Exception):
    """The run is to stop while it waits for the library."""


class _Change:
    """The state of one change."""

    batch_size = DEFAULT_BATCH_SIZE

    def __init__(
        self, library: Library, address: str, settings: Settings, loader: EncoderLoader
    ) -> None:
        self.progress: Callable[[int, int], None] = lambda _done, _total: None
        self.on_estimate: Callable[[Estimate], None] = lambda _estimate: None
        self.notify: Callable[[str], None] = lambda _message: None
        self.should_stop: Callable[[], bool] = lambda: False
        self._library = library
        self._address = address
        self._settings = settings
        self._loader = loader
        self._state = FillState(address, RUNNING, "loading")
        self._told_at = 0.0
        self._done = self._total = 0
        self._space: SpaceRecord
        self._report: ChangeReport

    # --- the whole ----------------------------------------------------------------------------

    def previewed(self, space: EmbeddingSpace | None, *, as_new: bool) -> ChangeReport:
        encoder = self._load(space, as_new=as_new)
        lacking = len(self._library.models.lacking(encoder.space.id))
        self._check_disk(encoder.space.dim, lacking)
        return ChangeReport(self._address, encoder.space.id, lacking=lacking)

    def execute(
        self, space: EmbeddingSpace | None, *, as_new: bool, leave_unreadable: bool
    ) -> ChangeReport:
        self.tell(RUNNING)
        encoder = self._load(space, as_new=as_new)
        lacking = len(self._library.models.lacking(encoder.space.id))
        self._check_disk(encoder.space.dim, lacking)
        self._report = ChangeReport(self._address, encoder.space.id)
        try:
            self._plan(encoder)
            self._fill(encoder, leave_unreadable=leave_unreadable)
        except _StoppedError:
            self._report.interrupted = True
        if self._report.switched:
            with suppress(OSError):
                open_index(self._library, self._space)  # so that the first question need not
            self._loader.finish()
        else:
            self.tell(STOPPED)
        return self._report

    def tag_again(self, report: ChangeReport) -> None:
        """Tags anew by the model; what goes wrong is reported, the switch is done."""
        self._state = replace(self._state, doing="tagging")
        self.tell(RUNNING)
        advice = "make them anew with clipsearch tag"
        try:
            made = tag_again(
                self._library,
                settings=self._settings,
                notify=self.notify,
                should_stop=self.should_stop,
            )
        except ClipsearchError as error:
            report.tags_failed = f"{error} Then {advice}"
            return
        report.tagged = sum(one.tags for one in made)
        if self.should_stop():
            report.tags_failed = f"interrupted; {advice}"

    def tell(self, state: str, error: str | None = None) -> None:
        """Leaves word of how far it is, where ``clipsearch models`` and the page look."""
        self._state = replace(
            self._state,
            state=state,
            error=error,
            done=self._done,
            total=self._total,
            process=os.getpid(),
        )
        self._told_at = time.monotonic()
        write_fill_state(self._library.path, self._state)

    # --- before -------------------------------------------------------------------------------

    def _load(self, space: EmbeddingSpace | None, *, as_new: bool) -> Encoder:
        encoder = self._loader.load(self._address, space)
        if space is None:
            tell_changed(
                self._library,
                self._address,
                encoder.space,
                self._settings,
                self.notify,
                as_new=as_new,
            )
        return encoder

    def _check_disk(self, dim: int, lacking: int) -> None:
        estimate = estimate_fill(self._library, dim, lacking)
        self.on_estimate(estimate)
        needed = estimate.database_bytes + estimate.index_bytes
        if lacking and estimate.free_bytes < needed + _SPARE_BYTES:
            raise StorageError(
                path=self._library.path,
                reason=f"the vectors of {counted(lacking, 'picture')} take {shown_bytes(needed)}, "
                f"{shown_bytes(_SPARE_BYTES)} have to stay free, and "
                f"{shown_bytes(estimate.free_bytes)} are free",
                advice="free some space, or drop a model that you no longer need: "
                "clipsearch models drop ADDRESS",
            )

    def _plan(self, encoder: Encoder) -> None:
        with self._writing() as writer:
            keep_models(self._library, self.notify)
            keep_model(self._library, self._address, encoder.space)
            self._space = writer.add_space(
                encoder.space,
                address=self._address,
                runtime=encoder.runtime,
                precision=encoder.precision,
                parts=model_parts(self._address, self._settings, encoder.space),
            )
            self._address = self._report.model = self._space.address
            self._state = replace(self._state, address=self._address)
            self.tell(RUNNING)
            writer.plan_switch(None if self._space.active else self._space.id)

    # --- filling ------------------------------------------------------------------------------

    def _fill(self, encoder: Encoder, *, leave_unreadable: bool) -> None:
        """Rounds over what lacks a vector, because others may add to it, and then the switch."""
        unreadable: set[int] = set()
        looked_again = False
        while True:
            lacking = [
                item
                for item in self._library.models.lacking(self._space.id)
                if item not in unreadable
            ]
            if lacking:
                left = self._read(encoder, backlog(self._library, lacking))
                if self._report.interrupted or self._report.withdrawn:
                    return
                self._report.left += left
                still = set(self._library.models.lacking(self._space.id)) & set(lacking)
                if left and not looked_again:
                    looked_again = True
                    self._look_again(left)
                    self._report.left.clear()
                else:
                    unreadable |= still
                continue
            if self._switched(unreadable, leave_unreadable=leave_unreadable):
                return

    def _switched(self, unreadable: set[int], *, leave_unreadable: bool) -> bool:
        """Switches if nothing lacks a vector; False if there is something new to fill."""
        with self._writing() as writer:
            lacking = set(self._library.models.lacking(self._space.id))
            self._report.lacking = len(lacking)
            if lacking - unreadable:
                return False
            if self._is_withdrawn():
                self._report.withdrawn = True
            elif not lacking or leave_unreadable:
                writer.activate_space(self._space.id)
                self._report.switched = True
            return True

    def _read(self, encoder: Encoder, jobs: Sequence[Job]) -> list[Failure]:
        """Fills some files; returns what could not be read."""
        found = IndexReport()
        filler = Filler(self._commit, found, {}, (), self.batch_size, lambda _: None)
        filler.encode_with(encoder, self._space.id)
        on_demand = EncoderOnDemand()
        on_demand.provide(lambda: encoder)
        before, started = self._done, time.monotonic()
        self._total = before + len(jobs)
        self._state = replace(self._state, doing="filling")
        self.progress(before, self._total)
        threads = self._settings.thread_count
        with DecoderPool(threads, self._settings.max_pixels) as decoders:
            reader = Reader(self._library, on_demand, decoders, self._settings.max_pixels)
            reader.embedded = self._library.embedded_ids(self._space.id)
            ahead = ReadingAhead(
                reader,
                decoders,
                on_demand,
                load=lambda: encoder,
                threads=threads,
                batch_size=self.batch_size,
                should_stop=lambda: self._report.withdrawn or self.should_stop(),
            )
            for reading in ahead.readings(jobs):
                filler.take(reading)
                self._done += 1
                self.progress(self._done, self._total)
                self._tell_speed((self._done - before) / (time.monotonic() - started + 1e-6))
            self._report.interrupted = ahead.was_stopped and not self._report.withdrawn
            if not ahead.was_stopped:
                filler.encode()
            filler.commit()
        self._report.embedded += found.embedded
        return found.left

    def _tell_speed(self, images_per_s: float) -> None:
        if time.monotonic() - self._told_at >= _TELL_EVERY_S:
            self._state = replace(
                self._state,
                images_per_s=round(images_per_s, 2),
                seconds_left=round((self._total - self._done) / images_per_s, 1),
            )
            self.tell(RUNNING)

    def _look_again(self, left: Sequence[Failure]) -> None:
        """Has files that could not be read indexed anew, by the old model: some may be gone."""
        active = self._library.active_space()
        if active is None:
            return
        with suppress(ClipsearchError):  # the old model may be gone; then they are told of
            index_library(
                self._library,
                settings=replace(self._settings, model=active.address),
                only=[failure.path for failure in left],
                should_stop=self.should_stop,
            )

    # --- committing ---------------------------------------------------------------------------

    def _commit(self, batch: Batch) -> None:
        """Writes vectors, but not of what was forgotten since it was read."""
        if batch.vectors is None:
            return
        with self._writing() as writer:
            if self._is_withdrawn():
                self._report.withdrawn = True
            if all(space.id != self._space.id for space in self._library.spaces()):
                return
            space_id, hashes, matrix = batch.vectors
            known = self._library.item_by_hash(hashes)
            kept = [at for at, name in enumerate(hashes) if name in known]
            if kept:
                vectors = (space_id, [hashes[at] for at in kept], matrix[kept])
                writer.commit(Batch(vectors=vectors))

    def _is_withdrawn(self) -> bool:
        return not self._space.active and self._library.models.next() != self._space.id

    @contextmanager
    def _writing(self) -> Iterator[LibraryWriter]:
        """The library's writer; waits for others, who may be an index run of hours."""
        with ExitStack() as stack:
            doing = self._state.doing
            while True:
                try:
                    writer = stack.enter_context(self._library.writer())
                    break
                except LibraryLockedError as error:
                    if self._state.doing != "waiting":
                        self.notify(f"Waiting: {error}")
                        self._state = replace(self._state, doing="waiting")
                        self.tell(RUNNING)
                if self.should_stop():
                    raise _StoppedError
                time.sleep(_WAIT_S)
            self._state = replace(self._state, doing=doing)
            yield writer
