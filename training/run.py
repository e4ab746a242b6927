"""A fine-tuning run as a folder: judged on held-out pictures, then exported for search."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from clipsearch.config import Settings
from clipsearch.encoders.openclip import OpenClipModel, load_openclip
from clipsearch.errors import StorageError, TrainingError
from training.data import CaptionedPicture, read_captions, split_by_content
from training.evaluation import Retrieval, evaluate_retrieval
from training.export import export_model
from training.loop import Recipe, Step, encode, train

# Below, a picture more or less decides the figures.
ENOUGH_TO_JUDGE = 50
# Up to here the image tower stays locked: so few pictures teach it less than they make it forget.
LOCK_IMAGES_UP_TO = 500
_BATCH = 64
_LEAST_STEPS = 80
_DEFAULT_EPOCHS = 5
_LR = {"text": 3e-4, "all": 2e-5}
_DEFAULT_VAL_FRACTION = 0.2

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What a person may choose; None leaves it to the number of pictures."""

    epochs: int | None = None
    batch_size: int = _BATCH
    lr: float | None = None
    learn: str | None = None
    seed: int = 0
    val_fraction: float = _DEFAULT_VAL_FRACTION
    keep_held_out: bool = False


@dataclass(frozen=True)
class RunReport:
    """What a run found: retrieval on the held-out pictures before and after, and the export."""

    pictures: int
    held_out: int
    skipped: int
    learn: str
    steps: int
    before: Retrieval
    after: Retrieval
    export: Path


def fine_tune(
    captions: Path,
    out: Path,
    address: str,
    *,
    options: Options,
    settings: Settings,
    tell: Tell,
    on_step: Callable[[str, Step], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> RunReport:
    """Trains on most pictures and judges on the rest; then trains what is exported on all of them.

    With ``keep_held_out`` the judged model itself is exported. A folder that holds an interrupted
    run of the same recipe is continued. Raises CaptionFileError, ModelError, CheckpointError,
    StorageError, and loop.Interrupted after saving.
    """
    if not 0 < options.val_fraction < 1:
        raise TrainingError(
            reason=f"--val-fraction must lie between 0 and 1, not {options.val_fraction}"
        )
    found = read_captions(captions)
    learning, held_out = split_by_content(found.pictures, options.val_fraction, options.seed)
    if not held_out:
        raise TrainingError(
            reason=f"{len(found.pictures)} pictures are too few to hold any out: give at least 3"
        )
    for row in found.skipped[:10]:
        tell(f"{captions}:{row.line}: skipped: {row.reason}")
    if len(found.skipped) > 10:
        tell(f"... and {len(found.skipped) - 10} more rows skipped")
    loaded = load_openclip(address, settings=settings)
    recipe = choose_recipe(len(found.pictures), options)
    _prepare_folder(out, captions, loaded, recipe, options)
    tell(
        f"{len(learning)} pictures to learn from, {len(held_out)} held out; "
        f"{recipe.steps} steps of {min(recipe.batch_size, len(learning))}; learning: {recipe.learn}"
    )
    if len(held_out) < ENOUGH_TO_JUDGE:
        tell(
            f"Only {len(held_out)} pictures are held out: the figures below cannot tell small "
            "differences apart."
        )

    def follow(phase: str) -> Callable[[Step], None]:
        def heard(step: Step) -> None:
            _append(out / "metrics.jsonl", {"phase": phase, **asdict(step)})
            if on_step is not None:
                on_step(phase, step)

        return heard

    before = judge(loaded, held_out)
    judged = out / "checkpoint-judged"
    train(loaded, learning, recipe, judged, tell=follow("judge"), should_stop=should_stop)
    after = judge(loaded, held_out)
    if not options.keep_held_out:
        loaded = load_openclip(address, settings=settings)
        final = out / "checkpoint-final"
        train(loaded, found.pictures, recipe, final, tell=follow("final"), should_stop=should_stop)
    export = out / "export"
    export_model(export, loaded.model.state_dict(), loaded.model_cfg, loaded.preprocess_cfg)
    report = RunReport(
        pictures=len(found.pictures),
        held_out=len(held_out),
        skipped=len(found.skipped),
        learn=recipe.learn,
        steps=recipe.steps,
        before=before,
        after=after,
        export=export,
    )
    _write(out / "report.json", {**asdict(report), "export": str(export)})
    return report


def choose_recipe(pictures: int, options: Options) -> Recipe:
    """Fills what the person left open, by how many pictures there are."""
    learn = options.learn or ("text" if pictures <= LOCK_IMAGES_UP_TO else "all")
    per_epoch = max(1, -(-pictures // options.batch_size))
    steps = (options.epochs or _DEFAULT_EPOCHS) * per_epoch
    if options.epochs is None:
        steps = max(steps, _LEAST_STEPS)
    return Recipe(
        learn=learn,
        steps=steps,
        batch_size=options.batch_size,
        lr=options.lr or _LR[learn],
        warmup=max(1, min(100, steps // 10)),
        seed=options.seed,
    )


def judge(loaded: OpenClipModel, pictures: Sequence[CaptionedPicture]) -> Retrieval:
    """Retrieval among these pictures alone."""
    texts = [caption for picture in pictures for caption in picture.captions]
    owner = [place for place, picture in enumerate(pictures) for _ in picture.captions]
    images, sentences = encode(loaded, pictures, texts)
    return evaluate_retrieval(images, sentences, owner)


def _prepare_folder(
    out: Path, captions: Path, loaded: OpenClipModel, recipe: Recipe, options: Options
) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            path=out, reason=error.strerror or error, advice="choose another place: --out FOLDER"
        ) from error
    config = {
        "captions": str(captions),
        "model": loaded.address,
        "weights_sha256": loaded.weights_sha256,
        "recipe": asdict(recipe),
        "options": asdict(options),
    }
    _write(out / "config.json", config)


def _write(path: Path, record: Mapping[str, object]) -> None:
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _append(path: Path, record: Mapping[str, object]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
