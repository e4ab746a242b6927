"""The built wheel holds exactly the four packages and the weights, and works from there."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    ).stdout.split(b"\0")
    for name in filter(None, tracked):
        path = REPOSITORY / os.fsdecode(name)
        if path.exists() and path.parts[len(REPOSITORY.parts)] not in {"tests", "docs", ".ci"}:
            target = source / os.fsdecode(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, target) if path.stat().st_dev == folder.stat().st_dev else (
                target.write_bytes(path.read_bytes())
            )
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*command, str(source)], check=True, capture_output=True, timeout=120)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_four_packages_and_the_weights_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"clipsearch", "indexer", "ui", "training"}
    weights = [name for name in names if name.endswith(".safetensors")]
    assert weights == ["clipsearch/encoders/embedded/open_clip_model.safetensors"]
    assert "clipsearch/encoders/embedded/open_clip_config.json" in names
    assert "clipsearch/py.typed" in names
    sources = {
        path.relative_to(REPOSITORY).as_posix()
        for package in tops
        for path in (REPOSITORY / package).rglob("*.py")
    }
    assert sources == {name for name in names if name.endswith(".py")}


@pytest.mark.usefixtures("embedded_library")
def test_the_command_works_from_the_wheel(wheel: Path, tmp_path: Path, real_photos: Path) -> None:
    target = tmp_path / "installed"
    install = ["install", "--quiet", "--no-deps", "--no-index", "--target", str(target), str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, timeout=120)
    environment = {**os.environ, "PYTHONPATH": str(target)}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "clipsearch", *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    where = [sys.executable, "-P", "-c", "import clipsearch; print(clipsearch.__file__)"]
    found = subprocess.run(
        where, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert found.stdout.startswith(str(target))
    assert "usage: clipsearch" in run("--help").stdout
    library = str(tmp_path / "wheel.clipsearch")
    indexed = run("index", str(real_photos), "--library", library, "--model", "embedded")
    assert indexed.returncode == 0, indexed.stderr
    hits = run("search", "a cat", "--library", library, "--paths", "--top", "1")
    assert hits.stdout.strip().endswith("cat.png"), hits.stderr
