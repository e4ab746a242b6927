"""How often an edited photo passes for the same picture, and another photo does: by thumbnails.

    python benchmarks/likeness.py --data FOLDER

prints, of up to 60 photos of a folder, the share of each edit that is recognised, and the share of
pairs of different photos that are taken for one (indexer/likeness.py).
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageEnhance, ImageOps

from clipsearch.images import THUMBNAIL_SIDE
from indexer.likeness import shows_same

PHOTOS, PAIRS = 60, 600
Edit = Callable[[Image.Image], Image.Image]


def cropped(share: float) -> Edit:
    def crop(image: Image.Image) -> Image.Image:
        width, height = image.size
        left, top = width * (1 - share) / 3, height * (1 - share) / 2
        return image.crop(
            (int(left), int(top), int(left + width * share), int(top + height * share))
        )

    return crop


EDITS: dict[str, Edit] = {
    "turned by 90": lambda image: image.rotate(90, expand=True),
    "mirrored": ImageOps.mirror,
    "grey": lambda image: ImageOps.grayscale(image).convert("RGB"),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.8),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.4),
    "cropped to 80 %": cropped(0.8),
    "cropped to 55 %": cropped(0.55),
    "straightened by 5": lambda image: cropped(0.85)(image.rotate(5)),
    "framed": lambda image: ImageOps.expand(image, max(image.size) // 12, "white"),
}


def thumbnail(image: Image.Image) -> Image.Image:
    small = image.convert("L")
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    return small


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    paths = sorted(parser.parse_args().data.rglob("*.jpg"))
    chance = random.Random(0)
    photos: list[Image.Image] = []
    for path in chance.sample(paths, len(paths)):
        try:
            photos.append(Image.open(path).convert("RGB"))
        except OSError:
            continue  # damaged: no photo
        if len(photos) == PHOTOS:
            break
    before = [thumbnail(photo) for photo in photos]
    for name, edit in EDITS.items():
        pairs = zip(before, photos, strict=True)
        found = sum(shows_same(one, thumbnail(edit(photo))) for one, photo in pairs)
        print(f"{name:<18} {found / len(photos):.0%} of {len(photos)}")
    others = [chance.sample(before, 2) for _ in range(PAIRS)]
    wrong = sum(shows_same(*pair) for pair in others)
    print(f"{'another photo':<18} {wrong / PAIRS:.1%} of {PAIRS}")


if __name__ == "__main__":
    main()
