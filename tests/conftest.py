"""Fixtures that several test files share: real photos, a tiny real model, a command line.

What takes long is made once in a session, by whichever worker needs it first (see ``once``).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

# Before numpy, faiss or torch start their thread pools: two OpenMP runtimes on few cores.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
from hypothesis import HealthCheck, settings
from models import compile_here
from once import made_once, shared_folder

from clipsearch.library import Library

REPOSITORY = Path(__file__).parents[1]
settings.register_profile(
    "clipsearch", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("clipsearch")


@pytest.fixture(scope="session", autouse=True)
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the workers share; compiled models are kept there, not in the developer's own cache."""
    folder = shared_folder(tmp_path_factory)
    os.environ["CLIPSEARCH_CACHE_DIR"] = str(folder / "cache")
    return folder


@pytest.fixture(scope="session")
def real_photos(shared: Path) -> Path:
    """A folder with the 25 real photos of sample_data, and their captions.csv; for reading."""
    sys.path.insert(0, str(REPOSITORY / "sample_data"))
    try:
        from gather import gather
    finally:
        sys.path.pop(0)
    return made_once(shared / "photos", gather)


@pytest.fixture(scope="session")
def embedded_library(shared: Path, real_photos: Path) -> Path:
    """The library of the real photos, as a run with the embedded model leaves it.

    The model is compiled, so whoever asks for this has that, too. For reading; copy it to
    change it.
    """

    def make(library: Path) -> None:
        compile_here("embedded")
        index = [sys.executable, "-m", "clipsearch", "index", str(real_photos), "--quiet"]
        flags = ["--model", "embedded", "--library", str(library)]
        subprocess.run([*index, *flags], check=True, capture_output=True, timeout=300)

    return made_once(shared / "embedded.clipsearch", make)


@pytest.fixture
def library_copy(embedded_library: Path, tmp_path: Path) -> Iterator[Library]:
    """An opened copy of the library of the real photos; for changing."""
    copy = tmp_path / "copy.clipsearch"
    shutil.copytree(embedded_library, copy)
    with Library.open(copy) as opened:
        yield opened


@pytest.fixture(scope="session")
def tiny_model_dir(shared: Path) -> Path:
    """A real open_clip ViT with random weights (32 px, 16 dimensions), saved as local-dir.

    It is compiled already, so that what is run as a process of its own need not import torch.
    """

    def make(folder: Path) -> None:
        _save_tiny_model(folder)
        compile_here(f"local-dir:{folder}")

    return made_once(shared / "tiny-model", make)


def _save_tiny_model(folder: Path) -> None:
    import open_clip
    import torch
    from safetensors.torch import save_file

    model_cfg = {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": 32,
            "layers": 2,
            "width": 32,
            "head_width": 16,
            "patch_size": 8,
        },
        "text_cfg": {
            "context_length": 16,
            "vocab_size": 49408,
            "width": 32,
            "heads": 2,
            "layers": 2,
        },
    }
    preprocess_cfg = {
        "size": [32, 32],
        "mode": "RGB",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
        "fill_color": 0,
    }
    torch.manual_seed(7)
    model = open_clip.CLIP(**model_cfg)
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg})
    )
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )


@pytest.fixture
def library_path(tmp_path: Path) -> Path:
    """Where a test's library goes; nothing is there yet."""
    return tmp_path / "test.clipsearch"


@pytest.fixture
def run_cli(library_path: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the clipsearch command as a new process on the test's own library."""

    def run(
        *arguments: str | Path, env: dict[str, str] | None = None, timeout_s: float = 240
    ) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "CLIPSEARCH_LIBRARY": str(library_path),
            **(env or {}),
        }
        return subprocess.run(
            [sys.executable, "-m", "clipsearch", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=environment,
            cwd=tmp_path,
            check=False,
        )

    return run


@pytest.fixture
def call_cli(library_path: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Like ``run_cli``, in this process: where what is tested is not the process itself."""

    def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        from clipsearch.cli import main

        given = [str(argument) for argument in arguments]
        out, err = io.StringIO(), io.StringIO()
        with (
            patch.dict(os.environ, CLIPSEARCH_LIBRARY=str(library_path)),
            contextlib.chdir(tmp_path),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = main(given)
        return subprocess.CompletedProcess(given, code, out.getvalue(), err.getvalue())

    return call
