"""What to look at again and when: places that changed, in bounded memory, once they are quiet."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_FILES = 20_000  # more than this, and their folders are remembered instead: about 6 MB
MAX_FOLDERS = 1_000  # more than this, and everything is looked at again
FOLDER_ABOVE = 1_000  # as many files of one folder are handed over as the folder
MAX_WAIT_S = 30.0  # under constant change what is settled is handed over at least this often
MAX_HOLD_S = 3600.0  # a file that never settles is handed over all the same
MAX_ATTEMPTS = 10  # at a file that keeps changing while it is read; then the rescan has to do
_FIRST_RETRY_S = 2.0
_LAST_RETRY_S = 300.0

Look = tuple[int, int, int] | None  # size, mtime in ns, inode; None where nothing is


@dataclass(slots=True)
class _File:
    look: Look
    since: float  # it looks like this, and had no event
    first: float
    not_before: float = 0.0


@dataclass(slots=True)
class _Folder:
    first: float
    last: float  # sign of a change
    is_crowded: bool = False  # stands for more files than could be remembered


@dataclass(frozen=True)
class Work:
    """What to look at now: everything, or some places; a folder means all that is below it."""

    everything: bool = False
    files: tuple[Path, ...] = ()
    folders: tuple[Path, ...] = ()

    @property
    def places(self) -> list[Path] | None:
        """The files and folders, none of them below another; None for everything."""
        return None if self.everything else [*self.folders, *self.files]


class DirtyPlaces:
    """Collects signs of change from any thread; ``due`` hands over what is settled.

    A batch is due when nothing new was added for ``quiet_s``, or ``max_wait_s`` after the first.
    A file is settled when it had no event and kept its size, time and inode for ``quiet_s``. A
    folder waits for the unsettled files below it, unless it stands for too many to remember.
    Times are those of ``clock``, which never jumps.
    """

    def __init__(
        self,
        *,
        quiet_s: float,
        max_wait_s: float = MAX_WAIT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._quiet_s = quiet_s
        self._max_wait_s = max_wait_s
        self._clock = clock
        self._lock = threading.Lock()
        self._files: dict[str, _File] = {}
        self._folders: dict[str, _Folder] = {}
        self._everything = False
        self._not_before = 0.0  # everything
        self._first = self._last = 0.0  # when the batch began, when something new came to it
        self._attempts: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many places are remembered, never more than MAX_FILES + MAX_FOLDERS + 1."""
        return len(self._files) + len(self._folders) + self._everything

    # --- signs of change --------------------------------------------------------------------

    def touch_file(self, path: str) -> None:
        """A file may have changed, appeared or gone: an event said so."""
        look = look_at(path)
        with self._lock:
            now = self._clock()
            known = self._files.get(path)
            if known is not None:
                known.look, known.since = look, now
                known.not_before = 0.0
            else:
                self._remember(path, _File(look, now, now), now)

    def see_file(self, path: str) -> None:
        """A scan found that a file differs from the library; no sign that it changed just now."""
        if path not in self._files:
            look = look_at(path)
            with self._lock:
                now = self._clock()
                self._remember(path, _File(look, now, now), now)

    def touch_folder(self, path: str) -> None:
        """A folder appeared, went, or may have changed anywhere below."""
        with self._lock:
            now = self._clock()
            known = self._folders.get(path)
            if known is not None:
                known.last = now
            elif not self._everything:
                self._begin(now)
                self._folders[path] = _Folder(now, now)
                self._bound(now)

    def touch_everything(self, *, delay_s: float = 0.0, at_once: bool = False) -> None:
        """Anything may have changed; ``at_once`` does not wait for quiet."""
        with self._lock:
            now = self._clock()
            self._forget_places()
            self._everything = True
            self._not_before = now + delay_s
            self._first = now - self._max_wait_s if at_once else now
            self._last = now

    # --- what is due ------------------------------------------------------------------------

    def due(self) -> Work | None:
        """Takes out what is settled, if a batch is due; looks at each remembered file once."""
        with self._lock:
            now = self._clock()
            if not len(self) or not self._is_due(now):
                return None
            if self._everything:
                if now < self._not_before:
                    return None
                self._everything = False
                return Work(everything=True)
            waiting = [path for path, file in self._files.items() if now >= file.not_before]
        looks = {path: look_at(path) for path in waiting}  # without the lock: a disk may be slow
        with self._lock:
            return self._hand_over(looks, self._clock())

    def put_back(self, work: Work) -> None:
        """Remembers again what could not be looked at."""
        if work.everything:
            self.touch_everything(at_once=True)
        for folder in work.folders:
            self.touch_folder(str(folder))
        for file in work.files:
            self.see_file(str(file))

    def finish(self, work: Work, left: Iterable[Path]) -> None:
        """``work`` was done but for the files in ``left``: those are due again, ever later."""
        left_paths = [str(path) for path in left]
        with self._lock:
            if work.everything:
                done = set(self._attempts).difference(left_paths)
            else:
                done = {str(path) for path in work.files}.difference(left_paths)
            for path in done:
                self._attempts.pop(path, None)
            self._attempts.update(left_paths[:MAX_FILES])
            if len(self._attempts) > MAX_FILES:
                self._attempts.clear()
        if len(left_paths) > MAX_FILES:
            self.touch_everything(delay_s=_LAST_RETRY_S)
            return
        for path in left_paths:
            self._retry(path)

    def _retry(self, path: str) -> None:
        look = look_at(path)
        with self._lock:
            attempts = self._attempts[path]
            if attempts > MAX_ATTEMPTS:
                del self._attempts[path]
                return
            now = self._clock()
            later = now + min(_FIRST_RETRY_S * 2.0 ** (attempts - 1), _LAST_RETRY_S)
            if path not in self._files:
                self._remember(path, _File(look, now, now, later), now)

    # --- with the lock held -----------------------------------------------------------------

    def _begin(self, now: float) -> None:
        if not len(self):
            self._first = now
        self._last = now

    def _remember(self, path: str, file: _File, now: float) -> None:
        folder = self._folders.get(os.path.dirname(path))  # noqa: PTH120 - once an event
        if self._everything:
            self._last = now
        elif folder is not None and folder.is_crowded:
            folder.last = now
        elif path not in self._files:
            self._begin(now)
            self._files[path] = file
            self._bound(now)

    def _bound(self, now: float) -> None:
        if len(self._files) > MAX_FILES:
            for path in {os.path.dirname(path) for path in self._files}:  # noqa: PTH120
                folder = self._folders.setdefault(path, _Folder(now, now))
                folder.last, folder.is_crowded = now, True
            self._files.clear()
        if len(self._folders) > MAX_FOLDERS:
            self._forget_places()
            self._everything = True
            self._not_before = now

    def _forget_places(self) -> None:
        self._files.clear()
        self._folders.clear()

    def _is_due(self, now: float) -> bool:
        return now - self._last >= self._quiet_s or now - self._first >= self._max_wait_s

    def _hand_over(self, looks: dict[str, Look], now: float) -> Work | None:
        settled = [path for path, look in looks.items() if self._settles(path, look, now)]
        held = set(looks).difference(settled)
        above_held = {above for path in held for above in _above(path)}
        folders = {
            path
            for path, folder in self._folders.items()
            if self._folder_is_settled(path, folder, above_held, now)
        }
        files_of = Counter(os.path.dirname(path) for path in settled)  # noqa: PTH120
        for path in settled:
            del self._files[path]
        for path in folders:
            del self._folders[path]
        folders.update(
            path
            for path, count in files_of.items()
            if count > FOLDER_ABOVE and path not in above_held
        )
        self._first = now  # the wait of what stays begins anew
        work = Work(
            files=_outermost(settled, folders),
            folders=_outermost(folders, folders),
        )
        return work if work.places else None

    def _settles(self, path: str, look: Look, now: float) -> bool:
        file = self._files.get(path)
        if file is None:
            return False
        if look != file.look:
            file.look, file.since = look, now
        return now - file.since >= self._quiet_s or now - file.first >= MAX_HOLD_S

    def _folder_is_settled(
        self, path: str, folder: _Folder, above_held: set[str], now: float
    ) -> bool:
        waited_s = now - folder.first
        if folder.is_crowded and waited_s >= self._max_wait_s:
            return True
        is_held = path in above_held and not folder.is_crowded and waited_s < MAX_HOLD_S
        return not is_held and now - folder.last >= self._quiet_s


def look_at(path: str) -> Look:
    """How a file looks now without opening it: (size, mtime in ns, inode), or None."""
    try:
        status = os.stat(path)  # noqa: PTH116 - once an event
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino


def _above(path: str) -> Iterator[str]:
    """The folders that a path lies in, the innermost first."""
    above = os.path.dirname(path)  # noqa: PTH120 - for thousands of paths
    while above != path:
        yield above
        path, above = above, os.path.dirname(above)  # noqa: PTH120


def _outermost(paths: Iterable[str], folders: set[str]) -> tuple[Path, ...]:
    """The paths that do not lie below one of the folders, sorted."""
    return tuple(
        Path(path) for path in sorted(paths) if not any(above in folders for above in _above(path))
    )
