"""Fixtures that several test files share: real photos, a tiny real model, a command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

# Before numpy, faiss or torch start their thread pools: two OpenMP runtimes on few cores.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).parents[1]
settings.register_profile(
    "clipsearch", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("clipsearch")


@pytest.fixture(scope="session")
def real_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the 25 real photos of sample_data, and their captions.csv."""
    sys.path.insert(0, str(REPOSITORY / "sample_data"))
    try:
        from gather import gather
    finally:
        sys.path.pop(0)
    folder = tmp_path_factory.mktemp("photos")
    gather(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real open_clip ViT with random weights (32 px, 16 dimensions), saved as local-dir."""
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
    folder = tmp_path_factory.mktemp("tiny-model")
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg})
    )
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        folder / "open_clip_model.safetensors",
    )
    return folder


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
