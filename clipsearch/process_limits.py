"""What holds for a process that opens files: how much it takes, which signals it hears, its end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading

# They reach whole groups of processes: Ctrl-C, a closed terminal, a service that is stopped.
# Whoever sends them ends the process that indexes, and that one ends its decoders.
NOT_FOR_DECODERS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")
_PARENT_CHECK_MS = 5000
# Address space beyond what the largest allowed picture takes.
_MEMORY_BYTES = 3 << 30
_BYTES_PER_PIXEL = 16  # decoded, flattened, turned and reduced, some of it at the same time


def ignore_signals() -> None:
    """Leaves what ends programs to the process that indexes, which then ends this one."""
    for name in NOT_FOR_DECODERS:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def end_with_parent(requests: int) -> None:
    """Ends this process, also in the middle of a file, once nobody can send requests any more.

    ``requests`` is the descriptor that they come from. On Windows a file is read to its end.
    """
    if not hasattr(select, "poll"):
        return
    parent = os.getppid()
    poll = select.poll()
    poll.register(requests, 0)  # that the other end is closed is always told

    def wait() -> None:
        while not poll.poll(_PARENT_CHECK_MS) and os.getppid() == parent:
            continue
        os._exit(0)

    with contextlib.suppress(RuntimeError):  # no thread to be had: it ends after the file
        threading.Thread(target=wait, name="parent-watch", daemon=True).start()


def limit_computing(seconds: float) -> None:
    """Has the operating system end this process after so much computing; 0 lifts the limit.

    Computing, not time: a laptop that sleeps or a machine that is busy does not fail a photo.
    Where there is no such limit (Windows) the pool's own limit of time has to do.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def limit_memory(max_pixels: int) -> bool:
    """Makes allocations beyond the limit fail, so that a bomb is a MemoryError and not a crash.

    False where this process was given less (``ulimit -v``): then a picture may be sound that does
    not fit.
    """
    try:
        import resource
    except ImportError:  # Windows
        return True
    wanted = _MEMORY_BYTES + _BYTES_PER_PIXEL * max_pixels
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (allowed, hard))
    return allowed == wanted
