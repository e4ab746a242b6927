"""What people see: lines on a terminal in which no name of a file can move the cursor or lie.

A file's name may hold anything but a slash: a newline, an escape sequence that a terminal obeys, a
mark that turns the order of letters round. On a terminal such characters are shown as escapes; to
a pipe or a file everything is written as it is.
"""

from __future__ import annotations

import io
import os
import re
import sys
from contextlib import suppress
from typing import IO, Any

from clipsearch.errors import OutputError

# C0 and C1 controls, delete, marks of direction that stay in force, and surrogates, of which the
# lower ones stand for bytes that are no UTF-8.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_NAMED = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def quoted(text: str, *, keep: str = "") -> str:
    """The text with everything that a terminal could obey as escapes, but for ``keep``."""

    def escape(found: re.Match[str]) -> str:
        char = found[0]
        number = ord(char)
        if char in keep:
            return char
        if 0xDC80 <= number <= 0xDCFF:
            return f"\\x{number - 0xDC00:02x}"
        return _NAMED.get(char) or (f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}")

    return _UNSAFE.sub(escape, text)


def json_quoted(line: str) -> str:
    """A line of JSON that says the same, in which every unsafe character is an escape of JSON."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", line)


def is_terminal(stream: IO[str] | None) -> bool:
    """Whether a person looks at it; False for a stream that is closed or missing."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


class Output(io.TextIOBase):
    """Stands in for stdout: safe on a terminal, and OutputError where it cannot be written.

    ``write_raw`` leaves the text as it is.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._is_terminal = is_terminal(stream)

    def write(self, text: str, /) -> int:
        return self.write_raw(quoted(text, keep="\n") if self._is_terminal else text)

    def write_raw(self, text: str) -> int:
        """Writes text as it is; OutputError where that fails, BrokenPipeError at a closed pipe."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(reason=error.strerror or error) from error

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(reason=error.strerror or error) from error

    def isatty(self) -> bool:
        return self._is_terminal

    def fileno(self) -> int:
        return self._stream.fileno()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def write_raw(text: str) -> None:
    """Writes to stdout as it is, also on a terminal: what another program is to read."""
    if isinstance(sys.stdout, Output):
        sys.stdout.write_raw(text)
    else:
        sys.stdout.write(text)


def redraw(text: str, end: str = "") -> None:
    """Writes one line of stderr, a terminal, over what stood there."""
    with suppress(OSError):
        sys.stderr.write(f"\r{quoted(text)}\x1b[K{end}")
        sys.stderr.flush()


def abandon(stream: IO[str]) -> None:
    """Lets what a stream still holds go nowhere: Python would try to write it again at exit."""
    with suppress(OSError, ValueError):
        place = os.open(os.devnull, os.O_WRONLY)
        os.dup2(place, stream.fileno())
        os.close(place)
