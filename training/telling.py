"""What the training command says: progress, a run's report, and an estimate."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from clipsearch.command import print_json, say
from clipsearch.counting import counted

if TYPE_CHECKING:
    from training.estimate import Estimate
    from training.loop import Step
    from training.run import RunReport

_LINE_EVERY_S = 5.0


def tell_report(report: RunReport, *, as_json: bool) -> None:
    """What a run found, for people or as JSON."""
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


def tell_estimate(found: Estimate, *, as_json: bool) -> None:
    """What a run would take, for people or as JSON."""
    if as_json:
        print_json(asdict(found))
        return
    print(
        f"{counted(found.pictures, 'picture')} with {counted(found.captions, 'caption')}, "
        f"{found.held_out:,} held "
        f"out; learning: {found.learn}"
    )
    times = "twice: to be judged, and on all pictures" if found.trainings == 2 else "once"
    print(
        f"{counted(found.steps, 'step')} of {counted(found.batch_size, 'picture')}, {times}; "
        f"{found.step_s:.3g} s each"
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


class Progress:
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
