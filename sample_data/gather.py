"""Gathers the sample photos from the Python packages that carry them.

    python sample_data/gather.py FOLDER

The project ships no photos of its own: scikit-image, scikit-learn, gradio and matplotlib bring
real ones in their wheels. ``photos.csv`` beside this file names them and gives our captions.
A ``captions.csv`` in the form that ``clipsearch train`` reads is written beside the photos.
"""

from __future__ import annotations

import csv
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

LIST = Path(__file__).with_name("photos.csv")


def gather(destination: Path) -> list[Path]:
    """Copies the photos that are not there yet and returns all of them, in the list's order.

    Raises FileNotFoundError naming the package to install if a photo's package is absent.
    """
    destination.mkdir(parents=True, exist_ok=True)
    with LIST.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    photos = []
    for row in rows:
        target = destination / row["name"]
        if not target.exists():
            shutil.copyfile(_source(row["package"], row["path"]), target)
        photos.append(target)
    with (destination / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "caption"])
        writer.writerows((row["name"], row["caption"]) for row in rows)
    return photos


def _source(package: str, path: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"{package} carries {path} but is not installed; run: make setup")
    source = Path(spec.origin).parent / path
    if not source.exists():
        raise FileNotFoundError(f"this version of {package} does not carry {path}")
    return source


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python sample_data/gather.py FOLDER")
    print(f"{len(gather(Path(sys.argv[1])))} photos in {sys.argv[1]}")
