"""Everything a finished run leaves for people: figures, plots, a page, and the model's card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from clipsearch.encoders.openclip import OpenClipModel
from training.data import CaptionSet, CaptionSource
from training.examples import Example
from training.forgetting import Exam
from training.loop import Recipe
from training.model_card import model_card
from training.plots import Line, Mark, line_chart
from training.report_page import report_page
from training.run_folder import CARD, PAGE, PLOTS, REPORT, RunFolder

if TYPE_CHECKING:
    from training.run import RunReport

_THUMBNAIL_SIDE = 160  # pixels
_PHASES = {"judge": "to be judged", "final": "on all pictures"}


def write_reports(
    folder: RunFolder,
    report: RunReport,
    source: CaptionSource,
    found: CaptionSet,
    loaded: OpenClipModel,
    recipe: Recipe,
    exam: Exam,
    examples: Sequence[Example],
) -> None:
    """Writes report.json, the plots, report.html, and the card, also into the export."""
    folder.close()
    folder.write_json(REPORT, {**asdict(report), "export": report.export and str(report.export)})
    plots = draw_plots(folder.steps(), report)
    for name, png in plots.items():
        folder.write_bytes(f"{PLOTS}/{name}.png", png)
    page = report_page(
        report,
        model=loaded.address,
        sources=source.name,
        plots=plots,
        examples=examples if report.export is not None else (),
        thumbnail=lambda place: exam.views.thumbnail(place, _THUMBNAIL_SIDE),
    )
    folder.write_text(PAGE, page)
    card = model_card(
        report,
        model=loaded.address,
        weights_sha256=loaded.weights_sha256,
        captions=sum(len(picture.captions) for picture in found.pictures),
        forms=source.forms,
        recipe=recipe,
    )
    folder.write_text(CARD, card)
    if report.export is not None:
        folder.write_text(f"{report.export.name}/README.md", card)


def draw_plots(steps: Sequence[dict[str, Any]], report: RunReport) -> dict[str, bytes]:
    """PNGs by name: loss and temperature of every step, recall at every mixture."""
    phases: dict[str, list[dict[str, Any]]] = {}
    for step in steps:
        phases.setdefault(step["phase"], []).append(step)

    def over_steps(what: str, *, noisy: bool) -> list[Line]:
        return [
            Line(_PHASES.get(name, name), [s["step"] for s in each], [s[what] for s in each], noisy)
            for name, each in phases.items()
        ]

    alphas = [mixture.alpha for mixture in report.mixtures]
    guard, first = report.forgetting, report.before.text_to_image[10]
    own = [mixture.own.text_to_image[10] - first for mixture in report.mixtures]
    general = [mixture.kept - guard.before for mixture in report.mixtures]
    marks = [Mark("exported", x=report.alpha)]
    if guard.max_forgetting <= 2 * max(map(abs, [5.0, *own, *general])):
        marks.append(Mark("general pictures may fall to here", y=-guard.max_forgetting))
    return {
        "loss": line_chart("Loss", "step", over_steps("loss", noisy=True)),
        "temperature": line_chart(
            "Inverse temperature", "step", over_steps("logit_scale", noisy=False)
        ),
        "recall": line_chart(
            "Recall@10, change in points",
            "share of the new weights",
            [
                Line("your held-out pictures", alphas, own, dots=True),
                Line("general pictures", alphas, general, dots=True),
            ],
            marks,
        ),
    }
