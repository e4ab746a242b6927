"""``python -m clipsearch`` is the command ``clipsearch``."""

import sys

from clipsearch.cli import main

if __name__ == "__main__":
    sys.exit(main())
