"""The training command: train."""

from __future__ import annotations

import signal
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from clipsearch import errors
from clipsearch.command import (
    Command,
    add_json_argument,
    add_library_argument,
    add_model_argument,
    say,
)
from clipsearch.config import resolve
from clipsearch.errors import LibraryNotFoundError, UsageError
from clipsearch.user_paths import expand_user
from training.telling import Progress, tell_estimate, tell_report

if TYPE_CHECKING:
    from clipsearch.config import Settings
    from training.data import CaptionSource
    from training.run import Options
    from training.team import Team


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--captions",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="CSV, TSV, JSON lines, Parquet, WebDataset tars, or a folder of them or of photos "
        "with a .txt beside each; a picture may have several captions",
    )
    parser.add_argument(
        "--from-library",
        action="store_true",
        help="also learn from the library: captions, your tags, those that you confirmed in "
        "review, and queries whose answers you gave a thumb up; never a model's own tags",
    )
    parser.add_argument(
        "--image-column",
        metavar="NAME",
        help="the column of pictures: paths or bytes (default: guessed, such as path or image)",
    )
    parser.add_argument(
        "--caption-column",
        metavar="NAME",
        help="the column of captions (default: guessed, such as caption or text)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where the run is kept; needed but for --estimate",
    )
    parser.add_argument(
        "--estimate",
        action="store_true",
        help="do a few steps, say how long the run would take here and how much memory, and stop",
    )
    add_model_argument(parser, "what to start from (default: the library's model, else embedded)")
    add_library_argument(parser)
    parser.add_argument(
        "--epochs",
        type=int,
        metavar="N",
        help="passes over the pictures (default: 5, at least 80 steps)",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=64,
        metavar="N",
        help="pictures in one step (default %(default)s)",
    )
    parser.add_argument("--lr", type=float, metavar="RATE", help="highest learning rate")
    parser.add_argument(
        "--learn",
        metavar="WHAT",
        help="what may change: all; text, the image tower being locked (default up to 500 "
        "pictures); images, the text tower being locked; projection; last:N blocks of each "
        "tower; lora or lora:RANK",
    )
    parser.add_argument(
        "--layer-decay",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="each block learns at this share of the rate of the one above it (default 1)",
    )
    parser.add_argument(
        "--loss",
        choices=["clip", "siglip"],
        default="clip",
        help="softmax over the batch, or each pair by itself (default %(default)s)",
    )
    parser.add_argument(
        "--chunk",
        type=int,
        default=0,
        metavar="N",
        help="pictures held in memory at once, for a --batch-size beyond it (default: all)",
    )
    parser.add_argument(
        "--crop-scale",
        type=float,
        default=0.6,
        metavar="SHARE",
        help="the least share of the largest square that a training picture is cut to; 1 is the "
        "random square crop of CLIP's paper (default %(default)s)",
    )
    parser.add_argument(
        "--aspect-jitter",
        type=float,
        default=1.0,
        metavar="FACTOR",
        help="squeeze training pictures by up to this factor either way; 1.4 helps where photos "
        "were squashed to squares (default %(default)s: not at all)",
    )
    parser.add_argument(
        "--flip",
        action="store_true",
        help="mirror half of the training pictures; not where captions tell left from right",
    )
    parser.add_argument(
        "--max-forgetting",
        type=float,
        default=1.0,
        metavar="POINTS",
        help="how far recall@10 on general pictures may fall, in percentage points "
        "(default %(default)s; 100: as far as it likes)",
    )
    parser.add_argument(
        "--probe",
        type=Path,
        metavar="FILE",
        help="captions of general pictures to measure that on (default: the library's photos)",
    )
    parser.add_argument(
        "--keep-close",
        type=float,
        default=0.0,
        metavar="WEIGHT",
        help="how strongly to hold the model to its old vectors while it learns (default 0)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the split and the crops (default 0)"
    )
    parser.add_argument(
        "--val-fraction",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="share of the pictures to judge on (default %(default)s)",
    )
    parser.add_argument(
        "--keep-held-out",
        action="store_true",
        help="export the judged model; else one trained on all pictures with the same recipe",
    )
    _configure_arithmetic(parser)
    add_json_argument(parser)
    parser.epilog = (
        "Ctrl-C saves a checkpoint; the same command continues from it, with the same result. "
        "Several processes share the work: torchrun --standalone --nproc-per-node 2 "
        "-m clipsearch train ..."
    )


def _configure_arithmetic(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--teacher",
        metavar="ADDRESS",
        help="another model to learn from, besides the captions (distillation)",
    )
    parser.add_argument(
        "--teach",
        choices=["both", "images", "texts"],
        default="both",
        help="what it teaches: which pictures fit which captions, which pictures are alike, or "
        "which captions are (default %(default)s)",
    )
    parser.add_argument(
        "--teacher-weight",
        type=float,
        default=1.0,
        metavar="WEIGHT",
        help="how much the teacher counts against the captions (default 1)",
    )
    parser.add_argument(
        "--last-epoch-size",
        type=int,
        metavar="PIXELS",
        help="one more epoch with pictures of this size, as CLIP's at 336; the exported model "
        "takes that size",
    )
    parser.add_argument(
        "--ema",
        type=float,
        default=0.0,
        metavar="DECAY",
        help="keep the running mean of the weights instead of the last ones, 0.999 for example",
    )
    parser.add_argument(
        "--precision",
        choices=["auto", "f32", "bf16"],
        help="of the towers' arithmetic (auto: bf16 on a GPU that has it, else f32)",
    )
    parser.add_argument(
        "--checkpoint-blocks",
        action="store_true",
        help="keep less of each transformer block and compute it again: less memory, more time",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the image tower with torch.compile: a minute or more at first; made for "
        "GPUs, no faster on the CPUs measured; needs a C++ compiler",
    )
    parser.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], help="where to train (auto: a GPU if any)"
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="of each process (default: the cores, shared)"
    )


def _run(arguments: Namespace) -> int:
    _check(arguments)
    settings = _settings(arguments)
    import torch

    from training.captions.rows import Columns
    from training.data import CaptionSource
    from training.device import choose_device, choose_precision
    from training.loop import Interrupted
    from training.run import Options, fine_tune
    from training.team import join_team, processes_here
    from training.views import Cut

    torch.set_num_threads(settings.threads or max(1, settings.thread_count // processes_here()))
    device = choose_device(settings)
    options = Options(
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        lr=arguments.lr,
        learn=arguments.learn,
        seed=arguments.seed,
        val_fraction=arguments.val_fraction,
        keep_held_out=arguments.keep_held_out,
        max_forgetting=arguments.max_forgetting,
        probe=arguments.probe and expand_user(arguments.probe).absolute(),
        loss=arguments.loss,
        keep_close=arguments.keep_close,
        layer_decay=arguments.layer_decay,
        chunk=arguments.chunk,
        cut=Cut(arguments.crop_scale, arguments.aspect_jitter, arguments.flip),
        ema=arguments.ema,
        precision=choose_precision(settings, device),
        compiled=arguments.compile,
        checkpoint_blocks=arguments.checkpoint_blocks,
        teacher=arguments.teacher,
        teach=arguments.teach,
        teacher_weight=arguments.teacher_weight,
        last_epoch_size=arguments.last_epoch_size,
    )
    source = CaptionSource(
        tuple(expand_user(path).absolute() for path in arguments.captions),
        settings.library if arguments.from_library else None,
        Columns(arguments.image_column, arguments.caption_column),
    )
    if arguments.estimate:
        with join_team(device) as team:
            _estimate(arguments, source, options, settings, team)
        return errors.DONE
    progress = Progress(trainings=1 if arguments.keep_held_out else 2)
    stopping: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: stopping.append(number))
    try:
        with join_team(device) as team:
            report = fine_tune(
                source,
                expand_user(arguments.out).absolute(),
                _start_from(arguments),
                options=options,
                settings=settings,
                tell=say,
                on_step=progress.show,
                should_stop=lambda: bool(stopping),
                team=team,
            )
    except Interrupted:
        say("\nStopped and saved. The same command continues from here.")
        return errors.INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, before)
    if team.leads:
        tell_report(report, as_json=arguments.json)
    return errors.DONE


def _check(arguments: Namespace) -> None:
    """UsageError for values that cannot be used."""
    for name in ("epochs", "batch_size"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UsageError(reason=f"--{name.replace('_', '-')} must be at least 1, not {value}")
    if arguments.chunk < 0:
        raise UsageError(reason=f"--chunk must be at least 0, not {arguments.chunk}")
    if not 0 <= arguments.ema < 1:
        raise UsageError(reason=f"--ema must lie in [0, 1), not {arguments.ema}")
    if arguments.last_epoch_size is not None and arguments.last_epoch_size < 1:
        raise UsageError(
            reason=f"--last-epoch-size must be at least 1, not {arguments.last_epoch_size}"
        )
    for name in ("max_forgetting", "keep_close", "teacher_weight"):
        value = getattr(arguments, name)
        if not value >= 0:
            raise UsageError(reason=f"--{name.replace('_', '-')} must be at least 0, not {value}")
    if not 0 < arguments.layer_decay <= 1:
        raise UsageError(reason=f"--layer-decay must lie in (0, 1], not {arguments.layer_decay}")
    if not arguments.captions and not arguments.from_library:
        raise UsageError(reason="Nothing to learn from: give --captions FILE or --from-library")
    if arguments.out is None and not arguments.estimate:
        raise UsageError(reason="Where is the run to be kept? Give --out FOLDER, or --estimate")
    if not 0 < arguments.crop_scale <= 1:
        raise UsageError(reason=f"--crop-scale must lie in (0, 1], not {arguments.crop_scale}")
    if not 1 <= arguments.aspect_jitter <= 4:
        raise UsageError(
            reason=f"--aspect-jitter must lie in [1, 4], not {arguments.aspect_jitter}"
        )


def _settings(arguments: Namespace) -> Settings:
    """With those of the library, if it is there."""
    from clipsearch.library import Library

    flags = vars(arguments)
    try:
        with Library.open(resolve(flags).library) as library:
            return resolve(flags, library.settings())
    except LibraryNotFoundError:
        return resolve(flags)


def _start_from(arguments: Namespace) -> str:
    """The model that was named, else the library's, else the embedded one."""
    if arguments.model is not None:
        return str(arguments.model)
    from clipsearch.library import Library

    try:
        with Library.open(resolve(vars(arguments)).library) as library:
            model = library.settings().get("model", "embedded")
    except LibraryNotFoundError:
        return "embedded"
    return "embedded" if model == "auto" else model


def _estimate(
    arguments: Namespace, source: CaptionSource, options: Options, settings: Settings, team: Team
) -> None:
    from training.estimate import estimate_run

    found = estimate_run(
        source, _start_from(arguments), options=options, settings=settings, tell=say, team=team
    )
    tell_estimate(found, as_json=arguments.json)


train = Command(_configure, _run)
