"""The results as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from training.evaluating.bootstrap import Interval
from training.evaluating.measuring import ModelReport
from training.evaluating.recommending import Recommendation
from training.evaluation import CUTOFFS

Row = Sequence[str]


def tables(reports: Sequence[ModelReport], recommendation: Recommendation | None) -> list[str]:
    """Lines for people, a table for each part that was measured."""
    lines: list[str] = []
    for make in (_retrieval, _zero_shot, _wording, _timing):
        lines += make(reports)
    if recommendation is not None:
        lines += _comparison(recommendation)
    return lines


def short(model: str) -> str:
    """An address that fits into a column: of a folder its last two parts."""
    if model.startswith("local-dir:"):
        return "…/" + "/".join(model.replace("\\", "/").rstrip("/").split("/")[-2:])
    return model


def _retrieval(reports: Sequence[ModelReport]) -> list[str]:
    rows: list[Row] = []
    for one in reports:
        if one.retrieval is None:
            continue
        found = one.retrieval.found
        for way, shares, intervals, median in (
            (
                "text to picture",
                found.text_to_image,
                one.retrieval.text_to_image_intervals,
                f"{found.median_rank:g} {_span(one.retrieval.median_rank_interval, '')}",
            ),
            (
                "picture to text",
                found.image_to_text,
                one.retrieval.image_to_text_intervals,
                f"{found.image_median_rank:g}",
            ),
        ):
            cells = [f"{shares[k]:.1f} {_span(intervals[k])}" for k in CUTOFFS]
            rows.append((short(one.model), way, *cells, median))
    if not rows:
        return []
    judged = next(one.retrieval.found for one in reports if one.retrieval)
    title = f"Retrieval: {judged.captions:,} captions, {judged.pictures:,} pictures; percent"
    return _table(title, ("model", "", "R@1", "R@5", "R@10", "median rank"), rows)


def _zero_shot(reports: Sequence[ModelReport]) -> list[str]:
    rows: list[Row] = []
    for one in reports:
        if one.zero_shot is None:
            continue
        judged = one.zero_shot
        for name, found, gain in (
            ("one template", judged.one_template, ""),
            (
                f"{judged.wording.templates} templates",
                judged.ensemble,
                f"{judged.gain:+.1f} {_span(judged.gain_interval)}",
            ),
        ):
            top5 = "" if found.top5 is None else f"{found.top5:.1f}"
            top1 = f"{found.top1:.1f} {_span(found.top1_interval)}"
            rows.append((short(one.model), name, top1, top5, f"{found.mean_per_class:.1f}", gain))
    if not rows:
        return []
    judged = next(one.zero_shot for one in reports if one.zero_shot)
    title = f"Zero-shot: {judged.pictures:,} pictures, {judged.classes:,} classes; percent"
    return _table(title, ("model", "", "top-1", "top-5", "mean per class", "gain"), rows)


def _wording(reports: Sequence[ModelReport]) -> list[str]:
    rows = [
        (
            short(one.model),
            f"{(said := one.zero_shot.wording).lowest:.1f}  {said.lowest_template}",
            f"{said.highest:.1f}  {said.highest_template}",
            f"{said.mean:.1f} ± {said.standard_deviation:.1f}",
        )
        for one in reports
        if one.zero_shot is not None
    ]
    title = "Wording: top-1 with each template by itself"
    return _table(title, ("model", "lowest", "highest", "mean ± sd"), rows)


def _timing(reports: Sequence[ModelReport]) -> list[str]:
    rows = [
        (
            short(one.model),
            f"{one.timing.runtime} {one.timing.precision}",
            f"{one.timing.images_per_s:.1f}",
            f"{one.timing.ms_per_text:.1f}",
            f"{one.timing.load_s:.2f}",
            "" if one.timing.peak_mb is None else f"{one.timing.peak_mb:,.0f}",
        )
        for one in reports
        if one.timing is not None
    ]
    columns = ("model", "runtime", "pictures/s", "ms/text", "load s", "peak MB")
    return _table("Speed and memory, each in a new process", columns, rows)


def _comparison(found: Recommendation) -> list[str]:
    rows = [
        (
            short(one.model),
            f"{one.quality:.1f}",
            f"{one.difference:+.1f} {_span(one.interval)}",
            one.too_much or ("yes" if one.as_good else "no"),
        )
        for one in found.compared
    ]
    lines = _table("Compared with the best", ("model", "quality", "difference", "as good"), rows)
    lines += [f"Recommended for this machine: {found.model or 'none'}: {found.why}", found.rule]
    return lines


def _span(interval: Interval, form: str = ".1f") -> str:
    low, high = (f"{end:{form or 'g'}}" for end in interval)
    return f"({low} to {high})"


def _table(title: str, columns: Row, rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    widths = [max(len(row[place]) for row in (columns, *rows)) for place in range(len(columns))]
    lines = [title]
    for row in (columns, *rows):
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        lines.append(("  " + "  ".join(cells)).rstrip())
    return [*lines, ""]
