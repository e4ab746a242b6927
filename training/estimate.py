"""How long a run will take here, from a few of its real steps."""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from clipsearch.config import Settings
from clipsearch.encoders.openclip import OpenClipModel
from training.data import CaptionedPicture, CaptionSource
from training.layers import images_move
from training.loop import Interrupted, Recipe, train
from training.probing import find_probe
from training.run import Options, alphas_to_measure, choose_recipe, gather, load_models
from training.team import ALONE, Team
from training.towers import encode_pictures, encode_texts
from training.views import KEPT_BYTES, Views

_STEPS = 4  # the first of them warms up and is not counted
_SAMPLE = 64  # pictures at least, and texts


@dataclass(frozen=True)
class Estimate:
    """What a run will take; times in seconds, memory in bytes (None where it is not known).

    ``steps`` are those of one training, of which there are ``trainings``: one to be judged, and one
    on all pictures. ``measured_s`` is what the estimate itself took.
    """

    pictures: int
    held_out: int
    captions: int
    skipped: int
    learn: str
    batch_size: int
    steps: int
    trainings: int
    step_s: float
    read_s: float
    prepare_s: float
    train_s: float
    judge_s: float
    total_s: float
    peak_memory_bytes: int | None
    measured_s: float


def estimate_run(
    source: CaptionSource,
    address: str,
    *,
    options: Options,
    settings: Settings,
    tell: Callable[[str], None],
    team: Team = ALONE,
) -> Estimate:
    """Reads the captions, loads the model, does a few steps with the sizes of the run, and adds up.

    Nothing is kept of it. The errors of ``run.fine_tune``, but for those of the folder.
    """
    begun = time.monotonic()
    found, learning, held_out = gather(source, options, tell)
    loaded, teacher = load_models(address, options.teacher, settings, team)
    recipe = choose_recipe(len(found.pictures), options, teacher)
    library = settings.library if settings.library.exists() else None
    probe = find_probe(options.probe, library, found.pictures, options.seed)
    read_s = time.monotonic() - begun
    # As many as a batch takes, so that steps have their true size; drawn, as sizes may be sorted.
    count = min(len(learning), max(recipe.batch_size, _SAMPLE))
    sample = random.Random(options.seed).sample(learning, count)

    views = Views(sample[:_SAMPLE], loaded.preprocessing)
    started = time.monotonic()
    encode_pictures(loaded, views)
    picture_s = (time.monotonic() - started) / len(views)
    texts = [picture.captions[0] for picture in sample[:_SAMPLE]]
    started = time.monotonic()
    encode_texts(loaded, texts)
    text_s = (time.monotonic() - started) / len(texts)

    prepare_s, step_s, save_s = _measure(loaded, sample, recipe, teacher, team)
    moves = images_move(recipe.learn)
    trainings = 1 if options.keep_held_out else 2
    asked = 2 + len(alphas_to_measure(moves))  # before, at each mixture, and what is exported
    held_texts = sum(len(picture.captions) for picture in held_out)
    judge_s = asked * (
        (picture_s * (len(held_out) + len(probe.pictures)) if moves else 0.0)
        + text_s * (held_texts + len(probe.texts))
    )
    if not moves:
        judge_s += picture_s * (len(held_out) + len(probe.pictures))
    per_training = prepare_s * len(learning) / count + step_s * recipe.steps
    if options.last_epoch_size:  # as many times longer as it has pixels more
        larger = (options.last_epoch_size / loaded.preprocessing.width) ** 2
        per_training += step_s * larger * -(-len(learning) // min(count, recipe.batch_size))
    per_training += save_s * -(-recipe.steps // recipe.save_every)
    return Estimate(
        pictures=len(found.pictures),
        held_out=len(held_out),
        captions=sum(len(picture.captions) for picture in found.pictures),
        skipped=len(found.skipped),
        learn=recipe.learn,
        batch_size=min(recipe.batch_size, len(learning)),
        steps=recipe.steps,
        trainings=trainings,
        step_s=round(step_s, 4),
        read_s=round(read_s, 1),
        prepare_s=round(prepare_s * len(learning) / count * trainings, 1),
        train_s=round(per_training * trainings, 1),
        judge_s=round(judge_s, 1),
        total_s=round(read_s + per_training * trainings + judge_s, 1),
        peak_memory_bytes=_peak_memory(loaded, count, len(found.pictures)),
        measured_s=round(time.monotonic() - begun, 1),
    )


def _measure(
    loaded: OpenClipModel,
    sample: Sequence[CaptionedPicture],
    recipe: Recipe,
    teacher: OpenClipModel | None,
    team: Team,
) -> tuple[float, float, float]:
    """Seconds to prepare, of a step, and to save a checkpoint, with the loop itself."""
    moments: list[float] = []

    def stop() -> bool:
        moments.append(time.monotonic())
        return len(moments) > _STEPS

    few = replace(recipe, steps=max(recipe.steps, _STEPS + 1), save_every=10**9)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, suppress(Interrupted):
        train(loaded, sample, few, Path(folder), teacher=teacher, team=team, should_stop=stop)
    saved = time.monotonic()
    steps = [after - before for before, after in pairwise(moments)]
    return moments[0] - started, sum(steps[1:]) / len(steps[1:]), saved - moments[-1]


def _peak_memory(loaded: OpenClipModel, measured: int, pictures: int) -> int | None:
    """What this process took at most, and what a run keeps besides: weights and pictures."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024
    weights = sum(value.nbytes for value in loaded.model.state_dict().values())
    size = loaded.preprocessing
    picture = 3 * size.height * size.width * 3  # at 1.5 times the side, 4:3
    kept = min(KEPT_BYTES, picture * pictures) - min(KEPT_BYTES, picture * measured)
    return int(peak + 3 * weights + kept)
