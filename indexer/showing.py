"""Pictures for people, made in a decoder: no larger than a page shows, within a page's memory."""

from __future__ import annotations

import contextlib
import ctypes
import io
from pathlib import Path
from typing import Any

from PIL import Image

SHOWN_BYTES = 720 << 20  # for a picture that is shown, beyond what the process takes anyway


def shown_as(image: Image.Image, shown: dict[str, int]) -> tuple[dict[str, Any], bytes]:
    """A JPEG of at most ``side`` pixels if there is a ``quality``, else rows of RGB; its answer."""
    side, quality = shown["side"], shown.get("quality")
    if max(image.size) > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    answer: dict[str, Any] = {"status": "frame", "size": list(image.size)}
    if quality is None:
        return answer, image.tobytes()
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return answer, buffer.getvalue()


def limit_shown_memory() -> None:
    """Lets a picture that is only shown take SHOWN_BYTES and no more; Linux only.

    A server's memory is for many; a run that indexes opens the picture within more.
    """
    try:
        import resource

        said = Path("/proc/self/status").read_text(encoding="ascii")
    except (ImportError, OSError):
        return
    if resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY:
        used = next(int(line.split()[1]) for line in said.splitlines() if line[:7] == "VmData:")
        wanted = used * 1024 + SHOWN_BYTES
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_DATA, (wanted, resource.RLIM_INFINITY))


def give_memory_back() -> None:
    """Has glibc return what is free; elsewhere the system's own allocator decides."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
