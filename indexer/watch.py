"""File events of folders, by watchdog: the only place that knows it.

On Linux two things that watchdog keeps to itself are told: that the kernel dropped events, and
that its limit of watches was reached somewhere below a folder.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from watchdog.events import (
    DirAttribEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

# Opening and reading are left out: our own reading would be an event.
_EVENTS: list[type[FileSystemEvent]] = [
    DirAttribEvent,
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileAttribEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
]
_LIMITS = (errno.ENOSPC, errno.EMFILE)
_SYSCTLS = Path("/proc/sys/fs/inotify")
_MIN_WATCHES = 524_288
_MIN_INSTANCES = 1_024

# Without a handler of its own Python would print watchdog's warnings to stderr; all that matters
# is told by us.
logging.getLogger("watchdog").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Change:
    """A sign that something changed; ``path`` is absolute, and may be gone."""

    path: str
    is_folder: bool


@dataclass(frozen=True)
class Refusal:
    """Why a folder's events cannot be had; ``remedy`` is what a person can do, or empty."""

    reason: str
    remedy: str = ""


class FolderEvents:
    """Tells of changes below folders, from threads of its own.

    ``on_change`` hears signs of change, ``on_loss`` that events were lost anywhere, ``on_limit``
    that from now on the events of some folder below a path are missing. All three must be quick
    and must not call back.
    """

    def __init__(
        self,
        *,
        on_change: Callable[[Change], None],
        on_loss: Callable[[], None],
        on_limit: Callable[[str, Refusal], None],
    ) -> None:
        self._handler = _Handler(on_change)
        self._on_loss = on_loss
        self._on_limit = on_limit
        self._observer: BaseObserver | None = None
        self._watches: dict[Path, ObservedWatch] = {}
        self._limited: Refusal | None = None  # met while a folder was being observed
        self._is_observing = False

    def observe(self, folder: Path) -> Refusal | None:
        """Starts telling of changes below a folder; the reason if they cannot be had."""
        self._limited = None
        self._is_observing = True
        try:
            if self._observer is None:
                self._observer = self._started()
            self._watches[folder] = self._observer.schedule(
                self._handler, str(folder), recursive=True, event_filter=_EVENTS
            )
        except OSError as error:
            return self._limited or _refusal(error)
        finally:
            self._is_observing = False
        if self._limited is not None:  # a part is as good as nothing: leave the watches to others
            self.forget(folder)
        return self._limited

    def forget(self, folder: Path) -> None:
        """Stops telling of changes below a folder."""
        watch = self._watches.pop(folder, None)
        if watch is not None and self._observer is not None:
            self._observer.unschedule(watch)

    def is_observed(self, folder: Path) -> bool:
        """False also when the folder was deleted, which ends its events."""
        watch = self._watches.get(folder)
        if watch is None or self._observer is None:
            return False
        return any(
            emitter.watch == watch and emitter.should_keep_running()
            for emitter in list(self._observer.emitters)
        )

    def stop(self) -> None:
        """Ends all threads."""
        observer, self._observer = self._observer, None
        self._watches.clear()
        if observer is not None:
            observer.stop()
            observer.join(timeout=5)

    def _started(self) -> BaseObserver:
        if sys.platform == "linux":
            observer = _inotify_observer(self._on_loss, self._meet_limit)
        else:
            observer = Observer()
        observer.start()
        return observer

    def _meet_limit(self, path: str, error: OSError) -> None:
        refusal = _refusal(error)
        if self._is_observing:
            self._limited = refusal
        else:
            self._on_limit(path, refusal)


class _Handler(FileSystemEventHandler):
    """Makes signs of change of watchdog's events."""

    def __init__(self, on_change: Callable[[Change], None]) -> None:
        self._on_change = on_change

    def dispatch(self, event: FileSystemEvent) -> None:
        if event.is_synthetic:  # made up for what lies in a folder that is told of itself
            return
        for path in (event.src_path, event.dest_path):
            if path:
                self._on_change(Change(os.fsdecode(path), event.is_directory))


if sys.platform == "linux":
    from watchdog.observers.inotify import InotifyEmitter
    from watchdog.observers.inotify_c import (
        CallbackId,
        InotifyEvent,
        InotifyFD,
        Mask,
        WatchCallback,
        WatchDescriptor,
    )

    class _Inotify(InotifyFD):
        """watchdog's inotify, which tells of overflows and limits instead of only logging them."""

        def __init__(
            self, on_loss: Callable[[], None], on_limit: Callable[[str, OSError], None]
        ) -> None:
            super().__init__()
            self._on_loss = on_loss
            self._on_limit = on_limit

        def handle_event(self, event: InotifyEvent) -> None:
            super().handle_event(event)  # an overflow makes the watches anew: before the scan
            if event.is_queue_overflow:
                self._on_loss()

        def add_callback(
            self, path: bytes, mask: Mask, callback: WatchCallback, id_: CallbackId
        ) -> WatchDescriptor:
            try:
                return super().add_callback(path, mask, callback, id_)
            except OSError as error:  # the caller passes over it where path is below a root
                if error.errno in _LIMITS:
                    self._on_limit(os.fsdecode(path), error)
                raise

    class _InotifyObserver(BaseObserver):
        """watchdog's InotifyObserver on our inotify."""

        def __init__(self, inotify: _Inotify) -> None:
            self._inotify = inotify
            super().__init__(InotifyEmitter, inotify_fd=inotify)

        def on_thread_stop(self) -> None:
            super().on_thread_stop()
            self._inotify.stop()
            self._inotify.join()

    def _inotify_observer(
        on_loss: Callable[[], None], on_limit: Callable[[str, OSError], None]
    ) -> BaseObserver:
        inotify = _Inotify(on_loss, on_limit)
        inotify.start()
        return _InotifyObserver(inotify)


def _refusal(error: OSError) -> Refusal:
    if error.errno == errno.ENOSPC:
        wanted = max(_MIN_WATCHES, 2 * _limit("max_user_watches"))
        return Refusal(
            "the system's limit of watched folders is reached",
            f"raise it: sudo sysctl fs.inotify.max_user_watches={wanted}",
        )
    if error.errno == errno.EMFILE:
        wanted = max(_MIN_INSTANCES, 2 * _limit("max_user_instances"))
        return Refusal(
            "the system's limit of inotify instances, or this process's of open files, is reached",
            f"raise it: sudo sysctl fs.inotify.max_user_instances={wanted}",
        )
    return Refusal(error.strerror or str(error))


def _limit(name: str) -> int:
    try:
        return int((_SYSCTLS / name).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0
