"""The README is true: every command and every line of Python in it runs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """The README's shell lines in order, without comments."""
    lines = [line for language, body in BLOCKS if language == "bash" for line in body.splitlines()]
    return [stripped for line in lines if (stripped := re.sub(r"\s+# .*$", "", line).strip())]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, real_photos: Path) -> Path:
    """A person's home with ~/Photos, where the README's commands run one after another."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copytree(real_photos, folder / "Photos")
    return folder


@pytest.fixture(scope="module")
def environment(home: Path) -> dict[str, str]:
    return {
        **os.environ,
        "HOME": str(home),
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


def test_readme_opens_with_the_two_make_commands() -> None:
    assert [line.split()[:2] for line in commands()[:2]] == [["make", "demo"], ["make", "test"]]
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert "\ndemo:" in makefile
    assert "\ntest:" in makefile


def test_every_command_of_the_readme_works(home: Path, environment: dict[str, str]) -> None:
    for command in commands():
        if command.startswith("make ") or command in ("clipsearch serve", "clipsearch watch"):
            continue  # make runs this test; what serves and watches has tests of its own
        assert command.startswith("clipsearch ")
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            env=environment,
            cwd=home,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (home / "answers.jpg").exists()
    assert (home / "runs/mine/export/open_clip_config.json").exists()


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
    assert len(done.stdout.splitlines()) == 3
    assert "cat.png" in done.stdout


def test_the_readme_names_every_command_and_every_linked_page_exists() -> None:
    from clipsearch.cli import COMMANDS

    for name in COMMANDS:
        assert f"| `{name}" in README, f"the README's table does not name {name}"
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (REPOSITORY / target).exists(), f"the README links {target}"
