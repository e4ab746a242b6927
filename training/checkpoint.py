"""The state of a run on disk, without pickle: safetensors for tensors, JSON for the rest."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from clipsearch.errors import CheckpointError

_STATE, _PLACE = "state.safetensors", "step.json"


def save_checkpoint(
    folder: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    recipe: str,
    average: dict[str, torch.Tensor],
) -> None:
    """Writes everything the next step depends on. Random numbers depend on the step alone.

    ``average`` are the weights' running means by name; empty if there are none.

    The new state is complete under a name of its own before the one small file that names it is
    replaced, so a crash leaves the old checkpoint or the new one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for place, state in optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer.{place}.{name}": value for name, value in state.items()})
    tensors.update({f"average.{name}": value for name, value in average.items()})
    name = f"{step}-{_STATE}"
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, folder / name)
    half = folder / f"{_PLACE}.part"
    half.write_text(json.dumps({"step": step, "state": name, "recipe": recipe}), encoding="utf-8")
    with half.open("rb+") as file:
        os.fsync(file.fileno())
    half.replace(folder / _PLACE)
    for old in folder.glob(f"*-{_STATE}"):
        if old.name != name:
            old.unlink()


def load_checkpoint(
    folder: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: str,
    average: dict[str, torch.Tensor],
) -> int:
    """Restores what ``save_checkpoint`` wrote, in place, and returns the step; 0 if there is none.

    CheckpointError if it belongs to another recipe (model, data or settings) or is damaged.
    """
    try:
        place = json.loads((folder / _PLACE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return 0
    except (OSError, ValueError) as error:
        raise CheckpointError(path=folder, reason=error, advice="Start anew.") from error
    if place.get("recipe") != recipe:
        raise CheckpointError(
            path=folder,
            reason=_difference(str(place.get("recipe")), recipe),
            advice="Use those again, or choose another folder: --out FOLDER",
        )
    try:
        tensors = load_file(folder / place["state"])
        state: dict[int, dict[str, Any]] = {}
        weights = {}
        for key, value in tensors.items():
            kind, _, name = key.partition(".")
            if kind == "model":
                weights[name] = value
            elif kind == "average":
                average[name].copy_(value)
            else:
                number, _, what = name.partition(".")
                state.setdefault(int(number), {})[what] = value
        model.load_state_dict(weights)
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(path=folder, reason=error, advice="Start anew.") from error
    return int(place["step"])


def _difference(before: str, now: str) -> str:
    """What is not as it was, of what ``Recipe.signature`` names."""
    try:
        then, today = json.loads(before), json.loads(now)
        changed = [name for name in today if then.get(name) != today[name]]
        if changed == ["settings"]:
            old, new = then["settings"], today["settings"]
            named = [f"{name} was {old.get(name)}" for name in new if old.get(name) != new[name]]
            return f"it was made with other settings ({', '.join(named)})"
    except (ValueError, AttributeError, TypeError):
        return "it was made by another version of clipsearch"
    return f"it was made with other {' and other '.join(changed)}"
