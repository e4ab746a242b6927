"""How far an index run is: a bar, lines in a log, or JSON events for programs."""

from __future__ import annotations

import sys
import time

from clipsearch.command import print_json, say
from clipsearch.terminal import redraw
from indexer.report import Failure, duration

_BAR_WIDTH = 24
_BAR_EVERY_S = 0.1
_LINE_EVERY_S = 10.0  # where stderr is no terminal, such as a log
_EVENT_EVERY_S = 1.0


class Progress:
    """Tells people on stderr, and programs on stdout if ``as_json``, unless ``quiet``."""

    def __init__(self, *, quiet: bool = False, as_json: bool = False) -> None:
        self._quiet = quiet
        self._as_json = as_json
        self._is_terminal = sys.stderr.isatty()
        self._started = self._shown_at = self._event_at = time.monotonic()
        self._has_bar = False
        self._skipped = 0

    def show(self, done: int, total: int) -> None:
        """``done`` of ``total`` files have been read."""
        now = time.monotonic()
        if done == 0:
            self._started = self._shown_at = self._event_at = now
        if not total or not done:
            return
        rate = done / max(now - self._started, 1e-6)
        left_s = (total - done) / rate
        if self._as_json and (now - self._event_at >= _EVENT_EVERY_S or done == total):
            self._event_at = now
            self._tell(done, total, rate, left_s)
        if not self._quiet:
            self._draw(now, done, total, rate, left_s)

    def fail(self, failure: Failure) -> None:
        """A file was found to be unreadable: counted for people, told to programs at once."""
        self._skipped += 1
        if self._as_json:
            print_json({"event": "failure", "path": failure.path, "failure": failure.reason})

    def say(self, message: str) -> None:
        """A line that does not disturb the bar."""
        if not self._quiet:
            self.end()
            say(message)

    def end(self) -> None:
        """Leaves the bar's line."""
        if self._has_bar:
            say("")
            self._has_bar = False

    def _tell(self, done: int, total: int, rate: float, left_s: float) -> None:
        print_json(
            {
                "event": "progress",
                "done": done,
                "total": total,
                "skipped": self._skipped,
                "images_per_s": round(rate, 2),
                "seconds_left": round(left_s, 1),
            }
        )

    def _draw(self, now: float, done: int, total: int, rate: float, left_s: float) -> None:
        every = _BAR_EVERY_S if self._is_terminal else _LINE_EVERY_S
        finished = done == total and self._has_bar
        if now - self._shown_at < every and not finished:
            return
        self._shown_at = now
        speed = f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"
        text = f"{done:,}/{total:,} files  {speed} images/s  {duration(left_s)} left"
        if self._skipped:
            text += f"  {self._skipped:,} skipped"
        if self._is_terminal:
            filled = "█" * (_BAR_WIDTH * done // total)
            redraw(f"{filled:░<{_BAR_WIDTH}} {text}")
            self._has_bar = True
        else:
            say(text)
