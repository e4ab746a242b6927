"""A fine-tuning run as a folder: judged on held-out pictures, then exported for search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch.nn import Module

from clipsearch.config import Settings
from clipsearch.counting import counted
from clipsearch.encoders.openclip import OpenClipModel, load_openclip
from clipsearch.encoders.openclip_cutting import context_length_of, unread_by
from clipsearch.encoders.unread import summed_unread
from clipsearch.errors import TrainingError
from training.data import (
    MOST_COMPARED,
    CaptionedPicture,
    CaptionSet,
    CaptionSource,
    read_captions,
    require_distinct,
    split_by_content,
)
from training.evaluation import Retrieval
from training.examples import Example, find_examples
from training.export import export_model
from training.forgetting import Exam, Kept, Mixture, Weights, choose, copy_weights, mix
from training.layers import check_learn, images_move
from training.loop import Recipe, Step
from training.phases import Phases
from training.probing import find_probe
from training.reporting import write_reports
from training.run_folder import SKIPPED, RunFolder
from training.team import ALONE, Team
from training.views import Cut

# Below, a picture more or less decides the figures.
ENOUGH_TO_JUDGE = 50
# Up to here the image tower stays locked: so few pictures teach it less than they make it forget.
LOCK_IMAGES_UP_TO = 500
_BATCH = 64
_LEAST_STEPS = 80
_DEFAULT_EPOCHS = 5
# Highest learning rates, measured in benchmarks/forgetting.py for text; others as for all of it.
_LR = {"text": 3e-4, "projection": 3e-4, "lora": 3e-4}
_LR_WHOLE = 2e-5
DEFAULT_MAX_FORGETTING = 1.0  # percentage points of R@10 on the probe
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
    max_forgetting: float = DEFAULT_MAX_FORGETTING
    probe: Path | None = None  # captions of general pictures
    loss: str = "clip"
    keep_close: float = 0.0
    layer_decay: float = 1.0
    chunk: int = 0
    cut: Cut = field(default_factory=Cut)
    ema: float = 0.0
    precision: str = "f32"
    compiled: bool = False
    checkpoint_blocks: bool = False
    teacher: str | None = None  # address
    teach: str = "both"
    teacher_weight: float = 1.0
    last_epoch_size: int | None = None  # pixels


@dataclass(frozen=True)
class Guarded:
    """What the guard against forgetting found; recall is R@10 on the probe, in percent."""

    source: str  # of the probe: file | library | texts
    trust: str
    max_forgetting: float
    before: float
    after: float
    unguarded: float  # with the new weights alone


@dataclass(frozen=True)
class RunReport:
    """What a run found: retrieval on the held-out pictures before and after, and the export.

    ``alpha`` is the share of the new weights in what is exported, ``mixtures`` what was measured
    at every share. Where nothing could be kept alpha is 0 and nothing is exported.
    """

    pictures: int
    held_out: int
    skipped: int
    learn: str
    steps: int
    before: Retrieval
    after: Retrieval
    alpha: float
    forgetting: Guarded
    mixtures: tuple[Mixture, ...]
    trained_on_all: bool  # what is exported has also learnt the held-out pictures
    export: Path | None


def fine_tune(
    captions: Path | CaptionSource,
    out: Path,
    address: str,
    *,
    options: Options,
    settings: Settings,
    tell: Tell,
    on_step: Callable[[str, Step], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    team: Team = ALONE,
) -> RunReport:
    """Trains on most pictures and judges on the rest; then trains what is exported on all of them.

    With ``keep_held_out`` the judged model itself is exported. A folder that holds an interrupted
    run of the same recipe is continued. Every process of a ``team`` calls this; the first alone
    speaks, writes and decides. Raises CaptionFileError, ModelError, CheckpointError,
    StorageError, and loop.Interrupted after saving.
    """
    source = CaptionSource((captions,)) if isinstance(captions, Path) else captions
    tell = tell if team.leads else _silent
    found, learning, held_out = gather(source, options, tell, spill_in=out)
    loaded, teacher = load_models(address, options.teacher, settings, team)
    tell_unread(loaded, found.pictures, "the model", tell)
    if teacher is not None:
        tell_unread(teacher, found.pictures, "the teacher", tell)
    recipe = choose_recipe(len(found.pictures), options, teacher)
    folder = RunFolder(out)
    phases = Phases(
        loaded, recipe, folder, options.last_epoch_size, teacher, team, on_step, should_stop
    )
    start, old = phases.start()
    if team.leads:
        folder.prepare(_config(source, loaded, recipe, options), found.skipped)
    tell(
        f"{counted(len(learning), 'picture')} to learn from, {len(held_out)} held out; "
        f"{recipe.steps} steps of {min(recipe.batch_size, len(learning))}; learning: {recipe.learn}"
    )
    if len(held_out) < ENOUGH_TO_JUDGE:
        tell(
            f"Only {counted(len(held_out), 'picture is', 'pictures are')} held out: the figures "
            "below cannot tell small "
            "differences apart."
        )

    library = settings.library if settings.library.exists() else None
    probe = find_probe(options.probe, library, found.pictures, options.seed, spill_in=out)
    tell(f"So that nothing else is forgotten, watched over: {probe.trust}.")
    moves = images_move(recipe.learn)
    kept = Kept(loaded, probe, images_move=moves)
    exam = Exam(loaded, held_out, images_move=moves)
    before, _ = exam.sit()
    at_first = exam.answers()
    learned = phases.learn(learning, "judged", "judge")
    exam.turn_to(learned)
    kept.turn_to(learned)
    new = copy_weights(learned.model)
    mixtures, ranks = _mixtures(learned.model, old, new, exam, kept, moves)
    chosen = choose(mixtures, ranks, kept.before, options.max_forgetting)
    alpha, recall = team.agree((chosen.alpha, chosen.kept))
    mix(learned.model, old, new, alpha)
    examples: list[Example] = []
    if alpha and team.leads:
        examples = find_examples(exam.texts, exam.owner, at_first, exam.answers())
    on_all = bool(alpha) and not options.keep_held_out
    if on_all:
        loaded.model.load_state_dict(start)
        learned = phases.learn(found.pictures, "final", "final")
        kept.turn_to(learned)
        safe = _largest_safe(learned.model, old, kept, alpha, options.max_forgetting)
        alpha, recall = team.agree(safe)
    export = out / "export" if alpha else None
    if export is not None and team.leads:
        export_model(export, learned.model.state_dict(), learned.model_cfg, learned.preprocess_cfg)
    report = RunReport(
        pictures=len(found.pictures),
        held_out=len(held_out),
        skipped=len(found.skipped),
        learn=recipe.learn,
        steps=recipe.steps,
        before=before,
        after=chosen.own,
        alpha=alpha,
        forgetting=Guarded(
            source=probe.source,
            trust=probe.trust,
            max_forgetting=options.max_forgetting,
            before=kept.before,
            after=recall,
            unguarded=mixtures[-1].kept,
        ),
        mixtures=mixtures,
        trained_on_all=on_all,
        export=export,
    )
    if team.leads:
        write_reports(folder, report, source, found, loaded, recipe, exam, examples)
    return report


def load_models(
    address: str, teacher: str | None, settings: Settings, team: Team
) -> tuple[OpenClipModel, OpenClipModel | None]:
    """What learns, where the team computes, and its teacher if there is one."""
    loaded = load_openclip(address, settings=settings)
    loaded.model.to(team.device)
    return loaded, load_openclip(teacher, settings=settings) if teacher else None


def tell_unread(
    loaded: OpenClipModel, pictures: Sequence[CaptionedPicture], reader: str, tell: Tell
) -> None:
    """Says once how many captions are longer than a model reads."""
    captions = [caption for picture in pictures for caption in picture.captions]
    unread = unread_by(loaded.tokenizer, captions)
    length = context_length_of(loaded.tokenizer)
    note = summed_unread(captions, unread, length, "captions", reader)
    if note is not None:
        tell(f"{note}. That is not learned; shorter captions are, or several a picture")


def gather(
    source: CaptionSource, options: Options, tell: Tell, *, spill_in: Path | None = None
) -> tuple[CaptionSet, list[CaptionedPicture], list[CaptionedPicture]]:
    """Reads and splits what is to be learnt: all, those to learn from, those held out."""
    if not 0 < options.val_fraction < 1:
        raise TrainingError(
            reason=f"--val-fraction must lie between 0 and 1, not {options.val_fraction}"
        )
    found = read_captions(source, spill_in)
    require_distinct(found.pictures, source.name)
    learning, held_out = split_by_content(found.pictures, options.val_fraction, options.seed)
    if not held_out:
        raise TrainingError(
            reason=f"{counted(len(found.pictures), 'picture is', 'pictures are')} too few to "
            "hold any out: give at least 3 "
            "different ones"
        )
    for row in found.skipped[:10]:
        tell(f"{row.where}: skipped: {row.reason}")
    if len(found.skipped) > 10:
        tell(f"... and {len(found.skipped) - 10} more rows skipped, all in {SKIPPED} of the run")
    if found.near_copies:
        tell(f"{found.near_copies} pictures are copies of others, resized or re-encoded: kept on "
             "the same side of the split")  # fmt: skip
    if len(found.pictures) > MOST_COMPARED:
        tell(f"Over {MOST_COMPARED:,} pictures: copies that were resized or re-encoded are not "
             "looked for, only identical files")  # fmt: skip
    return found, learning, held_out


def choose_recipe(pictures: int, options: Options, teacher: OpenClipModel | None = None) -> Recipe:
    """Fills what the person left open, by how many pictures there are."""
    learn = check_learn(options.learn or ("text" if pictures <= LOCK_IMAGES_UP_TO else "all"))
    per_epoch = max(1, -(-pictures // options.batch_size))
    steps = (options.epochs or _DEFAULT_EPOCHS) * per_epoch
    if options.epochs is None:
        steps = max(steps, _LEAST_STEPS)
    return Recipe(
        learn=learn,
        steps=steps,
        batch_size=options.batch_size,
        lr=options.lr or _LR.get(learn.partition(":")[0], _LR_WHOLE),
        warmup=max(1, min(100, steps // 10)),
        seed=options.seed,
        loss=options.loss,
        keep_close=options.keep_close,
        layer_decay=options.layer_decay,
        chunk=options.chunk,
        cut=options.cut,
        ema=options.ema,
        precision=options.precision,
        compiled=options.compiled,
        checkpoint_blocks=options.checkpoint_blocks,
        teacher=teacher.weights_sha256 if teacher else "",
        teach=options.teach,
        teacher_weight=options.teacher_weight,
    )


def alphas_to_measure(images_move: bool) -> list[float]:
    """The shares of the new weights that are tried: fewer where pictures must be encoded."""
    return [tenths / 10 for tenths in range(0, 11, 2 if images_move else 1)]


def _mixtures(
    model: Module, old: Weights, new: Weights, exam: Exam, kept: Kept, moves: bool
) -> tuple[tuple[Mixture, ...], list[NDArray[np.int64]]]:
    """What is measured at each alpha, ascending, and the held-out captions' ranks."""
    mixtures, all_ranks = [], []
    for alpha in alphas_to_measure(moves):
        mix(model, old, new, alpha)
        own, ranks = exam.sit()
        mixtures.append(Mixture(alpha, own, kept.now()))
        all_ranks.append(ranks)
    return tuple(mixtures), all_ranks


def _largest_safe(
    model: Module, old: Weights, kept: Kept, most: float, max_forgetting: float
) -> tuple[float, float]:
    """Leaves ``model`` at the largest alpha up to ``most`` that the probe allows; (alpha, recall).

    The alpha was chosen with another run's weights, those of the judged one: what is exported is
    measured itself.
    """
    new = copy_weights(model)
    for tenths in range(round(10 * most), 0, -1):
        mix(model, old, new, tenths / 10)
        recall = kept.now()
        if kept.before - recall <= max_forgetting:
            return tenths / 10, recall
    mix(model, old, new, 0)
    return 0.0, kept.before


def _config(
    source: CaptionSource, loaded: OpenClipModel, recipe: Recipe, options: Options
) -> dict[str, object]:
    return {
        "captions": [str(path) for path in source.paths],
        "from_library": source.library and str(source.library),
        "columns": asdict(source.columns),
        "model": loaded.address,
        "weights_sha256": loaded.weights_sha256,
        "recipe": asdict(recipe),
        "options": {**asdict(options), "probe": options.probe and str(options.probe)},
    }


def _silent(_: str) -> None:
    """What a process says that does not lead."""
