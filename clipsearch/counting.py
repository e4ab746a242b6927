"""Numbers of things as people read them."""

from __future__ import annotations


def counted(count: int, one: str, several: str = "") -> str:
    """``1 picture``, ``1,200 pictures``, ``0 copies``; ``several`` where that is not one + s."""
    return f"1 {one}" if count == 1 else f"{count:,} {several or one + 's'}"
