"""Preprocessing without torch gives open_clip's own pixels, for odd sizes and every resize mode."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from open_clip.transform import image_transform
from PIL import Image

from clipsearch.encoders.preprocessing import Preprocessing

CONFIG = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
sides = st.integers(1, 300)


def theirs(image: Image.Image, config: dict[str, object]) -> np.ndarray:
    """open_clip's transform with mean 0 and std 1, back from [0, 1] to uint8."""
    size = config["size"]
    transform = image_transform(
        tuple(size) if isinstance(size, list) else size,
        is_train=False,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        resize_mode=config["resize_mode"],
        interpolation=config["interpolation"],
        fill_color=config["fill_color"],
    )
    return np.rint(transform(image).numpy() * 255).astype(np.uint8)


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@given(width=sides, height=sides, side=st.integers(8, 64), seed=st.integers(0, 9))
def test_pixels_are_open_clips(
    resize_mode: str, interpolation: str, width: int, height: int, side: int, seed: int
) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    config = {
        **CONFIG,
        "size": [side, side],
        "resize_mode": resize_mode,
        "interpolation": interpolation,
        "fill_color": 7,
    }
    found = Preprocessing.from_config(config).apply(image)
    assert (found.dtype, found.shape) == (np.uint8, (3, side, side))
    if max(width, height) > side * min(width, height):
        return  # so long that open_clip's own transform scales it to nothing and fails
    np.testing.assert_array_equal(found, theirs(image, config))


def test_grey_and_transparent_pictures_become_rgb() -> None:
    config = {**CONFIG, "size": 16}
    for mode in ("L", "RGBA", "P", "1"):
        assert Preprocessing.from_config(config).apply(Image.new(mode, (30, 20))).shape == (
            3,
            16,
            16,
        )


@pytest.mark.parametrize(
    "config",
    [
        {"mean": [0, 0, 0], "std": [1, 1, 1]},
        {**CONFIG, "size": 16, "std": [1, 0, 1]},
        {**CONFIG, "size": 16, "resize_mode": "sideways"},
        {**CONFIG, "size": 16, "interpolation": "magic"},
    ],
)
def test_a_configuration_that_cannot_be_followed_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"size|std|resize_mode|interpolation"):
        Preprocessing.from_config(config)
