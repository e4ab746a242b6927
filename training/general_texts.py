"""Things and scenes that anyone may search for: what a model should not forget while it learns.

Composed here from open_clip's names of ImageNet's classes and from words of our own, so that they
are there on every machine, without a network and without anybody's captions.
"""

from __future__ import annotations

import random
from typing import Literal

_WHO = (
    "a man", "a woman", "a boy", "a girl", "two children", "a baby", "a group of people",
    "an old couple", "a crowd", "a family", "a cyclist", "a skier", "a football player",
    "a man in a red shirt", "a woman in a white dress", "a child in a blue jacket", "a black dog",
    "a brown and white dog", "two dogs", "a grey cat", "a horse", "a bird", "a herd of cows",
)  # fmt: skip
_DOES = (
    "running", "jumping", "sitting", "sleeping", "walking", "playing", "standing", "eating",
    "climbing", "swimming", "looking at the camera", "lying down", "playing with a ball",
    "crossing a bridge", "waiting", "carrying something",
)  # fmt: skip
_WHERE = (
    "on a beach", "in the snow", "in a park", "on a busy street", "in a kitchen", "at a table",
    "in the water", "on the grass", "in front of a house", "on a mountain", "in a forest",
    "at night", "in a stadium", "by a lake", "on a rock", "inside a room",
)  # fmt: skip
_PICTURES = (
    "a sunset over the sea", "a city skyline at night", "a plate of food", "a birthday cake",
    "a bowl of fruit", "a glass of wine", "a red car", "an old truck", "a train at a station",
    "a plane in the sky", "a sailing boat", "a bicycle against a wall", "a church", "a castle",
    "a waterfall", "a desert", "a field of flowers", "a snowy mountain", "a wedding", "a concert",
    "a document", "a screenshot", "a map", "a painting", "a statue", "a bookshelf", "a computer",
    "a living room with a sofa", "a bed", "a Christmas tree", "fireworks", "a clock", "a sign",
    "a bridge over a river", "a garden", "a market", "a playground", "a tent", "a swimming pool",
)  # fmt: skip

Part = Literal["learn", "probe"]


def general_texts(count: int, part: Part, seed: int = 0) -> list[str]:
    """``count`` different texts, half things and half scenes; the same for the same arguments.

    The two parts have no text in common: what training is held to is not what it is judged by.
    """
    from open_clip import IMAGENET_CLASSNAMES

    things = [f"a photo of a {name}" for name in dict.fromkeys(IMAGENET_CLASSNAMES)]
    scenes = [f"{who} {does} {where}" for who in _WHO for does in _DOES for where in _WHERE]
    chance = random.Random("general texts")  # the same parts whatever the seed
    chosen: list[str] = []
    for texts, wanted in ((things, count // 2), (scenes, count - count // 2)):
        chance.shuffle(texts)
        half = len(texts) // 2
        own = texts[:half] if part == "learn" else texts[half:]
        if texts is scenes and part == "probe":
            own = [*_PICTURES, *own]
        chosen += random.Random(seed).sample(own, min(wanted, len(own)))
    return chosen
