"""Keeping a library current: events are hints, the scan is the truth, trouble is waited out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clipsearch.album_files import refresh_exports
from clipsearch.config import DEFAULT_SIDECAR_TEXT, Settings
from clipsearch.errors import ClipsearchError, LibraryLockedError
from clipsearch.library import Library
from indexer.changes import plan_changes
from indexer.dirty import DirtyPlaces, Work
from indexer.kept_model import KeptLoader
from indexer.pipeline import index_library
from indexer.priority import on_battery
from indexer.report import IndexReport
from indexer.scan import scan
from indexer.watched_roots import Notice, WatchedRoots

_LOOK_S = 5.0  # between looks at the library's roots and whether they are there
_TICK_S = 0.5  # between steps, also when nothing happens: how soon a wish to stop is met
_BATTERY_LOOK_S = 10.0
_LOCK_RETRY_S = (1.0, 30.0)  # first and longest wait
_ERROR_RETRY_S = (5.0, 600.0)


@dataclass(frozen=True)
class WatchOptions:
    """How to watch. ``poll_s`` polls everywhere, that often; ``gentle`` pauses on battery."""

    quiet_s: float = 2.0
    poll_s: float | None = None
    rescan_s: float = 6 * 3600.0
    gentle: bool = False


class Backoff:
    """Waits that double from the first to the longest, and begin anew after a success."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s, self._longest_s = first_s, longest_s
        self._next_s = first_s

    def next_s(self) -> float:
        """The wait after one more failure."""
        wait_s, self._next_s = self._next_s, min(2 * self._next_s, self._longest_s)
        return wait_s

    def reset(self) -> None:
        self._next_s = self._first_s


class Watcher:
    """Looks again at what changed below the roots of a library, for as long as it is let.

    ``settings_of`` gives the settings that hold for a library now; ``tell`` hears notices. Nothing
    but KeyboardInterrupt leaves ``run``: trouble is told once and tried again ever later.
    """

    def __init__(
        self,
        library: Path,
        *,
        settings_of: Callable[[Library], Settings],
        tell: Callable[[Notice], None],
        options: WatchOptions | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = library
        self._settings_of = settings_of
        self._tell = tell
        self._options = options or WatchOptions()
        self._should_stop = should_stop
        self._clock = clock
        self._library: Library | None = None
        self._library_inode = 0
        self._loader: KeptLoader | None = None
        self._model: str | None = None
        self._sidecar_text: str | None = None
        self._notes: list[str] = []
        self._albums_are_of = ""  # the library's state
        self._trouble = ""  # told and not over
        self._backoff = Backoff(*_ERROR_RETRY_S)
        self._lock_backoff = Backoff(*_LOCK_RETRY_S)
        self._look_at = self._retry_at = self._battery_look_at = clock()
        self._rescan_at = clock() + self._options.rescan_s
        self._is_on_battery = False
        self.dirty = DirtyPlaces(quiet_s=self._options.quiet_s, clock=clock)
        self.roots = WatchedRoots(
            library, self.dirty, tell=tell, poll_s=self._options.poll_s, clock=clock
        )

    def run(self) -> None:
        """Watches until ``should_stop``; returns after the batch in hand."""
        try:
            self.start()
            while not self._should_stop():
                self.step()
                time.sleep(min(_TICK_S, self._options.quiet_s))
        finally:
            self.close()

    def start(self) -> None:
        """Observes the roots, and asks for a first look at everything."""
        self._attempt(self._follow_library)
        folders = [str(root) for root in self.roots.paths]
        hint = "" if folders else "; add one with: clipsearch index FOLDER"
        count = f"{len(folders)} folder{'' if len(folders) == 1 else 's'}"
        self._say("watching", f"Watching {count}{hint}", folders=folders)
        self.dirty.touch_everything(at_once=True)

    def step(self) -> None:
        """Does what is due now, at most one run."""
        now = self._clock()
        self.roots.answer_losses()
        if now >= self._rescan_at:
            self._rescan_at = now + self._options.rescan_s
            self.roots.observe_again()
            self.dirty.touch_everything(at_once=True)
        if now >= self._retry_at and not self._is_paused():
            self._attempt(self._follow_and_look)
        if self._loader is not None:
            self._loader.release_if_idle()

    def close(self) -> None:
        """Ends the events and lets the library go."""
        self.roots.stop()
        self._close_library()

    # --- looking ------------------------------------------------------------------------------

    def _follow_and_look(self) -> None:
        if self._clock() >= self._look_at:
            self._follow_library()
        self._poll()
        work = self.dirty.due()
        if work is not None:
            self._look_again(work)

    def _follow_library(self) -> None:
        """Notices the roots and the model that other processes gave the library."""
        self._look_at = self._clock() + _LOOK_S
        library = self._opened()
        self.roots.follow(root.path for root in library.roots())
        model = library.settings().get("model")
        if self._model not in (None, model):
            self.dirty.touch_everything()  # fills the vectors of the new model
        self._model = model
        text = library.settings().get("sidecar_text", DEFAULT_SIDECAR_TEXT)
        if self._sidecar_text not in (None, text):
            self.dirty.touch_everything()  # reads the texts beside pictures again
        self._sidecar_text = text

    def _poll(self) -> None:
        """Stands in for events: what differs from the library, by names, sizes and times."""
        due = {watched.path: watched for watched in self.roots.to_poll()}
        if not due:
            return
        library = self._opened()
        text = library.settings().get("sidecar_text", DEFAULT_SIDECAR_TEXT)
        for root in library.roots():
            if root.path in due:
                started = self._clock()
                found = scan(root.path, sidecar_text=text)
                plan = plan_changes(root.id, found, library.files(root.id))
                differing = [file.relpath for file in plan.read]
                differing += [record.relpath for record in plan.gone]
                for relpath in differing:
                    self.dirty.see_file(str(root.path / relpath))
                self.roots.polled(due[root.path], self._clock() - started)

    def _look_again(self, work: Work) -> None:
        try:
            library = self._opened()
            settings = self._settings_of(library)
            if self._loader is None:
                self._loader = KeptLoader(settings, self._note, clock=self._clock)
            self._loader.follow(settings)
            report = index_library(
                library,
                only=work.places,
                settings=settings,
                model_of=lambda: self._settings_of(library).model,
                loader=self._loader,
                notify=self._note,
                should_stop=self._must_pause,
            )
            self._model = library.settings().get("model")
        except BaseException:
            self.dirty.put_back(work)
            raise
        if report.interrupted:
            self.dirty.put_back(work)
        else:
            self.dirty.finish(work, [failure.path for failure in report.left])
            if work.everything:
                self._rescan_at = self._clock() + self._options.rescan_s
                self.roots.everything_was_seen()
        self._recover()
        self._tell_run(work, report)
        self._refresh_albums(library, settings)

    def _tell_run(self, work: Work, report: IndexReport) -> None:
        for failure in report.failures:
            self._say("failure", "", path=failure.path, failure=failure.reason)
        for note in report.notes:
            if note not in self._notes:  # an unplugged disk would be told of at every run
                self._note(note)
        self._notes = report.notes
        changes = report.added + report.changed + report.moved + report.copied + report.gone
        line = report.summary() if changes or report.failures or work.everything else ""
        places = None if work.places is None else len(work.places)
        self._say("run", line, everything=work.everything, places=places, **report.as_record())

    def _refresh_albums(self, library: Library, settings: Settings) -> None:
        """Brings folders of links and playlists up to date, if something was committed."""
        state = library.state
        if state == self._albums_are_of:
            return
        self._albums_are_of = state
        for written in refresh_exports(library, settings=settings, notify=self._note):
            if written.added or written.removed:
                line = f"{written.destination}: {written.added} added, {written.removed} removed"
                self._say("album", line, **asdict(written))

    # --- trouble ------------------------------------------------------------------------------

    def _attempt(self, act: Callable[[], None]) -> None:
        """Runs a part of the work; what goes wrong is told once and tried again later."""
        try:
            act()
        except LibraryLockedError as error:
            self._postpone(self._lock_backoff, "waiting", "Waiting", error)
        except (ClipsearchError, OSError, MemoryError) as error:
            self._postpone(self._backoff, "error", "Trying again later", error)
        except Exception as error:  # a bug in one run must not end days of watching
            self._postpone(self._backoff, "error", "A bug in clipsearch; trying again later", error)
        else:
            if not len(self.dirty):  # what failed and was put back was done meanwhile
                self._recover()

    def _postpone(self, backoff: Backoff, event: str, what: str, error: Exception) -> None:
        wait_s = backoff.next_s()
        self._retry_at = self._clock() + wait_s
        reason = str(error)
        if not isinstance(error, ClipsearchError):
            reason = f"{type(error).__name__}: {error}"
        if reason != self._trouble:
            self._trouble = reason
            self._say(event, f"{what}: {reason}", error=reason, retry_in_s=wait_s)

    def _recover(self) -> None:
        if self._trouble:
            self._trouble = ""
            self._backoff.reset()
            self._lock_backoff.reset()
            self._say("recovered", "Working again")

    def _is_paused(self) -> bool:
        """Whether to wait for mains; looks at most every few seconds."""
        now = self._clock()
        if self._options.gentle and now >= self._battery_look_at:
            self._battery_look_at = now + _BATTERY_LOOK_S
            before, self._is_on_battery = self._is_on_battery, bool(on_battery())
            if before != self._is_on_battery:
                line = "Pausing: on battery" if self._is_on_battery else "Going on: on mains"
                self._say("battery", line, on_battery=self._is_on_battery)
        return self._is_on_battery

    def _must_pause(self) -> bool:
        return self._should_stop() or self._is_paused()

    # --- plumbing -----------------------------------------------------------------------------

    def _opened(self) -> Library:
        """The library, opened again when it was replaced, such as by a backup."""
        try:
            inode = (self._path / "library.db").stat().st_ino
        except OSError:
            inode = 0
        if self._library is not None and inode != self._library_inode:
            self._close_library()
        if self._library is None:
            self._library = Library.open(self._path)
            self._library_inode = inode
        return self._library

    def _close_library(self) -> None:
        library, self._library = self._library, None
        if library is not None:
            library.close()

    def _note(self, message: str) -> None:
        self._say("note", message, message=message)

    def _say(self, event: str, line: str, **facts: Any) -> None:
        self._tell(Notice(event, line, facts))
