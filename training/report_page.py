"""A run's report as one HTML file that needs nothing else: figures, plots, and pictures found."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from html import escape as escape_html
from typing import TYPE_CHECKING

from training.evaluation import CUTOFFS, Retrieval
from training.examples import Example

if TYPE_CHECKING:
    from training.run import RunReport

_STYLE = """
:root { color-scheme: light dark; --line: #d5dae1; --faint: #66707c; --good: #047857;
  --bad: #b45309; --own: #2563eb; --paper: #fff; --ink: #1f2933; }
@media (prefers-color-scheme: dark) { :root { --line: #3a4350; --faint: #9aa5b1; --good: #34d399;
  --bad: #fbbf24; --own: #60a5fa; --paper: #14181d; --ink: #e4e7eb; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  background: var(--paper); color: var(--ink); }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem; }
p { margin: .4rem 0; } .faint { color: var(--faint); }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .8rem; border-bottom: 1px solid var(--line); }
td { white-space: nowrap; }
@media (max-width: 34rem) { th, td { padding: .3rem .4rem; } }
th:first-child, td:first-child { white-space: normal; text-align: left; padding-left: 0; }
th { font-weight: 600; }
tr.chosen td { font-weight: 700; } .good { color: var(--good); } .bad { color: var(--bad); }
.plot { width: 100%; max-width: 40rem; border: 1px solid var(--line); border-radius: 6px;
  display: block; margin: .8rem 0; }
.query { border-top: 1px solid var(--line); padding: .9rem 0; }
.query h3 { font-size: 1rem; margin: 0 0 .4rem; }
.sides { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: 1rem; }
.found { display: flex; gap: 4px; }
.found img { width: calc(20% - 4px); aspect-ratio: 1; object-fit: cover; border-radius: 4px;
  outline-offset: -3px; }
.found img.own { outline: 3px solid var(--own); }
"""


def escape(text: str) -> str:
    """Text as HTML shows it; half characters, which UTF-8 cannot hold, become question marks."""
    return escape_html(text.encode("utf-8", "replace").decode())


def report_page(
    report: RunReport,
    *,
    model: str,
    sources: str,
    plots: Mapping[str, bytes],
    examples: Sequence[Example],
    thumbnail: Callable[[int], bytes],
) -> str:
    """The page, whatever its captions hold; ``plots`` are PNGs by what they show.

    ``thumbnail`` gives JPEGs by place.
    """
    drawn = "".join(
        f'<img class="plot" alt="{escape(name)}" src="data:image/png;base64,{_base64(png)}">'
        for name, png in plots.items()
    )
    guard = report.forgetting
    kept = (
        f"{report.alpha:.0%} of what was learned is mixed into the exported weights."
        if report.export
        else "Nothing was learned that could be kept: nothing is exported, the old model stays."
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>clipsearch: a training run</title>
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head>
<body>
<h1>A training run</h1>
<p class="faint">{escape(model)}, fine-tuned on {report.pictures:,} pictures ({escape(sources)});
learning: {escape(report.learn)}; {report.steps:,} steps.</p>
<p>{kept}</p>
<h2>Your pictures</h2>
<p>{report.held_out:,} pictures were held out of training. Their captions, asked as queries, find
their own picture among them, or another with the same caption:</p>
{_retrieval(report.before, report.after)}
{_doubt(report)}
<h2>Everything else</h2>
<p>Recall@10 on general pictures: <b>{guard.before:.1f} %</b> before, <b>{guard.after:.1f} %</b>
after; it may fall by
{guard.max_forgetting:g} point{"" if guard.max_forgetting == 1 else "s"}. All of what was
learned would have left {guard.unguarded:.1f} %.</p>
<p class="faint">Measured on {escape(guard.trust)}.</p>
{_mixtures(report)}
<h2>What the searches find</h2>
{_examples(examples, thumbnail)}
<h2>How it learned</h2>
{drawn}
<p class="faint">This page holds small copies of your pictures and your captions. Whoever has the
file sees them.</p>
</body></html>
"""


def _retrieval(before: Retrieval, after: Retrieval) -> str:
    rows = [
        (f"among the first {k}" if k > 1 else "first", before.text_to_image[k],
         after.text_to_image[k], " %", 1)
        for k in CUTOFFS
    ]  # fmt: skip
    rows.append(("median rank", before.median_rank, after.median_rank, "", -1))
    cells = ""
    for name, old, new, unit, sign in rows:
        better = sign * (new - old)
        kind = "good" if better > 0 else "bad" if better < 0 else "faint"
        cells += (
            f"<tr><td>{name}</td><td>{old:.1f}{unit}</td><td>{new:.1f}{unit}</td>"
            f'<td class="{kind}">{f"{new - old:+.1f}" if better else "0.0"}</td></tr>'
        )
    head = "<tr><th></th><th>before</th><th>after</th><th>change</th></tr>"
    return f"<table>{head}{cells}</table>"


def _doubt(report: RunReport) -> str:
    from training.run import ENOUGH_TO_JUDGE

    if report.held_out >= ENOUGH_TO_JUDGE:
        return ""
    return (
        f'<p class="bad">Only {report.held_out} pictures are held out: one more or less that is '
        "found decides these figures.</p>"
    )


def _mixtures(report: RunReport) -> str:
    head = (
        "<tr><th>share of the new weights</th><th>yours: first</th><th>in 10</th>"
        "<th>everything else: in 10</th></tr>"
    )
    rows = "".join(
        f"<tr{' class=chosen' if abs(each.alpha - report.alpha) < 0.01 else ''}>"
        f"<td>{each.alpha:.0%}</td><td>{each.own.text_to_image[1]:.1f} %</td>"
        f"<td>{each.own.text_to_image[10]:.1f} %</td><td>{each.kept:.1f} %</td></tr>"
        for each in report.mixtures
    )
    told = "<summary>Every mixture that was measured</summary>"
    return f"<details>{told}<table>{head}{rows}</table></details>"


def _examples(examples: Sequence[Example], thumbnail: Callable[[int], bytes]) -> str:
    if not examples:
        return "<p>The weights are the old ones, so every search finds what it found.</p>"
    cache: dict[int, str] = {}

    def pictures(places: Sequence[int], right: Sequence[int]) -> str:
        found = ""
        for place in places:
            if place not in cache:
                cache[place] = _base64(thumbnail(place))
            kind, told = (' class="own"', "its own picture") if place in right else ("", "another")
            found += f'<img{kind} alt="{told}" src="data:image/jpeg;base64,{cache[place]}">'
        return f'<div class="found">{found}</div>'

    blocks = ""
    for each in examples:
        kind = (
            "good"
            if each.rank_after < each.rank_before
            else "bad"
            if each.rank_after > each.rank_before
            else "faint"
        )
        blocks += (
            f'<div class="query"><h3>{escape(each.query)}</h3><div class="sides">'
            f'<div><p class="faint">before: rank {each.rank_before}</p>'
            f"{pictures(each.before, each.right)}</div>"
            f'<div><p class="{kind}">after: rank {each.rank_after}</p>'
            f"{pictures(each.after, each.right)}</div></div></div>"
        )
    return (
        '<p class="faint">Captions of held-out pictures as queries: those that gained most, those '
        "that lost most, and some that stayed. Framed pictures have that caption. "
        "Judged with weights that never saw these pictures.</p>" + blocks
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
