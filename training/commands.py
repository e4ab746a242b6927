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
    from training.loop import Step
    from training.run import RunReport

_LINE_EVERY_S = 5.0


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--captions",
        type=Path,
        required=True,
        metavar="FILE",
        help="CSV with the columns path,caption; several rows a picture are welcome",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="where the run is kept"
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
        "Several processes share the work: torchrun --nproc-per-node 2 -m clipsearch train ..."
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
        "--device", choices=["auto", "cpu", "cuda"], help="where to train (auto: a GPU if any)"
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="of each process (default: the cores, shared)"
    )


def _run(arguments: Namespace) -> int:
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
    settings = resolve(vars(arguments))
    import torch

    from training.device import choose_device, choose_precision
    from training.loop import Interrupted
    from training.run import Options, fine_tune
    from training.team import join_team, processes_here

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
        probe=arguments.probe and arguments.probe.expanduser().absolute(),
        loss=arguments.loss,
        keep_close=arguments.keep_close,
        layer_decay=arguments.layer_decay,
        chunk=arguments.chunk,
        ema=arguments.ema,
        precision=choose_precision(settings, device),
        checkpoint_blocks=arguments.checkpoint_blocks,
        teacher=arguments.teacher,
        teach=arguments.teach,
        teacher_weight=arguments.teacher_weight,
        last_epoch_size=arguments.last_epoch_size,
    )
    progress = _Progress()
    stopping: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: stopping.append(number))
    try:
        with join_team(device) as team:
            report = fine_tune(
                arguments.captions.expanduser().absolute(),
                arguments.out.expanduser().absolute(),
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
        _tell(report, as_json=arguments.json)
    return errors.DONE


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


class _Progress:
    """Steps, loss and time left, on stderr."""

    def __init__(self) -> None:
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
        left = f"{pace * (step.steps - step.step):.0f} s left" if step.step > self._first else ""
        what = "judging" if phase == "judge" else "final"
        text = f"{what} step {step.step}/{step.steps}  loss {step.loss:.3f}  {left}"
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{text}\x1b[K" + ("\n" if is_last else ""))
            sys.stderr.flush()
        else:
            say(text)


train = Command(_configure, _run)
