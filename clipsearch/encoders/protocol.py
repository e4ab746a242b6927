"""What every encoder offers, whichever runtime is behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from clipsearch.vectors import EmbeddingSpace, Matrix, Pixels

if TYPE_CHECKING:
    from PIL import Image

    from clipsearch.encoders.preprocessing import Preprocessing


class Encoder(Protocol):
    """A dual encoder: pictures and texts to unit vectors of one space.

    Calls are thread-safe. ``runtime`` is ``torch-cpu``, ``torch-cuda`` or the compiled runtime's
    name; ``precision`` is ``f32`` or ``bf16``. Both are remembered with the vectors they made.
    """

    @property
    def space(self) -> EmbeddingSpace: ...
    @property
    def address(self) -> str: ...
    @property
    def runtime(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def preprocessing(self) -> Preprocessing: ...

    def preprocess(self, image: Image.Image) -> Pixels:
        """Resizes and crops an upright RGB picture to (3, h, w) uint8; encode normalises."""
        ...

    def encode_images(self, batch: Pixels) -> Matrix:
        """(n, 3, h, w) uint8 -> (n, dim) float32 unit rows; n may be 0.

        VectorError for another shape or type; the next call is not affected.
        """
        ...

    def encode_texts(self, texts: Sequence[str]) -> Matrix:
        """n texts -> (n, dim) float32 unit rows; n may be 0.

        VectorError for what is no text. What a model does not read of long ones says ``unread``.
        """
        ...
