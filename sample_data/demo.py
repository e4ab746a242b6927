"""The demo: real photos, indexed with the embedded model, found by words and by pictures.

    python sample_data/demo.py FOLDER

Gathers the sample photos into FOLDER/photos, indexes them into FOLDER/demo.clipsearch, answers
the questions below, and saves the answers as FOLDER/results.jpg. Ends with exit code 1 if fewer
than NEEDED of the typed questions have the right photo first.
"""

from __future__ import annotations

import io
import subprocess
import sys
import time
from pathlib import Path

from gather import gather

import clipsearch
from clipsearch.hits import SearchHit
from clipsearch.searcher import Searcher
from clipsearch.sheet import write_sheet

# What is typed, and the photo that should come first.
TYPED = [
    ("a cat", "cat.png"),
    ("a cup of coffee", "coffee.png"),
    ("a motorcycle in a garage", "motorcycle.png"),
    ("an orange flower", "flower.jpg"),
    ("a rocket ready for launch", "rocket.jpg"),
    ("a man with a camera", "photographer.png"),
    ("a cheetah running", "cheetah-running.jpg"),
    ("a man in uniform", "officer.jpg"),
    ("a horse", "horse.png"),
    ("an animal lying on rocks", "lion.jpg"),
    ("a lion resting on a rock", "lion.jpg"),
    ("a page of a book", "page.png"),
]
# Asked all the same, so that nobody takes the small model for more than it is: see its model card.
BEYOND = [
    ("a person in a space suit", "astronaut.png"),
    ("old coins", "coins.png"),
    ("the Eiffel tower", "tower.jpg"),
    ("a tower at night", "tower.jpg"),
    ("a temple with trees around it", "temple.jpg"),
]
NEEDED = len(TYPED)
SHOWN = 5


def run(folder: Path) -> int:
    """Runs the demo in ``folder`` and returns the exit code."""
    started = time.monotonic()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # in step with what the index command says
    photos = gather(folder / "photos")
    library_path = folder / "demo.clipsearch"
    print(f"1. {len(photos)} real photos from installed packages: {folder / 'photos'}")
    print("2. clipsearch index: embedding what is new with the model that ships in the package")
    command = ["index", str(folder / "photos"), "--model", "embedded"]
    indexed = subprocess.run(
        [sys.executable, "-m", "clipsearch", *command, "--library", str(library_path)], check=False
    )
    if indexed.returncode:
        return indexed.returncode
    questions = [*TYPED, *BEYOND]
    print(
        f"3. {len(questions)} typed questions, and the photo that came first. "
        f"The last {len(BEYOND)} are known to be too hard for the small model"
    )
    with clipsearch.open_library(library_path) as library:
        searcher = Searcher(library)
        rows: list[tuple[str, list[SearchHit]]] = []
        right = 0
        for words, expected in questions:
            hits = searcher.search(f"{words} cutoff:none", top=SHOWN)
            rows.append((f'"{words}"', hits))
            right += _tell(f'"{words}"', hits, expected)
        print("4. A picture as the question, then a picture and words together")
        cheetah = folder / "photos" / "cheetah.jpg"
        alike = clipsearch.similar(library, cheetah, top=SHOWN, everything=True)
        rows.append(("like cheetah.jpg", alike))
        _tell("like cheetah.jpg", alike, "cheetah-running.jpg")
        motorcycle = library.item_at(folder / "photos" / "motorcycle.png")
        mixed = searcher.search("a rocket cutoff:none", item=motorcycle, top=SHOWN)
        rows.append(('motorcycle.png + "a rocket"', mixed))
        _tell('motorcycle.png + "a rocket"', mixed, "rocket.jpg")
    sheet = folder / "results.jpg"
    write_sheet(rows, sheet)
    print(
        f"{right} of {len(questions)} typed questions found the right photo first "
        f"(at least {NEEDED} are expected); {time.monotonic() - started:.1f} s in all"
    )
    print(f"The answers as a picture: {sheet}")
    print(f"Your turn: {_command()} search 'an old book' --library {library_path}")
    print(f"The page:  {_command()} serve --library {library_path}")
    return 0 if right >= NEEDED else 1


def _tell(question: str, hits: list[SearchHit], expected: str) -> bool:
    first = hits[0].path.name if hits else "nothing"
    is_right = first == expected
    note = "" if is_right else f"   (expected {expected})"
    score = f"{hits[0].score:.3f}" if hits else "-"
    print(f"   {'right' if is_right else 'WRONG'}  {question:<36} {score}  {first}{note}")
    return is_right


def _command() -> str:
    return str(Path(sys.executable).parent / "clipsearch")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python sample_data/demo.py FOLDER")
    sys.exit(run(Path(sys.argv[1])))
