"""Datasets of torchvision by name, from a folder where they lie; nothing is ever downloaded."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from clipsearch.errors import DatasetError, ImageUnreadableError
from clipsearch.user_paths import expand_user
from training.evaluating.dataset import Dataset, Picture


@dataclass(frozen=True)
class _Kind:
    """A class of ``torchvision.datasets`` and how to ask it for what is to be judged on."""

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)


# CIFAR's files are pickles; torchvision reads them only where their MD5 is that of the originals.
_KINDS = {
    "mnist": _Kind("MNIST", {"train": False}),
    "fashionmnist": _Kind("FashionMNIST", {"train": False}),
    "cifar10": _Kind("CIFAR10", {"train": False}),
    "cifar100": _Kind("CIFAR100", {"train": False}),
    "stl10": _Kind("STL10", {"split": "test"}),
    "food101": _Kind("Food101", {"split": "test"}),
    "oxfordpets": _Kind("OxfordIIITPet", {"split": "test"}),
    "dtd": _Kind("DTD", {"split": "test"}),
    "eurosat": _Kind("EuroSAT"),
    "imagenette": _Kind("Imagenette", {"split": "val"}),
}
NAMES = tuple(_KINDS)


def is_torchvision_name(address: str) -> bool:
    """True for ``cifar10:FOLDER`` and the like; DatasetError for a name that is not known."""
    name, colon, folder = address.partition(":")
    if not colon or not folder or len(name) < 2 or Path(address).exists():  # C:\ is a drive
        return False
    if name.lower() not in _KINDS:
        raise DatasetError(
            name=address,
            reason=f"there is no dataset '{name}'",
            advice=f"Known are: {', '.join(NAMES)}.",
        )
    return True


def read_torchvision(address: str) -> Dataset:
    """The test pictures of a dataset below a folder. DatasetError if they are not there."""
    from torchvision import datasets

    name, _, folder = address.partition(":")
    kind = _KINDS[name.lower()]
    root = expand_user(folder).absolute()
    try:
        found: Any = getattr(datasets, kind.name)(root, **kind.arguments, download=False)
    except (RuntimeError, OSError, ValueError, KeyError) as error:
        raise DatasetError(
            name=address,
            reason=f"torchvision's {kind.name} is not complete there ({error})".replace("\n", " "),
            advice="Nothing is downloaded: put the files where torchvision expects them.",
        ) from error
    classes = [_first(one) for one in found.classes]
    reading = _Reading(found)
    return Dataset(
        name,
        tuple(
            Picture(f"{name} {place}", partial(reading.open, place), labels=(classes[int(label)],))
            for place, label in enumerate(_labels(found))
        ),
    )


class _Reading:
    def __init__(self, found: Any) -> None:
        self._found = found
        self._one_at_a_time = threading.Lock()

    def open(self, place: int, _side: int) -> Image.Image:
        try:
            with self._one_at_a_time:
                image: Image.Image = self._found[place][0]
            return image.convert("RGB")
        except (OSError, SyntaxError, ValueError) as error:
            raise ImageUnreadableError(path=f"picture {place}", reason=error) from error


def _first(name: Any) -> str:
    """The first of several names of a class."""
    return str(name if isinstance(name, str) else name[0])


def _labels(found: Any) -> list[int]:
    for name in ("targets", "labels", "_labels"):
        if (labels := getattr(found, name, None)) is not None:
            return [int(label) for label in labels]
    return [int(found[place][1]) for place in range(len(found))]
