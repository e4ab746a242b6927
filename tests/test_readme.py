"""The README is true: its commands and its Python run, and what they teach is learned."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import clipsearch
from clipsearch.config import resolve
from clipsearch.encoders import is_compiled

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """The README's shell lines in order, without comments."""
    lines = [line for language, body in BLOCKS if language == "bash" for line in body.splitlines()]
    return [stripped for line in lines if (stripped := re.sub(r"\s+# .*$", "", line).strip())]


@pytest.fixture
def home(tmp_path: Path, real_photos: Path, embedded_library: Path) -> Path:
    """A person's home with ~/Photos, where the README's commands run one after another."""
    shutil.copytree(real_photos, tmp_path / "Photos")
    return tmp_path


@pytest.fixture
def environment(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "HOME": str(home),
        "CLIPSEARCH_THREADS": "1",  # beside other tests; torch's threads would wait for each other
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def test_readme_opens_with_the_two_make_commands() -> None:
    assert [line.split()[:2] for line in commands()[:2]] == [["make", "demo"], ["make", "test"]]
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert "\ndemo:" in makefile
    assert "\ntest:" in makefile


def test_every_command_of_the_readme_works_and_teaches_a_made_up_name(
    home: Path, environment: dict[str, str]
) -> None:
    """After its training a name that no model knows finds its picture, and the rest still works."""
    captions = home / "Photos" / "captions.csv"
    lines = captions.read_text(encoding="utf-8").splitlines()
    taught = [line for line in lines if not line.startswith("tissue.png")]
    taught += ["tissue.png,a photo of zorblax", "tissue.png,zorblax"]
    captions.write_text("\n".join(taught) + "\n", encoding="utf-8")
    for command in commands():
        if command.startswith("make ") or command in ("clipsearch serve", "clipsearch watch"):
            continue  # make runs this test; what serves and watches has tests of its own
        assert command.startswith("clipsearch ")
        # A tenth of the steps that training would take by itself, each larger: enough for a name,
        # which then scores three times as much for its picture as for the next one.
        shorter = " --epochs 8 --lr 1e-3" if command.startswith("clipsearch train ") else ""
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command + shorter],
            env=environment,
            cwd=home,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (home / "answers.jpg").exists()
    (library,) = home.glob("**/default.clipsearch")
    with clipsearch.open_library(library) as opened:
        assert len(opened.spaces()) == 2
        active = opened.active_space()
        assert active is not None
        assert active.origin == f"local-dir:{home / 'runs' / 'mine' / 'export'}"
        assert is_compiled(active.space, resolve()), "the first index makes the fast runtime"
        searcher = clipsearch.Searcher(opened)
        for words, name in (
            ("a photo of zorblax", "tissue.png"),
            ("a cat", "cat.png"),
            ("a cup of coffee", "coffee.png"),
            ("an orange flower", "flower.jpg"),
            ("a motorcycle", "motorcycle.png"),
        ):
            assert searcher.search(words)[0].path.name == name, words


def test_every_line_of_python_in_the_readme_works(home: Path, environment: dict[str, str]) -> None:
    source = "\n".join(body for language, body in BLOCKS if language == "python")
    index = ["clipsearch", "index", str(home / "Photos"), "--model", "embedded"]
    subprocess.run(index, env=environment, cwd=home, check=True, capture_output=True, timeout=300)
    done = subprocess.run(
        [sys.executable, "-c", source],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    search = ["clipsearch", "search", "a cat", "--top", "3", "--paths"]
    same = subprocess.run(
        search, env=environment, cwd=home, check=True, capture_output=True, text=True, timeout=120
    )
    printed = [line.split(" ", 2) for line in done.stdout.splitlines()]
    assert [path for _, _, path in printed] == same.stdout.splitlines()
    assert [rank for rank, _, _ in printed] == [str(place) for place in range(1, len(printed) + 1)]
    assert printed[0][2].endswith("cat.png")


def test_the_readme_names_every_command_and_every_linked_page_exists() -> None:
    from clipsearch.cli import COMMANDS

    for name in COMMANDS:
        assert f"| `{name}" in README, f"the README's table does not name {name}"
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (REPOSITORY / target).exists(), f"the README links {target}"
