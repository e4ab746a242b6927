"""The results as one HTML page that needs nothing else: figures, plots, and what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from training.evaluating import charts
from training.evaluating.dataset import Dataset
from training.evaluating.measuring import ModelReport
from training.evaluating.recommending import Recommendation
from training.evaluating.tables import Table, short, table_of_corruptions, tables_of
from training.evaluation import CUTOFFS

_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --paper: #fff; --faint: #d9dce1; --soft: #666b73;
  --m0: #2a7f78; --m1: #c2571a; --m2: #5b5fc7; --m3: #a83271; --m4: #6b7d1e; --m5: #8a6d3b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e7e9; --paper: #16181c; --faint: #353941;
  --soft: #9aa0a8; --m0: #56b8af; --m1: #ec8b4f; --m2: #9b9ef0; --m3: #e07ab0; --m4: #b3c65c;
  --m5: #cfae78; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .4rem; }
p, li { max-width: 46rem; } .note, figcaption { color: var(--soft); font-size: .9rem; }
.advice { border-left: 4px solid var(--m0); padding: .3rem 0 .3rem .8rem; margin: 1rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .9rem .25rem 0; text-align: left; border-bottom: 1px solid var(--faint);
  white-space: nowrap; vertical-align: top; }
th { font-weight: 600; } figure { margin: .8rem 0; }
svg { max-width: 100%; height: auto; display: block; }
svg text { font-size: 12px; fill: var(--soft); text-anchor: middle; }
svg .start { text-anchor: start; } svg .end { text-anchor: end; }
.grid { stroke: var(--faint); fill: none; } .whisker { stroke: var(--ink); fill: none; }
.line { fill: none !important; stroke-width: 2.5; } .dashed { stroke-dasharray: 6 5; }
.soft { fill-opacity: .4; stroke: none; } .mark { stroke: var(--ink); stroke-width: 2; }
.bold { stroke-width: 4; }
.legend span { margin-right: 1.2rem; white-space: nowrap; }
.legend i { display: inline-block; width: .8rem; height: .8rem; margin-right: .35rem;
  border-radius: 2px; vertical-align: -1px; }
td.shade { background: color-mix(in srgb, var(--m0) var(--share), transparent); text-align: right;
  padding: .25rem .6rem; border-color: var(--paper); }
""" + "\n".join(
    f".m{n} {{ fill: var(--m{n}); stroke: var(--m{n}); }} i.m{n} {{ background: var(--m{n}); }}"
    for n in range(6)
)
_SAFE = "default-src 'none'; style-src 'unsafe-inline'"


def write_page(
    reports: Sequence[ModelReport],
    advice: Recommendation | None,
    dataset: Dataset,
    to: Path,
    command: str,
) -> None:
    """Writes the page; ``command`` is what makes it again. Raises OSError."""
    names = [short(one.model) for one in reports]
    parts = [
        f"<h1>{escape(' and '.join(names))}</h1>",
        f"<p>Measured on {escape(dataset.name)}, {len(dataset.pictures):,} pictures, "
        f"{datetime.now(UTC):%Y-%m-%d}. Intervals are of 95 %, by bootstrap over pictures.</p>",
        *(f'<p class="note">{escape(note)}</p>' for note in dataset.notes),
    ]
    if advice is not None:
        parts.append(
            f'<p class="advice"><b>Recommended for this machine: {escape(advice.model or "none")}'
            f"</b>: {escape(advice.why)}.<br><span class=note>{escape(advice.rule)}</span></p>"
        )
    plots = _plots(reports, names)
    for table in tables_of(reports, advice):
        parts.append(f"<h2>{escape(table.title)}</h2>{_table(table)}")
        parts += plots.get(table.part, [])
    parts.append(
        f'<h2>Again</h2><p><code>{escape(command)}</code></p><table class="note">'
        + "".join(
            f"<tr><td>{escape(short(one.model))}</td><td>space {one.space}</td>"
            f"<td>weights {one.weights_sha256[:16]}</td></tr>"
            for one in reports
        )
        + "</table>"
    )
    to.write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_SAFE}">'
        f"<title>Evaluation of {escape(', '.join(names))}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n",
        encoding="utf-8",
        errors="replace",  # bytes of a path that are no UTF-8
    )


def _plots(reports: Sequence[ModelReport], names: Sequence[str]) -> dict[str, list[str]]:
    """The plots of each part, by the name of its table."""
    legend = charts.legend(names)
    found: dict[str, list[str]] = {}
    if retrieved := [one.retrieval for one in reports if one.retrieval]:
        series = [
            [(judged.found.text_to_image[k], judged.text_to_image_intervals[k]) for k in CUTOFFS]
            for judged in retrieved
        ]
        plot = charts.bars([f"R@{k}" for k in CUTOFFS], series)
        found["retrieval"] = [_figure(legend + plot, "Captions that find their picture.")]
    if worded := [(one, one.zero_shot) for one in reports if one.zero_shot]:
        rows = [
            (
                short(one.model),
                [*zip(judged.wording.each, judged.wording.sentences, strict=True)],
                judged.one_template.top1,
                judged.ensemble.top1,
            )
            for one, judged in worded
        ]
        words = (
            "Each dot is a template by itself; the thin line is “a photo of a {}.”, the thick one "
            "all templates together."
        )
        found["wording"] = [_figure(charts.strips(rows), words)]
    if few := [(one, one.few_shot) for one in reports if one.few_shot]:
        curves = [
            (
                short(one.model),
                [
                    *zip(tried.shots, tried.top1, tried.standard_deviation, strict=True),
                    *([(tried.full_shots, tried.full, 0.0)] * (tried.full_shots > tried.shots[-1])),
                ],
                tried.zero_shot,
            )
            for one, tried in few
        ]
        each = few[0][1]
        last = (
            f"all ({each.full_shots:g})"
            if each.full_shots > each.shots[-1]
            else str(each.shots[-1])
        )
        words = (
            "Labelled pictures a class. Where a line crosses its dashed one, labels have caught up."
        )
        found["few-shot"] = [_figure(legend + charts.lines(curves, last), words)]
    if any(one.robustness for one in reports):
        found["robustness"] = [_shades(table_of_corruptions(reports))]
    timed = [(one, one.timing) for one in reports if one.timing]
    if len(timed) > 1:
        where = [(short(one.model), speed.images_per_s, one.quality) for one, speed in timed]
        plot = charts.points(where, "pictures a second")
        found["timing"] = [_figure(plot, "Quality over speed: up and to the right is better.")]
    return found


def _figure(plot: str, words: str) -> str:
    return f"<figure>{plot}<figcaption>{escape(words)}</figcaption></figure>"


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.columns)
    rows = (
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def _shades(table: Table) -> str:
    """A table of percents, the higher the darker."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.columns)
    rows = (
        f"<tr><td>{escape(name)}</td>"
        + "".join(
            f'<td class="shade" style="--share: {0.6 * float(v):.0f}%">{escape(v)}</td>'
            for v in cells
        )
        + "</tr>"
        for name, *cells in table.rows
    )
    words = "Each corruption at each severity, in percent; the paler, the more is lost."
    return (
        f'<figure class="wide"><table><tr>{head}</tr>{"".join(rows)}</table>'
        f"<figcaption>{words}</figcaption></figure>"
    )
