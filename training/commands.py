"""The training command: train."""

from __future__ import annotations

import signal
import sys
import time
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from clipsearch import errors
from clipsearch.command import (
    Command,
    add_json_argument,
    add_library_argument,
    add_model_argument,
    print_json,
    say,
)
from clipsearch.config import resolve
from clipsearch.errors import LibraryNotFoundError, UsageError

if TYPE_CHECKING:
    from clipsearch.config import Settings
    from training.data import CaptionSource
    from training.loop import Step
    from training.run import Options, RunReport

_LINE_EVERY_S = 5.0


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
        "pictures); projection; last:N blocks of each tower; lora or lora:RANK",
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
    parser.add_argument("--device", choices=["auto", "cpu"], help="where to train (cpu)")
    parser.add_argument("--threads", type=int, metavar="N", help="default: as many as cores")
    add_json_argument(parser)
    parser.epilog = (
        "Ctrl-C saves a checkpoint; the same command continues from it, with the same result."
    )


def _run(arguments: Namespace) -> int:
    _check(arguments)
    settings = resolve(vars(arguments))
    import torch

    from training.captions.rows import Columns
    from training.data import CaptionSource
    from training.loop import Interrupted
    from training.run import Options, fine_tune
    from training.views import Cut

    torch.set_num_threads(settings.thread_count)
    options = Options(
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        lr=arguments.lr,
        learn=arguments.learn,
        seed=arguments.seed,
        val_fraction=arguments.val_fraction,
        keep_held_out=arguments.keep_held_out,
        max_forgetting=arguments.max_forgetting,
        probe=arguments.probe and arguments.probe.expanduser().absolute(),
        loss=arguments.loss,
        keep_close=arguments.keep_close,
        layer_decay=arguments.layer_decay,
        chunk=arguments.chunk,
        cut=Cut(arguments.crop_scale, arguments.aspect_jitter, arguments.flip),
    )
    source = CaptionSource(
        tuple(path.expanduser().absolute() for path in arguments.captions),
        settings.library if arguments.from_library else None,
        Columns(arguments.image_column, arguments.caption_column),
    )
    if arguments.estimate:
        _estimate(arguments, source, options, settings)
        return errors.DONE
    progress = _Progress(trainings=1 if arguments.keep_held_out else 2)
    stopping: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: stopping.append(number))
    try:
        report = fine_tune(
            source,
            arguments.out.expanduser().absolute(),
            _start_from(arguments),
            options=options,
            settings=settings,
            tell=say,
            on_step=progress.show,
            should_stop=lambda: bool(stopping),
        )
    except Interrupted:
        say("\nStopped and saved. The same command continues from here.")
        return errors.INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, before)
    _tell(report, as_json=arguments.json)
    return errors.DONE


def _check(arguments: Namespace) -> None:
    """UsageError for values that cannot be used."""
    for name in ("epochs", "batch_size"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UsageError(reason=f"--{name.replace('_', '-')} must be at least 1, not {value}")
    if arguments.chunk < 0:
        raise UsageError(reason=f"--chunk must be at least 0, not {arguments.chunk}")
    for name in ("max_forgetting", "keep_close"):
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


def _tell(report: RunReport, *, as_json: bool) -> None:
    if as_json:
        print_json(asdict(report))
        return
    print(f"On {report.held_out} held-out pictures, captions that find theirs:")
    print(f"{'':<12}{'first':>8}{'in 5':>8}{'in 10':>8}{'median rank':>14}")
    for name, found in (("before", report.before), ("after", report.after)):
        shares = "".join(f"{found.text_to_image[k]:>7.1f}%" for k in (1, 5, 10))
        print(f"{name:<12}{shares}{found.median_rank:>14.1f}")
    guard = report.forgetting
    print(f"\nEverything else, recall@10: {guard.before:.1f}% before, {guard.after:.1f}% after")
    print(f"  measured on {guard.trust}")
    if report.export is None:
        print(
            "\nNothing was learned that could be kept: every mixture of the old and the new\n"
            "weights either finds your pictures less well or forgets more than "
            f"{guard.max_forgetting:g} points.\nThe old model stays as it is."
        )
        return
    print(
        f"  {report.alpha:.0%} of what was learned is mixed in; all of it would have left "
        f"{guard.unguarded:.1f}%"
    )
    print(f"\nThe model: {report.export}")
    print(f"Use it:    clipsearch index --model local-dir:{report.export}")


def _estimate(
    arguments: Namespace, source: CaptionSource, options: Options, settings: Settings
) -> None:
    from training.estimate import estimate_run

    found = estimate_run(
        source, _start_from(arguments), options=options, settings=settings, tell=say
    )
    if arguments.json:
        print_json(asdict(found))
        return
    print(
        f"{found.pictures:,} pictures with {found.captions:,} captions, {found.held_out:,} held "
        f"out; learning: {found.learn}"
    )
    times = "twice: to be judged, and on all pictures" if found.trainings == 2 else "once"
    print(
        f"{found.steps:,} steps of {found.batch_size} pictures, {times}; {found.step_s:.3g} s each"
    )
    print(f"{'reading and loading':<22}{in_words(found.read_s):>12}")
    print(f"{'training':<22}{in_words(found.train_s):>12}")
    print(f"{'measuring':<22}{in_words(found.judge_s):>12}")
    print(f"{'all of it':<22}{in_words(found.total_s):>12}")
    if found.peak_memory_bytes is not None:
        print(f"{'memory at most':<22}{found.peak_memory_bytes / 1e9:>9.1f} GB")


def in_words(time_s: float) -> str:
    """A length of time for people: ``48 s``, ``12 min``, ``3 h 05 min``."""
    if time_s < 90:
        return f"{max(1, round(time_s))} s"
    minutes = round(time_s / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"


class _Progress:
    """Steps, loss and time left, on stderr; the time is that of all trainings that follow."""

    def __init__(self, trainings: int) -> None:
        self._trainings = trainings
        self._phase = ""
        self._started = self._shown_at = time.monotonic()
        self._first = 0

    def show(self, phase: str, step: Step) -> None:
        now = time.monotonic()
        if phase != self._phase:
            self._phase, self._started, self._first = phase, now, step.step
            self._shown_at = 0.0
        is_last = step.step == step.steps
        every = 0.2 if sys.stderr.isatty() else _LINE_EVERY_S
        if now - self._shown_at < every and not is_last:
            return
        self._shown_at = now
        pace = (now - self._started) / max(1, step.step - self._first)
        steps_left = step.steps - step.step
        if phase == "judge":
            steps_left += (self._trainings - 1) * step.steps
        left = f"about {in_words(pace * steps_left)} left" if step.step > self._first else ""
        what = "judging" if phase == "judge" else "final"
        text = f"{what} step {step.step}/{step.steps}  loss {step.loss:.3f}  {left}"
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{text}\x1b[K" + ("\n" if is_last else ""))
            sys.stderr.flush()
        else:
            say(text)


train = Command(_configure, _run)
