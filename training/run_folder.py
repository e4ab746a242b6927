"""A run as a folder: what was asked, what each step did, and what it came to."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clipsearch.errors import StorageError
from training.captions.rows import SkippedRow
from training.loop import Step

CONFIG, METRICS, REPORT = "config.json", "metrics.jsonl", "report.json"
SKIPPED, PAGE, CARD, PLOTS = "skipped.jsonl", "report.html", "MODEL_CARD.md", "plots"


class RunFolder:
    """Writes the files of a run; a continued run continues them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._metrics = path / METRICS
        self._begun: dict[str, Any] = {}  # by phase, its TensorBoard writer or None

    def prepare(self, config: Mapping[str, object], skipped: Sequence[SkippedRow]) -> None:
        """Makes the folder; StorageError if it cannot be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.write_json(CONFIG, config)
            lines = [json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in skipped]
            self.write_text(SKIPPED, "".join(lines))
        except OSError as error:
            raise StorageError(
                path=self.path,
                reason=error.strerror or error,
                advice="choose another place: --out FOLDER",
            ) from error

    def log(self, phase: str, step: Step) -> None:
        """Adds a line to the metrics, and to TensorBoard's events where it is installed.

        The first step of a phase removes what an earlier, interrupted run wrote of it and of those
        after it: steps that were done after the last checkpoint are done again.
        """
        if phase not in self._begun:
            self._forget(phase, step.step)
            self._begun[phase] = _tensorboard(self.path / "tensorboard" / phase, step.step)
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"phase": phase, **asdict(step)}) + "\n")
        if (board := self._begun[phase]) is not None:
            for name in ("loss", "logit_scale", "lr"):
                board.add_scalar(name, getattr(step, name), step.step)

    def steps(self) -> list[dict[str, Any]]:
        """The lines of the metrics so far."""
        try:
            lines = self._metrics.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            try:
                found.append(json.loads(line))
            except ValueError:  # the last line of a process that was killed
                continue
        return found

    def _forget(self, phase: str, first: int) -> None:
        steps = self.steps()
        kept = [each for each in steps if each["phase"] != phase or each["step"] < first]
        if self._metrics.exists():
            self.write_text(METRICS, "".join(json.dumps(each) + "\n" for each in kept))

    def write_json(self, name: str, record: Mapping[str, object]) -> None:
        self.write_text(name, json.dumps(record, indent=2, ensure_ascii=False) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """Replaces a file only when the new one is complete."""
        self.write_bytes(name, text.encode("utf-8", "replace"))

    def write_bytes(self, name: str, data: bytes) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_name(f"{path.name}.part")
        half.write_bytes(data)
        half.replace(path)

    def close(self) -> None:
        for board in self._begun.values():
            if board is not None:
                board.close()


def _tensorboard(folder: Path, first: int) -> Any:
    """A writer of events if TensorBoard is installed; None otherwise."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter  # torch gives it no types
    return writer(str(folder), purge_step=first)
