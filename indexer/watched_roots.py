"""The folders of a library as they are watched: by events where those arrive, else by polling."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clipsearch.images import EXTENSIONS, VIDEO_EXTENSIONS
from indexer.dirty import DirtyPlaces
from indexer.ignore import is_left_out
from indexer.mounts import silent_mount
from indexer.report import duration
from indexer.scan import speaks_of_its_folder
from indexer.sidecar_names import may_be_sidecar
from indexer.watch import Change, FolderEvents, Refusal

POLL_S = 300.0  # where events do not arrive
_POLL_SHARE = 20  # a poll that took a second is repeated after 20 s at the earliest
_ENDINGS = EXTENSIONS | VIDEO_EXTENSIONS


@dataclass(frozen=True)
class Notice:
    """Something to tell: a line for people, empty if none is worth it, and facts for programs."""

    event: str
    line: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class WatchedRoot:
    """A root as it is watched."""

    path: Path
    identity: tuple[int, int] | None = None  # device and inode; None while it is not there
    was_there: bool = False
    poll_because: str | None = None  # None: events arrive
    poll_at: float = 0.0


class WatchedRoots:
    """Observes roots, and makes places dirty as signs of change arrive.

    What lies below ``library``, what is left out by its name, and files that are neither pictures,
    videos nor sidecars are passed over. ``poll_s`` polls all roots, that often. Only ``follow`` and
    what follows it tell notices; they belong to one thread.
    """

    def __init__(
        self,
        library: Path,
        dirty: DirtyPlaces,
        *,
        tell: Callable[[Notice], None],
        poll_s: float | None,
        clock: Callable[[], float],
    ) -> None:
        self._library = library
        self._dirty = dirty
        self._tell = tell
        self._poll_s = poll_s
        self._clock = clock
        self._roots: dict[Path, WatchedRoot] = {}
        self._limited: list[tuple[str, Refusal]] = []
        self._lost = self._told_loss = False
        self._events = FolderEvents(
            on_change=self._note_change, on_loss=self._note_loss, on_limit=self._note_limit
        )

    @property
    def paths(self) -> list[Path]:
        """The roots, those that are not there now, too."""
        return list(self._roots)

    def stop(self) -> None:
        """Ends all events."""
        self._events.stop()

    # --- signs of change, in the threads of the events ----------------------------------------

    def _note_change(self, change: Change) -> None:
        path = Path(change.path)
        root = next((root for root in self.paths if path.is_relative_to(root)), None)
        if root is None or path.is_relative_to(self._library):
            return  # the library's own folder changes with every run
        *folders, name = path.relative_to(root).parts or (root.name,)
        if any(is_left_out(folder) for folder in folders):
            return
        if speaks_of_its_folder(name):
            self._dirty.touch_folder(str(path.parent))
        elif change.is_folder:
            if path == root or not is_left_out(name):
                self._dirty.touch_folder(change.path)
        elif path.suffix.lower() in _ENDINGS or may_be_sidecar(name):
            if not name.startswith("."):
                self._dirty.touch_file(change.path)
        elif sys.platform == "win32" and not path.exists():
            self._dirty.touch_folder(change.path)  # Windows does not say that it was a folder

    def _note_loss(self) -> None:
        self._lost = True

    def _note_limit(self, path: str, refusal: Refusal) -> None:
        if not self._limited:  # one is enough to poll the root, and a limit is met a thousand times
            self._limited.append((path, refusal))

    # --- in the thread that watches -----------------------------------------------------------

    def follow(self, paths: Iterable[Path]) -> None:
        """Watches these roots and no others; notices those that went, came, or were replaced."""
        wanted = set(paths)
        for path in set(self._roots) - wanted:
            self._events.forget(path)
            del self._roots[path]
        for path in sorted(wanted - set(self._roots)):
            self._roots[path] = WatchedRoot(path)
        for root in self._roots.values():
            self._follow_root(root)

    def answer_losses(self) -> None:
        """Looks at everything after an overflow, and polls where a limit was reached."""
        if self._lost:
            self._lost = False
            if not self._told_loss:
                self._told_loss = True
                self._say("overflow", "Too many events at once: looking at all folders again")
            self._dirty.touch_everything()
        while self._limited:
            path, refusal = self._limited.pop()
            for root in self._roots.values():
                if Path(path).is_relative_to(root.path):
                    self._events.forget(root.path)
                    self._poll(root, refusal.reason, refusal.remedy)
                    self._dirty.touch_folder(str(root.path))

    def everything_was_seen(self) -> None:
        """The next overflow is worth telling again."""
        self._told_loss = False

    def observe_again(self) -> None:
        """Tries events where they could not be had: a limit may have been raised."""
        for root in self._roots.values():
            if root.poll_because is not None and root.identity is not None:
                self._observe(root)

    def to_poll(self) -> list[WatchedRoot]:
        """The roots that are there, have no events and are due."""
        now = self._clock()
        return [
            root
            for root in self._roots.values()
            if root.poll_because is not None and root.identity is not None and now >= root.poll_at
        ]

    def polled(self, root: WatchedRoot, took_s: float) -> None:
        """Sets when to poll next: rarely enough to leave a slow drive in peace."""
        wait_s = max(self._poll_s or POLL_S, _POLL_SHARE * took_s)
        root.poll_at = self._clock() + wait_s

    def _follow_root(self, root: WatchedRoot) -> None:
        identity = _identity(root.path)
        lost_events = root.poll_because is None and not self._events.is_observed(root.path)
        if identity == root.identity and not (identity and lost_events):
            return
        was_there, root.identity = root.identity is not None, identity
        self._events.forget(root.path)
        if identity is None:
            if was_there:
                line = f"{root.path} is not there any more; what it held stays in the library"
                self._say("gone", line, folder=root.path)
            return
        if root.was_there and not was_there:
            self._say("back", f"{root.path} is back", folder=root.path)
        root.was_there = True
        self._observe(root)
        self._dirty.touch_folder(str(root.path))  # what happened before it was observed

    def _observe(self, root: WatchedRoot) -> None:
        silent = silent_mount(root.path)
        if self._poll_s is not None:
            self._poll(root, "as asked")
        elif silent is not None:
            self._poll(root, f"no events arrive from {silent}")
        else:
            refusal = self._events.observe(root.path)
            if refusal is not None:
                self._poll(root, refusal.reason, refusal.remedy)
            elif root.poll_because is not None:
                root.poll_because = None
                self._say("watching", f"Watching {root.path} by events", folders=[root.path])

    def _poll(self, root: WatchedRoot, reason: str, remedy: str = "") -> None:
        every_s = self._poll_s or POLL_S
        root.poll_at = self._clock() + every_s
        if root.poll_because != reason:
            root.poll_because = reason
            line = f"{root.path} is looked at every {duration(every_s)}: {reason}"
            line += f"; {remedy}" if remedy else ""
            facts = {"folder": root.path, "every_s": every_s, "reason": reason, "remedy": remedy}
            self._say("limit" if remedy else "polling", line, **facts)

    def _say(self, event: str, line: str, **facts: Any) -> None:
        self._tell(Notice(event, line, facts))


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
