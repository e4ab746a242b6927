"""Sizes of files as people read them."""

from __future__ import annotations

import pytest

from clipsearch.sizes import shown_bytes


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.6, "1 kB"),
        (4_210, "4.21 kB"),
        (44_240_000, "44.2 MB"),
        (999_700_000, "1 GB"),
        (1.5e12, "1.5 TB"),
    ],
)
def test_three_digits_in_the_unit_that_fits(size: float, shown: str) -> None:
    assert shown_bytes(size) == shown
