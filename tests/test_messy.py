"""Folders of what breaks readers: nothing is fatal, all of it is named, nothing is changed."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipsearch.config import Settings, resolve
from clipsearch.library import Library
from indexer.pipeline import index_library
from indexer.report import IndexReport

MESSY = Path(__file__).parents[2] / "shared" / "data" / "messy"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def settings(tiny_model_dir: Path, library_path: Path) -> Settings:
    chosen = {"model": f"local-dir:{tiny_model_dir}", "runtime": "torch", "library": library_path}
    return resolve(chosen, environment={})


def picture(seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((240, 180))


def encoded(image: Image.Image, format_name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def png_bomb(side: int) -> bytes:
    """A PNG whose header promises side x side pixels and that holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def bmp_bomb() -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header


GOOD = {
    "good.jpg": encoded(picture(1), "JPEG"),
    "progressive.jpeg": encoded(picture(2), "JPEG", progressive=True),
    "cmyk.jpg": encoded(picture(3).convert("CMYK"), "JPEG"),
    "grey-16.png": encoded(
        Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)), "PNG"
    ),
    "palette.gif": encoded(picture(4).convert("P"), "GIF"),
    "clear.webp": encoded(picture(5).convert("RGBA"), "WEBP"),
    "scan.TIFF": encoded(picture(6), "TIFF"),
    "old.bmp": encoded(picture(7), "BMP"),
    "really-a-png.jpg": encoded(picture(8), "PNG"),
    "one-pixel.png": encoded(Image.new("RGB", (1, 1)), "PNG"),
    "a thin line.png": encoded(Image.new("RGB", (3000, 1)), "PNG"),
    "überraschung 日本 \U0001f431.jpg": encoded(picture(9), "JPEG"),
    "new\nline.jpg": encoded(picture(10), "JPEG"),
    "trailing-garbage.jpg": encoded(picture(11), "JPEG") + b"\0" * 5000,
}
BAD = {
    "empty.jpg": b"",
    "zeros.jpg": b"\0" * 20_000,
    "text.png": b"this is not a picture\n" * 50,
    "half.jpg": encoded(picture(12), "JPEG")[:3000],
    "half.png": encoded(picture(13), "PNG")[:300],
    "only-a-header.webp": encoded(picture(14), "WEBP")[:40],
    "bomb.png": png_bomb(100_000),
    "bomb.bmp": bmp_bomb(),
    "video.gif": b"\0\0\0\x18ftypmp42" + b"\0" * 500,
    "noise.tif": random.Random(0).randbytes(5000),
    "html.webp": b"<!doctype html><title>404</title>",
}


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    folder = tmp_path / "hostile"
    for number, (name, data) in enumerate((GOOD | BAD).items()):
        place = folder / f"folder {number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    (folder / "a folder.jpg").mkdir()
    (folder / ".hidden.jpg").write_bytes(GOOD["good.jpg"])
    (folder / "._good.jpg").write_bytes(b"\0\5\x16\7")
    (folder / "notes.txt").write_text("no picture")
    (folder / "nowhere.jpg").symlink_to(folder / "not-there.jpg")
    (folder / "round").symlink_to(folder)
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.jpg")
    return folder


def state(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        found[str(path.relative_to(folder))] = (status.st_size, status.st_mtime_ns)
    return found


def test_a_hostile_folder_gives_its_good_pictures_and_names_the_bad(
    hostile: Path, settings: Settings
) -> None:
    before = state(hostile)
    with Library.open(settings.library, create=True) as library:
        report = index_library(library, [hostile], settings=settings)
        assert {failure.path.name for failure in report.failures} == set(BAD)
        assert all(failure.reason for failure in report.failures)
        assert report.added == report.embedded == len(GOOD)
        assert library.check().ok
        again = index_library(library, settings=settings)
        assert (again.embedded, again.failures) == (0, [])
        assert (again.unchanged, again.known_failures) == (len(GOOD), len(BAD))
    assert state(hostile) == before


def test_bombs_are_refused_by_their_header(hostile: Path, settings: Settings) -> None:
    with Library.open(settings.library, create=True) as library:
        report = index_library(library, [hostile], settings=settings)
    reasons = {failure.path.name: failure.reason for failure in report.failures}
    assert "--max-pixels" in reasons["bomb.png"]
    assert "10,000,000,000" in reasons["bomb.png"]
    assert "--max-pixels" in reasons["bomb.bmp"]


def test_damaged_bytes_anywhere_never_end_a_run(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir()
    chance = random.Random(3)
    for number in range(120):
        data = bytearray(chance.choice(list(GOOD.values())))
        for _ in range(chance.randint(1, 20)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        (folder / f"{number}.jpg").write_bytes(data[: chance.randint(1, len(data))])
    report = run(folder, settings)
    assert report.added + report.copied + len(report.failures) == 120


def test_the_command_prints_odd_names_in_any_locale(
    run_cli: Run, hostile: Path, tiny_model_dir: Path
) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    model = f"local-dir:{tiny_model_dir}"
    indexed = run_cli("index", hostile, "--model", model)
    assert indexed.returncode == 100, indexed.stderr
    for form in ("--json", "--paths"):
        done = run_cli("search", "a cat", "--all", "--top", "50", form, env=ascii_only)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    shown = run_cli("search", "a cat", "--all", "--top", "50", "--paths", "--null")
    paths = shown.stdout.split("\0")
    assert sorted(Path(path).name for path in paths if path) == sorted(GOOD)


def test_real_hostile_files_are_read_or_named(settings: Settings) -> None:
    if not MESSY.exists():
        pytest.skip(f"the collection of real hostile files is not here ({MESSY})")
    before = state(MESSY)
    with Library.open(settings.library, create=True) as library:
        report = index_library(library, [MESSY], settings=settings)
        assert library.check().ok
        assert library.counts().items == report.embedded > 100
        again = index_library(library, settings=settings)
        assert (again.embedded, again.failures) == (0, [])
    assert all(failure.reason for failure in report.failures)
    assert state(MESSY) == before


def run(folder: Path, settings: Settings) -> IndexReport:
    with Library.open(settings.library, create=True) as library:
        return index_library(library, [folder], settings=settings)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names that are no text")
def test_a_library_and_photos_under_a_name_that_is_no_text_are_searched(
    run_cli: Run, tiny_model_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / "good.jpg").write_bytes(GOOD["good.jpg"])
    home = ["--library", folder / "my.clipsearch"]
    model = ["--model", f"local-dir:{tiny_model_dir}"]
    assert run_cli("index", folder, *home, *model).returncode == 0
    done = run_cli("search", "a cat", *home, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["path"] == str(folder / "good.jpg")
