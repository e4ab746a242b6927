"""The demo finds the right photos, and a second run does nothing twice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

DEMO = Path(__file__).parents[1] / "sample_data" / "demo.py"


@pytest.mark.usefixtures("embedded_library")
def test_the_demo_answers_its_questions_and_draws_them(tmp_path: Path) -> None:
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, str(DEMO), str(tmp_path / "demo")],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "25 unchanged" in done.stderr
    assert done.stdout.count("right  ") >= 13  # 11 typed, 2 by a picture
    with Image.open(tmp_path / "demo" / "results.jpg") as sheet:
        assert sheet.width > 900
