"""The results as tables for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from training.evaluating.bootstrap import Interval
from training.evaluating.measuring import ModelReport
from training.evaluating.probes import FewShot
from training.evaluating.recommending import Recommendation
from training.evaluating.robustness import effective_robustness
from training.evaluation import CUTOFFS

Row = Sequence[str]


@dataclass(frozen=True)
class Table:
    """Cells as text; ``part`` names what was measured."""

    part: str
    title: str
    columns: Row
    rows: Sequence[Row]


def lines_of(reports: Sequence[ModelReport], recommendation: Recommendation | None) -> list[str]:
    """Lines for people, a table for each part that was measured."""
    found = tables_of(reports, recommendation)
    if any(table.part == "robustness" for table in found):
        found.append(table_of_corruptions(reports))
    lines = [line for table in found for line in (*_lines(table), "")]
    if recommendation is not None:
        chosen = recommendation.model or "none"
        lines += [f"Recommended for this machine: {chosen}: {recommendation.why}"]
        lines += textwrap.wrap(recommendation.rule, 100)
    return lines


def tables_of(reports: Sequence[ModelReport], recommendation: Recommendation | None) -> list[Table]:
    """A table for each part that was measured, and one that compares models."""
    made = [
        make(reports)
        for make in (_retrieval, _zero_shot, _wording, _probe, _few_shot, _robustness, _timing)
    ]
    if recommendation is not None:
        made.append(_comparison(recommendation))
    return [table for table in made if table is not None]


def short(model: str) -> str:
    """An address that fits into a column: of a folder its last two parts."""
    if model.startswith("local-dir:"):
        return "…/" + "/".join(model.replace("\\", "/").rstrip("/").split("/")[-2:])
    return model


def _retrieval(reports: Sequence[ModelReport]) -> Table | None:
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
        return None
    judged = next(one.retrieval.found for one in reports if one.retrieval)
    title = f"Retrieval: {judged.captions:,} captions, {judged.pictures:,} pictures; percent"
    return Table("retrieval", title, ("model", "", "R@1", "R@5", "R@10", "median rank"), rows)


def _zero_shot(reports: Sequence[ModelReport]) -> Table | None:
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
        return None
    judged = next(one.zero_shot for one in reports if one.zero_shot)
    title = f"Zero-shot: {judged.pictures:,} pictures, {judged.classes:,} classes; percent"
    return Table(
        "zero-shot", title, ("model", "", "top-1", "top-5", "mean per class", "gain"), rows
    )


def _wording(reports: Sequence[ModelReport]) -> Table | None:
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
    return (
        Table("wording", title, ("model", "lowest", "highest", "mean ± sd"), rows) if rows else None
    )


def _probe(reports: Sequence[ModelReport]) -> Table | None:
    rows = [
        (
            short(one.model),
            f"{one.linear_probe.top1:.1f}",
            f"{one.linear_probe.c:.3g}",
            f"{one.linear_probe.classes:,}",
            f"{one.linear_probe.trained_on:,}",
            f"{one.linear_probe.judged_on:,}",
        )
        for one in reports
        if one.linear_probe is not None
    ]
    columns = ("model", "top-1", "C", "classes", "learned from", "judged on")
    return Table("probe", "Linear probe", columns, rows) if rows else None


def _few_shot(reports: Sequence[ModelReport]) -> Table | None:
    found = [(one, one.few_shot) for one in reports if one.few_shot is not None]
    if not found:
        return None
    shots = found[0][1].shots
    rows = [
        (
            short(one.model),
            *(
                f"{top1:.1f} ± {sd:.1f}"
                for top1, sd in zip(few.top1, few.standard_deviation, strict=True)
            ),
            f"{few.full:.1f}",
            f"{few.zero_shot:.1f}",
            crossing_words(few),
        )
        for one, few in found
    ]
    few = found[0][1]
    title = (
        f"Few-shot probes: labelled pictures a class, {few.classes:,} classes with enough, "
        f"{few.judged_on:,} pictures judged on, {few.seeds} draws; top-1"
    )
    columns = (
        "model",
        *map(str, shots),
        f"all ({few.full_shots:g})",
        "zero-shot",
        "worth of zero-shot",
    )
    return Table("few-shot", title, columns, rows)


def crossing_words(few: FewShot) -> str:
    """How many labels a class zero-shot is worth, in words."""
    sign = {"=": "", "<": "under ", ">": "over "}[few.relation]
    return f"{sign}{few.crossing:.3g} a class"


def _robustness(reports: Sequence[ModelReport]) -> Table | None:
    found = [(one, one.robustness) for one in reports if one.robustness is not None]
    if not found:
        return None
    effective = effective_robustness(
        [held.clean for _, held in found], [held.corrupted for _, held in found]
    )
    rows: list[Row] = [
        (
            short(one.model),
            f"{held.clean:.1f}",
            f"{held.corrupted:.1f}",
            f"{held.kept:.0f} %",
            f"{effective[place]:+.1f}" if effective is not None else "",
        )
        for place, (one, held) in enumerate(found)
    ]
    some = found[0][1]
    title = (
        f"Robustness: {some.measure} of {some.pictures:,} pictures, {len(some.each)} corruptions, "
        f"severities {', '.join(map(str, some.severities))}"
    )
    columns: Row = ("model", "clean", "corrupted", "kept", "effective")
    if effective is None:
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return Table("robustness", title, columns, rows)


def table_of_corruptions(reports: Sequence[ModelReport]) -> Table:
    """Percents of each corruption at each severity, for each model that was measured so."""
    found = [(one, one.robustness) for one in reports if one.robustness is not None]
    heads = [f"{short(one.model)} {level}" for one, held in found for level in held.severities]
    rows = [
        (kind, *(f"{value:.1f}" for _, held in found for value in held.each[kind]))
        for kind in found[0][1].each
    ]
    return Table("corruptions", "Each corruption at each severity", ("", *heads), rows)


def _timing(reports: Sequence[ModelReport]) -> Table | None:
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
    title = "Speed and memory, each in a new process"
    return Table("timing", title, columns, rows) if rows else None


def _comparison(found: Recommendation) -> Table:
    rows = [
        (
            short(one.model),
            f"{one.quality:.1f}",
            f"{one.difference:+.1f} {_span(one.interval)}",
            one.too_much or ("yes" if one.as_good else "no"),
        )
        for one in found.compared
    ]
    columns = ("model", "quality", "difference", "as good")
    return Table("comparison", "Compared with the best", columns, rows)


def _span(interval: Interval, form: str = ".1f") -> str:
    low, high = (f"{end:{form or 'g'}}" for end in interval)
    return f"({low} to {high})"


def _lines(table: Table) -> list[str]:
    every = (table.columns, *table.rows)
    widths = [max(len(row[place]) for row in every) for place in range(len(table.columns))]
    lines = [table.title]
    for row in every:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        lines.append(("  " + "  ".join(cells)).rstrip())
    return lines
