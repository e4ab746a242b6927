"""What a person sees of the models of a library: which answers, which comes next, how full each.

How the fill of the next one goes says ``fill_state``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clipsearch.library.library import Library

IN_USE, NEXT, PREVIOUS, KEPT = "in use", "next", "before", "kept"


@dataclass(frozen=True)
class HeldModel:
    """One space of a library. ``state`` is in use, next (being filled), before, or kept."""

    space: str
    address: str
    state: str
    embedded: int  # vectors
    lacking: int  # pictures that are there and have none
    bytes: int  # of the vectors alone
    dim: int


def held_models(library: Library) -> list[HeldModel]:
    """The spaces of a library, in the order they were added."""
    coming, before = library.models.next(), library.models.previous()
    found = []
    for space in library.spaces():
        state = KEPT
        if space.active:
            state = IN_USE
        elif space.id == coming:
            state = NEXT
        elif space.id == before:
            state = PREVIOUS
        found.append(
            HeldModel(
                space=space.id,
                address=space.address,
                state=state,
                embedded=space.embedded,
                lacking=len(library.models.lacking(space.id)),
                bytes=2 * space.space.dim * space.embedded,
                dim=space.space.dim,
            )
        )
    return found
