"""``python -m clipsearch`` is the command ``clipsearch``."""

from clipsearch.cli import run

if __name__ == "__main__":
    run()
