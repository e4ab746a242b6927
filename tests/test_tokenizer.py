"""The tokenizer without torch gives open_clip's ids, for everything a person can type."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clipsearch.encoders.tokenizer import BytePairTokenizer

THEIRS = {
    clean: open_clip.SimpleTokenizer(context_length=24, clean=clean)
    for clean in ("lower", "whitespace", "canonicalize")
}
OURS = {clean: BytePairTokenizer(24, clean) for clean in THEIRS}


@pytest.mark.parametrize("clean", THEIRS)
@given(text=st.one_of(st.text(max_size=80), st.text("abc 'sdrt&;<>#019é日🐈_-", max_size=60)))
@example(text="a dog&amp;amp; a cat &lt;3")
@example(text="<start_of_text> <|x|> <END_OF_TEXT>")
@example(text="don't we'll I'd ÃƒÂ© â€œquotedâ€\x9d \x1b[31mred\x1b[0m")
@example(text="word " * 60)
@example(text="1234567890 10,000 3.14 ²³ ﬁne ﬂag ǅ İstanbul ß")
@example(text="")
def test_ids_are_open_clips(clean: str, text: str) -> None:
    expected = THEIRS[clean]([text]).numpy()
    np.testing.assert_array_equal(OURS[clean]([text]), expected)


def test_many_texts_are_rows_and_none_is_an_empty_matrix() -> None:
    texts = ["a cat", "two dogs on the beach"]
    np.testing.assert_array_equal(OURS["lower"](texts), THEIRS["lower"](texts).numpy())
    assert OURS["lower"]([]).shape == (0, 24)
