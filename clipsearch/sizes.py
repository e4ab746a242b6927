"""Sizes of files as people read them."""

from __future__ import annotations


def shown_bytes(size: float) -> str:
    """``950 B``, ``4.2 kB``, ``1.57 GB``: three digits, in powers of 1,000."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
