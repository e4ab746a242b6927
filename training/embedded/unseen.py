"""Zero-shot classification of things that no photo learned from shows or mentions.

The classes are those of Caltech-101 that ImageNet's 1,000 do not have. The photos that show them,
and all whose captions have one of the words, are left out of what is learned from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.embedded.corpus import CaptionedPhoto

_LABELS = "caltech101"
# The photos' label, and the word that no caption learned from may have.
CLASSES = {
    "anchor": "anchor",
    "bonsai tree": "bonsai",
    "buddha statue": "buddha",
    "ceiling fan": "ceiling fan",
    "chandelier": "chandelier",
    "dollar bill": "dollar",
    "emu bird": "emu",
    "euphonium brass instrument": "euphonium",
    "ferry": "ferry",
    "gerenuk antelope": "gerenuk",
    "gramophone": "gramophone",
    "helicopter": "helicopter",
    "inline skate": "inline skate",
    "joshua tree": "joshua",
    "lotus flower": "lotus",
    "mandolin": "mandolin",
    "menorah candle holder": "menorah",
    "metronome": "metronome",
    "minaret": "minaret",
    "octopus": "octopus",
    "okapi animal": "okapi",
    "pagoda": "pagoda",
    "pair of headphones": "headphone",
    "pair of scissors": "scissors",
    "pigeon": "pigeon",
    "pyramid": "pyramid",
    "rhinoceros": "rhino",
    "seahorse": "seahorse",
    "stapler": "stapler",
    "sunflower": "sunflower",
    "wheelchair": "wheelchair",
    "wrench": "wrench",
}
QUESTIONS = tuple(f"a photo of a {name}" for name in CLASSES)
_WORDS = re.compile(rf"\b(?:{'|'.join(CLASSES.values())})", re.IGNORECASE)


def mentions_unseen(photo: CaptionedPhoto) -> bool:
    """Whether the photo must be left out of what is learned from."""
    return any(_WORDS.search(text) for text in (*photo.captions, *photo.labels))


def unseen_photos(
    photos: Sequence[CaptionedPhoto],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(n,) places of the photos to judge by, and (n,) their classes by place in ``CLASSES``."""
    number = {name: place for place, name in enumerate(CLASSES)}
    found = [
        (place, number[photo.labels[0]])
        for place, photo in enumerate(photos)
        if photo.source == _LABELS and photo.labels and photo.labels[0] in number
    ]
    places, classes = np.array(found, np.int64).reshape(-1, 2).T
    return places, classes
