"""What the system refuses, in our words: memory, open files, threads, places that are not ours.

Packages raise such trouble as almost anything, so it is known by what was said on the way.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from clipsearch.errors import ClipsearchError, FileAccessError, SystemLimitError

_LEAST_MEMORY_BYTES = 160_000_000  # of address space; with less, numpy ends the process
_NO_MEMORY = (
    "bad_alloc",
    "can't alloc",
    "cannot allocate",
    "can not create file mapping",
    "failed to map segment",
    "not enough memory",
    "out of memory",
)
_NO_THREAD = ("can't start new thread", "resource temporarily unavailable")
_NO_FILE = ("too many open files",)
_LIMITS = (
    (_NO_FILE, "The system lets this process open no more files", "ulimit -n"),
    (_NO_THREAD, "The system lets this process start no more threads", "ulimit -u, ulimit -v"),
    (_NO_MEMORY, "There is not enough memory", "ulimit -v"),
)
_OF_LIMITS = {
    errno.EMFILE: _LIMITS[0],
    errno.ENFILE: _LIMITS[0],
    errno.EAGAIN: _LIMITS[1],
    errno.ENOMEM: _LIMITS[2],
}
_ADVICE = {
    errno.ENOSPC: "Free some space and run again",
    errno.EDQUOT: "Free some space and run again",
    errno.EROFS: "Choose a place that can be written",
    errno.ENAMETOOLONG: "Choose a shorter name",
    errno.EIO: "Check the disk",
}


def in_our_words(error: BaseException) -> ClipsearchError | None:
    """The error that says what the system refused; None for what is a mistake in clipsearch."""
    for cause in _chain(error):
        if isinstance(cause, MemoryError):
            return _limit(*_LIMITS[2][1:])
        if isinstance(cause, OSError) and cause.errno in _OF_LIMITS:
            return _limit(*_OF_LIMITS[cause.errno][1:])
        said = str(cause).casefold()
        for phrases, what, limit in _LIMITS:
            if any(phrase in said for phrase in phrases):
                return _limit(what, limit)
    for cause in _chain(error):
        if isinstance(cause, OSError) and cause.errno is not None:
            return FileAccessError(
                path=cause.filename or "A file or device",
                reason=cause.strerror or cause,
                advice=_ADVICE.get(cause.errno, "Check the path and its permissions"),
            )
    return None


def refuse_too_little_memory() -> None:
    """SystemLimitError where this process may not even hold what it imports."""
    try:
        import resource
    except ImportError:  # Windows
        return
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    if allowed != resource.RLIM_INFINITY and allowed < _LEAST_MEMORY_BYTES:
        raise _limit(*_LIMITS[2][1:])


def _limit(what: str, limit: str) -> SystemLimitError:
    return SystemLimitError(
        what=what,
        advice=f"Close other programs or raise the limit ({limit}), then run this again. "
        "Nothing that was committed is lost",
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
